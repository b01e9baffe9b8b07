"""The config of a made-up model: a value for every key that a declaration speaks of, of the kind that its pair stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hubclient.architectures import NULL, Flags, Pair, Share
from hubclient.architectures.language.config import inner, normalise
from hubclient.architectures.language.expressions import lookup
from hubclient.testing.sizes import computed, known, plain, size_keys, size_of, small

if TYPE_CHECKING:
    from hubclient.architectures import Architecture, Entry

ASIDE = ("pooling_mode", "preprocessor")  # what the normalised config tells from other files than config.json
_EVERY_KEY = {"[f32]": [0.5, 0.25, 0.125], "labels": {"0": "no", "1": "yes", "2": "unsure"}, "bool": True, "str": "some"}


def made_up(architecture: Architecture, given: Mapping[str, Any], *, every_key: bool = True) -> dict[str, Any]:
    """A normalised config of small sizes.

    With `every_key`, each pair has something to store; without, only sizes and what has no default are there. `given` are
    values by dotted path that are taken as they are.
    """
    config: dict[str, Any] = {}
    for key in size_keys(architecture):
        assign(config, key, small(architecture, key))
    for path, accepted in {**architecture.assumed, **architecture.projector_assumed}.items():
        if isinstance(accepted, tuple) and None not in accepted and accepted[0] is not None:
            assign(config, path, accepted[0])
        elif accepted == (None,):
            assign(config, path, None)
    for path, value in given.items():
        assign(config, path, value)
    said: set[str] = set()
    for entry in (*architecture.config, *architecture.projector):
        path = getattr(entry, "hf", "")
        if path and path not in given and said.isdisjoint(entry.keys("")):
            if _wanted(architecture, entry, path, config, every_key=every_key):
                assign(config, path, _value(architecture, entry, path))
            if isinstance(entry, Pair) and (known(config, path) or path in architecture.defaults):
                said.update(entry.keys(""))  # another spelling of the same may not say otherwise
    config = normalise(config, architecture.defaults, architecture.aliases)
    for path, accepted in architecture.assumed.items():
        if not isinstance(accepted, tuple) and path not in given and (size := size_of(accepted, config)) is not None:
            assign(config, path, size)
    return {key: value for key, value in config.items() if value is not None or key in architecture.assumed}


def implied_by(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config values, by dotted path, that a model's tensors tell."""
    found = {path: fact.of(shapes) for path, fact in architecture.implied.items()}
    return {path: None if value is NULL else value for path, value in found.items() if value is not None}


def variations(architecture: Architecture) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and values by dotted path of the further configs that a declaration tells apart: conditions, codes, flags."""
    seen = set()
    for entry in (*architecture.config, *architecture.projector):
        conditions = [(path, value) for path, values in (getattr(entry, "when", None) or {}).items() for value in values]
        cases = getattr(entry, "codes", None) or getattr(entry, "flags", None) or {}
        for path, value in (*conditions, *((getattr(entry, "hf", ""), case) for case in cases)):
            if (path, str(value)) not in seen:
                seen.add((path, str(value)))
                yield f"{path}={value}", {path: value}


def assign(config: dict[str, Any], path: str, value: Any) -> None:
    """Set a value at a dotted path."""
    place, last = inner(config, path)
    place[last] = value


def _wanted(architecture: Architecture, entry: Entry, path: str, config: Mapping[str, Any], *, every_key: bool) -> bool:
    """Whether the config should get a value for an entry."""
    if known(config, path) or path in architecture.assumed or path == "pooling_mode":  # which a file of its own says
        return False
    if not isinstance(entry, Pair | Share | Flags):
        return False  # a stranger one has its defaults
    if computed(architecture.defaults.get(path)) is not None and not (
        every_key and isinstance(entry, Pair) and entry.kind == "u32"
    ):
        return False  # it follows from others
    if not all(lookup(config, key) in values for key, values in (getattr(entry, "when", None) or {}).items()):
        return False
    return every_key or path not in architecture.defaults


def _value(architecture: Architecture, entry: Entry, path: str) -> Any:
    """A value that the entry can store, other than the default where it is free."""
    default = plain(architecture.defaults.get(path))
    if cases := (getattr(entry, "codes", None) or getattr(entry, "flags", None)):
        return default if default in cases else next(iter(cases))
    kind = getattr(entry, "kind", "u32")
    if isinstance(entry, Share):
        return default if default is not None else 0.5
    if kind == "f32":
        return _number(path, default)
    if kind in ("bool", "str", "labels") or kind.startswith("["):
        return default if default is not None else _EVERY_KEY.get(kind, [4, 2, 2])
    return small(architecture, path)


def _number(path: str, default: Any) -> float:
    if isinstance(default, int | float) and default:
        return float(f"{default * 1.5:.6g}")
    return 1e-5 if "eps" in path else 20000.0 if "theta" in path or "base" in path else 0.5
