"""A checkpoint of the Hub without its weights: a temporary folder that looks like the snapshot, of which only headers are fetched.

    <temporary>/models--org--name/snapshots/<commit>/config.json         a link to the file in the cache
                                                     model.safetensors   an empty placeholder, see `formats.elsewhere`

Opened as any folder is, it gives a checkpoint that can be looked at, placed and planned with. What planning looks at beyond
headers (tokenizer files, small tensors of a GGUF) is fetched when it does. Weights are not: whoever asks for them is
refused, and for other programs the placeholders are empty files.
"""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.errors import EnvironmentFault
from hubclient.formats.elsewhere import Elsewhere, not_here, put_up, take_down
from hubclient.formats.encodings import F32
from hubclient.ground.names import safe_relative
from hubclient.hub.source.temporary import make_temporary
from hubclient.hub.transfer.crew import WORKERS, run_all

if TYPE_CHECKING:
    from hubclient.cache.layout import RepoId
    from hubclient.formats.model import OpenedCheckpoint, TensorRef
    from hubclient.hub.source.glimpses import Fetch

_FIRST = 64 << 10  # bytes: the header of most files with up to a thousand tensors
_FIRST_GGUF = 2 << 20  # bytes: a GGUF's header holds the vocabulary
_LARGEST_VALUES = 16 << 20  # bytes of a tensor that planning looks at, and of all; see spokes/exact.py
_ALL_VALUES = 80 << 20


class Skeleton:
    """`here` are small files that are on this machine, `absent` all others, by their names in the repository.

    The folder goes when nobody holds the skeleton any more; who opens it makes what was opened hold it (`holding`).
    """

    def __init__(self, repo: RepoId, commit: str, here: Mapping[str, Path], absent: Mapping[str, Elsewhere]) -> None:
        root = make_temporary()
        self.snapshot = root / repo.folder / "snapshots" / commit
        self._absent = {self._place(name): file for name, file in absent.items()}
        weakref.finalize(self, _remove, os.getpid(), root, tuple(self._absent))
        with _making(root):
            for name, path in here.items():
                _link(path, self._place(name))
            for path, file in self._absent.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                put_up(path, file)

    def fetch_headers(self) -> None:
        """Begin all files with weights side by side, before they are opened one after the other, or looked at for their format."""
        files = [file for file in self._absent.values() if isinstance(file, Weights)]
        if files:
            stopped = threading.Event()
            run_all([partial(file.begin, stopped) for file in files], WORKERS, stopped.set, _never)

    def holding(self, opened: OpenedCheckpoint) -> OpenedCheckpoint:
        """What was opened here, with the folder kept as long as it is; headers that were read are let go."""
        companion = self.holding(opened.companion) if opened.companion is not None else None
        tensors = list(opened.tensors.values()) if opened.format == "gguf" else []
        for path, file in self._absent.items():
            if isinstance(file, Weights):
                file.settle(ref for ref in tensors if ref.file == path)
        return replace(opened, sidecars=_Held(self, opened.sidecars), companion=companion)

    def _place(self, name: str) -> Path:
        return self.snapshot / safe_relative(name, source="the repository")


