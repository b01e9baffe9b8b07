"""Encoders are compared on rows of every kind, and what differs is told with its errors."""

from __future__ import annotations

import numpy as np
import pytest
from libggml import ggml

from benchmarks.encode import cases, target
from benchmarks.encode_identity import Tally, compared
from benchmarks.mixtures import IMPORTANCES, importances, kinds, mixture
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.ggml import ENCODED


def test_rows_of_all_kinds_take_turns_and_are_finite() -> None:
    rows = mixture(np.random.default_rng(1), 3 * len(kinds()) - 1, 256)
    assert rows.shape == (3 * len(kinds()) - 1, 256) and rows.dtype == np.float32 and np.isfinite(rows).all()
    names = list(kinds())
    assert not rows[names.index("zeros") :: len(names)].any()
    assert (np.abs(rows[names.index("denormal") :: len(names)]) < 2.0**-126).all()
    assert np.abs(rows).max() > 2.0**96 > np.abs(mixture(np.random.default_rng(1), len(names), 256, 16)).max()


def test_importance_is_never_negative() -> None:
    drawn = importances(np.random.default_rng(2), 256)
    assert set(drawn) == set(IMPORTANCES)
    assert all(row.dtype == np.float32 and row.shape == (256,) and (row >= 0).all() for row in drawn.values())


def test_every_type_is_measured_in_every_way_it_can_be_encoded() -> None:
    found = list(cases())
    assert {name for name, _ in found} == ENCODED and len(set(found)) == len(found)
    assert list(cases(["Q8_0", "IQ1_S", "Q4_K"])) == [("Q8_0", False), ("IQ1_S", True), ("Q4_K", False), ("Q4_K", True)]
    assert [target(*case) for case in cases(["Q8_0", "IQ1_S", "Q4_K"])] == [0.9, 1.0, 5.0, 3.0]


@pytest.mark.llama
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_are_counted(weighted: bool) -> None:
    tally = compared(ggml(), ENCODINGS["Q4_0"], weighted, 5000, seed=3)
    assert tally == Tally(2 * 144 * 32)


def test_errors_are_those_of_the_blocks_that_differ() -> None:
    tally = sum([Tally(10), Tally(10, 2, ours=8.0, theirs=2.0, weight=1.0), Tally(10, 1, 0.0, 0.0, 1.0)], Tally())
    assert (tally.blocks, tally.unequal) == (30, 3)
    assert tally.errors() == {"hubclient": [2.0], "ggml": [1.0]}
    assert Tally(10).errors() == {}
