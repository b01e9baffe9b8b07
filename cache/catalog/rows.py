"""Between the values of a look at the disk and the catalog's rows."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hubclient.cache import notes
from hubclient.cache.catalog.summary import summarise
from hubclient.cache.layout import SHARED, RepoId, RepoPaths
from hubclient.cache.model import CachedBlob, CachedFile, CachedRepo, CachedRevision, Leftover
from hubclient.cache.notes import Output, Pin
from hubclient.cache.scanning.leftovers import leftover
from hubclient.cache.scanning.look import Look, blob_of, noted_uses
from hubclient.cache.scanning.stamps import written

RECENT = 4  # largest blobs of a revision that `ls` asks when they were last read
_MOST = (1 << 63) - 1
_Rows = dict[int, list[tuple[Any, ...]]]


def store(connection: sqlite3.Connection, look: Look, began: int) -> None:
    """Put a repository in the place of what is known of it; within a transaction."""
    repo, folder = look.repo, look.repo.repo.folder
    connection.execute("DELETE FROM repositories WHERE folder = ?", (folder,))
    key = connection.execute(_insert("repositories", 17), (None, folder, *_sums(repo))).lastrowid
    assert key is not None
    connection.execute(_insert("stamps", 3), (key, *written(look.stamps, began)))
    for revision in repo.revisions:
        row = (None, key, revision.commit, revision.modified, revision.used, revision.expected)
        number = connection.execute(_insert("revisions", 6), row).lastrowid
        connection.executemany(_insert("files", 5), ((number, *file) for file in revision.files))
    connection.executemany(_insert("refs", 3), ((key, name, commit) for name, commit in repo.refs.items()))
    connection.executemany(_insert("blobs", 9), ((key, *_plain(blob)) for blob in repo.blobs.values()))
    connection.executemany(_insert("leftovers", 5), ((key, *left) for left in repo.leftovers))
    connection.executemany(_insert("pins", 5), ((key, name, pin.by, pin.when, pin.why) for name, pin in _pins(repo)))
    outputs = ((key, out.path, out.format, out.type, out.commit, out.when) for out in repo.outputs)
    connection.executemany(_insert("outputs", 6), outputs)
    connection.execute(
        "DELETE FROM verified WHERE folder = ? AND blob NOT IN (SELECT name FROM blobs WHERE repository = ?)", (folder, key)
    )


def forget(connection: sqlite3.Connection, folders: Iterable[str]) -> None:
    """Drop repositories that are gone, and what was found out about their bytes; within a transaction."""
    for folder in folders:
        connection.execute("DELETE FROM repositories WHERE folder = ?", (folder,))
        connection.execute("DELETE FROM verified WHERE folder = ?", (folder,))


def load(connection: sqlite3.Connection, cache: Path) -> Iterator[CachedRepo | RepoId]:
    """All repositories by folder's name, with the present state of their blobs; only the name of one that must be looked at anew."""
    connection.execute("BEGIN")
    try:
        heads = connection.execute("SELECT id, type, name, warnings, held FROM repositories ORDER BY folder").fetchall()
        tables = {
            name: _grouped(connection, name) for name in ("revisions", "refs", "files", "blobs", "leftovers", "pins", "outputs")
        }
    finally:
        connection.execute("COMMIT")
    for key, kind, name, warnings, held in heads:
        yield _Loader(RepoPaths(cache, RepoId(name, kind)), tables, key).repo(_split(warnings), frozenset(_split(held)))


