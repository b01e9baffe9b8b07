"""Figures: what was measured, what it should be, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One number against its target.

    `value` is in `unit`, at most (or, if `at_least`, at least) `target`; without a target it is only told. `runs` are the
    single measurements behind it, by contestant, in `runs_unit`.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    runs_unit: str = "s"

    @property
    def passed(self) -> bool | None:
        """Whether it meets its target; None if it has none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """The figure as plain data."""
        return {**asdict(self), "passed": self.passed}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Figure:
        """The inverse of `as_json`."""
        return cls(**{key: value for key, value in content.items() if key != "passed"})


def ratio(
    name: str, over: str, under: str, runs: Mapping[str, Sequence[float]], target: float | None, *, at_least: bool
) -> Figure:
    """The median of one contestant's seconds over the median of another's."""
    value = statistics.median(runs[over]) / statistics.median(runs[under])
    return Figure(name, value, "x", target, at_least, runs)


def markdown(figures: Iterable[Figure]) -> str:
    """A table that reads as text and as Markdown."""
    rows = [["figure", "target", "measured", "runs: median (least-most)", ""], *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows)


def _row(figure: Figure) -> list[str]:
    return [figure.name, _target(figure), _number(figure.value, figure.unit), _runs(figure), _verdict(figure)]


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return ("at least " if figure.at_least else "at most ") + _number(figure.target, figure.unit)


def _verdict(figure: Figure) -> str:
    return {None: "", True: "pass", False: "FAIL"}[figure.passed]


def _runs(figure: Figure) -> str:
    told = []
    for name, values in figure.runs.items():
        shown = [_number(value, "") for value in (statistics.median(values), min(values), max(values))]
        told.append(f"{name} {shown[0]}{f' ({shown[1]}-{shown[2]})' if len(values) > 1 else ''} {figure.runs_unit}")
    return ", ".join(told)


def _number(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 or float(value).is_integer() else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}{f' {unit}' if unit else ''}"
