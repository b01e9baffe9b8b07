"""Transforms: frozen values that turn Hugging Face tensors into a target's tensors, and back.

A transform has `forward` and `backward`; `~t` swaps them, `a >> b` composes, `t >> "name"` (or a tuple of names) says where
the result goes. Both directions take and give lazy arrays and read sizes from the normalised config; neither touches a
byte. Whether rows only move is known from the arrays they build (`Array.moves_rows`). A transform that meets its own inverse
takes it away instead of adding to it, so a tensor that goes through Hugging Face names and back moves unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from hubclient.architectures.arrays import Array, Concat, Permute, Shift, Slice, Transpose, row_shape
from hubclient.architectures.expressions import Expression, evaluate
from hubclient.errors import DamagedInput

Config = Mapping[str, Any]
Arrays = tuple[Array, ...]


class Transform:
    """Base of all transforms."""

    __slots__ = ()

    @property
    def arity(self) -> tuple[int, int] | None:
        """How many tensors go in and come out; None if any number does, each becoming one."""
        return None

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """From Hugging Face tensors to the target's."""
        raise NotImplementedError

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """From the target's tensors to Hugging Face's."""
        raise NotImplementedError

    def __invert__(self) -> Transform:
        return Inverse(self)

    @overload
    def __rshift__(self, other: Transform) -> Transform: ...
    @overload
    def __rshift__(self, other: str | tuple[str, ...]) -> Arrow: ...
    def __rshift__(self, other: Transform | str | tuple[str, ...]) -> Transform | Arrow:
        if isinstance(other, Transform):
            return Chain(self, other)
        return Arrow(self, (other,) if isinstance(other, str) else other)


@dataclass(frozen=True, slots=True)
class Arrow:
    """A transform and the target names it leads to; `required` is false for tensors that a model may lack."""

    transform: Transform
    targets: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Identity(Transform):
    """The tensor as it is, under another name."""

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Unchanged."""
        return arrays

    def backward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Unchanged."""
        return arrays


@dataclass(frozen=True, slots=True)
class Inverse(Transform):
    """`~t`."""

    of: Transform

    @property
    def arity(self) -> tuple[int, int] | None:
        """The other's, swapped."""
        return self.of.arity and self.of.arity[::-1]

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """The other's backward."""
        return self.of.backward(arrays, config)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """The other's forward."""
        return self.of.forward(arrays, config)

    def __invert__(self) -> Transform:
        return self.of


@dataclass(frozen=True, slots=True)
class Chain(Transform):
    """`first >> second`."""

    first: Transform
    second: Transform

    def __post_init__(self) -> None:
        one, two = self.first.arity, self.second.arity
        if one and two and one[1] != two[0]:
            raise ValueError(f"{self.first} gives {one[1]} tensors and {self.second} takes {two[0]}")

    @property
    def arity(self) -> tuple[int, int] | None:
        """What the first takes and the second gives."""
        one, two = self.first.arity, self.second.arity
        return (one[0], two[1]) if one and two else one or two

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """First, then second."""
        return self.second.forward(self.first.forward(arrays, config), config)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Second's inverse, then first's."""
        return self.first.backward(self.second.backward(arrays, config), config)


@dataclass(frozen=True, slots=True)
class rope(Transform):  # noqa: N801 - reads as a verb in the tables
    """Rows of each head from two halves (Transformers) to neighbouring pairs (llama.cpp's NORM rope).

    Shape (heads * size, ...), size even; `heads` and `size` (None: whatever comes out) are expressions over the config.
    Source: `permute` in llama.cpp's converter, which undoes the permutation of Transformers' own Llama conversion.
    """

    heads: Expression
    size: Expression | None = None

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Halves to pairs."""
        return tuple(self._permute(array, config, halves=True) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Pairs to halves."""
        return tuple(self._permute(array, config, halves=False) for array in arrays)

    def _permute(self, array: Array, config: Config, *, halves: bool) -> Array:
        heads = evaluate(self.heads, config)
        half, odd = divmod(array.rows, 2 * heads)
        if odd or len(array.shape) > 2:
            raise DamagedInput(
                f"a tensor of shape {list(array.shape)} cannot be cut into {heads} heads of even size ({self.heads})"
            )
        if self.size is not None and 2 * half != (size := evaluate(self.size, config)):
            told = f"{heads} heads ({self.heads}) of size {size} ({self.size})"
            raise DamagedInput(f"a tensor of shape {list(array.shape)} where the config asks for {told}")
        dims, back = ((heads, 2, half), (heads, half, 2)) if halves else ((heads, half, 2), (heads, 2, half))
        if isinstance(array, Permute) and (array.dims, array.axes) == (back, (0, 2, 1)):
            return array.part
        return Permute(array, dims, (0, 2, 1), "rope")


@dataclass(frozen=True, slots=True)
class concat(Transform):  # noqa: N801
    """Several tensors stacked along the first axis into one; `sizes` are their rows, as expressions over the config."""

    sizes: tuple[Expression, ...]

    def __init__(self, *sizes: Expression) -> None:
        object.__setattr__(self, "sizes", sizes)

    @property
    def arity(self) -> tuple[int, int] | None:
        """As many as there are sizes, and one."""
        return len(self.sizes), 1

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Many to one."""
        wanted = self._rows(config)
        given = tuple(array.rows for array in arrays)
        if given != wanted or len({array.shape[1:] for array in arrays}) > 1:
            raise DamagedInput(f"tensors of {_list(given)} rows where the config asks for {_list(wanted)}")
        whole = arrays[0].part if isinstance(arrays[0], Slice) else None
        if whole is not None and whole.rows == sum(wanted) and arrays == self.backward((whole,), config):
            return (whole,)
        return (Concat(arrays, row_shape(arrays[0].shape, sum(given))),)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """One to many."""
        (array,), wanted = arrays, self._rows(config)
        if isinstance(array, Concat) and tuple(part.rows for part in array.members) == wanted:
            return array.members
        if array.rows != sum(wanted):
            raise DamagedInput(f"a tensor of {array.rows} rows where the config asks for {' + '.join(map(str, wanted))}")
        firsts = [sum(wanted[:index]) for index in range(len(wanted))]
        return tuple(Slice(array, first, row_shape(array.shape, rows)) for first, rows in zip(firsts, wanted, strict=True))

    def _rows(self, config: Config) -> tuple[int, ...]:
        return tuple(evaluate(size, config) for size in self.sizes)


@dataclass(frozen=True, slots=True)
class Transposed(Transform):
    """Rows and columns exchanged (GPT-2's Conv1D stores (in, out))."""

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Transposed."""
        return tuple(_matrix(array) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Transposed again."""
        return self.forward(arrays, config)


@dataclass(frozen=True, slots=True)
class shift(Transform):  # noqa: N801
    """Every element plus `by`, in float32 (Gemma stores norm weights as w, GGUF as w + 1).

    Exact for the values near one that such weights have, not for all: the plan asks the values, not this class.
    """

    by: float

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Add."""
        return tuple(_shifted(array, self.by) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Subtract."""
        return tuple(_shifted(array, -self.by) for array in arrays)


identity = Identity()
transpose = Transposed()


def _matrix(array: Array) -> Array:
    if len(array.shape) != 2:
        raise DamagedInput(f"a tensor of shape {list(array.shape)} where a matrix was expected")
    return array.part if isinstance(array, Transpose) else Transpose(array)


def _shifted(array: Array, by: float) -> Array:
    return array.part if isinstance(array, Shift) and array.by == -by else Shift(array, by)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
