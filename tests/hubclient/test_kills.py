"""Killed at every named fault point: nothing is lost or half there, and the same command given again completes.

Every scenario is a cache as it may be, a command, and the points at which that is killed. Whatever the command, three caches
tell the rest: as it was before, as the kill left it, and as the command leaves it when nobody kills it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cachemaking import spoil
from hubserver import HubServer
from huggingface_hub.utils import _shared_blobs
from killing import Done, Warm
from running import environment
from soundness import contents, faults, incomplete, leftovers, still_to_come, torn

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.ground.faultpoints import POINTS

MODEL, TWIN, SMALL = "org/model", "org/twin", "org/small"
KEEP = ("--grace", "0d", "--yes")
LARGE = 900 << 10

# As with files a hundred times as large.
TWEAKS: Mapping[str, Any] = {
    "hubclient.hub.transfer._SMALL": 64 << 10,
    "hubclient.hub.large.STEP": 256 << 10,
    "hubclient.cache.marks.EVERY_BYTES": 1,
    "hubclient.cache.removal.SETTLE": 0.01,
}


class World:
    """A hub with repositories, a process to fork commands from, and caches that are made once and copied."""

    def __init__(self, hub: HubServer, warm: Warm, folder: Path) -> None:
        self.hub, self.warm, self.folder = hub, warm, folder
        self._made: dict[str, Path] = {}
        self._finished: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}
        chance = random.Random(5)
        self.bytes = [chance.randbytes(LARGE + number) for number in range(5)]
        model = hub.repo(MODEL)
        same = {"tokenizer.json": b"{}" * 99, "onnx/vocab.txt": b"a\nb\n", "README.md": b"# model"}
        model.commit({"config.json": b"{}", "a.safetensors": self.bytes[0], "b.safetensors": self.bytes[1], **same})
        model.tag("v1")
        model.commit({"config.json": b'{"v": 2}', "a.safetensors": self.bytes[2], "b.safetensors": self.bytes[3]})
        hub.repo(TWIN).commit({"config.json": b"{ }", "a.safetensors": self.bytes[0], "c.safetensors": self.bytes[3]})
        hub.repo(SMALL).commit({f"{number}.txt": b"%d" % number * 99 for number in range(4)})

    def run(self, place: Path, *arguments: str, **how: Any) -> Done:
        """A command on the cache in `place`, whose lock file it finds there, too."""
        environ = {"HF_HUB_CACHE": str(place / "cache"), "HUBCLIENT_CATALOG": str(place / "catalog")}
        return self.warm.run(*arguments, environ=environ, cwd=place, **{"tweaks": TWEAKS, **how})

    def complete(self, place: Path, *arguments: str) -> None:
        """A command that must succeed."""
        done = self.run(place, *arguments)
        assert done.status == 0, done.out

    def copied(self, start: str, to: Path) -> Path:
        """A place of that kind, of one's own."""
        if start not in self._made:
            self._made[start] = place = self.folder / start
            place.mkdir()
            STARTS[start](self, place)
        shutil.copytree(self._made[start], to, symlinks=True)
        return to

    def finished(self, scenario: Scenario) -> dict[str, str]:
        """What the cache holds after the command if nobody kills it, and all that is of no use is gone."""
        key = (scenario.start, scenario.command)
        if key not in self._finished:
            place = self.copied(scenario.start, self.folder / f"finished-{len(self._finished)}")
            self.complete(place, *scenario.command)
            self.complete(place, "cache", "prune", *KEEP)
            self._finished[key] = contents(place / "cache")
            shutil.rmtree(place)
        return self._finished[key]

    def received(self) -> int:
        """Bytes of files that the hub has sent since its log was cleared."""
        asked = [one for one in self.hub.requests if one.method == "GET" and (one.origin == "cdn" or "/resolve/" in one.path)]
        return sum(one.sent_bytes for one in asked if one.status in (200, 206))


