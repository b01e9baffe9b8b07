"""The store for all repositories: read and kept as huggingface_hub keeps it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub.utils import _shared_blobs as theirs

from hubclient.cache import sharedstore
from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.writing import locks
from hubclient.errors import EnvironmentFault

DATA, XET = b"weights", "0c" * 32
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in which huggingface_hub has published one file of org/a."""
    blob = RepoPaths(tmp_path, RepoId("org/a")).blob(DIGEST.hex)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    assert theirs.publish_blob_to_shared_store(blob_path=str(blob), xet_hash=XET, cache_dir=tmp_path, expected_size=len(DATA))
    return tmp_path


def blob_of(cache: Path, name: str) -> Path:
    return RepoPaths(cache, RepoId(name)).blob(DIGEST.hex)


def test_what_huggingface_hub_published_is_found(cache: Path):
    assert sharedstore.is_store(cache)
    assert [(name, state.st_size) for name, state in sharedstore.entries(cache)] == [(XET, len(DATA))]
    blob = blob_of(cache, "org/a")
    assert sharedstore.hash_behind(str(blob), os.readlink(blob), str(cache)) == XET
    assert sharedstore.references(cache, XET) == (f"models--org--a/blobs/{DIGEST.hex}",)


def test_a_second_repository_links_to_it_and_huggingface_hub_counts_the_link(cache: Path):
    blob = blob_of(cache, "org/b")
    assert sharedstore.link_from_store(blob, XET, cache, DIGEST, len(DATA))
    assert blob.read_bytes() == DATA and theirs.shared_blob_target(blob, cache) == sharedstore.entry_path(cache, XET)
    found = theirs._read_valid_manifest_references(sharedstore.entry_path(cache, XET), cache)
    assert found == {blob, blob_of(cache, "org/a")}


def test_bytes_of_another_digest_are_not_trusted(cache: Path):
    blob = blob_of(cache, "org/b")
    wrong = Digest("sha256", "0" * 64)
    assert not sharedstore.link_from_store(blob, XET, cache, wrong, len(DATA))
    assert not sharedstore.link_from_store(blob, XET, cache, DIGEST, len(DATA) + 1)
    assert not sharedstore.link_from_store(blob, "f" * 64, cache, DIGEST, len(DATA))
    assert not sharedstore.link_from_store(blob, "../" + XET, cache, DIGEST, len(DATA))
    assert not os.path.lexists(blob)


def test_an_entry_goes_with_its_last_link(cache: Path):
    entry = sharedstore.entry_path(cache, XET)
    sharedstore.link_from_store(blob_of(cache, "org/b"), XET, cache, DIGEST, len(DATA))
    blob_of(cache, "org/a").unlink()
    assert sharedstore.sweep(cache, XET) == 0 and entry.exists()
    assert sharedstore.references(cache, XET) == (f"models--org--b/blobs/{DIGEST.hex}",)
    blob_of(cache, "org/b").unlink()
    assert sharedstore.sweep(cache, XET) == len(DATA) and not entry.exists()
    assert not entry.with_name(f"{XET}.refs").exists()


@pytest.mark.parametrize("damage", ["missing", "binary", "link"])
def test_an_entry_whose_links_are_unknown_stays(cache: Path, damage: str):
    entry = sharedstore.entry_path(cache, XET)
    manifest = entry.with_name(f"{XET}.refs")
    blob_of(cache, "org/a").unlink()
    manifest.unlink()
    if damage == "binary":
        manifest.write_bytes(b"\xff\xfe\0")
    elif damage == "link":
        (cache / "list").write_text("")
        os.symlink(cache / "list", manifest)
    assert sharedstore.references(cache, XET) is None
    assert sharedstore.sweep(cache, XET) == 0 and entry.exists()


def test_lines_that_lead_elsewhere_do_not_count(cache: Path):
    manifest = sharedstore.entry_path(cache, XET).with_name(f"{XET}.refs")
    with manifest.open("a") as file:
        file.write("../../etc/passwd\n/abs/blobs/x\nmodels--org--c/blobs/absent\nmodels--org--a/snapshots/x\n\n")
    assert sharedstore.references(cache, XET) == (f"models--org--a/blobs/{DIGEST.hex}",)


