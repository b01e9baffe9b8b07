"""Unfinished downloads in the cache: a file of the final size for each process, and a ledger of what of it is there.

    blobs/<etag>.<8 hex>.incomplete          the bytes
    blobs/<etag>.<8 hex>.ledger.incomplete   line 1: JSON, what it will be and who writes it (owner.py)
                                             line 2...: start stop crc32, a range whose bytes are written

Only its owner writes to a part. When the owner is dead another process takes it over by renaming it to a name of its own,
which only one can; of a part whose owner may live, the ranges that are there are copied. The digest of the whole decides in
the end; if it is wrong, the crc32 of a range tells whether an earlier run's bytes are to blame. huggingface_hub's parts have
no ledger and are left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hubclient.cache.inside import read_inside
from hubclient.cache.notes import FORGOTTEN
from hubclient.cache.owner import Owner
from hubclient.cache.writing.placing import make_folder, storing
from hubclient.disk import allocated, crc32_of, create, writing
from hubclient.errors import DamagedInput, NotEnoughSpace
from hubclient.ground.atomic import replace_file
from hubclient.ground.faultpoints import reach
from hubclient.ground.strictjson import parse_object
from hubclient.hub.transfer.ranges import Ranges

LEDGER = ".ledger.incomplete"
_DATA = ".incomplete"
_LIMIT = 64 << 20  # bytes of a ledger; a file of 10 TB
_MOST = 1 << 16  # ranges of a ledger; 512 GB in steps
_COPY = 64 << 20
_PROBE, _PROMPT = 64 << 20, 0.005  # bytes, and the seconds it takes to set them aside where that is a note in a table
_LINE = re.compile(rb"(\d{1,18}) (\d{1,18}) ([0-9a-f]{8})")

_in_use: set[Path] = set()  # the parts of this process that it writes to


class Span(NamedTuple):
    """Bytes [start, stop), and their crc32."""

    start: int
    stop: int
    crc: int


@dataclass(frozen=True, slots=True)
class Found:
    """A part of somebody's, as its ledger tells it."""

    ledger: Path
    owner: Owner
    spans: tuple[Span, ...]
    whole: bool = True  # its file has the full size and is nobody else's, too

    @property
    def data(self) -> Path:
        """Where its bytes are."""
        return _data_of(self.ledger)

    @property
    def total(self) -> int:
        """How many bytes are there."""
        return sum(span.stop - span.start for span in self.spans)

    @property
    def gone(self) -> bool:
        """Whether its owner certainly does not write any more: done with it, dead, of an earlier boot, or not heard of for a day."""
        if self.owner == Owner.this():
            return self.data not in _in_use
        alive = self.owner.alive
        if alive is not None:
            return not alive
        last = max(_modified(self.ledger), _modified(self.data))
        return last < time.time() - FORGOTTEN or (self.owner.host == Owner.this().host and last < _booted())


class Part:
    """A part of this process's own: `path` has the file's full size, `spans` say what of it is there from earlier runs and now."""

    def __init__(self, path: Path, etag: str, size: int, spans: Iterable[Span] = ()) -> None:
        self.path = path
        self.etag = etag
        self.size = size
        self.spans = list(spans)
        _in_use.add(path)

    @property
    def ledger(self) -> Path:
        """Its ledger's place."""
        return self.path.with_name(self.path.name.removesuffix(_DATA) + LEDGER)

    @property
    def ranges(self) -> Ranges:
        """What is there."""
        return Ranges((span.start, span.stop) for span in self.spans)

    def add(self, span: Span) -> None:
        """Note that these bytes are written; one system call, so a killed process leaves whole lines or none."""
        reach("pull.range-written")
        with writing(self.ledger):
            descriptor = os.open(self.ledger, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, _line(span))
            finally:
                os.close(descriptor)
        self.spans.append(span)
        reach("pull.ledger-written")

    def start_over(self, spans: Iterable[Span] = ()) -> None:
        """Forget all but these spans."""
        self.spans = list(spans)
        self._write_ledger()

    def intact(self, span: Span) -> bool:
        """Whether the bytes of a span are still those that were written."""
        return crc32_of(self.path, span.start, span.stop - span.start) == span.crc

    def remove(self) -> None:
        """Delete what is left of it: the ledger after the bytes got their final name, both if they are of no use."""
        _unlink(self.path, self.ledger)

    def close(self) -> None:
        """Leave what there is to the next download of these bytes, in this process or another one."""
        _in_use.discard(self.path)

    def _begin(self) -> None:
        """Make the ledger, then the file: bytes without a ledger would be of no use to anybody."""
        self._write_ledger()
        try:
            self._reserve()
        except BaseException:
            self.remove()
            raise

    def _reserve(self) -> None:
        """Make the file, its space set aside; where that takes writing it all (in memory, on network file systems) only its size."""
        begun = time.monotonic()
        create(self.path, b"", min(self.size, _PROBE))
        if self.size > _PROBE and time.monotonic() - begun < _PROMPT:
            create(self.path, b"", self.size)
        elif self.size > _PROBE:
            with writing(self.path):
                os.truncate(self.path, self.size)

    def _write_ledger(self) -> None:
        head = {"etag": self.etag, "size": self.size, **asdict(Owner.this())}
        with writing(self.ledger):
            replace_file(self.ledger, json.dumps(head).encode() + b"\n" + b"".join(map(_line, self.spans)), durable=False)

    def _take_over(self, found: Found) -> bool:
        """Become the owner of a dead process's part; False if another was faster. A crash in between loses nothing."""
        self.spans = list(found.spans)
        self._write_ledger()
        try:
            with storing(found.data):
                found.data.rename(self.path)
        except OSError:
            self.spans = []
            self.remove()
            return False
        reach("pull.part-adopted")
        _unlink(found.ledger)
        return True

    def _copy_from(self, found: Found) -> None:
        """Copy what is there and missing here; the other's owner may go on meanwhile. It may vanish, too."""
        if not found.spans or found.data.is_symlink():
            return
        try:
            with open(found.data, "rb") as source, open(self.path, "r+b", buffering=0) as target:
                if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                    return
                holes = self.ranges.holes(0, self.size)
                for span in found.spans:
                    at = bisect_right(holes, (span.start, self.size)) - 1
                    if at >= 0 and span.stop <= holes[at][1] and _copy(source.fileno(), target.fileno(), span):
                        self.add(span)
        except FileNotFoundError:
            return


