"""Killed at every named fault point: nothing is lost or half there, and the same command given again completes.

Every scenario is a cache as it may be, a command, and the points at which that is killed. Whatever the command, three caches
tell the rest: as it was before, as the kill left it, and as the command leaves it when nobody kills it.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cachemaking import spoil
from hubserver import HubServer
from huggingface_hub.utils import _shared_blobs
from killing import Done, Warm
from running import environment
from soundness import contents, faults, incomplete, leftovers, still_to_come, torn

from hubclient.cache.catalogfile import catalog_path
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.ground.faultpoints import POINTS

MODEL, TWIN, SMALL = "org/model", "org/twin", "org/small"
NOW = ("--grace", "0s", "--yes")
LARGE = 900 << 10

# As with files a hundred times as large.
TWEAKS: Mapping[str, Any] = {
    "hubclient.hub.transfer._SMALL": 64 << 10,
    "hubclient.hub.large.STEP": 256 << 10,
    "hubclient.cache.marks.EVERY_BYTES": 1,
    "hubclient.cache.removal.SETTLE": 0.01,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A cache to start from (STARTS), a command, and the points that it reaches, with the occurrences at which it is killed."""

    start: str
    command: tuple[str, ...]
    points: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Whole:
    """A place as a command leaves it that nobody kills: see `soundness.contents`; sizes of blobs; files that refs promise in vain."""

    contents: Mapping[str, str]
    blobs: Mapping[str, int]
    incomplete: tuple[str, ...]
    lock: bytes | None

    @classmethod
    def of(cls, place: Path) -> Whole:
        cache, lock = place / "cache", place / "hubclient.lock"
        blobs = {str(blob.relative_to(cache)): blob.stat().st_size for blob in cache.glob("*--*/blobs/*") if "." not in blob.name}
        lacking = tuple(path.removeprefix(str(place)) for path in incomplete(cache))
        return cls(contents(cache), blobs, lacking, lock.read_bytes() if lock.exists() else None)


class World:
    """A hub with repositories, a process to fork commands from, and caches that are made once and copied."""

    def __init__(self, hub: HubServer, warm: Warm, folder: Path) -> None:
        self.hub, self.warm, self.folder = hub, warm, folder
        self._made: dict[str, Path] = {}
        self._whole: dict[tuple[str, tuple[str, ...]], Whole] = {}
        chance = random.Random(5)
        self.bytes = [chance.randbytes(LARGE + number) for number in range(4)]
        same = {"tokenizer.json": b"{}" * 99, "onnx/vocab.txt": b"a\nb\n", "README.md": b"# model"}
        model = hub.repo(MODEL)
        model.commit({"config.json": b"{}", "a.safetensors": self.bytes[0], "b.safetensors": self.bytes[1], **same})
        model.tag("v1")
        model.commit({"config.json": b'{"v": 2}', "a.safetensors": self.bytes[2], "b.safetensors": self.bytes[3]})
        hub.repo(TWIN).commit({"config.json": b"{ }", "a.safetensors": self.bytes[0], "c.safetensors": self.bytes[3]})
        hub.repo(SMALL).commit({f"{number}.txt": b"%d" % number * 99 for number in range(4)})

    def run(self, place: Path, *arguments: str, **how: Any) -> Done:
        """A command on the cache in `place`, whose lock file it finds there, too."""
        environ = {"HF_HUB_CACHE": str(place / "cache"), "HUBCLIENT_CATALOG": str(place / "catalog")}
        return self.warm.run(*arguments, **{"environ": environ, "cwd": place, "tweaks": TWEAKS, **how})

    def complete(self, place: Path, *arguments: str) -> str:
        """A command that must succeed; what it says."""
        done = self.run(place, *arguments)
        assert done.status == 0, done.out
        return done.out

    def copied(self, start: str, to: Path) -> Path:
        """A place of that kind, of one's own. What was one file of two names is two files in it."""
        if start not in self._made:
            STARTS[start](self, self.folder / start)
            self._made[start] = self.folder / start
        shutil.copytree(self._made[start], to, symlinks=True)
        for path in to.glob("catalog/*"):  # is called after the cache's place
            new = catalog_path(to / "cache", {"HUBCLIENT_CATALOG": str(to / "catalog")})
            path.rename(new.with_name(new.stem + path.name.partition(".")[2].join((".", ""))))
        return to

    def whole(self, scenario: Scenario) -> Whole:
        """How the place looks after the command if nobody kills it, and all that is of no use is gone."""
        key = (scenario.start, scenario.command)
        if key not in self._whole:
            place = self.copied(scenario.start, Path(tempfile.mkdtemp(dir=self.folder)) / "place")
            self.complete(place, *scenario.command)
            self.complete(place, "cache", "prune", *NOW)
            self._whole[key] = Whole.of(place)
            shutil.rmtree(place)
        return self._whole[key]

    def received(self) -> int:
        """Bytes of files that the hub has sent since its log was cleared."""
        asked = [one for one in self.hub.requests if one.method == "GET" and (one.origin == "cdn" or "/resolve/" in one.path)]
        return sum(one.sent_bytes for one in asked if one.status in (200, 206))


