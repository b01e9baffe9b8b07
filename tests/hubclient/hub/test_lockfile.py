"""A lock file says which bytes; sync brings exactly those, from whatever hub, and refuses others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hubserver import HubServer
from hypothesis import given
from hypothesis import strategies as st

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.trees import TreeEntry
from hubclient.errors import DamagedInput, Offline, SourceMissing, UnsupportedFormat, UsageError
from hubclient.hub.client import Hub
from hubclient.hub.lockfile import Lock, LockEntry, pointer_id, read_lock, write_lock

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000, "onnx/model.onnx": b"o" * 10}
COMMIT, SHA1, SHA256 = "a" * 40, "b" * 40, "c" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hubclient.lock"


def away(hub: Hub) -> Hub:
    """The same cache without a network."""
    return Hub(hub.session.endpoint, cache=hub.cache, offline=True)


def shown(snapshot: Path) -> dict[str, bytes]:
    return {file.relative_to(snapshot).as_posix(): file.read_bytes() for file in snapshot.rglob("*") if file.is_file()}


def test_a_lock_names_the_commit_and_every_digest(hub: Hub, server: HubServer, path: Path):
    repo = server.repo("org/name")
    commit = repo.commit(FILES)
    hub.lock(["org/name"], path)
    (entry,) = json.loads(path.read_text())["repositories"]
    assert entry == {
        "repo": "org/name",
        "type": "model",
        "revision": "main",
        "commit": commit,
        "files": {
            name: {"size": entry.size, entry.digest.algorithm: entry.digest.hex} for name, entry in sorted(repo.entries().items())
        },
    }
    assert not hub.cache.exists()


def test_the_same_state_gives_the_same_file_in_any_order(hub: Hub, server: HubServer, path: Path):
    server.repo("org/a").commit(FILES)
    server.repo("org/b", type="dataset").commit({"train.csv": b"1"})
    hub.lock(["datasets/org/b", "org/a"], path)
    data, modified = path.read_bytes(), path.stat().st_mtime_ns
    path2 = path.with_name("other.lock")
    hub.lock(["org/a"], path2)
    hub.lock(["datasets/org/b"], path2)
    assert path2.read_bytes() == data
    assert not hub.lock((), path).changed and path.stat().st_mtime_ns == modified


def test_without_names_all_are_looked_up_again_chosen_as_they_were(hub: Hub, server: HubServer, path: Path):
    repo = server.repo("org/name")
    first = repo.commit(FILES)
    hub.lock(["org/name", f"org/name@{first}"], path, include=["*.json"])
    second = repo.commit({"new.json": b"[]", "new.bin": b"1"})
    locked = hub.lock((), path)
    assert [(entry.commit, before) for entry, before in zip(locked.changed, locked.before, strict=True)] == [(second, first)]
    assert {entry.commit: set(entry.files) for entry in locked.lock.entries} == {
        first: {"config.json"},
        second: {"config.json", "new.json"},
    }
    with pytest.raises(UsageError):
        hub.lock((), path, include=["*"])
    with pytest.raises(SourceMissing, match=r"no file fits \*\.gguf"):
        hub.lock(["org/name"], path, include=["*.gguf", "*.json"])


def test_named_files_become_patterns(hub: Hub, server: HubServer, path: Path):
    server.repo("org/name").commit({**FILES, "[x].json": b"1", "x.json": b"2"})
    locked = hub.lock(["org/name:config.json", "org/name:[x].json"], path)
    assert set(locked.lock.entries[0].files) == {"config.json", "[x].json"}
    assert not hub.lock((), path).changed


def test_sync_brings_the_locked_bytes_though_the_branch_went_on(hub: Hub, server: HubServer, path: Path):
    repo = server.repo("org/name")
    first = repo.commit(FILES)
    hub.lock(["org/name"], path)
    repo.commit({"config.json": b"[]"})
    (pulled,) = hub.sync(path).pulled
    assert pulled.commit == first and shown(pulled.snapshot) == FILES
    assert (RepoPaths(hub.cache, RepoId("org/name")).refs / "main").read_text() == first
    server.clear()
    for again in (hub.sync(path), hub.sync(path, check=True), away(hub).sync(path, check=True)):
        assert not again.pulled[0].fetched
    assert not server.requests


def test_sync_moves_no_branch_that_is_here_and_says_so(hub: Hub, server: HubServer, path: Path):
    repo = server.repo("org/name")
    repo.commit(FILES)
    hub.lock(["org/name"], path)
    second = repo.commit({"config.json": b"[]"})
    hub.pull("org/name")
    (pulled,) = hub.sync(path).pulled
    assert f"org/name is {second[:12]} here" in pulled.notes[0]
    assert (RepoPaths(hub.cache, RepoId("org/name")).refs / "main").read_text() == second


def test_only_the_locked_files_come(hub: Hub, server: HubServer, path: Path):
    server.repo("org/name").commit(FILES)
    hub.lock(["org/name"], path, exclude=["onnx/"])
    assert set(shown(hub.sync(path).pulled[0].snapshot)) == {"config.json", "model.safetensors"}


def test_offline_the_missing_files_are_named(hub: Hub, server: HubServer, path: Path):
    server.repo("org/name").commit(FILES)
    hub.lock(["org/name"], path)
    hub.pull("org/name", include=["*.json"])
    with pytest.raises(Offline, match=r"2 files are not here \(model.safetensors, onnx/model.onnx\)") as caught:
        away(hub).sync(path)
    assert caught.value.missing == ("model.safetensors", "onnx/model.onnx") and "`hubclient sync " in str(caught.value.hint)


def test_damage_is_found_by_check_and_mended(hub: Hub, server: HubServer, path: Path):
    server.repo("org/name").commit(FILES)
    hub.lock(["org/name"], path)
    blob = (hub.sync(path).pulled[0].snapshot / "model.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"x" * 1000)
    assert not hub.sync(path).pulled[0].fetched
    with pytest.raises(Offline, match=r"1 file is damaged \(model.safetensors\)"):
        away(hub).sync(path, check=True)
    (pulled,) = hub.sync(path, check=True).pulled
    assert pulled.fetched == ("model.safetensors",) and shown(pulled.snapshot) == FILES


@pytest.mark.parametrize("change", ["digest", "size", "name"])
def test_a_hub_that_answers_otherwise_is_refused(hub: Hub, server: HubServer, path: Path, change: str):
    server.repo("org/name").commit(FILES)
    hub.lock(["org/name"], path)
    content = json.loads(path.read_text())
    files = content["repositories"][0]["files"]
    if change == "name":
        files["other.bin"] = files.pop("config.json")
    else:
        files["config.json"] |= {"git-sha1": SHA1} if change == "digest" else {"size": 3}
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedInput, match=r"hubclient.lock: org/name@.*(config.json|other.bin)"):
        hub.sync(path)
    assert not server.asked("/resolve/") and not hub.cache.exists()


def test_offline_a_commit_of_which_no_list_was_kept_is_not_locked(hub: Hub, server: HubServer, path: Path):
    commit = server.repo("org/name").commit(FILES)
    hub.pull("org/name")
    assert away(hub).lock(["org/name"], path).lock.entries[0].commit == commit
    RepoPaths(hub.cache, RepoId("org/name")).tree(commit).unlink()
    with pytest.raises(Offline, match="cannot be told offline"):
        away(hub).lock((), path)


@pytest.mark.parametrize(
    "point", ["lock.written", "sync.entry-done", "sync.entry-done:2", "pull.linked:2", "pull.tree-written:2"]
)
def test_a_killed_run_is_completed_by_the_next(hub: Hub, server: HubServer, path: Path, point: str):
    for name in ("org/a", "org/b"):
        server.repo(name).commit(FILES)
    code = "import sys; from hubclient.hub.client import Hub; h = Hub(); h.lock(sys.argv[2:], sys.argv[1]); h.sync(sys.argv[1])"
    command = [sys.executable, "-c", code, str(path), "org/a", "org/b"]
    done = subprocess.run(command, env=os.environ | {"HUBCLIENT_FAULTPOINT": point}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(read_lock(path).entries) == 2
    for pulled in hub.sync(path, check=True).pulled:
        assert {name: file.read_bytes() for name, file in pulled.files.items()} == FILES


# The file itself

ENTRY: dict[str, Any] = {
    "repo": "org/name",
    "type": "model",
    "revision": "main",
    "commit": COMMIT,
    "files": {"a": {"size": 1, "git-sha1": SHA1}, "b": {"size": 2, "sha256": SHA256}},
}


def broken(**changes: Any) -> dict[str, Any]:
    return {"lockfile_version": 1, "repositories": [{**ENTRY, **changes}]}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"lockfile_version": 1},
        {"lockfile_version": "1", "repositories": []},
        {"lockfile_version": 1, "repositories": {}},
        {"lockfile_version": 1, "repositories": [], "more": 1},
        {"lockfile_version": 1, "repositories": [1]},
        {"lockfile_version": 1, "repositories": [ENTRY, ENTRY]},
        broken(repo="../x"),
        broken(repo=1),
        broken(type="thing"),
        broken(revision="../x"),
        broken(commit="main"),
        broken(commit=COMMIT.upper()),
        broken(files=[]),
        broken(files={"../x": {"size": 1, "git-sha1": SHA1}}),
        broken(files={"/x": {"size": 1, "git-sha1": SHA1}}),
        broken(files={"x": {"size": 1, "git-sha1": SHA1}, "X": {"size": 1, "git-sha1": SHA1}}),
        broken(files={"x": {"size": 1}}),
        broken(files={"x": {"size": -1, "git-sha1": SHA1}}),
        broken(files={"x": {"size": 1 << 62, "git-sha1": SHA1}}),
        broken(files={"x": {"size": True, "git-sha1": SHA1}}),
        broken(files={"x": {"size": 1, "sha256": SHA1}}),
        broken(files={"x": {"size": 1, "md5": SHA1}}),
        broken(files={"x": {"size": 1, "git-sha1": SHA1, "sha256": SHA256}}),
        broken(files={"x": {"size": 1, "git-sha1": SHA1.upper()}}),
        broken(files={"x": []}),
        broken(include="*"),
        broken(include=[1]),
        broken(exclude=[""]),
        broken(**{"for": 1}),
        broken(**{"for": "../gguf"}),
        broken(more=1),
    ],
)
def test_a_lock_file_of_any_other_shape_is_refused_by_name(path: Path, content: Any):
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedInput, match=r"hubclient\.lock: "):
        read_lock(path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}'])
def test_what_is_no_json_is_refused_by_name(path: Path, data: bytes):
    path.write_bytes(data)
    with pytest.raises(DamagedInput, match=r"hubclient\.lock: "):
        read_lock(path)


def test_a_newer_version_and_no_file_are_told_apart(path: Path):
    with pytest.raises(SourceMissing, match="there is no such lock file"):
        read_lock(path)
    path.write_text('{"lockfile_version": 2, "repositories": {}}')
    with pytest.raises(UnsupportedFormat, match="version 2"):
        read_lock(path)


NAMES = st.text("abcXYZ019_", min_size=1, max_size=8).map(lambda text: f"n{text}")
DIGITS = st.integers(0, 16**40 - 1).map(lambda number: f"{number:040x}")
ENTRIES = st.builds(TreeEntry, st.integers(0, (1 << 62) - 1), DIGITS)
LOCKED = st.builds(
    LockEntry,
    st.builds(Asked, st.builds(RepoId, NAMES, st.sampled_from(["model", "dataset", "space"])), NAMES),
    DIGITS,
    st.dictionaries(NAMES, ENTRIES, max_size=4),
    st.lists(NAMES, max_size=2).map(tuple),
    st.lists(NAMES, max_size=2).map(tuple),
    st.none() | st.sampled_from(["gguf", "mlx"]),
)


@given(st.lists(LOCKED, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, entries: list[LockEntry]):
    path = tmp_path_factory.mktemp("lock") / "lock"
    folded = [entry for entry in entries if len({name.casefold() for name in entry.files}) == len(entry.files)]
    lock = Lock().with_entries(tuple(folded))
    write_lock(path, lock)
    assert read_lock(path) == lock


def test_the_pointer_of_a_large_file_is_the_hubs(server: HubServer):
    server.repo("org/name").commit(FILES)
    entry = server.repo("org/name").entries()["model.safetensors"]
    assert pointer_id(entry.digest, entry.size) == entry.blob_id
