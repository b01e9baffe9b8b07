"""Watching matrix products: sums of squares of everything that is multiplied by a weight, whoever multiplies it.

As in llama.cpp, where a callback sees every MUL_MAT, it is the product that is watched and not the module around it: a linear
layer, GPT-2's Conv1D and one expert of many that lie in one tensor all become `mm`, `addmm` or `bmm` of a view of the
weight. The storage that a view shares tells which weight it is, its offset which matrix of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from hubclient.imatrix.rounding import Rounding

_ATEN = torch.ops.aten
# Where each product has its two factors.
_FACTORS: Mapping[Any, tuple[int, int]] = {
    _ATEN.mm.default: (0, 1), _ATEN.addmm.default: (1, 2), _ATEN.bmm.default: (0, 1), _ATEN.baddbmm.default: (1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """What one weight was multiplied by, matrix by matrix: sums of squares, float64 (matrices, inputs), and numbers of tokens,
    int64 (matrices,). `last` says whether the inputs run along the weight's last axis, as in a linear layer, or the one before.
    """

    sums: torch.Tensor
    counts: torch.Tensor
    last: bool

    def beside(self, numbers: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """`numbers` (matrices, inputs or 1) as a view of the weight's shape: beside each element what belongs to its input."""
        inputs = numbers.shape[-1]
        return numbers.reshape(*shape[:-2], *((1, inputs) if self.last else (inputs, 1))).expand(shape)


class Watch(TorchDispatchMode):  # type: ignore[misc]
    """Sums over all products with the weights that are known while it is entered; `seen` by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Seen] = {}
        self._known: dict[int, tuple[str, torch.Tensor]] = {}
        self._roundings: dict[str, Rounding] = {}
        self._kept: dict[str, torch.Tensor | None] = {}

    @contextmanager
    def knowing(self, weights: Mapping[str, torch.Tensor], roundings: Mapping[str, Rounding]) -> Iterator[None]:
        """Watch for these weights as well, and round what those with a rounding are multiplied by. Afterwards their sums leave
        the accelerator's memory.
        """
        new = {weight.untyped_storage().data_ptr(): (name, weight) for name, weight in weights.items() if weight.dim() > 1}
        self._known |= new
        self._roundings |= roundings
        try:
            yield
        finally:
            for place, (name, _) in new.items():
                del self._known[place]
                if name in self.seen:
                    before = self.seen[name]
                    self.seen[name] = Seen(before.sums.cpu(), before.counts, before.last)

    def weight(self, name: str) -> torch.Tensor:
        """A weight that is known now."""
        return next(weight for known, weight in self._known.values() if known == name)

    def rounded(self, name: str, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers (..., inputs) as they are multiplied by a weight."""
        return self._roundings[name](numbers) if name in self._roundings else numbers

    def keep(self, names: Iterable[str]) -> None:
        """Keep what these weights are multiplied by, until it is taken."""
        self._kept |= dict.fromkeys(names)

    def take(self, name: str) -> torch.Tensor:
        """What a weight was multiplied by last, (tokens, inputs)."""
        kept, self._kept[name] = self._kept[name], None
        assert kept is not None
        return kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs everything, and looks at products on the way."""
        if func in _FACTORS and self._known:
            one, two = _FACTORS[func]
            args = list(args)
            if not self._look(args, two, -2, one, -1):
                self._look(args, one, -1, two, -2)
        return func(*args, **(kwargs or {}))

    def _look(self, args: list[Any], at: int, along: int, other: int, axis: int) -> bool:
        """Count (and round) one factor if the other, `args[at]`, is a weight; the inputs run along these axes of the two."""
        weight, others = args[at], args[other].movedim(axis, -1)
        found = self._known.get(weight.untyped_storage().data_ptr())
        if found is None:
            return False
        name, whole = found
        if weight.dim() > 2 and weight.stride(0) == 0:
            weight = weight[0]  # one matrix for every member of a batch
        size = prod(whole.shape[-2:])
        first, rest = divmod(weight.storage_offset() - whole.storage_offset(), size)
        count = weight.shape[0] if weight.dim() > 2 else 1
        if rest or weight.numel() != count * size or (count > 1 and weight.stride(0) != size):
            return False  # a part of a matrix, which GGUF has no numbers for
        inputs = weight.shape[along]
        last = whole.shape[-1] == inputs and (whole.shape[-2] != inputs or weight.stride(along) == 1)
        rows = others.reshape(count, -1, inputs)
        self._add(name, whole, first, rows, last)
        if name in self._kept:
            self._kept[name] = rows[0]
        args[other] = self.rounded(name, others).movedim(-1, axis)
        return True

    def _add(self, name: str, whole: torch.Tensor, first: int, rows: torch.Tensor, last: bool) -> None:
        if name not in self.seen:
            matrices, inputs = prod(whole.shape[:-2]), rows.shape[-1]
            zeros = torch.zeros(matrices, inputs, dtype=torch.float64, device=rows.device)
            self.seen[name] = Seen(zeros, torch.zeros(matrices, dtype=torch.int64), last)
        seen = self.seen[name]
        if seen.sums.device != rows.device:  # of an earlier round
            seen = self.seen[name] = Seen(seen.sums.to(rows.device), seen.counts, last)
        seen.sums[first : first + len(rows)] += rows.square().sum(1, dtype=torch.float64)
        seen.counts[first : first + len(rows)] += rows.shape[1]
