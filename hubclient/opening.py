"""Opening what a source names, and calling its files what their users do: `org/name:file` where only the headers are here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.errors import HubclientError, SourceMissing, UnsupportedFormat

if TYPE_CHECKING:
    from hubclient.formats.model import OpenedCheckpoint
    from hubclient.hub.source.locate import Located
    from hubclient.plugins import Host


def open_found(located: Located, host: Host) -> OpenedCheckpoint:
    """What is at a place that was found, by the first format that knows it; SourceMissing, UnsupportedFormat, what formats raise."""
    with speaking((located,)):
        opened = _small(located.path) if located.weightless else _open(located.path, host, located.only)
        return located.holding(opened)


def called(origins: Sequence[Located], path: Path) -> str:
    """A file as users know it: by its path, or one of which only headers are here as `org/name:file`."""
    return _said(origins, str(path))


@contextlib.contextmanager
def speaking(origins: Sequence[Located]) -> Iterator[None]:
    """Errors inside the block call files of the Hub what they are there, in all that they tell."""
    try:
        yield
    except HubclientError as error:
        error.message = _said(origins, error.message)
        error.args = tuple(_said(origins, item) if isinstance(item, str) else item for item in error.args)
        error.hint = error.hint and _said(origins, error.hint)
        for name in ("file", "path"):  # of DamagedInput, of EnvironmentFault
            place = getattr(error, name, None)
            if isinstance(place, Path):
                setattr(error, name, Path(called(origins, place)))
        raise


def _said(origins: Sequence[Located], text: str) -> str:
    return reduce(lambda told, origin: origin.said(told), origins, text)


def _small(path: Path) -> OpenedCheckpoint:
    from hubclient.formats.safetensors import open_folder_without_weights

    return open_folder_without_weights(path)


def _open(path: Path, host: Host, only: str | None) -> OpenedCheckpoint:
    if not path.exists():
        raise SourceMissing(f"{path}: there is no such file or folder", path)
    for format_ in host.formats():
        if format_.detect(path):
            with contextlib.nullcontext() if only is None else contextlib.suppress(UnsupportedFormat):
                opened = format_.open(path)
                return replace(opened, companion=None) if only == "text" else opened
    if only is not None and path.is_dir():
        return _small(path)
    known = ", ".join(format_.name for format_ in host.formats())
    raise UnsupportedFormat(f"{path}: is no checkpoint in a known format ({known})")
