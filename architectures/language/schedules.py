"""Schedules: which blocks of a model are of a kind (attention among recurrent ones, sliding windows, experts), as values.

A schedule says so from the config; the pairs here write it as an array with one entry per block and read it again, and
the facts tell it from the tensors that blocks have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, Protocol

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.pairs import OneKey
from hubclient.architectures.language.typed import Typed
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.errors import DamagedInput

_LIMIT = 1 << 16  # blocks; a config that announces more is refused before a list of them is made


class Schedule(Protocol):
    """Which blocks are of a kind; a frozen value."""

    def of(self, config: Mapping[str, Any], blocks: int) -> tuple[bool, ...]:
        """For each of so many blocks. DamagedInput if the config cannot tell."""
        ...


@dataclass(frozen=True, slots=True)
class every:  # noqa: N801 - reads as a word in the tables
    """One block in `period`, beginning with `offset` (-1: the last of each period); numbers or config keys."""

    period: int | str
    offset: int | str = 0

    def of(self, config: Mapping[str, Any], blocks: int) -> tuple[bool, ...]:
        """By the remainder of the block's number."""
        period, offset = evaluate(self.period, config), self._offset(config)
        if not -period <= offset < period:
            raise DamagedInput(f"config: {self.offset} is {offset}, which must be below {self.period}, {period}")
        return tuple((block - offset) % period == 0 for block in range(_bounded(blocks)))

    def _offset(self, config: Mapping[str, Any]) -> int:
        value = lookup(config, self.offset) if isinstance(self.offset, str) else self.offset
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LIMIT:
            return value
        raise DamagedInput(f"config: {self.offset} is {shown(value)} where the number of a block is needed")


@dataclass(frozen=True, slots=True)
class listed:  # noqa: N801
    """The blocks that a config's list calls `kind`; `otherwise` if the config has no list."""

    hf: str
    kind: str
    otherwise: Schedule

    def of(self, config: Mapping[str, Any], blocks: int) -> tuple[bool, ...]:
        """By the list, which must be as long as there are blocks."""
        kinds = lookup(config, self.hf)
        if kinds is None:
            return self.otherwise.of(config, blocks)
        if not isinstance(kinds, Sequence) or isinstance(kinds, str) or len(kinds) != blocks:
            raise DamagedInput(f"config: {self.hf} is {shown(kinds)} where a list of {blocks} kinds is needed")
        return tuple(kind == self.kind for kind in kinds)


@dataclass(frozen=True, slots=True)
class others:  # noqa: N801
    """The blocks that are not of a kind."""

    than: Schedule

    def of(self, config: Mapping[str, Any], blocks: int) -> tuple[bool, ...]:
        """The complement."""
        return tuple(not there for there in self.than.of(config, blocks))


@dataclass(frozen=True, slots=True)
class Alternating(OneKey):
    """A number that one block in a period has and the others lack, stored as an array of i32 with zeros for those.

    `hf` is the number, `period` and `offset` are config keys that say which blocks have it.
    """

    hf: str
    key: str
    period: str
    offset: str
    blocks: str = "num_hidden_layers"

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The array."""
        value = evaluate(self.hf, config)
        there = every(self.period, self.offset).of(config, evaluate(self.blocks, config))
        return {self.full(name): ("[i32]", [value if block else 0 for block in there])}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Number, period and offset; a single number stands for all blocks."""
        stored = metadata.get(self.full(name))
        if stored is None:
            return {}
        values = [stored] if isinstance(stored, int) else stored
        if not isinstance(values, Sequence) or isinstance(values, str) or not all(type(value) is int for value in values):
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)} where an array of whole numbers is needed")
        kinds = set(values) - {0}
        period, offset = (
            (1, 0) if isinstance(stored, int) else periodic([at for at, value in enumerate(values) if value], len(values))
        )
        if len(kinds) > 1 or period is None:
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)}, which is no number in regular distances")
        return {**({self.hf: kinds.pop()} if kinds else {}), self.period: period, self.offset: offset}


@dataclass(frozen=True, slots=True)
class Kinds(OneKey):
    """Which blocks are of a kind, stored as an array of booleans unless it is as readers `assume`.

    `hf` is the config's list of kinds by name: `kind`, and `other` for the rest.
    """

    hf: str
    key: str
    kind: str
    other: str
    assume: Schedule
    otherwise: Schedule
    blocks: str = "num_hidden_layers"

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The array, if readers need it."""
        blocks = evaluate(self.blocks, config)
        there = listed(self.hf, self.kind, self.otherwise).of(config, blocks)
        return {} if there == self.assume.of(config, blocks) else {self.full(name): ("[bool]", list(there))}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The list of kinds, if the file says other than what its readers assume; a number stands for all but one in so many."""
        stored = metadata.get(self.full(name))
        if stored is None:
            return {}
        if isinstance(stored, int) and not isinstance(stored, bool) and stored > 0:
            stored = others(every(stored, -1)).of({}, evaluate(self.blocks, config))
        if not isinstance(stored, Sequence) or isinstance(stored, str) or not all(value in (0, 1) for value in stored):
            raise DamagedInput(f"metadata: {self.key} is {shown(stored)} where an array of booleans is needed")
        return {self.hf: [self.kind if value else self.other for value in stored]}


@dataclass(frozen=True, slots=True)
class period_of:  # noqa: N801
    """The distance of the blocks that have a tensor of this pattern (whose first capture counts blocks); None if none has."""

    name: str

    def of(self, tensors: Mapping[str, tuple[int, ...]]) -> int | None:
        """The fact for a model."""
        return _told(self.name, tensors)[0]


@dataclass(frozen=True, slots=True)
class offset_of:  # noqa: N801
    """The first block that has a tensor of this pattern; None if none has."""

    name: str

    def of(self, tensors: Mapping[str, tuple[int, ...]]) -> int | None:
        """The fact for a model."""
        return _told(self.name, tensors)[1]


def periodic(places: Sequence[int], blocks: int) -> tuple[int | None, int | None]:
    """Period and offset of the blocks at these ascending places among so many; (None, None) if they are not regular.

    One place comes back with a period of all blocks, none with an offset behind them.
    """
    if not places:
        return blocks + 1, blocks
    period = places[1] - places[0] if len(places) > 1 else blocks
    return (period, places[0]) if list(places) == list(range(places[0] % period, blocks, period)) else (None, None)


def _told(name: str, tensors: Mapping[str, tuple[int, ...]]) -> tuple[int | None, int | None]:
    pattern, (depth, *_) = Pattern.of(name), (at for at, part in enumerate(name.split(".")) if part.startswith("{"))
    beginning = template(".".join(name.split(".")[:depth]))[0] + "."
    found, blocks = set(), 0
    for tensor in tensors:
        blank, digits = template(tensor)
        if blank.startswith(beginning + "#") and digits:
            blocks = max(blocks, int(digits[0]) + 1)
            if blank == pattern.template:
                found.add(int(digits[0]))
    if not found:
        return None, None
    period, offset = periodic(sorted(found), _bounded(blocks))
    if period is None:
        raise DamagedInput(f"blocks {shown(sorted(found))} of {blocks} have {name}, which is not in regular distances")
    return period, offset


def _bounded(blocks: int) -> int:
    if blocks > _LIMIT:
        raise DamagedInput(f"config: there are {blocks} blocks; no model has that many")
    return blocks


__all__ = ["Alternating", "Expr", "Kinds", "Schedule", "every", "listed", "offset_of", "others", "period_of", "periodic"]
