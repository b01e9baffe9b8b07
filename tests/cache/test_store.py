"""`Cache`: the verbs, on a cache that huggingface_hub would have made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hubclient import Cache
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.retention.policy import Policy
from hubclient.cache.writing.placing import place_blob, prepare, show_file, write_ref
from hubclient.errors import DamagedInput, EnvironmentFault, SourceMissing, UsageError

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for name, commit, ref in (("org/a", COMMIT, "main"), ("org/a", OTHER, "v1"), ("org/b", COMMIT, "main")):
        paths = RepoPaths(tmp_path / "hub", RepoId(name))
        prepare(paths)
        data = f"{name} {commit}".encode()
        blob = paths.blob(hashlib.sha256(data).hexdigest())
        (paths.blobs / "part").write_bytes(data)
        place_blob(paths.blobs / "part", blob, paths.cache)
        show_file(blob, paths.pointer(commit, "weights.bin"), paths.cache)
        write_ref(paths, ref, commit)
    return Cache()


def test_the_cache_is_the_one_that_the_environment_names(cache: Cache, tmp_path: Path):
    assert cache.path == tmp_path / "hub"
    assert [str(row.repo) for row in cache.ls()] == ["org/a", "org/b"]
    assert [str(row.repo) for row in cache.ls(["name=b"])] == ["org/b"]


def test_show_names_one_revision_or_all(cache: Cache):
    assert {revision.commit for revision in cache.show("org/a").revisions} == {COMMIT, OTHER}
    assert [revision.commit for revision in cache.show("org/a@v1").revisions] == [OTHER]
    assert cache.show("org/a@v1").as_json()["revisions"][0]["files"][0]["name"] == "weights.bin"
    with pytest.raises(UsageError, match="did you mean org/a"):
        cache.show("org/aa")


def test_what_is_verified_is_what_was_named(cache: Cache):
    assert cache.verify().checked == 3
    assert cache.verify(["org/a"]).checked == 2
    assert cache.verify(["org/a@v1", "org/b"]).checked == 2
    blob = next((cache.path / "models--org--b" / "blobs").iterdir())
    blob.chmod(0o600)
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert cache.verify(["org/a"]).ok and not cache.verify(["org/b"]).ok
    assert [finding.kind for finding in cache.verify(["org/a@v1", "org/b@main"]).findings] == ["damaged"]


def test_what_is_pinned_stays(cache: Cache):
    cache.pin("org/a@v1", "paper")
    cache.pin("org/b")
    freed = cache.gc(Policy(max_size=0, grace=0))
    assert [(str(removal.repo), removal.commit) for removal in freed.removals] == [("org/a", COMMIT)]
    assert cache.show("org/a").revisions[0].pin is not None and cache.show("org/b").pin is not None
    assert cache.unpin("org/b") and not cache.unpin("org/b")
    assert cache.rm("org/b").repos == (RepoId("org/b"),)


def test_a_plan_removes_nothing(cache: Cache):
    assert cache.plan_rm("org/a@v1").freed > 0 and cache.plan_gc(Policy(max_size=0, grace=0)).freed > 0
    assert len(cache.ls()) == 2
    assert cache.stats().repositories == 2
    assert cache.prune(grace=0).freed == 0


def test_where_there_is_no_cache_it_is_said(tmp_path: Path):
    nowhere = Cache(tmp_path / "nowhere")
    assert nowhere.ls() == () and nowhere.stats().size == 0 and nowhere.verify().ok and nowhere.plan_prune().is_empty
    for verb in (lambda: nowhere.show("org/a"), lambda: nowhere.plan_rm("org/a"), lambda: nowhere.verify(["org/a"])):
        with pytest.raises(SourceMissing, match="no cache here"):
            verb()
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="is no folder"):
        Cache(tmp_path / "file").stats()


def test_a_cache_that_cannot_be_read_is_not_empty(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    usual = os.scandir

    def refusing(path: str | Path) -> object:
        if os.fspath(path) == str(cache.path):
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for ask in (cache.ls, cache.stats, cache.contents, cache.verify, cache.plan_prune):
        with pytest.raises(EnvironmentFault, match=r"cannot be read \(Permission denied\)"):
            ask()


def test_a_linked_repository_is_told_to_be_one(cache: Cache):
    (cache.path / "models--org--linked").symlink_to("models--org--a")
    for ask in (cache.verify, lambda names: cache.show(names[0])):
        with pytest.raises(DamagedInput, match="linked repositories are not followed"):
            ask(["org/linked"])
