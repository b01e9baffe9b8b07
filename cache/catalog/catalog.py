"""The catalog: what the last look at a cache found, kept in SQLite so that the next one need not look at everything.

Never the truth: `refresh` holds every folder against the time it had when it was read and looks again where it differs; and
whatever is wrong with the file itself, the catalog is made anew or lives in memory (`catalogfile.py`). It also keeps
what only it knows, and what may be lost: which bytes a verification found intact.

Another process may do the same at any time: each repository is replaced in one transaction, with the state that its folders
had before it was read, so that the worst that a race leaves is something to be looked at again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from hubclient.cache.catalog import file as catalogfile
from hubclient.cache.catalog.summary import RepoSummary
from hubclient.cache.layout import RepoId
from hubclient.cache.scanning import stamps
from hubclient.ground.faultpoints import reach

if TYPE_CHECKING:
    from hubclient.cache.model import CacheContents, CachedRepo

_BATCH = 64  # repositories in a transaction
_STALE = 86_400.0  # seconds after which an interrupted verification is not gone on with: bits may have rotted since
_Result = TypeVar("_Result")


class Mark(NamedTuple):
    """Bytes that were verified: `repo` is the repository's folder, `blob` a key of its blobs; size, time and inode as they were then."""

    repo: str
    blob: str
    size: int
    modified_ns: int
    inode: int
    digest: str
    ok: bool = True


class Row(NamedTuple):
    """A repository's sums, and what tells more than they do: places whose times are that of its last use, parts of downloads."""

    summary: RepoSummary
    recent: tuple[str, ...]
    parts: tuple[str, ...]


