"""Weights that a Hugging Face folder has packed into several tensors each, as config.json's `quantization_config` says.

`METHODS` is the one list of what can be unpacked, by `quant_method`: a function of the settings and the stored tensors
that gives the tensors that are meant. What it cannot make sense of is left as it is, which is enough for a copy, with
the reason why (`Packed.unread`).

The products are those of llama.cpp's converter and of Transformers (`Fp8Dequantize`), in float32: number times scale.
Sources: Transformers `integrations/finegrained_fp8.py`, `integrations/fbgemm_fp8.py` and its pages on these methods;
llama.cpp `conversion/base.py` (`dequant_model`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from hubclient.architectures.arrays import Array, Leaf, reshaped
from hubclient.architectures.scaled import Scaled
from hubclient.errors import DamagedInput, UnsupportedEncoding
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding
from hubclient.formats.names import shown
from hubclient.model import Model, Packed

Settings = Mapping[str, Any]
Block = tuple[int, int]
_KEY = "quantization_config"
_FLOAT8, _EXPONENTS, _BYTES = ENCODINGS["F8_E4M3"], ENCODINGS["F8_E8M0"], ENCODINGS["U8"]
_SCALES = (F32, BF16, F16, _EXPONENTS)
_DTYPES = {"float32": F32, "float16": F16, "bfloat16": BF16}


@dataclass(frozen=True, slots=True)
class Scales:
    """Weights of the encoding `stored`, each with its scales in a tensor of its own, called as it is plus `suffix`.

    `block` is (rows, columns) of the part of a matrix that a scale is for; None: all of it, or each row or column, as the
    scales' shape says. `exponents` says that scales stored as bytes are powers of two. `ignored` are modules that are not
    packed, `aside` the endings of tensors that say how activations are rounded.
    """

    stored: Encoding
    suffix: str
    block: Block | None
    ignored: frozenset[str]
    aside: tuple[str, ...]
    exponents: bool = False

    def pair(self, stored: Mapping[str, Leaf]) -> tuple[dict[str, Array], Packed]:
        """Every weight with its scales; DamagedInput names a tensor whose other half is missing or does not fit."""
        aside = [name for name in stored if name.endswith(self.aside)]
        scales = {name.removesuffix(self.suffix): name for name in stored if name.endswith(self.suffix) and name not in aside}
        tensors: dict[str, Array] = {}
        parts: dict[str, Mapping[str, Leaf]] = {}
        hidden = {*scales.values(), *aside}
        for name, weight in stored.items():
            if name in scales:
                beside = stored[scales[name]]
                tensors[name] = self._scaled(weight, beside)
                parts[name] = {name: weight, scales[name]: beside}
            elif name not in hidden:
                self._check_plain(weight)
                tensors[name] = weight
        if alone := [name for weight, name in scales.items() if weight not in tensors]:
            raise _fault(stored[alone[0]], f"is the scale of {alone[0].removesuffix(self.suffix)}, which is not there")
        return tensors, Packed(parts, {name: stored[name] for name in aside}, tuple(_about(aside)))

    def _scaled(self, weight: Leaf, scales: Leaf) -> Scaled:
        if self._ignores(weight.ref.name):
            raise _fault(scales, f"is the scale of a module that {_KEY} says is not packed")
        if weight.ref.encoding != self.stored or len(weight.shape) < 2:
            told = f"{weight.ref.encoding} {list(weight.shape)}"
            raise _fault(weight, f"has scales ({shown(scales.ref.name)}), but is {told} instead of a matrix of {self.stored}")
        block, grid = self._grid(weight, scales)
        return Scaled(weight, reshaped(self._numbers(scales), grid), block)

    def _numbers(self, scales: Leaf) -> Leaf:
        encoding = scales.ref.encoding
        if encoding == _BYTES and self.exponents:
            return Leaf(scales.shape, replace(scales.ref, encoding=_EXPONENTS))
        if encoding not in _SCALES:
            raise _fault(scales, f"holds scales as {encoding}, where F32, BF16, F16 or F8_E8M0 is needed")
        return scales

    def _grid(self, weight: Leaf, scales: Leaf) -> tuple[Block, tuple[int, ...]]:
        """The block that a scale is for, and the shape of the scales as one number for each block."""
        *batch, high, wide = weight.shape
        if self.block is not None:
            grid = (*batch, -(-high // self.block[0]), -(-wide // self.block[1]))
            if scales.shape != grid:
                told = f"blocks of {self.block[0]} x {self.block[1]} of {weight.ref.name} {list(weight.shape)} need {list(grid)}"
                raise _fault(scales, f"has the shape {list(scales.shape)}, where {told}")
            return self.block, grid
        whole = (*batch, 1, 1)
        if math.prod(scales.shape) == math.prod(whole) and scales.shape[: len(batch)] in ((), tuple(batch)):
            return (high, wide), whole
        for block, grid in (((1, wide), (*batch, high, 1)), ((high, 1), (*batch, 1, wide))):
            if scales.shape in (grid, grid[:-1]):
                return block, grid
        told = f"does not say one scale for {weight.ref.name} {list(weight.shape)}, nor one for each of its rows or columns"
        raise _fault(scales, f"has the shape {list(scales.shape)}, which {told}")
