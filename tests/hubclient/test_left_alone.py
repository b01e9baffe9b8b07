"""A cache as any of the programs that share it leaves it: no command changes a byte of it that it was not asked to change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import checkpoints
import pytest
from cachelayouts import FOLDER, LAYOUTS, PEER, Entry, age, is_note, listing
from cachemaking import LARGE, make
from hubserver import HubServer
from inprocess import Said, hubclient
from soundness import bytes_on_disk

OWN = "ours/other"
OLD = "ours/old"  # not used for longer than anything else
NEW = "ours/new"  # only on the hub
NEWEST = {"config.json": b"{}", "weights.bin": b"w" * 1000, "empty.txt": b""}
WHOLE = [name for name, layout in LAYOUTS.items() if layout.whole]
INTACT = [name for name in WHOLE if LAYOUTS[name].intact]


@dataclass(frozen=True)
class Place:
    """A cache with a layout in it, and repositories of ours beside that."""

    cache: Path
    layout: str
    commit: str
    own: str  # the commit of `ours/other`
    out: Path

    def state(self) -> dict[str, Entry]:
        """All that is nobody's business but the peers'."""
        return listing(self.cache, lambda path: is_note(path) or _is_ours(path))

    def whole_state(self) -> dict[str, Entry]:
        """All but notes."""
        return listing(self.cache, is_note)


def _is_ours(path: str) -> bool:
    return "models--ours--" in path or path in (".locks", "CACHEDIR.TAG")  # folders and a tag that the first writer makes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model that can be inspected and converted, with an empty file and a folder."""
    folder = checkpoints.llama(tmp_path_factory.mktemp("made") / "llama")
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"empty.txt": b"", "a/b/notes.md": b"# Notes"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("served")) as running:
        for name, content in ((PEER, files), (NEW, NEWEST)):
            running.repo(name).commit(content, lfs=lambda name, size: size >= LARGE)
        yield running


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HubServer, files: dict[str, bytes]) -> Callable[[str], Place]:
    """Makes the cache with a layout in it, two days old, which is the environment's cache, too."""
    cache, out = tmp_path / "hub", tmp_path / "out"
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in (("HF_HOME", tmp_path / "home"), ("HF_HUB_CACHE", cache), ("HF_ENDPOINT", server.endpoint)):
        monkeypatch.setenv(name, str(value))

    def made(layout: str) -> Place:
        cache.mkdir()
        out.mkdir()
        (commit,) = server.repo(PEER).commits
        LAYOUTS[layout].build(cache, files, commit)
        make(cache, {"a.txt": b"a", "b.bin": b"b" * 300}, OWN, commit="1" * 40)
        make(cache, {"c.bin": b"c" * 500_000}, OLD, commit="2" * 40)
        age(cache, 2)
        age(cache / "models--ours--old", 400)
        server.clear()
        return Place(cache, layout, commit, "1" * 40, out)

    monkeypatch.setattr("hubclient.cache.retention.removal.SETTLE", 0.01)
    monkeypatch.chdir(tmp_path)
    return made


def _room(place: Place) -> str:
    return str(bytes_on_disk(place.cache) - 100_000)


READING: Mapping[str, Callable[[Place], list[str]]] = {
    "ls": lambda place: ["cache", "ls", "--json"],
    "show": lambda place: ["cache", "show", PEER],
    "stats": lambda place: ["cache", "stats"],
    "verify": lambda place: ["cache", "verify"],
    "verify-one": lambda place: ["cache", "verify", f"{PEER}@{place.commit}", "--again"],
    "pin": lambda place: ["cache", "pin", f"{PEER}@{place.commit}"],
    "unpin": lambda place: ["cache", "unpin", PEER],
    "gc-dry-run": lambda place: ["cache", "gc", "--max-size", "1", "--keep-last", "0", "--dry-run"],
    "prune-dry-run": lambda place: ["cache", "prune", "--grace", "0", "--dry-run"],
    "pull-offline": lambda place: ["pull", OWN, "--offline"],
    "info": lambda place: ["info", NEW],
}
WRITING: Mapping[str, Callable[[Place], list[str]]] = {
    "gc-age": lambda place: ["cache", "gc", "--max-age", "300d", "--yes"],
    "gc-size": lambda place: ["cache", "gc", "--max-size", _room(place), "--yes"],
    "rm": lambda place: ["cache", "rm", OWN, "--yes"],
    "rm-revision": lambda place: ["cache", "rm", f"{OWN}@{place.own}", "--yes"],
    "rm-file": lambda place: ["cache", "rm", f"{OWN}:b.bin", "--yes"],
    "pull": lambda place: ["pull", NEW],
    "lock": lambda place: ["lock", NEW],
}


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_only_looks_changes_nothing(place: Callable[[str], Place], layout: str, command: str):
    here = place(layout)
    before = here.whole_state()
    said = hubclient(*READING[command](here))
    assert here.whole_state() == before
    wrong = command.startswith("verify") and not (LAYOUTS[layout].intact or command == "verify-one")
    assert said.code == wrong, said


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_changes_something_changes_nothing_else(place: Callable[[str], Place], layout: str, command: str):
    here = place(layout)
    before, ours = here.state(), _ours(here)
    said = hubclient(*WRITING[command](here))
    assert said.code == 0, said
    after = here.state()
    gone = {path for path in before.keys() - after.keys() if not (command.startswith("gc") and _leads_nowhere(path, layout))}
    assert not gone and {path: before[path] for path in after} == after
    assert (_ours(here) != ours) == (command != "lock"), "it did what it was asked for"


