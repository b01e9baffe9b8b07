"""Codecs of the encodings with planes: MLX's affine quantisation and the microscaling types.

Their functions take uint8 [n, row_bytes] and float32 [n, columns]: where planes begin depends on where the row does.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hubclient.formats import plain
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.model import Encoding
from hubclient.formats.plain import Codec, Coder, Raw, Rows


def _mxfp4_planes_from_blocks(blocks: Raw, planes: Raw) -> None:
    from hubclient.formats import microscaling

    microscaling.mxfp4_planes_from_blocks(blocks, planes)


def _mxfp4_blocks_from_planes(planes: Raw, blocks: Raw) -> None:
    from hubclient.formats import microscaling

    microscaling.mxfp4_blocks_from_planes(planes, blocks)


def _microscaled(name: str) -> Codec:
    """The codec of a microscaling type in planes."""

    def decode_planes(rows: Raw, values: Rows) -> None:
        from hubclient.formats import microscaling

        microscaling.decode(name, rows, values)

    return Codec("u1", decode_planes, None)


def _affine(encoding: Encoding) -> Codec:
    """The codec of an affine quantisation of MLX; decoded numbers are those that MLX computes in the dtype of the scales."""
    dtype = _scales_of(encoding)

    def decode_affine(rows: Raw, values: Rows) -> None:
        if dtype == "F32":
            _dequantise(rows, encoding, values)
            return
        numbers = np.empty(values.shape, np.uint16)
        _dequantise(rows, encoding, numbers)
        decode = plain.CODECS[dtype].decode
        assert decode is not None
        decode(numbers.reshape(-1), values.reshape(-1))

    def encode_affine(values: Rows, rows: Raw) -> None:
        _quantise(values, encoding, rows)

    return Codec("u1", decode_affine, encode_affine)


def _affine_pairs(encoding: Encoding) -> Mapping[tuple[str, str], Coder]:
    """To and from the dtype of the scales, without float32 in between."""
    dtype = _scales_of(encoding)

    def quantise(source: Raw, rows: Raw) -> None:
        _quantise(source.view("<u2"), encoding, rows)

    def dequantise(rows: Raw, target: Raw) -> None:
        _dequantise(rows, encoding, target.view("<u2"))

    return {} if dtype == "F32" else {(dtype, encoding.name): quantise, (encoding.name, dtype): dequantise}


def _quantise(numbers: NDArray[Any], encoding: Encoding, rows: Raw) -> None:
    from hubclient.formats.mlx import affine

    affine.encode(numbers, affine.Affine.of(encoding), out=rows)


def _dequantise(rows: Raw, encoding: Encoding, numbers: NDArray[Any]) -> None:
    from hubclient.formats.mlx import affine

    affine.decode(rows, affine.Affine.of(encoding), numbers.shape[1], out=numbers)


def _scales_of(encoding: Encoding) -> str:
    return encoding.name.rpartition("_")[2]


_AFFINE = tuple(encoding for name, encoding in ENCODINGS.items() if name.startswith("AFFINE"))

CODECS: Mapping[str, Codec] = MappingProxyType(
    {encoding.name: _affine(encoding) for encoding in _AFFINE}
    | {name: _microscaled(name) for name in ("MXFP4_PLANES", "NVFP4_PLANES", "MXFP8_PLANES")}
)
# The same numbers in another order, whatever they are.
REPACKED: Mapping[tuple[str, str], Coder] = MappingProxyType(
    {("MXFP4", "MXFP4_PLANES"): _mxfp4_planes_from_blocks, ("MXFP4_PLANES", "MXFP4"): _mxfp4_blocks_from_planes}
)
# Pairs that need no float32 in between.
PAIRS: Mapping[tuple[str, str], Coder] = MappingProxyType(
    {pair: coder for encoding in _AFFINE for pair, coder in _affine_pairs(encoding).items()}
)
