"""Bytes, links and refs get into the cache in one step each, and through no link that somebody planted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.writing import placing
from hubclient.cache.writing.placing import place_blob, prepare, read_ref, show_file, write_ref
from hubclient.errors import DamagedInput, EnvironmentFault

COMMIT, ETAG = "a" * 40, "b" * 64


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    made = RepoPaths(tmp_path / "cache", RepoId("org/name"))
    prepare(made)
    return made


@pytest.fixture
def blob(paths: RepoPaths) -> Path:
    part = paths.blobs / "part"
    part.write_bytes(b"weights")
    place_blob(part, paths.blob(ETAG), paths.cache)
    return paths.blob(ETAG)


def test_blobs_are_read_only(paths: RepoPaths, blob: Path):
    assert blob.read_bytes() == b"weights" and not stat.S_IMODE(blob.stat().st_mode) & 0o222
    assert sorted(os.listdir(paths.blobs)) == [ETAG]
    assert (paths.cache / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o444), (0o027, 0o440), (0o077, 0o400)])
def test_the_umask_says_who_may_read(paths: RepoPaths, mask: int, mode: int):
    before = os.umask(mask)
    try:
        (paths.blobs / "part").write_bytes(b"x")
        place_blob(paths.blobs / "part", paths.blob(ETAG), paths.cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(paths.blob(ETAG).stat().st_mode) == mode


def test_a_blob_replaces_a_link_instead_of_writing_through_it(paths: RepoPaths, tmp_path: Path):
    (tmp_path / "elsewhere").write_bytes(b"precious")
    os.symlink(tmp_path / "elsewhere", paths.blob(ETAG))
    (paths.blobs / "part").write_bytes(b"new")
    place_blob(paths.blobs / "part", paths.blob(ETAG), paths.cache)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious" and not paths.blob(ETAG).is_symlink()


def test_a_snapshot_shows_a_blob_by_a_relative_link(paths: RepoPaths, blob: Path):
    pointer = paths.pointer(COMMIT, "a/b/model.safetensors")
    assert show_file(blob, pointer, paths.cache) == "symlink"
    assert os.readlink(pointer) == f"../../../../blobs/{ETAG}" and pointer.read_bytes() == b"weights"
    inode = pointer.lstat().st_ino
    assert show_file(blob, pointer, paths.cache) == "symlink" and pointer.lstat().st_ino == inode
    assert sorted(os.listdir(pointer.parent)) == ["model.safetensors"]


def test_a_wrong_link_is_replaced(paths: RepoPaths, blob: Path):
    pointer = paths.pointer(COMMIT, "model.safetensors")
    pointer.parent.mkdir(parents=True)
    os.symlink("../../blobs/other", pointer)
    show_file(blob, pointer, paths.cache)
    assert pointer.read_bytes() == b"weights"


def test_where_links_are_refused_a_hard_link_shows_it(paths: RepoPaths, blob: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    pointer = paths.pointer(COMMIT, "model.safetensors")
    for _ in range(2):
        assert show_file(blob, pointer, paths.cache) == "hardlink"
        assert os.listdir(pointer.parent) == ["model.safetensors"] and pointer.samefile(blob) and not pointer.is_symlink()


def test_where_hard_links_are_refused_too_a_copy(paths: RepoPaths, blob: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    pointer = paths.pointer(COMMIT, "model.safetensors")
    assert show_file(blob, pointer, paths.cache) == "copy"
    assert pointer.read_bytes() == b"weights" and os.listdir(pointer.parent) == ["model.safetensors"]


@pytest.mark.parametrize("planted", ["blobs", "snapshots", "snapshots/" + COMMIT, "snapshots/" + COMMIT + "/sub", "refs", "."])
def test_folders_that_are_links_are_refused(tmp_path: Path, planted: str):
    paths = RepoPaths(tmp_path / "cache", RepoId("org/name"))
    (tmp_path / "outside").mkdir()
    place = paths.path / planted
    place.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(tmp_path / "outside", place)
    (tmp_path / "part").write_bytes(b"x")
    with pytest.raises(DamagedInput, match="a link or a file"):
        prepare(paths)
        place_blob(tmp_path / "part", paths.blob(ETAG), paths.cache)
        show_file(paths.blob(ETAG), paths.pointer(COMMIT, "sub/x"), paths.cache)
        write_ref(paths, "main", COMMIT)
    assert os.listdir(tmp_path / "outside") == []


def test_refs(paths: RepoPaths):
    assert read_ref(paths, "main") is None
    write_ref(paths, "main", COMMIT)
    write_ref(paths, "refs/pr/1", COMMIT)
    assert read_ref(paths, "main") == read_ref(paths, "refs/pr/1") == COMMIT
    assert (paths.refs / "main").read_text() == COMMIT
    (paths.refs / "main").write_text(COMMIT + "\n")
    assert read_ref(paths, "main") == COMMIT and read_ref(paths, "refs") is None
    (paths.refs / "main").write_text("../../..")
    with pytest.raises(DamagedInput, match="names no commit"):
        read_ref(paths, "main")


def test_an_unchanged_ref_needs_no_writing(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch):
    write_ref(paths, "main", COMMIT)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(placing, "replace_file", refuse)
    write_ref(paths, "main", COMMIT)
    with pytest.raises(EnvironmentFault, match="the cache cannot be written here"):
        write_ref(paths, "main", "c" * 40)


def test_a_ref_makes_way_for_one_whose_folder_it_is(paths: RepoPaths):
    write_ref(paths, "release", COMMIT)
    write_ref(paths, "release/v1", "c" * 40)
    assert read_ref(paths, "release/v1") == "c" * 40 and read_ref(paths, "release") is None
    write_ref(paths, "main", COMMIT)
    with pytest.raises(DamagedInput, match="stands where that needs a folder"):
        write_ref(paths, "main/v1", COMMIT)
    (paths.refs / "odd").write_text("no commit")
    with pytest.raises(DamagedInput, match="a link or a file"):
        write_ref(paths, "odd/v1", COMMIT)
    assert read_ref(paths, "main") == COMMIT and (paths.refs / "odd").exists()
