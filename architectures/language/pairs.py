"""Config as a pair table read both ways: "this config key is that metadata key, of this type".

`forward` writes the metadata of a target from a normalised config, `backward` reads it again.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as shown
from typing import Any, Protocol

from hubclient.architectures.language.expressions import Expr, evaluate, lookup, product
from hubclient.errors import DamagedInput

Typed = tuple[str, Any]  # (type name, value): the shape of hubclient.formats.model.Value

_ABSOLUTE = ("general.", "tokenizer.")
_RANGES = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
_F32_MAX = 3.4028235677973366e38  # just below 2^128 - 2^103, from where on rounding to float32 overflows


class Entry(Protocol):
    """A line of a pair table: a frozen value that writes metadata keys from a config and reads them back.

    `Pair` is the usual one; an architecture that needs a stranger one brings its own. Metadata keys are full ones, for an
    architecture called `name` in the target (see `full_key`).
    """

    def keys(self, name: str) -> tuple[str, ...]:
        """The metadata keys that this line may write and reads."""
        ...

    def forward(self, config: Mapping[str, Any], name: str) -> Mapping[str, Typed]:
        """Metadata from a normalised config. DamagedInput, beginning "config: ", for a value that does not fit."""
        ...

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Config values by dotted path from plain metadata values; `config` is what the lines before this one told."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """One config key and one metadata key.

    `hf` is a dotted path in the normalised config; `key` is relative to the architecture unless it starts with
    "general." or "tokenizer.". `kind` is the metadata type ("labels": an id -> label object as a list of strings).
    `when` limits writing to configs in which each path has one of the values; `unless` are values that readers assume, so
    they are not written; `codes` maps config values to stored ones; `null` is what is stored where the config has
    nothing, and means nothing on the way back.
    """

    hf: str
    key: str
    kind: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    codes: Mapping[Any, Any] | None = None
    unless: tuple[Any, ...] = ()
    null: Any = None

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The typed value, if this config has something to write here."""
        value = lookup(config, self.hf)
        known = self.null is not None if value is None else value not in self.unless
        applies = known and all(lookup(config, path) in values for path, values in self.when.items())
        return {full_key(self.key, name): self.store(config)} if applies else {}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The config value, if the metadata has the key."""
        stored = metadata.get(full_key(self.key, name))
        if stored is None or (self.null is not None and stored == self.null):
            return {}
        _check(self, stored)
        return {self.hf: self.load(stored)}

    def store(self, config: Mapping[str, Any]) -> Typed:
        """The typed value; DamagedInput if the config's value does not fit."""
        value = lookup(config, self.hf)
        if value is None:
            value = self.null
        elif self.codes is not None:
            if not isinstance(value, str | int) or value not in self.codes:
                raise DamagedInput(
                    f"config: {self.hf} is {shown(value)}, which has no code; known are {', '.join(map(str, self.codes))}"
                )
            value = self.codes[value]
        return _typed(self, value)

    def load(self, value: Any) -> Any:
        """The config value for a stored one."""
        if self.codes is not None:
            names = {code: name for name, code in self.codes.items()}
            if value not in names:
                raise DamagedInput(f"metadata: {self.key} is {shown(value)}, which stands for nothing known")
            return names[value]
        if self.kind == "labels":
            return {str(index): label for index, label in enumerate(value)}
        if self.kind.startswith("["):
            return [shortest_float32(item) if self.kind == "[f32]" else item for item in value]
        return shortest_float32(value) if self.kind == "f32" else value


def u32(hf: str, key: str, **when: Any) -> Pair:
    """A pair stored as an unsigned 32-bit integer."""
    return Pair(hf, key, "u32", **when)


def f32(hf: str, key: str, **when: Any) -> Pair:
    """A pair stored as a 32-bit float."""
    return Pair(hf, key, "f32", **when)


def text(hf: str, key: str, **when: Any) -> Pair:
    """A pair stored as a string."""
    return Pair(hf, key, "str", **when)


def boolean(hf: str, key: str, **when: Any) -> Pair:
    """A pair stored as a boolean."""
    return Pair(hf, key, "bool", **when)


