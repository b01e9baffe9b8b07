"""One spelling for every config.json, and what it takes to get the original one back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import (
    Architecture,
    rounded_up,
)
from hubclient.architectures.language.config import difference, normalise, restore, spell
from hubclient.architectures.language.pairs import forward
from hubclient.errors import DamagedInput
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan

EVERY = {item.name: item for item in Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()}

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), JSON, max_size=5)


# Differences


@given(OBJECTS, OBJECTS)
def test_a_difference_turns_one_object_into_the_other(original: dict[str, Any], rebuilt: dict[str, Any]):
    changes = difference(original, rebuilt)
    assert identical(restore(rebuilt, changes), original)


@given(OBJECTS)
def test_equal_objects_differ_in_nothing(content: dict[str, Any]):
    assert difference(content, dict(content)) == {"set": {}, "unset": []}


def identical(one: Any, two: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(identical(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(identical, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


# Spellings

ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # Transformers 4, Transformers 5
    "theta alone": ({"rope_theta": 5e5, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
    "nothing": ({}, {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}),
    "linear, under its oldest name": (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
    ),
    "linear under both names": (
        {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
    ),
    "yarn without the original length": (
        {"rope_theta": 1e6, "max_position_embeddings": 32768, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
    ),
    "llama3": (
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        {
            "rope_parameters": {
                "rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
        },
    ),
}  # fmt: skip


def metadata_of(architecture: Architecture, raw: dict[str, Any]) -> dict[str, Any]:
    return forward(architecture.config, normalise(raw, architecture.defaults), architecture.name_in("gguf"))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize(("four", "five"), ROPES.values(), ids=ROPES.keys())
def test_both_spellings_of_rope_give_the_same_metadata(family: str, four: dict[str, Any], five: dict[str, Any]):
    architecture = EVERY[family]
    assert metadata_of(architecture, four) == metadata_of(architecture, five)
    one, two = (normalise(raw, architecture.defaults) for raw in (four, five))
    assert one["rope_parameters"] == two["rope_parameters"]
    assert [derived.forward(one) is None for derived in architecture.layouts["gguf"].derive.values()] == [
        derived.forward(two) is None for derived in architecture.layouts["gguf"].derive.values()
    ]


@pytest.mark.parametrize("family", sorted(EVERY))
def test_a_nested_text_config_is_read_as_if_it_lay_at_the_top(family: str):
    architecture = EVERY[family]
    inner = {architecture.blocks: 3, "vocab_size": 77, "rope_theta": 123.0, "torch_dtype": "float16"}
    nested = normalise({"text_config": inner, "vocab_size": 5, "model_type": "outer"}, architecture.defaults)
    flat = normalise({**inner, "model_type": "outer"}, architecture.defaults)
    assert {key: value for key, value in nested.items() if key != "text_config"} == flat


def test_both_names_of_the_dtype_are_read():
    assert normalise({"torch_dtype": "float16"}, {})["dtype"] == "float16"
    assert normalise({"dtype": "float16"}, {})["dtype"] == "float16"


def test_a_head_size_that_is_absent_or_null_follows_from_the_hidden_size():
    for raw in ({}, {"head_dim": None}):
        config = normalise({"hidden_size": 96, "num_attention_heads": 4, **raw}, EVERY["llama"].defaults)
        assert config["head_dim"] == 24
    assert normalise({"head_dim": 64}, EVERY["llama"].defaults)["head_dim"] == 64


def test_key_value_heads_that_are_null_are_as_many_as_heads():
    for family, absent in (("llama", 6), ("mistral", 8), ("qwen2", 32)):
        defaults = EVERY[family].defaults
        sizes = {"hidden_size": 96, "num_attention_heads": 6}
        assert normalise({**sizes, "num_key_value_heads": None}, defaults)["num_key_value_heads"] == 6
        assert normalise(sizes, defaults)["num_key_value_heads"] == absent


def test_the_older_spelling_is_written_because_both_versions_read_it():
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert spell({"a": 1, "rope_parameters": rope, "dtype": "bfloat16"}) == {
        "a": 1,
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "torch_dtype": "bfloat16",
    }
    assert spell({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}) == {"rope_theta": 1e4}


@pytest.mark.parametrize(("four", "five"), ROPES.values(), ids=ROPES.keys())
def test_spelling_and_reading_again_changes_nothing(four: dict[str, Any], five: dict[str, Any]):
    for raw in (four, five):
        config = normalise(raw, EVERY["llama"].defaults)
        assert normalise(spell(config), EVERY["llama"].defaults)["rope_parameters"] == config["rope_parameters"]


@pytest.mark.parametrize("scaling", ["linear", ["linear", 2.0], 4.0])
def test_rope_settings_that_are_no_object_are_damaged_input(scaling: Any):
    with pytest.raises(DamagedInput, match="where an object is needed"):
        normalise({"rope_scaling": scaling}, EVERY["llama"].defaults)


def test_other_spellings_of_a_key_count_where_the_key_is_absent():
    aliases = {"n_embed": "hidden_size", "rope_parameters.rope_theta": "rotary_emb_base"}
    assert normalise({"n_embed": 8}, {"hidden_size": 4}, aliases)["hidden_size"] == 8
    assert normalise({"n_embed": 8, "hidden_size": 6}, {"hidden_size": 4}, aliases)["hidden_size"] == 6
    assert normalise({"rope_parameters": {"rope_theta": 5.0}}, {"rotary_emb_base": 1}, aliases)["rotary_emb_base"] == 5.0
    assert normalise({"n_embed": None}, {"hidden_size": 4}, aliases)["hidden_size"] == 4


def test_the_rotated_part_of_a_head_is_one_key_in_either_version():
    five = normalise({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, {})
    four = normalise({"partial_rotary_factor": 0.5, "rope_theta": 1e4}, {})
    assert five["rope_parameters"] == four["rope_parameters"]
    assert five["partial_rotary_factor"] == four["partial_rotary_factor"] == 0.5


SETS = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.mark.parametrize(
    "raw",
    [
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 8.0}, "rope_local_base_freq": 1e4},
        {"rope_parameters": SETS},
        {"rope_parameters": {"full_attention": {**SETS["full_attention"]}}},
    ],
    ids=["default", "older", "newer", "one"],
)
def test_rope_sets_of_two_kinds_of_blocks_are_one_spelling(raw: dict[str, Any]):
    config = normalise(raw, {"rope_theta": 1e6, "rope_local_base_freq": 1e4})
    assert config["rope_parameters"] == SETS
    assert spell(config).items() >= {"rope_theta": 5e5, "rope_local_base_freq": 1e4}.items()
    assert normalise(spell(config), {})["rope_parameters"] == SETS


def test_sets_of_families_that_knew_no_other_spelling_stay_sets():
    assert spell(normalise({"rope_parameters": SETS}, {})) == {"rope_parameters": SETS}


def test_auto_is_what_follows_from_other_keys():
    defaults = {"rank": rounded_up("size", 16)}
    assert [normalise({"size": 100, **raw}, defaults)["rank"] for raw in ({}, {"rank": "auto"}, {"rank": 5})] == [7, 7, 5]


@pytest.mark.parametrize("value", [-1, "x", [1]])
def test_rope_settings_of_a_kind_of_layer_that_are_no_object_are_damaged_input(value: Any):
    config = {"rope_local_base_freq": 1e4, "rope_parameters": {"full_attention": value, "sliding_attention": {}}}
    with pytest.raises(DamagedInput, match=r"rope settings are .* where an object is needed"):
        normalise(config, {}, {})
