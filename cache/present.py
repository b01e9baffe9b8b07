"""What of a commit is in the cache already: looked up on the disk, by names and sizes, or with `check` by digests."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Event

from hubclient.cache.digests import digest_file
from hubclient.cache.layout import RepoPaths
from hubclient.cache.sharedstore import is_whole
from hubclient.cache.trees import TreeEntry
from hubclient.errors import DamagedInput, EnvironmentFault
from hubclient.ground.machine import cores


@dataclass(frozen=True, slots=True)
class Present:
    """Names of a commit's files by what is here of them.

    `shown`: the snapshot shows the bytes. `unshown`: the bytes are here, under their digest, and the snapshot lacks them.
    `missing`: the bytes are not here. `damaged`: they are, but are others than their digest says (only if it was checked).
    """

    shown: tuple[str, ...]
    unshown: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """What has to be fetched."""
        return (*self.missing, *self.damaged)


def present_of(
    paths: RepoPaths,
    commit: str,
    entries: Mapping[str, TreeEntry],
    *,
    check: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Present:
    """What of `entries`, whose names and digests have been checked (`checked_entry`), is here.

    With `check` every byte is hashed, on all cores, and `progress` told of each number of bytes. DamagedInput if a folder of
    the repository is a link, which may lead anywhere; EnvironmentFault.
    """
    snapshot = f"{paths.snapshot(commit)}{os.sep}"
    _refuse_links(paths, snapshot, entries)
    places = _places(paths, snapshot, entries)
    bad = _damaged(places, entries, progress) if check else frozenset()
    sound = {name: [place for place in found if place not in bad] for name, found in places.items()}
    shown = [name for name, found in sound.items() if found and _shows(snapshot + name, found[0])]
    named = frozenset(shown)
    unshown = [name for name, found in sound.items() if found and name not in named]
    damaged = [name for name, found in sound.items() if not found and places[name]]
    return Present(tuple(shown), tuple(unshown), tuple(name for name, found in places.items() if not found), tuple(damaged))


def _places(paths: RepoPaths, snapshot: str, entries: Mapping[str, TreeEntry]) -> dict[str, list[str]]:
    """Where bytes of the right size are: in the snapshot itself, where links are refused, and as a blob."""
    blobs = f"{paths.blobs}{os.sep}"
    whole = cache(is_whole)  # many names may have the same bytes
    found: dict[str, list[str]] = {}
    for name, entry in entries.items():
        state = _state(snapshot + name)
        own = state is not None and stat.S_ISREG(state.st_mode) and state.st_size == entry.size
        found[name] = [snapshot + name] if own else []
        if entry.etag and whole(blobs + entry.etag, entry.size, paths.cache):
            found[name].append(blobs + entry.etag)
    return found


def _shows(pointer: str, place: str) -> bool:
    shown = os.path.join(os.path.dirname(pointer), _target(pointer))
    return place == pointer or os.path.normpath(shown) == os.path.normpath(place)


def _damaged(
    places: Mapping[str, list[str]], entries: Mapping[str, TreeEntry], progress: Callable[[int], None] | None
) -> frozenset[str]:
    """Places whose bytes do not hash to what they should, or are gone by now; each is read once."""
    digests = {place: entries[name].digest for name, found in places.items() if entries[name].etag for place in found}
    over = Event()

    def told(count: int) -> None:
        if over.is_set():
            raise _Interrupted
        if progress is not None:
            progress(count)

    def wrong(place: str) -> bool:
        try:
            return digest_file(place, digests[place].algorithm, told) != digests[place]
        except FileNotFoundError:
            return True
        except OSError as error:
            raise EnvironmentFault(f"{place}: cannot be read ({error.strerror})", place) from error

    with ThreadPoolExecutor(cores()) as pool:
        try:
            return frozenset(place for place, bad in zip(digests, pool.map(wrong, digests), strict=True) if bad)
        finally:
            over.set()  # after an interrupt nobody waits for a large file to be read to its end


class _Interrupted(Exception):
    """Nobody wants to know any more."""


def _refuse_links(paths: RepoPaths, snapshot: str, names: Iterable[str]) -> None:
    """Folders inside the repository's must be folders."""
    below: set[str] = set()
    for name in names:
        while name := name.rpartition("/")[0]:
            if name in below:
                break
            below.add(name)
    for folder in (
        str(paths.path),
        str(paths.blobs),
        str(paths.snapshots),
        snapshot.rstrip(os.sep),
        *(snapshot + name for name in sorted(below)),
    ):
        state = _state(folder)
        if state is not None and not stat.S_ISDIR(state.st_mode):
            raise DamagedInput("is not the folder that the cache has there, but a link or a file", file=folder)


def _state(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error


def _target(path: str) -> str:
    """What a link says; nothing if it is none, or gone."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