def numbers(hf: str, key: str, kind: str = "[i32]", **when: Any) -> Pair:
    """A list of numbers, stored as an array: "[i32]", "[u32]" or "[f32]"."""
    return Pair(hf, key, kind, **when)


def labels(hf: str, key: str) -> Pair:
    """An id -> label object, stored as a list of labels in the order of ids."""
    return Pair(hf, key, "labels")


def code(hf: str, key: str, codes: Mapping[Any, int]) -> Pair:
    """A pair whose config value is stored as a number."""
    return Pair(hf, key, "u32", codes=codes)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A metadata key that has the same value for every model of the architecture, and says nothing on the way back.

    `only` refuses files with another value, which would be of another architecture.
    """

    key: str
    kind: str
    value: Any
    only: bool = False

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:  # noqa: ARG002
        """The value."""
        return {full_key(self.key, name): (self.kind, self.value)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        stored = metadata.get(full_key(self.key, name), self.value)
        if self.only and stored != self.value:
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)} where {name} models have {self.value}")
        return {}


@dataclass(frozen=True, slots=True)
class Following:
    """A u32 metadata key whose value follows from the config by an expression, and says nothing on the way back."""

    value: Expr
    key: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The value of the expression."""
        if not all(lookup(config, path) in values for path, values in self.when.items()):
            return {}
        return {full_key(self.key, name): ("u32", evaluate(self.value, config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Share:
    """A fraction in the config, stored as the whole number that it makes of another size (rotary dimensions of a head)."""

    hf: str
    of: Expr
    key: str

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The share, rounded down as llama.cpp's converter does it."""
        value = lookup(config, self.hf)
        if value is None:
            return {}
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise DamagedInput(f"config: {self.hf} is {shown(value)} where a fraction is needed")
        return {full_key(self.key, name): ("u32", int(value * evaluate(self.of, config)))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fraction, in as few digits as give the same number."""
        stored = metadata.get(full_key(self.key, name))
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
class Multiple:
    """A whole factor in the config, stored as the size that it makes of another one (the inner size of a mixer)."""

    hf: str
    of: Expr
    key: str

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The product."""
        return {full_key(self.key, name): ("u32", evaluate(product(self.hf, self.of), config))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The factor."""
        stored = metadata.get(full_key(self.key, name))
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


Pairs = tuple[Entry, ...]


def full_key(key: str, name: str) -> str:
    """A metadata key as files have it: relative ones behind the architecture's name."""
    return key if key.startswith(_ABSOLUTE) else f"{name}.{key}"


def forward(pairs: Iterable[Entry], config: Mapping[str, Any], name: str) -> dict[str, Typed]:
    """Metadata of a target from a normalised config; `name` is the architecture's name in the target."""
    result: dict[str, Typed] = {}
    for pair in pairs:
        result.update(pair.forward(config, name))
    return result


def backward(pairs: Iterable[Entry], metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The normalised config that metadata tells; of several keys for one config value the first present decides."""
    result: dict[str, Any] = {}
    plain = _Plain(metadata)
    for pair in pairs:
        for path, value in pair.backward(plain, name, result).items():
            if lookup(result, path) is None:
                _assign(result, path, value)
    return result


class _Plain(Mapping[str, Any]):
    """Metadata whose values are looked at without their types."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    def __getitem__(self, key: str) -> Any:
        stored = self._metadata[key]
        return stored[1] if isinstance(stored, tuple) else stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._metadata)

    def __len__(self) -> int:
        return len(self._metadata)


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


def _typed(pair: Pair, value: Any) -> Typed:
    kind = pair.kind
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
            return kind, [_typed(Pair(pair.hf, pair.key, kind[1:-1]), item)[1] for item in value]
    elif isinstance(value, {"bool": bool, "str": str}[kind]):
        return kind, value
    raise DamagedInput(f"config: {pair.hf} is {shown(value)}, which cannot be stored as {kind}")


def _check(pair: Pair, stored: Any) -> None:
    value = stored
    if not _fits(pair.kind, value):
        told = shown(value) if isinstance(value, int | float | str) else "an array"
        raise DamagedInput(f"metadata: {pair.key} is {told} where {pair.kind} is needed")


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


def _assign(config: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        config = config.setdefault(name, {})
    config[last] = value
