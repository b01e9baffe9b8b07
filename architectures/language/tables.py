"""Tables: dictionaries from Hugging Face names to target names, and the rules that they are compiled to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hubclient.architectures.language.expressions import Expr
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
    spread: tuple[str, Expr] | None = field(init=False)  # the transform's, which is asked for with every name

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", self.transform.spread)

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
            arrow = _arrow(to, names)
            key = tuple(_behind(hf, name) for name in _tuple(names))
            choice = arrow.choice and (f"{hf}: {arrow.choice[0]}", arrow.choice[1])  # encoder and decoder choose apart
            result[key] = replace(arrow, targets=tuple(_behind(target, name) for name in arrow.targets), choice=choice)
    return result


def _behind(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def biased(modules: Mapping[str, object]) -> dict[Names, Arrow]:
    """Lines for the weight and the bias of each of these modules, which go the same way."""
    return {
        f"{hf}.{part}": replace(_arrow(to, hf), targets=tuple(f"{name}.{part}" for name in _arrow(to, hf).targets))
        for hf, to in modules.items()
        for part in ("weight", "bias")
    }


def optional(*tables: Table) -> dict[Names, Arrow]:
    """The same lines, for tensors that a model of the family may lack."""
    return {names: replace(_arrow(to, names), required=False) for table in tables for names, to in table.items()}


def either(*tables: Table) -> dict[Names, Arrow]:
    """Lines of which each block has those of one table and none of the others: a dense or an expert feed-forward part.

    Target names may repeat between the tables, Hugging Face names may not; a name that several know belongs to the table that
    has most of the block's other tensors, the first if none has any.
    """
    if len({names for table in tables for names in table}) < sum(map(len, tables)):
        raise ValueError("tables of which a block has one share a Hugging Face name; put its line outside")
    label = "|".join("+".join(str(names) for names in table) for table in tables)
    return {
        names: replace(_arrow(to, names), choice=(label, index))
        for index, table in enumerate(tables)
        for names, to in table.items()
    }


def stored_as(encodings: str | tuple[str, ...], *tables: Table) -> dict[Names, Arrow]:
    """Lines that apply to tensors stored in one of these encodings only; others go by the lines without this.

    Name what they are stored as in the format and, if that is something else, in safetensors: ("MXFP4", "MXFP4_PLANES").
    """
    wanted = (encodings,) if isinstance(encodings, str) else tuple(encodings)
    if not wanted or not all(isinstance(name, str) and name for name in wanted):
        raise ValueError(f"stored_as: {encodings!r:.60} where names of encodings are needed")
    return {names: replace(_arrow(to, names), stored=wanted) for table in tables for names, to in table.items()}


def _arrow(to: object, names: Names) -> Arrow:
    if isinstance(to, Arrow):
        return to
    if isinstance(to, str):
        return identity >> to
    raise ValueError(f"{_told(_tuple(names))}: {to!r} is neither a name nor a transform with a name behind it (`T >> 'name'`)")


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def rule_of(names: Names, to: object) -> Rule:
    """A line of a table as a rule; ValueError if its names, captures and transform do not go together."""
    arrow = _arrow(to, names)
    hf, target = tuple(map(Pattern.of, _tuple(names))), tuple(map(Pattern.of, arrow.targets))
    line = f"the line from {_told(_tuple(names))} to {_told(arrow.targets)}"
    spread = arrow.transform.spread
    consumed = {spread[0]} if spread else set()
    if spread and (len(hf) != 1 or len(target) != 1 or spread[0] not in hf[0].captures):
        raise ValueError(f"{line}: has to be from one name with the capture {{{spread[0]}}} to one name")
    if len({pattern.captures - consumed for pattern in hf} | {pattern.captures for pattern in target}) > 1:
        taken = f", but for {{{spread[0]}}}, which is taken away" if spread else ""
        raise ValueError(f"{line}: both sides must have the same captures{taken}")
    if (arity := arrow.transform.arity or (len(hf), len(hf))) != (len(hf), len(target)):
        found = f"here are {len(hf)} and {len(target)}"
        raise ValueError(f"{line}: the transform between makes {_count(arity[1])} of {_count(arity[0])}, and {found}")
    return Rule(hf, arrow.transform, target, arrow.required, arrow.choice, arrow.stored)


def _told(names: tuple[str, ...]) -> str:
    return " and ".join(map(repr, names))


def _count(tensors: int) -> str:
    return f"{tensors} tensor{'s' if tensors > 1 else ''}"