# The caches to start from


def _empty(_world: World, place: Path) -> None:
    (place / "cache").mkdir(parents=True)


def _first(world: World, place: Path) -> None:
    """A revision."""
    _empty(world, place)
    world.complete(place, "pull", f"{MODEL}@v1")


def _twin(world: World, place: Path) -> None:
    """Another repository, which has some of the same bytes."""
    _empty(world, place)
    world.complete(place, "pull", TWIN)


def _several(world: World, place: Path) -> None:
    """Two revisions of a repository, and two others."""
    world.copied("_first", place)
    for source in (MODEL, TWIN, SMALL):
        world.complete(place, "pull", source)


def _orphaned(world: World, place: Path) -> None:
    """A revision that nobody names any more, and blobs that no revision shows."""
    world.copied("_several", place)
    paths = RepoPaths(place / "cache", RepoId(MODEL))
    (paths.refs / "v1").unlink()
    for link in paths.snapshot(world.hub.repo(MODEL).refs["refs/heads/main"]).glob("*.safetensors"):
        link.unlink()


def _unfinished(world: World, place: Path) -> None:
    """The first revision, and what killed pulls have left of two large files of the second."""
    world.copied("_first", place)
    for name in ("a", "b"):
        killed = world.run(place, "pull", MODEL, "--include", f"{name}.safetensors", point="pull.ledger-written:2")
        assert killed.killed, killed.out
    assert len(list(place.rglob("*.ledger.incomplete"))) == 2


def _store(world: World, place: Path) -> None:
    """A repository whose large files huggingface_hub has put into the store for all repositories."""
    world.copied("_twin", place)
    paths = RepoPaths(place / "cache", RepoId(TWIN))
    for entry in world.hub.repo(TWIN).entries().values():
        if entry.xet_hash:
            blob = str(paths.blob(entry.etag))
            assert _shared_blobs.publish_blob_to_shared_store(
                blob_path=blob, xet_hash=entry.xet_hash, cache_dir=place / "cache", expected_size=entry.size
            )


def _store_spoilt(world: World, place: Path) -> None:
    """The store has wrong bytes; another repository has intact ones of its own."""
    world.copied("_store", place)
    model = world.copied("_several", place.with_name("_model")) / "cache" / RepoId(MODEL).folder
    model.rename(place / "cache" / RepoId(MODEL).folder)
    shutil.rmtree(place.with_name("_model"))
    for link in (place / "cache" / RepoId(TWIN).folder / "blobs").iterdir():
        if link.is_symlink():
            spoil(link, b"x" * LARGE)


def _spoilt(world: World, place: Path) -> None:
    """Wrong bytes, and links to nothing, where another repository has the right bytes."""
    world.copied("_several", place)
    blobs = {blob.read_bytes(): blob for blob in RepoPaths(place / "cache", RepoId(MODEL)).blobs.iterdir()}
    blobs[world.bytes[0]].unlink()
    spoil(blobs[world.bytes[3]], b"x" * LARGE)


def _spoilt_alone(world: World, place: Path) -> None:
    """Wrong bytes of which nobody here has the right ones."""
    world.copied("_first", place)
    for blob in RepoPaths(place / "cache", RepoId(MODEL)).blobs.iterdir():
        if len(blob.name) == 64:
            spoil(blob, b"x" * LARGE)


def _bad_catalog(world: World, place: Path) -> None:
    """The catalog is none."""
    world.copied("_several", place)
    world.complete(place, "cache", "ls")
    for path in (place / "catalog").iterdir():
        path.write_bytes(b"no database" * 1000)


def _locked(world: World, place: Path) -> None:
    """A lock file, and nothing of what it names."""
    _empty(world, place)
    world.complete(place, "lock", MODEL, f"{MODEL}@v1", SMALL)


