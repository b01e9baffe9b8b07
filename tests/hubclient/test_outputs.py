"""Where outputs appear and when: complete or not at all, over nobody's files, by one writer, on a disk that may fill up."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import checkpoints
import pytest
from running import Here, command, contents, leftovers, stopped, wait_for

from hubclient import Checkpoint, disk, errors, outputs
from hubclient.checkpoint import run
from hubclient.plan import Plan


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def f16(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(
        tmp_path_factory.mktemp("right") / "a.gguf", format="gguf", type="f16"
    )
    return path.read_bytes()


def to_gguf(source: Path, out: Path, **options: Any) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out, format="gguf", type="f16", **options)


def to_folder(source: Path, out: Path, **options: Any) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out, format="safetensors", **options)


# The final name


@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_nothing_or_the_old_file_is_under_the_final_name_until_the_end(
    before: bytes | None, source: Path, f16: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    if before is not None:
        out.write_bytes(before)
    seen = []
    run(
        to_gguf(source, out),
        executor=Here(),
        force=True,
        progress=lambda done, total: seen.append(out.read_bytes() if out.exists() else None),
    )
    assert len(seen) > 10 and set(seen) == {before}
    assert out.read_bytes() == f16


def test_an_old_folder_stays_whole_until_the_end(source: Path, tmp_path: Path) -> None:
    out = checkpoints.llama(tmp_path / "out", seed=1)
    old = contents(out)
    seen = []
    run(to_folder(source, out), executor=Here(), force=True, progress=lambda done, total: seen.append(contents(out) == old))
    assert len(seen) > 10 and all(seen)
    assert contents(out) != old and leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "split", "folder"])
def test_all_bytes_are_synced_before_any_name_appears(
    kind: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = (
        to_folder(source, tmp_path / "out")
        if kind == "folder"
        else to_gguf(source, tmp_path / "out", max_shard_size=60_000 if kind == "split" else None)
    )
    happened: list[tuple[str, str]] = []
    real_sync = os.fsync

    def fsync(descriptor: int) -> None:
        happened.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def noting(real: Callable[..., None]) -> Callable[..., None]:
        def rename(source: str | Path, target: str | Path) -> None:
            happened.append(("rename", str(target)))
            real(source, target)

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", noting(os.replace))
    monkeypatch.setattr(os, "rename", noting(os.rename))
    run(plan)
    renames = [at for at, (what, _) in enumerate(happened) if what == "rename"]
    synced = {name for what, name in happened[: renames[0]] if what == "sync"}
    (output,) = plan.outputs
    base = f"{output.path}.partial"
    if kind == "folder":
        wanted = {base, *(f"{base}/{file.name}" for file in output.files)}
    else:
        wanted = {f"{path}.partial" for path in output.paths()}
    assert wanted | {f"{base}.journal"} == synced
    assert ("sync", str(tmp_path)) in happened[renames[-1] :], "the new names themselves are synced"
    assert len(renames) == (1 if kind == "folder" else len(output.paths()))


def test_the_first_part_of_a_split_appears_last(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = os.replace

    def replace(partial: Path, final: Path) -> None:
        order.append(Path(final).name)
        real(partial, final)

    monkeypatch.setattr(os, "replace", replace)
    paths = run(to_gguf(source, tmp_path / "out.gguf", max_shard_size=60_000))
    assert order == [path.name for path in reversed(paths)] and len(order) > 2


def test_what_turned_up_meanwhile_is_not_replaced(source: Path, f16: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    def progress(done: int, total: int) -> None:
        out.write_bytes(b"somebody else's")

    with pytest.raises(errors.OutputExists):
        run(to_gguf(source, out), progress=progress)
    assert out.read_bytes() == b"somebody else's"
    out.unlink()
    run(to_gguf(source, out))
    assert out.read_bytes() == f16


def test_a_folder_that_turned_up_meanwhile_is_not_replaced(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def progress(done: int, total: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "diary.txt").write_text("mine")

    with pytest.raises(errors.OutputExists):
        run(to_folder(source, out), progress=progress)
    assert contents(out) == {"diary.txt": b"mine"}


# Existing outputs


def test_an_existing_file_is_kept_without_force(source: Path, f16: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    with pytest.raises(errors.OutputExists, match=r"out\.gguf: is already there") as caught:
        run(to_gguf(source, out))
    assert out.read_bytes() == b"old" and caught.value.hint == "--force replaces it" and caught.value.exit_code == 5
    assert [item.name for item in tmp_path.iterdir()] == ["out.gguf"]
    run(to_gguf(source, out), force=True)
    assert out.read_bytes() == f16


def test_one_existing_output_of_several_stops_all(source: Path, tmp_path: Path) -> None:
    (tmp_path / "Q8_0.gguf").write_bytes(b"old")
    with pytest.raises(errors.OutputExists, match="Q8_0"):
        Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "{type}.gguf", format="gguf", type=["f16", "q8_0"])
    assert contents(tmp_path) == {"Q8_0.gguf": b"old"}


def test_one_existing_part_of_a_split_stops_all(source: Path, tmp_path: Path) -> None:
    plan = to_gguf(source, tmp_path / "out.gguf", max_shard_size=60_000)
    part = plan.outputs[0].paths()[1]
    part.write_bytes(b"old")
    with pytest.raises(errors.OutputExists, match=part.name):
        run(plan)
    assert contents(tmp_path) == {part.name: b"old"}


def test_an_empty_folder_is_taken(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run(to_folder(source, tmp_path / "out"))
    assert "model.safetensors" in contents(tmp_path / "out")


def test_a_folder_with_something_in_it_is_kept_without_force(source: Path, tmp_path: Path) -> None:
    out = checkpoints.llama(tmp_path / "out", seed=1, shards=2)
    old = contents(out)
    with pytest.raises(errors.OutputExists, match="out: is already there"):
        run(to_folder(source, out))
    assert contents(out) == old and leftovers(tmp_path) == []
    run(to_folder(source, out), force=True)
    assert "model-00001-of-00002.safetensors" not in contents(out), "it is replaced as a whole"


@pytest.mark.parametrize("name", ["notes.txt", "training/optimizer.pt", ".git/HEAD", "model.gguf", "other.safetensors"])
def test_force_never_removes_a_strangers_file(name: str, source: Path, tmp_path: Path) -> None:
    out = checkpoints.llama(tmp_path / "out", seed=1)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_bytes(b"not a checkpoint's")
    old = contents(out)
    with pytest.raises(errors.OutputExists, match="is no part of a checkpoint"):
        run(to_folder(source, out), force=True)
    assert contents(out) == old and leftovers(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_file_where_a_folder_is_to_be_written_is_kept(force: bool, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(errors.OutputExists):
        run(to_folder(source, tmp_path / "out"), force=force)
    assert contents(tmp_path) == {"out": b"a file"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_where_a_file_is_to_be_written_is_a_usage_error(force: bool, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(errors.UsageError, match="is a folder where a file is to be written"):
        run(to_gguf(source, tmp_path / "out"), force=force)


@pytest.mark.parametrize("made", ["a file", "a folder"])
def test_a_partial_name_that_is_somebody_elses_is_kept_without_force(made: str, source: Path, f16: bytes, tmp_path: Path) -> None:
    taken = tmp_path / "out.gguf.partial"
    taken.write_bytes(b"a torrent's") if made == "a file" else taken.mkdir()
    with pytest.raises(errors.OutputExists, match=r"out\.gguf\.partial: is already there"):
        run(to_gguf(source, tmp_path / "out.gguf"))
    assert [item.name for item in tmp_path.iterdir()] == ["out.gguf.partial"]


def test_missing_parent_folders_are_made(source: Path, f16: bytes, tmp_path: Path) -> None:
    run(to_gguf(source, tmp_path / "a" / "b" / "out.gguf"))
    assert contents(tmp_path / "a" / "b" / "out.gguf") == {"": f16}
    run(to_folder(source, tmp_path / "c" / "d" / "out"))
    assert (tmp_path / "c" / "d" / "out" / "config.json").exists()


def test_a_parent_that_is_a_file_is_the_environments_fault(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(errors.EnvironmentFault, match="cannot be written"):
        run(to_gguf(source, tmp_path / "a" / "out.gguf"))


# Links, and the source itself


def test_a_link_is_followed_and_stays(source: Path, f16: bytes, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "real.gguf"
    target.write_bytes(b"old")
    link = tmp_path / "out.gguf"
    link.symlink_to("far/real.gguf")
    with pytest.raises(errors.OutputExists, match=r"real\.gguf: is already there"):
        run(to_gguf(source, link))
    written = run(to_gguf(source, link), force=True)
    assert link.is_symlink() and os.readlink(link) == "far/real.gguf"
    assert target.read_bytes() == f16 and written == (target,)
    assert leftovers(tmp_path) == leftovers(tmp_path / "far") == []


def test_a_dangling_link_is_filled(source: Path, f16: bytes, tmp_path: Path) -> None:
    link = tmp_path / "out.gguf"
    link.symlink_to(tmp_path / "new" / "real.gguf")
    run(to_gguf(source, link))
    assert link.is_symlink() and (tmp_path / "new" / "real.gguf").read_bytes() == f16


def test_a_link_to_a_folder_is_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "out").symlink_to("far")
    run(to_folder(source, tmp_path / "out"))
    assert (tmp_path / "out").is_symlink() and "model.safetensors" in contents(tmp_path / "far")


def test_links_in_a_circle_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").symlink_to("b.gguf")
    (tmp_path / "b.gguf").symlink_to("a.gguf")
    with pytest.raises(errors.HubclientError):
        run(to_gguf(source, tmp_path / "a.gguf"))


@pytest.fixture
def gguf(source: Path, f16: bytes, tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(f16)
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("how", ["itself", "another spelling", "a link", "a link to its folder"])
def test_the_source_file_is_never_the_output(how: str, gguf: Path, f16: bytes, tmp_path: Path) -> None:
    out = {
        "itself": gguf,
        "another spelling": tmp_path / "x" / ".." / "model.gguf",
        "a link": tmp_path / "link",
        "a link to its folder": tmp_path / "folder" / "model.gguf",
    }[how]
    (tmp_path / "link").symlink_to("model.gguf")
    (tmp_path / "folder").symlink_to(".")
    with pytest.raises(errors.UsageError, match="is the source itself"):
        run(to_gguf(gguf, out), force=True)
    assert gguf.read_bytes() == f16


def test_a_link_as_source_is_seen_through(gguf: Path, f16: bytes, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("model.gguf")
    with pytest.raises(errors.UsageError, match="is the source itself"):
        run(to_gguf(tmp_path / "link", gguf), force=True)
    assert gguf.read_bytes() == f16


def test_another_name_of_the_sources_inode_is_replaced_and_the_source_kept(gguf: Path, f16: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    os.link(gguf, other)
    with pytest.raises(errors.OutputExists):
        run(Checkpoint.from_pretrained(gguf).plan(other, format="gguf", type="q8_0"))
    run(Checkpoint.from_pretrained(gguf).plan(other, format="gguf", type="q8_0"), force=True)
    assert gguf.read_bytes() == f16 != other.read_bytes()
    assert not other.samefile(gguf)


@pytest.mark.parametrize("how", ["itself", "a link", "its parent", "a file of it"])
def test_the_source_folder_is_never_replaced(how: str, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "all" / "llama")
    (tmp_path / "link").symlink_to("all/llama")
    old = contents(tmp_path / "all")
    out = {
        "itself": folder,
        "a link": tmp_path / "link",
        "its parent": tmp_path / "all",
        "a file of it": folder / "model.safetensors",
    }[how]
    with pytest.raises(errors.UsageError, match="the source"):
        run(to_folder(folder, out), force=True)
    assert contents(tmp_path / "all") == old


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_no_file_of_the_source_is_the_output(name: str, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=2 if "index" in name else 1)
    old = contents(folder)
    with pytest.raises(errors.UsageError, match="is the source itself"):
        run(to_gguf(folder, folder / name), force=True)
    assert contents(folder) == old


def test_an_output_inside_the_source_folder_is_fine(f16: bytes, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    run(to_gguf(folder, folder / "out.gguf"))
    assert (folder / "out.gguf").read_bytes() == f16
    run(to_folder(folder, folder / "again"))
    assert Checkpoint.from_pretrained(folder).format == "safetensors"


# One writer


def test_two_threads_do_not_write_one_output(source: Path, f16: bytes, tmp_path: Path) -> None:
    plan = to_gguf(source, tmp_path / "out.gguf")
    begun, go_on = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        begun.set()
        assert go_on.wait(30)

    first = threading.Thread(target=lambda: run(plan, progress=progress))
    first.start()
    try:
        assert begun.wait(30)
        with pytest.raises(errors.OutputBusy, match=r"out\.gguf: another process is writing it"):
            run(plan)
        with pytest.raises(errors.OutputBusy):
            run(plan, force=True)
    finally:
        go_on.set()
        first.join()
    assert (tmp_path / "out.gguf").read_bytes() == f16 and leftovers(tmp_path) == []


def test_two_processes_do_not_write_one_output(source: Path, f16: bytes, tmp_path: Path) -> None:
    arguments = ("convert", source, "out.gguf", "--to", "gguf", "--type", "f16")
    first = stopped(*arguments, cwd=tmp_path, before=3)
    wait_for((tmp_path / "out.gguf.partial").exists, first)
    for options in ((), ("--force",)):
        second = command(*arguments, *options, cwd=tmp_path)
        assert second.returncode == 5 and second.stdout == "" and "out.gguf: another process is writing it" in second.stderr
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert (tmp_path / "out.gguf").read_bytes() == f16 and leftovers(tmp_path) == []


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
    from dataclasses import replace

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
