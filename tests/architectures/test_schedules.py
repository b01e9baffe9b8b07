"""Schedules: which blocks are of a kind, written as arrays and read again, or told from the tensors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import Alternating, Kinds, every, listed, offset_of, others, period_of
from hubclient.architectures.language.schedules import periodic
from hubclient.errors import DamagedInput

HEADS = Alternating("heads", "attention.head_count_kv", "period", "offset")
SLIDING = Kinds("layer_types", "pattern", "sliding", "full", assume=others(every(6, -1)), otherwise=others(every("period", -1)))
PERIODS = st.integers(1, 9).flatmap(lambda period: st.tuples(st.just(period), st.integers(0, period - 1)))


def there(period: int, offset: int, blocks: int) -> list[int]:
    return [block for block in range(blocks) if block % period == offset]


@given(PERIODS, st.integers(1, 40))
def test_blocks_in_regular_distances_have_a_period_that_gives_them_again(schedule: tuple[int, int], blocks: int) -> None:
    places = there(*schedule, blocks)
    period, offset = periodic(places, blocks)
    assert period is not None and offset is not None and there(period, offset, blocks) == places
    if len(places) > 1:
        assert (period, offset) == schedule


@given(PERIODS, st.integers(1, 40))
def test_a_number_that_some_blocks_have_comes_back(schedule: tuple[int, int], blocks: int) -> None:
    config = {"heads": 8, "period": schedule[0], "offset": schedule[1], "num_hidden_layers": blocks}
    ((key, (kind, array)),) = HEADS.forward(config, "x").items()
    assert (key, kind, len(array)) == ("x.attention.head_count_kv", "[i32]", blocks)
    back = HEADS.backward({key: array}, "x", {})
    again = HEADS.forward({"heads": 8, "num_hidden_layers": blocks, **back}, "x")
    assert again[key][1] == array


def test_one_number_stands_for_all_blocks() -> None:
    assert HEADS.backward({"x.attention.head_count_kv": 8}, "x", {}) == {"heads": 8, "period": 1, "offset": 0}


@pytest.mark.parametrize("stored", [[0, 8, 8, 0, 8], [0, 8, 0, 4], "8", [0.5], [[8]], [True, False]], ids=str)
def test_arrays_that_say_nothing_regular_are_refused(stored: Any) -> None:
    with pytest.raises(DamagedInput, match="head_count_kv"):
        HEADS.backward({"x.attention.head_count_kv": stored}, "x", {})


def test_a_pattern_that_readers_assume_is_not_written() -> None:
    usual = ["sliding"] * 5 + ["full"] + ["sliding"]
    assert SLIDING.forward({"layer_types": usual, "num_hidden_layers": 7}, "x") == {}
    assert SLIDING.forward({"period": 6, "num_hidden_layers": 7}, "x") == {}


@given(st.lists(st.sampled_from(["sliding", "full"]), min_size=6, max_size=20))
def test_any_other_pattern_comes_back(kinds: list[str]) -> None:
    config = {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    stored = {key: value for key, (_, value) in SLIDING.forward(config, "x").items()}
    usual = all((kind == "full") == (block % 6 == 5) for block, kind in enumerate(kinds))
    assert SLIDING.backward(stored, "x", config) == ({} if usual else {"layer_types": kinds})


def test_a_number_in_place_of_a_pattern_is_its_period() -> None:
    assert SLIDING.backward({"x.pattern": 2}, "x", {"num_hidden_layers": 3}) == {"layer_types": ["sliding", "full", "sliding"]}


@pytest.mark.parametrize(
    ("schedule", "config"),
    [
        (every("period"), {"period": 0}),
        (every("period"), {}),
        (every("period", "offset"), {"period": 2, "offset": 2}),
        (every("period", "offset"), {"period": 2, "offset": "1"}),
        (listed("kinds", "full", every(1)), {"kinds": ["full"]}),
        (listed("kinds", "full", every(1)), {"kinds": "full"}),
    ],
    ids=str,
)
def test_a_config_that_cannot_tell_is_refused(schedule: Any, config: dict[str, Any]) -> None:
    with pytest.raises(DamagedInput, match="config: "):
        schedule.of(config, 3)


def test_a_model_of_a_thousand_million_blocks_is_refused_before_they_are_listed() -> None:
    with pytest.raises(DamagedInput, match="no model has that many"):
        HEADS.forward({"heads": 8, "period": 2, "offset": 0, "num_hidden_layers": 10**9}, "x")


def test_tensors_tell_the_schedule() -> None:
    name = "model.layers.{i}.router.weight"
    tensors = {f"model.layers.{block}.{part}.weight": (1,) for block in range(8) for part in ("norm",)}
    tensors |= {f"model.layers.{block}.router.weight": (1,) for block in (2, 5)}
    assert (period_of(name).of(tensors), offset_of(name).of(tensors)) == (3, 2)
    assert period_of("model.layers.{i}.absent.weight").of(tensors) is None
    with pytest.raises(DamagedInput, match="regular"):
        period_of(name).of({**tensors, "model.layers.6.router.weight": (1,)})
