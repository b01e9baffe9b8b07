"""Bytes are taken into a repository whole and right, or not at all; a file that might be written to never becomes ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.writing import copying
from hubclient.cache.writing.copying import take

DATA = b"weights" * 1000
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    return RepoPaths(tmp_path / "hub", RepoId("org/name"))


@pytest.mark.parametrize("shared", [True, False])
def test_a_copy_is_whole_and_of_its_own(paths: RepoPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool):
    if not shared:
        monkeypatch.setattr(copying, "_shared_extents", lambda source, target: False)
    (tmp_path / "source").write_bytes(DATA)
    for link in (False, True):  # it can be written to
        taken = take(str(tmp_path / "source"), paths, DIGEST, link=link)
        assert taken and not taken.linked and taken.part.read_bytes() == DATA
        assert taken.part.parent == paths.blobs and taken.part.stat().st_nlink == 1


def test_a_read_only_file_gets_a_second_name_if_that_is_wanted(paths: RepoPaths, tmp_path: Path):
    (tmp_path / "source").write_bytes(DATA)
    (tmp_path / "source").chmod(0o444)
    taken, copied = (take(str(tmp_path / "source"), paths, DIGEST, link=link) for link in (True, False))
    assert taken and taken.linked and os.path.samefile(taken.part, tmp_path / "source")
    assert copied and not copied.linked


@pytest.mark.parametrize("mode", [0o644, 0o444])
@pytest.mark.parametrize("data", [b"", DATA[:-1] + b"x", None])
def test_wrong_bytes_and_none_leave_nothing(paths: RepoPaths, tmp_path: Path, data: bytes | None, mode: int):
    if data is not None:
        (tmp_path / "source").write_bytes(data)
        (tmp_path / "source").chmod(mode)
    assert take(str(tmp_path / "source"), paths, DIGEST, link=True) is None
    assert not list(paths.blobs.iterdir())
