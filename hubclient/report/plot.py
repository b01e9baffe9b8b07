"""The plot of a report: relative error by block, a line for each role, tensors outside of blocks apart; SVG with a legend in HTML.

Colours, dashes and the size of text come from the page's style, so that a phone can have larger text in the same drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from hubclient.report import scale
from hubclient.report.layers import Layers, Point, layers
from hubclient.report.markup import Markup, group, tag
from hubclient.report.scale import Scale
from hubclient.report.values import OutputReport

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, _WIDTH - 14, 14, _HEIGHT - 48
_COLOURS = 8  # of the style; further roles take them again, dashed, then dotted
_DENSE = 40  # points in a row, from which on they are drawn smaller
_APART, _APART_LEAST, _APART_MOST = 30, 100, 200  # width for a tensor outside of blocks, and for all of them


def numbered(outputs: Iterable[OutputReport]) -> Mapping[str, int]:
    """A number for each role, and each tensor outside of blocks, of any output, so that it looks the same in all."""
    found = [layers(output.tensors) for output in outputs]
    names = [role for one in found for role in one.roles] + [name for one in found for name in one.apart]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def plot(output: OutputReport, numbers: Mapping[str, int]) -> Markup:
    """The figure of an output; `numbers` is what `numbered` gave."""
    roles, apart = found = layers(output.tensors)
    points = [*(point for several in roles.values() for point in several), *apart.values()]
    if not points:
        return tag("p", "No error was measured, as nothing was quantised.", class_="quiet")
    errors = scale.of_errors(point.relative for point in points)
    border = _border(found)
    drawn = group(_grid(errors), _blocks(roles, numbers, errors, border), _others(apart, numbers, errors, border))
    title = f"Relative error by block{', on a logarithmic scale' if errors.logarithmic else ''}"
    look = "dense" if any(len(several) > _DENSE for several in roles.values()) else None
    svg = tag("svg", tag("title", title), drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_=look)
    return tag("figure", tag("figcaption", title), svg, _legend(found, numbers))


def _border(found: Layers) -> float:
    """Where the blocks end and other tensors begin."""
    if not found.roles:
        return _LEFT
    return _RIGHT - min(max(_APART_LEAST, _APART * len(found.apart)), _APART_MOST) if found.apart else _RIGHT


def _y(errors: Scale, value: float) -> float:
    return _BOTTOM - errors.at(value) * (_BOTTOM - _TOP)


def _grid(errors: Scale) -> Markup:
    lines = [tag("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y) for y in (_y(errors, tick) for tick in errors.ticks)]
    labels = [
        tag("text", f"{tick * 100:.4g}%", x=_LEFT - 8, y=_y(errors, tick), dy="0.35em", text_anchor="end")
        for tick in errors.ticks
    ]  # fmt: skip
    return group(*lines, *labels)


def _blocks(roles: Mapping[str, list[Point]], numbers: Mapping[str, int], errors: Scale, border: float) -> Markup:
    if not roles:
        return Markup()
    blocks = scale.of_blocks(point.block for points in roles.values() for point in points)

    def x(block: float) -> float:
        return _LEFT + blocks.at(block) * (border - _LEFT)

    ticks = [_below(f"{tick:.0f}", x(tick), "middle") for tick in blocks.ticks]
    lines = [
        _line(points, numbers[role], [(x(point.block), _y(errors, point.relative)) for point in points])
        for role, points in roles.items()
    ]
    return group(_below("block", _LEFT - 16, "end"), *ticks, *lines)


def _line(points: Sequence[Point], number: int, places: Sequence[tuple[float, float]]) -> Markup:
    """A role's points, joined where they are of neighbouring blocks."""
    path = [f"M{places[0][0]:.2f} {places[0][1]:.2f}"]
    for (before, point), (x, y) in zip(pairwise(points), places[1:], strict=True):
        path.append(f"{'L' if before.block + 1 == point.block else 'M'}{x:.2f} {y:.2f}")
    dots = [tag("circle", _told(point), cx=f"{x:.2f}", cy=f"{y:.2f}") for point, (x, y) in zip(points, places, strict=True)]
    return _drawn(number, tag("path", d="".join(path)), *dots)


def _others(apart: Mapping[str, Point], numbers: Mapping[str, int], errors: Scale, border: float) -> Markup:
    """Tensors outside of blocks, as diamonds."""
    if not apart:
        return Markup()
    each = (_RIGHT - border) / len(apart)
    marks = [
        _drawn(numbers[name], _diamond(border + (index + 0.5) * each, _y(errors, point.relative), _told(point)))
        for index, (name, point) in enumerate(apart.items())
    ]
    edge = tag("line", class_="edge", x1=border, x2=border, y1=_TOP, y2=_BOTTOM)
    return group(edge, _below("others", (border + _RIGHT) / 2, "middle"), *marks)


def _legend(found: Layers, numbers: Mapping[str, int]) -> Markup:
    line, diamond = group(tag("path", d="M1 6H27"), tag("circle", cx=14, cy=6)), _diamond(14, 6)
    looks = [*((role, line) for role in found.roles), *((name, diamond) for name in found.apart)]
    keys = [
        (name, tag("svg", _drawn(numbers[name], shape), viewBox="0 0 28 12", class_="key", aria_hidden="true"))
        for name, shape in looks
    ]
    return tag("ul", *(tag("li", key, name, data_role=numbers[name]) for name, key in keys), class_="legend")


def _below(label: str, x: float, anchor: str) -> Markup:
    return tag("text", label, x=x, y=_BOTTOM, dy="1.6em", text_anchor=anchor)


def _diamond(x: float, y: float, *inside: Markup) -> Markup:
    return tag("path", *inside, d=f"M{x:.2f} {y - 6:.2f}l6 6l-6 6l-6 -6z", class_="diamond")


def _told(point: Point) -> Markup:
    return tag("title", f"{point.name}: {point.relative * 100:.4g}%")


def _drawn(number: int, *shapes: Markup) -> Markup:
    return tag("g", *shapes, class_=f"c{number % _COLOURS} d{number // _COLOURS % 3}", data_role=number)
