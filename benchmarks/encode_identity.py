"""Encoders of ggml's block types against ggml's own: equal bytes, on fresh random rows of all kinds (see `mixtures`).

Where blocks differ, how far those of each side are from what was encoded is told too: the root of their mean square error,
weighted by importance.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ggml
from benchmarks.encode import cases, title
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding

_COLUMNS = 1024
_ROWS = 144  # that are encoded together
_SHARE = 1e-4  # of blocks, that may differ


@dataclass(frozen=True, slots=True)
class Tally:
    """Of some blocks how many differ; and of those the weighted square errors of both sides, over their weight."""

    blocks: int = 0
    unequal: int = 0
    ours: float = 0.0
    theirs: float = 0.0
    weight: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return Tally(*(one + two for one, two in pairs))

    def errors(self) -> dict[str, list[float]]:
        """Root mean squares, by side; none where no block differs."""
        if not self.unequal:
            return {}
        return {name: [(sum_ / self.weight) ** 0.5] for name, sum_ in (("hubclient", self.ours), ("ggml", self.theirs))}


def measure(bench: Path, types: Sequence[str] = (), blocks: int = 1_000_000, seed: int | None = None) -> list[Figure]:
    """One figure for each type and way to encode it: the blocks that differ."""
    library = ggml.library(bench)
    return [_figure(library, name, weighted, blocks, _seed(seed)) for name, weighted in cases(types)]


def _seed(given: int | None) -> int:
    return int.from_bytes(os.urandom(6)) if given is None else given


def _figure(library: Any, name: str, weighted: bool, blocks: int, seed: int) -> Figure:
    from hubclient.formats.encodings import ENCODINGS

    tally = compared(library, ENCODINGS[name], weighted, blocks, seed)
    share = 100 * (1 - tally.unequal / tally.blocks)
    print(f"{title(name, weighted)}: {tally.blocks:,} blocks, {share:.6g} % equal (seed {seed})", file=sys.stderr)
    what = f"encode {title(name, weighted)}, of {tally.blocks:,} blocks unlike ggml's"
    return Figure(what, tally.unequal, "blocks", _SHARE * tally.blocks, False, tally.errors(), "error")


def compared(library: Any, encoding: Encoding, weighted: bool, blocks: int, seed: int) -> Tally:
    """At least so many blocks, on all cores."""
    from benchmarks.mixtures import IMPORTANCES

    part = _ROWS * _COLUMNS // encoding.block
    kinds = tuple(IMPORTANCES) if weighted else (None,)
    _part(library, encoding, kinds[0], seed, 0)  # compiles, and sets up tables
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        numbers = range(-(-blocks // part))
        parts = pool.map(lambda number: _part(library, encoding, kinds[number % len(kinds)], seed, number), numbers)
        return sum(parts, Tally())


def _part(library: Any, encoding: Encoding, kind: str | None, seed: int, number: int) -> Tally:
    """Rows of all kinds under importance of one."""
    import numpy as np

    from benchmarks.mixtures import IMPORTANCES, largest_for, mixture
    from hubclient.formats import codecs

    random = np.random.default_rng([seed, number])
    rows = mixture(random, _ROWS, _COLUMNS, largest_for(encoding.name))
    importance = None if kind is None else IMPORTANCES[kind](random, _COLUMNS).astype(np.float32)
    ours = codecs.encode(rows, encoding, importance=importance)
    theirs = ggml.encode(library, rows, encoding, importance=importance)
    unequal = (ours != theirs).reshape(-1, encoding.block_bytes).any(axis=1)
    if not unequal.any():
        return Tally(len(unequal))
    weights = np.broadcast_to(np.float32(1) if importance is None else importance, rows.shape)
    weights, rows = (array.reshape(-1, encoding.block)[unequal].astype(np.float64) for array in (weights, rows))
    decoded = (codecs.decode(raw, encoding, _COLUMNS).reshape(-1, encoding.block)[unequal] for raw in (ours, theirs))
    mine, reference = (float((weights * (rows - values) ** 2).sum()) for values in decoded)
    return Tally(len(unequal), int(unequal.sum()), mine, reference, float(weights.sum()))
