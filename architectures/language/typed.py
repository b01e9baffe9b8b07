"""Values of metadata: which ones fit a type, on the way there and on the way back."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from reprlib import repr as shown
from typing import Any

from hubclient.errors import DamagedInput

Typed = tuple[str, Any]  # (type name, value): the shape of hubclient.formats.model.Value

_RANGES = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
_F32_MAX = 3.4028235677973366e38  # just below 2^128 - 2^103, from where on rounding to float32 overflows


def shortest_float32(value: float) -> float:
    """The shortest decimal that has the same float32 value: 9.999999974752427e-07 is 1e-06 again."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits}g}")
        if _float32(candidate) == _float32(value):
            return candidate
    return value


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # rounds to infinity
        return struct.pack("<f", math.copysign(math.inf, value))


def typed(hf: str, kind: str, value: Any) -> Typed:
    """A config value as metadata stores it; DamagedInput, naming the config key `hf`, if it is not of that kind."""
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return kind, value
    elif kind == "f32":
        if isinstance(value, int | float) and not isinstance(value, bool) and -_F32_MAX <= value <= _F32_MAX:
            return kind, float(value)
    elif kind == "labels":
        if isinstance(value, Mapping) and all(str(key).isdecimal() and isinstance(label, str) for key, label in value.items()):
            return "[str]", [label for _, label in sorted((int(key), label) for key, label in value.items())]
    elif kind.startswith("["):
        if isinstance(value, Sequence) and not isinstance(value, str):
            return kind, [typed(hf, kind[1:-1], item)[1] for item in value]
    elif isinstance(value, {"bool": bool, "str": str}[kind]):
        return kind, value
    raise DamagedInput(f"config: {hf} is {shown(value)}, which cannot be stored as {kind}")


def check(key: str, kind: str, stored: Any) -> None:
    """DamagedInput, naming the metadata key, for a stored value that is not of that kind."""
    if not _fits(kind, stored):
        told = shown(stored) if isinstance(stored, int | float | str) else "an array"
        raise DamagedInput(f"metadata: {key} is {told} where {kind} is needed")


def _fits(kind: str, value: Any) -> bool:
    """Whether a stored value can stand in a config.json as what the pair says it is."""
    if kind.startswith("["):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(kind[1:-1], item) for item in value)
    match kind:
        case "labels":
            return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits("str", label) for label in value)
        case "str":
            return isinstance(value, str) and not any(
                "\ud800" <= letter <= "\udfff" for letter in value
            )  # bytes that are no UTF-8
        case "bool":
            return isinstance(value, bool)
        case "f32":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)
