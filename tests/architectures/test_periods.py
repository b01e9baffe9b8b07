"""Kinds of blocks as the length of a period, or as a list where they are not regular."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures.language.periods import FirstOf
from hubclient.errors import DamagedInput

PAIR = FirstOf("period", "kinds", "full", "sliding", "pattern")
KEY = "fam.pattern"


def stored(config: dict[str, Any]) -> tuple[str, Any]:
    return PAIR.forward(config, "fam")[KEY]


def test_without_a_list_the_length_is_stored():
    assert stored({"period": 3, "num_hidden_layers": 22}) == ("u32", 3)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["full", "sliding", "sliding", "full"], ("u32", 3)),
        (["full", "sliding"], ("u32", 3)),  # as a period of three would have it
        (["full", "sliding", "full", "sliding"], ("u32", 2)),
        (["full", "full"], ("u32", 1)),
        (["sliding", "full", "sliding", "full"], ("[bool]", [True, False, True, False])),
        (["sliding", "sliding"], ("[bool]", [True, True])),
    ],
)
def test_a_list_counts_more_than_a_length(kinds: list[str], expected: tuple[str, Any]):
    assert stored({"period": 3, "kinds": kinds, "num_hidden_layers": len(kinds)}) == expected


@given(kinds=st.lists(st.sampled_from(["full", "sliding"]), min_size=1, max_size=9), period=st.integers(1, 9))
def test_what_is_stored_means_the_same_blocks(kinds: list[str], period: int):
    config: dict[str, Any] = {"period": period, "kinds": kinds, "num_hidden_layers": len(kinds)}
    told = PAIR.backward({KEY: stored(config)[1]}, "fam", {"num_hidden_layers": len(kinds)})
    again = told.get("kinds") or ["sliding" if block % told["period"] else "full" for block in range(len(kinds))]
    assert again == kinds


@pytest.mark.parametrize("kinds", ["full", [], ["full"], ["full", "linear"], [["full"], "full"]])
def test_a_list_of_something_else_is_refused(kinds: Any):
    with pytest.raises(DamagedInput, match=r"kinds is .* where 2 of full and sliding are needed"):
        stored({"period": 3, "kinds": kinds, "num_hidden_layers": 2})


@pytest.mark.parametrize("value", [0, -1, True, "3", [1], [0, 2], [[0], 1]])
def test_metadata_of_something_else_is_refused(value: Any):
    with pytest.raises(DamagedInput, match=r"pattern is .* where a number or 2 booleans are needed"):
        PAIR.backward({KEY: value}, "fam", {"num_hidden_layers": 2})
