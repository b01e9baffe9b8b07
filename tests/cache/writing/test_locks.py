"""Locks are shared with huggingface_hub; a courtesy lock stops nobody, the store's stops whoever cannot have it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.writing import locks
from hubclient.cache.writing.locks import courtesy_lock, store_lock
from hubclient.errors import EnvironmentFault

ETAG = "b" * 64


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    (tmp_path / "cache").mkdir()
    return RepoPaths(tmp_path / "cache", RepoId("org/name"))


def test_the_lock_is_the_one_that_huggingface_hub_takes(paths: RepoPaths):
    path = paths.lock(ETAG)
    code = "import sys, time; from huggingface_hub.utils import WeakFileLock\n"
    code += f"with WeakFileLock({str(path)!r}): print('held', flush=True); time.sleep(1.5)"
    with courtesy_lock(path, wait=False) as held:
        assert held
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with courtesy_lock(path, wait=False) as held:
            assert not held
        waited: list[int] = []
        with courtesy_lock(path, waiting=lambda: waited.append(1)) as held:
            assert held and waited


def test_where_locks_do_not_work_we_go_on(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch):
    (paths.cache / ".locks").write_text("in the way")
    with courtesy_lock(paths.lock(ETAG)) as held:
        assert held


def test_what_is_raised_while_we_wait_is_raised(paths: RepoPaths):
    def waiting() -> None:
        raise EnvironmentFault("the cache has gone", paths.cache)

    paths.lock(ETAG).parent.mkdir(parents=True)
    with (
        filelock.FileLock(paths.lock(ETAG)),
        pytest.raises(EnvironmentFault, match="has gone"),
        courtesy_lock(paths.lock(ETAG), waiting=waiting),
    ):
        pass


@pytest.mark.parametrize("planted", [".locks", f".locks/{RepoId('org/name').folder}"])
def test_a_folder_of_locks_that_is_a_link_is_not_written_through(paths: RepoPaths, tmp_path: Path, planted: str):
    (tmp_path / "outside").mkdir()
    (paths.cache / planted).parent.mkdir(exist_ok=True)
    (paths.cache / planted).symlink_to(tmp_path / "outside")
    with courtesy_lock(paths.lock(ETAG)) as held:
        assert held
    assert os.listdir(tmp_path / "outside") == []


def test_the_stores_lock_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "STORE_PATIENCE", 0.05)
    with store_lock(tmp_path / "x.lock") as held:
        assert held
        code = f"import filelock; filelock.FileLock({os.fspath(tmp_path / 'x.lock')!r}).acquire(timeout=0)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1
    with filelock.FileLock(tmp_path / "x.lock"), store_lock(tmp_path / "x.lock") as held:
        assert not held
    with store_lock(tmp_path / "x.lock") as held:
        assert held


def test_without_locks_the_store_is_locked_by_a_file_as_huggingface_hub_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

    monkeypatch.setattr(locks, "STORE_PATIENCE", 0.05)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with store_lock(tmp_path / "x.lock") as held:
        assert held and (tmp_path / "x.lock.soft").exists()
        with store_lock(tmp_path / "x.lock") as second:
            assert not second
    assert not (tmp_path / "x.lock.soft").exists()


def test_a_lock_that_the_system_refuses_or_that_is_a_link_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.lock").symlink_to(tmp_path / "outside")
    with store_lock(tmp_path / "x.lock") as held:
        assert not held and not (tmp_path / "outside").exists()
    with store_lock(tmp_path / "no" / "such.lock") as held:
        assert not held
