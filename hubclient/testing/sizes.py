"""Small numbers for the config values of a made-up model: every size that a declaration speaks of.

What the value of a key may be is told by the declaration (its pairs, defaults and assumptions); how large a small one is,
by the words of its name. An author may say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures import by_value, columns_of, rows_of
from hubclient.architectures.language.expressions import COMPUTED, evaluate, lookup
from hubclient.architectures.language.transforms import Transform
from hubclient.errors import DamagedInput

if TYPE_CHECKING:
    from hubclient.architectures import Architecture, Expr

VOCABULARY = 272  # a multiple of 16, to which some families round it up; more than the kit's tokenizer has
_LAYERS, _LAYERS_OF_KINDS = 2, 4
_SMALL = 16  # defaults up to here are small as they are

# The first line whose words are all in a key's last name decides; None keeps a small default.
_WORDS: tuple[tuple[str, int | None], ...] = (
    ("type vocab", 2), ("vocab", VOCABULARY), ("experts per", 2), ("experts tok", 2), ("top k", 2), ("topk", None),
    ("first dense", 1), ("leading dense", 1), ("shared experts", 1), ("experts", 4), ("expert", None),
    ("rope dim", 16), ("rope head", 16), ("head dim", 32), ("head size", 32), ("kv rank", 32), ("q rank", 48), ("rank", 16),
    ("kv head", 2), ("kv heads", 2), ("key value", 2), ("query groups", 2), ("heads kv", 2), ("n head", 4), ("heads", 4), ("head", 4),
    ("positions", 64), ("position", 64), ("ctx", 64), ("context", 64), ("length", 64), ("window", 32), ("seq", 64),
    ("layers", 2), ("layer", 2), ("blocks", 2), ("depth", 2), ("kernel", 4), ("conv", 4), ("patch", 4), ("image", 16), ("merge", None),
    ("intermediate", 96), ("inner", 96), ("ff", 96), ("ffn", 96), ("feedforward", 96), ("mlp", 96), ("expand", None), ("state", 16),
    ("hidden", 64), ("embd", 64), ("embed", 64), ("embedding", 64), ("model", 64), ("width", 64),
)  # fmt: skip


def expressions(value: Any) -> Iterator[Expr]:
    """The expressions in a transform, a metadata entry or a placement: the fields that are annotated so, and in what they hold."""
    if isinstance(value, tuple):
        for item in value:
            yield from expressions(item)
    elif is_dataclass(value):
        for each in fields(value):
            held = getattr(value, each.name)
            if "Expr" in str(each.type):
                yield from (item for item in (held if isinstance(held, tuple) else (held,)) if item is not None)
            elif isinstance(held, Transform | tuple):
                yield from expressions(held)


def spelled(value: Any) -> Iterator[tuple[Any, ...]]:
    """The tuples of expressions that a transform holds, which may be whole shapes."""
    if isinstance(value, tuple):
        for item in value:
            yield from spelled(item)
    elif is_dataclass(value):
        for each in fields(value):
            held = getattr(value, each.name)
            if "Expr" in str(each.type) and isinstance(held, tuple):
                yield held
            elif isinstance(held, Transform | tuple):
                yield from spelled(held)


def keys_in(expression: Any) -> Iterator[str]:
    """The config keys that an expression takes its numbers from."""
    if isinstance(expression, str):
        yield expression
    elif isinstance(expression, by_value):
        for case in (*expression.cases.values(), expression.otherwise):
            yield from keys_in(case)
    elif is_dataclass(expression):
        for each in fields(expression):
            yield from keys_in(getattr(expression, each.name))


def all_expressions(architecture: Architecture) -> list[Expr]:
    """Every expression of a declaration that stands for a size."""
    found: list[Expr] = [architecture.blocks, *architecture.repeats.values()]
    for layout in architecture.layouts.values():
        found += [*getattr(layout, "further", {}).values()]
        found += [expression for rule in layout.rules for expression in expressions(rule.transform)]
    found += [size for sizes in architecture.shapes.values() for size in sizes]
    found += [*expressions(architecture.placement)]
    found += [expression for entry in (*architecture.config, *architecture.projector) for expression in expressions(entry)]
    found += [value for value in architecture.assumed.values() if not isinstance(value, tuple)]
    found += [key for key, fact in architecture.implied.items() if isinstance(fact, rows_of | columns_of)]
    return list({repr(expression): expression for expression in found}.values())  # some hold a dict, so they cannot be hashed


def size_keys(architecture: Architecture) -> list[str]:
    """The config keys that sizes depend on, but for those that follow from others by a default."""
    found = [key for expression in all_expressions(architecture) for key in keys_in(expression)]
    found += [key for value in architecture.defaults.values() for key in keys_in(computed(value))]
    follows = {key for key, value in architecture.defaults.items() if isinstance(value, COMPUTED)}
    return [key for key in dict.fromkeys(found) if key not in follows]


def computed(default: Any) -> Any:
    """The expression of a default, None if it is a plain value."""
    value = default[1] if isinstance(default, tuple) else default
    return value if isinstance(value, COMPUTED) else None


def plain(default: Any) -> Any:
    """The plain value of a default, None if it is an expression."""
    value = default[0] if isinstance(default, tuple) else default
    return None if isinstance(value, COMPUTED) else value


def small(architecture: Architecture, key: str) -> int:
    """A small number for a config key that is a size."""
    default = plain(architecture.defaults.get(key))
    if key == architecture.blocks or key in architecture.repeats.values():
        several = any(rule.choice for layout in architecture.layouts.values() for rule in layout.rules)
        return _LAYERS_OF_KINDS if several else _LAYERS
    told = _by_words(key)
    if told is not None:
        return told
    usable = isinstance(default, int) and not isinstance(default, bool) and 0 < default <= _SMALL
    return int(default) if usable else 32


def _by_words(key: str) -> int | None:
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", key.rpartition(".")[2]).lower()
    words = set(re.split(r"[_\W]+", name))
    return next((number for wanted, number in _WORDS if words.issuperset(wanted.split())), None)


def values_of(architecture: Architecture, config: Mapping[str, Any]) -> list[int]:
    """The sizes that a config gives to the expressions of a declaration, without repeats."""
    return list(dict.fromkeys(size for item in all_expressions(architecture) if (size := size_of(item, config)) is not None))


def size_of(expression: Expr, config: Mapping[str, Any]) -> int | None:
    """The value of an expression, None if the config lacks what it needs."""
    try:
        return evaluate(expression, config)
    except DamagedInput:
        return None


def known(config: Mapping[str, Any], path: str) -> bool:
    """Whether a config has a value at a dotted path."""
    return lookup(config, path) is not None
