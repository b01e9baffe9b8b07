"""LongRoPE (Phi-3): two lists of rope factors, which GGUF keeps as tensors, and the scale of the attention that goes along.

Source: Transformers' `_compute_longrope_parameters`; `Phi3MiniModel` in llama.cpp's converter for where things lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.pairs import OneKey, f32
from hubclient.architectures.language.typed import Typed, shortest_float32
from hubclient.errors import DamagedInput

if TYPE_CHECKING:
    import numpy as np

_SCALE = "rope_parameters.attention_factor"


@dataclass(frozen=True, slots=True)
class LongRopeFactors:
    """The tensor of `rope_parameters.<list>` ("long_factor", "short_factor"): one factor per pair of rotated dimensions.

    `head_dim` is the size of a head, of which `partial_rotary_factor` (if the config has one) is rotated.
    """

    list: str
    head_dim: Expr

    def forward(self, config: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        """float32 of shape (rotated dimensions / 2,), None unless the config asks for longrope."""
        import numpy as np

        if lookup(config, "rope_parameters.rope_type") != "longrope":
            return None
        values, pairs = lookup(config, f"rope_parameters.{self.list}"), self._pairs(config)
        if not isinstance(values, Sequence) or len(values) != pairs or not all(map(_positive, values)):
            raise DamagedInput(
                f"config: rope_parameters.{self.list} is {shown(values)} where {pairs} positive numbers are needed"
            )
        return np.array(values, np.float32)

    def backward(self, factors: np.ndarray[Any, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The list in as few digits as give the same numbers, None if it does not fit the heads."""
        values = [shortest_float32(value) for value in factors.ravel().tolist()]
        if len(values) != self._pairs(config) or not all(map(_positive, values)):
            return None
        return {"rope_type": "longrope", self.list: values}

    def _pairs(self, config: Mapping[str, Any]) -> int:
        part = lookup(config, "partial_rotary_factor")
        if part is not None and not (_positive(part) and part <= 1):
            raise DamagedInput(f"config: partial_rotary_factor is {shown(part)} where a fraction is needed")
        return int(evaluate(self.head_dim, config) * (1 if part is None else part)) // 2


@dataclass(frozen=True, slots=True)
class LongRopeScale(OneKey):
    """What LongRoPE multiplies attention by; it follows from the two context lengths unless the config says otherwise."""

    key: str = "rope.scaling.attn_factor"

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The scale, if the config asks for longrope."""
        if lookup(config, "rope_parameters.rope_type") != "longrope":
            return {}
        said = f32(_SCALE, self.key).forward(config, name)
        return said or {self.full(name): ("f32", _scale(config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The scale, where it is not the one that follows."""
        found = f32(_SCALE, self.key).backward(metadata, name, config)
        return found if found and found[_SCALE] != shortest_float32(_scale(config)) else {}


def _scale(config: Mapping[str, Any]) -> float:
    original = evaluate("original_max_position_embeddings", config)
    factor = lookup(config, "rope_parameters.factor")
    if factor is None:
        factor = evaluate("max_position_embeddings", config) / original
    if not _positive(factor):
        raise DamagedInput(f"config: rope_parameters.factor is {shown(factor)} where a positive number is needed")
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30
