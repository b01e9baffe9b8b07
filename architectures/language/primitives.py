"""The verbs of the tables: how tensors of one layout become those of another, each with its inverse.

rope concat ungroup stack      move rows, so packed blocks may move undecoded
transpose squeeze reshape      move elements
shift negative_exp             compute values
skip                           leaves rows out
misread                        changes nothing, but says what readers do differently
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubclient.architectures.language.arrays import Array, Padded, Slice, cut, joined, reshaped, row_shape
from hubclient.architectures.language.elementwise import Add, NegativeExp, Operation, computed
from hubclient.architectures.language.expressions import Expr, evaluate
from hubclient.architectures.language.gathers import Permute, Transpose, Ungroup
from hubclient.architectures.language.transforms import Arrays, Config, Identity, Transform
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class rope(Transform):  # noqa: N801 - reads as a verb in the tables
    """Rows of each head from two halves (Transformers) to neighbouring pairs (llama.cpp's NORM rope).

    Shape (heads * size, ...), size even; `heads` and `size` (None: whatever comes out) are expressions over the config.
    Source: `permute` in llama.cpp's converter, which undoes the permutation of Transformers' own Llama conversion.
    """

    heads: Expr
    size: Expr | None = None

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
    """Several tensors one after the other along the first axis; `sizes` are their lengths there, as expressions.

    `~concat(...)` splits.
    """

    sizes: tuple[Expr, ...]

    def __init__(self, *sizes: Expr) -> None:
        object.__setattr__(self, "sizes", sizes)

    @property
    def arity(self) -> tuple[int, int] | None:
        """As many as there are sizes, and one."""
        return len(self.sizes), 1

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Many to one."""
        wanted = self._lengths(config)
        given = tuple(array.shape[0] if array.shape else 0 for array in arrays)
        if given != wanted or len({array.shape[1:] for array in arrays}) > 1:
            raise DamagedInput(f"tensors of {_list(given)} rows where the config asks for {_list(wanted)}")
        return (joined(arrays),)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """One to many."""
        (array,), wanted = arrays, self._lengths(config)
        if not array.shape or array.shape[0] != sum(wanted):
            rows = array.shape[0] if array.shape else 0
            raise DamagedInput(f"a tensor of {rows} rows where the config asks for {' + '.join(map(str, wanted))}")
        return cut(array, wanted)

    def _lengths(self, config: Config) -> tuple[int, ...]:
        return tuple(evaluate(size, config) for size in self.sizes)


@dataclass(frozen=True, slots=True)
class stack(Transform):  # noqa: N801
    """All tensors of a capture (experts, heads), `count` of equal shape, as one with a new first axis.

    The capture stands in the Hugging Face name and not in the target's.
    """

    capture: str
    count: Expr

    @property
    def spread(self) -> tuple[str, Expr] | None:
        """The capture, and how many tensors it runs over."""
        return self.capture, self.count

    @property
    def arity(self) -> tuple[int, int] | None:
        """One name, whose tensors become one."""
        return 1, 1

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Many to one."""
        count, shapes = evaluate(self.count, config), {array.shape for array in arrays}
        if len(arrays) != count or len(shapes) > 1:
            told = " and ".join(map(str, sorted(map(list, shapes))[:2])) if len(shapes) > 1 else f"{len(arrays)} tensors"
            raise DamagedInput(f"{told} where the config asks for {count} ({self.count}) of one shape")
        return (reshaped(joined(arrays), (count, *arrays[0].shape)),)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """One to many."""
        (array,), count = arrays, evaluate(self.count, config)
        if len(array.shape) < 2 or array.shape[0] != count:
            raise DamagedInput(
                f"a tensor of shape {list(array.shape)} where the config asks for {count} ({self.count}) along the first axis"
            )
        _, length, *rest = array.shape
        return cut(reshaped(array, (count * length, *rest)), [length] * count)


@dataclass(frozen=True, slots=True)
class ungroup(Transform):  # noqa: N801
    """Rows in groups of several kinds, sorted by kind: q, k, v of each head become all q, all k, all v.

    `groups` is how often the kinds repeat along the rows, `sizes` the rows of each kind in a group. `~ungroup` interleaves.
    """

    groups: Expr
    sizes: tuple[Expr, ...]

    def __init__(self, groups: Expr, *sizes: Expr) -> None:
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "sizes", sizes)

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Groups to kinds."""
        return tuple(self._ungrouped(array, config, back=False) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Kinds to groups."""
        return tuple(self._ungrouped(array, config, back=True) for array in arrays)

    def _ungrouped(self, array: Array, config: Config, *, back: bool) -> Array:
        groups, sizes = evaluate(self.groups, config), tuple(evaluate(size, config) for size in self.sizes)
        if array.rows != groups * sum(sizes):
            told = f"{groups} groups ({self.groups}) of {' + '.join(map(str, sizes))} rows"
            raise DamagedInput(f"a tensor of shape {list(array.shape)} where the config asks for {told}")
        if isinstance(array, Ungroup) and (array.groups, array.sizes, array.back) == (groups, sizes, not back):
            return array.part
        return array if groups == 1 else Ungroup(array, groups, sizes, back)


@dataclass(frozen=True, slots=True)
class Transposed(Transform):
    """The last two axes exchanged (GPT-2's Conv1D stores (in, out))."""

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Transposed."""
        return tuple(map(_transposed, arrays))

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Transposed again."""
        return self.forward(arrays, config)


@dataclass(frozen=True, slots=True)
class squeeze(Transform):  # noqa: N801
    """An axis of length one taken away (counted from the end if negative); `~squeeze(axis)` puts one there."""

    axis: int

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Without the axis."""
        return tuple(self._without(array) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """With the axis."""
        return tuple(self._with(array) for array in arrays)

    def _without(self, array: Array) -> Array:
        shape = list(array.shape)
        if not -len(shape) <= self.axis < len(shape) or shape[self.axis] != 1:
            raise DamagedInput(f"a tensor of shape {shape} where axis {self.axis} should have length 1")
        del shape[self.axis]
        return reshaped(array, shape)

    def _with(self, array: Array) -> Array:
        shape = list(array.shape)
        shape.insert(self.axis if self.axis >= 0 else len(shape) + 1 + self.axis, 1)
        return reshaped(array, shape)


@dataclass(frozen=True, slots=True)
class reshape(Transform):  # noqa: N801
    """The same elements under another shape: from `of` to `to`, both as expressions; None takes what is left, once each."""

    of: tuple[Expr | None, ...]
    to: tuple[Expr | None, ...]

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """To the new shape."""
        return tuple(_fitted(array, self.of, self.to, config) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """To the old shape."""
        return tuple(_fitted(array, self.to, self.of, config) for array in arrays)


@dataclass(frozen=True, slots=True)
class skip(Transform):  # noqa: N801
    """All but the first `rows` rows, which nothing reads; they come back as zeros."""

    rows: Expr

    @property
    def loss(self) -> str:
        """The rows."""
        return f"the first {self.rows} rows, which the model never reads"

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Without them."""
        return tuple(self._skipped(array, evaluate(self.rows, config)) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """With zeros in their place."""
        rows = evaluate(self.rows, config)
        return tuple(self._restored(array, rows) for array in arrays)

    @staticmethod
    def _skipped(array: Array, rows: int) -> Array:
        if len(array.shape) != 2 or array.shape[0] <= rows:
            raise DamagedInput(f"a tensor of shape {list(array.shape)} where a matrix of more than {rows} rows is needed")
        if isinstance(array, Padded) and array.before == rows:
            return array.part
        return Slice(array, rows, row_shape(array.shape, array.shape[0] - rows))

    @staticmethod
    def _restored(array: Array, rows: int) -> Array:
        if isinstance(array, Slice) and array.first == rows and array.part.rows == rows + array.rows:
            return array.part
        return Padded(array, rows)


@dataclass(frozen=True, slots=True)
class misread(Identity):  # noqa: N801
    """The tensor as it is, where readers of the target do something else with it than the model does."""

    told: str

    @property
    def loss(self) -> str:
        """What they do."""
        return self.told


@dataclass(frozen=True, slots=True)
class Elementwise(Transform):
    """One operation on every element, in float32."""

    operation: Operation

    def forward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Computed."""
        return tuple(computed(array, self.operation) for array in arrays)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:  # noqa: ARG002
        """Undone."""
        return tuple(computed(array, self.operation.inverse) for array in arrays)


def shift(by: float) -> Elementwise:
    """Every element plus `by`, in float32 (Gemma stores norm weights as w, GGUF as w + 1).

    Exact for the values near one that such weights have, not for all: the values are asked, not this transform.
    """
    return Elementwise(Add(by))


negative_exp = Elementwise(NegativeExp())  # Mamba stores log(-A), GGUF stores A
transpose = Transposed()


def _transposed(array: Array) -> Array:
    if len(array.shape) < 2:
        raise DamagedInput(f"a tensor of shape {list(array.shape)} where a matrix was expected")
    return array.part if isinstance(array, Transpose) else Transpose(array)


def _fitted(array: Array, of: Sequence[Expr | None], to: Sequence[Expr | None], config: Config) -> Array:
    """`array`, which must have the shape `of`, in the shape `to`."""
    old = [None if size is None else evaluate(size, config) for size in of]
    if len(old) != len(array.shape) or any(size not in (None, found) for size, found in zip(old, array.shape, strict=True)):
        asked = ", ".join("any" if size is None else str(size) for size in old)
        raise DamagedInput(f"a tensor of shape {list(array.shape)} where the config asks for [{asked}]")
    rest = next((found for size, found in zip(old, array.shape, strict=True) if size is None), 1)
    new = [rest if size is None else evaluate(size, config) for size in to]
    product = 1
    for size in new:
        product *= size
    if product != array.rows * array.columns:
        raise DamagedInput(f"a tensor of shape {list(array.shape)} where the config asks for {product} elements as {new}")
    return reshaped(array, new)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
