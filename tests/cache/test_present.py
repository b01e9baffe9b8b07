"""What is here is told from the disk: by name and size, or by every byte."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.present import Present, present_of
from hubclient.cache.sharedstore import MARKER
from hubclient.cache.trees import TreeEntry
from hubclient.errors import DamagedInput

COMMIT = "a" * 40
DATA = b"weights" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
ENTRY = TreeEntry(len(DATA), "b" * 40, SHA256)
NAME = "sub/model.safetensors"


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    return RepoPaths(tmp_path / "cache", RepoId("org/name"))


def found(paths: RepoPaths, entry: TreeEntry = ENTRY, *, check: bool = False) -> str:
    """Under which of its lists the one file is."""
    present = present_of(paths, COMMIT, {NAME: entry}, check=check)
    (state,) = (field for field in Present.__slots__ if getattr(present, field) == (NAME,))
    return str(state)


def blob(paths: RepoPaths, data: bytes = DATA) -> Path:
    path = paths.blob(SHA256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def pointer(paths: RepoPaths) -> Path:
    path = paths.pointer(COMMIT, NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_nothing_is_here_in_an_empty_cache(paths: RepoPaths):
    assert found(paths) == "missing" and not paths.cache.exists()


def test_a_blob_alone_is_here_but_not_shown(paths: RepoPaths):
    blob(paths)
    assert found(paths) == "unshown"


@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_to_the_blob_shows_it(paths: RepoPaths, absolute: bool):
    target = blob(paths)
    pointer(paths).symlink_to(target if absolute else os.path.relpath(target, pointer(paths).parent))
    assert found(paths) == found(paths, check=True) == "shown"


@pytest.mark.parametrize("target", ["../../../blobs/" + "0" * 64, "/etc/hostname", NAME, "."])
def test_a_link_to_anything_else_does_not(paths: RepoPaths, target: str):
    pointer(paths).symlink_to(target)
    assert found(paths) == "missing"
    blob(paths)
    assert found(paths) == "unshown"


def test_bytes_in_the_snapshot_itself_are_shown(paths: RepoPaths):
    pointer(paths).write_bytes(DATA)
    assert found(paths) == found(paths, check=True) == "shown"


def test_bytes_whose_digest_nobody_knows_are_taken_by_their_size(paths: RepoPaths):
    pointer(paths).write_bytes(DATA)
    assert found(paths, TreeEntry(len(DATA), ""), check=True) == "shown"
    assert found(paths, TreeEntry(len(DATA) + 1, "")) == "missing"


def test_a_blob_of_another_size_is_missing_and_one_of_other_bytes_damaged_if_checked(paths: RepoPaths):
    blob(paths, DATA[:-1])
    assert found(paths) == "missing"
    blob(paths, b"x" + DATA[1:])
    assert (found(paths), found(paths, check=True)) == ("unshown", "damaged")


def test_a_good_blob_stands_in_for_a_bad_copy(paths: RepoPaths):
    pointer(paths).write_bytes(b"x" + DATA[1:])
    blob(paths)
    assert (found(paths), found(paths, check=True)) == ("shown", "unshown")


def test_a_link_into_the_shared_store_counts_and_one_elsewhere_does_not(paths: RepoPaths, tmp_path: Path):
    entry = paths.cache / "blobs" / "cc" / ("c" * 64)
    entry.parent.mkdir(parents=True)
    entry.write_bytes(DATA)
    (paths.cache / "blobs" / MARKER).write_bytes(b"1\n")
    paths.blobs.mkdir(parents=True)
    paths.blob(SHA256).symlink_to(os.path.relpath(entry, paths.blobs))
    assert found(paths) == found(paths, check=True) == "unshown"
    (tmp_path / "elsewhere").write_bytes(DATA)
    paths.blob(SHA256).unlink()
    paths.blob(SHA256).symlink_to(tmp_path / "elsewhere")
    assert found(paths) == "missing"


@pytest.mark.parametrize("place", ["blobs", "snapshots", f"snapshots/{COMMIT}", f"snapshots/{COMMIT}/sub"])
def test_a_folder_that_is_a_link_is_refused(paths: RepoPaths, tmp_path: Path, place: str):
    (paths.path / place).parent.mkdir(parents=True, exist_ok=True)
    (paths.path / place).symlink_to(tmp_path)
    with pytest.raises(DamagedInput, match="a link or a file"):
        found(paths)


def test_every_byte_read_is_told(paths: RepoPaths):
    blob(paths)
    counts: list[int] = []
    present_of(paths, COMMIT, {NAME: ENTRY, "other": ENTRY}, check=True, progress=counts.append)
    assert sum(counts) == len(DATA)


def test_an_interrupt_ends_the_reading(paths: RepoPaths):
    blob(paths)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        present_of(paths, COMMIT, {NAME: ENTRY}, check=True, progress=interrupt)
