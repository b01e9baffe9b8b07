"""MLX's affine quantisation among the codecs: rows of words, scales and biases, to and from every plain dtype."""

from __future__ import annotations

import numpy as np
import pytest

from hubclient.formats import codecs
from hubclient.formats.encodings import AFFINE_BITS, AFFINE_GROUPS, BF16, ENCODINGS, F16, F32, Q8_0, affine
from hubclient.formats.mlx.affine import Affine, decode, encode

EACH = pytest.mark.parametrize(
    "encoding",
    [affine(bits, group, dtype) for bits in AFFINE_BITS for group in AFFINE_GROUPS for dtype in (F32, F16, BF16)],
    ids=str,
)
COLUMNS = 384


def numbers(seed: int = 0) -> np.ndarray:
    """Rows of ordinary numbers, of zeros, of equal numbers, and of tiny and large ones."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((6, COLUMNS)).astype(np.float32)
    rows[1], rows[2], rows[3] = 0, -3.25, rows[3] * 1e-6
    rows[4] *= 1e4
    return rows


@EACH
def test_rows_are_packed_as_mlx_packs_them(encoding):
    raw = codecs.encode(numbers(), encoding)
    assert np.array_equal(raw, encode(numbers(), Affine.of(encoding)))


@EACH
def test_decoded_numbers_are_those_of_mlx_in_the_dtype_of_the_scales(encoding):
    how, raw = Affine.of(encoding), codecs.encode(numbers(), encoding)
    stored = decode(raw, how, COLUMNS, np.empty((6, COLUMNS), how.number)).view(np.uint8).reshape(6, -1)
    assert np.array_equal(codecs.decode(raw, encoding, COLUMNS), codecs.decode(stored, ENCODINGS[how.dtype], COLUMNS))


@pytest.mark.parametrize("plain", [F32, F16, BF16, ENCODINGS["F64"], Q8_0], ids=str)
@EACH
def test_transcoding_is_decoding_and_encoding(encoding, plain):
    source = codecs.encode(numbers(1), plain)
    packed = codecs.encode(codecs.decode(source, plain, COLUMNS), encoding)
    assert np.array_equal(codecs.transcode(source, plain, encoding, COLUMNS), packed)
    again = codecs.encode(codecs.decode(packed, encoding, COLUMNS), plain)
    assert np.array_equal(codecs.transcode(packed, encoding, plain, COLUMNS), again)


def test_all_are_known_both_ways():
    ours = [encoding for name, encoding in ENCODINGS.items() if name.startswith("AFFINE")]
    assert len(ours) == 54 and all(codecs.can_decode(encoding) and codecs.can_encode(encoding) for encoding in ours)


def test_no_rows_and_no_columns():
    encoding = affine(4, 64, BF16)
    assert codecs.encode(np.empty((0, 64), np.float32), encoding).shape == (0, 36)
    assert codecs.transcode(np.empty((0, 128), np.uint8), BF16, encoding, 64).shape == (0, 36)
    assert codecs.encode(np.empty((3, 0), np.float32), encoding).shape == (3, 0)
