"""MLX's affine quantisation: a row is cut into groups, and each number of a group is level * scale + bias.

    encode(rows, affine)             rows -> raw rows, which hold a row's words, scales and biases in turn
    decode(raw, affine, columns)     raw rows -> rows, in float32 or in the dtype of the scales

Levels are of 2, 3, 4, 5, 6 or 8 bits; a row of them is one stream of bits, lowest first, in uint32 words. Groups are of 32,
64 or 128 numbers. Scales and biases are of the dtype of the rows. Words, scales and biases are bit for bit what
`mlx.core.quantize` computes on the CPU (mlx 0.32; backend/cpu/quantized.cpp): everything in float32, from the numbers as
they are stored, and scale and bias rounded to the dtype at the end, after the levels were found with the unrounded ones.

NaN is level 0 and otherwise passed over; a group with infinities, or of NaN alone, has the levels 0 and a scale of NaN,
as MLX on x86 leaves it.

There are two ways back. MLX multiplies and adds in the dtype of the scales, so `mlx.core.dequantize` on the CPU rounds
twice: `decode` into rows of that dtype gives those bits, which are what `codecs` takes a packed matrix to stand for. Into
float32 it gives the number that level, scale and bias stand for, rounded once. For F32 both are the same.

Arrays: rows are float32 [n, columns] where the dtype is F32, else uint16 [n, columns], the bits of F16 or BF16. Raw rows are
uint8 [n, row_bytes]: columns * bits / 32 words, then columns / group_size scales and as many biases.
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


def encode(rows: Numbers, affine: Affine, out: Raw | None = None) -> Raw:
    """Raw rows uint8 [n, row_bytes]: in each row words, scales and biases in turn.

    float32 rows with a shorter dtype are first rounded to it (nearest even), as mlx_lm.convert casts before it quantises.
    Raises ValueError for wrong arrays, and for rows that are no whole number of groups.
    """
    source = _stored(rows, affine)
    raw = np.empty((len(rows), affine.row_bytes(rows.shape[1])), np.uint8) if out is None else out
    _check_raw(raw, len(rows), affine, rows.shape[1])
    if not raw.flags.c_contiguous:
        raise ValueError("out has to be contiguous")
    _quantise(source, affine, _together(raw, affine, rows.shape[1]))
    return raw


def decode(raw: Raw, affine: Affine, columns: int, out: Numbers | None = None) -> Numbers:
    """Rows [n, columns] of raw rows: float32, rounded once (for F32 twice), or, where `out` is of uint16, in the dtype of the
    scales, bit for bit as `mlx.core.dequantize` on the CPU: rounded twice.

    The bits of a NaN in F32 are the machine's. Raises ValueError for arrays that do not fit.
    """
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


def _check_raw(raw: Raw, rows: int, affine: Affine, columns: int) -> None:
    shape = (rows, affine.row_bytes(columns))
    if raw.shape != shape or raw.dtype != np.uint8:
        raise ValueError(f"raw rows of {columns} are uint8 {list(shape)}, not {raw.dtype} {list(raw.shape)}")


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
