"""An output while it is being made: partial files, what a killed run already wrote, and the moment it becomes visible.

Everything lies beside the final path: `OUT.partial` (a file or a folder; for a split one per file) and
`OUT.partial.journal`. The final names appear by rename after all bytes are synced.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hubclient.errors import EnvironmentFault, NotEnoughSpace, OutputExists, SourceChanged
from hubclient.formats.model import FileLayout
from hubclient.journal import Entry, Journal
from hubclient.plan import OutputPlan, Plan, Step

_CHUNK = 4 << 20


class Output:
    """One output under construction. Raises OutputExists, OutputBusy or SourceChanged before it touches anything."""

    def __init__(self, plan: Plan, output: OutputPlan, *, force: bool) -> None:
        self.output = output
        self._finals = output.paths()
        if not force:
            self._refuse_existing()
        elif output.folder:
            _check_replaceable(output.path)
        output.path.parent.mkdir(parents=True, exist_ok=True)
        base = output.path.with_name(output.path.name + ".partial")
        self._partials = tuple(self._partial(base, final) for final in self._finals)
        self._base = base
        self._journal = Journal(base.with_name(base.name + ".journal"))
        try:
            self._done = self._resume(plan, force=force)
        except BaseException:
            self._journal.close()
            raise

    @property
    def missing_bytes(self) -> int:
        """Bytes that still have to be allocated on the file system."""
        return sum(max(0, file.size - _allocated(path)) for file, path in zip(self.output.files, self._partials, strict=True))

    def create(self) -> None:
        """Make the partial files at full size, with their leading bytes, unless a killed run left them."""
        if self._done is not None:
            return
        self._discard()
        for file, path in zip(self.output.files, self._partials, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, file)
        self._journal.start(self._described)
        self._done = {}

    def has(self, step: Step, start: int, stop: int) -> bool:
        """Whether these rows are already written."""
        return any(low <= start and stop <= high for low, high in (self._done or {}).get(step.index, ()))

    def path(self, step: Step) -> Path:
        """The partial file that a step's bytes go to."""
        return self._partials[step.file]

    def note(self, step: Step, start: int, stop: int, crc: int) -> None:
        """Record written rows."""
        self._journal.add(Entry(step.index, start, stop, crc))

    def sync(self) -> None:
        """Bring all bytes to the disk."""
        for path in self._partials:
            with path.open("rb+") as file:
                os.fsync(file.fileno())

    def publish(self) -> None:
        """Give the finished files their names; the first of a split last, so that its presence means all are there."""
        if self.output.folder:
            _replace_folder(self._base, self.output.path)
        else:
            for partial, final in reversed(list(zip(self._partials, self._finals, strict=True))):
                partial.replace(final)
        _sync_folder(self.output.path.parent)
        self._journal.remove()

    def close(self, *, discard: bool = False) -> None:
        """Stop without publishing; the partial output stays for a later run unless it is to be discarded."""
        if discard:
            self._discard()
            self._journal.remove()
        else:
            self._journal.close()

    # What is there already

    def _partial(self, base: Path, final: Path) -> Path:
        if self.output.folder:
            return base / final.relative_to(self.output.path)
        return final.with_name(final.name + ".partial")

    def _refuse_existing(self) -> None:
        path = self.output.path
        if path.is_dir() and self.output.folder and not any(path.iterdir()):
            return
        for final in {path, *self._finals}:
            if os.path.lexists(final):
                raise OutputExists(f"{final}: is already there", final, hint="--force replaces it")

    def _resume(self, plan: Plan, *, force: bool) -> dict[int, list[tuple[int, int]]] | None:
        self._described = {"fingerprint": plan.fingerprint(self.output), "source_state": plan.source_state}
        found, entries = self._journal.read()
        if not found:
            return None
        if found.get("fingerprint") != self._described["fingerprint"]:
            if force:
                return None
            if found.get("source_state") != plan.source_state:
                raise SourceChanged(
                    f"{plan.source}: changed since the unfinished conversion {self._base.name} was begun",
                    plan.source,
                    hint="--force starts again from the source as it is now",
                )
            raise OutputExists(
                f"{self._base}: is an unfinished conversion with other options", self._base, hint="--force discards it and starts again"
            )
        if not all(path.exists() and path.stat().st_size == file.size for file, path in zip(self.output.files, self._partials, strict=True)):
            return None
        return self._verified(entries)

    def _verified(self, entries: Iterable[Entry]) -> dict[int, list[tuple[int, int]]]:
        done: dict[int, list[tuple[int, int]]] = {}
        steps = self.output.steps
        for entry in entries:
            if entry.step < len(steps) and 0 <= entry.start < entry.stop <= steps[entry.step].array.rows:
                step = steps[entry.step]
                size = step.encoding.row_bytes(step.array.columns)
                if _crc(self.path(step), step.offset + entry.start * size, (entry.stop - entry.start) * size) == entry.crc:
                    done.setdefault(entry.step, []).append((entry.start, entry.stop))
        return done

    def _discard(self) -> None:
        if self.output.folder:
            shutil.rmtree(self._base, ignore_errors=True)
        for path in self._partials:
            path.unlink(missing_ok=True)


