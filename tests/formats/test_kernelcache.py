"""Where compiled kernels are kept: a folder of the user's own, or none; what is there is used only if it holds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hubclient.formats import kernelcache, kernels

NAMES = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "TMPDIR")
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes and owners are those of POSIX")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of what was found before, and homes of our own."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    kernelcache.folder.cache_clear()
    yield
    kernelcache.folder.cache_clear()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# The folder


@posix
def test_it_is_the_users_own(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        found = kernelcache.folder()
    finally:
        os.umask(before)
    assert found == tmp_path / "home" / ".cache" / "hubclient" / "kernels" and mode(found) == 0o700


@posix
@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_it_is_where_the_environment_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path / "stated"))
    found = kernelcache.folder()
    assert found is not None and mode(found) == 0o700
    kernels_in = {"XDG_CACHE_HOME": "hubclient/kernels", "NUMBA_CACHE_DIR": "hubclient"}
    assert found == tmp_path / "stated" / kernels_in[name]


@posix
@pytest.mark.parametrize("open_to", [0o777, 0o770, 0o722, 0o702])
def test_one_that_others_can_write_in_is_neither_used_nor_touched(
    open_to: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have put something there before."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "k"))
    (tmp_path / "k" / "hubclient").mkdir(parents=True)
    (tmp_path / "k" / "hubclient").chmod(open_to)
    assert kernelcache.folder() is None and mode(tmp_path / "k" / "hubclient") == open_to


@posix
@pytest.mark.parametrize("what", ["link", "file", "dangling link"])
def test_what_is_no_folder_of_ones_own_is_not_used(what: str, tmp_path: Path) -> None:
    home = tmp_path / "home" / ".cache" / "hubclient"
    home.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    if what == "file":
        (home / "kernels").write_text("")
    else:
        (home / "kernels").symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
    assert kernelcache.folder() == tmp_path / "tmp" / f"hubclient-kernels-{os.geteuid()}"
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (tmp_path / "nowhere").exists()


@posix
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    (tmp_path / "tmp" / f"hubclient-kernels-{user + 1}").mkdir(mode=0o777)
    (tmp_path / "home" / ".cache" / "hubclient" / "kernels").mkdir(parents=True, mode=0o777)
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert kernelcache.folder() is None
    assert mode(tmp_path / "home" / ".cache" / "hubclient" / "kernels") != 0o700, "it was not touched"


def refuse(monkeypatch: pytest.MonkeyPatch, *below: Path) -> None:
    """Folders in which nothing can be made, whoever asks."""
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if any(self.is_relative_to(path) for path in below):
            raise PermissionError(13, "Permission denied", str(self))
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_a_home_that_cannot_be_written_is_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, tmp_path / "home")
    found = kernelcache.folder()
    assert found is not None and found.parent == tmp_path / "tmp" and found.name.startswith("hubclient-kernels-")


@posix
def test_a_folder_that_is_there_and_cannot_be_written_is_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / ".cache" / "hubclient" / "kernels"
    home.mkdir(parents=True)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != home and real(path, how))
    assert kernelcache.folder() == tmp_path / "tmp" / f"hubclient-kernels-{os.geteuid()}"


def test_without_a_home_there_is_still_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    found = kernelcache.folder()
    assert found is not None and found.parent == tmp_path / "tmp"


def test_a_folder_that_is_stated_and_cannot_be_used_is_not_stood_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    assert kernelcache.folder() is None


# What is in it


def fresh(name: str) -> Any:
    """A kernel as a new process has it."""
    return kernels.kernel(getattr(kernels, name).py_func)


def ran(folder: Path) -> str:
    """Where a kernel that is kept in this folder comes from, when it is first called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(folder))
        kernelcache.folder.cache_clear()
        made = fresh("bf16_from_f32")
        found = np.zeros(2, np.uint16)
        made(np.array([0x3F800000, 0x3F80C000], np.uint32), found)
        assert found.tolist() == [0x3F80, 0x3F81]
    return "loaded" if made.stats.cache_hits else "compiled"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiled kernel in it."""
    folder = tmp_path_factory.mktemp("kept")
    assert ran(folder) == "compiled"
    return folder


def copied(kept: Path, folder: Path) -> Path:
    shutil.copytree(kept, folder)
    return folder


def test_a_kernel_is_compiled_once(kept: Path) -> None:
    assert {path.suffix for path in (kept / "hubclient").iterdir()} == {".nbi", ".nbc"}
    assert ran(kept) == "loaded"


def test_without_a_folder_kernels_are_compiled_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ran(tmp_path / "file") == "compiled" == ran(tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [b"", b"\x80\x05garbage", None], ids=["empty", "garbage", "cut"])
def test_a_damaged_entry_is_compiled_anew(suffix: str, damage: bytes | None, kept: Path, tmp_path: Path) -> None:
    folder = copied(kept, tmp_path / "k")
    for path in folder.rglob(f"*{suffix}"):
        path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert ran(folder) == "compiled"
    assert ran(folder) == "loaded", "it was mended"


def test_an_entry_of_other_arguments_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that compile a kernel for different arguments at once may give their files the same name."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "k"))
    first = fresh("first_with")
    assert first(np.array([1, 3], np.uint16), np.uint16(2)) == 1
    (only,) = (tmp_path / "k").rglob("*.nbc")
    data = only.read_bytes()
    again = fresh("first_with")
    assert again(np.array([1, 1, 3], np.uint32), np.uint32(2)) == 2
    for path in (tmp_path / "k").rglob("*.nbc"):
        path.write_bytes(data)
    last = fresh("first_with")
    assert last(np.array([1, 1, 1, 3], np.uint32), np.uint32(2)) == 3
    assert last(np.array([3], np.uint16), np.uint16(2)) == 0


def test_a_full_disk_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "k"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    made = fresh("float_of")
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    assert made(np.uint16(0x3C00)) == 0x3F800000
    assert list((tmp_path / "k" / "hubclient").iterdir()) == []


# What an entry holds for


def digest() -> str:
    kernelcache._digest.cache_clear()
    return kernelcache._digest()


def test_an_entry_is_of_all_sources_that_a_kernel_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from hubclient.formats.ggml import grids
    from hubclient.formats.ggml.encoders import lanes, q8_0

    real, whole = Path.read_bytes, digest()
    for module in (q8_0, kernels, lanes, grids):  # of the last two constants alone
        assert module.__file__ is not None
        changed = Path(module.__file__).resolve()
        same = lambda path, changed=changed: path.resolve() == changed  # noqa: E731
        monkeypatch.setattr(Path, "read_bytes", lambda self, same=same: real(self) + (b"#" if same(self) else b""))
        assert digest() != whole
        monkeypatch.undo()
    assert digest() == whole


def test_a_changed_source_makes_it_stale_and_versions_share_a_folder(kept: Path, tmp_path: Path) -> None:
    folder = copied(kept, tmp_path / "k")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernelcache, "_digest", lambda: "0" * 64)
        assert ran(folder) == "compiled" and ran(folder) == "loaded"
    assert ran(folder) == "loaded"