@pytest.mark.parametrize("marker", [None, "2\n", "1"])
def test_a_folder_without_the_marker_is_somebody_elses(tmp_path: Path, marker: str | None):
    entry = sharedstore.entry_path(tmp_path, XET)
    entry.parent.mkdir(parents=True)
    entry.write_bytes(DATA)
    entry.with_name(f"{XET}.refs").write_text("")
    if marker is not None:
        (tmp_path / "blobs" / sharedstore.MARKER).write_text(marker)
    assert not sharedstore.is_store(tmp_path) and list(sharedstore.entries(tmp_path)) == []
    assert not sharedstore.link_from_store(blob_of(tmp_path, "org/b"), XET, tmp_path, DIGEST, len(DATA))
    assert sharedstore.sweep(tmp_path, XET) == 0 and entry.exists()


def test_while_somebody_holds_an_entrys_lock_nothing_happens_to_it(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "STORE_PATIENCE", 0.05)
    entry = sharedstore.entry_path(cache, XET)
    (cache / "part").write_bytes(b"other")
    blob_of(cache, "org/a").unlink()
    with FileLock(entry.with_name(f"{XET}.lock")):
        assert not sharedstore.link_from_store(blob_of(cache, "org/b"), XET, cache, DIGEST, len(DATA))
        assert not sharedstore.replace_entry(cache, XET, cache / "part")
        assert sharedstore.sweep(cache, XET) == 0
    assert entry.read_bytes() == DATA and not os.path.lexists(blob_of(cache, "org/b"))
    assert sharedstore.sweep(cache, XET) == len(DATA)


def test_where_an_entry_cannot_be_locked_it_stays(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    blob_of(cache, "org/a").unlink()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert sharedstore.sweep(cache, XET) == 0 and sharedstore.entry_path(cache, XET).exists()


def test_a_line_that_a_killed_writer_left_half_is_not_taken_for_the_start_of_ours(cache: Path):
    manifest = sharedstore.entry_path(cache, XET).with_name(f"{XET}.refs")
    manifest.write_bytes(manifest.read_bytes().removesuffix(b"\n"))
    assert sharedstore.link_from_store(blob_of(cache, "org/b"), XET, cache, DIGEST, len(DATA))
    assert sharedstore.references(cache, XET) == tuple(f"models--org--{name}/blobs/{DIGEST.hex}" for name in "ab")
    assert manifest.read_bytes().count(b"\n") == 2


def test_a_link_to_another_place_is_none_of_the_stores(cache: Path):
    blob = str(blob_of(cache, "org/x"))
    for target in ("../../blobs/../../etc/passwd", "/etc/passwd", f"../../blobs/ff/{XET}", f"../../other/{XET[:2]}/{XET}"):
        assert sharedstore.hash_behind(blob, target, str(cache)) is None


def test_a_whole_blob_is_a_file_or_a_link_into_the_store_and_nothing_else(cache: Path, tmp_path: Path):
    linked, own, size = blob_of(cache, "org/a"), blob_of(cache, "org/c"), len(DATA)
    own.parent.mkdir(parents=True)
    assert sharedstore.is_whole(linked, size, cache) and not sharedstore.is_whole(linked, size + 1, cache)
    assert not sharedstore.is_whole(own, size, cache)
    own.write_bytes(DATA)
    assert sharedstore.is_whole(own, size, cache) and not sharedstore.is_whole(own, size - 1, cache)
    (tmp_path / "elsewhere").write_bytes(DATA)
    own.unlink()
    own.symlink_to(tmp_path / "elsewhere")
    assert not sharedstore.is_whole(own, size, cache)
    sharedstore.entry_path(cache, XET).unlink()
    assert not sharedstore.is_whole(linked, size, cache)


def test_a_blob_that_cannot_be_looked_at_is_not_absent(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def refusing(path: object, blob: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sharedstore, "bytes_behind", refusing)
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        sharedstore.is_whole(blob_of(cache, "org/a"), 1, cache)
