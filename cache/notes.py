"""What the cache's layout cannot say, kept as small files in `.hubclient` of the repository's folder.

    pins/<commit or "all">         a pin: who, when, why; it keeps a revision, or the repository, from being collected
    used/<commit>                  empty; its time is that of the last use by hubclient
    digests/<blob>                 the sha256 of a blob whose name is no digest
    outputs/<hash>.json            a conversion's output that was made from a snapshot
    active/<hash>                  a process that writes a revision now
    trash/                         what is being deleted

Other tools pass over the folder, and it goes with the repository. It is the truth; the catalog holds copies. Where the
cache cannot be written, uses are not noted; everything else says so. What is read may be damaged: it counts as absent,
except that a pin that cannot be read is a pin.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hubclient.cache.digests import Digest
from hubclient.cache.inside import check_inside, is_inside, names_inside, read_inside
from hubclient.cache.layout import RepoPaths, is_commit
from hubclient.cache.owner import Owner
from hubclient.cache.writing.placing import in_spite_of_removals, make_folder
from hubclient.errors import DamagedInput, EnvironmentFault
from hubclient.ground.atomic import replace_file
from hubclient.ground.strictjson import parse_object

ALL = "all"
FORGOTTEN = 86_400.0  # seconds after which a writer that cannot be asked counts as gone
REFRESH = 300.0  # seconds between two signs of life of a writer
_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Pin:
    """`by` whom, `when` (ISO 8601) and `why` a revision or repository is kept."""

    by: str
    when: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A conversion's output: an absolute `path`, its format and type, and the `commit` it was made from."""

    path: str
    format: str
    type: str
    commit: str
    when: str


def now() -> str:
    """The time as ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_pins(paths: RepoPaths) -> dict[str, Pin]:
    """Pins by commit; that of the whole repository is called "all"."""
    found = {}
    for name in _names(paths.notes / "pins"):
        if is_commit(name) or name == ALL:
            found[name] = _pin(_read(paths.notes / "pins" / name))
    return found


def write_pin(paths: RepoPaths, commit: str | None, why: str = "") -> Pin:
    """Pin a revision, or with None the repository. EnvironmentFault if the cache cannot be written."""
    pin = Pin(_user(), now(), why)
    _write(paths.notes / "pins" / (commit or ALL), asdict(pin))
    return pin


def remove_pin(paths: RepoPaths, commit: str | None) -> bool:
    """Take a pin away; False if there was none. EnvironmentFault if the cache cannot be written."""
    path = paths.notes / "pins" / (commit or ALL)
    check_inside(path, paths.cache)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EnvironmentFault(f"{path}: the pin cannot be removed ({error.strerror})", path) from error
    return True


def mark_used(paths: RepoPaths, commit: str) -> bool:
    """Note that a revision is used now; False where the cache cannot be written."""
    path = paths.notes / "used" / commit
    try:
        make_folder(path.parent, paths.cache)
        try:
            _touch(path)
        except FileNotFoundError:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # which follows no link
    except (OSError, DamagedInput):
        return False
    return True


def last_used(paths: RepoPaths) -> dict[str, float]:
    """When revisions were last used by hubclient, seconds since 1970."""
    found = {}
    for name in filter(is_commit, _names(paths.notes / "used")):
        with suppress(OSError):
            found[name] = os.lstat(paths.notes / "used" / name).st_mtime
    return found


def record_digest(paths: RepoPaths, blob: str, digest: Digest) -> bool:
    """Keep the digest of a blob whose name is none; False where the cache cannot be written."""
    try:
        _put(paths.notes / "digests" / _file_name(blob), f"{digest.algorithm} {digest.hex}\n".encode())
    except (OSError, DamagedInput):
        return False
    return True


def recorded_digest(paths: RepoPaths, blob: str) -> Digest | None:
    """The digest that was kept of a blob, if any."""
    algorithm, _, digits = (
        (_read(paths.notes / "digests" / _file_name(blob)) or b"").decode("ascii", "replace").strip().partition(" ")
    )
    digest = Digest.of_name(digits)
    return digest if digest is not None and digest.algorithm == algorithm else None


def forget_digest(paths: RepoPaths, blob: str) -> None:
    """Drop what was kept of a blob that goes."""
    _unlink(paths, paths.notes / "digests" / _file_name(blob))


def record_output(paths: RepoPaths, output: Output) -> bool:
    """Note what was made from a revision; a later output at the same place takes its note over. False where nothing can be written."""
    name = hashlib.sha256(output.path.encode(errors="surrogateescape")).hexdigest()[:32]
    try:
        _put(paths.notes / "outputs" / f"{name}.json", _json(asdict(output)))
    except (OSError, DamagedInput):
        return False
    return True


def read_outputs(paths: RepoPaths) -> tuple[Output, ...]:
    """What was made from the repository's revisions, by path."""
    found = []
    for name in _names(paths.notes / "outputs"):
        values = _object(_read(paths.notes / "outputs" / name))
        fields = [values.get(key) for key in ("path", "format", "type", "commit", "when")]
        if all(isinstance(value, str) for value in fields):
            found.append(Output(*fields))  # type: ignore[arg-type]
    return tuple(sorted(found, key=lambda output: output.path))