class Catalog:
    """The catalog of one cache; a context manager. No method raises for the state of the catalog or of the cache."""

    def __init__(self, cache: Path, path: Path) -> None:
        self._cache, self._path = cache, path
        self._file = catalogfile.connect(path)

    @classmethod
    def open(cls, cache: Path) -> Self:
        """The catalog of the cache at `cache`, as it was left; see `refresh`."""
        return cls(cache, catalogfile.catalog_path(cache))

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # what is in the cache

    def refresh(self) -> None:
        """Look at every repository whose folders are not as they were, and forget those that are gone; not while the cache cannot be read."""
        self._safely(self._refresh)

    def rebuild(self) -> None:
        """Forget everything and look anew."""

        def emptied() -> None:
            self._file.close()
            self._file = catalogfile.rebuilt(self._path)

        with suppress(OSError):
            self._safely(emptied)
        self.refresh()

    def summaries(self) -> list[Row]:
        """Every repository's sums by folder's name; nothing about single files is read."""
        return self._safely(self._summaries)

    def contents(self) -> CacheContents:
        """Everything, as `scan_cache` finds it: blobs are looked at once more, because bytes may change where they lie."""
        return self._safely(self._contents)

    # what a verification found

    def start_run(self, selection: str, *, again: bool = False) -> int:
        """The number of a verification of what `selection` says: the last one if that was interrupted within a day, unless `again`."""

        def start() -> int:
            with self._transaction():
                find = "SELECT max(id) FROM runs WHERE selection = ? AND finished IS NULL AND started > ?"
                (found,) = self._file.execute(find, (selection, time.time() - _STALE)).fetchone()
                if found is not None and not again:
                    return int(found)
                self._file.execute("DELETE FROM runs WHERE selection = ?", (selection,))
                insert = "INSERT INTO runs (selection, started) VALUES (?, ?)"
                return int(self._file.execute(insert, (selection, time.time())).lastrowid or 0)

        return self._safely(start)

    def finish_run(self, run: int) -> None:
        """Note that a verification is through."""
        self._write("UPDATE runs SET finished = ? WHERE id = ?", [(time.time(), run)])

    def record_verified(self, run: int, marks: Iterable[Mark]) -> None:
        """Note what a verification found out about bytes."""
        now = time.time()
        rows = [(*mark[:3], *map(_signed, mark[3:5]), mark.digest, mark.ok, run, now) for mark in marks]
        self._write("INSERT OR REPLACE INTO verified VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def verified(self, run: int | None = None) -> list[Mark]:
        """What a verification, or with None any, has found out about bytes that may have changed since."""

        def read() -> list[Mark]:
            columns = "folder, blob, size, modified_ns, inode, digest, ok"
            rows = self._file.execute(f"SELECT {columns} FROM verified WHERE ? IS NULL OR run = ?", (run, run))
            return [
                Mark(repo, blob, size, time_, inode % (1 << 64), digest, bool(ok))
                for repo, blob, size, time_, inode, digest, ok in rows
            ]

        return self._safely(read)

    # how

    def _refresh(self) -> None:
        known = {folder: rest for folder, *rest in self._file.execute(_STATES)}
        present = self._present()
        if present is None:
            return
        root = os.fsencode(self._cache)
        stale = [name for name in present if name not in known or not stamps.hold(root, *known[name])]
        gone = known.keys() - set(present)
        for start in range(0, len(stale), _BATCH):
            self._replace(stale[start : start + _BATCH])
        if gone:
            self._replace((), gone)

    def _present(self) -> list[str] | None:
        """The folders of repositories, known or not; None if that cannot be told now."""
        try:
            with os.scandir(self._cache) as found:
                names = sorted(entry.name for entry in found if "--" in entry.name and entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError:
            return None
        return [name for name in names if (repo := RepoId.of_folder(name)) is not None and repo.folder == name]

    def _replace(self, folders: Sequence[str], gone: Iterable[str] = ()) -> None:
        """Look at repositories and note what is found."""
        from hubclient.cache.catalog import rows as catalogrows
        from hubclient.cache.scanning.look import look

        looks = []
        for folder in folders:
            began, repo = stamps.began(), RepoId.of_folder(folder)
            assert repo is not None
            looks.append((look(self._cache, repo), began))
        with self._transaction():
            catalogrows.forget(self._file, gone)
            for found, began in looks:
                catalogrows.store(self._file, found, began)

    def _summaries(self) -> list[Row]:
        return [
            Row(
                RepoSummary(
                    RepoId(name, kind), size, files, revisions, tuple(refs.split("\n")) if refs else (), modified, used,
                    bool(pinned), faults, incomplete, len(parts.split("\0")) if parts else 0,
                ),
                tuple(recent.split("\0")) if recent else (),
                tuple(parts.split("\0")) if parts else (),
            )
            for kind, name, size, files, revisions, refs, modified, used, pinned, faults, incomplete, recent, parts
            in self._file.execute(_SUMS)
        ]  # fmt: skip

    def _contents(self) -> CacheContents:
        from hubclient.cache.catalog import rows as catalogrows
        from hubclient.cache.scanning.scan import contents, look_around

        loaded = list(catalogrows.load(self._file, self._cache))
        changed = [repo.folder for repo in loaded if isinstance(repo, RepoId)]
        if changed and self._present() is not None:
            self._replace(changed)
        return contents(self._cache, look_around(self._cache), [self._settled(repo) for repo in loaded])

    def _settled(self, repo: CachedRepo | RepoId) -> CachedRepo:
        from hubclient.cache.scanning.scan import scan_repo

        return scan_repo(self._cache, repo) if isinstance(repo, RepoId) else repo

    def _write(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        def write() -> None:
            with self._transaction():
                self._file.executemany(statement, rows)

        self._safely(write)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._file)

    def _safely(self, work: Callable[[], _Result]) -> _Result:
        """Do it; if the file is damaged once more with a new one, else or after that in memory."""
        try:
            return work()
        except sqlite3.Error as error:
            damaged = catalogfile.is_damage(error)
        self.close()
        if damaged:
            with suppress(sqlite3.Error, OSError):
                self._file = catalogfile.rebuilt(self._path)
                self._refresh()
                return work()
        self.close()
        self._file = catalogfile.in_memory()
        self._refresh()
        return work()


class _Transaction:
    """One step for whoever reads: all of it, or, if the process dies, nothing."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")
        reach("catalog.begun")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            return
        reach("catalog.rows-written")
        self._file.execute("COMMIT")
        reach("catalog.committed")


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


_STATES = "SELECT folder, paths, states FROM repositories JOIN stamps ON stamps.repository = repositories.id"
_SUMS = """SELECT type, name, size, files, revisions, refs, modified, used, pinned, faults, incomplete, recent, parts
    FROM repositories ORDER BY folder"""
