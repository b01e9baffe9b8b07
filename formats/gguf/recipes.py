"""Recipes: which type each tensor of a quantised GGUF becomes, as data.

    RECIPES                  all file types of llama-quantize, from mixes.toml
    recipe("q4_k_m")         one of them, in any case, or by its other name (Q4_K), or a file of a user's own
    recipe("IQ2_S", pure=True)   exactly that ggml type, no rules

A recipe file is TOML with these keys at its top level; `mixes.toml` says how rules are put together, `ruletables` what a
rule may hold:

    base = "Q4_K_M"             a recipe, a part of mixes.toml, or another file beside this one; or a list of them
    then = "attention"          likewise; only its rules count, after this file's own
    type = "Q5_K"               what everything becomes to which no rule applies; with a base, its type unless given
    description = "..."
    file_type = 15              general.file_type; by default that of the base, or of the type
    needs_importance = ["Q2_K"] further types that are refused without an importance matrix
    fallback = { Q1_0 = "Q4_0" } further types for rows that are not whole blocks
    [[keep]]                    conditions for tensors that are stored as the source has them
    [[rule]]                    a rule

What cannot be used is a UsageError that names file and key.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubclient.errors import UnsupportedEncoding, UsageError
from hubclient.formats.gguf.rules import Rule
from hubclient.formats.gguf.ruletables import TYPES, parse_rule, parse_type
from hubclient.formats.gguf.storage import FILE_TYPES
from hubclient.formats.sourcefile import read_source
from hubclient.ground.names import meant, shown

ALIASES: Mapping[str, str] = MappingProxyType({"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"})  # llama-quantize's

_LIMIT = 1 << 18  # bytes of a recipe file; ours, of all recipes, has 15,000
_MAX_RULES = 1000
_MAX_BASES = 16  # of one recipe, and how long a chain of files may be
_KEYS = ("base", "then", "type", "description", "file_type", "needs_importance", "fallback", "keep", "rule")
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Recipe:
    """A type, and the rules by which tensors become others; of the rules that apply the last one counts.

    `keep` are rules without a type: what they speak of is stored as the source has it. `fallback` says what stands in for a
    type whose blocks do not divide a tensor's rows. `needs_importance` are types that are refused without an importance
    matrix, but for embedding and output. `file_type` is general.file_type.
    """

    name: str
    type: str = ""
    rules: tuple[Rule, ...] = ()
    keep: tuple[Rule, ...] = ()
    fallback: Mapping[str, str] = field(default_factory=lambda: _NONE)
    needs_importance: frozenset[str] = frozenset()
    file_type: int | None = None
    description: str = ""

    @property
    def number(self) -> int:
        """general.file_type: its own, or that of the file type that is named after its type."""
        return file_type_of(self.type) if self.file_type is None else self.file_type


class _Recipes(Mapping[str, Recipe]):
    """The recipes of mixes.toml, which is read when one is asked for."""

    def __getitem__(self, name: str) -> Recipe:
        return _builtin()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_builtin())

    def __len__(self) -> int:
        return len(_builtin())


RECIPES: Mapping[str, Recipe] = _Recipes()


def recipe(name: str | Path, *, pure: bool = False) -> Recipe:
    """The recipe of that name, in any case, or in the file of that name: what ends in ".toml" or has a folder is a file.

    With `pure` it has no rules: everything that would be quantised becomes the ggml type of that name, or else the recipe's
    own type. Raises UnsupportedEncoding for a name that is none, UsageError for what cannot be used; SourceMissing or
    DamagedInput if there is no such file or it is none.
    """
    text = str(name)
    upper = text.upper()
    if isinstance(name, Path) or text.lower().endswith(".toml") or Path(text).name != text:
        found = _from_file(Path(name), (), {})
    elif pure and upper in TYPES:
        found = replace(_common(), name=upper, type=upper, description=f"{upper} throughout")
    elif upper in TYPES and upper not in {*RECIPES, *ALIASES}:
        raise UsageError(f"{upper} is a type of tensors and no recipe", hint=f"--pure makes every tensor {upper}")
    elif ALIASES.get(upper, upper) in RECIPES:
        found = RECIPES[ALIASES.get(upper, upper)]
    else:
        raise UnsupportedEncoding(f"{shown(text)} is no recipe{meant(text, RECIPES)}", hint="`hubclient recipes ls` lists all")
    return replace(found, rules=()) if pure else found


def file_type_of(made: str) -> int:
    """general.file_type of a file that is of one ggml type throughout, as llama-quantize has it."""
    return FILE_TYPES["MXFP4_MOE" if made == "MXFP4" else ALIASES.get(made, made)]


@cache
def _shipped() -> Mapping[str, Any]:
    return tomllib.loads(Path(__file__).with_name("mixes.toml").read_text(encoding="utf-8"))


@cache
def _common() -> Recipe:
    """What holds for every recipe."""
    return _own(Recipe(""), _shipped()["common"], "mixes.toml: common")


@cache
def _builtin() -> Mapping[str, Recipe]:
    return MappingProxyType({name: _part(name) for name in _shipped()["recipes"]})


@cache
def _part(name: str) -> Recipe:
    """A recipe of mixes.toml, or one of the parts that recipes are made of."""
    shipped = _shipped()
    made = _put_together(name, {**shipped["parts"], **shipped["recipes"]}[name], f"mixes.toml: {name}", _named)
    return replace(made, file_type=FILE_TYPES.get(name))


def _named(name: str, at: str) -> Recipe:
    """What a base says that is no file."""
    shipped = _shipped()
    known = (*shipped["parts"], *shipped["recipes"])
    for spelling in (name, name.upper(), ALIASES.get(name.upper())):
        if spelling in known:
            return _part(spelling)
    raise UsageError(f"{at}: {shown(name)} is no recipe, nor a file ending in .toml{meant(name, tuple(shipped['recipes']))}")


def _from_file(path: Path, chain: tuple[Path, ...], read: dict[Path, Recipe]) -> Recipe:
    """The recipe in a file; `chain` are the files whose base it is, `read` those that are read already."""
    where = Path(os.path.realpath(path))
    if where in chain:
        raise UsageError(f"{chain[-1]}: base: leads back to {path}")
    if len(chain) >= _MAX_BASES:
        raise UsageError(f"{path}: is the base of a base more than {_MAX_BASES} times over")

    def find(name: str, at: str) -> Recipe:
        if name.lower().endswith(".toml") and name.isprintable():
            return _from_file(path.parent / name, (*chain, where), read)
        return _named(name, at)

    if where not in read:
        made = _put_together(path.stem, _parse(path), str(path), find)
        if not made.type:
            raise UsageError(f"{path}: type is missing, and there is no base that has one")
        read[where] = made
    return read[where]


def _parse(path: Path) -> Mapping[str, Any]:
    data, _ = read_source(path, _LIMIT)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not TOML: not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: is not TOML that can be read: nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, and what int() says of too many digits
        raise UsageError(f"{path}: is not TOML: {' '.join(str(error).split())[:200]}") from error


def _put_together(name: str, table: Mapping[str, Any], at: str, find: Callable[[str, str], Recipe]) -> Recipe:
    """A recipe from its table; `find` gives what a base is."""
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{at}: {shown(key)} is no key of a recipe{meant(key, _KEYS)}")
    made = _common()
    for base in _names(table.get("base", []), f"{at}: base"):
        made = _joined(made, find(base, f"{at}: base"), at)
    made = _joined(made, _own(Recipe(name), table, at), at)
    for after in _names(table.get("then", []), f"{at}: then"):
        made = _joined(made, Recipe("", rules=find(after, f"{at}: then").rules), at)
    return replace(made, name=name)


def _joined(first: Recipe, second: Recipe, at: str) -> Recipe:
    """Rules of both, in this order; of what only one can be, the second's if it has it."""
    rules = first.rules + second.rules
    if len(rules) > _MAX_RULES:
        raise UsageError(f"{at}: comes to more than {_MAX_RULES} rules")
    keep = tuple(dict.fromkeys(first.keep + second.keep))  # every base has those of all recipes
    fallback = MappingProxyType({**first.fallback, **second.fallback})
    number = first.file_type if second.file_type is None and second.type in ("", first.type) else second.file_type
    kind, words = second.type or first.type, second.description or first.description
    return Recipe(second.name, kind, rules, keep, fallback, first.needs_importance | second.needs_importance, number, words)


