"""A file's digest comes out right in whatever order its bytes are written."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from hubclient.cache.digests import Digest
from hubclient.errors import EnvironmentFault
from hubclient.hub.transfer import follower
from hubclient.hub.transfer.follower import Follower
from hubclient.hub.transfer.ranges import Ranges

BYTES = os.urandom(3_000_017)
DIGEST = Digest("sha256", hashlib.sha256(BYTES).hexdigest())


@pytest.mark.parametrize("queued", [0, 100_000, 1 << 30])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_digest_is_right_in_whatever_order_bytes_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: int, lanes: int, seed: int
):
    monkeypatch.setattr(follower, "_CHUNK", 50_000)
    monkeypatch.setattr(follower, "_QUEUED", queued)
    chance, path, have = random.Random(seed), tmp_path / "file", Ranges()
    path.write_bytes(bytes(len(BYTES)))
    following = Follower(path, DIGEST, len(BYTES))
    width = -(-len(BYTES) // lanes)
    lane = [[start, min(start + width, len(BYTES))] for start in range(0, len(BYTES), width)]
    with path.open("r+b", buffering=0) as file:
        while lane:
            taken = chance.choice(lane)
            start, stop = taken[0], min(taken[1], taken[0] + chance.randint(1, 70_000))
            file.seek(start)
            file.write(BYTES[start:stop])
            have.add(start, stop)
            following.advance(have.prefix, start, BYTES[start:stop])
            taken[0] = stop
            lane = [rest for rest in lane if rest[0] < rest[1]]
    assert following.finish() == DIGEST.hex


def test_what_was_there_before_is_hashed_too(tmp_path: Path):
    (tmp_path / "file").write_bytes(BYTES)
    following = Follower(tmp_path / "file", DIGEST, len(BYTES))
    following.advance(len(BYTES))
    assert following.finish() == DIGEST.hex


def test_a_file_that_is_shorter_than_was_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_bytes(BYTES[:-1])
    following = Follower(tmp_path / "file", DIGEST, len(BYTES))
    following.advance(len(BYTES))
    with pytest.raises(EnvironmentFault, match="shorter"):
        following.finish()


def test_giving_up_ends_it(tmp_path: Path):
    (tmp_path / "file").write_bytes(BYTES)
    following = Follower(tmp_path / "file", DIGEST, len(BYTES))
    following.advance(1000)
    following.stop()
