"""When outputs appear, and over what: complete or not at all, and over nobody's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from planning import to_folder, to_gguf
from running import Here, contents, leftovers

from hubclient import Checkpoint, errors
from hubclient.checkpoint import run

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
    paths = run(to_gguf(source, tmp_path / "out.gguf", max_shard_size=60_000)).paths
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
