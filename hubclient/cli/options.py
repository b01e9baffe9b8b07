"""Options and output that several commands share: sizes, JSON, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubclient.ground.words import counted as counted
from hubclient.ground.words import human as human

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from hubclient.checkpoint import Checkpoint
    from hubclient.formats.gguf.imatrix import ImportanceMatrix

    _ParamType = click.ParamType[int]
else:
    _ParamType = click.ParamType  # generic only since click 8.5

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else there.")


class Size(_ParamType):
    """A number of bytes, of at least `least`: 512M and 1GiB are powers of two, 5GB is decimal."""

    name = "size"

    def __init__(self, least: str = "") -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().replace("IB", "")
        digits = text.rstrip("KMGTB")
        unit = text[len(digits) :]
        scale = _DECIMAL.get(unit, _UNITS.get(unit))
        try:
            size = int(float(digits) * scale) if scale is not None else 0
        except (ValueError, OverflowError):
            size = 0
        if size <= 0:
            self.fail(f"{value!r} is no size such as 512M, 24GiB or 5GB", param, ctx)
        if self._least and size < SIZE.convert(self._least, None, None):
            self.fail(f"{value!r} is too little to work with; {self._least} is the least", param, ctx)
        return size


SIZE = Size()
MEMORY = Size("48M")  # of which 32M are not for tiles; see execute


def importance_in(path: str | None) -> ImportanceMatrix | None:
    """The importance matrix in a file that was named, if one was."""
    from hubclient.formats.gguf.imatrix import read_imatrix

    return None if path is None else read_imatrix(Path(path))


def print_json(value: Any) -> None:
    """One JSON object on stdout, whatever its encoding: strict JSON, in which NaN and infinities are strings."""
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if "NaN" in text or "Infinity" in text:
        value = json.loads(text, parse_constant=str)
        text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    sys.stdout.write(text + "\n")


def printable(text: str) -> str:
    """Text from a file or of an error, for a terminal: one line without control characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def console() -> Console:
    """Where tables go: nothing in them is markup; not a terminal means another program, which gets whole lines."""
    from rich.console import Console

    made = Console(markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = 200
    return made


class Bar:
    """A progress bar: called with bytes done and bytes in all; `stage` names what is done before."""

    def __init__(self, bar: Progress, title: str) -> None:
        self._bar, self._title = bar, title
        self._task = bar.add_task(title, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        self._bar.update(self._task, description=self._title, completed=done, total=total)

    def stage(self, text: str) -> None:
        """Say what takes time now."""
        self._bar.update(self._task, description=text)


@contextmanager
def progress_bar(title: str) -> Iterator[Bar | None]:
    """A progress bar with rate and remaining time on stderr; None (and nothing shown) unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar, title)


def with_weights(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the Hub with its weights in the cache; says what is to be downloaded for it, and where that stays."""
    if not checkpoint.headers_only:
        return checkpoint
    for origin in filter(lambda origin: origin.headers_only, checkpoint.origins):
        size = human(sum(origin.missing.values()))
        told = f"{origin.told}: downloading {counted(len(origin.missing), 'file')} ({size}) into {origin.cache}"
        click.echo(printable(told), err=True)
    with progress_bar("downloading") as progress:
        return checkpoint.with_weights(progress)
