"""Where outputs may lie: links, the source itself and its neighbourhood, and one writer at a time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import checkpoints
import pytest
from planning import to_folder, to_gguf
from running import command, contents, leftovers, stopped, wait_for

from hubclient import Checkpoint, errors
from hubclient.checkpoint import run

# Links, and the source itself


def test_a_link_is_followed_and_stays(source: Path, f16: bytes, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "real.gguf"
    target.write_bytes(b"old")
    link = tmp_path / "out.gguf"
    link.symlink_to("far/real.gguf")
    with pytest.raises(errors.OutputExists, match=r"real\.gguf: is already there"):
        run(to_gguf(source, link))
    written = run(to_gguf(source, link), force=True).paths
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
    with stopped(*arguments, cwd=tmp_path, before=3) as first:
        wait_for((tmp_path / "out.gguf.partial").exists, first)
        for options in ((), ("--force",)):
            second = command(*arguments, *options, cwd=tmp_path)
            assert second.returncode == 5 and second.stdout == "" and "out.gguf: another process is writing it" in second.stderr
        (tmp_path / "go").touch()
        assert first.wait(60) == 0
    assert (tmp_path / "out.gguf").read_bytes() == f16 and leftovers(tmp_path) == []
