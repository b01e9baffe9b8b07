"""Fetching a large file: over several connections where that is worth it, resumed where it stopped, hashed on the way."""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Self

from hubclient.cache.layout import RepoPaths
from hubclient.cache.writing.placing import place_blob
from hubclient.disk import writing
from hubclient.errors import DamagedInput, NetworkFault
from hubclient.ground.faultpoints import reach
from hubclient.hub.net.connections import Connections
from hubclient.hub.net.failures import Contradiction, Passing
from hubclient.hub.net.session import Session
from hubclient.hub.transfer.follower import Follower
from hubclient.hub.transfer.parts import Part, Span, open_part
from hubclient.hub.transfer.ranges import segments
from hubclient.hub.transfer.stream import RangesIgnored, Target, streaming

if TYPE_CHECKING:
    from hubclient.hub.transfer.fetch import Progress

STEP = 8 << 20  # bytes between two lines of the ledger: what a killed run loses at most, for each connection
_PARALLEL = 64 << 20  # bytes missing, from which on several connections are worth it
_HASTE = 0.5  # seconds that others have to end after an interrupt; a silent server would take longer
_TRIAL, _FAST = 0.25, 300e6  # after so many seconds, one connection that brings less than so many bytes a second gets help
_WORTH = 64 << 10  # bytes that a try must bring if it is to count: a server that drips comes to an end
_SEGMENT = (32 << 20, 256 << 20)  # bytes of a request, least and most


class WrongBytes(Contradiction):
    """All bytes came, and have another digest; `found` are its digits."""

    def __init__(self, target: Target, found: str) -> None:
        super().__init__(f"{target.about}: the digest is wrong")
        self.found = found


def damaged(target: Target, found: str) -> DamagedInput:
    """The refusal of a file whose bytes are wrong."""
    expected = target.entry.digest
    told = (
        f"{target.about}: what comes has the {expected.algorithm} {found}, where {expected.hex} is listed; it was fetched twice"
    )
    return DamagedInput(told, hint="the Hub, or something on the way to it, changes the file; nothing of it was kept")


def download(session: Session, paths: RepoPaths, target: Target, connections: Connections, progress: Progress) -> int:
    """Fetch a file into its blob; the caller holds one connection. Returns the bytes received. Errors as `transfer.fetch`."""
    entry, blob = target.entry, paths.blob(target.entry.etag)
    part = open_part(paths.blobs, paths.cache, entry.etag, entry.size)
    try:
        fetching = _Fetching(session, target, part, connections, progress)
        fetching.complete()
        reach("pull.hashed")
        connections.check()
        place_blob(part.path, blob, paths.cache)
        reach("pull.placed")
        part.remove()
        return fetching.received
    finally:
        part.close()


class _Fetching:
    """The rounds it takes until the digest is right."""

    def __init__(self, session: Session, target: Target, part: Part, connections: Connections, progress: Progress) -> None:
        self.session, self.target, self.part, self.connections, self.progress = session, target, part, connections, progress
        self.carried = tuple(part.spans)  # by earlier runs: the machine may have lost what it told them it had written
        self.received = 0
        self.plain = False  # one connection, and the whole if nothing is there
        self._again = 0

    def complete(self) -> None:
        """Fetch until every byte is there and the digest of all is right. NetworkFault, DamagedInput."""
        self.progress(_bytes(self.carried), fetched=False)
        once_more = True
        while True:
            found = self._round()
            if found == self.target.entry.digest.hex:
                return
            if found is None:
                self._whole_only()
            elif not self._dropped_bad() and once_more:
                once_more = False
                self._start_over()
            elif not once_more:
                self.part.remove()
                raise damaged(self.target, found)

    def _round(self) -> str | None:
        """The digest of all, after what is missing was fetched; None if the server sends files only as a whole."""
        running = _Round(self)
        try:
            return running.run()
        except RangesIgnored:
            return None
        finally:
            self.received += running.received

    def _whole_only(self) -> None:
        self._again += 1
        if self._again > self.session.patience.tries:
            told = f"{self.target.about}: {self.session.host} sends files as a whole only, and stopped {self._again} times before the end"
            raise NetworkFault(told)
        self._start_over()

    def _dropped_bad(self) -> bool:
        """Whether ranges of earlier runs were bad, which are now missing."""
        bad = {span for span in self.carried if not self.part.intact(span)}
        self.carried = ()
        self.part.start_over([span for span in self.part.spans if span not in bad])
        self.progress(-_bytes(bad), fetched=False)
        return bool(bad)

    def _start_over(self) -> None:
        self.progress(-_bytes(self.part.spans), fetched=False)
        self.carried, self.plain = (), True
        self.part.start_over()


