"""Rows lie where they belong, whether or not the system lets them pass by its page cache."""

from __future__ import annotations

import errno
import mmap
import os
import random
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hubclient import direct, disk
from hubclient.errors import NotEnoughSpace

MIB = 1 << 20
BYTES = random.Random(0).randbytes(10 * MIB)


def written(path: Path, pieces: list[tuple[int, int]], size: int) -> bytes:
    """The content of a new file after these stretches of BYTES were written to it, each at its place."""
    disk.create(path, b"", size)
    for start, stop in pieces:
        assert disk.write_rows(path, BYTES[start:stop], start) == zlib.crc32(BYTES[start:stop])
    return path.read_bytes()


def refusing(what: str, code: int) -> Callable[..., Any]:
    def refuse(*_: Any) -> int:
        raise OSError(code, what)

    return refuse


@pytest.mark.parametrize("start", [0, 32, 4095, 4096, 4097, 8192 + 17])
@pytest.mark.parametrize("length", [1, 4096, MIB - 1, MIB, MIB + 4097, 5 * MIB + 33])
def test_any_stretch_lies_at_its_place(start: int, length: int, tmp_path: Path) -> None:
    size = start + length + 100
    content = written(tmp_path / "out", [(start, start + length)], size)
    assert content == bytes(start) + BYTES[start : start + length] + bytes(100)


def test_whole_blocks_go_past_the_cache_and_only_they(tmp_path: Path) -> None:
    disk.create(tmp_path / "out", b"", 4 * MIB)
    start, stop = direct.write_blocks(tmp_path / "out", memoryview(BYTES)[: 2 * MIB], 32)
    if (start, stop) == (0, 0):
        pytest.skip("this file system has no direct writes")
    assert (start + 32) % mmap.PAGESIZE == (stop + 32) % mmap.PAGESIZE == 0
    assert start < mmap.PAGESIZE and 2 * MIB - stop < mmap.PAGESIZE


def test_neighbours_that_share_a_page_do_not_harm_each_other(tmp_path: Path) -> None:
    cuts = [0, 2 * MIB + 32, 4 * MIB + 1, 4 * MIB + 700, 7 * MIB + 4095, 10 * MIB]
    pieces = list(pairwise(cuts))
    for order in (pieces, pieces[::-1]):
        assert written(tmp_path / "out", order, len(BYTES)) == BYTES
    disk.create(tmp_path / "out", b"", len(BYTES))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda piece: disk.write_rows(tmp_path / "out", BYTES[slice(*piece)], piece[0]), pieces))
    assert (tmp_path / "out").read_bytes() == BYTES


def test_what_was_written_can_be_written_again_cut_otherwise(tmp_path: Path) -> None:
    written(tmp_path / "out", [(5 * MIB, 10 * MIB), (0, 5 * MIB)], len(BYTES))
    assert disk.write_rows(tmp_path / "out", BYTES[17 : 9 * MIB], 17) == zlib.crc32(BYTES[17 : 9 * MIB])
    assert (tmp_path / "out").read_bytes() == BYTES


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct writes on this system")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_is_written_the_usual_way(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    refuse = refusing("open", code)
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: (refuse if flags & os.O_DIRECT else real)(path, flags, *rest))
    assert written(tmp_path / "out", [(0, 3 * MIB)], 3 * MIB) == BYTES[: 3 * MIB]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct writes on this system")
def test_a_disk_with_larger_blocks_is_written_the_usual_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.pwrite, []

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 1:
            raise OSError(errno.EINVAL, "blocks")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert written(tmp_path / "out", [(32, 3 * MIB)], 3 * MIB) == bytes(32) + BYTES[32 : 3 * MIB]


def test_writes_that_do_less_than_asked_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[: 300 * 1024 + 7], offset))
    assert written(tmp_path / "out", [(32, 3 * MIB)], 3 * MIB) == bytes(32) + BYTES[32 : 3 * MIB]


def test_without_the_flag_there_is_one_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_FLAG", None)
    assert written(tmp_path / "out", [(0, 3 * MIB)], 3 * MIB) == BYTES[: 3 * MIB]


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.create(tmp_path / "out", b"", 2 * MIB)
    monkeypatch.setattr(os, "pwrite", refusing("pwrite", errno.ENOSPC))
    with pytest.raises(NotEnoughSpace):
        disk.write_rows(tmp_path / "out", BYTES[: 2 * MIB], 0)
