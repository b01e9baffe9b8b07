"""Sums, multiples and values that a number tells: what is written is read again, what does not fit is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import Flags
from hubclient.architectures.language.entries import Sum, Times, Told
from hubclient.architectures.language.pairs import Entry, backward, forward, u32
from hubclient.errors import DamagedInput

ROPE, KEY = u32("rope", "dimension_count"), Sum("rest", "rope", "key_length")
SIZES = st.integers(1, 2**20)
METHOD = Told("method", "groups", {1: "greedy"}, "limited")


def there(config: dict[str, Any], *entries: Entry) -> dict[str, Any]:
    return {key: value for key, (_, value) in forward(entries, config, "x").items()}


@given(SIZES, SIZES)
def test_a_sum_is_taken_apart_again(rest: int, rope: int):
    config = {"rest": rest, "rope": rope}
    stored = forward((ROPE, KEY), config, "x")
    assert stored["x.key_length"] == ("u32", rest + rope)
    assert backward((ROPE, KEY), stored, "x") == config


def test_a_sum_needs_both_and_is_more_than_its_part():
    with pytest.raises(DamagedInput, match="config: rest is None"):
        there({"rope": 4}, KEY)
    with pytest.raises(DamagedInput, match="key_length is 4, which should be more than rope"):
        backward((ROPE, KEY), {"x.dimension_count": 4, "x.key_length": 4}, "x")
    assert backward((ROPE, KEY), {"x.dimension_count": 4}, "x") == {"rope": 4}


@given(st.integers(1, 9999).map(lambda number: number / 1000))
def test_a_multiple_gives_the_number_in_its_own_digits(number: float):
    line = Times("mscale", "log_multiplier", 0.1)
    stored = there({"mscale": number}, line)
    assert backward((line,), stored, "x") == {"mscale": number}


def test_of_a_number_that_is_not_there_nothing_is_said():
    line = Times("mscale", "log_multiplier", 0.1)
    assert (there({}, line), backward((line,), {}, "x")) == ({}, {})
    with pytest.raises(DamagedInput, match="log_multiplier"):
        backward((line,), {"x.log_multiplier": "much"}, "x")


@pytest.mark.parametrize(("groups", "method"), [(1, "greedy"), (8, "limited")])
def test_a_number_under_another_lines_key_tells_a_value(groups: int, method: str):
    stored = there({"groups": groups, "method": method}, u32("groups", "groups"), METHOD)
    assert stored == {"x.groups": groups}
    assert backward((u32("groups", "groups"), METHOD), stored, "x") == {"groups": groups, "method": method}


def test_a_value_that_no_number_tells_is_refused():
    with pytest.raises(DamagedInput, match=r"config: method is 'other', which x.groups cannot tell"):
        there({"method": "other"}, METHOD)
    assert backward((METHOD,), {}, "x") == {}


def test_that_no_flag_is_set_may_say_something():
    assert backward((Flags("norm", {True: "norm"}, otherwise=False),), {}, "x") == {"norm": False}
    assert backward((Flags("norm", {True: "norm"}),), {}, "x") == {}
