"""What a push would send: the files of a folder, or a file and those that belong to it, looked at before anything is sent.

Left out, whoever asks: hidden files (`.git`, `.cache`, `.env`), what unfinished runs leave, and files that are called as
tokens and keys are. Refused, so that nobody publishes by accident: links that lead out of the folder, names that cannot be
stored everywhere, damaged checkpoints.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubclient.cache.layout import SHARED
from hubclient.errors import DamagedInput, EnvironmentFault, SourceMissing, UsageError
from hubclient.formats.gguf import projector_of
from hubclient.formats.gguf.split import sisters
from hubclient.ground.names import safe_relative, several, shown
from hubclient.hub.selection import choose
from hubclient.traces import snapshot_of

MAX_FILES = 25_000  # of one commit, says huggingface_hub's create_commit
_TOKEN = re.compile(rb"\bhf_[A-Za-z]{34}\b")
_SMALL = 1 << 20  # bytes
_UNFINISHED = (".partial", ".journal", ".incomplete", ".tmp")
_SECRET = (".env", ".pem", ".key", ".p12", ".netrc")
_SECRETS = frozenset(("token", "stored_tokens", "id_rsa", "id_ed25519", "credentials"))


@dataclass(frozen=True, slots=True)
class Item:
    """A file to be sent: its `name` in the repository, where its bytes are, and its state when it was looked at."""

    name: str
    path: Path
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """What belongs to `path`, by name; `left_out` says why files of the folder never go, `beside` names files one may have meant too."""

    path: Path
    items: tuple[Item, ...]
    left_out: Mapping[str, str]
    beside: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(item.size for item in self.items)


def gather(path: Path, include: str | Sequence[str] = (), exclude: str | Sequence[str] = ()) -> Parcel:
    """The files at `path`; for a folder those that fit a pattern of `include` (all, if there is none) and none of `exclude`.

    A file that is one part of a split GGUF stands for all parts. Raises SourceMissing, UsageError, DamagedInput or
    EnvironmentFault.
    """
    if not os.path.lexists(path):
        raise SourceMissing(f"{path}: there is no such file or folder", path)
    include, exclude = several(include), several(exclude)
    parcel = _folder(path, include, exclude) if path.is_dir() else _file(path, (*include, *exclude))
    if not parcel.items:
        raise UsageError(f"{path}: there is nothing to push" + (" but what is never pushed" if parcel.left_out else ""))
    if len(parcel.items) > MAX_FILES:
        raise UsageError(
            f"{path}: has {len(parcel.items):,} files, and a commit takes {MAX_FILES:,}", hint="push it in parts, with --include"
        )
    taken: set[str] = set()
    for item in parcel.items:
        safe_relative(item.name, source=path, taken=taken)
    return parcel


def read(item: Item) -> bytes:
    """A small file's bytes. EnvironmentFault."""
    try:
        return item.path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"{item.path}: cannot be read ({error.strerror})", item.path) from error


def refuse_tokens(parcel: Parcel) -> None:
    """UsageError if a small file holds what looks like a token of the Hub's."""
    for item in parcel.items:
        if item.size <= _SMALL and _TOKEN.search(read(item)):
            raise UsageError(
                f"{item.path}: holds what looks like a token", hint="take it out, or leave the file out with --exclude"
            )


def never_sent(name: str) -> str | None:
    """Why a file of this name never goes, None if it may."""
    parts = name.lower().split("/")
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if any(part.endswith(_UNFINISHED) or ".partial." in part for part in parts):
        return "unfinished"
    if parts[-1] in _SECRETS or parts[-1].endswith(_SECRET):
        return "may be a secret"
    return None


def _file(path: Path, patterns: Sequence[str]) -> Parcel:
    if patterns:
        raise UsageError(f"{path}: is a file, and patterns choose among the files of a folder")
    if why := never_sent(path.name):
        raise UsageError(f"{path}: is never pushed ({why})")
    names = sisters(path.name)
    if missing := [name for name in names if not path.with_name(name).exists()]:
        raise DamagedInput(
            f"{len(missing)} of {len(names)} parts of this split are missing, the first is {missing[0]!r}", file=path
        )
    beside = projector_of(path.name, lambda name: path.with_name(name).is_file())
    items = tuple(_item(name, path.with_name(name)) for name in names)
    return Parcel(path, items, {}, (path.with_name(beside),) if beside else ())


def _folder(folder: Path, include: Sequence[str], exclude: Sequence[str]) -> Parcel:
    found = dict(sorted(_listed(folder)))
    left_out = {name: why for name in found if (why := never_sent(name))}
    choice = choose([name for name in found if name not in left_out], include, exclude)
    if idle := [pattern for pattern in choice.unmatched if pattern in include]:
        raise UsageError(f"{folder}: no file fits {shown(idle[0])}")
    allowed = _roots(folder)
    return Parcel(folder, tuple(_inside(name, found[name], allowed) for name in choice.names), left_out)


def _listed(folder: Path, before: str = "") -> Iterator[tuple[str, Path]]:
    """Every file and link below a folder; folders that are links are not entered, hidden ones are named as they are."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: cannot be read ({error.strerror})", folder) from error
    for entry in found:
        name = before + entry.name
        if entry.is_dir(follow_symlinks=False) and not never_sent(name):
            yield from _listed(Path(entry.path), f"{name}/")
        else:
            yield name, Path(entry.path)


def _roots(folder: Path) -> tuple[str, ...]:
    """Where links may lead: into the folder, and from a snapshot of the cache to that repository's bytes."""
    snapshot = snapshot_of(folder)
    bytes_of = (snapshot[0].blobs, snapshot[0].cache / SHARED) if snapshot else ()
    return tuple(os.path.realpath(root) for root in (folder, *bytes_of))


def _inside(name: str, path: Path, roots: Sequence[str]) -> Item:
    real = os.path.realpath(path)
    if not any(real.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
        raise UsageError(f"{path}: is a link that leads out of the folder", hint="copy it in, or leave it out with --exclude")
    return _item(name, path)


def _item(name: str, path: Path) -> Item:
    try:
        state = path.stat()
    except FileNotFoundError as error:
        raise DamagedInput("is a link that leads nowhere", file=path) from error
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
    if stat.S_ISDIR(state.st_mode):
        raise UsageError(f"{path}: is a link to a folder", hint="copy it in, or leave it out with --exclude")
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"{path}: is neither a file nor a folder")
    return Item(name, path, state.st_size, state.st_mtime_ns)
