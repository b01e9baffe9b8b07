"""What is killed in tests: a hub with repositories, caches as they may be, commands; and the judgement of what a kill leaves.

Whatever the command, three caches tell whether all is well: as it was before, as the kill left it, and as the command leaves
it when nobody kills it.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachemaking import spoil
from hubserver import HubServer
from huggingface_hub.utils import _shared_blobs
from killing import Done, Warm
from soundness import contents, faults, incomplete, leftovers, still_to_come, torn

from hubclient.cache.catalog.file import catalog_path
from hubclient.cache.layout import RepoId, RepoPaths

MODEL, TWIN, SMALL = "org/model", "org/twin", "org/small"
NOW = ("--grace", "0s", "--yes")

# As with files a hundred times as large.
QUICK: Mapping[str, Any] = {
    "hubclient.hub.transfer.fetch._SMALL": 64 << 10,
    "hubclient.hub.transfer.large.STEP": 256 << 10,
    "hubclient.cache.integrity.marks.EVERY_BYTES": 1,
    "hubclient.cache.retention.removal.SETTLE": 0.01,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A cache to start from (STARTS), and a command."""

    start: str
    command: tuple[str, ...]


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


@contextmanager
def running_world(folder: Path, large: int = 900 << 10, tweaks: Mapping[str, Any] = QUICK) -> Iterator[World]:
    """A world in `folder`, with files of `large` bytes and commands that have other constants than usual."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        HubServer(root=folder / "served", xet=True) as hub,
        Warm({"HF_ENDPOINT": str(hub.endpoint), "HF_HOME": str(folder / "home")}, folder) as warm,
    ):
        yield World(hub, warm, folder, large, tweaks)


class World:
    """A hub with repositories, a process to fork commands from, and caches that are made once and copied."""

    def __init__(self, hub: HubServer, warm: Warm, folder: Path, large: int, tweaks: Mapping[str, Any]) -> None:
        self.hub, self.warm, self.folder, self._tweaks = hub, warm, folder, tweaks
        self.spoilt = b"x" * large
        self._made: dict[str, Path] = {}
        self._whole: dict[Scene, Whole] = {}
        chance = random.Random(5)
        self.bytes = [chance.randbytes(large + number) for number in range(4)]
        same = {"tokenizer.json": b"{}" * 99, "onnx/vocab.txt": b"a\nb\n", "README.md": b"# model"}
        model = hub.repo(MODEL)
        model.commit({"config.json": b"{}", "a.safetensors": self.bytes[0], "b.safetensors": self.bytes[1], **same})
        model.tag("v1")
        self.v1 = model.refs["refs/heads/main"]
        model.commit({"config.json": b'{"v": 2}', "a.safetensors": self.bytes[2], "b.safetensors": self.bytes[3]})
        hub.repo(TWIN).commit({"config.json": b"{ }", "a.safetensors": self.bytes[0], "c.safetensors": self.bytes[3]})
        hub.repo(SMALL).commit({f"{number}.txt": b"%d" % number * 99 for number in range(4)})

    def run(self, place: Path, *arguments: str, version: str = "", **how: Any) -> Done:
        """A command on the cache in `place`, whose lock file it finds there, too; `version` is what it calls itself."""
        tweaks = {**self._tweaks, "hubclient.__version__": version} if version else self._tweaks
        environ = {"HF_HUB_CACHE": str(place / "cache"), "HUBCLIENT_CATALOG": str(place / "catalog")}
        return self.warm.run(
            *(argument.format(v1=self.v1) for argument in arguments),
            **{"environ": environ, "cwd": place, "tweaks": tweaks, **how},
        )

    def complete(self, place: Path, *arguments: str) -> str:
        """A command that must succeed; what it says."""
        done = self.run(place, *arguments)
        assert done.status == 0, done.out
        return done.out

    def copied(self, start: str, to: Path) -> Path:
        """A place of that kind, of one's own. What was one file of two names is two files in it."""
        if start not in self._made:
            made = Path(tempfile.mkdtemp(dir=self.folder)) / start
            STARTS[start](self, made)
            self._made[start] = made
        shutil.copytree(self._made[start], to, symlinks=True)
        for path in to.rglob("*"):  # to be read is to be used, and copying reads in no certain order
            if path.is_file() and not path.is_symlink():
                os.utime(path, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
        for path in to.glob("catalog/*"):  # is called after the cache's place
            new = catalog_path(to / "cache", {"HUBCLIENT_CATALOG": str(to / "catalog")})
            path.rename(new.with_name(new.stem + path.name.partition(".")[2].join((".", ""))))
        return to

    def whole(self, scene: Scene) -> Whole:
        """How the place looks after the command if nobody kills it, and all that is of no use is gone."""
        if scene not in self._whole:
            place = self.copied(scene.start, Path(tempfile.mkdtemp(dir=self.folder)) / "place")
            self.complete(place, *scene.command)
            self.complete(place, "cache", "prune", *NOW)
            self._whole[scene] = Whole.of(place)
            shutil.rmtree(place)
        return self._whole[scene]

    def received(self, version: str) -> int:
        """Bytes of files that the hub has sent to a hubclient that calls itself by that version.

        What a killed one has asked for last may come in later, and is none of the others' business.
        """
        asked = [one for one in [*self.hub.requests] if f"hubclient/{version};" in one.headers.get("user-agent", "")]
        files = [one for one in asked if one.method == "GET" and (one.origin == "cdn" or "/resolve/" in one.path)]
        return sum(one.sent_bytes for one in files if one.status in (200, 206))


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
            spoil(link, world.spoilt)


def _spoilt(world: World, place: Path) -> None:
    """Wrong bytes, and links to nothing, where another repository has the right bytes."""
    world.copied("_several", place)
    blobs = {blob.read_bytes(): blob for blob in RepoPaths(place / "cache", RepoId(MODEL)).blobs.iterdir()}
    blobs[world.bytes[0]].unlink()
    spoil(blobs[world.bytes[3]], world.spoilt)


def _spoilt_alone(world: World, place: Path) -> None:
    """Wrong bytes of which nobody here has the right ones."""
    world.copied("_first", place)
    for blob in RepoPaths(place / "cache", RepoId(MODEL)).blobs.iterdir():
        if len(blob.name) == 64:
            spoil(blob, world.spoilt)


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


class Trial:
    """A scene that is played in `place`, with kills: what is wrong after them, and once the command has been completed."""

    def __init__(self, world: World, scene: Scene, place: Path) -> None:
        self.world, self.scene = world, scene
        self.whole = world.whole(scene)
        self.place = world.copied(scene.start, place)
        self.cache = self.place / "cache"
        self._before, self._wrong = contents(self.cache), set(faults(self.cache))

    def play(self, **how: Any) -> Done:
        """The command, however it ends."""
        return self.world.run(self.place, *self.scene.command, **how)

    def wrong(self) -> list[str]:
        """What no moment may show: half of something, something lost, something that neither was nor will be."""
        lost = [
            f"{path}: neither as before nor as after" for path in torn(self._before, contents(self.cache), self.whole.contents)
        ]
        return [fault for fault in faults(self.cache) if fault not in self._wrong] + lost

    def wrong_when_completed(self) -> list[str]:
        """What is wrong once the same command was given again, and what is of no use was removed."""
        missing = still_to_come(self.cache, self.whole.blobs)
        self.world.hub.clear()
        again = self.world.run(self.place, *self.scene.command, version="again")
        found = [f"exit status {again.status}: {again.out}"] if again.status else []
        if (received := self.world.received("again")) > missing:
            found.append(f"{received:,} bytes were fetched, where {missing:,} were missing")
        found += [
            f"{path}: missing"
            for path in incomplete(self.cache)
            if path.removeprefix(str(self.place)) not in self.whole.incomplete
        ]
        for command in (("cache", "prune", *NOW), ("cache", "verify")):
            done = self.world.run(self.place, *command)
            if done.status:
                found.append(f"{' '.join(command)}: exit status {done.status}: {done.out}")
        found += [f"{path}: is left" for path in leftovers(self.cache)] + faults(self.cache)
        now = Whole.of(self.place)
        different = {**now.contents, **self.whole.contents}.items() - (now.contents.items() & self.whole.contents.items())
        return (
            found
            + [f"{path}: is not as it should be" for path, _ in sorted(different)]
            + ["the lock file"] * (now.lock != self.whole.lock)
        )
