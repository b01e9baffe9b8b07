"""The one place where older and newer spellings of config.json are made equal.

`normalise` turns any config.json (Transformers 4 or 5, defaults left out, nested text_config) into the form that pairs and
expressions see; `spell` turns it back; `difference` and `restore` keep what a rebuilt one lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from reprlib import repr as shown
from types import MappingProxyType
from typing import Any

from hubclient.architectures.language.expressions import COMPUTED, evaluate, lookup
from hubclient.errors import DamagedInput

Default = Any  # a plain value, or an Expr for a default that follows from other keys
_MOVED = {"rope_parameters.partial_rotary_factor": "partial_rotary_factor"}  # where Transformers 5 puts a key, and 4 did


def normalise(
    raw: Mapping[str, Any], defaults: Mapping[str, Default], aliases: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """One spelling for every config.json.

    Nested `text_config` comes to the top, `torch_dtype` becomes `dtype`, all of rope becomes `rope_parameters`
    (Transformers 5), and what the file leaves out comes from `defaults`: a plain default fills an absent key, an
    expression also one that is null or "auto"; a pair (plain, expression) gives one for each. Dotted names lead into objects.
    `aliases` are other spellings that a family knows for a key ({"n_embed": "hidden_size"}), looked at where it is absent.
    """
    nested = raw.get("text_config")
    config = {**raw, **nested} if isinstance(nested, Mapping) else dict(raw)
    config.setdefault("dtype", config.get("torch_dtype"))
    for other, key in {**_MOVED, **aliases}.items():
        if lookup(config, key) is None and (value := lookup(config, other)) is not None:
            place, last = inner(config, key)
            place[last] = value
    split = {key: default if isinstance(default, tuple) else (default, default) for key, default in defaults.items()}
    for key, (plain, _) in split.items():
        place, last = inner(config, key)
        if not isinstance(plain, COMPUTED):
            place.setdefault(last, plain)
    for key, (_, computed) in split.items():
        place, last = inner(config, key)
        if isinstance(computed, COMPUTED) and place.get(last) in (None, "auto"):
            place[last] = evaluate(computed, config)
    if rope := _rope_parameters(config):
        config["rope_parameters"] = rope
    return config


def spell(config: Mapping[str, Any]) -> dict[str, Any]:
    """A normalised config in the spelling that both Transformers 4 and 5 read: `rope_theta`, `rope_scaling`, `torch_dtype`."""
    result = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(config.get("rope_parameters") or {})
    if "rope_local_base_freq" in config:
        rope = dict(rope.get("full_attention") or {})
    if _per_kind(rope):
        result["rope_parameters"] = rope
        rope = {}
    if "rope_theta" in rope:
        result["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default" or rope.keys() - {"rope_type"}:
        result["rope_scaling"] = _older(rope, config)
    if config.get("dtype"):
        result["torch_dtype"] = config["dtype"]
    return result


def _older(rope: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_scaling`. For longrope older versions of Transformers want `type` and the two lists, and nothing else."""
    if rope.get("rope_type", "default") != "longrope":
        return {"rope_type": "default", **rope}
    original = config.get("original_max_position_embeddings")
    said = {"rope_type"} | ({"original_max_position_embeddings"} if original is not None else set())
    return {"type": "longrope", **{key: value for key, value in rope.items() if key not in said}}


def difference(original: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> dict[str, Any]:
    """What turns `rebuilt` into `original`: keys to set, keys to leave out."""
    changed = {key: value for key, value in original.items() if key not in rebuilt or not _same(rebuilt[key], value)}
    return {"set": changed, "unset": [key for key in rebuilt if key not in original]}


def restore(rebuilt: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `difference`."""
    unset = set(changes.get("unset", ()))
    return {key: value for key, value in rebuilt.items() if key not in unset} | dict(changes.get("set", {}))


def inner(config: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The object that a dotted path leads into, a copy of config.json's own, and the last name of the path."""
    *parents, last = path.split(".")
    for name in parents:
        inner = config.get(name)
        config[name] = dict(inner) if isinstance(inner, Mapping) else {}
        config = config[name]
    return config, last


def _same(one: Any, two: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)  # 1 == 1.0 == True in Python, not in JSON


def _rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise DamagedInput(f"config: rope settings are {shown(given)} where an object is needed")
    rope = {key: value for key, value in given.items() if f"rope_parameters.{key}" not in _MOVED}
    if (local := config.get("rope_local_base_freq")) is not None:  # Gemma 3: of two kinds, in older files one of them beside
        sets = rope if _per_kind(rope) else {"full_attention": rope}
        thetas = {"full_attention": config.get("rope_theta"), "sliding_attention": local}
        return {kind: _rope_set(sets.get(kind) or {}, config, theta) for kind, theta in thetas.items()}
    if _per_kind(rope):
        return rope  # one set per kind of layer, left as it is
    return _rope_set(rope, config, config.get("rope_theta"))


def _per_kind(rope: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in rope.values())


def _rope_set(given: Any, config: Mapping[str, Any], theta: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise DamagedInput(f"config: rope settings are {shown(given)} where an object is needed")
    rope = dict(given)
    if "type" in rope:
        rope.setdefault("rope_type", rope.pop("type"))
    if theta is not None:
        rope.setdefault("rope_theta", theta)
    if not rope:
        return {}
    rope.setdefault("rope_type", "default")
    if rope["rope_type"] == "su":  # what longrope was called at first
        rope["rope_type"] = "longrope"
    if rope["rope_type"] in ("yarn", "llama3", "longrope"):
        original = config.get("original_max_position_embeddings") or config.get("max_position_embeddings")
        rope.setdefault("original_max_position_embeddings", original)
    return rope
