"""Reading and hashing many files on all cores, each once, while other processes may replace or remove them."""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Lock

from hubclient.cache.digests import Digest, digest_file
from hubclient.cache.integrity.claims import Subject

Progress = Callable[[int, int], None]  # bytes read, bytes in all
_ATTEMPTS = 3  # at a file that changes while it is read
_BATCH = 32  # outcomes of small files that go back together: to wake the other thread takes as long as to read one
_LARGE = 1 << 20  # bytes
_PULSE = 0.1  # seconds between two reports of progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of reading a subject: its `state` and digests by algorithm (none where the size told enough), or a `fault`.

    Without either it is gone. `read` counts bytes; names of the same bytes share one reading.
    """

    subject: Subject
    state: os.stat_result | None = None
    digests: Mapping[str, Digest] | None = None
    fault: str = ""
    read: int = 0

    @property
    def gone(self) -> bool:
        """Whether nothing is there any more."""
        return self.state is None and not self.fault

    @property
    def size(self) -> int | None:
        """Bytes that are there; None if that is not known."""
        return self.state.st_size if self.state else None


def read_all(waiting: Iterable[Subject], jobs: int, progress: Progress | None = None) -> Iterator[Outcome]:
    """Outcomes as they come, from `jobs` threads with 1 MiB each. Who stops iterating stops the threads."""
    groups = _groups(waiting)
    total = sum(group[0].blob.size for group in groups)
    jobs = max(1, min(jobs, len(groups)))
    readers = _Readers(iter(groups), jobs)
    with ThreadPoolExecutor(jobs, "verify") as pool:
        try:
            for number in range(jobs):
                pool.submit(readers.run, number)
            for outcomes in readers.outcomes(jobs, (lambda: progress(readers.read, total)) if progress else None):
                yield from outcomes
        finally:
            readers.stop.set()


def algorithms(subject: Subject, size: int) -> set[str]:
    """The digests that tell whether bytes of this size are the right ones; none if the size tells already."""
    if not subject.claims:
        return {"sha256"} | {proof.algorithm for proof in subject.proofs}
    return {digest.algorithm for digest in subject.claims if subject.sizes.get(digest, size) == size}


def _groups(waiting: Iterable[Subject]) -> list[list[Subject]]:
    """Names of the same bytes together; the largest first, so that no thread begins on one when the others are through."""
    groups: dict[tuple[int, int], list[Subject]] = defaultdict(list)
    for subject in waiting:
        groups[subject.blob.device, subject.blob.inode].append(subject)
    return sorted(groups.values(), key=lambda group: -group[0].blob.size)


class _Stopped(Exception):
    """Nobody waits for the result any more."""


class _Readers:
    """What the threads share: the groups that wait, and the way back."""

    def __init__(self, groups: Iterator[list[Subject]], jobs: int) -> None:
        self.stop = Event()
        self._groups, self._lock = groups, Lock()
        self._back: SimpleQueue[list[Outcome] | BaseException | None] = SimpleQueue()
        self._counts = [0] * jobs  # of each thread its own: no lock for every MiB

    @property
    def read(self) -> int:
        """Bytes read so far."""
        return sum(self._counts)

    def run(self, number: int) -> None:
        """What each thread does."""

        def told(count: int) -> None:
            self._counts[number] += count
            if self.stop.is_set():
                raise _Stopped

        batch: list[Outcome] = []
        try:
            while (group := self._next()) is not None and not self.stop.is_set():
                batch += _examine(group, told)
                if len(batch) >= _BATCH or group[0].blob.size >= _LARGE:
                    self._back.put(batch)
                    batch = []
            self._back.put(batch)
        except _Stopped:
            pass
        except BaseException as error:
            self._back.put(error)
        finally:
            self._back.put(None)

    def outcomes(self, running: int, pulse: Callable[[], None] | None) -> Iterator[list[Outcome]]:
        """What comes back until the last thread is through; `pulse` is called now and then, and at the end."""
        due = 0.0
        while running:
            item = self._wait(_PULSE if pulse else None)
            if isinstance(item, BaseException):
                raise item
            running -= item is None
            if item:
                yield item
            if pulse is not None and (time.monotonic() >= due or not running):
                pulse()
                due = time.monotonic() + _PULSE

    def _wait(self, seconds: float | None) -> list[Outcome] | BaseException | None:
        try:
            return self._back.get(timeout=seconds)
        except Empty:
            return []

    def _next(self) -> list[Subject] | None:
        with self._lock:
            return next(self._groups, None)


def _examine(group: Sequence[Subject], told: Callable[[int], None]) -> list[Outcome]:
    """Read what a group of names shows; a name that shows other bytes by now is read for itself."""
    seen: dict[tuple[int, ...], Outcome] = {}
    outcomes = []
    for subject in group:
        try:
            outcomes.append(_read(subject, group, seen, told))
        except FileNotFoundError:
            outcomes.append(Outcome(subject))
        except OSError as error:
            outcomes.append(Outcome(subject, fault=error.strerror or str(error)))
    return outcomes


def _read(
    subject: Subject, group: Sequence[Subject], seen: dict[tuple[int, ...], Outcome], told: Callable[[int], None]
) -> Outcome:
    path = subject.path
    state = os.stat(path)
    for _ in range(_ATTEMPTS):
        if not stat.S_ISREG(state.st_mode):
            return Outcome(subject, fault="it is no file")
        wanted = {name for other in group for name in algorithms(other, state.st_size)}
        if not wanted:
            return Outcome(subject, state)
        stamp = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if stamp in seen:
            return Outcome(subject, state, seen[stamp].digests)
        digests = {name: digest_file(path, name, told) for name in sorted(wanted)}
        before, state = state, os.stat(path)
        if (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) == stamp:
            seen[stamp] = Outcome(subject, before, digests, read=state.st_size)
            return seen[stamp]
    return Outcome(subject, fault="it changes while it is read")