def forget_revision(paths: RepoPaths, commit: str) -> None:
    """Drop what was noted of a revision that goes: its use, and what was made from it."""
    outputs = paths.notes / "outputs"
    made = [outputs / name for name in _names(outputs) if _object(_read(outputs / name)).get("commit") == commit]
    for path in (paths.notes / "used" / commit, *made):
        _unlink(paths, path)


@contextmanager
def active(paths: RepoPaths, commit: str) -> Iterator[Path]:
    """While the block runs, however long, the revision counts as being written, see `gate.py`; gives the note's path. EnvironmentFault."""
    path = paths.notes / "active" / secrets.token_hex(8)
    _write(path, {"commit": commit, **asdict(Owner.this())})
    over = Event()
    Thread(target=_keep_fresh, args=(path, over), name="note", daemon=True).start()
    try:
        yield path
    finally:
        over.set()
        with suppress(OSError):
            path.unlink()


def _keep_fresh(note: Path, over: Event) -> None:
    """Other machines and containers can tell only by its time that the writer lives."""
    while not over.wait(REFRESH):
        with suppress(OSError):
            _touch(note)


def live(paths: RepoPaths) -> frozenset[str]:
    """Commits that some process writes now."""
    return frozenset(commit for _, commit, alive in _writers(paths) if alive)


def dead(paths: RepoPaths) -> tuple[Path, ...]:
    """Notes of writers that are gone."""
    return tuple(path for path, _, alive in _writers(paths) if not alive)


def _writers(paths: RepoPaths) -> Iterator[tuple[Path, str, bool]]:
    folder = paths.notes / "active"
    for name in _names(folder):
        values = _object(_read(folder / name))
        if not values or name.endswith(".tmp"):
            continue
        alive = Owner.of(values).alive
        with suppress(OSError):
            recent = time.time() - os.lstat(folder / name).st_mtime < FORGOTTEN
            yield folder / name, str(values.get("commit")), recent if alive is None else alive


def _pin(data: bytes | None) -> Pin:
    values = _object(data)
    texts = [values.get(key, "") for key in ("by", "when", "why")]
    if not values or not all(isinstance(text, str) for text in texts):
        return Pin("", "", "the pin's file cannot be read")
    return Pin(*texts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no name for this user id, or none of the kind
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _file_name(blob: str) -> str:
    """A blob's name, or a path in a snapshot, as one part of a path."""
    return blob if Digest.of_name(blob) else hashlib.sha256(blob.encode(errors="surrogateescape")).hexdigest()


def _names(folder: Path) -> list[str]:
    return names_inside(folder, _cache_of(folder / "any"))


def _read(path: Path) -> bytes | None:
    """A note's bytes; a pipe or a link in its place is none."""
    try:
        return read_inside(path, _cache_of(path), _LIMIT)
    except OSError:
        return None


def _touch(path: Path) -> None:
    """Let a note's time be now; a link in its place is not followed, where the system can do without. OSError."""
    os.utime(path, follow_symlinks=os.utime not in os.supports_follow_symlinks)


def _unlink(paths: RepoPaths, path: Path) -> None:
    with suppress(OSError):
        if is_inside(path, paths.cache):
            path.unlink()


def _object(data: bytes | None) -> dict[str, Any]:
    try:
        return parse_object(data or b"", "note")
    except DamagedInput:
        return {}


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        _put(path, _json(values))
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written ({error.strerror})", path) from error


def _put(path: Path, data: bytes) -> None:
    def put() -> None:
        make_folder(path.parent, _cache_of(path))
        replace_file(path, data, durable=False)

    in_spite_of_removals(put)


def _cache_of(note: Path) -> Path:
    """<cache>/<repository>/.hubclient/<kind>/<note>"""
    return note.parents[3]
