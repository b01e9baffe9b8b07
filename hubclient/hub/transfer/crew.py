"""Transfers side by side, in threads that an interrupt need not wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

WORKERS = 8  # as huggingface_hub
Job = Callable[[], None]
_PATIENCE = 0.7  # seconds that jobs have to stop by themselves; one that waits for a silent server may take a minute


def run_all(jobs: Sequence[Job], workers: int, stop: Callable[[], None], goes_on: Callable[[Exception], bool]) -> list[Exception]:
    """Carry out all jobs, `workers` at a time, begun in their order; returns the faults after which the others went on.

    Any other fault, and an interrupt, is raised within a second: `stop` is called, at which running jobs should end soon, and
    none is begun. A thread that does not end by then is left behind; it ends with the process at the latest.
    """
    waiting, faults = SimpleQueue[Job](), SimpleQueue[BaseException | None]()
    over = threading.Event()
    for job in jobs:
        waiting.put(job)
    threads = [
        threading.Thread(target=_work, args=(waiting, faults, over), name="hubclient transfer", daemon=True)
        for _ in range(min(workers, len(jobs)))
    ]
    passed: list[Exception] = []
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            fault = faults.get()
            if fault is None:
                continue
            if not isinstance(fault, Exception) or not goes_on(fault):
                raise fault  # noqa: TRY301, to those who stop the others
            passed.append(fault)
    except BaseException:
        over.set()
        stop()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        raise
    return passed


def _work(waiting: SimpleQueue[Job], faults: SimpleQueue[BaseException | None], over: threading.Event) -> None:
    while not over.is_set():
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        try:
            job()
        except BaseException as fault:  # it is raised again where the result is waited for
            faults.put(fault)
        else:
            faults.put(None)