def _ours(place: Place) -> set[str]:
    return {path.as_posix() for path in place.cache.glob("models--ours--*/**/*") if ".hubclient" not in path.as_posix()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_repair_from_this_machine_changes_nothing_that_is_right(place: Callable[[str], Place], layout: str):
    here = place(layout)
    before = here.whole_state()
    said = hubclient("cache", "repair", "--offline")
    after = here.whole_state()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert said.code in ((0,) if LAYOUTS[layout].intact else (0, 1)), said
    mendable = ("models--peers--lost-blob/", "models--peers--spoilt/", "models--peers--broken-tree/")
    assert all(path.startswith(mendable) for path in changed), changed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prune_takes_what_is_of_no_use_and_nothing_else(place: Callable[[str], Place], layout: str):
    here = place(layout)
    before = here.whole_state()
    said = hubclient("cache", "prune", "--yes")
    assert said.code == 0, said
    after = here.whole_state()
    gone = before.keys() - after.keys()
    assert {path: after[path] for path in after if path != ".locks"} == {
        path: before[path] for path in before.keys() - gone if path != ".locks"
    }
    assert all(_is_useless(path, layout, here.commit) for path in gone), gone


def _is_useless(path: str, layout: str, commit: str) -> bool:
    """What no branch or tag names, and what leads nowhere."""
    if layout == "hub-detached":
        return commit not in path and not path.startswith(f"{FOLDER}/refs")
    return _leads_nowhere(path, layout)


def _leads_nowhere(path: str, layout: str) -> bool:
    """Branches and tags of snapshots that are not here, repositories without any, locks from before there was a folder of them."""
    nowhere = ("models--peers--lost-snapshot/refs/gone", "models--peers--no-snapshots")
    return (layout == "hub-broken" and path.startswith(nowhere)) or (layout == "hub-ancient" and path.endswith(".lock"))


@pytest.mark.parametrize("layout", WHOLE)
def test_what_somebody_brought_is_not_fetched_again(place: Callable[[str], Place], server: HubServer, layout: str):
    here = place(layout)
    before = here.state()
    said = hubclient("pull", PEER)
    assert said.code == 0 and said.out.strip() == str(here.cache / FOLDER / "snapshots" / here.commit), said
    assert not server.asked("/resolve/") and "were here" in said.err
    listed = {f"{FOLDER}/trees", f"{FOLDER}/trees/{here.commit}.json"}  # what a program without lists left without one
    after = here.state()
    assert {path: after[path] for path in before} == before and after.keys() - before.keys() <= listed
    server.clear()
    assert hubclient("pull", PEER, "--check", "--offline").out == said.out and not server.requests


@pytest.mark.parametrize("layout", ["hub-loading", "llama-loading"])
def test_what_somebody_is_downloading_is_fetched_beside_it(place: Callable[[str], Place], server: HubServer, layout: str, files):
    here = place(layout)
    before = here.state()
    assert hubclient("pull", PEER).code == 0
    after = here.state()
    assert {path: after[path] for path in before} == before
    snapshot = here.cache / FOLDER / "snapshots" / here.commit
    assert {name: (snapshot / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("layout", WHOLE)
def test_models_are_looked_at_and_converted_where_they_lie(place: Callable[[str], Place], server: HubServer, layout: str):
    here = place(layout)
    before = here.whole_state()
    for arguments in (["inspect", PEER], ["convert", PEER, "out/made.gguf", "--to", "gguf", "--offline"]):
        said = hubclient(*arguments)
        assert said.code == 0, said
    after = here.whole_state()
    listed = {f"{FOLDER}/trees", f"{FOLDER}/trees/{here.commit}.json"}
    assert {path: after[path] for path in before} == before and after.keys() - before.keys() <= listed
    assert not server.asked("/resolve/") and (here.out / "made.gguf").is_file()


@pytest.mark.parametrize("layout", INTACT)
def test_what_a_lock_file_names_is_found(place: Callable[[str], Place], server: HubServer, layout: str):
    here = place(layout)
    before = here.state()
    for arguments in (["lock", PEER], ["sync"], ["sync", "--check", "--offline"]):
        said = hubclient(*arguments)
        assert said.code == 0, said
    after = here.state()
    assert not server.asked("/resolve/")
    listed = {f"{FOLDER}/trees", f"{FOLDER}/trees/{here.commit}.json"}
    assert {path: after[path] for path in before} == before and after.keys() - before.keys() <= listed


def test_a_pinned_repository_of_a_peer_survives_all_that_removes(place: Callable[[str], Place]):
    here = place("hub-detached")
    assert hubclient("cache", "pin", PEER).code == 0
    before = here.state()
    for arguments in (
        ["gc", "--max-size", "1", "--grace", "0"],
        ["gc", "--keep-last", "0", "--grace", "0"],
        ["prune", "--grace", "0"],
    ):
        assert hubclient("cache", *arguments, "--yes").code == 0
    refused = hubclient("cache", "rm", PEER, "--yes")
    assert refused.code == 2 and "pinned" in refused.sentence
    assert here.state() == before
    assert not _ours(here), "what nothing keeps went"


def test_removing_one_of_two_that_share_leaves_the_other_whole(place: Callable[[str], Place]):
    here = place("hub-store")
    before = listing(here.cache, lambda path: is_note(path) or FOLDER in path or path.endswith(".refs"))
    twin: Said = hubclient("cache", "rm", PEER, "--yes")
    assert twin.code == 0, twin
    after = listing(here.cache, lambda path: is_note(path) or path.endswith(".refs") or path == ".locks")
    assert after == before and hubclient("cache", "verify").code == 0
    assert not any(FOLDER in path.read_text() for path in here.cache.glob("blobs/*/*.refs"))
    assert hubclient("cache", "rm", "peers/twin", "--yes").code == 0
    assert not [path for path in here.cache.glob("blobs/??/*") if path.suffix not in (".lock",)]
