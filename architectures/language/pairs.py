"""Config as a pair table read both ways: "this config key is that metadata key, of this type".

`forward` writes the metadata of a target from a normalised config, `backward` reads it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from reprlib import repr as shown
from typing import Any, Protocol

from hubclient.architectures.language.expressions import lookup
from hubclient.architectures.language.typed import Typed, check, shortest_float32, typed
from hubclient.errors import DamagedInput

_ABSOLUTE = ("general.", "tokenizer.")


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


class OneKey:
    """Base of lines that write and read one metadata key, which is relative to the architecture or begins as absolute ones do."""

    __slots__ = ()
    key: str

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (self.full(name),)

    def full(self, name: str) -> str:
        """The key as a file of the architecture `name` has it."""
        return full_key(self.key, name)


@dataclass(frozen=True, slots=True)
class Pair(OneKey):
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

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The typed value, if this config has something to write here."""
        value = lookup(config, self.hf)
        known = self.null is not None if value is None else value not in self.unless
        applies = known and all(lookup(config, path) in values for path, values in self.when.items())
        return {self.full(name): self.store(config)} if applies else {}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The config value, if the metadata has the key."""
        stored = metadata.get(self.full(name))
        if stored is None or (self.null is not None and stored == self.null):
            return {}
        check(self.key, self.kind, stored)
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
        return typed(self.hf, self.kind, value)

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


def _assign(config: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        config = config.setdefault(name, {})
    config[last] = value
