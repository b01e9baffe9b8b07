"""A file's mix: how many tensors, weights and bytes are in which encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Share(NamedTuple):
    """Some tensors: how many, how many numbers they hold, and in how many bytes."""

    tensors: int = 0
    weights: int = 0
    nbytes: int = 0

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of storage for each number, to 6 significant digits; None if there are no numbers."""
        return float(f"{self.nbytes * 8 / self.weights:.6g}") if self.weights else None

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        counts = {"tensors": self.tensors, "weights": self.weights, "bytes": self.nbytes}
        return {**counts, "bits_per_weight": self.bits_per_weight}


def mix(tensors: Iterable[tuple[str, int, int]]) -> Mapping[str, Share]:
    """The share of each encoding, the largest first; a tensor is the name of its encoding, its numbers and its bytes."""
    found: dict[str, list[Share]] = {}
    for encoding, weights, nbytes in tensors:
        found.setdefault(encoding, []).append(Share(1, weights, nbytes))
    shares = {encoding: joined(parts) for encoding, parts in found.items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1].nbytes, item[0])))


def joined(shares: Iterable[Share]) -> Share:
    """All of them together."""
    return Share(*map(sum, zip(*shares, strict=True)))
