"""Layouts: tables of names, Hugging Face on one side, a target format on the other, matched both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.patterns import Captures, Pattern, overlap, template
from hubclient.architectures.language.tables import Rule, Side, Table, rule_of
from hubclient.architectures.language.transforms import identity
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class Bound:
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


# What a name means: a rule (and which of its patterns the name is), or "drop" or "omit"; by blanked name.
_Entry = tuple[Rule | str, int, Pattern]
_Index = Mapping[str, tuple[_Entry, ...]]
_Found = tuple[Rule | str, int, Captures]
# Names found for a rule and its captures, by which of the rule's patterns they are and the number that is spread over.
_Groups = dict[tuple[Rule, Captures], dict[tuple[int, int], str]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an architecture lies in one format. `name` is the architecture's name there (`general.architecture`).

    `drop` are patterns that can be recomputed (masks, inv_freq), on either side; `omit` are Hugging Face tensors that
    the format has no place for; `derive` are target tensors computed from the config. For formats that quantise what
    they find (MLX), `keep` are target patterns of matrices that stay as they are, and `bits` gives others a (bits, group
    size) of their own; `wide` are patterns of tensors that keep their dtype where all others are cast to one.
    `further` names the config key that counts the blocks of a capture behind those of the model proper (layers that
    predict further tokens), which the format has no place for. `untyped` files do not say what type most tensors have.
    """

    rules: tuple[Rule, ...]
    drop: tuple[Pattern, ...] = ()
    omit: tuple[Pattern, ...] = ()
    derive: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    keep: tuple[Pattern, ...] = ()
    bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    wide: tuple[Pattern, ...] = ()
    further: Mapping[str, str] = field(default_factory=dict)
    untyped: bool = False
    _index: Mapping[Side, _Index] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        *tables: Table,
        name: str = "",
        drop: Iterable[str] = (),
        omit: Iterable[str] = (),
        derive: Mapping[str, Any] | None = None,
        keep: Iterable[str] = (),
        bits: Mapping[str, tuple[int, int]] | None = None,
        wide: Iterable[str] = (),
        further: Mapping[str, str] | None = None,
        untyped: bool = False,
    ) -> Layout:
        """Compile tables; ValueError if a name occurs twice on a side or captures do not agree."""
        rules = tuple(rule_of(hf, to) for table in tables for hf, to in table.items())
        dropped, omitted = tuple(map(Pattern.of, drop)), tuple(map(Pattern.of, omit))
        kept, widened = tuple(map(Pattern.of, keep)), tuple(map(Pattern.of, wide))
        more = dict(further or {})
        return cls(rules, dropped, omitted, dict(derive or {}), name, kept, dict(bits or {}), widened, more, untyped)._indexed()

    def following(
        self,
        *tables: Table,
        name: str = "",
        drop: Iterable[str] = (),
        omit: Iterable[str] = (),
        keep: Iterable[str] = (),
        bits: Mapping[str, tuple[int, int]] | None = None,
        wide: Iterable[str] = (),
        further: Mapping[str, str] | None = None,
    ) -> Layout:
        """A layout of another format that knows the same Hugging Face tensors: those in no table keep their names.

        What this one drops is dropped there too; what it has no place for keeps its name unless `omit` says otherwise. Lines
        for names of this layout are optional, or of an alternative, where they are so here.
        """
        own = Layout.of(*tables, name=name, drop=drop, omit=omit, keep=keep, bits=bits, wide=wide, further=further)
        before = {pattern.text: rule for rule in self.rules for pattern in rule.hf}
        own = replace(own, rules=tuple(_as_in(rule, before.get(rule.hf[0].text, rule)) for rule in own.rules))
        taken = {pattern.text for rule in own.rules for pattern in rule.hf} | {pattern.text for pattern in (*own.drop, *own.omit)}
        rules = {
            pattern.text: Rule((pattern,), identity, (pattern,), rule.required, rule.choice, rule.stored)
            for rule in self.rules
            for pattern in rule.hf
            if pattern.text not in taken
        }
        rules |= {p.text: Rule((p,), identity, (p,), required=False) for p in self.omit if p.text not in taken}
        dropped = (*own.drop, *(pattern for pattern in self.drop if pattern.text not in taken))
        return replace(own, rules=(*own.rules, *rules.values()), drop=dropped)._indexed()

    def within(self, hf: str = "", target: str = "") -> Layout:
        """The same under longer names: every Hugging Face name behind `hf`, every target name behind `target` and a dot."""

        def behind(prefix: str, patterns: Iterable[Pattern]) -> tuple[Pattern, ...]:
            return tuple(Pattern.of(f"{prefix}.{pattern.text}") if prefix else pattern for pattern in patterns)

        rules = tuple(replace(rule, hf=behind(hf, rule.hf), target=behind(target, rule.target)) for rule in self.rules)
        return replace(
            self, rules=rules, drop=behind(hf, self.drop), omit=behind(hf, self.omit), keep=behind(target, self.keep),
            derive={f"{target}.{name}" if target else name: value for name, value in self.derive.items()},
            bits={f"{target}.{name}" if target else name: value for name, value in self.bits.items()},
            wide=behind(target, self.wide),
        )._indexed()  # fmt: skip

    def leaving(self, other: Layout) -> Layout:
        """The same for a format that has no place for the Hugging Face tensors of another part of the model."""
        return replace(self, omit=(*self.omit, *map(Pattern.of, other.hf_names)), drop=(*self.drop, *other.drop))._indexed()

    @property
    def hf_names(self) -> tuple[str, ...]:
        """The patterns of all Hugging Face names that the rules know, and of those that are omitted."""
        return tuple(pattern.text for rule in self.rules for pattern in rule.hf) + tuple(pattern.text for pattern in self.omit)

    @property
    def asks_encodings(self) -> bool:
        """Whether some rules apply to tensors of certain encodings only."""
        return any(rule.stored for rule in self.rules)

    def knows(self, name: str, side: Side) -> bool:
        """Whether any rule, drop or omit covers this name."""
        return self._find(name, side, None) is not None

    def drops(self, name: str) -> bool:
        """Whether a Hugging Face tensor of this name is left out because it can be recomputed."""
        found = self._find(name, "hf", None)
        return found is not None and found[0] == "drop"

    def match(
        self,
        names: Iterable[str],
        side: Side,
        counts: Mapping[str, int],
        config: Mapping[str, Any] | None = None,
        encodings: Mapping[str, str] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Matching:
        """Sort names under rules.

        `counts` is how many blocks of each capture the config announces ({"i": 32}); `config` gives the counts of what
        is stacked (DamagedInput if it cannot); `encodings` are the names of what each tensor is stored in, for rules that ask;
        `shapes` are those of the tensors, where they are to be held against the counts of what is stacked (DamagedInput).
        """
        groups: _Groups = {}
        shared: list[tuple[str, list[_Found]]] = []
        further = self._beyond(counts, {} if config is None else config) if side == "hf" else {}
        other: dict[str, list[str]] = {"drop": [], "omit": [], "unmatched": []}
        for name in names:
            several = self._all(name, side, encodings)
            if not several:
                other["unmatched"].append(name)
                continue
            rule, at, captures = several[0]
            if further and rule != "drop" and any(number in further.get(capture, ()) for capture, number in captures):
                rule = "omit"
            if isinstance(rule, str):
                other[rule].append(name)
                continue
            if side == "target" and rule.choice and len(several) > 1:
                shared.append((name, several))
                continue
            number = 0
            if rule.transform.spread and side == "hf":
                captures, number = _without(captures, rule.transform.spread[0])
            groups.setdefault((rule, captures), {})[at, number] = name
        for name, (rule, at, captures) in _settled(shared, groups):
            groups.setdefault((rule, captures), {})[at, 0] = name
        bound, missing, surplus = [], [], []
        for (rule, captures), given in groups.items():
            if side == "target" and rule.transform.spread and shapes is not None:
                _check_stack(given[0, 0], rule.transform.spread[1], shapes, {} if config is None else config)
            inputs, outputs, lacking, beyond = _bind(rule, captures, given, side, {} if config is None else config)
            missing += lacking
            surplus += beyond
            if not lacking:
                bound.append(Bound(rule, captures, inputs, outputs))
        lacking, beyond = self._held_against(groups, side, counts)
        return Matching(
            tuple(bound), tuple(other["drop"]), tuple(other["omit"]), tuple(other["unmatched"]),
            (*missing, *lacking), (*surplus, *beyond),
        )  # fmt: skip

    def _beyond(self, counts: Mapping[str, int], config: Mapping[str, Any]) -> dict[str, range]:
        """The numbers of blocks behind those that the config counts, which the format has no place for."""
        known = ((capture, counts.get(capture, 0), lookup(config, key)) for capture, key in self.further.items())
        return {capture: range(first, first + more) for capture, first, more in known if first and isinstance(more, int)}

    def _held_against(self, groups: _Groups, side: Side, counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
        """Names that required rules lack, block by block, and names of an alternative that is one too many."""
        missing, surplus = [], []
        choices: dict[str, dict[int, list[Rule]]] = {}
        for rule in self.rules:
            if rule.choice:
                choices.setdefault(rule.choice[0], {}).setdefault(rule.choice[1], []).append(rule)
            elif rule.required:
                wanted = _wanted(rule, side, counts, len(groups))
                missing += [_first(rule, side).name(dict(captures)) for captures in wanted if (rule, captures) not in groups]
        for tables in choices.values():
            lacking, beyond = _chosen(tables, groups, side, counts)
            missing += lacking
            surplus += beyond
        return missing, surplus

    def _find(self, name: str, side: Side, encodings: Mapping[str, str] | None) -> _Found | None:
        found = self._all(name, side, encodings)
        return found[0] if found else None

    def _all(self, name: str, side: Side, encodings: Mapping[str, str] | None) -> list[_Found]:
        """What a name may mean. Only alternatives share names, on the target side."""
        key, digits = template(name)
        found: list[_Found] = []
        for rule, at, pattern in self._index[side].get(key, ()):
            captures = pattern.match(digits)
            if captures is not None and (isinstance(rule, str) or not rule.stored or _stored(rule, name, encodings)):
                found.append((rule, at, captures))
        return found

    def _indexed(self) -> Layout:
        return replace(self, _index={"hf": self._build("hf"), "target": self._build("target")})

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
            if any(overlap(entry[2], pattern) and not _alternatives(entry[0], rule) for rule, _, pattern in same):
                raise ValueError(f"{entry[2].text!r} is covered twice on the {side} side")
            same.append(entry)
        return {key: tuple(found) for key, found in table.items()}


def _settled(shared: Iterable[tuple[str, list[_Found]]], groups: _Groups) -> Iterator[tuple[str, tuple[Rule, int, Captures]]]:
    """Names that several alternatives know, each for the one that has most of a block's other tensors; the first if none has."""
    votes = Counter((rule.choice, captures) for rule, captures in groups)
    for name, several in shared:
        rules = [(rule, at, captures) for rule, at, captures in several if isinstance(rule, Rule)]
        yield name, max(rules, key=lambda found: votes[found[0].choice, found[2]])


def _bind(
    rule: Rule, captures: Captures, given: Mapping[tuple[int, int], str], side: Side, config: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...], list[str], list[str]]:
    """Inputs in order and outputs of a rule for what was found; names that it lacks; names beyond what the config counts."""
    spread, known = rule.transform.spread, dict(captures)
    if spread is None:
        own, others = rule.side(side), rule.side("target" if side == "hf" else "hf")
        outputs = tuple([pattern.name(known) for pattern in others])
        if len(own) == 1:  # nearly all: what was found is the one
            return (given[0, 0],), outputs, [], []
        lacking = [pattern.name(known) for at, pattern in enumerate(own) if (at, 0) not in given]
        return tuple(given[at, 0] for at in range(len(own)) if (at, 0) in given), outputs, lacking, []
    capture, count = spread[0], evaluate(spread[1], config)
    if side == "target":
        names = (rule.hf[0].name({**known, capture: number}) for number in range(count))
        return (given[0, 0],), tuple(names), [], []
    lacking = [rule.hf[0].name({**known, capture: n}) for n in range(min(count, len(given) + 1)) if (0, n) not in given]
    beyond = [name for (_, number), name in given.items() if number >= count]
    inputs = tuple(name for (_, number), name in sorted(given.items()) if number < count)
    return inputs, (rule.target[0].name(known),), lacking, beyond


def _check_stack(name: str, expression: Expr, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
    """DamagedInput for a stack that cannot hold what the config counts, before anybody makes that many names."""
    count, shape = evaluate(expression, config), shapes[name]
    if not any(size and size % count == 0 for size in shape):
        raise DamagedInput(f"{name} has the shape {list(shape)} where the config asks for {count} ({expression})", tensor=name)


def _wanted(rule: Rule, side: Side, counts: Mapping[str, int], found: int) -> list[Captures]:
    """The captures for which a rule should be met. Of more blocks than were found one is missing, whatever is claimed."""
    captures = _first(rule, side).captures
    if rule.transform.spread and side == "hf":
        captures -= {rule.transform.spread[0]}
    if not captures:
        return [()]
    if len(captures) == 1 and (name := next(iter(captures))) in counts:
        return [((name, number),) for number in range(min(counts[name], found + 1))]
    return []


def _chosen(
    tables: Mapping[int, list[Rule]], groups: _Groups, side: Side, counts: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """What is missing and what is one too many, where a block has one of several tables."""
    missing, surplus = [], []
    wanted = dict.fromkeys(
        captures for rules in tables.values() for rule in rules for captures in _wanted(rule, side, counts, len(groups))
    )
    for captures in wanted:
        there = {index: [rule for rule in rules if (rule, captures) in groups] for index, rules in tables.items()}
        best = max(there, key=lambda index: len(there[index]))
        lacking = [rule for rule in tables[best] if rule.required and rule not in there[best]]
        missing += [_first(rule, side).name(dict(captures)) for rule in lacking]
        for index, rules in there.items():
            if index != best:
                surplus += [name for rule in rules for name in groups[rule, captures].values()]
    return missing, surplus


def _first(rule: Rule, side: Side) -> Pattern:
    """The pattern that stands for a rule, a spread capture filled in with its first number."""
    pattern = rule.side(side)[0]
    if rule.transform.spread and side == "hf":
        return Pattern.of(pattern.text.replace("{" + rule.transform.spread[0] + "}", "0"))
    return pattern


def _without(captures: Captures, name: str) -> tuple[Captures, int]:
    """The other captures, and the number of the one called `name`."""
    return tuple(item for item in captures if item[0] != name), dict(captures)[name]


def _as_in(rule: Rule, other: Rule) -> Rule:
    """A rule that is optional, or of an alternative, if the other is."""
    return replace(rule, required=rule.required and other.required, choice=rule.choice or other.choice)


def _stored(rule: Rule, name: str, encodings: Mapping[str, str] | None) -> bool:
    return encodings is None or encodings.get(name, "") in rule.stored


def _alternatives(one: Rule | str, two: Rule | str) -> bool:
    """Whether two rules may share a name: tables of one `either`, or lines for different encodings."""
    if isinstance(one, str) or isinstance(two, str):
        return False
    apart = one.choice and two.choice and one.choice[0] == two.choice[0] and one.choice[1] != two.choice[1]
    return bool(apart) or one.stored != two.stored