STARTS: Mapping[str, Callable[[World, Path], None]] = {
    function.__name__: function
    for function in (
        _bad_catalog, _empty, _first, _locked, _orphaned, _several, _spoilt, _spoilt_alone, _store, _store_spoilt, _twin, _unfinished,
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
    Scenario("_twin", ("pull", MODEL), {"pull.taken": (1,)}),
    Scenario("_store", ("pull", MODEL), {"pull.shared-noted": (1,)}),
    Scenario("_locked", ("sync",), {"sync.entry-done": (1, 3), "pull.placed": (2, 7), "pull.linked": (9,)}),
    Scenario("_several", ("lock", MODEL, TWIN), {"lock.written": (1,)}),
    Scenario("_several", ("cache", "ls"), {"catalog.begun": (1,), "catalog.rows-written": (1,), "catalog.committed": (1,)}),
    Scenario("_bad_catalog", ("cache", "ls"), {"catalog.rebuilt": (1,), "catalog.begun": (1,), "catalog.rows-written": (1,)}),
    Scenario(
        "_several",
        ("cache", "verify"),
        {"verify.marked": (1, 5), "catalog.begun": (1, 3), "catalog.rows-written": (2, 3), "catalog.committed": (1, 4)},
    ),
    Scenario("_several", ("cache", "gc", "--max-age", "0s", *NOW), {"gc.repo-trashed": (1, 3), "gc.trash-emptied": (1, 3)}),
    Scenario("_several", ("cache", "gc", "--keep-last", "1", *NOW), {"gc.ref-removed": (1,), "gc.snapshot-trashed": (1,), "gc.blob-trashed": (1, 3), "gc.blob-removed": (1, 3)}),
    Scenario(
        "_orphaned",
        ("cache", "prune", *NOW),
        {"gc.snapshot-trashed": (1,), "gc.blob-trashed": (1, 4), "gc.blob-removed": (1, 4), "gc.trash-emptied": (1,)},
    ),
    Scenario("_several", ("cache", "rm", f"{MODEL}:README.md", "--yes"), {"gc.file-removed": (1,)}),
    Scenario("_several", ("cache", "rm", f"{MODEL}@v1", "--yes"), {"gc.ref-removed": (1,)}),
    Scenario("_store", ("cache", "gc", "--max-age", "0s", *NOW), {"gc.shared-removed": (1, 2), "gc.repo-trashed": (1,)}),
    Scenario("_spoilt", ("cache", "repair"), {"repair.copied": (1, 2), "repair.placed": (1, 2), "repair.shown": (1,)}),
    Scenario("_store_spoilt", ("cache", "repair"), {"repair.shared": (1, 2), "repair.placed": (1, 2)}),
    Scenario(
        "_spoilt_alone",
        ("cache", "repair"),
        {"repair.fetched": (1, 2), "pull.range-written": (1, 5), "pull.hashed": (1, 2), "pull.placed": (1, 2)},
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kills")
    with (
        HubServer(root=folder / "served", xet=True) as hub,
        Warm({"HF_ENDPOINT": str(hub.endpoint), "HF_HOME": str(folder / "home")}, folder) as warm,
    ):
        yield World(hub, warm, folder)


def _cases() -> Iterator[Any]:
    for scenario in SCENARIOS:
        for point, times in scenario.points.items():
            for count in times:
                named = f"{' '.join(scenario.command[:2])} {scenario.start} {point}:{count}".replace("org/", "")
                yield pytest.param(scenario, f"{point}:{count}", id=named)


def test_every_point_of_the_table_has_a_scenario() -> None:
    assert {point for scenario in SCENARIOS for point in scenario.points} == set(POINTS)


@pytest.mark.parametrize(("scenario", "point"), [*_cases()])
def test_killed_at(scenario: Scenario, point: str, world: World, tmp_path: Path) -> None:
    place, whole = world.copied(scenario.start, tmp_path / "place"), world.whole(scenario)
    cache = place / "cache"
    before, wrong = contents(cache), faults(cache)

    killed = world.run(place, *scenario.command, point=point)
    assert killed.killed, killed

    assert set(faults(cache)) <= set(wrong), "half of something is visible"
    assert torn(before, contents(cache), whole.contents) == [], "something is lost, or is what it never was"
    missing = still_to_come(cache, whole.blobs)
    world.hub.clear()
    world.complete(place, *scenario.command)
    assert world.received() <= missing
    assert incomplete(cache) == [f"{place}{path}" for path in whole.incomplete]

    world.complete(place, "cache", "prune", *NOW)
    assert leftovers(cache) == []
    assert faults(cache) == []
    assert Whole.of(place) == whole
    assert "all intact" in world.complete(place, "cache", "verify")
    if point.startswith("catalog."):
        _refuse_wrong_catalog(world, place)


def _refuse_wrong_catalog(world: World, place: Path) -> None:
    """What the catalog tells is what a new one would, and SQLite finds nothing wrong with it."""
    (path,) = (place / "catalog").glob("*.sqlite3")
    told = world.complete(place, "cache", "ls", "--json")
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()
    shutil.rmtree(place / "catalog")
    assert world.complete(place, "cache", "ls", "--json") == told


@pytest.mark.parametrize(
    ("command", "point"), [(("pull", MODEL), "pull.placed:2"), (("cache", "gc", "--max-age", "0s", *NOW), "gc.repo-trashed")]
)
def test_the_variable_kills_a_command_of_its_own(command: tuple[str, ...], point: str, world: World, tmp_path: Path) -> None:
    place = world.copied("_first", tmp_path / "place")
    environ = environment(HF_HUB_CACHE=str(place / "cache"), HF_HOME=str(tmp_path), HF_ENDPOINT=str(world.hub.endpoint))
    line = [sys.executable, "-m", "hubclient", *command]
    assert subprocess.run(line, env={**environ, "HUBCLIENT_FAULTPOINT": point}, check=False).returncode == -signal.SIGKILL
    assert faults(place / "cache") == []
    assert subprocess.run(line, env=environ, check=False).returncode == 0
    assert faults(place / "cache") == []
