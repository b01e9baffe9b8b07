"""Carrying out a plan: tiles over any executor, each written at its known place and noted in the journal.

Tiles are independent and their bytes do not depend on how they are cut, so any number of jobs gives the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.disk import write_rows
from hubclient.errors import DamagedInput, EnvironmentFault, SourceChanged, SourceMissing
from hubclient.fidelity import Outcome
from hubclient.formats.elsewhere import refuse_values
from hubclient.formats.model import SourceFile
from hubclient.ground.machine import cores
from hubclient.outputs import Output, check_space
from hubclient.plan import Place, Plan, Step
from hubclient.rows import FilePool, Reader
from hubclient.tiles import Tile, groups, schedule
from hubclient.work import Found, prepare, work

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray[Any, Any]

DEFAULT_MEMORY = 512 << 20
_BASE_MEMORY = 32 << 20  # interpreter growth, journal, bookkeeping: not available for tiles
_AHEAD = 4  # tiles submitted per job, so that no job waits for the next one to be planned

Progress = Callable[[int, int], None]  # bytes written so far, bytes in all


class _Job(NamedTuple):
    tile: Tile
    steps: tuple[tuple[int, Step, tuple[Path, ...]], ...]


class _Written(NamedTuple):
    output: int
    step: Step
    start: int
    stop: int
    crc: int
    nbytes: int
    found: Found


def execute(
    plan: Plan,
    *,
    jobs: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    force: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] | None = None,
    told: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Write all outputs of a plan; returns their paths, and what became of each tensor's values.

    `jobs` threads (default: one more than this machine has cores) share `max_memory` bytes. An interrupted run leaves partial files
    that the same call goes on from. Raises an EnvironmentFault (OutputExists, OutputBusy, NotEnoughSpace, SourceChanged,
    SourceMissing).
    """
    jobs = jobs or cores() + 1  # while one waits for the disk
    check_sources(plan.sources)
    outputs: list[Output] = []
    try:
        for output in plan.outputs:
            outputs.append(Output(plan, output, force=force))  # noqa: PERF401  if one is refused, those before it are closed
        check_space(outputs)
        for item in outputs:
            item.create()
        prepare(plan, stage)
        _fill(plan, outputs, executor, jobs, max_memory, progress)
        for item in outputs:
            item.sync()
        paths = tuple(path for output in plan.outputs for path in ([output.path] if output.folder else output.paths()))
        outcome = Outcome(paths, tuple(item.kept() for item in outputs))
        if told is not None:
            told(outcome)
        for item in outputs:
            item.publish()
        while outputs:
            outputs.pop().forget()
    finally:
        for item in outputs:
            item.close()
    return outcome


def check_sources(sources: Sequence[SourceFile]) -> None:
    """SourceChanged if a source file is not as it was when the plan was made, SourceMissing if it is gone.

    UsageError if only its header was ever here.
    """
    for source in sources:
        refuse_values(source.path)
        try:
            stat = source.path.stat()
        except OSError:
            raise SourceMissing(f"{source.path}: is gone since the plan was made", source.path) from None
        if (stat.st_size, stat.st_mtime_ns) != (source.size, source.mtime_ns):
            raise SourceChanged(f"{source.path}: changed since the plan was made", source.path)


def _fill(
    plan: Plan, outputs: list[Output], executor: Executor | None, jobs: int, max_memory: int, progress: Progress | None
) -> None:
    """Write all tiles. If the source changes meanwhile, what is written may mix two of its states and is discarded; so is what
    nobody can go on from, as a weight cannot be written.
    """
    try:
        _run(plan, outputs, executor, jobs, max_memory, progress)
        check_sources(plan.sources)
    except (SourceChanged, DamagedInput):
        for item in outputs:
            item.discard()
        raise


def _run(
    plan: Plan, outputs: list[Output], executor: Executor | None, jobs: int, max_memory: int, progress: Progress | None
) -> None:
    report = _Reporter(progress, sum(step.nbytes for output in plan.outputs for step in output.steps))
    pending: set[Future[list[_Written]]] = set()

    def collect() -> None:
        nonlocal pending
        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in finished:
            for written in future.result():
                outputs[written.output].note(written.step, written.start, written.stop, written.crc, written.found)
                report.add(written.nbytes)

    with _workers(executor, jobs) as submit:
        try:
            for job in _jobs(plan, outputs, max_memory - _BASE_MEMORY, jobs, report):
                pending.add(submit(job))
                if len(pending) >= _AHEAD * jobs:
                    collect()
            while pending:
                collect()
        except BrokenExecutor as error:
            raise EnvironmentFault(f"a worker process ended before its work was done: {error}") from error
        finally:
            for future in pending:
                future.cancel()
            wait(pending)


def _jobs(plan: Plan, outputs: list[Output], max_memory: int, jobs: int, report: _Reporter) -> Iterator[_Job]:
    for tile in schedule(groups(plan.outputs), max_memory, jobs):
        wanted: dict[tuple[int, int], list[tuple[int, Step, tuple[Path, ...]]]] = {}
        for index, step in tile.group.steps:
            there = tile.stop - tile.start
            for start, stop in outputs[index].missing(step, tile.start, tile.stop):
                wanted.setdefault((start, stop), []).append((index, step, outputs[index].paths(step)))
                there -= stop - start
            report.add(there * step.encoding.row_bytes(tile.group.array.columns))
        for (start, stop), missing in wanted.items():
            yield _Job(replace(tile, start=start, stop=stop), tuple(missing))


@contextmanager
def _workers(executor: Executor | None, jobs: int) -> Iterator[Callable[[_Job], Future[list[_Written]]]]:
    """A function that hands out jobs: to threads that share open files, or to an executor that may be elsewhere."""
    if executor is not None:
        yield lambda job: executor.submit(_write_apart, job)
        return
    with FilePool() as pool, ThreadPoolExecutor(jobs, "hubclient") as threads:
        reader = Reader(pool)
        yield lambda job: threads.submit(_write, job, reader)


def _write_apart(job: _Job) -> list[_Written]:
    with FilePool() as pool:
        return _write(job, Reader(pool))


def _write(job: _Job, reader: Reader) -> list[_Written]:
    """One tile, on any thread or process: read, transform, encode and write for every output that wants it."""
    tile, written = job.tile, []
    where = {id(step): (index, paths) for index, step, paths in job.steps}
    for step, data, found in work(tile, [step for _, step, _ in job.steps], reader):
        index, paths = where[id(step)]
        crc = _put(data, step.stretches(tile.start, tile.stop), paths)
        written.append(_Written(index, step, tile.start, tile.stop, crc, data.nbytes, found))
    return written


def _put(data: Rows, stretches: Iterable[Place], paths: Iterable[Path]) -> int:
    """Write a tile's rows, each plane's columns to its own place; returns the crc32 of the stretches in their order."""
    import numpy as np

    crc, at = 0, 0
    for stretch, path in zip(stretches, paths, strict=True):
        width = stretch.nbytes // len(data)
        crc = write_rows(path, np.ascontiguousarray(data[:, at : at + width]), stretch.offset, crc)
        at += width
    return crc


class _Reporter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None and nbytes:
            self._progress(self._done, self._total)
