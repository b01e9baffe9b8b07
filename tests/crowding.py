"""Processes that crowd a cache, until they are told to stop: those that pull and look at once at what they have got, and those that collect.

Each is a call of a function here in a process of its own (`killing.Warm`), and notes in a file of its own, a line of JSON each,
what it did and what was wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

OVER = "over"  # a file among the notes that ends it
NO_LOCKS = "import fcntl; fcntl.flock = lambda *_: None"  # as on file systems where it does nothing
_HEALED = 1.0  # seconds in which a link to nothing may be one that leads somewhere again


def pulling(setting: str, number: str) -> None:
    """Pull this and that with hubclient."""
    from hubclient.hub.client import Hub

    def pull(source: str, told: dict[str, Any]) -> str:
        return str(Hub(told["endpoint"], token=False, cache=told["cache"]).pull(source, workers=4).snapshot)

    _getting(setting, number, pull)


def downloading(setting: str, number: str) -> None:
    """The same with huggingface_hub."""
    from huggingface_hub import snapshot_download

    def download(source: str, told: dict[str, Any]) -> str:
        repo, _, revision = source.partition("@")
        return str(snapshot_download(repo, revision=revision, cache_dir=told["cache"], endpoint=told["endpoint"], token=False))

    _getting(setting, number, download)


def collecting(setting: str, number: str) -> None:
    """Collect and prune, one after the other, without a pause."""
    from hubclient.cache.retention.policy import Policy
    from hubclient.cache.store import Cache

    def collect(store: Cache, policy: Policy | None, grace: float) -> dict[str, Any]:
        plan = store.plan_prune(grace=grace) if policy is None else store.plan_gc(policy)
        done = store.carry_out(plan)
        return {"did": "collected", "freed": done.freed, "removed": len(done.removals), "blobs": done.blobs}

    told = _told(setting)
    grace, chance = told["grace"], random.Random(int(number))
    notes = _Notes(told, number)
    while notes.go_on():
        limits = (
            Policy(max_size=told["limit"], grace=grace),
            Policy(keep_last=1, grace=grace),
            Policy(max_age=0, grace=grace),
            None,
        )
        notes.attempt(lambda: collect(Cache(told["cache"]), chance.choice(limits), grace))


def _getting(setting: str, number: str, get: Callable[[str, dict[str, Any]], str]) -> None:
    told, chance = _told(setting), random.Random(int(number))

    def get_and_look() -> dict[str, Any]:
        sources = sorted(told["sources"])
        if told["turns"]:  # all at one repository for a while, so that the others grow old
            names = sorted({source.partition("@")[0] for source in sources})
            sources = [
                source for source in sources if source.startswith(f"{names[int(time.time() / told['turns']) % len(names)]}@")
            ]
        source = chance.choice(sources)
        snapshot = get(source, told)
        return {"did": "pulled", "source": source, **_look(Path(snapshot), told["sources"][source])}

    notes = _Notes(told, number)
    while notes.go_on():
        notes.attempt(get_and_look)


def _look(snapshot: Path, files: dict[str, str]) -> dict[str, Any]:
    """What is wrong with a snapshot that was said to be whole, unless it has been collected as a whole by now."""
    try:
        inode = os.stat(snapshot).st_ino
    except FileNotFoundError:
        return {"collected": True}
    wrong: list[str] = []
    for name, digest in files.items():
        path = snapshot / name
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            if _inode(snapshot) != inode:
                return {"collected": True, "wrong": wrong}
            fault = f"{path}: is {'a link to nothing' if os.path.islink(path) else 'missing'}"
            end = time.monotonic() + _HEALED
            while not path.exists() and _inode(snapshot) == inode and time.monotonic() < end:
                time.sleep(0.001)
            if _inode(snapshot) != inode:
                return {"collected": True, "wrong": wrong}  # the folder went while we looked
            wrong.append(fault if not path.exists() else f"{fault} for a moment")
        else:
            wrong += [f"{path}: has other bytes"] if found != digest else []
    return {"wrong": wrong}


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


class _Notes:
    """What one process did."""

    def __init__(self, told: dict[str, Any], number: str) -> None:
        self._path, self._over = Path(told["notes"], f"{number}.jsonl"), Path(told["notes"], OVER)

    def go_on(self) -> bool:
        """Whether to do more."""
        return not self._over.exists()

    def attempt(self, work: Callable[[], dict[str, Any]]) -> None:
        """Do it, and note what became of it."""
        try:
            done = work()
        except Exception as error:
            done = {"did": "failed", "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        with self._path.open("a") as file:
            file.write(json.dumps({"at": time.time(), **done}) + "\n")


def _told(setting: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path(setting).read_text())
    return told
