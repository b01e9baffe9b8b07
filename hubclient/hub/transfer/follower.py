"""The digest of a file that is being written, in a thread of its own: pieces that come in order are hashed as they come, what is
complete from the file's beginning on otherwise is read back.
"""

from __future__ import annotations

import threading
from pathlib import Path

from hubclient.cache.digests import Digest
from hubclient.disk import writing

_CHUNK = 1 << 20
_QUEUED = 4 << 20  # bytes of pieces that wait; when it is full the file is read instead


class Follower:
    """Hashes the first bytes of `path` as far as `advance` says that they are there, `size` in all."""

    def __init__(self, path: Path, digest: Digest, size: int) -> None:
        self._path = path
        self._size = size
        self._hasher = digest.hasher(size)
        self._changed = threading.Condition()
        self._ready = self._claimed = self._done = 0  # bytes from the beginning: there, in hand or in pieces, hashed
        self._pieces: list[bytes] = []
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def advance(self, prefix: int, place: int = -1, piece: bytes = b"") -> None:
        """The first `prefix` bytes are there; `piece` has just been written at `place`."""
        with self._changed:
            self._ready = prefix
            if place == self._claimed and place - self._done < _QUEUED:
                self._pieces.append(piece)
                self._claimed += len(piece)
            if prefix - self._done >= _CHUNK or prefix == self._size:
                self._changed.notify()

    def finish(self) -> str:
        """The digits of the whole's digest, once all of it is there and hashed. EnvironmentFault."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return str(self._hasher.hexdigest())

    def stop(self) -> None:
        """Give up."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._hash()
        except BaseException as error:  # raised again by whoever waits for it
            self._error = error

    def _hash(self) -> None:
        view = memoryview(bytearray(_CHUNK))
        with writing(self._path), open(self._path, "rb", buffering=0) as file:
            while self._done < self._size and self._await():
                pieces, stop = self._claim()
                for piece in pieces:
                    self._count(piece)
                if self._done < stop:
                    file.seek(self._done)
                while self._done < stop and not self._ended:
                    count = file.readinto(view[: stop - self._done])
                    if not count:
                        raise OSError(f"{self._path.name} is shorter than what was written")
                    self._count(view[:count])

    def _count(self, data: bytes | memoryview) -> None:
        self._hasher.update(data)
        self._done += len(data)

    def _await(self) -> bool:
        """Wait until there is enough to hash; False to give up."""
        with self._changed:
            while not self._ended and self._ready < self._size and self._ready - self._done < _CHUNK:
                self._changed.wait()
            return not self._ended

    def _claim(self) -> tuple[list[bytes], int]:
        """The pieces that wait; if there are none, up to where the file is to be read."""
        with self._changed:
            pieces, self._pieces = self._pieces, []
            if not pieces:
                self._claimed = self._ready
            return pieces, self._claimed if not pieces else 0
