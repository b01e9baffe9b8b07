"""Rope pairs that most decoders share, and the Llama 3 frequency factors, which GGUF keeps as a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures.config import Pairs, f32, text, u32
from hubclient.architectures.expressions import Expr, evaluate, lookup

if TYPE_CHECKING:
    import numpy as np

_TYPE = "rope_parameters.rope_type"

ROPE: Pairs = (
    f32("rope_parameters.rope_theta", "rope.freq_base"),
    text(_TYPE, "rope.scaling.type", when={_TYPE: ("linear", "yarn")}),
    f32("rope_parameters.factor", "rope.scaling.factor", when={_TYPE: ("linear", "yarn")}),
    u32("rope_parameters.original_max_position_embeddings", "rope.scaling.original_context_length", when={_TYPE: ("yarn",)}),
    f32("rope_parameters.extrapolation_factor", "rope.scaling.yarn_ext_factor", when={_TYPE: ("yarn",)}),
    f32("rope_parameters.attention_factor", "rope.scaling.yarn_attn_factor", when={_TYPE: ("yarn",)}),
    f32("rope_parameters.beta_fast", "rope.scaling.yarn_beta_fast", when={_TYPE: ("yarn",)}),
    f32("rope_parameters.beta_slow", "rope.scaling.yarn_beta_slow", when={_TYPE: ("yarn",)}),
)


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
        rope = config["rope_parameters"]
        return _factors(
            float(rope.get("rope_theta", 10000.0)),
            evaluate(self.head_dim, config),
            float(rope.get("factor", 8.0)),
            float(rope.get("low_freq_factor", 1.0)),
            float(rope.get("high_freq_factor", 4.0)),
            float(rope.get("original_max_position_embeddings") or 8192),
        )

    def backward(self, factors: np.ndarray[Any, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
        """`rope_parameters` that give these factors (one unit in the last place may differ), None if none do.

        The factors fix scale and window only up to a common stretch of the three window parameters, so the published
        ones (low 1, high 4, a context that is a power of two) are tried first, then other powers of two.
        """
        theta, head_dim = lookup(config, "rope_parameters.rope_theta") or 10000.0, evaluate(self.head_dim, config)
        factor = float(factors.max())
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


def _factors(theta: float, head_dim: int, factor: float, low: float, high: float, context: float) -> np.ndarray[Any, Any]:
    import numpy as np

    one, f32_ = np.float32(1), np.float32
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / f32_(head_dim)
    # PyTorch divides a scalar by a tensor as reciprocal times scalar; each step below rounds where it rounds.
    frequencies = one / np.power(np.float64(f32_(theta)), exponents.astype(np.float64)).astype(np.float32)
    wavelengths = (one / frequencies) * f32_(2 * math.pi)
    smooth = ((one / wavelengths) * f32_(context) - f32_(low)) / f32_(high - low)
    between = one / ((one - smooth) / f32_(factor) + smooth)
    long = np.where(wavelengths > f32_(context / low), f32_(factor), between)
    return np.where(wavelengths < f32_(context / high), one, long).astype(np.float32)


def _alike(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> bool:
    import numpy as np

    return one.shape == two.shape and bool(np.all(np.abs(one - two) <= np.spacing(np.maximum(one, two))))
