"""Scales of a plot: where a number lies between 0 and 1, and at which numbers there are ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_LEAST = 1e-9  # a smaller relative error is none: float32 numbers are 1e-7 apart
_SPREAD = 5.0  # the largest over the smallest, from which on a scale is logarithmic


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low` to `high`, both ticks or beyond the outermost ones."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a number lies; what is beyond an end, or no number, lies at that end."""
        if math.isnan(value) or value >= self.high:
            return 1.0
        if value <= self.low:
            return 0.0
        if self.logarithmic:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def of_errors(values: Iterable[float]) -> Scale:
    """For relative errors, of which some may be none, infinite or NaN: from zero on, or logarithmic if they lie far apart."""
    found = [value for value in values if _LEAST < value < math.inf]
    if not found:
        return Scale(0.0, 1.0, (0.0, 1.0))
    low, high = min(found), max(found)
    return _logarithmic(low, high) if high / low > _SPREAD else _linear(high)


def of_blocks(blocks: Iterable[int], most: int = 8) -> Scale:
    """For numbers of blocks, of which all that are ticks are whole."""
    found = list(blocks)
    low, high = min(found, default=0), max(found, default=0)
    step = max(1, round(_step((high - low) / most)))
    ticks = tuple(map(float, range(-(-low // step) * step, high + 1, step)))
    return Scale(low - 0.5, high + 0.5, ticks)


def _linear(high: float) -> Scale:
    step = _step(high / 5)
    count = math.ceil(high / step)
    return Scale(0.0, count * step, tuple(index * step for index in range(count + 1)))


def _logarithmic(low: float, high: float) -> Scale:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    each = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, (last - first) // 6)
    ticks = [digit * 10.0**decade for decade in range(first, last + 1, every) for digit in each]
    start = max((tick for tick in ticks if tick <= low), default=low)
    stop = min((tick for tick in ticks if tick >= high), default=high)
    return Scale(start, stop, tuple(tick for tick in ticks if start <= tick <= stop), logarithmic=True)


def _step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20 ... that is no less."""
    if least <= 0:
        return 1.0
    decade: float = 10.0 ** math.floor(math.log10(least))
    return next(digit * decade for digit in (1, 2, 5, 10) if digit * decade >= least * (1 - 1e-9))
