"""MLX's affine quantisation: a row is cut into groups, and each number of a group is level * scale + bias.

    quantise(rows, bits, group_size, dtype)                  rows -> words, scales, biases
    dequantise(words, scales, biases, bits, ...)             -> rows, as mx.dequantize gives them
    dequantise_f32(words, scales, biases, bits, ...)         -> rows in float32, rounded once

    encode(rows, affine)     decode(raw, affine, columns)    the same for raw rows, which hold a row's three planes in turn

Levels are of 2, 3, 4, 5, 6 or 8 bits; a row of them is one stream of bits, lowest first, in uint32 words. Groups are of 32,
64 or 128 numbers. Scales and biases are of the dtype of the rows. Words, scales and biases are bit for bit what
`mlx.core.quantize` computes on the CPU (mlx 0.32; backend/cpu/quantized.cpp): everything in float32, from the numbers as
they are stored, and scale and bias rounded to the dtype at the end, after the levels were found with the unrounded ones.

NaN is level 0 and otherwise passed over; a group with infinities, or of NaN alone, has the levels 0 and a scale of NaN,
as MLX on x86 leaves it.

There are two ways back. MLX multiplies and adds in the dtype of the scales, so `mlx.core.dequantize` on the CPU rounds
twice: `dequantise` gives those bits, which are what `codecs` takes a packed matrix to stand for. The number that level,
scale and bias stand for, rounded once, is `dequantise_f32`. For F32 both are the same.

Arrays: rows are float32 [n, columns] where the dtype is F32, else uint16 [n, columns], the bits of F16 or BF16. Words are
uint32 [n, columns * bits / 32]; scales and biases [n, columns / group_size], float32 or uint16 as the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hubclient.errors import UnsupportedEncoding
from hubclient.formats.encodings import AFFINE_BITS, AFFINE_GROUPS
from hubclient.formats.model import Encoding

Raw: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint32]
Numbers: TypeAlias = NDArray[np.uint16] | NDArray[np.float32]
_Planes: TypeAlias = tuple[tuple[NDArray[Any], ...], tuple[tuple[int, int], ...]]

_KINDS = {"F32": 0, "F16": 1, "BF16": 2}  # F32, F16 and BF16 of `kernels`
DTYPES = tuple(_KINDS)


@dataclass(frozen=True, slots=True)
class Affine:
    """Which affine quantisation: bits of a level, numbers of a group, dtype of scales and biases.

    Raises UnsupportedEncoding where MLX has no such quantisation.
    """

    bits: int
    group_size: int
    dtype: str

    def __post_init__(self) -> None:
        if self.bits not in AFFINE_BITS:
            raise UnsupportedEncoding(f"MLX's affine quantisation has {_listed(AFFINE_BITS)} bits, not {self.bits}")
        if self.group_size not in AFFINE_GROUPS:
            raise UnsupportedEncoding(f"MLX's affine quantisation has groups of {_listed(AFFINE_GROUPS)}, not {self.group_size}")
        if self.dtype not in _KINDS:
            raise UnsupportedEncoding(f"the scales of MLX's affine quantisation are {_listed(DTYPES)}, not {self.dtype}")

    @classmethod
    def of(cls, encoding: Encoding) -> Affine:
        """What an affine encoding of the table (`AFFINE4_G64_BF16`) says; UnsupportedEncoding for another."""
        bits, _, rest = encoding.name.removeprefix("AFFINE").partition("_G")
        group_size, _, dtype = rest.partition("_")
        if not (encoding.name.startswith("AFFINE") and bits.isdecimal() and group_size.isdecimal()):
            raise UnsupportedEncoding(f"{encoding} is no affine quantisation of MLX")
        return cls(int(bits), int(group_size), dtype)

    @property
    def kind(self) -> int:
        """The dtype as the kernels know it."""
        return _KINDS[self.dtype]

    @property
    def number(self) -> np.dtype[Any]:
        """The dtype of arrays of scales, biases and rows: float32 or, for the bits of a shorter one, uint16."""
        return np.dtype(np.float32 if self.dtype == "F32" else np.uint16)

    def sizes(self, columns: int) -> tuple[int, int]:
        """Words and groups of a row of `columns` numbers; ValueError if no whole number of groups fits."""
        if columns % self.group_size:
            raise ValueError(f"a row of {columns} is not a whole number of groups of {self.group_size}")
        return columns * self.bits // 32, columns // self.group_size

    def row_bytes(self, columns: int) -> int:
        """Bytes of a raw row of `columns` numbers."""
        words, groups = self.sizes(columns)
        return 4 * words + 2 * groups * self.number.itemsize


def quantise(rows: Numbers, bits: int, group_size: int, dtype: str) -> tuple[Words, Numbers, Numbers]:
    """Words, scales and biases of rows: see the module for shapes.

    float32 rows with a shorter dtype are first rounded to it (nearest even), as mlx_lm.convert casts before it
    quantises. Raises UnsupportedEncoding for other bits, groups and dtypes than MLX has, ValueError for wrong arrays.
    """
    affine = Affine(bits, group_size, dtype)
    source = _stored(rows, affine)
    words, groups = affine.sizes(rows.shape[1])
    packed = np.empty((len(rows), words), np.uint32)
    scales, biases = np.empty((2, len(rows), groups), affine.number)
    _quantise(source, affine, _apart(packed, scales, biases))
    return packed, scales, biases


def dequantise(words: Words, scales: Numbers, biases: Numbers, bits: int, group_size: int, dtype: str) -> Numbers:
    """Rows in the dtype of the scales, bit for bit as `mlx.core.dequantize` on the CPU: rounded twice.

    The bits of a NaN in F32 are the machine's. Raises UnsupportedEncoding for other bits, groups and dtypes than MLX has,
    ValueError for arrays that do not fit each other.
    """
    affine = Affine(bits, group_size, dtype)
    rows = np.empty((len(words), _columns(words, scales, biases, affine)), affine.number)
    _dequantise(_apart(words, scales, biases), affine, rows)
    return rows


def dequantise_f32(words: Words, scales: Numbers, biases: Numbers, bits: int, group_size: int, dtype: str) -> NDArray[np.float32]:
    """Rows in float32: level * scale + bias, rounded once (for F32 scales twice). Raises as `dequantise`."""
    affine = Affine(bits, group_size, dtype)
    rows = np.empty((len(words), _columns(words, scales, biases, affine)), np.float32)
    _dequantise(_apart(words, scales, biases), affine, rows)
    return rows


def encode(rows: Numbers, affine: Affine, out: Raw | None = None) -> Raw:
    """Raw rows uint8 [n, row_bytes] of rows as `quantise` takes them: in each row words, scales and biases in turn."""
    source = _stored(rows, affine)
    raw = np.empty((len(rows), affine.row_bytes(rows.shape[1])), np.uint8) if out is None else out
    _check_raw(raw, len(rows), affine, rows.shape[1])
    if not raw.flags.c_contiguous:
        raise ValueError("out has to be contiguous")
    _quantise(source, affine, _together(raw, affine, rows.shape[1]))
    return raw


def decode(raw: Raw, affine: Affine, columns: int, out: Numbers | None = None) -> Numbers:
    """Rows [n, columns] of raw rows: float32 as `dequantise_f32`, or, where `out` is of uint16, as `dequantise`."""
    _check_raw(raw, len(raw), affine, columns)
    rows: Numbers = np.empty((len(raw), columns), np.float32) if out is None else out
    if rows.shape != (len(raw), columns) or rows.dtype not in (np.float32, affine.number) or not rows.flags.c_contiguous:
        raise ValueError(f"out has to be contiguous numbers {[len(raw), columns]}, not {rows.dtype} {list(rows.shape)}")
    _dequantise(_together(_aligned(raw, np.uint8), affine, columns), affine, rows)
    return rows


def _quantise(rows: NDArray[Any], affine: Affine, where: _Planes) -> None:
    from hubclient.formats.mlx import kernels

    kernels.quantise(_bits(rows), affine.kind, affine.bits, affine.group_size, *where)


def _dequantise(where: _Planes, affine: Affine, rows: Numbers) -> None:
    from hubclient.formats.mlx import kernels

    target = kernels.F32 if rows.dtype == np.float32 else affine.kind
    kernels.dequantise(*where, affine.kind, affine.bits, affine.group_size, _bits(rows), target)


def _stored(rows: Numbers, affine: Affine) -> NDArray[Any]:
    """The rows as numbers of the dtype, contiguous and aligned."""
    from hubclient.formats import kernels

    if rows.ndim != 2 or rows.dtype not in (np.float32, affine.number):
        raise ValueError(f"rows of {affine.dtype} are {affine.number} [n, columns], not {rows.dtype} {list(rows.shape)}")
    if rows.dtype == affine.number:
        return _aligned(rows, affine.number)
    short = np.empty(rows.shape, np.uint16)
    bits = _bits(_aligned(rows, np.float32)).reshape(-1)
    (kernels.f16_from_f32 if affine.dtype == "F16" else kernels.bf16_from_f32)(bits, short.reshape(-1))
    return short


def _columns(words: Words, scales: Numbers, biases: Numbers, affine: Affine) -> int:
    """Numbers in a row of planes that fit each other; ValueError otherwise."""
    if words.ndim == 2 and words.dtype == np.uint32:
        columns = words.shape[1] * 32 // affine.bits
        shape = (len(words), columns // affine.group_size)
        whole = columns % affine.group_size == 0 and affine.sizes(columns)[0] == words.shape[1]
        if whole and scales.shape == biases.shape == shape and scales.dtype == biases.dtype == affine.number:
            return int(columns)
    shapes = ", ".join(f"{plane.dtype} {list(plane.shape)}" for plane in (words, scales, biases))
    raise ValueError(f"words, scales and biases do not fit {affine.bits} bits in groups of {affine.group_size}: {shapes}")


def _check_raw(raw: Raw, rows: int, affine: Affine, columns: int) -> None:
    shape = (rows, affine.row_bytes(columns))
    if raw.shape != shape or raw.dtype != np.uint8:
        raise ValueError(f"raw rows of {columns} are uint8 {list(shape)}, not {raw.dtype} {list(raw.shape)}")


def _apart(words: Words, scales: Numbers, biases: Numbers) -> _Planes:
    """Three arrays as the kernels take them."""
    planes = tuple(_bits(_aligned(plane, plane.dtype)).reshape(-1) for plane in (words, scales, biases))
    return planes, tuple((plane.shape[1], 0) for plane in (words, scales, biases))


def _together(raw: Raw, affine: Affine, columns: int) -> _Planes:
    """Raw rows as the kernels take them. Words and scales are aligned, as a row is a whole number of words."""
    words, groups = affine.sizes(columns)
    numbers = raw.reshape(-1).view(np.uint32 if affine.dtype == "F32" else np.uint16)
    size = numbers.itemsize
    pitch, first = raw.shape[1] // size, 4 * words // size
    return (raw.reshape(-1).view(np.uint32), numbers, numbers), ((raw.shape[1] // 4, 0), (pitch, first), (pitch, first + groups))


def _aligned(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The array itself wherever it is contiguous and aligned."""
    return np.require(array, dtype, ("C", "A"))


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """float32 as uint32."""
    return array.view(np.uint32) if array.dtype == np.float32 else array


def _listed(values: tuple[Any, ...]) -> str:
    return f"{', '.join(str(value) for value in values[:-1])} or {values[-1]}"
