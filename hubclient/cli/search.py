"""`hubclient search` and `hubclient info`: one call each of hubclient.hub.search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from hubclient.cli.options import as_json, console, human, print_json, printable
from hubclient.cli.pull import offline

if TYPE_CHECKING:
    from hubclient.hub.search import Found, Info

_NUMBERS = ("downloads", "likes")
_DISPENSABLE = ("licence", "updated", "likes", "formats", "downloads", "")  # the first goes first
_BETWEEN = 2  # blanks around a column
_ORDERS = ("downloads", "likes", "updated", "created", "trending")


@click.command()
@click.argument("text", default="")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many at most.")
@click.option("--filter", "tags", multiple=True, metavar="TAG", help="Only with this tag: gguf, safetensors, mlx, or any other.")
@click.option("--author", metavar="NAME", help="Only of this user or organisation.")
@click.option("--sort", type=click.Choice(_ORDERS), default="downloads", show_default=True, help="What comes first.")
@offline
@as_json
def search(text: str, limit: int, tags: tuple[str, ...], author: str | None, sort: str, offline: bool, as_json: bool) -> None:
    """Find models on the Hub whose names hold the words of TEXT."""
    from hubclient.hub.net.session import Session
    from hubclient.hub.search import search as find

    found = find(Session.of(offline=offline or None), text, limit=limit, filter=tags, author=author, sort=sort)
    if as_json:
        print_json({"found": [asdict(item) for item in found]})
    else:
        _print_found(found)


@click.command()
@click.argument("repo", metavar="REPO[@REVISION]")
@click.option("--files", is_flag=True, help="List every file.")
@offline
@as_json
def info(repo: str, files: bool, offline: bool, as_json: bool) -> None:
    """Show what the Hub says of REPO, and what of it is in the cache here; offline, what is here."""
    from hubclient.cache.layout import default_cache
    from hubclient.errors import UsageError
    from hubclient.hub.naming import asked_of
    from hubclient.hub.net.session import Session
    from hubclient.hub.search import info as look

    asked = asked_of(repo)
    if asked.file is not None:
        raise UsageError(f"{repo}: info is about a repository, not about one file of it")
    found = look(Session.of(offline=offline or None), default_cache(), asked.repo, asked.revision)
    if as_json:
        print_json({**asdict(found), "sizes": found.sizes, "size": found.size, "cached": found.cached})
    else:
        _print_info(found, files)


def _print_found(found: tuple[Found, ...]) -> None:
    from rich.table import Table

    if not found:
        click.echo("nothing was found", err=True)
        return
    columns = _fitting({heading: [printable(cell(item)) for item in found] for heading, cell in _CELLS.items()}, console().width)
    if len(columns) == 1:
        click.echo("\n".join(columns["name"]))
        return
    table = Table(box=None)
    for heading in columns:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console().print(table)


def _fitting(columns: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """The columns that a screen has room for: a name that is cut can be given to no other command, so others go."""
    left = dict(columns)
    for heading in _DISPENSABLE:
        if sum(max(map(len, [name, *cells])) + _BETWEEN for name, cells in left.items()) <= width:
            break
        del left[heading]
    return left


def _closed(item: Found) -> str:
    return ", ".join([*(["gated"] if item.gated else []), *(["private"] if item.private else [])])


def _print_info(found: Info, files: bool) -> None:
    from rich.table import Table

    if found.offline:
        click.echo("note: this is what the cache knows; the Hub was not asked", err=True)
    table = Table(box=None, show_header=False)
    for name, text in _rows(found).items():
        table.add_row(name, printable(text))
    console().print(table)
    if files:
        listed = Table(box=None)
        for column in ("file", "size", ""):
            listed.add_column(column, justify="right" if column == "size" else "left")
        for file in found.files:
            listed.add_row(printable(file.name), "" if file.size is None else human(file.size), "here" if file.cached else "")
        console().print(listed)


def _rows(found: Info) -> dict[str, str]:
    """What there is to say, and nothing about what is not known."""
    known = {True: "", False: " (not known here)", None: ""}
    closed = {True: "private", False: "public", None: ""}[found.private]
    rows = {
        "repository": found.repo,
        "revision": found.revision,
        "commit": found.commit,
        "access": ", ".join(filter(None, [closed, f"gated ({found.gated})" if found.gated else ""])),
        "licence": found.licence or "",
        "accept the licence at": found.licence_page or "",
        "architecture": f"{found.architecture}{known[found.supported]}" if found.architecture else "",
        "library": found.library or "",
        "task": found.task or "",
        "updated": _day(found.updated),
        "downloads": _count(found.downloads),
        "likes": _count(found.likes),
        "refs": ", ".join(f"{name} {commit[:12]}" for name, commit in found.refs.items()),
        "files": f"{len(found.files)} ({human(found.size)}): "
        + ", ".join(f"{kind} {human(size)}" for kind, size in found.sizes.items()),
        "in the cache": f"{sum(file.cached for file in found.files)} ({human(found.cached)})",
    }
    return {name: text for name, text in rows.items() if text}


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _day(stamp: str | None) -> str:
    return (stamp or "")[:10]


_CELLS: Mapping[str, Callable[[Found], str]] = MappingProxyType({
    "name": lambda item: item.name,
    "downloads": lambda item: _count(item.downloads),
    "likes": lambda item: _count(item.likes),
    "updated": lambda item: _day(item.updated),
    "formats": lambda item: " ".join(item.formats),
    "licence": lambda item: item.licence or "",
    "": _closed,
})  # fmt: skip

COMMANDS = (search, info)
