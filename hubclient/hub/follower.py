"""The digest of a file that is being written: what is complete from its beginning on is read back and hashed, in a thread of its own."""

from __future__ import annotations

import threading
from pathlib import Path

from hubclient.cache.digests import Digest
from hubclient.disk import writing

_CHUNK = 1 << 20


class Follower:
    """Hashes the first bytes of `path` as far as `advance` says that they are there, `size` in all."""

    def __init__(self, path: Path, digest: Digest, size: int) -> None:
        self._path = path
        self._size = size
        self._hasher = digest.hasher(size)
        self._changed = threading.Condition()
        self._ready = self._done = 0
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def advance(self, prefix: int) -> None:
        """The first `prefix` bytes are there."""
        with self._changed:
            self._ready = prefix
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
            while self._done < self._size and (ready := self._wait()):
                while self._done < ready and not self._ended:
                    count = file.readinto(view[: ready - self._done])
                    if not count:
                        raise OSError(f"{self._path.name} is shorter than what was written")
                    self._hasher.update(view[:count])
                    self._done += count

    def _wait(self) -> int:
        """How much is there to hash; 0 to give up."""
        with self._changed:
            while not self._ended and self._ready < self._size and self._ready - self._done < _CHUNK:
                self._changed.wait()
            return 0 if self._ended else self._ready
