"""Config pairs and expressions over config values: what is written, and read again."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import (
    Fixed,
    Multiple,
    Pair,
    by_value,
    code,
    f32,
    labels,
    product,
    ratio,
    text,
    u32,
)
from hubclient.architectures.language.expressions import evaluate, lookup
from hubclient.architectures.language.pairs import backward, forward
from hubclient.architectures.language.typed import shortest_float32
from hubclient.errors import DamagedInput

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


def test_a_value_that_readers_assume_is_not_written():
    pair = f32("theta", "rope.freq_base", unless=(10000.0,))
    assert forward((pair,), {"theta": 10000}, "m") == {}
    assert forward((pair,), {"theta": 5e5}, "m") == {"m.rope.freq_base": ("f32", 5e5)}
    assert backward((pair,), {"m.rope.freq_base": 5e5}, "m") == {"theta": 5e5}


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
