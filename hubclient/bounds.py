"""How far values may be off in each encoding, for `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hubclient.formats import codecs

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding

    Rows = np.ndarray[Any, Any]

# Largest relative rounding of each plain encoding (half a unit in the last place), and its smallest step.
_RELATIVE = {"F64": 0.0, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
_ABSOLUTE = {"F16": 2.0**-25}
_FURTHER = 3.0  # times as far off as our own encoder makes blocks of few bits
_TOTAL = 0.5  # likewise, over some rows
_SHIFTED = 0.9  # of a block's sum of squares, which is the squared error of zeros


def close(want: Rows, have: Rows, encoding: Encoding, *, weighted: bool) -> tuple[bool, float]:
    """Whether float32 rows are within what `encoding` may lose of those that they were made of, and the largest difference.

    `weighted` says that an importance matrix was used.
    """
    alike = (want == have) | (np.isnan(want) & np.isnan(have))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, which differ by NaN from themselves
        difference = np.where(alike, 0.0, np.abs(want.astype(np.float64) - have))
        difference[np.isnan(difference)] = np.inf  # a number where none belongs, or the other way round
    largest = float(difference.max(initial=0.0))
    if not np.isfinite(largest):
        return False, largest
    if encoding.name.startswith("AFFINE"):
        return bool(np.all(difference <= _affine_bound(want, encoding))), largest
    if encoding.blocked and encoding.name != "Q8_0" and codecs.can_encode(encoding):
        return _blocks_are_close(want, difference, encoding, weighted), largest
    return bool(np.all(difference <= _bound(want, encoding))), largest


def _bound(want: Rows, encoding: Encoding) -> Rows:
    """For each number on its own."""
    if encoding.name in _RELATIVE:
        plain: Rows = np.abs(want) * _RELATIVE[encoding.name] + _ABSOLUTE.get(encoding.name, 0.0)
        return plain
    if encoding.name == "Q8_0":  # half a step of 1/127 of the block's largest, and the scale's own rounding to f16
        blocks = np.abs(want.reshape(-1, encoding.block)).max(axis=1)
        scaled: Rows = np.repeat(blocks * (0.5 / 127 + 2.0**-11) + 127 * 2.0**-25, encoding.block).reshape(want.shape)
        return scaled
    return np.zeros_like(want)


def _affine_bound(want: Rows, encoding: Encoding) -> Rows:
    """A step of the group, which one of its ends may be off, and the roundings of scale, bias, product and sum."""
    levels = 2 ** (8 * encoding.planes[0] // encoding.block) - 1
    groups = want.reshape(-1, encoding.block)
    step = (groups.max(axis=1) - groups.min(axis=1)) / levels
    rounding = 6 * np.abs(groups).max(axis=1) * _RELATIVE[encoding.name.rpartition("_")[2]]
    bound: Rows = np.repeat(step + rounding, encoding.block).reshape(want.shape)
    return bound


def _blocks_are_close(want: Rows, difference: Rows, encoding: Encoding, weighted: bool) -> bool:
    """Whether no block is much further off than our own encoder without importance makes it.

    Importance moves errors to columns that matter less, however large the numbers there; it has no other bound than that a
    block is better than if it were zero.
    """
    uniform = np.ones(want.shape[1], np.float32) if codecs.needs_importance(encoding) else None
    own = codecs.decode(codecs.encode(want, encoding, importance=uniform), encoding, want.shape[1])
    blocks = (-1, encoding.block)
    size = np.square(want.astype(np.float64)).reshape(blocks).sum(1)
    usual = np.square(own.astype(np.float64) - want).reshape(blocks).sum(1)
    bound = _FURTHER**2 * usual + (_SHIFTED if weighted else 2.0**-20) * size
    found = np.square(difference).reshape(blocks).sum(1)
    return bool(np.all(found <= bound)) and float(found.sum()) <= _FURTHER**2 * float(usual.sum()) + _TOTAL * float(size.sum())