class _Loader:
    """One repository from its rows."""

    def __init__(self, paths: RepoPaths, tables: dict[str, _Rows], key: int) -> None:
        self._paths, self._tables, self._key = paths, tables, key
        self._root = os.fspath(paths.cache)

    def repo(self, warnings: tuple[str, ...], held: frozenset[str]) -> CachedRepo | RepoId:
        blobs = self._blobs()
        leftovers = tuple(self._leftovers())
        if blobs is None or len(leftovers) != len(self._rows("leftovers")):
            return self._paths.repo
        refs = {name: commit for _, name, commit in self._rows("refs")}
        pins = {commit: Pin(by, at, why) for _, commit, by, at, why in self._rows("pins")}
        used = noted_uses(self._paths)
        revisions = []
        for number, _, commit, modified, _, expected in sorted(self._rows("revisions"), key=lambda row: row[2]):
            files = tuple(CachedFile(*row[1:]) for row in self._tables["files"].get(number, ()))
            named = tuple(sorted(name for name, target in refs.items() if target == commit))
            shown = [blobs[file.blob or f"snapshots/{commit}/{file.name}"].used for file in files if not file.fault]
            last = max([modified, used.get(commit, 0.0), *shown])
            revisions.append(CachedRevision(commit, files, named, modified, last, pins.get(commit), expected))
        outputs = tuple(Output(*row[1:]) for row in self._rows("outputs"))
        pin = pins.get(notes.ALL)
        return CachedRepo(self._paths, tuple(revisions), refs, blobs, pin, outputs, leftovers, warnings, held)

    def _rows(self, table: str) -> Sequence[tuple[Any, ...]]:
        return self._tables[table].get(self._key, ())

    def _blobs(self) -> dict[str, CachedBlob] | None:
        """Blobs with the time of their last use as it is now; None if one is no longer what it was."""
        blobs = {}
        for row in self._rows("blobs"):
            name, shared = row[1], row[8]
            try:
                state = os.lstat(f"{self._root}/{_place(self._paths.repo.folder, name, shared)}")
            except OSError:
                return None
            blob = blob_of(name, state, shared)
            now = _plain(blob)
            if (*now[:4], *now[5:]) != (*row[1:5], *row[6:]) or not stat.S_ISREG(state.st_mode):
                return None
            blobs[name] = blob
        return blobs

    def _leftovers(self) -> Iterator[Leftover]:
        for _, path, kind, _, _ in self._rows("leftovers"):
            yield from leftover(f"{self._root}/{path}", path, kind)


def _grouped(connection: sqlite3.Connection, table: str) -> _Rows:
    """The rows of a table by what they belong to."""
    rows: _Rows = defaultdict(list)
    by = 1 if table == "revisions" else 0
    for row in connection.execute(f"SELECT * FROM {table}"):
        rows[row[by]].append(row)
    return rows


def _sums(repo: CachedRepo) -> tuple[Any, ...]:
    sums = summarise(repo)
    parts = (left.path for left in repo.leftovers if left.kind == "incomplete")
    bounded = [min(number, _MOST) for number in (sums.size, sums.incomplete)]
    return (
        repo.repo.type, repo.repo.name, bounded[0], sums.files, sums.revisions, "\n".join(sums.refs), sums.modified, sums.used,
        sums.pinned, sums.faults, bounded[1], "\0".join(_recent(repo)), "\0".join(parts), "\0".join(repo.warnings),
        "\0".join(sorted(repo.held)),
    )  # fmt: skip


def _recent(repo: CachedRepo) -> list[str]:
    """Places in the cache whose times tell when the repository was last used: notes of ours, the largest blobs of each revision."""
    folder = repo.repo.folder
    found: dict[str, None] = {}
    for revision in repo.revisions:
        blobs = {blob.name: blob for file in revision.files if (blob := repo.bytes_of(revision.commit, file))}
        for blob in sorted(blobs.values(), key=lambda blob: (-blob.size, blob.name))[:RECENT]:
            found[_place(folder, blob.name, blob.shared)] = None
        found[f"{folder}/.hubclient/used/{revision.commit}"] = None
    return list(found)


def _place(folder: str, name: str, shared: str | None) -> str:
    """Where in the cache the bytes of a blob are."""
    if shared is not None:
        return f"{SHARED}/{shared[:2]}/{shared}"
    return f"{folder}/{name}" if "/" in name else f"{folder}/blobs/{name}"


def _pins(repo: CachedRepo) -> list[tuple[str, Pin]]:
    found = [(revision.commit, revision.pin) for revision in repo.revisions if revision.pin is not None]
    return [*found, (notes.ALL, repo.pin)] if repo.pin is not None else found


def _plain(blob: CachedBlob) -> tuple[Any, ...]:
    """A blob's row: numbers that have a bit more than SQLite's are kept modulo 2^64."""
    name, size, allocated, modified, used, device, inode, shared = blob
    return name, size, allocated, _signed(modified), used, _signed(device), _signed(inode), shared


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split("\0")) if text else ()


def _insert(table: str, columns: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"
