"""Further lines of pair tables: fixed and computed values, shares, multiples, sums, flags, and what a number tells of another
value. See `pairs.Entry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import repr as shown
from typing import Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup, product
from hubclient.architectures.language.pairs import OneKey, f32, full_key, u32
from hubclient.architectures.language.typed import Typed, shortest_float32
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class Fixed(OneKey):
    """A metadata key that has the same value for every model of the architecture, and says nothing on the way back.

    `only` refuses files with another value, which would be of another architecture.
    """

    key: str
    kind: str
    value: Any
    only: bool = False

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:  # noqa: ARG002
        """The value."""
        return {self.full(name): (self.kind, self.value)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        stored = metadata.get(self.full(name), self.value)
        if self.only and stored != self.value:
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)} where {name} models have {self.value}")
        return {}


@dataclass(frozen=True, slots=True)
class Following(OneKey):
    """A u32 metadata key whose value follows from the config by an expression, and says nothing on the way back."""

    value: Expr
    key: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The value of the expression."""
        if not all(lookup(config, path) in values for path, values in self.when.items()):
            return {}
        return {self.full(name): ("u32", evaluate(self.value, config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Share(OneKey):
    """A fraction in the config, stored as the whole number that it makes of another size (rotary dimensions of a head)."""

    hf: str
    of: Expr
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The share, rounded down as llama.cpp's converter does it."""
        value = lookup(config, self.hf)
        if value is None:
            return {}
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise DamagedInput(f"config: {self.hf} is {shown(value)} where a fraction is needed")
        return {self.full(name): ("u32", int(value * evaluate(self.of, config)))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fraction, in as few digits as give the same number."""
        stored = metadata.get(self.full(name))
        if stored is None:
            return {}
        size = evaluate(self.of, config)
        if not isinstance(stored, int) or isinstance(stored, bool) or not 0 < stored <= size:
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)}, which is no part of {size} ({self.of})")
        for digits in range(1, 17):
            fraction = float(f"{stored / size:.{digits}g}")
            if int(fraction * size) == stored and fraction <= 1:
                return {self.hf: fraction}
        return {self.hf: stored / size}


@dataclass(frozen=True, slots=True)
class Multiple(OneKey):
    """A whole factor in the config, stored as the size that it makes of another one (the inner size of a mixer)."""

    hf: str
    of: Expr
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The product."""
        return {self.full(name): ("u32", evaluate(product(self.hf, self.of), config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The factor."""
        stored = metadata.get(self.full(name))
        if stored is None:
            return {}
        size = evaluate(self.of, config)
        if not isinstance(stored, int) or isinstance(stored, bool) or stored <= 0 or stored % size:
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)}, which is no multiple of {size} ({self.of})")
        return {self.hf: stored // size}


@dataclass(frozen=True, slots=True)
class Flags:
    """A config value of which some cases have a flag each in the metadata, and others none.

    `otherwise` is the value that no flag means, None if that says nothing.
    """

    hf: str
    flags: Mapping[Any, str]
    otherwise: Any = None

    def keys(self, name: str) -> tuple[str, ...]:
        """The flags."""
        return tuple(dict.fromkeys(full_key(key, name) for key in self.flags.values()))

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The flag of the value, if it has one."""
        value = lookup(config, self.hf)
        found = next((key for case, key in self.flags.items() if case == value), None)
        return {} if found is None else {full_key(found, name): ("bool", True)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The first value whose flag is set."""
        flagged = (case for case, key in self.flags.items() if metadata.get(full_key(key, name)) is True)
        value = next(flagged, self.otherwise)
        return {} if value is None else {self.hf: value}


@dataclass(frozen=True, slots=True)
class Sum(OneKey):
    """A size in the config, stored as the sum of it and `other`, which an earlier line has told on the way back."""

    hf: str
    other: Expr
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The sum, as u32."""
        return {self.full(name): ("u32", evaluate(self.hf, config) + evaluate(self.other, config))}

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
class Times(OneKey):
    """A number in the config, stored as f32 and `by` times as large."""

    hf: str
    key: str
    by: float

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
class Told(OneKey):
    """A config value that a number under another line's key tells: one of `values`, or `otherwise`. Writes nothing itself."""

    hf: str
    key: str
    values: Mapping[int, Any]
    otherwise: Any

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """Nothing, but DamagedInput for a value that is none of these."""
        value = lookup(config, self.hf)
        if value is not None and value not in (*self.values.values(), self.otherwise):
            raise DamagedInput(f"config: {self.hf} is {shown(value)}, which {self.full(name)} cannot tell")
        return {}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The value for the stored number."""
        told = u32(self.hf, self.key).backward(metadata, name, config)
        return {path: self.values.get(number, self.otherwise) for path, number in told.items()}
