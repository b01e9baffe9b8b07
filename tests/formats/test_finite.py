"""Finding NaN and infinities in rows as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.finite import first_nonfinite

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.float32}
ODD = (np.nan, -np.nan, np.inf, -np.inf)
NORMAL = (0.0, -0.0, 1.0, -65504.0, 6e-8, 65280.0)


def stored(values: np.ndarray, name: str) -> np.ndarray:
    """Raw rows uint8."""
    if name == "BF16":
        values = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        values = values.astype(FLOATS[name])
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.shape[1] * values.itemsize)


@given(
    name=st.sampled_from(sorted(FLOATS)), rows=st.integers(0, 4), columns=st.integers(1, 70), seed=st.integers(0, 1 << 30),
    odd=st.lists(st.tuples(st.integers(0, 279), st.sampled_from(ODD)), max_size=3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_first_is_found(name: str, rows: int, columns: int, seed: int, odd: list[tuple[int, float]]) -> None:
    values = np.random.default_rng(seed).choice(NORMAL, (rows, columns))
    for place, value in odd:
        if place < values.size:
            values.reshape(-1)[place] = value
    found = np.flatnonzero(~np.isfinite(values))
    assert first_nonfinite(stored(values, name), ENCODINGS[name], columns) == (found[0] if len(found) else None)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("place", [0, 4095, 4096, 9999])
def test_in_long_rows_too(name: str, place: int) -> None:
    values = np.zeros((2, 5000))
    values.reshape(-1)[place] = np.inf
    values[1, 4999] = np.nan
    assert first_nonfinite(stored(values, name), ENCODINGS[name], 5000) == place


@pytest.mark.parametrize("name", FLOATS)
def test_all_bits_of_a_number_that_is_none_count(name: str) -> None:
    """A NaN may have its only bit of payload at either end."""
    size = {"F64": 8, "F32": 4}.get(name, 2)
    exponent = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}[name]
    for bits in (exponent, exponent | 1, exponent | 1 << 8 * size - 1):
        raw = np.frombuffer(bytes(size) + bits.to_bytes(size, "little"), np.uint8)[None, :]
        assert first_nonfinite(raw, ENCODINGS[name], 2) == 1
    below = ((exponent if name != "F64" else 0x47EF << 48) - 1).to_bytes(size, "little")
    assert first_nonfinite(np.frombuffer(below, np.uint8)[None, :], ENCODINGS[name], 1) is None


def test_a_block_whose_scale_is_none_is_found_where_it_begins() -> None:
    rows = codecs.encode(np.ones((3000, 64), np.float32), ENCODINGS["Q8_0"])
    assert first_nonfinite(rows, ENCODINGS["Q8_0"], 64) is None
    rows[2500, 34:36] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    assert first_nonfinite(rows, ENCODINGS["Q8_0"], 64) == 2500 * 64 + 32


def test_whole_numbers_are_not_looked_at() -> None:
    assert first_nonfinite(np.full((1, 8), 255, np.uint8), ENCODINGS["I16"], 4) is None


def test_a_number_that_float32_cannot_hold_is_an_infinity() -> None:
    rows = stored(np.array([[1.0, 3e38, -1e300]]), "F64")
    assert first_nonfinite(rows, ENCODINGS["F64"], 3) == 2
