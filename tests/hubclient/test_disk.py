"""Disks that fill up, refuse, or write less than asked; and the file system's details."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from planning import to_folder, to_gguf
from running import leftovers

from hubclient import Checkpoint, disk, errors, outputs
from hubclient.checkpoint import run

# Space and permission


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_space_is_noticed_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "{type}.gguf", format="gguf", type=("f16", "q8_0"))
    needed = sum(output.size for output in plan.outputs)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, needed - 1))
    with pytest.raises(errors.NotEnoughSpace, match=f"{needed:,} bytes are needed, {needed - 1:,} are free") as caught:
        run(plan)
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, needed))
    run(plan)


def test_what_a_killed_run_reserved_is_not_asked_for_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = to_gguf(source, tmp_path / "out.gguf")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, progress=stop)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
    run(plan)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> Iterator[None]:
    """From its n-th call on, a function of `os` says that the disk is full, or whatever `code` means."""
    real, calls = getattr(os, name), iter(range(1, 10**9))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) >= number:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield


@pytest.mark.parametrize(
    ("name", "number"),
    [("posix_fallocate", 1), ("pwrite", 1), ("pwrite", 7), ("write", 1), ("write", 8), ("fsync", 1), ("replace", 1)],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_said_and_gone_on_from(
    name: str, number: int, code: int, source: Path, f16: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = to_gguf(source, tmp_path / "out.gguf")
    with failing(monkeypatch, name, number, code), pytest.raises(errors.NotEnoughSpace, match="the disk is full"):
        run(plan)
    assert not (tmp_path / "out.gguf").exists()
    run(plan)
    assert (tmp_path / "out.gguf").read_bytes() == f16 and leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["pwrite", "write", "fsync", "replace", "open"])
def test_what_the_system_refuses_is_one_sentence_about_the_path(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = to_gguf(source, tmp_path / "out.gguf")
    with (
        failing(monkeypatch, name, 1, errno.EIO),
        pytest.raises(errors.EnvironmentFault, match=r"out\.gguf.* \(Input/output error\)"),
    ):
        run(plan)


def test_a_file_system_that_cannot_reserve_is_no_obstacle(
    source: Path, f16: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "posix_fallocate", 1, errno.EOPNOTSUPP):
        run(to_gguf(source, tmp_path / "out.gguf"))
    assert (tmp_path / "out.gguf").read_bytes() == f16


def test_short_writes_are_completed(source: Path, f16: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:1000], offset))
    run(to_gguf(source, tmp_path / "out.gguf"))
    assert (tmp_path / "out.gguf").read_bytes() == f16


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder in which this user, who must not be root for that, may write nothing."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    inside = folder / "locked"
    inside.mkdir()
    inside.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield inside
    os.seteuid(user)
    inside.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_the_environments_fault(source: Path, locked: Path) -> None:
    user = os.geteuid()
    os.seteuid(os.getuid())  # planning reads the source, which may be this user's alone
    file, folder = to_gguf(source, locked / "out.gguf"), to_folder(source, locked / "new" / "out")
    os.seteuid(user)
    for plan in (file, folder):
        with pytest.raises(errors.EnvironmentFault, match=r"locked.*\(Permission denied\)") as caught:
            run(replace(plan, sources=()))
        assert caught.value.exit_code == 5
    assert list(locked.iterdir()) == []


# The file system's details


def test_rows_are_written_where_they_belong(tmp_path: Path) -> None:
    import zlib

    path = tmp_path / "x"
    disk.create(path, b"head", 20)
    assert path.read_bytes() == b"head" + bytes(16)
    assert disk.write_rows(path, bytearray(b"abc"), 10) == zlib.crc32(b"abc")
    assert path.read_bytes() == b"head" + bytes(6) + b"abc" + bytes(7)
    assert disk.crc32_of(path, 10, 3) == zlib.crc32(b"abc")
    assert disk.crc32_of(path, 18, 3) == -1


def test_an_output_without_any_bytes_is_made(tmp_path: Path) -> None:
    disk.create(tmp_path / "x", b"", 0)
    assert (tmp_path / "x").read_bytes() == b""
    assert disk.allocated(tmp_path / "x") == 0 == disk.allocated(tmp_path / "y")


def test_neighbouring_rows_join() -> None:
    ranges: list[tuple[int, int]] = []
    for first, last in ((0, 2), (2, 5), (4, 5), (7, 8), (7, 9)):
        outputs._join(ranges, first, last)
    assert ranges == [(0, 5), (7, 9)]
