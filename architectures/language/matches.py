"""Names sorted under the rules of a layout: what belongs together, what is missing, what there should not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.architectures.language.expressions import evaluate, lookup
from hubclient.architectures.language.patterns import Captures, Pattern
from hubclient.architectures.language.tables import Rule, Side
from hubclient.errors import DamagedInput

if TYPE_CHECKING:
    from hubclient.architectures.language.index import Found
    from hubclient.architectures.language.layouts import Layout


class Bound(NamedTuple):  # of which a large model has 90,000: faster made than a frozen dataclass
    """A rule applied to actual names: the inputs in the rule's order and the names that come out."""

    rule: Rule
    captures: Captures
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """What a layout makes of a set of names.

    `bound` in the order of each rule's first input; `dropped` is recomputable and no loss, `omitted` has no place on the
    other side, `unmatched` is unknown, `missing` is what rules need and the names lack, `surplus` is what there should
    not be: an expert too many, or two things of which a block has one.
    """

    bound: tuple[Bound, ...]
    dropped: tuple[str, ...]
    omitted: tuple[str, ...]
    unmatched: tuple[str, ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """The side that names are on, and what is known of the model that they are of. See `Layout.match`."""

    side: Side
    counts: Mapping[str, int]
    config: Mapping[str, Any]
    encodings: Mapping[str, str] | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None


# The names found for a rule and its captures, by which of the rule's patterns they fit and the number that is spread over.
_Groups = dict[tuple[Rule, Captures], dict[tuple[int, int], str]]


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Names by what they mean; `shared` are those that several alternatives know."""

    groups: _Groups = field(default_factory=dict)
    shared: list[tuple[str, list[Found]]] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    omit: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Faults:
    """Names as they come up, see `Matching`."""

    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)


def matched(layout: Layout, names: Iterable[str], subject: Subject) -> Matching:
    """What `layout` makes of `names`; DamagedInput for a stack that does not hold what the config counts."""
    found, faults = _sorted(layout, names, subject), _Faults()
    if found.shared:
        _settle(found)
    if subject.side == "target" and subject.shapes is not None:
        _check_stacks(found.groups, subject.shapes, subject.config)
    bound = tuple(_bound(found.groups, subject, faults))
    _count_blocks(layout.rules, found.groups, subject, faults)
    return Matching(
        bound, tuple(found.drop), tuple(found.omit), tuple(found.unmatched), tuple(faults.missing), tuple(faults.surplus)
    )


def _sorted(layout: Layout, names: Iterable[str], subject: Subject) -> _Sorted:
    """Each name under the rule that it fits, or among those that no rule takes."""
    found, side = _Sorted(), subject.side
    find, encodings = layout.index(side).find, subject.encodings
    beyond = _beyond(layout.further, subject) if side == "hf" else {}
    for name in names:
        several = find(name, encodings)
        if not several:
            found.unmatched.append(name)
            continue
        meaning, at, captures = several[0]
        if meaning == "drop":
            found.drop.append(name)
        elif meaning == "omit" or (beyond and any(number in beyond.get(capture, ()) for capture, number in captures)):
            found.omit.append(name)
        elif side == "target" and len(several) > 1 and meaning.choice:
            found.shared.append((name, several))
        elif side == "hf" and meaning.spread:
            captures, number = _without(captures, meaning.spread[0])
            found.groups.setdefault((meaning, captures), {})[at, number] = name
        else:
            found.groups.setdefault((meaning, captures), {})[at, 0] = name
    return found


def _beyond(further: Mapping[str, str], subject: Subject) -> dict[str, range]:
    """The numbers of blocks behind those that the config counts, which the format has no place for."""
    known = ((capture, subject.counts.get(capture, 0), lookup(subject.config, key)) for capture, key in further.items())
    return {capture: range(first, first + more) for capture, first, more in known if first and isinstance(more, int)}


def _without(captures: Captures, name: str) -> tuple[Captures, int]:
    """The other captures, and the number of the one called `name`."""
    return tuple(item for item in captures if item[0] != name), dict(captures)[name]


def _settle(found: _Sorted) -> None:
    """Names that several alternatives know go to the one that has most of a block's other tensors; the first if none has."""
    votes = Counter((rule.choice, captures) for rule, captures in found.groups)
    for name, several in found.shared:
        rules = [(rule, at, captures) for rule, at, captures in several if isinstance(rule, Rule)]
        rule, at, captures = max(rules, key=lambda one: votes[one[0].choice, one[2]])
        found.groups.setdefault((rule, captures), {})[at, 0] = name


def _check_stacks(groups: _Groups, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    """DamagedInput for a stack that cannot hold what the config counts, before anybody makes that many names."""
    for (rule, _), given in groups.items():
        if rule.spread:
            name, count = given[0, 0], evaluate(rule.spread[1], config)
            if not any(size and size % count == 0 for size in shapes[name]):
                told = f"has the shape {list(shapes[name])} where the config asks for {count} ({rule.spread[1]})"
                raise DamagedInput(f"{name} {told}", tensor=name)


def _bound(groups: _Groups, subject: Subject, faults: _Faults) -> Iterator[Bound]:
    """The rules for which all was found."""
    side = subject.side
    for (rule, captures), given in groups.items():
        if rule.spread:
            yield from _spread(rule, captures, given, subject, faults)
            continue
        own, others = (rule.hf, rule.target) if side == "hf" else (rule.target, rule.hf)
        known = dict(captures)
        if len(given) == len(own):
            inputs = (given[0, 0],) if len(own) == 1 else tuple([given[at, 0] for at in range(len(own))])
            yield Bound(rule, captures, inputs, tuple([pattern.name(known) for pattern in others]))
        else:
            faults.missing += [pattern.name(known) for at, pattern in enumerate(own) if (at, 0) not in given]


def _spread(
    rule: Rule, captures: Captures, given: Mapping[tuple[int, int], str], subject: Subject, faults: _Faults
) -> Iterator[Bound]:
    """A rule that takes all tensors of a capture at once, or gives them."""
    assert rule.spread is not None
    capture, count = rule.spread[0], evaluate(rule.spread[1], subject.config)
    known = dict(captures)
    if subject.side == "target":
        names = tuple([rule.hf[0].name({**known, capture: number}) for number in range(count)])
        yield Bound(rule, captures, (given[0, 0],), names)
        return
    faults.surplus += [name for (_, number), name in given.items() if number >= count]
    within = min(count, len(given) + 1)  # of more than were found one is missing, whatever is claimed
    lacking = [rule.hf[0].name({**known, capture: number}) for number in range(within) if (0, number) not in given]
    faults.missing += lacking
    if not lacking:
        inputs = tuple(name for (_, number), name in sorted(given.items()) if number < count)
        yield Bound(rule, captures, inputs, (rule.target[0].name(known),))


def _count_blocks(rules: Iterable[Rule], groups: _Groups, subject: Subject, faults: _Faults) -> None:
    """Names that required rules lack, block by block, and names of an alternative that is one too many."""
    choices: dict[str, dict[int, list[Rule]]] = {}
    blocks = _blocks(subject.counts, len(groups))
    for rule in rules:
        if rule.choice:
            choices.setdefault(rule.choice[0], {}).setdefault(rule.choice[1], []).append(rule)
        elif rule.required:
            wanted = _wanted(rule, subject.side, blocks)
            faults.missing += [_first(rule, subject.side).name(dict(c)) for c in wanted if (rule, c) not in groups]
    for tables in choices.values():
        _choose(tables, groups, subject.side, blocks, faults)


def _blocks(counts: Mapping[str, int], found: int) -> dict[str, list[Captures]]:
    """The blocks that each capture counts. Of more than were found one is missing, whatever is claimed."""
    return {name: [((name, number),) for number in range(min(count, found + 1))] for name, count in counts.items()}


def _wanted(rule: Rule, side: Side, blocks: Mapping[str, list[Captures]]) -> list[Captures]:
    """The captures for which a rule should be met; none where nothing counts them."""
    captures = _first(rule, side).captures
    if not captures:
        return [()]
    return blocks.get(next(iter(captures)), []) if len(captures) == 1 else []


def _choose(
    tables: Mapping[int, list[Rule]], groups: _Groups, side: Side, blocks: Mapping[str, list[Captures]], faults: _Faults
) -> None:
    """What is missing and what is one too many, where a block has one of several tables."""
    rules = [rule for table in tables.values() for rule in table]
    for captures in dict.fromkeys(captures for rule in rules for captures in _wanted(rule, side, blocks)):
        there = {index: [rule for rule in table if (rule, captures) in groups] for index, table in tables.items()}
        best = max(there, key=lambda index: len(there[index]))
        lacking = [rule for rule in tables[best] if rule.required and rule not in there[best]]
        faults.missing += [_first(rule, side).name(dict(captures)) for rule in lacking]
        for index, others in there.items():
            if index != best:
                faults.surplus += [name for rule in others for name in groups[rule, captures].values()]


def _first(rule: Rule, side: Side) -> Pattern:
    """The pattern that stands for a rule, a spread capture filled in with its first number."""
    pattern = rule.side(side)[0]
    if rule.spread and side == "hf":
        return Pattern.of(pattern.text.replace("{" + rule.spread[0] + "}", "0"))
    return pattern
