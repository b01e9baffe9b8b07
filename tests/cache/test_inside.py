"""What a link is in the place of is not there: nothing that is read, listed or noted leads out of the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hubclient.cache.inside import is_inside, names_inside, read_inside, text_inside


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache" / "repo" / "refs").mkdir(parents=True)
    (tmp_path / "cache" / "repo" / "refs" / "main").write_bytes(b" commit\n")
    (tmp_path / "outside" / "refs").mkdir(parents=True)
    (tmp_path / "outside" / "refs" / "main").write_bytes(b"secret")
    return tmp_path / "cache"


def test_what_is_there_is_read(cache: Path):
    path = cache / "repo" / "refs" / "main"
    assert read_inside(path, cache, 100) == b" commit\n" and read_inside(path, cache, 3) == b" co"
    assert text_inside(path, cache) == "commit" and names_inside(path.parent, cache) == ["main"]
    assert is_inside(path, cache) and is_inside(cache / "absent" / "x", cache) and is_inside(cache / "x", cache)


def test_the_cache_itself_may_be_reached_by_a_link(cache: Path, tmp_path: Path):
    (tmp_path / "other").symlink_to(cache)
    assert text_inside(tmp_path / "other" / "repo" / "refs" / "main", tmp_path / "other") == "commit"


@pytest.mark.parametrize("link", ["repo", "repo/refs", "repo/refs/main"])
def test_nothing_is_read_through_a_link(cache: Path, tmp_path: Path, link: str):
    place = cache / link
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "outside" / Path(link).relative_to("repo"))
    path = cache / "repo" / "refs" / "main"
    assert path.read_bytes() == b"secret"
    assert read_inside(path, cache, 100) is None and text_inside(path, cache) is None
    assert is_inside(path, cache) == (link == "repo/refs/main")
    assert names_inside(path.parent, cache) == (["main"] if link == "repo/refs/main" else [])


@pytest.mark.parametrize("made", ["folder", "pipe", "nothing", "file above"])
def test_what_has_no_bytes_is_not_there(cache: Path, made: str):
    path = cache / "repo" / "thing"
    if made == "folder":
        path.mkdir()
    elif made == "pipe":
        os.mkfifo(path)
    elif made == "file above":
        path.write_bytes(b"x")
        path = path / "below"
    before = len(os.listdir("/dev/fd"))
    assert read_inside(path, cache, 10) is None
    assert len(os.listdir("/dev/fd")) == before
