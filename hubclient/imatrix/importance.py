"""From sums beside Transformers' parameters to entries for GGUF's tensors, through the same layouts as the weights go.

Beside every element of a weight stands the sum for the input that it is multiplied by. Wherever the element goes (experts are
stacked, matrices are joined, transposed, their rows re-ordered), its sum goes with it, and the first row of each matrix in the
GGUF then tells its columns' sums. Should another row tell otherwise, the matrix is multiplied by something else there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.formats.gguf.imatrix import Entry

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hubclient.architectures.language.layouts import Bound
    from hubclient.imatrix.attention import Latent

    Rows = np.ndarray[Any, Any]


class _Beside(NamedTuple):
    """What a leaf reads: numbers beside the elements of a tensor, (rows, columns)."""

    numbers: Rows


def entries(
    bounds: Iterable[Bound],
    config: Mapping[str, Any],
    sums: Mapping[str, torch.Tensor],
    counts: Mapping[str, torch.Tensor],
    latents: Mapping[str, Latent],
) -> dict[str, Entry]:
    """Entries by GGUF name for the tensors that these rules make of the Hugging Face tensors in `sums` and `counts`.

    Both have the shapes of the weights. A rule that needs others as well is passed over, as is a GGUF tensor whose rows do
    not agree, unless it is known from `latents` what it is multiplied by.
    """
    import numpy as np

    found: dict[str, Entry] = {}
    for bound in bounds:
        if any(name not in sums for name in bound.inputs):
            continue
        squares, tokens = (_through(bound, config, numbers) for numbers in (sums, counts))
        for name, array, counted in zip(bound.outputs, squares, tokens, strict=True):
            rows, latent = _rows(array), latents.get(bound.inputs[0])
            if latent is not None:  # rows agree in the half that yields values
                numbers = latent.queries if rows is None else latent.values
                found[name] = Entry(numbers.float().numpy().reshape(1, -1), np.array([latent.tokens]))
            elif rows is not None:
                found[name] = Entry(rows.astype(np.float32), _counts(counted))
    return found


def _through(bound: Bound, config: Mapping[str, Any], numbers: Mapping[str, torch.Tensor]) -> tuple[Array, ...]:
    leaves = (Leaf(tuple(values.shape), _Beside(_flat(values))) for values in (numbers[name] for name in bound.inputs))
    return bound.rule.transform.forward(tuple(leaves), config)


def _flat(values: torch.Tensor) -> Rows:
    flat: Rows = values.reshape(-1, values.shape[-1] if values.dim() > 1 else 1).numpy()
    return flat


def _rows(array: Array) -> Rows | None:
    """The one row that all rows of each matrix are, (matrices, columns); None if they differ."""
    import numpy as np

    if len(array.shape) < 2:  # a matrix of one row
        return array.read(0, array.rows, _load).reshape(1, -1)
    matrices, high = prod(array.shape[:-2]), array.shape[-2]
    first, last = (
        np.concatenate([array.read(row, row + 1, _load) for row in range(start, matrices * high, high)])
        for start in (0, high - 1)
    )
    return first if np.array_equal(first, last, equal_nan=True) else None


def _counts(array: Array) -> Rows:
    """The number of tokens that went through each matrix, int64 (matrices,)."""
    import numpy as np

    high = array.shape[-2] if len(array.shape) > 1 else max(1, array.rows)
    rows = [array.read(row, row + 1, _load).reshape(-1)[:1] for row in range(0, array.rows, high)]
    return np.concatenate(rows).astype(np.int64)


def _load(leaf: Leaf, start: int, stop: int) -> Rows:
    rows: Rows = leaf.ref.numbers[start:stop]
    return rows