def _own(empty: Recipe, table: Mapping[str, Any], at: str) -> Recipe:
    """What a table says itself, bases aside."""
    fallback = table.get("fallback", {})
    if not isinstance(fallback, dict):
        raise UsageError(f"{at}: fallback: {shown(fallback)} is no table of types")
    return replace(
        empty,
        type=parse_type(table["type"], f"{at}: type") if "type" in table else "",
        rules=tuple(_rules(table.get("rule", []), f"{at}: rule", keep=False)),
        keep=tuple(_rules(table.get("keep", []), f"{at}: keep", keep=True)),
        fallback={
            parse_type(kind, f"{at}: fallback"): parse_type(other, f"{at}: fallback: {kind}") for kind, other in fallback.items()
        },
        needs_importance=frozenset(
            parse_type(kind, f"{at}: needs_importance")
            for kind in _list(table.get("needs_importance", []), f"{at}: needs_importance")
        ),
        file_type=_number(table.get("file_type"), f"{at}: file_type"),
        description=_text(table.get("description", ""), f"{at}: description"),
    )


def _rules(tables: Any, at: str, *, keep: bool) -> Iterator[Rule]:
    for number, table in enumerate(_list(tables, at), 1):
        if number > _MAX_RULES:
            raise UsageError(f"{at}: there are more than {_MAX_RULES}")
        yield parse_rule(table, f"{at} {number}", keep=keep)


def _names(value: Any, at: str) -> Iterable[str]:
    names = value if isinstance(value, list) else [value]
    if len(names) > _MAX_BASES:
        raise UsageError(f"{at}: names more than {_MAX_BASES}")
    return [_text(name, at) for name in names]


def _list(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{at}: {shown(value)} is no list; tables of one begin with [[...]]")
    return value


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{at}: {shown(value)} is no text")
    return value


def _number(value: Any, at: str) -> int | None:
    if value is not None and (isinstance(value, bool) or value not in FILE_TYPES.values()):
        raise UsageError(f"{at}: {shown(value)} is the number of no file type; known: 0 to {max(FILE_TYPES.values())}")
    return None if value is None else int(value)
