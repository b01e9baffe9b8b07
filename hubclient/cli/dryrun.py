"""A plan for people, as `convert --dry-run` prints it: a table where the screen is wide enough, else two lines for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hubclient.cli.options import console, human, printable

if TYPE_CHECKING:
    from hubclient.plan import Plan

_COLUMNS = ("tensor", "shape", "encoding", "values", "from", "transform")
_ABOVE = 4  # columns of the first of two lines
_BORDERS = 3 * len(_COLUMNS) + 1


def print_steps(plan: Plan) -> None:
    """Every tensor of each output."""
    for output in plan.outputs:
        title = printable(f"{output.path} ({output.type}, {human(output.size)})")
        rows = [[printable(cell) for cell in _row(step.as_json())] for step in output.steps]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        if sum(widths) + _BORDERS <= console().width:
            _print_table(title, rows)
        else:
            _print_lines(title, rows, widths)


def _row(told: dict[str, Any]) -> list[str]:
    sources = [told["from"]] if isinstance(told["from"], str) else told["from"]
    source = sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more" if sources else "nothing"
    shape = "x".join(map(str, told["shape"]))
    came = f"{source} ({told['source_encoding']})"
    return [told["name"], shape, told["encoding"], told["fidelity"], came, told["transform"]]


def _print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in _COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _print_lines(title: str, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    """What a tensor becomes, and below it what it is made of. Longer lines than the screen has are left to the terminal."""
    click.echo(title)
    for row in (_COLUMNS, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row[:_ABOVE], widths, strict=False)).rstrip())
        click.echo("    " + "  ".join(row[_ABOVE:]).rstrip())
