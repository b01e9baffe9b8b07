"""What a name may mean: the patterns of one side of a layout, looked up by a name with its numbers blanked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hubclient.architectures.language.patterns import Captures, Pattern, overlap, template
from hubclient.architectures.language.tables import Rule, Side

Meaning = Rule | Literal["drop", "omit"]
Found = tuple[Meaning, int, Captures]  # what a name means, which of the rule's patterns it fits, and the numbers in it
_Entry = tuple[Meaning, int, Pattern]


@dataclass(frozen=True, slots=True)
class Index:
    """Patterns by template, each with what the names that it covers mean."""

    entries: Mapping[str, tuple[_Entry, ...]]

    @classmethod
    def of(cls, side: Side, rules: Iterable[Rule], drop: Iterable[Pattern], omit: Iterable[Pattern] = ()) -> Index:
        """ValueError if two patterns cover a name and are no alternatives."""
        table: dict[str, list[_Entry]] = {}
        entries: list[_Entry] = [(rule, at, pattern) for rule in rules for at, pattern in enumerate(rule.side(side))]
        entries += [("drop", 0, pattern) for pattern in drop]
        entries += [("omit", 0, pattern) for pattern in omit]
        for entry in entries:
            same = table.setdefault(entry[2].template, [])
            if any(overlap(entry[2], pattern) and not _alternatives(entry[0], other) for other, _, pattern in same):
                raise ValueError(f"{entry[2].text!r} is covered twice on the {side} side")
            same.append(entry)
        return cls({key: tuple(found) for key, found in table.items()})

    def find(self, name: str, encodings: Mapping[str, str] | None = None) -> list[Found]:
        """What a name may mean, in the order of the tables: several things only if they are alternatives.

        `encodings` are those that tensors are stored in, for lines that ask; None if that is not known.
        """
        key, digits = template(name)
        found: list[Found] = []
        for meaning, at, pattern in self.entries.get(key, ()):
            captures = pattern.match(digits)
            if captures is not None and (isinstance(meaning, str) or not meaning.stored or _stored(meaning, name, encodings)):
                found.append((meaning, at, captures))
        return found


def _stored(rule: Rule, name: str, encodings: Mapping[str, str] | None) -> bool:
    return encodings is None or encodings.get(name, "") in rule.stored


def _alternatives(one: Meaning, two: Meaning) -> bool:
    """Whether two rules may share a name: tables of one `either`, or lines for different encodings."""
    if isinstance(one, str) or isinstance(two, str):
        return False
    apart = one.choice and two.choice and one.choice[0] == two.choice[0] and one.choice[1] != two.choice[1]
    return bool(apart) or one.stored != two.stored
