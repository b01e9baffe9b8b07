"""Weights whose scales lie in a tensor beside them, as most folders with 8-bit weights have it.

The products are those of Transformers (`Fp8Dequantize`) and of llama.cpp's converter (`dequant_model` in
conversion/base.py): number times scale, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from hubclient.architectures.language.arrays import Array, Leaf, reshaped
from hubclient.architectures.language.scaled import Scaled
from hubclient.errors import DamagedInput
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding
from hubclient.ground.names import shown
from hubclient.model import Packed

Block: TypeAlias = tuple[int, int]
"""Rows and columns that share a scale."""

_EXPONENTS, _BYTES = ENCODINGS["F8_E8M0"], ENCODINGS["U8"]
_SCALES = (F32, BF16, F16, _EXPONENTS)


@dataclass(frozen=True, slots=True)
class Scales:
    """Weights of the encoding `stored`, each with scales in a tensor of its own: called as the weight plus `suffix`.

    `of` are endings of the names of such weights. `block` is the part of a matrix that a scale is for; None: all of it, a
    row or a column, as the shape of the scales says. `exponents`: scales stored as bytes are powers of two (E8M0).
    `ignored` are modules that are not packed. `aside` are endings of tensors that say how activations are rounded.
    """

    stored: Encoding
    suffix: str
    of: tuple[str, ...]
    block: Block | None
    ignored: frozenset[str]
    aside: tuple[str, ...]
    exponents: bool = False

    def pair(self, stored: Mapping[str, Leaf]) -> tuple[dict[str, Array], Packed]:
        """Every weight with its scales; DamagedInput names a tensor whose other half is missing or does not fit."""
        aside = {name: item for name, item in stored.items() if name.endswith(self.aside)}
        scales = {weight: name for name in stored if name not in aside and (weight := self._weight_of(name))}
        beside = {*scales.values(), *aside}
        if alone := next((weight for weight in scales if weight not in stored), None):
            raise _fault(stored[scales[alone]], f"is the scale of {shown(alone)}, which is not there")
        tensors: dict[str, Array] = {}
        parts: dict[str, Mapping[str, Leaf]] = {}
        for name, item in stored.items():
            if name in scales:
                scale = stored[scales[name]]
                tensors[name], parts[name] = self._scaled(item, scale), {name: item, scales[name]: scale}
            elif name not in beside:
                tensors[name] = self._unscaled(item)
        return tensors, Packed(parts, aside, tuple(_given_up(list(aside))))

    def _weight_of(self, name: str) -> str | None:
        """The weight that a tensor is the scale of, by its name."""
        weight = name.removesuffix(self.suffix)
        return weight if weight != name and weight.endswith(self.of) else None

    def _scaled(self, weight: Leaf, scales: Leaf) -> Scaled:
        if self._ignores(weight.ref.name):
            raise _fault(scales, f"is the scale of {shown(weight.ref.name)}, which quantization_config says is not packed")
        if weight.ref.encoding != self.stored or len(weight.shape) < 2:
            told = f"{weight.ref.encoding} {list(weight.shape)}, where a matrix of {self.stored} is needed"
            raise _fault(weight, f"has scales, but is {told}")
        block, grid = self._grid(weight, scales)
        return Scaled(weight, reshaped(self._numbers(scales), grid), block)

    def _unscaled(self, item: Leaf) -> Leaf:
        if item.ref.encoding == self.stored and len(item.shape) > 1 and not self._ignores(item.ref.name):
            raise _fault(item, f"is {self.stored} without its scale, {shown(item.ref.name + self.suffix)}")
        return item

    def _ignores(self, name: str) -> bool:
        while name and name not in self.ignored:  # a tensor, its module, and whatever that is part of
            name = name.rpartition(".")[0]
        return bool(name)

    def _numbers(self, scales: Leaf) -> Leaf:
        encoding = scales.ref.encoding
        if encoding == _BYTES and self.exponents:
            return Leaf(scales.shape, replace(scales.ref, encoding=_EXPONENTS))
        if encoding not in _SCALES:
            known = ", ".join(kind.name for kind in _SCALES)
            raise _fault(scales, f"is {encoding}, which scales cannot be; {known} can")
        return scales

    def _grid(self, weight: Leaf, scales: Leaf) -> tuple[Block, tuple[int, ...]]:
        """What a scale is for, and the scales' shape as one number for each such block."""
        *batch, high, wide = weight.shape
        shape, of = scales.shape, f"of {shown(weight.ref.name)}, which is {list(weight.shape)}"
        if self.block is not None:
            grid = (*batch, -(-high // self.block[0]), -(-wide // self.block[1]))
            if shape != grid:
                size = f"{self.block[0]} x {self.block[1]}"
                raise _fault(scales, f"is {list(shape)} where {list(grid)} is needed for blocks of {size} {of}")
            return self.block, grid
        for grid, block in (((*batch, 1, 1), (high, wide)), ((*batch, high, 1), (1, wide)), ((*batch, 1, wide), (high, 1))):
            if shape == grid[: len(shape)] and set(grid[len(shape) :]) <= {1}:  # ones at the end may be left out
                return block, grid
        raise _fault(scales, f"is {list(shape)}, one scale neither for all nor for each row or column {of}")


def _fault(item: Leaf, told: str) -> DamagedInput:
    return DamagedInput(f"tensor {shown(item.ref.name)} {told}", file=item.ref.file, tensor=item.ref.name)


def _given_up(aside: Sequence[str]) -> Iterator[str]:
    """A sentence on tensors that have no place where weights are unpacked."""
    if aside:
        more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
        yield f"tensor {shown(aside[0])}{more}: how activations are rounded has no place beside unpacked weights"
