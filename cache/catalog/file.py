"""The catalog's SQLite file: where it is, what is in it, and what is done when it cannot be used.

It only saves time, so nobody is troubled with it: a file that is damaged or of another version is made anew, and where none
can be kept (no right to write, a full disk, a file system that knows no locks) the catalog lives in memory for one command.

There is one file for each cache, user and version of what is in it. A write-ahead log lets many processes read while one writes;
on the file systems of networks, where it must not be used (sqlite.org/wal.html), a rollback journal does.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hubclient.cache.layout import hf_home
from hubclient.ground.faultpoints import reach

APPLICATION = 0x68756263  # "hubc"
VERSION = 1
PATIENCE = 2.0  # seconds to wait for another process's transaction, which takes milliseconds
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "fuse", "ncp", "ocfs", "glusterfs", "virtiofs")

_DAMAGE = frozenset(
    [
        sqlite3.SQLITE_ERROR,  # no such table
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    ]
)

_TABLES = """
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY, folder TEXT NOT NULL UNIQUE, type TEXT NOT NULL, name TEXT NOT NULL,
    size INTEGER NOT NULL, files INTEGER NOT NULL, revisions INTEGER NOT NULL, refs TEXT NOT NULL,
    modified REAL NOT NULL, used REAL NOT NULL, pinned INTEGER NOT NULL, faults INTEGER NOT NULL, incomplete INTEGER NOT NULL,
    recent TEXT NOT NULL, parts TEXT NOT NULL, warnings TEXT NOT NULL, held TEXT NOT NULL);
CREATE TABLE stamps (
    repository INTEGER PRIMARY KEY REFERENCES repositories ON DELETE CASCADE, paths BLOB NOT NULL, states TEXT NOT NULL);
CREATE TABLE revisions (
    id INTEGER PRIMARY KEY, repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, hash TEXT NOT NULL,
    modified REAL NOT NULL, used REAL NOT NULL, expected INTEGER, UNIQUE (repository, hash));
CREATE TABLE refs (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, name TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (repository, name)) WITHOUT ROWID;
CREATE TABLE files (
    revision INTEGER NOT NULL REFERENCES revisions ON DELETE CASCADE, name TEXT NOT NULL, blob TEXT, size INTEGER NOT NULL,
    fault TEXT, PRIMARY KEY (revision, name)) WITHOUT ROWID;
CREATE TABLE blobs (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, name TEXT NOT NULL, size INTEGER NOT NULL,
    allocated INTEGER NOT NULL, modified_ns INTEGER NOT NULL, used REAL NOT NULL, device INTEGER NOT NULL,
    inode INTEGER NOT NULL, shared TEXT, PRIMARY KEY (repository, name)) WITHOUT ROWID;
CREATE TABLE leftovers (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, path TEXT NOT NULL, kind TEXT NOT NULL,
    size INTEGER NOT NULL, modified REAL NOT NULL, PRIMARY KEY (repository, path)) WITHOUT ROWID;
CREATE TABLE pins (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, hash TEXT NOT NULL, by TEXT NOT NULL,
    at TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (repository, hash)) WITHOUT ROWID;
CREATE TABLE outputs (
    repository INTEGER NOT NULL REFERENCES repositories ON DELETE CASCADE, path TEXT NOT NULL, format TEXT NOT NULL,
    type TEXT NOT NULL, hash TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (repository, path)) WITHOUT ROWID;
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, selection TEXT NOT NULL, started REAL NOT NULL, finished REAL);
CREATE TABLE verified (
    folder TEXT NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    digest TEXT NOT NULL, ok INTEGER NOT NULL, run INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (folder, blob)) WITHOUT ROWID;
"""


class _NotOurs(sqlite3.DatabaseError):
    """Another program's database, or that of another version."""


def catalog_path(cache: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the catalog of a cache lies: in HUBCLIENT_CATALOG, else beside the cache's settings."""
    folder = environ.get("HUBCLIENT_CATALOG") or hf_home(environ) / "hubclient"
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    named = os.fsencode(os.path.realpath(cache)) + f"\0{user}\0{VERSION}".encode()
    return Path(folder, f"catalog-{hashlib.sha256(named).hexdigest()[:16]}.sqlite3")


def connect(path: Path) -> sqlite3.Connection:
    """The catalog, ready for use, whatever that takes."""
    with suppress(sqlite3.Error, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _opened(path)
        except sqlite3.Error as error:
            if is_damage(error):
                return rebuilt(path)
    return in_memory()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether a new file would do better; else it is the place that is of no use: locked, full, not to be written."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _NotOurs) if code is None else code & 0xFF in _DAMAGE  # the lower byte is the primary code


def in_memory() -> sqlite3.Connection:
    """An empty catalog for this process."""
    return _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))


def rebuilt(path: Path) -> sqlite3.Connection:
    """An empty catalog in place of what is there. Raises sqlite3.Error, OSError."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _prepared(sqlite3.connect(fresh, isolation_level=None)).close()
        for ending in ("-wal", "-shm", "-journal"):  # they would be played into the new file
            path.with_name(path.name + ending).unlink(missing_ok=True)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    reach("catalog.rebuilt")
    return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        wanted = "delete" if _on_network(path) else "wal"
        if connection.execute(f"PRAGMA journal_mode={wanted}").fetchone()[0] != wanted:
            raise sqlite3.OperationalError(f"no journal of the kind {wanted} can be kept")  # noqa: TRY301 - closed below
        connection.execute("PRAGMA synchronous=NORMAL")
        return _prepared(connection)
    except BaseException:
        connection.close()
        raise


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A catalog with its tables. DatabaseError if the file holds something else."""
    connection.execute("PRAGMA foreign_keys=ON")
    if not _is_ours(connection):
        connection.execute("BEGIN IMMEDIATE")
        if not _is_ours(connection):  # nor has another process made it so meanwhile
            _lay_out(connection)
        connection.execute("COMMIT")
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if marks == [APPLICATION, VERSION]:
        return True
    if marks != [0, 0] or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _NotOurs("is not a catalog of this version")
    return False


def _lay_out(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")


def _on_network(path: Path) -> bool:
    """Whether the file system is one of several machines, as far as Linux tells."""
    with suppress(OSError, UnicodeDecodeError, ValueError, IndexError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        real = os.path.realpath(path)
        best = ("", "")
        for line in file:
            mounted, _, source = line.partition(" - ")
            place = mounted.split(" ")[4]
            if real.startswith(place.rstrip("/") + "/") and len(place) >= len(best[0]):
                best = place, source.split(" ")[0]
        return best[1].startswith(_NETWORK)
    return False
