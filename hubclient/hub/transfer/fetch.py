"""Fetching a file of the Hub into the cache: resumable, in several ranges at a time, never accepted without its digest.

What is already on this machine is not fetched again: the blob itself, the cache-wide store's copy, another repository's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hubclient.cache.layout import RepoPaths
from hubclient.cache.sharedstore import is_whole
from hubclient.cache.trees import TreeEntry
from hubclient.cache.writing.locks import courtesy_lock
from hubclient.cache.writing.placing import make_folder, place_blob, storing
from hubclient.errors import Offline
from hubclient.ground.faultpoints import reach
from hubclient.hub.net.connections import Connections
from hubclient.hub.net.patience import patiently
from hubclient.hub.net.session import Session
from hubclient.hub.transfer.large import WrongBytes, damaged, download
from hubclient.hub.transfer.nearby import take_from_here
from hubclient.hub.transfer.stream import Target, streaming

_SMALL = 2 << 20  # bytes; taken in one piece, in memory: shorter than a ledger's step

How = Literal["present", "linked", "copied", "fetched"]


class Progress(Protocol):
    """Told, by several threads, of bytes of a file that have become available; negative if they turned out to be of no use."""

    def __call__(self, count: int, /, *, fetched: bool) -> None:
        """`fetched`: they came over the network; else they were here."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A blob in its place: where, how it got there, and how many bytes came over the network for it."""

    path: Path
    how: How
    received: int = 0


def fetch(
    session: Session,
    paths: RepoPaths,
    commit: str,
    name: str,
    entry: TreeEntry,
    *,
    again: bool = False,
    connections: Connections | None = None,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
) -> Fetched:
    """Have the file `name` of a revision as a blob of the cache: complete, its digest checked, read-only. No pointer is made.

    A blob of the right size that is there already is taken as it is, unless `again` says that it is known to be bad. `entry` is the Hub's description of the file
    (`checked_entry`), which what comes is held against. `connections` is shared by the files of a pull; `waiting` is called
    every second while another process fetches the same bytes. Raises NetworkFault, Offline, AccessDenied, SourceMissing,
    NotEnoughSpace, EnvironmentFault, Stopped; DamagedInput if the bytes are wrong twice. Then nothing is placed.
    """
    connections = connections or Connections()
    progress = progress or _silent
    blob = paths.blob(entry.etag)
    if not again and is_whole(blob, entry.size, paths.cache):
        return _told(Fetched(blob, "present"), entry, progress)
    if entry.size <= _SMALL:
        _online(session, name)
        with connections.one():
            return _fetch_small(session, paths, Target.of(session, paths.repo, commit, name, entry), connections, progress)
    with courtesy_lock(paths.lock(entry.etag), waiting=waiting):
        if not again and is_whole(blob, entry.size, paths.cache):
            return _told(Fetched(blob, "present"), entry, progress)
        how = take_from_here(paths, entry)
        if how is not None:
            return _told(Fetched(blob, how), entry, progress)
        _online(session, name)
        with connections.one():
            received = download(session, paths, Target.of(session, paths.repo, commit, name, entry), connections, progress)
        return Fetched(blob, "fetched", received)


def _fetch_small(session: Session, paths: RepoPaths, target: Target, connections: Connections, progress: Progress) -> Fetched:
    entry, blob = target.entry, paths.blob(target.entry.etag)
    received = 0

    def attempt() -> bytes:
        nonlocal received
        data = _taken(session, target)
        received += len(data)
        hasher = entry.digest.hasher(entry.size)
        hasher.update(data)
        if hasher.hexdigest() != entry.digest.hex:
            raise WrongBytes(target, hasher.hexdigest())
        return data

    try:
        data = patiently(attempt, session.patience, connections.stopped)
    except WrongBytes as fault:
        raise damaged(target, fault.found) from fault
    connections.check()
    _place(data, blob, paths.cache)
    progress(entry.size, fetched=True)
    return Fetched(blob, "fetched", received)


def _place(data: bytes, blob: Path, cache: Path) -> None:
    """Write a blob at once; it has no ledger, so what does not come to its end leaves nothing."""
    part = blob.with_name(f"{blob.name}.{secrets.token_hex(4)}.incomplete")
    with storing(part):
        make_folder(part.parent, cache)
    try:
        with storing(part):
            part.write_bytes(data)
        reach("pull.hashed")
        place_blob(part, blob, cache)
        reach("pull.placed")
    finally:
        with suppress(OSError):
            part.unlink()


def _taken(session: Session, target: Target) -> bytes:
    """The whole file; of an empty one there is nothing to fetch."""
    if not target.entry.size:
        return b""
    with streaming(session, target, (0, target.entry.size)) as pieces:
        return b"".join(pieces)


def _online(session: Session, name: str) -> None:
    try:
        session.go_online(name)
    except Offline as fault:
        raise Offline(str(fault), (name,), hint=fault.hint) from None


def _told(fetched: Fetched, entry: TreeEntry, progress: Progress) -> Fetched:
    progress(entry.size, fetched=False)
    return fetched


def _silent(count: int, /, *, fetched: bool) -> None:
    """No progress is shown."""
