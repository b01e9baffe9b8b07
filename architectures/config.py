"""Config as a pair table read both ways, and the one place where older and newer spellings are made equal.

A pair says "this config key is that metadata key, of this type". `forward` writes the metadata of a target from a
normalised config, `backward` reads it again. `normalise` turns any config.json (Transformers 4 or 5, defaults left out,
nested text_config) into the form that pairs and expressions see.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as shown
from typing import Any

from hubclient.architectures.expressions import COMPUTED, evaluate, lookup
from hubclient.errors import DamagedInput

Typed = tuple[str, Any]  # (type name, value): the shape of hubclient.formats.model.Value
Default = Any  # a plain value, or an Expr for a default that follows from other keys

_ABSOLUTE = ("general.", "tokenizer.")
_RANGES = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1)}
_F32_MAX = 3.4028235677973366e38  # just below 2^128 - 2^103, from where on rounding to float32 overflows


@dataclass(frozen=True, slots=True)
class Pair:
    """One config key and one metadata key.

    `hf` is a dotted path in the normalised config; `key` is relative to the architecture unless it starts with
    "general." or "tokenizer.". `kind` is the metadata type ("labels": an id -> label object as a list of strings).
    `when` limits writing to configs in which each path has one of the values; `codes` maps config values to stored ones.
    """

    hf: str
    key: str
    kind: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    codes: Mapping[Any, Any] | None = None

    def full_key(self, name: str) -> str:
        """The metadata key for an architecture called `name` in the target."""
        return _full_key(self.key, name)

    def applies(self, config: Mapping[str, Any]) -> bool:
        """Whether this config has something to write here."""
        return lookup(config, self.hf) is not None and all(lookup(config, path) in values for path, values in self.when.items())

    def store(self, config: Mapping[str, Any]) -> Typed:
        """The typed value; DamagedInput if the config's value does not fit."""
        value = lookup(config, self.hf)
        if self.codes is not None:
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


def labels(hf: str, key: str) -> Pair:
    """An id -> label object, stored as a list of labels in the order of ids."""
    return Pair(hf, key, "labels")


def code(hf: str, key: str, codes: Mapping[Any, int]) -> Pair:
    """A pair whose config value is stored as a number."""
    return Pair(hf, key, "u32", codes=codes)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A metadata key that has the same value for every model of the architecture, and says nothing on the way back."""

    key: str
    kind: str
    value: Any

    def full_key(self, name: str) -> str:
        """The metadata key for an architecture called `name` in the target."""
        return _full_key(self.key, name)


Pairs = tuple["Pair | Fixed", ...]


def forward(pairs: Iterable[Pair | Fixed], config: Mapping[str, Any], name: str) -> dict[str, Typed]:
    """Metadata of a target from a normalised config; `name` is the architecture's name in the target."""
    result: dict[str, Typed] = {}
    for pair in pairs:
        if isinstance(pair, Fixed):
            result[pair.full_key(name)] = (pair.kind, pair.value)
        elif pair.applies(config):
            result[pair.full_key(name)] = pair.store(config)
    return result


def backward(pairs: Iterable[Pair | Fixed], metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The normalised config that metadata tells; of several keys for one config value the first present decides."""
    result: dict[str, Any] = {}
    for pair in pairs:
        stored = metadata.get(pair.full_key(name)) if isinstance(pair, Pair) else None
        if isinstance(pair, Pair) and stored is not None and lookup(result, pair.hf) is None:
            _check(pair, stored)
            _assign(result, pair.hf, pair.load(_plain(stored)))
    return result


def normalise(raw: Mapping[str, Any], defaults: Mapping[str, Default]) -> dict[str, Any]:
    """One spelling for every config.json.

    Nested `text_config` comes to the top, `torch_dtype` becomes `dtype`, all of rope becomes `rope_parameters`
    (Transformers 5), and what the file leaves out comes from `defaults`: a plain default fills an absent key, an
    expression also one that is null; a pair (plain, expression) gives one for each.
    """
    nested = raw.get("text_config")
    config = {**raw, **nested} if isinstance(nested, Mapping) else dict(raw)
    config.setdefault("dtype", config.get("torch_dtype"))
    split = {key: default if isinstance(default, tuple) else (default, default) for key, default in defaults.items()}
    for key, (plain, _) in split.items():
        if not isinstance(plain, COMPUTED):
            config.setdefault(key, plain)
    for key, (_, computed) in split.items():
        if isinstance(computed, COMPUTED) and config.get(key) is None:
            config[key] = evaluate(computed, config)
    if rope := _rope_parameters(config):
        config["rope_parameters"] = rope
    return config


def spell(config: Mapping[str, Any]) -> dict[str, Any]:
    """A normalised config in the spelling that both Transformers 4 and 5 read: `rope_theta`, `rope_scaling`, `torch_dtype`."""
    result = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        result["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        result["rope_scaling"] = rope
    if config.get("dtype"):
        result["torch_dtype"] = config["dtype"]
    return result


def shortest_float32(value: float) -> float:
    """The shortest decimal that has the same float32 value: 9.999999974752427e-07 is 1e-06 again."""
    for digits in range(1, 10):
        candidate = float(f"{value:.{digits}g}")
        if _float32(candidate) == _float32(value):
            return candidate
    return value


def difference(original: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> dict[str, Any]:
    """What turns `rebuilt` into `original`: keys to set, keys to leave out."""
    changed = {key: value for key, value in original.items() if key not in rebuilt or not _same(rebuilt[key], value)}
    return {"set": changed, "unset": [key for key in rebuilt if key not in original]}


def restore(rebuilt: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `difference`."""
    unset = set(changes.get("unset", ()))
    return {key: value for key, value in rebuilt.items() if key not in unset} | dict(changes.get("set", {}))


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # rounds to infinity
        return struct.pack("<f", math.copysign(math.inf, value))


def _full_key(key: str, name: str) -> str:
    return key if key.startswith(_ABSOLUTE) else f"{name}.{key}"


def _same(one: Any, two: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)  # 1 == 1.0 == True in Python, not in JSON


def _rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise DamagedInput(f"config: rope settings are {shown(given)} where an object is needed")
    rope = dict(given)
    if any(isinstance(value, Mapping) for value in rope.values()):
        return rope  # one set per kind of layer, left as it is
    if "type" in rope:
        rope.setdefault("rope_type", rope.pop("type"))
    if (theta := config.get("rope_theta")) is not None:
        rope.setdefault("rope_theta", theta)
    if not rope:
        return {}
    rope.setdefault("rope_type", "default")
    if rope["rope_type"] in ("yarn", "llama3", "longrope"):
        original = config.get("original_max_position_embeddings") or config.get("max_position_embeddings")
        rope.setdefault("original_max_position_embeddings", original)
    return rope


def _plain(stored: Any) -> Any:
    return stored[1] if isinstance(stored, tuple) else stored


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
    elif isinstance(value, {"bool": bool, "str": str}[kind]):
        return kind, value
    raise DamagedInput(f"config: {pair.hf} is {shown(value)}, which cannot be stored as {kind}")


def _check(pair: Pair, stored: Any) -> None:
    value = _plain(stored)
    if not _fits(pair.kind, value):
        told = shown(value) if isinstance(value, int | float | str) else "an array"
        raise DamagedInput(f"metadata: {pair.key} is {told} where {pair.kind} is needed")


def _fits(kind: str, value: Any) -> bool:
    """Whether a stored value can stand in a config.json as what the pair says it is."""
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
