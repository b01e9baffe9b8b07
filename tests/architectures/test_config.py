"""Config pairs read both ways, and one spelling for every config.json."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import (
    Architecture,
    Fixed,
    Multiple,
    Pair,
    by_value,
    code,
    f32,
    labels,
    product,
    ratio,
    rounded_up,
    text,
    u32,
)
from hubclient.architectures.language.config import difference, normalise, restore, spell
from hubclient.architectures.language.expressions import evaluate, lookup
from hubclient.architectures.language.pairs import backward, forward
from hubclient.architectures.language.typed import shortest_float32
from hubclient.errors import DamagedInput
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan

EVERY = {item.name: item for item in Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()}

PAIRS = (
    u32("layers", "block_count"),
    f32("eps", "norm_eps"),
    text("rope_parameters.rope_type", "rope.type", when={"rope_parameters.rope_type": ("linear", "yarn")}),
    f32("rope_parameters.factor", "rope.factor", when={"rope_parameters.rope_type": ("linear",)}),
    Pair("is_causal", "causal", "bool"),
    labels("id2label", "labels"),
    code("pooling", "pooling_type", {"mean": 1, "cls": 2}),
    u32("layers", "general.copies"),
    Fixed("always", "bool", value=False),
)

FLOATS32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "layers": st.integers(0, 2**32 - 1),
        "eps": FLOATS32.map(shortest_float32),
        "rope_parameters": st.one_of(
            st.fixed_dictionaries({"rope_type": st.just("linear"), "factor": FLOATS32.map(shortest_float32)}),
            st.just({"rope_type": "yarn"}),
        ),
        "is_causal": st.booleans(),
        "id2label": st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(
            lambda items: {str(at): item for at, item in enumerate(items)}
        ),
        "pooling": st.sampled_from(["mean", "cls"]),
    },
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), JSON, max_size=5)


# Pairs


@given(CONFIGS)
def test_what_pairs_write_they_read_again(config: dict[str, Any]):
    metadata = forward(PAIRS, config, "fam")
    assert backward(PAIRS, metadata, "fam") == config
    assert metadata["fam.always"] == ("bool", False)
    assert metadata.get("general.copies") == metadata.get("fam.block_count")


@given(CONFIGS)
def test_what_pairs_read_they_write_again(config: dict[str, Any]):
    metadata = forward(PAIRS, config, "fam")
    assert forward(PAIRS, backward(PAIRS, metadata, "fam"), "fam") == metadata


def test_the_first_key_that_is_present_decides():
    assert backward(PAIRS, {"fam.block_count": 4, "general.copies": 5}, "fam") == {"layers": 4}
    assert backward(PAIRS, {"general.copies": 5}, "fam") == {"layers": 5}


def test_a_condition_keeps_a_key_out():
    assert "fam.rope.type" not in forward(PAIRS, {"rope_parameters": {"rope_type": "default"}}, "fam")
    assert "fam.rope.factor" not in forward(PAIRS, {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "fam")


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"layers": -1}, "layers is -1, which cannot be stored as u32"),
        ({"layers": 2**32}, "cannot be stored as u32"),
        ({"layers": 2.0}, "cannot be stored as u32"),
        ({"layers": True}, "cannot be stored as u32"),
        ({"layers": "2"}, "cannot be stored as u32"),
        ({"layers": [2]}, "cannot be stored as u32"),
        ({"eps": "1e-6"}, "cannot be stored as f32"),
        ({"eps": 1e39}, "cannot be stored as f32"),
        ({"eps": 10**400}, "cannot be stored as f32"),
        ({"eps": float("nan")}, "cannot be stored as f32"),
        ({"eps": False}, "cannot be stored as f32"),
        ({"is_causal": 1}, "cannot be stored as bool"),
        ({"id2label": ["a"]}, "cannot be stored as labels"),
        ({"id2label": {"x": "a"}}, "cannot be stored as labels"),
        ({"id2label": {"0": 3}}, "cannot be stored as labels"),
        ({"pooling": "max"}, "has no code; known are mean, cls"),
        ({"pooling": ["mean"]}, "has no code"),
    ],
)
def test_config_values_that_do_not_fit_are_damaged_input(config: dict[str, Any], fault: str):
    with pytest.raises(DamagedInput, match=fault):
        forward(PAIRS, config, "fam")


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"fam.block_count": "2"}, "block_count is '2' where u32 is needed"),
        ({"fam.block_count": True}, "where u32 is needed"),
        ({"fam.block_count": [2]}, "is an array where u32 is needed"),
        ({"fam.norm_eps": "x"}, "where f32 is needed"),
        ({"fam.norm_eps": float("nan")}, "where f32 is needed"),
        ({"fam.norm_eps": float("-inf")}, "where f32 is needed"),
        ({"fam.causal": 1}, "where bool is needed"),
        ({"fam.rope.type": 1}, "where str is needed"),
        ({"fam.rope.type": "\udcff"}, "where str is needed"),
        ({"fam.labels": 5}, "labels is 5 where labels is needed"),
        ({"fam.labels": "ab"}, "where labels is needed"),
        ({"fam.labels": [1, 2]}, "is an array where labels is needed"),
        ({"fam.pooling_type": 9}, "pooling_type is 9, which stands for nothing known"),
    ],
)
def test_metadata_of_the_wrong_kind_is_damaged_input(metadata: dict[str, Any], fault: str):
    with pytest.raises(DamagedInput, match=fault):
        backward(PAIRS, metadata, "fam")


def test_labels_are_stored_in_the_order_of_their_numbers():
    config = {"id2label": {str(at): f"label {at}" for at in (10, 9, 2, 1, 0, 3, 4, 5, 6, 7, 8)}}
    assert forward(PAIRS, config, "fam")["fam.labels"][1] == [f"label {at}" for at in range(11)]


@given(FLOATS32)
def test_the_shortest_decimal_has_the_same_float32_value(value: float):
    short = shortest_float32(value)
    assert struct.pack("<f", short) == struct.pack("<f", value)
    assert len(repr(short)) <= len(repr(value))


@pytest.mark.parametrize(
    "text_", ["1e-06", "1e-05", "1e-12", "10000.0", "500000.0", "1000000.0", "0.1", "50.0", "3.4028235e+38", "-0.0"]
)
def test_decimals_that_configs_hold_come_back_as_they_were_written(text_: str):
    (stored,) = struct.unpack("<f", struct.pack("<f", float(text_)))
    assert repr(shortest_float32(stored)) == text_


def test_a_double_too_large_for_float32_stays_what_it_is():
    assert shortest_float32(1e300) == 1e300


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


# Expressions


def test_expressions_over_config_values():
    config = {"hidden": 96, "heads": 6, "nested": {"deep": 4}}
    assert evaluate(ratio("hidden", "heads"), config) == 16
    assert evaluate(product(2, product("heads", "nested.deep")), config) == 48
    assert evaluate(by_value("heads", {6: "hidden"}, 1), config) == 96
    assert evaluate(by_value("absent", {6: "hidden"}, 1), config) == 1
    assert lookup(config, "nested.deep.deeper") is None


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("absent", "absent is None where a positive integer is needed"),
        ("zero", "zero is 0 where a positive integer is needed"),
        ("text", "text is '8' where a positive integer is needed"),
        ("yes", "yes is True where a positive integer is needed"),
        ("half", "half is 0.5"),
        ("huge", "huge is 1000"),
        (ratio("ten", "three"), r"ten / three is 10 / 3, which is no whole number"),
        (ratio("three", "ten"), "which is no whole number"),
        (by_value("list", {1: "ten"}, "absent"), "absent is None"),
    ],
)
def test_expressions_that_come_to_nothing_are_damaged_input(expression: Any, fault: str):
    config = {"zero": 0, "text": "8", "yes": True, "half": 0.5, "huge": 10**400, "ten": 10, "three": 3, "list": [1]}
    with pytest.raises(DamagedInput, match=fault):
        evaluate(expression, config)


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


def test_a_value_that_readers_assume_is_not_written():
    pair = f32("theta", "rope.freq_base", unless=(10000.0,))
    assert forward((pair,), {"theta": 10000}, "m") == {}
    assert forward((pair,), {"theta": 5e5}, "m") == {"m.rope.freq_base": ("f32", 5e5)}
    assert backward((pair,), {"m.rope.freq_base": 5e5}, "m") == {"theta": 5e5}


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


def test_a_number_may_stand_for_null():
    pair = u32("sliding_window", "window", null=0)
    assert [forward((pair,), raw, "m")["m.window"][1] for raw in ({}, {"sliding_window": None}, {"sliding_window": 7})] == [
        0,
        0,
        7,
    ]
    assert [backward((pair,), {"m.window": stored}, "m") for stored in (0, 7)] == [{}, {"sliding_window": 7}]


def test_a_factor_is_stored_as_the_size_that_it_makes():
    pair = Multiple("expand", "size", "inner")
    assert forward((pair,), {"expand": 2, "size": 64}, "m") == {"m.inner": ("u32", 128)}
    assert pair.backward({"m.inner": 192}, "m", {"size": 64}) == {"expand": 3}
    with pytest.raises(DamagedInput, match="no multiple of 64"):
        pair.backward({"m.inner": 100}, "m", {"size": 64})


def test_a_value_that_another_architecture_would_have_is_refused():
    pair = Fixed("flag", "bool", value=False, only=True)
    assert backward((pair,), {"m.flag": False}, "m") == backward((pair,), {}, "m") == {}
    with pytest.raises(DamagedInput, match="flag is True where m models have False"):
        backward((pair,), {"m.flag": True}, "m")


@pytest.mark.parametrize("value", [-1, "x", [1]])
def test_rope_settings_of_a_kind_of_layer_that_are_no_object_are_damaged_input(value: Any):
    config = {"rope_local_base_freq": 1e4, "rope_parameters": {"full_attention": value, "sliding_attention": {}}}
    with pytest.raises(DamagedInput, match=r"rope settings are .* where an object is needed"):
        normalise(config, {}, {})
