"""Many runs of one model in step: each waits at the door of a module until all have come, then the module serves them all.

So a module's weights are loaded once for any number of runs, and let go before the next module's. What a model does between
its modules (masks, rotations, what it passes on) is its own affair: every run is an ordinary call of the model, in a thread
that hands the calls of modules with doors to the main thread and waits for the results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

Serve = Callable[[str], AbstractContextManager[Callable[[], None]]]


class _Stopped(BaseException):
    """Ends a run that nobody wants to see the end of."""


class _Run(threading.Thread):
    """One run. `door` is where it waits, None before it starts; the main thread and this one take turns."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.door: str | None = None
        self.finished = False
        self._call, self._asked, self._result = call, None, None
        self._error: BaseException | None = None
        self._stopping = False
        self._mine, self._yours = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        """The whole run, from when it is first advanced."""
        self._mine.acquire()
        try:
            if not self._stopping:
                self._call()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.finished = True
            self._yours.release()

    def at(self, door: str, asked: Callable[[], Any]) -> Any:
        """In this thread: wait at a door for what is asked behind it."""
        self.door, self._asked = door, asked  # type: ignore[assignment]
        self._yours.release()
        self._mine.acquire()
        if self._stopping:
            raise _Stopped
        result, self._result = self._result, None
        return result

    def serve(self) -> None:
        """In the main thread: do what is asked, and go on to the next door or the end."""
        asked, self._asked = self._asked, None
        self._result = asked() if asked is not None else None
        del asked
        self.advance()

    def advance(self) -> None:
        """In the main thread: let this one run until it waits again; raises what it fails with."""
        self._mine.release()
        self._yours.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """In the main thread: end it where it waits."""
        if not self.finished:
            self._stopping = True
            self._mine.release()
        self.join()


def walk(calls: Sequence[Callable[[], object]], modules: Mapping[str, Any], serve: Serve) -> None:
    """Make all calls of a model in step.

    `modules` are those with doors, by name. `serve(name)` is entered while a module is used, by one run after the other, and
    gives what is to be called after each of them. Raises what a call raises.
    """
    runs = [_Run(call) for call in calls]
    before = {name: module.forward for name, module in modules.items()}
    for name, module in modules.items():
        module.forward = partial(_at_door, name, before[name], serve)
    try:
        for run in runs:
            run.start()
            run.advance()
        while waiting := [run for run in runs if not run.finished]:
            door = waiting[0].door
            assert door is not None
            with serve(door) as step:
                for run in (run for run in waiting if run.door == door):
                    run.serve()
                    step()
    finally:
        for run in runs:
            if run.ident is not None:
                run.stop()
        for module in modules.values():
            del module.forward


def _at_door(name: str, forward: Callable[..., Any], serve: Serve, *args: Any, **kwargs: Any) -> Any:
    """In place of a module's forward: wait at its door, or, within another module that is being served, open it alone."""
    current = threading.current_thread()
    if isinstance(current, _Run):
        return current.at(name, partial(forward, *args, **kwargs))
    with serve(name):
        return forward(*args, **kwargs)