@dataclass(frozen=True)
class Scenario:
    """A cache to start from (STARTS), a command, the points that it reaches and at which occurrences of each it is killed."""

    start: str
    command: tuple[str, ...]
    points: Mapping[str, tuple[int, ...]]
    left: str = ""  # what the command says of faults that nobody can mend; then it need not succeed
    tweaks: Mapping[str, Any] = field(default_factory=dict)


# The caches to start from


def _empty(world: World, place: Path) -> None:
    (place / "cache").mkdir()


def _first(world: World, place: Path) -> None:
    world.complete(place, "pull", f"{MODEL}@v1")


def _twin(world: World, place: Path) -> None:
    world.complete(place, "pull", TWIN)


def _several(world: World, place: Path) -> None:
    for source in (f"{MODEL}@v1", MODEL, TWIN, SMALL):
        world.complete(place, "pull", source)


def _orphaned(world: World, place: Path) -> None:
    """A revision that nobody names any more, and two blobs that no revision shows."""
    _several(world, place)
    paths = RepoPaths(place / "cache", RepoId(MODEL))
    (paths.refs / "v1").unlink()
    for link in sorted(paths.snapshot(world.hub.repo(MODEL).refs["refs/heads/main"]).glob("*.safetensors")):
        link.unlink()


def _unfinished(world: World, place: Path) -> None:
    """The first revision, and what a killed pull has left of two large files of the second."""
    _first(world, place)
    for name in ("a", "b"):
        killed = world.run(place, "pull", MODEL, "--include", f"{name}.safetensors", point="pull.ledger-written:2")
        assert killed.killed
    assert len(list((place / "cache").rglob("*.ledger.incomplete"))) == 2


def _store(world: World, place: Path) -> None:
    """The bytes of two large files in the store for all repositories, where huggingface_hub has put them, for another repository."""
    _twin(world, place)
    paths = RepoPaths(place / "cache", RepoId(TWIN))
    for entry in world.hub.repo(TWIN).entries().values():
        if entry.xet_hash:
            assert _shared_blobs.publish_blob_to_shared_store(
                blob_path=str(paths.blob(entry.etag)), xet_hash=entry.xet_hash, cache_dir=place / "cache", expected_size=entry.size
            )


def _store_spoilt(world: World, place: Path) -> None:
    """An entry of the store has wrong bytes; another repository has intact ones of its own."""
    world.complete(place, "pull", f"{MODEL}@v1")
    world.complete(place, "pull", MODEL)
    _store(world, place)
    for link in (place / "cache").glob("models--org--twin/blobs/*"):
        if link.is_symlink():
            spoil(link, b"x" * LARGE)


def _spoilt(world: World, place: Path) -> None:
    """Wrong bytes of which another repository has the right ones, and links to nothing."""
    _several(world, place)
    shutil.copytree(place, apart := place.with_name("apart"), symlinks=True)  # hard links become files of their own
    shutil.rmtree(place)
    apart.rename(place)
    paths = RepoPaths(place / "cache", RepoId(MODEL))
    for number in (0, 3):
        blob = next(blob for blob in paths.blobs.iterdir() if blob.read_bytes() == world.bytes[number])
        spoil(blob, b"x" * LARGE)
        (number or blob.unlink())  # type: ignore[func-returns-value]


def _spoilt_alone(world: World, place: Path) -> None:
    """Wrong bytes of which nobody here has the right ones."""
    world.complete(place, "pull", MODEL)
    for blob in (place / "cache").glob("models--org--model/blobs/*"):
        if len(blob.name) == 64:
            spoil(blob, b"x" * LARGE)


def _bad_catalog(world: World, place: Path) -> None:
    _several(world, place)
    world.complete(place, "cache", "ls")
    for path in (place / "catalog").iterdir():
        path.write_bytes(b"no database" * 1000)


def _locked(world: World, place: Path) -> None:
    (place / "cache").mkdir()
    world.complete(place, "lock", MODEL, f"{MODEL}@v1", SMALL)


