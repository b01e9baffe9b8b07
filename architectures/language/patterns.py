"""Patterns: full names whose digit components may be captures, "model.layers.{i}.mlp.up_proj.weight".

Matching is a dictionary look-up of the name with its digit components blanked, so 90,000 names cost a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")  # a whole component
_MAX_DIGITS = 9  # of a captured number; no model has a thousand million blocks
Captures = tuple[tuple[str, int], ...]  # captured numbers, sorted by name


def template(name: str) -> tuple[str, tuple[str, ...]]:
    """A name with its digit components blanked, and those components: ("a.#.b", ("12",))."""
    parts, digits = name.split("."), []
    for at, part in enumerate(parts):
        if part < ":" and part.isdecimal() and part.isascii():  # as `_NUMBER`, in half the time: this runs for every tensor
            digits.append(part)
            parts[at] = "#"
    return ".".join(parts), tuple(digits)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A full name with named digit captures."""

    text: str
    template: str
    slots: tuple[str, ...]  # per digit component: the capture's name in braces, or the literal digits
    _captured: tuple[tuple[str, int], ...] = field(default=(), repr=False, compare=False)  # by name, with their slots
    _literals: tuple[tuple[int, str], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Compile; ValueError if a brace is anything but a whole component or a capture repeats."""
        parts = text.split(".")
        slots = tuple(part for part in parts if _NUMBER.fullmatch(part) or (part.startswith("{") and part.endswith("}")))
        captures = [slot for slot in slots if slot.startswith("{")]
        if text.count("{") != len(captures) or len(set(captures)) != len(captures):
            raise ValueError(f"captures of {text!r} must be whole components and differ")
        blanked = ".".join("#" if part in slots else part for part in parts)
        captured = sorted((slot[1:-1], at) for at, slot in enumerate(slots) if slot in captures)
        literals = tuple((at, slot) for at, slot in enumerate(slots) if slot not in captures)
        return cls(text, blanked, slots, tuple(captured), literals)

    @property
    def captures(self) -> frozenset[str]:
        """Names of the captures."""
        return frozenset(slot[1:-1] for slot in self.slots if slot.startswith("{"))

    def covers(self, digits: tuple[str, ...]) -> bool:
        """Whether a name of this template whose digit components are these is one of the pattern's; any numbers will do."""
        return not self._literals or all(digits[at] == literal for at, literal in self._literals)

    def match(self, digits: tuple[str, ...]) -> Captures | None:
        """Captured numbers, sorted by name, for the digit components of a name whose template equals this one's."""
        if self._literals and not self.covers(digits):
            return None
        found = []
        for name, at in self._captured:
            digit = digits[at]
            if (digit[0] == "0" and len(digit) > 1) or len(digit) > _MAX_DIGITS:
                return None
            found.append((name, int(digit)))
        return tuple(found)

    def name(self, captures: Mapping[str, int]) -> str:
        """The full name for given captures."""
        return self.text.format_map(captures) if self.slots else self.text


def overlap(one: Pattern, two: Pattern) -> bool:
    """Whether some name is covered by both patterns, whose templates are equal."""
    pairs = zip(one.slots, two.slots, strict=True)
    return all(a == b or a.startswith("{") or b.startswith("{") for a, b in pairs)
