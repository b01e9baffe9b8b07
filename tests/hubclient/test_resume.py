"""Going on after a kill at any change of the file system; what is done stays done; other plans and sources are refused."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import checkpoints
import pytest
from planning import OPTIONS, bytes_of, interrupted, plan_of
from running import Here, command, counting_reads, killed, leftovers, stopped, wait_for

from hubclient import Checkpoint, errors, tiles
from hubclient.checkpoint import run

# Killed


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_run_killed_anywhere_is_completed_by_the_next(kind: str, source: Path, tmp_path: Path) -> None:
    whole = plan_of(source, tmp_path / "whole", kind)
    run(whole)
    expected = bytes_of(whole)
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        plan = plan_of(source, folder, kind)
        if not killed(lambda plan=plan: run(plan, executor=Here()), before=number):  # type: ignore[misc]
            break
        for found, right in zip(bytes_of(plan), expected, strict=True):
            assert found in ({}, right), f"killed before change {number}, something else is under the final name"
        complete = bytes_of(plan) == expected
        try:
            run(plan_of(source, folder, kind))
        except errors.OutputExists:
            assert complete, f"killed before change {number}, the next run does not go on"
        assert bytes_of(plan) == expected, f"killed before change {number}"
        assert complete or leftovers(folder) == [], f"killed before change {number}"
        shutil.rmtree(folder)
    assert number > 50


@pytest.mark.parametrize("kind", OPTIONS)
def test_with_force_a_kill_leaves_the_old_output_or_the_new(kind: str, source: Path, tmp_path: Path) -> None:
    old_source = checkpoints.llama(tmp_path / "old", seed=1)
    whole, before = plan_of(source, tmp_path / "whole", kind), plan_of(old_source, tmp_path / "before", kind)
    run(whole)
    run(before)
    expected, old = bytes_of(whole), bytes_of(before)
    for number in itertools.count(1, 3):  # every third: this is the test above once more, with something there already
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "before", folder)
        plan = plan_of(source, folder, kind)
        if not killed(lambda plan=plan: run(plan, executor=Here(), force=True), before=number):  # type: ignore[misc]
            break
        for found, right, replaced in zip(bytes_of(plan), expected, old, strict=True):
            assert found in ((right, replaced) if kind != "a folder" else (right, replaced, {})), f"killed before change {number}"
        run(plan_of(source, folder, kind), force=True)
        assert bytes_of(plan) == expected, f"killed before change {number}"
        assert leftovers(folder) == []
        shutil.rmtree(folder)


def test_killed_again_and_again_it_still_arrives(source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "two files"), plan_of(source, tmp_path / "out", "two files")
    run(whole)
    for step in itertools.count():
        if not killed(lambda: run(plan, executor=Here()), before=7 + step):
            break
    assert step > 3
    assert bytes_of(plan) == bytes_of(whole)


@contextmanager
def halfway(source: Path, folder: Path, tile_count: int) -> Iterator[subprocess.Popen[str]]:
    """A command that has noted so many tiles and stands still."""
    arguments = ("convert", source, "out.gguf", "--to", "gguf", "--type", "f16", "--jobs", "2")
    journal = folder / "out.gguf.partial.journal"
    with stopped(*arguments, cwd=folder, before=tile_count + 1) as process:
        wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > tile_count, process)
        yield process


@pytest.mark.parametrize("tile_count", [0, 1, 9, 20])
def test_a_command_killed_at_any_time_is_completed_by_the_same_command(tile_count: int, source: Path, tmp_path: Path) -> None:
    with halfway(source, tmp_path, tile_count) as process:
        process.kill()
    assert not (tmp_path / "out.gguf").exists()
    again = command("convert", source, "out.gguf", "--to", "gguf", "--type", "f16", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    run(Checkpoint.from_pretrained(source).plan(tmp_path / "whole.gguf", format="gguf", type="f16"))
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert leftovers(tmp_path) == []


def test_ctrl_c_ends_with_one_line_and_is_gone_on_from(source: Path, tmp_path: Path) -> None:
    with halfway(source, tmp_path, 4) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        (tmp_path / "go").touch()  # tiles that are being written are finished
        assert process.wait(60) == 130
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
    assert out == "" and len(err.strip().splitlines()) == 1 and "same command" in err
    assert leftovers(tmp_path) == ["out.gguf.partial", "out.gguf.partial.journal"]
    with counting_reads() as sizes:
        run(Checkpoint.from_pretrained(source).plan(tmp_path / "out.gguf", format="gguf", type="f16"))
    assert sum(sizes) < sum(ref.nbytes for ref in Checkpoint.from_pretrained(source).opened.tensors.values())


# What is done stays done


def noted(folder: Path) -> list[set[tuple[int, int, int]]]:
    """Steps and rows in each journal of a folder."""
    lines = [path.read_bytes().split(b"\n")[1:-1] for path in sorted(folder.glob("*.journal"))]
    return [{(int(a), int(b), int(c)) for a, b, c, *_ in map(bytes.split, one)} for one in lines]


def test_finished_tiles_are_not_read_again(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source, tmp_path, "two files")
    interrupted(plan, 20)
    done = noted(tmp_path)
    again = sum(
        sum(leaf.ref.nbytes for leaf in group.array.leaves())
        for group in tiles.groups(plan.outputs)
        if not all((step.index, 0, group.array.rows) in done[index] for index, step in group.steps)
    )
    with counting_reads() as sizes:
        run(plan)
    whole = sum(ref.nbytes for ref in Checkpoint.from_pretrained(source).opened.tensors.values())
    assert sum(sizes) == again < whole - 20_000


def test_finished_tiles_count_for_a_run_with_other_tiles(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(source, tmp_path, "two files")
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    interrupted(plan, 2500, max_memory=1)
    monkeypatch.undo()
    rows = [
        {step: {row for other, start, stop in one if other == step for row in range(start, stop)} for step, *_ in one}
        for one in noted(tmp_path)
    ]
    again = sum(
        sum(leaf.ref.nbytes for leaf in group.array.leaves())
        for group in tiles.groups(plan.outputs)
        if not all(len(rows[index].get(step.index, ())) == group.array.rows for index, step in group.steps)
    )
    with counting_reads() as sizes:
        run(plan)
    whole = sum(ref.nbytes for ref in Checkpoint.from_pretrained(source).opened.tensors.values())
    assert sum(sizes) <= again < whole - 20_000


def test_progress_counts_what_was_done_before(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source, tmp_path, "two files")
    interrupted(plan, 9)
    told: list[tuple[int, int]] = []
    run(plan, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


# Other plans, other sources


def test_the_journal_of_another_plan_is_refused_until_forced(source: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_pretrained(source)
    interrupted(checkpoint.plan(tmp_path / "out.gguf", format="gguf", type="f16"), 5)
    left = {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)}
    other = checkpoint.plan(tmp_path / "out.gguf", format="gguf", type="q8_0")
    with pytest.raises(errors.OutputExists, match=r"out\.gguf\.partial: is an unfinished conversion .* other options") as caught:
        run(other)
    assert "--force" in str(caught.value.hint)
    assert {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)} == left
    run(other, force=True)
    run(checkpoint.plan(tmp_path / "alone.gguf", format="gguf", type="q8_0"))
    assert (tmp_path / "out.gguf").read_bytes()[-5000:] == (tmp_path / "alone.gguf").read_bytes()[-5000:]
    assert leftovers(tmp_path) == []


def _touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    _touch(path)


def _new_header(path: Path) -> None:
    """Another header, with the size and time of the old one."""
    stat = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"format": "pt"', b'"format": "np"'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _longer(path: Path) -> None:
    stat = path.stat()
    tensors = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (8,) for i in range(2)}
    checkpoints.llama(path.parent, tensors=tensors)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [_touch, _flip, _new_header, _longer])
def test_a_source_that_changed_since_is_refused_and_named(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    interrupted(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"), 5)
    left = {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)}
    change(folder / "model.safetensors")
    with pytest.raises(errors.SourceChanged, match=r"llama/model\.safetensors: changed since") as caught:
        run(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"))
    assert caught.value.path == folder / "model.safetensors" and "--force" in str(caught.value.hint)
    assert {name: (tmp_path / name).read_bytes() for name in leftovers(tmp_path)} == left
    assert not (tmp_path / "out.gguf").exists()
    run(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"), force=True)
    assert leftovers(tmp_path) == []


def test_one_changed_shard_is_the_one_named(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=3)
    interrupted(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"), 5)
    _touch(folder / "model-00002-of-00003.safetensors")
    with pytest.raises(errors.SourceChanged, match=r"model-00002-of-00003\.safetensors: changed since"):
        run(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"))


def test_a_run_goes_on_however_its_source_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.llama(tmp_path / "llama")
    (tmp_path / "link").symlink_to("llama")
    monkeypatch.chdir(tmp_path)
    interrupted(Checkpoint.from_pretrained("llama").plan("out.gguf", format="gguf"), 5)
    run(Checkpoint.from_pretrained(tmp_path / "llama").plan(tmp_path / "out.gguf", format="gguf"))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("change", [_touch, _flip, _longer])
def test_a_source_that_changes_during_the_run_is_refused(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == 5:
            change(folder / "model.safetensors")

    with pytest.raises(errors.SourceChanged, match=r"llama/model\.safetensors: changed"):
        run(plan, executor=Here(), progress=progress)
    assert not (tmp_path / "out.gguf").exists()
    assert leftovers(tmp_path) == [], "rows of two states may be mixed in it"
    run(Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf"))


def test_a_source_that_shrinks_under_the_reader_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == 5:
            os.truncate(folder / "model.safetensors", 50_000)

    with pytest.raises(errors.SourceChanged, match=r"llama/model\.safetensors: became shorter"):
        run(plan, executor=Here(), progress=progress)
    assert not (tmp_path / "out.gguf").exists() and leftovers(tmp_path) == []


def test_a_source_that_is_away_for_a_while_costs_nothing(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == 5:
            folder.rename(tmp_path / "away")

    with pytest.raises(errors.EnvironmentFault, match=r"model\.safetensors"):
        run(plan, executor=Here(), progress=progress)
    with pytest.raises(errors.SourceMissing, match="is gone"):
        run(plan)
    (tmp_path / "away").rename(folder)
    with counting_reads() as sizes:
        run(plan)
    assert sum(sizes) < sum(ref.nbytes for ref in Checkpoint.from_pretrained(folder).opened.tensors.values())


def test_a_plan_outlived_by_its_source_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
    _flip(folder / "model.safetensors")
    with pytest.raises(errors.SourceChanged, match=r"model\.safetensors: changed since the plan was made"):
        run(plan)
    assert leftovers(tmp_path) == []
