"""What is bad in a cache is fetched again, and nothing else is; what cannot be had is told, and stays as it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cachemaking import make, sha256, spoil, state, xet
from hubserver import HubServer

from hubclient.cache.integrity.findings import Finding
from hubclient.cache.integrity.verify import verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.sharedstore import entry_path
from hubclient.hub.net.session import Session
from hubclient.hub.pull import carry_out
from hubclient.hub.pullplan import plan_pull
from hubclient.hub.repair import repair

ROOT = Path(__file__).resolve().parent.parent.parent.parent
WEIGHTS = random.Random(8).randbytes(200_000)
SMALL = b'{"model_type": "llama"}'
NAME = RepoId("org/name")


@pytest.fixture
def session(server: HubServer) -> Session:
    return Session.of(server.endpoint, token=False, offline=False)


@pytest.fixture
def pulled(server: HubServer, session: Session, cache: Path) -> tuple[RepoPaths, str]:
    """A repository and its commit, on the hub and in the cache."""
    commit = server.repo("org/name").commit({"config.json": SMALL, "model.safetensors": WEIGHTS, "a/copy.bin": WEIGHTS})
    carry_out(session, plan_pull(session, cache, NAME))
    server.requests.clear()
    return RepoPaths(cache, NAME), commit


def files_asked(server: HubServer) -> list[str]:
    return [request.path for request in server.requests if "/resolve/" in request.path and request.origin == "hub"]


def content(paths: RepoPaths, commit: str) -> dict[str, bytes]:
    return {name: (paths.snapshot(commit) / name).read_bytes() for name in ("config.json", "model.safetensors", "a/copy.bin")}


GOOD = {"config.json": SMALL, "model.safetensors": WEIGHTS, "a/copy.bin": WEIGHTS}


def test_nothing_is_asked_for_where_nothing_is_bad(server: HubServer, session: Session, cache: Path, pulled):
    before = state(cache)
    done = repair(session, cache)
    assert done.ok and not (done.mended or done.fetched) and not server.requests and state(cache) == before


@pytest.mark.parametrize("bad", [WEIGHTS[::-1], WEIGHTS[:-1], WEIGHTS + b"x", b""])
@pytest.mark.parametrize("tree", [True, False])
def test_only_what_is_bad_is_fetched(server: HubServer, session: Session, cache: Path, pulled, bad: bytes, tree: bool):
    paths, commit = pulled
    spoil(paths.blob(sha256(WEIGHTS)), bad)
    if not tree:
        paths.tree(commit).unlink()
    done = repair(session, cache)
    assert done.ok and [finding.files for finding in done.fetched] == [("a/copy.bin", "model.safetensors")]
    assert done.received == len(WEIGHTS) and verify(cache).ok and content(paths, commit) == GOOD
    assert all("config.json" not in path and commit in path for path in files_asked(server))
    assert tree == (not [request for request in server.requests if "/tree/" in request.path])
    assert json.loads(json.dumps(done.as_json()))["ok"] is True


def test_copies_on_this_machine_come_first(server: HubServer, session: Session, cache: Path, pulled):
    paths, commit = pulled
    make(cache, {"other": WEIGHTS}, "org/other")
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS[::-1])
    spoil(paths.snapshot(commit) / "config.json", b"x" * len(SMALL))
    done = repair(session, cache)
    assert done.ok and len(done.mended) == 1 and [finding.files for finding in done.fetched] == [("config.json",)]
    assert done.received == len(SMALL) and content(paths, commit) == GOOD


def test_lost_bytes_and_links_are_brought_back(session: Session, cache: Path, pulled):
    paths, commit = pulled
    paths.blob(sha256(WEIGHTS)).unlink()
    (paths.snapshot(commit) / "config.json").unlink()
    (paths.snapshot(commit) / "config.json").symlink_to("/etc/hostname")
    done = repair(session, cache)
    assert done.ok and verify(cache).ok and content(paths, commit) == GOOD
    assert done.received == len(WEIGHTS)  # the small file's blob was here


@pytest.mark.parametrize("style", ["copy", "moved", "hardlink"])
def test_files_that_are_no_links_are_mended(server: HubServer, session: Session, cache: Path, style: str):
    files = {"config.json": SMALL, "model.safetensors": WEIGHTS, "a/copy.bin": WEIGHTS + b"2"}
    commit = server.repo("org/name").commit(files)
    paths = make(cache, files, commit=commit, style=style)
    for name in ("config.json", "model.safetensors"):
        spoil(paths.snapshot(commit) / name, files[name][::-1])
    for left in () if style == "hardlink" else (paths.blob(sha256(WEIGHTS)),):
        left.unlink(missing_ok=True)
    done = repair(session, cache)
    assert done.ok and verify(cache).ok and content(paths, commit) == files


def test_a_bad_entry_of_the_shared_store_is_fetched_once_for_all(server: HubServer, session: Session, cache: Path):
    files = {"model.safetensors": WEIGHTS}
    all_paths = []
    for name in ("org/a", "org/b", "org/c"):
        commit = server.repo(name).commit(files)
        all_paths.append(make(cache, files, name, commit=commit, style="shared"))
    spoil(entry_path(cache, xet(WEIGHTS)), WEIGHTS[::-1])
    done = repair(session, cache)
    assert done.ok and done.received == len(WEIGHTS) and verify(cache).ok
    assert all(paths.blob(sha256(WEIGHTS)).resolve() == entry_path(cache, xet(WEIGHTS)).resolve() for paths in all_paths)


def test_a_broken_tree_is_asked_for_again(session: Session, cache: Path, pulled):
    paths, commit = pulled
    before = json.loads(paths.tree(commit).read_text())
    paths.tree(commit).write_text('{"format_version": 1, "files":')
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS[::-1])
    done = repair(session, cache)
    assert done.ok and sorted(finding.kind for finding in done.fetched) == ["damaged", "tree"]
    assert json.loads(paths.tree(commit).read_text()) == before and verify(cache).ok


def test_what_the_hub_has_no_more_stays_and_is_told(server: HubServer, session: Session, cache: Path, pulled):
    paths, commit = pulled
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS[::-1])
    spoil(paths.snapshot(commit) / "config.json", SMALL[::-1])
    server.fault(action="status", path="*model.safetensors*", status=404)
    server.fault(action="status", path="*copy.bin*", status=404)
    before = (paths.snapshot(commit) / "model.safetensors").read_bytes()
    done = repair(session, cache)
    assert not done.ok and [left.finding.files for left in done.left] == [("a/copy.bin", "model.safetensors")]
    assert "model.safetensors" in str(done.left[0]) or "copy.bin" in str(done.left[0])
    assert (paths.snapshot(commit) / "model.safetensors").read_bytes() == before
    assert (paths.snapshot(commit) / "config.json").read_bytes() == SMALL
    assert not list(paths.blobs.glob("*.tmp"))


def test_bytes_that_come_wrong_are_not_placed(server: HubServer, session: Session, cache: Path, pulled):
    paths, commit = pulled
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS[::-1])
    server.fault(action="flip", origin="cdn", path="*", times=50)
    before = (paths.snapshot(commit) / "model.safetensors").read_bytes()
    done = repair(session, cache)
    assert not done.ok and (paths.snapshot(commit) / "model.safetensors").read_bytes() == before
    server.clear()
    assert repair(session, cache).ok and content(paths, commit) == GOOD


def test_offline_it_says_what_is_needed_by_name_and_the_command(server: HubServer, cache: Path, pulled):
    paths, _ = pulled
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS[::-1])
    before = state(cache)
    done = repair(Session.of(server.endpoint, offline=True), cache)
    (left,) = done.left
    assert "model.safetensors" in str(left) and left.hint and "hubclient cache repair org/name" in left.hint
    assert not server.requests and state(cache) == before


def test_what_only_a_pull_can_mend_says_so(server: HubServer, session: Session, cache: Path, pulled):
    paths, _ = pulled
    (paths.refs / "v1").write_text("c" * 40)
    orphan = paths.blob(sha256(b"orphan"))
    orphan.write_bytes(b"damaged")
    done = repair(session, cache)
    assert sorted(left.hint.partition("`")[2].partition("`")[0] for left in done.left if left.hint) == [
        "hubclient cache prune",
        "hubclient pull org/name@v1",
    ]
    assert orphan.read_bytes() == b"damaged" and not server.requests


def test_findings_may_be_given(session: Session, cache: Path, pulled):
    paths, commit = pulled
    spoil(paths.snapshot(commit) / "config.json", b"")
    spoil(paths.blob(sha256(WEIGHTS)), b"")
    found = [finding for finding in verify(cache).findings if "config.json" in finding.files]
    assert repair(session, cache, findings=found).ok
    assert [finding.files for finding in verify(cache).failures] == [("a/copy.bin", "model.safetensors")]


def test_a_file_that_the_commit_does_not_have_is_left(session: Session, cache: Path, pulled):
    paths, commit = pulled
    (paths.snapshot(commit) / "planted.py").symlink_to("/etc/hostname")
    (left,) = repair(session, cache).left
    assert "planted.py" in str(left) and left.finding.kind == "outside"


def test_a_planted_folder_is_left(session: Session, cache: Path, pulled, tmp_path: Path):
    paths, _ = pulled
    found = [Finding("damaged", NAME, sha256(WEIGHTS), expected=None)]
    assert not repair(session, cache, findings=found).ok
    spoil(paths.blob(sha256(WEIGHTS)), b"")
    found = list(verify(cache).findings)
    shutil.move(paths.blobs, tmp_path / "elsewhere")
    paths.blobs.symlink_to(tmp_path / "elsewhere")
    done = repair(session, cache, findings=found)
    assert not done.ok and (tmp_path / "elsewhere" / sha256(WEIGHTS)).read_bytes() == b""


KILLED = """
import sys
from pathlib import Path
from hubclient.hub.repair import repair
from hubclient.hub.net.session import Session
done = repair(Session.of(token=False), Path(sys.argv[1]))
assert done.ok, done
"""
POINTS = [
    "repair.copied",
    "repair.shared",
    "repair.placed",
    "repair.shown",
    "repair.fetched",
    "pull.hashed",
    "pull.placed",
    "verify.marked",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_repair_shows_old_bytes_or_good_ones_and_the_next_one_completes(
    server: HubServer, cache: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    files = {"config.json": SMALL, "model.safetensors": WEIGHTS, "a/copy.bin": WEIGHTS + b"2"}
    commit = server.repo("org/name").commit(files)
    paths = make(cache, files, commit=commit, style="shared")
    other = make(cache, {"x": WEIGHTS + b"2"}, "org/other")
    bad = {name: data[::-1] for name, data in files.items()}
    for name, data in bad.items():
        spoil(paths.snapshot(commit) / name, data)
    (paths.snapshot(commit) / "config.json").unlink()
    (paths.snapshot(commit) / "config.json").symlink_to("../../blobs/nothing")
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    for turn in (1, 1, 2):
        env = {**os.environ, "HUBCLIENT_FAULTPOINT": f"{point}:{turn}"}
        done = subprocess.run([sys.executable, "-c", KILLED, str(cache)], env=env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        for name in ("model.safetensors", "a/copy.bin"):
            assert (paths.snapshot(commit) / name).read_bytes() in (files[name], bad[name])
    session = Session.of(server.endpoint, token=False)
    assert repair(session, cache).ok and verify(cache).ok
    assert content(paths, commit) == files and (other.snapshot("a" * 40) / "x").read_bytes() == WEIGHTS + b"2"


def test_beside_names_that_not_every_system_holds_files_are_mended(server: HubServer, session: Session, cache: Path):
    files = {"a:b.bin": WEIGHTS, "README.md": b"large", "readme.md": b"small"}
    commit = server.repo("org/name").commit(files)
    paths = make(cache, files, commit=commit)
    for name in files:
        spoil(paths.snapshot(commit) / name, b"bad")
    done = repair(session, cache)
    assert sorted(finding.files[0] for finding in done.fetched) == ["README.md", "readme.md"]
    (left,) = done.left
    assert left.finding.files == ("a:b.bin",) and "the file name 'a:b.bin' holds ':'" in left.why
