"""Rope pairs that most decoders share, and the Llama 3 frequency factors, which GGUF keeps as a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.pairs import OneKey, Pairs, f32, numbers, text, u32
from hubclient.errors import DamagedInput

if TYPE_CHECKING:
    import numpy as np

_TYPE = "rope_parameters.rope_type"
_LARGEST_HEAD = 1 << 16
_LARGEST_NUMBER = 1e30
_KINDS = 4  # of positions that llama.cpp has room for
_ROUNDING = 4  # units in the last place


def rope_settings(at: str = "rope_parameters") -> Pairs:
    """Base and scaling of the rope settings at a path of the config, as keys for all blocks."""
    kind = f"{at}.rope_type"
    scaled, yarn = {kind: ("linear", "yarn")}, {kind: ("yarn",)}
    return (
        f32(f"{at}.rope_theta", "rope.freq_base"),
        text(kind, "rope.scaling.type", when=scaled),
        f32(f"{at}.factor", "rope.scaling.factor", when=scaled),
        u32(f"{at}.original_max_position_embeddings", "rope.scaling.original_context_length", when=yarn),
        f32(f"{at}.extrapolation_factor", "rope.scaling.yarn_ext_factor", when=yarn),
        f32(f"{at}.attention_factor", "rope.scaling.yarn_attn_factor", when=yarn),
        f32(f"{at}.beta_fast", "rope.scaling.yarn_beta_fast", when=yarn),
        f32(f"{at}.beta_slow", "rope.scaling.yarn_beta_slow", when=yarn),
    )


ROPE = rope_settings()


@dataclass(frozen=True, slots=True)
class Sections(OneKey):
    """The dimensions that each kind of position (time, height, width) takes of a head, stored as four numbers."""

    hf: str
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The sections, filled up with zeros."""
        if lookup(config, self.hf) is None:
            return {}
        ((key, (kind, found)),) = numbers(self.hf, self.key).forward(config, name).items()
        if not 0 < len(found) <= _KINDS:
            raise DamagedInput(f"config: {self.hf} is {shown(found)} where up to {_KINDS} numbers are needed")
        return {key: (kind, found + [0] * (_KINDS - len(found)))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The sections without the zeros at the end."""
        told = numbers(self.hf, self.key).backward(metadata, name, config)
        for path, found in told.items():
            while found and not found[-1]:
                found.pop()
            told[path] = found
        return told


@dataclass(frozen=True, slots=True)
class Llama3Factors:
    """The tensor by which llama.cpp divides rope frequencies: Llama 3.1's scaling, one factor per pair of a head.

    `forward` computes it from the config, `backward` finds the config from the stored factors. Source: Transformers'
    `_compute_llama3_parameters`; the order of float32 operations is that of llama.cpp's converter.
    """

    head_dim: Expr

    def forward(self, config: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        """float32 factors of shape (head_dim / 2,), None unless the config asks for llama3 scaling."""
        if lookup(config, _TYPE) != "llama3":
            return None
        low, high = _number(config, "low_freq_factor", 1.0), _number(config, "high_freq_factor", 4.0)
        if low >= high:
            raise DamagedInput(f"config: rope_parameters.low_freq_factor is {low}, which must be below high_freq_factor, {high}")
        theta, factor = _number(config, "rope_theta", 10000.0), _number(config, "factor", 8.0)
        context = _number(config, "original_max_position_embeddings", 8192.0)
        return _factors(theta, self._size(config), factor, low, high, context)

    def backward(self, factors: np.ndarray[Any, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        """`rope_parameters` that give these factors (but for a few units in the last place), None if none do.

        PyTorch's float32 powers are not always the nearest ones, and the window's differences magnify that. The factors
        fix scale and window only up to a common stretch of the three window parameters, so the published ones (low 1,
        high 4, a context that is a power of two) are tried first, then other powers of two.
        """
        theta, head_dim, factor = _number(config, "rope_theta", 10000.0), self._size(config), float(factors.max(initial=0.0))
        if factors.shape != (head_dim // 2,) or not 1 <= factor < math.inf:
            return None
        for low, high in ((1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (1.0, 32.0)):
            for exponent in range(24, 3, -1):
                if _alike(_factors(theta, head_dim, factor, low, high, 2.0**exponent), factors):
                    return {
                        "rope_type": "llama3",
                        "factor": factor,
                        "low_freq_factor": low,
                        "high_freq_factor": high,
                        "original_max_position_embeddings": 2**exponent,
                    }
        return None

    def _size(self, config: Mapping[str, Any]) -> int:
        size = evaluate(self.head_dim, config)
        if size > _LARGEST_HEAD:
            raise DamagedInput(f"config: {self.head_dim} is {size}; no head is that large")
        return size


def _number(config: Mapping[str, Any], name: str, usual: float) -> float:
    """A positive number among the rope parameters, or the usual one if the config has none."""
    value = lookup(config, f"rope_parameters.{name}")
    if value is None:
        return usual
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 / _LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
        return float(value)
    raise DamagedInput(f"config: rope_parameters.{name} is {shown(value)} where a positive number is needed")


def _factors(theta: float, head_dim: int, factor: float, low: float, high: float, context: float) -> np.ndarray[Any, Any]:
    import numpy as np

    one, f32_ = np.float32(1), np.float32
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / f32_(head_dim)
    with np.errstate(all="ignore"):  # `between` may be nothing outside the window, where it is not used
        # PyTorch divides a scalar by a tensor as reciprocal times scalar; each step below rounds where it rounds.
        frequencies = one / np.power(np.float64(f32_(theta)), exponents.astype(np.float64)).astype(np.float32)
        wavelengths = (one / frequencies) * f32_(2 * math.pi)
        smooth = ((one / wavelengths) * f32_(context) - f32_(low)) / f32_(high - low)
        between = one / ((one - smooth) / f32_(factor) + smooth)
        long = np.where(wavelengths > f32_(context / low), f32_(factor), between)
        return np.where(wavelengths < f32_(context / high), one, long).astype(np.float32)


def _alike(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> bool:
    import numpy as np

    with np.errstate(all="ignore"):
        return bool(np.all(np.abs(one - two) <= _ROUNDING * np.spacing(np.maximum(one, two))))
