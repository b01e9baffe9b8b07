"""An output while it is being made: partial files, what a killed run already wrote, and the moment it becomes visible.

Everything lies beside the final path: `OUT.partial` (a file or a folder; for a split one per file), `OUT.partial.journal`,
and for a moment `OUT.partial.replaced`, a folder that gives way. The final names appear by rename after all bytes are
synced and the journal says so: a run killed between two renames is finished by the next one.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubclient import disk
from hubclient.deviation import Deviation
from hubclient.errors import NotEnoughSpace, OutputExists, SourceChanged
from hubclient.fidelity import Kept, kept
from hubclient.formats.model import SourceFile
from hubclient.journal import Entry, Journal, Recorded
from hubclient.plan import OutputPlan, Place, Plan, Step
from hubclient.work import Found

_Ranges = dict[int, list[tuple[int, int]]]  # rows that are written, by step


class Output:
    """One output under construction. Raises OutputExists, OutputBusy or SourceChanged before it touches anything."""

    def __init__(self, plan: Plan, output: OutputPlan, *, force: bool) -> None:
        self.output = output
        self._force = force
        self._base = output.path.with_name(output.path.name + ".partial")
        self._finals = output.paths()
        self._partials = tuple(self._partial(final) for final in self._finals)
        self._described = {"fingerprint": plan.fingerprint(output), "sources": _states(plan.sources)}
        self._done: _Ranges | None = None  # None: nothing that could be gone on from
        self._changed: dict[int, int] = {}  # elements that would not come back, by step
        self._deviations: dict[int, Deviation] = {}
        self._renaming = False  # whether a killed run had begun to rename: all bytes are there
        if force and output.folder:
            _check_replaceable(output.path)
        with disk.writing(output.path):
            output.path.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(Path(f"{self._base}.journal"))
        recorded = self._journal.read()
        self._begun = bool(recorded.described)
        self._ours = recorded.described.get("fingerprint") == self._described["fingerprint"]
        self._was_finished = recorded.finished
        try:
            self._resume(plan, recorded)
            self._refuse_existing()
        except BaseException:
            self.close()
            raise

    @property
    def missing_bytes(self) -> int:
        """Bytes that still have to be allocated on the file system."""
        if self._renaming:
            return 0
        return sum(max(0, file.size - disk.allocated(path)) for file, path in zip(self.output.files, self._partials, strict=True))

    def create(self) -> None:
        """Make the partial files at full size, with their leading bytes, unless a killed run left them."""
        if self._renaming:
            return
        if self._done is None:
            self._begin()
        for file, path in zip(self.output.files, self._partials, strict=True):
            if not path.exists():
                disk.create(path, file.head, file.size)
            elif not disk.begins_with(path, file.head):
                disk.write_rows(path, file.head, 0)

    def missing(self, step: Step, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The stretches of these rows that are still to be written."""
        for low, high in ((start, stop),) if self._renaming else (self._done or {}).get(step.index, ()):
            if low < stop and start < high:
                if start < low:
                    yield start, low
                start = max(start, high)
        if start < stop:
            yield start, stop

    def paths(self, step: Step) -> tuple[Path, ...]:
        """The partial files that a step's bytes go to: one for each of its places."""
        return tuple(self._partials[place.file] for place in step.places)

    def note(self, step: Step, start: int, stop: int, crc: int, found: Found) -> None:
        """Record written rows, and what became of their values."""
        entry = Entry(step.index, start, stop, crc, -1 if found.changed is None else found.changed, found.deviation)
        self._count(entry)
        self._journal.add(entry)

    def kept(self) -> dict[str, Kept]:
        """What became of each tensor's values, in this run and the ones it goes on from."""
        changed, deviations = self._changed, self._deviations
        return {step.name: kept(step, changed.get(step.index), deviations.get(step.index)) for step in self.output.steps}

    def _count(self, entry: Entry) -> None:
        if entry.changed >= 0:
            self._changed[entry.step] = self._changed.get(entry.step, 0) + entry.changed
        if entry.deviation is not None:
            self._deviations[entry.step] = entry.deviation.joined(self._deviations.get(entry.step, Deviation()))

    def sync(self) -> None:
        """Bring all bytes to the disk, and then the word that they are there."""
        if self._renaming:
            return
        folders = {folder for path in self._partials for folder in path.parents if folder.is_relative_to(self._base)}
        for path in (*self._partials, *folders):
            disk.sync(path)
        self._journal.finish()

    def publish(self) -> None:
        """Give the finished files their names; the first of a split last, so that its presence means all are there."""
        self._refuse_existing()
        with disk.writing(self.output.path):
            if self.output.folder:
                _check_replaceable(self.output.path)  # what came while the output was made
                _replace_folder(self._base, self.output.path)
            else:
                for partial, final in reversed(list(zip(self._partials, self._finals, strict=True))):
                    if partial.exists():  # not if a killed run has come this far
                        partial.replace(final)
        disk.sync(self.output.path.parent)

    def forget(self) -> None:
        """Remove the journal of a published output."""
        self._journal.remove()

    def discard(self) -> None:
        """Remove what was written, and all memory of it."""
        self._discard()
        self._begun = False

    def close(self) -> None:
        """Stop without publishing; what was written stays for a later run."""
        if self._begun:
            self._journal.close()
        else:
            self._journal.remove()

    # What is there already

    def _partial(self, final: Path) -> Path:
        if self.output.folder:
            return self._base / final.relative_to(self.output.path)
        return final.with_name(final.name + ".partial")

    def _refuse_existing(self) -> None:
        for path in () if self._force else self._wanted():
            if os.path.lexists(path):
                raise OutputExists(f"{path}: is already there", path, hint="--force replaces it")

    def _wanted(self) -> Iterator[Path]:
        """The names that this output still has to take."""
        path = self.output.path
        if self.output.folder:
            empty = path.is_dir() and not any(path.iterdir())
            yield from () if self._renaming or empty else (path,)
            return
        yield from () if self._renaming else (path,)
        pairs = zip(self._partials, self._finals, strict=True)
        yield from (final for partial, final in pairs if not self._renaming or partial.exists())

    def _resume(self, plan: Plan, recorded: Recorded) -> None:
        """Take up what a killed run left; OutputExists or SourceChanged if that is not ours to take up."""
        if self._ours and all(map(disk.has_size, self._partials, (file.size for file in self.output.files))):
            self._done = self._verified(recorded.entries)
        elif self._ours:
            self._renaming = recorded.finished and self._is_whole()
            for entry in _latest(recorded.entries) if self._renaming else ():
                self._count(entry)
        elif not self._force:
            self._refuse_unfinished(plan, recorded)

    def _refuse_unfinished(self, plan: Plan, recorded: Recorded) -> None:
        left = next((path for path in (self._base, *self._partials) if os.path.lexists(path)), None)
        changed = _changed(recorded.described.get("sources"), plan.sources)
        if left is None:
            return
        if changed is not None:
            raise SourceChanged(
                f"{changed}: changed since the unfinished conversion {left} was begun",
                changed,
                hint="--force starts again from the source as it is now",
            )
        told = "is an unfinished conversion of another source or with other options" if recorded.described else "is already there"
        raise OutputExists(f"{left}: {told}", left, hint="--force discards it and starts again")

    def _begin(self) -> None:
        """A new journal, before any partial file: partial files without one are a stranger's."""
        self._begun = True
        if not self._ours or self._was_finished:
            self._journal.start(self._described)
        self._discard()
        self._done = {}

    def _is_whole(self) -> bool:
        """Whether every file is there as this plan would leave it, renamed already or still partial."""
        moved = self.output.folder and not self._base.exists()
        for file, partial, final in zip(self.output.files, self._partials, self._finals, strict=True):
            path = final if moved or not partial.exists() else partial
            if not (disk.has_size(path, file.size) and disk.begins_with(path, file.head)):
                return False
        return True

    def _verified(self, entries: Sequence[Entry]) -> _Ranges:
        """The rows whose bytes are what the journal says, neighbours joined; what became of their values is counted."""
        done: _Ranges = {}
        steps, good = self.output.steps, []
        for entry in entries:
            if entry.step not in range(len(steps)) or not 0 <= entry.start < entry.stop <= steps[entry.step].array.rows:
                continue
            if self._crc32(steps[entry.step].stretches(entry.start, entry.stop)) == entry.crc:
                good.append(entry)
        for entry in sorted(_latest(good), key=_rows_of):
            _join(done.setdefault(entry.step, []), entry.start, entry.stop)
            self._count(entry)
        return done

    def _crc32(self, stretches: Iterable[Place]) -> int:
        """The crc32 of what is written there, one stretch after the other; -1 if a file is too short."""
        crc = 0
        for file, offset, nbytes in stretches:
            crc = disk.crc32_of(self._partials[file], offset, nbytes, crc)
            if crc < 0:
                break
        return crc

    def _discard(self) -> None:
        with disk.writing(self._base):
            if self.output.folder and self._base.exists():
                shutil.rmtree(self._base)
            for path in self._partials:
                path.unlink(missing_ok=True)


