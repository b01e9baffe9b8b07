"""Checks of config pairs: what is stored tells the config again, with every key and with none that has a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures import Fixed, Following, Pair, Share
from hubclient.architectures.language.config import normalise
from hubclient.architectures.language.expressions import lookup
from hubclient.architectures.language.pairs import Pairs, backward, forward
from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.spokes import projector, rebuild
from hubclient.testing.bench import Subject
from hubclient.testing.faults import require
from hubclient.testing.made_up import assign, implied_by, made_up, variations

if TYPE_CHECKING:
    from hubclient.architectures import Architecture

_LEAST = "with the least"
_INTEGERS = {"u8": 8, "i8": 8, "u16": 16, "i16": 16, "u32": 32, "i32": 32, "u64": 64, "i64": 64}


def come_back(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Metadata of a config gives the config values that pairs are about, and written again the same metadata."""
    for told, config in _configs(subject).items():
        shapes = subject.models[told == _LEAST].shapes
        for space, pairs in tables(subject.architecture).items():
            metadata = forward(pairs, config, subject.architecture.name_in(space))
            kept = plainly_kept(pairs, config, subject.architecture.name_in(space))
            for path, value in _leaves(backward(pairs, metadata, subject.architecture.name_in(space))):
                if path in kept:
                    _require_same(path, value, config, told)
            again = forward(pairs, _rebuilt(subject, space, metadata, config, shapes), subject.architecture.name_in(space))
            changed = [key for key in {**metadata, **again} if again.get(key) != metadata.get(key)]
            require(
                not changed,
                f"{told}: {', '.join(changed[:3])} is {_values(metadata, changed)}, and read and written again {_values(again, changed)}",
            )


def keys_differ(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Under any one config each metadata key is written by one pair; one that says nothing on the way back may go before it."""
    for told, config in _configs(subject).items():
        for space, pairs in tables(subject.architecture).items():
            name = subject.architecture.name_in(space)
            written: dict[str, tuple[object, bool]] = {}
            for pair in pairs:
                for key, typed in pair.forward(config, name).items():
                    before, usual = written.get(key, (typed, True))
                    require(usual or before == typed, f"{told}: {key} is written as {before} and as {typed}")
                    require(key in pair.keys(name), f"{told}: {pair} writes {key}, which is none of its keys")
                    written[key] = typed, isinstance(pair, Fixed | Following)


def types_are_known(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Every stored value is of the type that it is said to be, in range."""
    for told, config in _configs(subject).items():
        for space, pairs in tables(subject.architecture).items():
            for key, (kind, value) in forward(pairs, config, subject.architecture.name_in(space)).items():
                require(_legal(kind, value), f"{told}: {key} is {value!r:.60} as {kind}")


def defaults_fill(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """A config without the keys that have a default gives the metadata of one that spells the defaults out."""
    architecture = subject.architecture
    bare = made_up(architecture, subject.config, every_key=False)
    spelled = normalise(normalise(bare, architecture.defaults, architecture.aliases), {}, {})
    for space, pairs in tables(architecture).items():
        name = architecture.name_in(space)
        require(forward(pairs, spelled, name) == forward(pairs, bare, name), "normalising a config twice changes what is stored")
    for key in architecture.defaults:
        value = lookup(bare, key)
        require(
            value is not None or key in bare or lookup(bare, f"rope_parameters.{key}") is not None or None in _tuple(architecture.defaults[key])
            or key in architecture.assumed,
            f"defaults: {key} is not there after filling in",
        )  # fmt: skip


def plainly_kept(pairs: Pairs, config: Mapping[str, Any], name: str) -> list[str]:
    """The paths of config values that are stored as they are. Others may have several ways to say the same thing."""
    return [entry.hf for entry in pairs if isinstance(entry, Pair | Share) and entry.forward(config, name)]


def tables(architecture: Architecture) -> dict[str, Pairs]:
    """The pairs, by the layout whose files they describe."""
    found = {"gguf": architecture.config} if "gguf" in architecture.layouts else {}
    return {**found, projector.SPACE: architecture.projector} if projector.SPACE in architecture.layouts else found


def _configs(subject: Subject) -> dict[str, dict[str, Any]]:
    """A config with every key, one with the least, and one for each condition and code that pairs speak of."""
    architecture = subject.architecture
    whole, bare = subject.models[0].config, subject.models[1].config
    found = {"with every key": dict(whole), _LEAST: dict(bare)}
    for told, values in variations(architecture):
        try:
            implied = implied_by(architecture, subject.models[0].shapes)
            found[f"with {told}"] = made_up(architecture, {**implied, **subject.config, **values})
        except DamagedInput:  # a value that goes with others than the made-up ones
            continue
    return found


def _rebuilt(
    subject: Subject, space: str, metadata: Mapping[str, Any], config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The config that a reader has who has the metadata and the tensors."""
    architecture = subject.architecture
    stored = {key: Value(*typed) for key, typed in metadata.items()}
    if space == projector.SPACE:
        told = backward(architecture.projector, stored, architecture.name_in(space))
        usual = {key: value for key, value in architecture.defaults.items() if key.startswith("vision_config.")}
        return {**config, **normalise(told, usual)}
    told = rebuild.told(architecture, stored)
    for path, value in implied_by(architecture, shapes).items():
        assign(told, path, value)
    whole = normalise(told, architecture.defaults, architecture.aliases)
    derived = architecture.layouts["gguf"].derive
    return {**whole, "rope_parameters": config["rope_parameters"]} if derived and "rope_parameters" in config else whole


def _leaves(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and plain values."""
    for key, value in told.items():
        if isinstance(value, Mapping) and not all(str(name).isdecimal() for name in value):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield before + key, value


def _require_same(path: str, value: Any, config: Mapping[str, Any], told: str) -> None:
    before = lookup(config, path)
    require(
        before is None or alike(value, before),
        f"{told}: {path} is {before!r:.60}, and comes back as {value!r:.60}",
    )


def alike(one: Any, two: Any) -> bool:
    """Whether two config values are the same, in float32 if they are numbers with a fraction."""
    return bool(one == two or _float32(one) == _float32(two))


def _float32(value: Any) -> Any:
    import numpy as np

    if isinstance(value, list | tuple):
        return [_float32(item) for item in value]
    return np.float32(value) if isinstance(value, float) else value


def _values(metadata: Mapping[str, Any], keys: list[str]) -> str:
    return ", ".join(repr(metadata[key][1])[:60] if key in metadata else "absent" for key in keys[:3])


def _legal(kind: str, value: Any) -> bool:
    if kind.startswith("["):
        return isinstance(value, list | tuple) and all(_legal(kind[1:-1], item) for item in value)
    if kind in _INTEGERS:
        low, high = (
            (0, 2 ** _INTEGERS[kind]) if kind.startswith("u") else (-(2 ** (_INTEGERS[kind] - 1)), 2 ** (_INTEGERS[kind] - 1))
        )
        return isinstance(value, int) and not isinstance(value, bool) and low <= value < high
    wanted = {"bool": bool, "str": str, "f32": float, "f64": float}.get(kind)
    return wanted is not None and isinstance(value, wanted)


def _tuple(default: Any) -> tuple[Any, ...]:
    return default if isinstance(default, tuple) else (default,)