def open_part(blobs: Path, cache: Path, etag: str, size: int) -> Part:
    """A part for this process, with all that is left here of earlier downloads of these bytes. EnvironmentFault, NotEnoughSpace, DamagedInput."""
    with storing(blobs):
        make_folder(blobs, cache)
    found = sorted(parts_of(blobs, etag, size), key=lambda other: (other.gone, other.total), reverse=True)
    part = Part(_own_name(blobs, etag), etag, size)
    try:
        _fill(part, found, blobs)
    except BaseException:
        part.close()
        raise
    return part


def _fill(part: Part, found: list[Found], blobs: Path) -> None:
    """Take over the best of what was found, else begin; take from the others what is missing."""
    adopted = next((other for other in found if other.gone and other.whole and part._take_over(other)), None)
    _check_room(blobs, part.size - (allocated(part.path) if adopted else 0))
    if adopted is None:
        part._begin()
    reach("pull.part-created")
    for other in found:
        if other is not adopted:
            with writing(part.path):
                part._copy_from(other)
            if other.gone:
                _unlink(other.data, other.ledger)


def parts_of(blobs: Path, etag: str, size: int) -> Iterator[Found]:
    """The parts with a ledger for these bytes, whoever owns them."""
    with os.scandir(blobs) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(f"{etag}.") and entry.name.endswith(LEDGER)]
    for name in names:
        found = _read(blobs / name, etag, size)
        if found is not None:
            yield found


def _check_room(blobs: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(blobs).free
    except OSError:  # the system does not say; what does not fit will be noticed
        return
    if needed > free:
        told = f"{blobs}: {needed:,} bytes are needed, {free:,} are free"
        raise NotEnoughSpace(told, blobs, hint="`hubclient cache gc` makes room")


def _own_name(blobs: Path, etag: str) -> Path:
    return blobs / f"{etag}.{secrets.token_hex(4)}{_DATA}"


def _data_of(ledger: Path) -> Path:
    return ledger.with_name(ledger.name.removesuffix(LEDGER) + _DATA)


def _read(ledger: Path, etag: str, size: int) -> Found | None:
    """A part, None if its ledger cannot be read or is of other bytes. A torn line, or one that cannot be, does not count."""
    try:
        head, *lines = (read_inside(ledger, ledger.parents[2], _LIMIT) or b"").split(b"\n")  # <cache>/<repository>/blobs/<ledger>
        told = parse_object(head, ledger)
    except (OSError, DamagedInput):
        return None
    if (told.get("etag"), told.get("size")) != (etag, size):
        return None
    length, links = _state(_data_of(ledger))
    return Found(ledger, Owner.of(told), tuple(_spans(lines[:-1], min(size, length))), (length, links) == (size, 1))


def _spans(lines: Iterable[bytes], size: int) -> Iterator[Span]:
    """In order, without those that overlap."""
    matches = filter(None, map(_LINE.fullmatch, islice(lines, _MOST)))
    last = 0
    for span in sorted(Span(int(match[1]), int(match[2]), int(match[3], 16)) for match in matches):
        if last <= span.start < span.stop <= size:
            last = span.stop
            yield span


def _line(span: Span) -> bytes:
    return b"%d %d %08x\n" % span


def _state(data: Path) -> tuple[int, int]:
    """A file's size and how many names it has; nothing if it is not there, or is a link, which would lead elsewhere."""
    try:
        state = os.lstat(data)
    except OSError:
        return 0, 0
    return (state.st_size, state.st_nlink) if stat.S_ISREG(state.st_mode) else (0, 0)


def _modified(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _booted() -> float:
    """When this machine started, seconds since 1970; 0 where it does not tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() - time.clock_gettime(clock) if clock is not None else 0.0


def _copy(source: int, target: int, span: Span) -> bool:
    """Copy a span at its place; by the file system alone where it can. False if the source ends before."""
    place = span.start
    while place < span.stop:
        done = _copy_some(source, target, place, min(span.stop - place, _COPY))
        if not done:
            return False
        place += done
    return True


def _copy_some(source: int, target: int, place: int, count: int) -> int:
    if hasattr(os, "copy_file_range"):
        with contextlib.suppress(OSError):
            return os.copy_file_range(source, target, count, place, place)
    os.lseek(source, place, os.SEEK_SET)
    os.lseek(target, place, os.SEEK_SET)
    return os.write(target, os.read(source, min(count, 1 << 20)))


def _unlink(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