def refuse_taken(outputs: Iterable[OutputPlan]) -> None:
    """OutputExists for an output whose place is taken, before anything is done for it. What a run left unfinished is not judged."""
    for output in outputs:
        taken = [path for path in (output.path, *output.paths()) if os.path.lexists(path)]
        empty = output.folder and output.path.is_dir() and not any(output.path.iterdir())
        if taken and not empty and not os.path.lexists(f"{output.path}.partial.journal"):
            raise OutputExists(f"{taken[0]}: is already there", taken[0], hint="--force replaces it")


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


def _rows_of(entry: Entry) -> tuple[int, int, int]:
    return entry.step, entry.start, entry.stop


def _latest(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Entries of which none speaks of rows that another does, the later ones first: rows that were found damaged are written
    again, in other tiles, and then what was said of them before holds again.
    """
    taken: dict[int, list[tuple[int, int]]] = {}
    for entry in reversed(entries):
        ranges, rows = taken.setdefault(entry.step, []), (entry.start, entry.stop)
        at = bisect_left(ranges, rows)
        free = (at == 0 or ranges[at - 1][1] <= entry.start) and (at == len(ranges) or entry.stop <= ranges[at][0])
        if free:
            ranges.insert(at, rows)
            yield entry


def _join(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    """Add a range to sorted ones, of which none starts later."""
    if ranges and start <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
    else:
        ranges.append((start, stop))


def _states(sources: Iterable[SourceFile]) -> dict[str, list[Any]]:
    """What identifies the state of each source file, as JSON has it."""
    return {os.path.realpath(source.path): [source.size, source.mtime_ns, source.header_digest] for source in sources}


def _changed(before: Any, sources: Iterable[SourceFile]) -> Path | None:
    """The first source file that is not what it was; None if all are, or nothing is known."""
    now = _states(sources)
    if not isinstance(before, Mapping) or before.keys() != now.keys():
        return None
    return next((Path(name) for name, state in now.items() if before[name] != state), None)


def _check_replaceable(path: Path) -> None:
    """--force replaces a folder as a whole, so everything in it must be something a checkpoint folder holds."""
    from hubclient.formats.safetensors import belongs_to_checkpoint

    if not path.exists():
        return
    if not path.is_dir():
        raise OutputExists(f"{path}: is a file where a folder is to be written", path)
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path).as_posix()
        if not entry.is_dir() and not belongs_to_checkpoint(name):
            raise OutputExists(f"{path}: holds {name}, which is no part of a checkpoint, so it is not replaced", path)


def _replace_folder(partial: Path, final: Path) -> None:
    aside = Path(f"{partial}.replaced")
    if partial.exists():  # not if a killed run has come this far
        if final.exists():
            if any(final.iterdir()):
                if aside.exists():
                    shutil.rmtree(aside)
                final.rename(aside)
            else:
                final.rmdir()
        partial.rename(final)
    if aside.exists():
        shutil.rmtree(aside)
