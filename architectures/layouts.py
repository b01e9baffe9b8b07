"""Layouts: tables of names, Hugging Face on one side, a target format on the other, matched both ways.

A pattern is a full name whose digit components may be captures: "model.layers.{i}.mlp.up_proj.weight". Matching is a
dictionary look-up of the name with its digit components blanked, so 90,000 names cost a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hubclient.architectures.transforms import Arrow, Transform, identity

Side = Literal["hf", "target"]
_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")  # a whole component
_MAX_DIGITS = 9  # of a captured number; no model has a thousand million blocks
Names = str | tuple[str, ...]
# From a Hugging Face name (or several, as a tuple) to a target name or an Arrow. `object`, because the type of a literal
# that mixes both is inferred as that; `_arrow` checks.
Table = Mapping[Any, object]


def template(name: str) -> tuple[str, tuple[str, ...]]:
    """A name with its digit components blanked, and those components: ("a.#.b", ("12",))."""
    digits = _NUMBER.findall(name)
    return (_NUMBER.sub("#", name), tuple(digits)) if digits else (name, ())


@dataclass(frozen=True, slots=True)
class Pattern:
    """A full name with named digit captures."""

    text: str
    template: str
    slots: tuple[str, ...]  # per digit component: the capture's name in braces, or the literal digits

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Compile; ValueError if a brace is anything but a whole component or a capture repeats."""
        parts = text.split(".")
        slots = tuple(part for part in parts if _NUMBER.fullmatch(part) or (part.startswith("{") and part.endswith("}")))
        captures = [slot for slot in slots if slot.startswith("{")]
        if text.count("{") != len(captures) or len(set(captures)) != len(captures):
            raise ValueError(f"captures of {text!r} must be whole components and differ")
        return cls(text, ".".join("#" if part in slots else part for part in parts), slots)

    @property
    def captures(self) -> frozenset[str]:
        """Names of the captures."""
        return frozenset(slot[1:-1] for slot in self.slots if slot.startswith("{"))

    def match(self, digits: tuple[str, ...]) -> tuple[tuple[str, int], ...] | None:
        """Captured numbers, sorted by name, for the digit components of a name whose template equals this one's."""
        found = []
        for slot, digit in zip(self.slots, digits, strict=True):
            if slot.startswith("{"):
                if (len(digit) > 1 and digit[0] == "0") or len(digit) > _MAX_DIGITS:
                    return None
                found.append((slot[1:-1], int(digit)))
            elif slot != digit:
                return None
        return tuple(sorted(found))

    def name(self, captures: Mapping[str, int]) -> str:
        """The full name for given captures."""
        return self.text.format_map(captures) if self.slots else self.text


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a table: Hugging Face patterns, the transform, target patterns."""

    hf: tuple[Pattern, ...]
    transform: Transform
    target: tuple[Pattern, ...]
    required: bool = True

    def side(self, side: Side) -> tuple[Pattern, ...]:
        """The patterns of one side."""
        return self.hf if side == "hf" else self.target


@dataclass(frozen=True, slots=True)
class Bound:
    """A rule applied to actual names: the inputs in the rule's order and the names that come out."""

    rule: Rule
    captures: tuple[tuple[str, int], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """What a layout makes of a set of names.

    `bound` in the order of each rule's first input; `dropped` is recomputable and no loss, `omitted` has no place on the
    other side, `unmatched` is unknown, `missing` is what rules need and the names lack.
    """

    bound: tuple[Bound, ...]
    dropped: tuple[str, ...]
    omitted: tuple[str, ...]
    unmatched: tuple[str, ...]
    missing: tuple[str, ...]


# What a name means: a rule (and which of its patterns the name is), or "drop" or "omit"; by blanked name.
_Entry = tuple[Rule | str, int, Pattern]
_Index = Mapping[str, tuple[_Entry, ...]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an architecture lies in one format. `name` is the architecture's name there (`general.architecture`).

    `drop` are patterns that can be recomputed (masks, inv_freq), on either side; `omit` are Hugging Face tensors that
    the format has no place for; `derive` are target tensors computed from the config.
    """

    rules: tuple[Rule, ...]
    drop: tuple[Pattern, ...] = ()
    omit: tuple[Pattern, ...] = ()
    derive: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    _index: Mapping[Side, _Index] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        *tables: Table,
        name: str = "",
        drop: Iterable[str] = (),
        omit: Iterable[str] = (),
        derive: Mapping[str, Any] | None = None,
    ) -> Layout:
        """Compile tables; ValueError if a name occurs twice on a side or captures do not agree."""
        rules = tuple(_rule(hf, to) for table in tables for hf, to in table.items())
        layout = cls(rules, tuple(map(Pattern.of, drop)), tuple(map(Pattern.of, omit)), dict(derive or {}), name)
        return replace(layout, _index={"hf": layout._build("hf"), "target": layout._build("target")})

    def knows(self, name: str, side: Side) -> bool:
        """Whether any rule, drop or omit covers this name."""
        return self._find(name, side) is not None

    def match(self, names: Iterable[str], side: Side, layers: int) -> Matching:
        """Sort names under rules. `layers` is how many blocks (capture "i") the config announces."""
        groups: dict[tuple[int, tuple[tuple[str, int], ...]], dict[int, str]] = {}
        other: dict[str, list[str]] = {"drop": [], "omit": [], "unmatched": []}
        by_id = {id(rule): rule for rule in self.rules}
        for name in names:
            found = self._find(name, side)
            if found is None:
                other["unmatched"].append(name)
            elif isinstance(found[0], str):
                other[found[0]].append(name)
            else:
                groups.setdefault((id(found[0]), found[2]), {})[found[1]] = name
        bound, missing = [], []
        for (key, captures), given in groups.items():
            rule = by_id[key]
            wanted = rule.side(side)
            missing += [pattern.name(dict(captures)) for at, pattern in enumerate(wanted) if at not in given]
            if len(given) == len(wanted):
                other_side = rule.target if side == "hf" else rule.hf
                inputs = tuple(given[at] for at in range(len(wanted)))
                bound.append(Bound(rule, captures, inputs, tuple(pattern.name(dict(captures)) for pattern in other_side)))
        missing += self._absent(groups, side, layers)
        return Matching(tuple(bound), tuple(other["drop"]), tuple(other["omit"]), tuple(other["unmatched"]), tuple(missing))

    def _absent(self, groups: Mapping[tuple[int, tuple[tuple[str, int], ...]], Any], side: Side, layers: int) -> Iterator[str]:
        for rule in self.rules:
            if not rule.required:
                continue
            pattern = rule.side(side)[0]
            if not pattern.captures:
                wanted: list[tuple[tuple[str, int], ...]] = [()]
            elif pattern.captures == {"i"}:  # of more layers than there are groups one is missing, whatever is claimed
                wanted = [(("i", layer),) for layer in range(min(layers, len(groups) + 1))]
            else:
                wanted = []
            yield from (pattern.name(dict(captures)) for captures in wanted if (id(rule), captures) not in groups)

    def _find(self, name: str, side: Side) -> tuple[Rule | str, int, tuple[tuple[str, int], ...]] | None:
        key, digits = template(name)
        for rule, at, pattern in self._index[side].get(key, ()):
            captures = pattern.match(digits)
            if captures is not None:
                return rule, at, captures
        return None

    def _build(self, side: Side) -> _Index:
        table: dict[str, list[_Entry]] = {}
        entries: list[_Entry] = [(rule, at, pattern) for rule in self.rules for at, pattern in enumerate(rule.side(side))]
        entries += [("drop", 0, pattern) for pattern in self.drop]
        if side == "hf":
            entries += [("omit", 0, pattern) for pattern in self.omit]
        else:
            entries += [("drop", 0, Pattern.of(name)) for name in self.derive]
        for entry in entries:
            same = table.setdefault(entry[2].template, [])
            if any(_overlap(entry[2], pattern) for _, _, pattern in same):
                raise ValueError(f"{entry[2].text!r} is covered twice on the {side} side")
            same.append(entry)
        return {key: tuple(found) for key, found in table.items()}


def block(hf: str, target: str, *tables: Table) -> dict[Names, Arrow]:
    """Tables of one repeated block, their names put behind `hf` and `target` prefixes: "model.layers.{i}", "blk.{i}"."""
    result: dict[Names, Arrow] = {}
    for table in tables:
        for names, to in table.items():
            arrow = _arrow(to)
            key = tuple(f"{hf}.{name}" for name in _tuple(names))
            result[key] = replace(arrow, targets=tuple(f"{target}.{name}" for name in arrow.targets))
    return result


def optional(*tables: Table) -> dict[Names, Arrow]:
    """The same lines, for tensors that a model of the family may lack."""
    return {names: replace(_arrow(to), required=False) for table in tables for names, to in table.items()}


def _arrow(to: object) -> Arrow:
    if isinstance(to, Arrow):
        return to
    if isinstance(to, str):
        return identity >> to
    raise ValueError(f"{to!r} is neither a name nor a transform with a name behind it")


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _rule(names: Names, to: object) -> Rule:
    arrow = _arrow(to)
    rule = Rule(tuple(map(Pattern.of, _tuple(names))), arrow.transform, tuple(map(Pattern.of, arrow.targets)), arrow.required)
    if len({pattern.captures for pattern in (*rule.hf, *rule.target)}) > 1:
        raise ValueError(f"captures of {names!r} and {arrow.targets!r} differ")
    arity = arrow.transform.arity
    if len(rule.hf) != len(rule.target) if arity is None else (len(rule.hf), len(rule.target)) != arity:
        raise ValueError(f"{names!r} and {arrow.targets!r} are not as many names as the transform between them takes and gives")
    return rule


def _overlap(one: Pattern, two: Pattern) -> bool:
    pairs = zip(one.slots, two.slots, strict=True)
    return all(a == b or a.startswith("{") or b.startswith("{") for a, b in pairs)
