"""Words for the sizes of tensors (`shapes`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubclient.architectures.language.expressions import Expr

Sizes = Mapping[str, tuple[Expr, ...]]


def with_biases(shapes: Sizes, out: int = 0) -> dict[str, tuple[Expr, ...]]:
    """The same sizes, and for every weight that of the bias beside it, whether models have one or not.

    A bias is as long as the weight's axis `out`: the first, but of matrices that are stored (in, out) the last (-1).
    """
    weights = {name: sizes for name, sizes in shapes.items() if name.endswith(".weight")}
    return {**{f"{name.removesuffix('weight')}bias": (sizes[out],) for name, sizes in weights.items()}, **shapes}


def alike(names: Iterable[str], *sizes: Expr) -> dict[str, tuple[Expr, ...]]:
    """These sizes for the weights of all these modules."""
    return {f"{name}.weight": sizes for name in names}
