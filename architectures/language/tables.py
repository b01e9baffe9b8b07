"""Tables: dictionaries from Hugging Face names to target names, and the rules that they are compiled to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hubclient.architectures.language.patterns import Pattern
from hubclient.architectures.language.transforms import Arrow, Transform, identity

Side = Literal["hf", "target"]
Names = str | tuple[str, ...]
# From a Hugging Face name (or several, as a tuple) to a target name or an Arrow. `object`, because the type of a literal
# that mixes both is inferred as that; `_arrow` checks.
Table = Mapping[Any, object]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One line of a table: Hugging Face patterns, the transform, target patterns. See `Arrow` for the rest. Equal to itself alone."""

    hf: tuple[Pattern, ...]
    transform: Transform
    target: tuple[Pattern, ...]
    required: bool = True
    choice: tuple[str, int] | None = None
    stored: tuple[str, ...] = ()

    def side(self, side: Side) -> tuple[Pattern, ...]:
        """The patterns of one side."""
        return self.hf if side == "hf" else self.target


def block(hf: str, target: str, *tables: Table) -> dict[Names, Arrow]:
    """Tables of one repeated block, their names put behind `hf` and `target` prefixes: "model.layers.{i}", "blk.{i}".

    An empty prefix leaves the names of its side as they are.
    """
    result: dict[Names, Arrow] = {}
    for table in tables:
        for names, to in table.items():
            arrow = _arrow(to)
            key = tuple(_behind(hf, name) for name in _tuple(names))
            choice = arrow.choice and (f"{hf}: {arrow.choice[0]}", arrow.choice[1])  # encoder and decoder choose apart
            result[key] = replace(arrow, targets=tuple(_behind(target, name) for name in arrow.targets), choice=choice)
    return result


def _behind(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def biased(modules: Mapping[str, object]) -> dict[Names, Arrow]:
    """Lines for the weight and the bias of each of these modules, which go the same way."""
    return {
        f"{hf}.{part}": replace(_arrow(to), targets=tuple(f"{name}.{part}" for name in _arrow(to).targets))
        for hf, to in modules.items()
        for part in ("weight", "bias")
    }


def optional(*tables: Table) -> dict[Names, Arrow]:
    """The same lines, for tensors that a model of the family may lack."""
    return {names: replace(_arrow(to), required=False) for table in tables for names, to in table.items()}


def either(*tables: Table) -> dict[Names, Arrow]:
    """Lines of which each block has those of one table and none of the others: a dense or an expert feed-forward part.

    Target names may repeat between the tables, Hugging Face names may not; a name that several know belongs to the table that
    has most of the block's other tensors, the first if none has any.
    """
    if len({names for table in tables for names in table}) < sum(map(len, tables)):
        raise ValueError("tables of which a block has one share a Hugging Face name; put its line outside")
    label = "|".join("+".join(str(names) for names in table) for table in tables)
    return {
        names: replace(_arrow(to), choice=(label, index)) for index, table in enumerate(tables) for names, to in table.items()
    }


def stored_as(encodings: str | tuple[str, ...], *tables: Table) -> dict[Names, Arrow]:
    """Lines that apply to tensors stored in one of these encodings only ("MXFP4"); others go by the lines without this."""
    wanted = (encodings,) if isinstance(encodings, str) else encodings
    return {names: replace(_arrow(to), stored=wanted) for table in tables for names, to in table.items()}


def _arrow(to: object) -> Arrow:
    if isinstance(to, Arrow):
        return to
    if isinstance(to, str):
        return identity >> to
    raise ValueError(f"{to!r} is neither a name nor a transform with a name behind it")


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def rule_of(names: Names, to: object) -> Rule:
    """A line of a table as a rule; ValueError if its names, captures and transform do not go together."""
    arrow = _arrow(to)
    hf, target = tuple(map(Pattern.of, _tuple(names))), tuple(map(Pattern.of, arrow.targets))
    spread = arrow.transform.spread
    consumed = {spread[0]} if spread else set()
    if spread and (len(hf) != 1 or len(target) != 1 or spread[0] not in hf[0].captures):
        raise ValueError(f"{names!r} has to be one name with the capture {spread[0]!r}, for one tensor")
    if len({pattern.captures - consumed for pattern in hf} | {pattern.captures for pattern in target}) > 1:
        raise ValueError(f"captures of {names!r} and {arrow.targets!r} differ")
    arity = arrow.transform.arity
    if len(hf) != len(target) if arity is None else (len(hf), len(target)) != arity:
        raise ValueError(f"{names!r} and {arrow.targets!r} are not as many names as the transform between them takes and gives")
    return Rule(hf, arrow.transform, target, arrow.required, arrow.choice, arrow.stored)
