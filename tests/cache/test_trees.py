"""The Hub's list of a commit's files, as huggingface_hub keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub._tree_cache import TreeCacheEntry, read_tree_cache, write_tree_cache

from hubclient.cache.digests import Digest, digest_file
from hubclient.cache.trees import TreeEntry, read_tree, write_tree
from hubclient.errors import DamagedInput

GIT, SHA, XET = "1" * 40, "2" * 64, "3" * 64
ENTRIES = {"config.json": TreeEntry(5, GIT), "a/model.safetensors": TreeEntry(9, GIT, SHA, XET), "b.bin": TreeEntry(0, GIT, SHA)}


def test_huggingface_hub_reads_what_we_write(tmp_path: Path):
    write_tree(tmp_path / "trees" / ("c" * 40 + ".json"), ENTRIES)
    read = read_tree_cache(str(tmp_path), "c" * 40)
    assert read is not None
    assert {name: (e.size, e.blob_id, e.lfs_sha256, e.lfs_size, e.xet_hash) for name, e in read.items()} == {
        "config.json": (5, GIT, None, None, None),
        "a/model.safetensors": (9, GIT, SHA, 9, XET),
        "b.bin": (0, GIT, SHA, 0, None),
    }


def test_we_read_what_huggingface_hub_writes(tmp_path: Path):
    theirs = {"config.json": TreeCacheEntry(5, GIT), "a/model.safetensors": TreeCacheEntry(130, GIT, SHA, 9, XET)}
    write_tree_cache(str(tmp_path), "d" * 40, theirs)
    assert read_tree(tmp_path / "trees" / ("d" * 40 + ".json")) == {name: ENTRIES[name] for name in theirs}


def test_what_is_written_reads_back(tmp_path: Path):
    write_tree(tmp_path / "t.json", ENTRIES)
    assert read_tree(tmp_path / "t.json") == ENTRIES


def test_an_absent_or_later_list_is_none(tmp_path: Path):
    assert read_tree(tmp_path / "t.json") is None
    (tmp_path / "t.json").write_text('{"format_version": 2, "files": []}')
    assert read_tree(tmp_path / "t.json") is None


@pytest.mark.parametrize(
    "files",
    [
        {"../x": {"size": 1, "blob_id": GIT}},
        {"/x": {"size": 1, "blob_id": GIT}},
        {"C:\\x": {"size": 1, "blob_id": GIT}},
        {"a\0b": {"size": 1, "blob_id": GIT}},
        {"a": {"size": 1, "blob_id": GIT}, "A": {"size": 1, "blob_id": GIT}},
        {"a": {"size": -1, "blob_id": GIT}},
        {"a": {"size": 1 << 62, "blob_id": GIT}},
        {"a": {"size": True, "blob_id": GIT}},
        {"a": {"size": "1", "blob_id": GIT}},
        {"a": {"size": 1, "blob_id": "../../x"}},
        {"a": {"size": 1, "blob_id": SHA}},
        {"a": {"size": 1, "blob_id": 7}},
        {"a": {"size": 1, "blob_id": GIT, "lfs_sha256": GIT, "lfs_size": 1}},
        {"a": {"size": 1, "blob_id": GIT, "lfs_sha256": SHA}},
        {"a": {"size": 1, "blob_id": GIT, "xet_hash": "../x"}},
        {"a": []},
        [],
        None,
    ],
)
def test_hostile_lists_are_refused_in_a_sentence(tmp_path: Path, files: object):
    (tmp_path / "t.json").write_text(json.dumps({"format_version": 1, "files": files}))
    with pytest.raises(DamagedInput) as caught:
        read_tree(tmp_path / "t.json")
    assert "t.json" in str(caught.value) and str(caught.value).isprintable()


def test_digests_are_those_of_git_and_sha256sum(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"hello\n")
    assert digest_file(tmp_path / "f", "git-sha1").hex == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert digest_file(tmp_path / "f", "sha256").hex == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert Digest.of_name(SHA) == Digest("sha256", SHA) and Digest.of_name(GIT) == Digest("git-sha1", GIT)
    assert Digest.of_name("x" * 40) is None and Digest.of_name(SHA.upper().replace("2", "A")) is None


def test_to_hash_a_file_is_not_to_use_it(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"hello\n")
    os.utime(tmp_path / "f", (1, 1))
    digest_file(tmp_path / "f", "sha256")
    assert not hasattr(os, "O_NOATIME") or (tmp_path / "f").stat().st_atime == 1