class _Round:
    """Fetching what is missing, by one thread for each connection: this one, and others while connections are free."""

    def __init__(self, fetching: _Fetching) -> None:
        self.whole = fetching
        self.part = fetching.part
        self.received = 0
        self._have = self.part.ranges
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self._helpers: list[threading.Thread] = []
        self._begun = time.monotonic()
        holes = self._have.holes(0, self.part.size)
        missing = self.part.size - self._have.total
        self._todo = deque(holes if fetching.plain else segments(holes, min(max(missing // 16, _SEGMENT[0]), _SEGMENT[1])))
        self._most = 1 if fetching.plain or missing < _PARALLEL else fetching.connections.each

    def run(self) -> str:
        """The digest of all, as it is then. Raises the first failure of any thread."""
        self._follower = Follower(self.part.path, self.whole.target.entry.digest, self.part.size)
        try:
            self._follower.advance(self._have.prefix)
            self._guarded(self._work)
            for helper in self._helpers:
                helper.join(None if isinstance(self._failed, Exception | None) else _HASTE)
            if self._failed is not None:
                raise self._failed
            return self._follower.finish()
        finally:
            self._follower.stop()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._lock:
                self._failed = self._failed or error

    def _work(self) -> None:
        while segment := self._next():
            self._fetch(*segment)

    def _next(self) -> tuple[int, int] | None:
        """The next segment to fetch."""
        self.whole.connections.check()
        with self._lock:
            if self._failed or not self._todo:
                return None
            return self._todo.popleft()

    def _widen(self) -> None:
        """Let another connection help, if one is free and this is a slow one: near by, one is as fast as several."""
        with self._lock:
            elapsed = time.monotonic() - self._begun
            slow = elapsed > _TRIAL and self.received < _FAST * elapsed
            if slow and self._todo and len(self._helpers) + 1 < self._most and self.whole.connections.spare():
                self._helpers.append(threading.Thread(target=self._help, name="range", daemon=True))
                self._helpers[-1].start()

    def _help(self) -> None:
        try:
            self._guarded(self._work)
        finally:
            self.whole.connections.give_back()

    def _fetch(self, start: int, stop: int) -> None:
        """Fetch a segment, as often as that brings something."""
        session, failed = self.whole.session, 0
        with _Writer(self.part, start) as writer:
            while writer.place < stop and self._failed is None:
                before = writer.place
                try:
                    self._receive(writer, stop)
                except Passing as fault:
                    writer.note(_WORTH)
                    failed = 1 if writer.place - before >= _WORTH else failed + 1
                    self.whole.connections.stopped.wait(session.patience.pause(fault, failed))
                    self.whole.connections.check()

    def _receive(self, writer: _Writer, stop: int) -> None:
        with streaming(self.whole.session, self.whole.target, (writer.place, stop)) as pieces:
            for piece in pieces:
                place = writer.place
                writer.write(piece)
                with self._lock:
                    self._have.add(place, writer.place)
                    self.received += len(piece)
                    self._follower.advance(self._have.prefix, place, piece)
                self._widen()
                self.whole.progress(len(piece), fetched=True)
                if self._failed is not None:
                    return
                self.whole.connections.check()


class _Writer:
    """Bytes that come in order, written at their place; the ledger is told of them every STEP bytes."""

    def __init__(self, part: Part, place: int) -> None:
        self._part = part
        self.place = self._noted = place
        self._crc = 0
        with writing(part.path):  # others may have removed it
            self._file = open(part.path, "r+b", buffering=0)  # noqa: SIM115 - closed in __exit__
            self._file.seek(place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self.note()

    def write(self, piece: bytes) -> None:
        """Write a piece. NotEnoughSpace, EnvironmentFault."""
        view = memoryview(piece)
        with writing(self._part.path):
            while view:
                view = view[self._file.write(view) or 0 :]
        self._crc = zlib.crc32(piece, self._crc)
        self.place += len(piece)
        self.note(STEP)

    def note(self, least: int = 1) -> None:
        """Tell the ledger of what it does not know, if it is so many bytes."""
        if self.place - self._noted >= least:
            self._part.add(Span(self._noted, self.place, self._crc))
            self._noted, self._crc = self.place, 0


def _bytes(spans: Iterable[Span]) -> int:
    return sum(span.stop - span.start for span in spans)
