"""Further lines of pair tables: sums, multiples, and what a number tells of another value. See `pairs.Entry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.pairs import Typed, f32, full_key, shortest_float32, u32
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class Sum:
    """A size in the config, stored as the sum of it and `other`, which an earlier line has told on the way back."""

    hf: str
    other: Expr
    key: str

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The sum, as u32."""
        return {full_key(self.key, name): ("u32", evaluate(self.hf, config) + evaluate(self.other, config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The stored number less the other."""
        told = u32(self.hf, self.key).backward(metadata, name, config)
        if not told:
            return {}
        rest = int(told[self.hf]) - evaluate(self.other, config)
        if rest <= 0:
            raise DamagedInput(f"metadata: {self.key} is {told[self.hf]}, which should be more than {self.other}")
        return {self.hf: rest}


@dataclass(frozen=True, slots=True)
class Times:
    """A number in the config, stored as f32 and `by` times as large."""

    hf: str
    key: str
    by: float

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The multiple."""
        stored = f32(self.hf, self.key).forward(config, name)
        return {key: (kind, value * self.by) for key, (kind, value) in stored.items()}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The number in as few digits as give the same multiple."""
        told = f32(self.hf, self.key).backward(metadata, name, config)
        return {path: self._divided(value) for path, value in told.items()}

    def _divided(self, stored: float) -> float:
        for digits in range(1, 17):
            value = float(f"{stored / self.by:.{digits}g}")
            if shortest_float32(value * self.by) == stored:
                return value
        return stored / self.by


@dataclass(frozen=True, slots=True)
class Told:
    """A config value that a number under another line's key tells: one of `values`, or `otherwise`. Writes nothing itself."""

    hf: str
    key: str
    values: Mapping[int, Any]
    otherwise: Any

    def keys(self, name: str) -> tuple[str, ...]:
        """The key that is looked at."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """Nothing, but DamagedInput for a value that is none of these."""
        value = lookup(config, self.hf)
        if value is not None and value not in (*self.values.values(), self.otherwise):
            raise DamagedInput(f"config: {self.hf} is {shown(value)}, which {full_key(self.key, name)} cannot tell")
        return {}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The value for the stored number."""
        told = u32(self.hf, self.key).backward(metadata, name, config)
        return {path: self.values.get(number, self.otherwise) for path, number in told.items()}