STARTS: Mapping[str, Callable[[World, Path], None]] = {
    function.__name__: function
    for function in (
        _empty, _first, _twin, _several, _orphaned, _unfinished, _store, _store_spoilt, _spoilt, _spoilt_alone, _bad_catalog, _locked,
    )
}  # fmt: skip

SCENARIOS = (
    Scenario(
        "_first",
        ("pull", MODEL),
        {
            "pull.tree-written": (1,),
            "pull.part-created": (1, 2),
            "pull.range-written": (1, 3),
            "pull.ledger-written": (1, 4),
            "pull.hashed": (1, 3),
            "pull.placed": (1, 3),
            "pull.link-made": (1, 6),
            "pull.linked": (1, 6),
            "pull.ref-written": (1,),
        },
    ),
    Scenario("_unfinished", ("pull", MODEL), {"pull.part-adopted": (1, 2), "pull.range-written": (1, 2), "pull.hashed": (2, 3)}),
    Scenario("_twin", ("pull", f"{MODEL}@v1"), {"pull.taken": (1,), "pull.placed": (1, 2)}),
    Scenario("_twin", ("sync", "twice.lock"), {}),
    Scenario("_store", ("pull", MODEL), {"pull.shared-noted": (1,)}),
    Scenario("_locked", ("sync",), {"sync.entry-done": (1, 2), "pull.placed": (2, 7), "pull.ref-written": (1,), "pull.linked": (9,)}),
    Scenario("_several", ("lock", MODEL, TWIN), {"lock.written": (1,)}),
    Scenario("_several", ("cache", "ls"), {"catalog.begun": (1,), "catalog.rows-written": (1,), "catalog.committed": (1,)}),
    Scenario("_bad_catalog", ("cache", "ls"), {"catalog.rebuilt": (1,), "catalog.begun": (1,), "catalog.rows-written": (1,)}),
    Scenario(
        "_several",
        ("cache", "verify"),
        {"verify.marked": (1, 5), "catalog.begun": (1, 3), "catalog.rows-written": (2, 3), "catalog.committed": (1, 4)},
    ),
    Scenario("_several", ("cache", "gc", "--max-size", "0", *KEEP), {"gc.repo-trashed": (1, 3), "gc.trash-emptied": (1, 3)}),
    Scenario(
        "_several",
        ("cache", "gc", "--max-size", "0", "--keep-last", "1", *KEEP),
        {"gc.ref-removed": (1,), "gc.snapshot-trashed": (1,), "gc.blob-trashed": (1, 3), "gc.blob-removed": (1, 3)},
    ),
    Scenario(
        "_orphaned",
        ("cache", "prune", *KEEP),
        {"gc.snapshot-trashed": (1,), "gc.blob-trashed": (1, 4), "gc.blob-removed": (1, 4), "gc.trash-emptied": (1,)},
    ),
    Scenario("_several", ("cache", "rm", f"{MODEL}:README.md", "--yes"), {"gc.file-removed": (1,)}),
    Scenario("_several", ("cache", "rm", f"{MODEL}@v1", "--yes"), {"gc.ref-removed": (1,)}),
    Scenario("_store", ("cache", "gc", "--max-size", "0", *KEEP), {"gc.shared-removed": (1, 2), "gc.repo-trashed": (1,)}),
    Scenario("_spoilt", ("cache", "repair"), {"repair.copied": (1, 2), "repair.placed": (1, 2), "repair.shown": (1,)}),
    Scenario("_store_spoilt", ("cache", "repair"), {"repair.shared": (1, 2), "repair.placed": (1, 2)}),
    Scenario(
        "_spoilt_alone",
        ("cache", "repair"),
        {"repair.fetched": (1, 2), "pull.range-written": (1, 5), "pull.hashed": (1, 2), "pull.placed": (1, 2)},
    ),
)