class Weights:
    """A file with weights: its header, and values of small tensors once they are known (`settle`); in threads, too."""

    def __init__(self, fetch: Fetch, told: str, size: int) -> None:
        self._fetch, self.told, self.size = fetch, told, size
        self._first = _FIRST_GGUF if told.endswith(".gguf") else _FIRST
        self._head = bytearray()
        self._values = _Values(fetch)
        self._lock = threading.Lock()

    def begin(self, stopped: threading.Event) -> None:
        """Fetch the first bytes."""
        self._read(0, min(1, self.size), stopped)

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of the header: everything before them is fetched, too, and for a GGUF as much again, so that few requests do."""
        return self._read(offset, count)

    def _read(self, offset: int, count: int, stopped: threading.Event | None = None) -> bytes:
        with self._lock:
            stop = offset + count
            if stop > len(self._head):
                ahead = 2 * len(self._head) if self._first == _FIRST_GGUF else 0
                start, until = len(self._head), min(self.size, max(stop, ahead, self._first))
                self._head += self._fetch(start, until, stopped)
            return bytes(self._head[offset:stop])

    def settle(self, tensors: Iterable[TensorRef]) -> None:
        """The header is read; these are the tensors of which planning may want values."""
        with self._lock:
            self._head.clear()
            small = {ref.offset: ref.nbytes for ref in tensors if ref.encoding == F32 and 0 < ref.nbytes <= _LARGEST_VALUES}
            self._values.may_be(small)

    def values(self, offset: int, count: int) -> bytes:
        """Values of a small float32 tensor. UsageError for anything else."""
        with self._lock:
            found = self._values.of(offset, count)
        if found is None:
            raise not_here(self.told)
        return found


class _Values:
    """Small tensors of a file by offset. What tells a model's dtype is asked for one tensor after the other, hundreds of them:
    from the second on they are all fetched, side by side.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._sizes: dict[int, int] = {}
        self._known: dict[int, bytes] = {}

    def may_be(self, sizes: Mapping[int, int]) -> None:
        """Offset and size of the tensors in question, in addition to those already told."""
        self._sizes = dict(sorted({**self._sizes, **sizes}.items()))

    def of(self, offset: int, count: int) -> bytes | None:
        """So many bytes from `offset`; None if they are no part of one of the tensors, or too many in all."""
        starts = list(self._sizes)
        start = starts[bisect_right(starts, offset) - 1] if starts and starts[0] <= offset else None
        if start is None or offset + count > start + self._sizes[start]:
            return None
        if start not in self._known:
            self._bring(start)
        data = self._known.get(start)
        return None if data is None else data[offset - start : offset - start + count]

    def _bring(self, start: int) -> None:
        missing = [start, *(other for other in self._sizes if other != start and other not in self._known and self._known)]
        room = _ALL_VALUES - sum(map(len, self._known.values()))
        wanted = []
        for other in missing:
            room -= self._sizes[other]
            if room >= 0:
                wanted.append(other)
        stopped = threading.Event()

        def bring(other: int) -> None:
            self._known[other] = self._fetch(other, other + self._sizes[other], stopped)

        run_all([partial(bring, other) for other in wanted], WORKERS, stopped.set, _never)


class Later:
    """A small file that is fetched as a whole, into the cache, when something is read of it. `fetch` gives where it is then."""

    def __init__(self, fetch: Callable[[], Path], told: str, size: int) -> None:
        self._fetch, self.told, self.size = fetch, told, size

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of the file."""
        path = self._fetch()
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(count)
        except OSError as error:
            raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error

    def values(self, offset: int, count: int) -> bytes:  # noqa: ARG002 - no small file holds tensors
        """UsageError."""
        raise not_here(self.told)


class _Held(dict[str, Path]):
    """The small files of what was opened, which hold the folder that they lie in."""

    def __init__(self, skeleton: Skeleton, files: Mapping[str, Path]) -> None:
        super().__init__(files)
        self.skeleton = skeleton


def _never(_fault: Exception) -> bool:
    """All of them are needed."""
    return False


@contextmanager
def _making(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"{root}: cannot be written ({error.strerror})", root) from error


def _link(path: Path, place: Path) -> None:
    """A small file of the cache, where the skeleton has it; a copy where links are refused."""
    place.parent.mkdir(parents=True, exist_ok=True)
    source = os.path.realpath(path)
    try:
        place.symlink_to(source)
    except OSError:
        shutil.copyfile(source, place)


def _remove(maker: int, root: Path, placeholders: Iterable[Path]) -> None:
    """Not in a fork of the process that made it, which may need it still."""
    if os.getpid() != maker:
        return
    for path in placeholders:
        take_down(path)
    shutil.rmtree(root, ignore_errors=True)
