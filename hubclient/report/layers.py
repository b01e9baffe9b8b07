"""Tensors by layer: whose error belongs to which block, and in which role (attn_q, ffn_down ...)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hubclient.report.values import Error, TensorReport


class Point(NamedTuple):
    """The relative error of a tensor, or of several of one role in one block."""

    name: str
    block: int
    relative: float


class Layers(NamedTuple):
    """The points of each role by block, and those of tensors outside of blocks, by name; both in the order of the tensors."""

    roles: Mapping[str, list[Point]]
    apart: Mapping[str, Point]


class Place(NamedTuple):
    """Where a tensor belongs: `within` what (blk, model.layers), as what, in which block."""

    within: str
    role: str
    block: int


def place(name: str) -> Place | None:
    """From a tensor's name: the first number is that of the block, further ones (experts) are not told apart."""
    parts = name.removesuffix(".weight").split(".")
    at = next((index for index, part in enumerate(parts) if _numeral(part)), len(parts))
    rest = ["*" if _numeral(part) else part for part in parts[at + 1 :]]
    return Place(".".join(parts[:at]), ".".join(rest), int(parts[at])) if rest else None


def layers(tensors: Iterable[TensorReport]) -> Layers:
    """The errors that were measured, by layer."""
    members: dict[Place, list[TensorReport]] = {}
    apart: dict[str, Point] = {}
    for tensor in tensors:
        if tensor.error is None:
            continue
        if (where := place(tensor.name)) is None:
            apart[tensor.name] = Point(tensor.name, 0, tensor.error.relative)
        else:
            members.setdefault(where, []).append(tensor)
    several = len({where.within for where in members}) > 1
    roles: dict[str, list[Point]] = {}
    for where, found in members.items():
        role = f"{where.within} {where.role}" if several else where.role
        name = found[0].name if len(found) == 1 else f"{len(found)} of {role} in block {where.block}"
        roles.setdefault(role, []).append(Point(name, where.block, _relative(found)))
    return Layers({role: sorted(points, key=lambda point: point.block) for role, points in roles.items()}, apart)


def _relative(tensors: list[TensorReport]) -> float:
    """The relative error over all of them."""
    errors: list[tuple[Error, int]] = [(one.error, one.share.weights) for one in tensors if one.error is not None]
    if len(errors) == 1:
        return errors[0][0].relative
    source = sum(error.source_rms**2 * weights for error, weights in errors)
    squares = sum(error.rmse**2 * weights for error, weights in errors)
    return math.sqrt(squares / source) if source else max(error.relative for error, _ in errors)


def _numeral(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 7  # more is no count of blocks
