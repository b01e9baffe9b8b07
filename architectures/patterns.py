"""Patterns: full names whose digit components may be captures, "model.layers.{i}.mlp.up_proj.weight".

Matching is a dictionary look-up of the name with its digit components blanked, so 90,000 names cost a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")  # a whole component
_MAX_DIGITS = 9  # of a captured number; no model has a thousand million blocks
Captures = tuple[tuple[str, int], ...]  # captured numbers, sorted by name


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

    def match(self, digits: tuple[str, ...]) -> Captures | None:
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


def overlap(one: Pattern, two: Pattern) -> bool:
    """Whether some name is covered by both patterns, whose templates are equal."""
    pairs = zip(one.slots, two.slots, strict=True)
    return all(a == b or a.startswith("{") or b.startswith("{") for a, b in pairs)
