"""Microscaling types in planes: what their bytes mean, and MXFP4 in ggml's order and in that of GPT-OSS and MLX."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hubclient.formats import codecs
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding

BLOCKS, PLANES = ENCODINGS["MXFP4"], ENCODINGS["MXFP4_PLANES"]
NVFP4, MXFP8 = ENCODINGS["NVFP4_PLANES"], ENCODINGS["MXFP8_PLANES"]
FOURS = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]

ROWS = st.tuples(st.integers(0, 4), st.integers(0, 5)).flatmap(
    lambda size: arrays.arrays(np.uint8, (size[0], size[1] * 17), elements=st.integers(0, 255))
)


def columns(rows: np.ndarray) -> int:
    return rows.shape[1] // 17 * 32


@given(ROWS)
@settings(deadline=None)
def test_repacking_is_undone_by_repacking_back(rows):
    for one, other in ((BLOCKS, PLANES), (PLANES, BLOCKS)):
        there = codecs.transcode(rows, one, other, columns(rows))
        assert (codecs.transcode(there, other, one, columns(rows)) == rows).all()


@given(ROWS)
@settings(deadline=None)
def test_repacked_rows_mean_the_same_numbers(rows):
    rows[rows == 255] = 254  # an infinite scale in MLX, 2^128 in ggml
    values = codecs.decode(rows, BLOCKS, columns(rows))
    planes = codecs.transcode(rows, BLOCKS, PLANES, columns(rows))
    np.testing.assert_array_equal(codecs.decode(planes, PLANES, columns(rows)), values)


def test_only_the_order_of_mxfp4_is_repacked():
    assert codecs.can_repack(BLOCKS, PLANES) and codecs.can_repack(PLANES, BLOCKS)
    assert not codecs.can_repack(BF16, F16) and not codecs.can_repack(PLANES, PLANES) and not codecs.can_repack(NVFP4, PLANES)


def test_a_row_is_nibbles_in_order_and_then_scales():
    rows = np.zeros((1, 34), np.uint8)
    rows[0, :16] = [2 * j % 16 | (2 * j + 1) % 16 << 4 for j in range(16)]
    rows[0, 16:32] = 0x21
    rows[0, 32:] = 127, 129
    values = codecs.decode(rows, PLANES, 64)
    np.testing.assert_array_equal(values[0, :32], FOURS * 2)
    np.testing.assert_array_equal(np.signbit(values[0, :32]), np.signbit(FOURS * 2))
    np.testing.assert_array_equal(values[0, 32:], [2.0, 4.0] * 16)
    blocks = codecs.transcode(rows, PLANES, BLOCKS, 64)
    assert blocks[0, 17:].tolist() == [129, *[0x11, 0x22] * 8]
    assert blocks[0, :17].tolist() == [127, *(j | j << 4 for j in range(16))]


# First elements of rows that begin with the bytes 0 1 2 3 ..., from mlx.core.dequantize of MLX 0.32 on the CPU.
@pytest.mark.parametrize(
    ("encoding", "scale", "expected"),
    [
        (PLANES, 0, [0, 0, 2.0**-128, 0, 2.0**-127, 0]),
        (PLANES, 127, [0, 0, 0.5, 0, 1, 0]),
        (PLANES, 254, [0, 0, 2.0**126, 0, 2.0**127, 0]),
        (PLANES, 255, [np.nan, np.nan, np.inf, np.nan, np.inf, np.nan]),
        (NVFP4, 0, [0, 0, 0, 0, 0, 0]),
        (NVFP4, 1, [0, 0, 2.0**-10, 0, 2.0**-9, 0]),
        (NVFP4, 254, [0, 0, -224, 0, -448, 0]),
        (NVFP4, 127, [np.nan] * 6),
        (MXFP8, 0, [0, 2.0**-136, 2.0**-135, 3 * 2.0**-136, 2.0**-134, 5 * 2.0**-136]),
        (MXFP8, 127, [0, 2.0**-9, 2.0**-8, 3 * 2.0**-9, 2.0**-7, 5 * 2.0**-9]),
        (MXFP8, 255, [np.nan, np.inf, np.inf, np.inf, np.inf, np.inf]),
    ],
)
def test_values_are_those_of_mlx(encoding: Encoding, scale: int, expected: list[float]):
    rows = np.full((1, encoding.block_bytes), scale, np.uint8)
    rows[0, : encoding.planes[0]] = np.arange(encoding.planes[0])
    np.testing.assert_array_equal(codecs.decode(rows, encoding, encoding.block)[0, :6], np.array(expected, np.float32))


@pytest.mark.parametrize("encoding", [PLANES, NVFP4, MXFP8])
@pytest.mark.parametrize("rows", [0, 1, 3, 700])
def test_rows_keep_their_own_planes_when_they_are_transcoded(encoding: Encoding, rows: int):
    width = 5 * 160
    raw = np.random.default_rng(rows).integers(0, 256, (rows, encoding.row_bytes(width)), np.uint8)
    values = codecs.decode(raw, encoding, width)
    for target in (F32, F16, BF16):
        expected = codecs.encode(values, target)
        assert (codecs.transcode(raw, encoding, target, width) == expected).all()
    alone = [codecs.decode(raw[row : row + 1], encoding, width)[0] for row in range(rows)]
    np.testing.assert_array_equal(values, np.array(alone, np.float32).reshape(rows, width))
    spread = raw.repeat(2, axis=0)[::2]
    np.testing.assert_array_equal(codecs.decode(spread, encoding, width), values)


@pytest.mark.parametrize("encoding", [BLOCKS, PLANES, NVFP4])
def test_every_block_of_four_bit_floats_fits_bfloat16(encoding: Encoding):
    scales = np.arange(256, dtype=np.uint8)[:, None]
    elements = np.broadcast_to(
        np.arange(encoding.planes[0] if encoding.planes else 16, dtype=np.uint8) * 17, (256, encoding.block // 2)
    )
    parts = [elements, scales] if encoding.planes else [scales, elements]
    values = codecs.decode(np.ascontiguousarray(np.concatenate(parts, axis=1)), encoding, encoding.block)
    np.testing.assert_array_equal(codecs.decode(codecs.encode(values, BF16), BF16, encoding.block), values)
