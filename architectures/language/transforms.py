"""Transforms: frozen values that turn Hugging Face tensors into a target's tensors, and back. Here the algebra; the verbs
are in `primitives`.

A transform has `forward` and `backward`; `~t` swaps them, `a >> b` composes, `t >> "name"` (or a tuple of names) says where
the result goes. Both directions take and give lazy arrays and read sizes from the normalised config; neither touches a
byte. Whether rows only move is known from the arrays they build (`Array.moves_rows`). A transform that meets its own inverse
takes it away instead of adding to it, so a tensor that goes through Hugging Face names and back moves unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, overload

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.expressions import Expr

Config = Mapping[str, Any]
Arrays = tuple[Array, ...]


class Transform:
    """Base of all transforms."""

    __slots__ = ()

    @property
    def arity(self) -> tuple[int, int] | None:
        """How many tensors go in and come out; None if any number does, each becoming one."""
        return None

    @property
    def spread(self) -> tuple[str, Expr] | None:
        """The capture whose tensors are taken all at once, and how many there are; None if each is taken alone."""
        return None

    @property
    def loss(self) -> str:
        """What does not come back, as the object of "not carried over"; empty if everything does."""
        return ""

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
    """A transform and the target names it leads to.

    `required` is false for tensors that a model may lack. `choice` names an `either` and which of its tables this is of;
    `stored` are the encodings that the tensors must have for the line to apply (empty: any).
    """

    transform: Transform
    targets: tuple[str, ...]
    required: bool = True
    choice: tuple[str, int] | None = None
    stored: tuple[str, ...] = ()


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

    @property
    def spread(self) -> tuple[str, Expr] | None:
        """The other's, so that a table refuses it: Hugging Face tensors are stacked, those of a target are not."""
        return self.of.spread

    @property
    def loss(self) -> str:
        """The other's: what one direction leaves out does not come back by the other."""
        return self.of.loss

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
        if self.second.spread:
            raise ValueError(f"{self.second} must come first in a chain")
        one, two = self.first.arity, self.second.arity
        if one and two and one[1] != two[0]:
            raise ValueError(f"{self.first} gives {one[1]} tensors and {self.second} takes {two[0]}")

    @property
    def arity(self) -> tuple[int, int] | None:
        """What the first takes and the second gives."""
        one, two = self.first.arity, self.second.arity
        return (one[0], two[1]) if one and two else one or two

    @property
    def spread(self) -> tuple[str, Expr] | None:
        """The first's."""
        return self.first.spread

    @property
    def loss(self) -> str:
        """Both."""
        return "; ".join(filter(None, (self.first.loss, self.second.loss)))

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """First, then second."""
        return self.second.forward(self.first.forward(arrays, config), config)

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Second's inverse, then first's."""
        return self.first.backward(self.second.backward(arrays, config), config)


@dataclass(frozen=True, slots=True)
class each(Transform):  # noqa: N801 - reads as a word in the tables
    """One transform for each tensor, in order."""

    members: tuple[Transform, ...]

    def __init__(self, *members: Transform) -> None:
        """ValueError for a member that takes all tensors of a capture at once."""
        if wrong := [member for member in members if member.spread]:
            raise ValueError(f"{wrong[0]} cannot be a member of each(...), which takes tensors one by one")
        object.__setattr__(self, "members", members)

    @property
    def arity(self) -> tuple[int, int] | None:
        """As many as there are members, in and out."""
        return len(self.members), len(self.members)

    @property
    def loss(self) -> str:
        """Those of the members."""
        return "; ".join(filter(None, (member.loss for member in self.members)))

    def forward(self, arrays: Arrays, config: Config) -> Arrays:
        """Each by its own."""
        return tuple(t.forward((array,), config)[0] for t, array in zip(self.members, arrays, strict=True))

    def backward(self, arrays: Arrays, config: Config) -> Arrays:
        """Each by the inverse of its own."""
        return tuple(t.backward((array,), config)[0] for t, array in zip(self.members, arrays, strict=True))


identity = Identity()
