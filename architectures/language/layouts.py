"""Layouts: tables of names, Hugging Face on one side, a target format on the other, matched both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hubclient.architectures.language.index import Index
from hubclient.architectures.language.matches import Bound, Matching, Subject, matched
from hubclient.architectures.language.patterns import Pattern
from hubclient.architectures.language.tables import Rule, Side, Table, rule_of
from hubclient.architectures.language.transforms import identity

__all__ = ["Bound", "Layout", "Matching"]


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
    _index: Mapping[Side, Index] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """ValueError if two patterns cover a name and are no alternatives."""
        derived = (*self.drop, *map(Pattern.of, self.derive))
        hf, target = Index.of("hf", self.rules, self.drop, self.omit), Index.of("target", self.rules, derived)
        object.__setattr__(self, "_index", {"hf": hf, "target": target})

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
        return cls(rules, dropped, omitted, dict(derive or {}), name, kept, dict(bits or {}), widened, more, untyped)

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
        return replace(own, rules=(*own.rules, *rules.values()), drop=dropped)

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
        )  # fmt: skip

    def leaving(self, other: Layout) -> Layout:
        """The same for a format that has no place for the Hugging Face tensors of another part of the model."""
        return replace(self, omit=(*self.omit, *map(Pattern.of, other.hf_names)), drop=(*self.drop, *other.drop))

    @property
    def hf_names(self) -> tuple[str, ...]:
        """The patterns of all Hugging Face names that the rules know, and of those that are omitted."""
        return tuple(pattern.text for rule in self.rules for pattern in rule.hf) + tuple(pattern.text for pattern in self.omit)

    @property
    def asks_encodings(self) -> bool:
        """Whether some rules apply to tensors of certain encodings only."""
        return any(rule.stored for rule in self.rules)

    @property
    def stored(self) -> frozenset[tuple[str, ...]]:
        """The encodings that those rules are for."""
        return frozenset(rule.stored for rule in self.rules if rule.stored)

    def index(self, side: Side) -> Index:
        """What names mean on one side."""
        return self._index[side]

    def knows(self, name: str, side: Side) -> bool:
        """Whether any rule, drop or omit covers this name."""
        return bool(self._index[side].find(name))

    def drops(self, name: str) -> bool:
        """Whether a Hugging Face tensor of this name is left out because it can be recomputed."""
        found = self._index["hf"].find(name)
        return bool(found) and found[0][0] == "drop"

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
        subject = Subject(side, counts, {} if config is None else config, encodings, shapes)
        return matched(self, names, subject)


def _as_in(rule: Rule, other: Rule) -> Rule:
    """A rule that is optional, or of an alternative, if the other is."""
    return replace(rule, required=rule.required and other.required, choice=rule.choice or other.choice)