def check_space(outputs: Iterable[Output]) -> None:
    """NotEnoughSpace if the file systems cannot hold what is still to be written."""
    needed: dict[int, tuple[int, Path]] = {}
    for output in outputs:
        folder = output.output.path.parent
        device = folder.stat().st_dev
        needed[device] = (needed.get(device, (0, folder))[0] + output.missing_bytes, folder)
    for bytes_needed, folder in needed.values():
        free = shutil.disk_usage(folder).free
        if bytes_needed > free:
            raise NotEnoughSpace(f"{folder}: {bytes_needed:,} bytes are needed, {free:,} are free", folder)


def write_rows(path: Path, data: Any, offset: int) -> int:
    """Write a tile's bytes at their place; returns their crc32. NotEnoughSpace or EnvironmentFault if that fails."""
    view = memoryview(data).cast("B")
    try:
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        try:
            done = 0
            while done < len(view):
                done += os.pwrite(descriptor, view[done:], offset + done)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _fault(path, error) from error
    return zlib.crc32(view)


def _create(path: Path, file: FileLayout) -> None:
    try:
        with path.open("wb") as handle:
            handle.write(file.head)
            _allocate(handle.fileno(), file.size)
    except OSError as error:
        raise _fault(path, error) from error


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the blocks where the file system can, so that a full disk shows now; else only set the size."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        else:
            return
    os.ftruncate(descriptor, size)


def _allocated(path: Path) -> int:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0
    return min(stat.st_size, getattr(stat, "st_blocks", 0) * 512)


def _crc(path: Path, offset: int, nbytes: int) -> int:
    crc = 0
    with path.open("rb") as file:
        file.seek(offset)
        while nbytes:
            data = file.read(min(_CHUNK, nbytes))
            if not data:
                return -1
            crc = zlib.crc32(data, crc)
            nbytes -= len(data)
    return crc


def _check_replaceable(path: Path) -> None:
    """--force replaces a folder as a whole, so everything in it must be something a checkpoint folder holds."""
    from hubclient.formats.safetensors import belongs_to_checkpoint

    if not path.exists():
        return
    if not path.is_dir():
        raise OutputExists(f"{path}: is a file where a folder is to be written", path)
    for entry in sorted(path.rglob("*")):
        if not entry.is_dir() and not belongs_to_checkpoint(entry.relative_to(path).as_posix()):
            raise OutputExists(f"{path}: holds {entry.relative_to(path)}, which is no part of a checkpoint, so it is not replaced", path)


def _replace_folder(partial: Path, final: Path) -> None:
    aside = final.with_name(final.name + ".replaced")
    if final.exists():
        if any(final.iterdir()):
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        else:
            final.rmdir()
    partial.rename(final)
    shutil.rmtree(aside, ignore_errors=True)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _fault(path: Path, error: OSError) -> EnvironmentFault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughSpace(f"{path.parent}: the disk is full; what was written stays for the same command to go on from", path)
    return EnvironmentFault(f"{path}: cannot be written ({error.strerror})", path)
