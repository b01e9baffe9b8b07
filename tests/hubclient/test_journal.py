"""The journal: what it says, who holds it, and what becomes of torn lines and damaged remains."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from planning import OPTIONS, Stop, bytes_of, interrupted, names, plan_of
from running import Here, killed, leftovers

from hubclient import errors
from hubclient.checkpoint import run
from hubclient.journal import Entry, Journal
from hubclient.plan import Plan

# Damaged remains


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_torn_line_is_forgotten(cut: int, source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "two files"), plan_of(source, tmp_path / "out", "two files")
    run(whole)
    interrupted(plan, 12)
    journal = tmp_path / "out" / "F16.gguf.partial.journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    interrupted(plan, 20)
    assert b"" not in journal.read_bytes().split(b"\n")[:-1]
    entries = [line.split() for line in journal.read_bytes().split(b"\n")[1:-1]]
    assert all(len(entry) == 5 for entry in entries), "a line was written behind the torn one"
    run(plan)
    assert bytes_of(plan) == bytes_of(whole)


@pytest.mark.parametrize("garbage", [b"", b"\n", b"\xff\xfe{\n1 2 3 4\n", b"[]\n", b'"x"\n', b"{}\n", b"1 0 5 00000000\n" * 3])
def test_an_unreadable_journal_is_not_trusted(garbage: bytes, source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "two files"), plan_of(source, tmp_path / "out", "two files")
    run(whole)
    interrupted(plan, 12)
    (tmp_path / "out" / "F16.gguf.partial.journal").write_bytes(garbage)
    with pytest.raises(errors.OutputExists):
        run(plan)
    run(plan, force=True)
    assert bytes_of(plan) == bytes_of(whole)


def test_lines_that_make_no_sense_are_skipped(source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "two files"), plan_of(source, tmp_path / "out", "two files")
    run(whole)
    interrupted(plan, 12)
    with (tmp_path / "out" / "F16.gguf.partial.journal").open("ab") as file:
        file.write(
            b"99999 0 1 00000000\n-1 0 1 00000000\n0 5 2 00000000\n0 0 999999999 00000000\n0 -4 2 0\na b c d\n1 2\n\n\xff\n"
        )
    run(plan)
    assert bytes_of(plan) == bytes_of(whole)


@pytest.mark.parametrize("kind", OPTIONS)
def test_damage_to_what_was_written_is_found_and_mended(kind: str, source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", kind), plan_of(source, tmp_path / "out", kind)
    run(whole)
    interrupted(plan, 12)
    for partial in (tmp_path / "out").rglob("*"):
        if partial.is_file() and not partial.name.endswith(".journal"):
            data = bytearray(partial.read_bytes())
            places = {0, len(data) // 3, 2 * len(data) // 3}  # the head, and whatever was written there
            for place in places:
                data[place] ^= 0xFF
            partial.write_bytes(data)
    run(plan)
    assert bytes_of(plan) == bytes_of(whole) or _only_gaps_differ(plan, whole)


def _only_gaps_differ(plan: Plan, whole: Plan) -> bool:
    """Bytes between tensors belong to nobody and are not checked."""
    for output, other in zip(plan.outputs, whole.outputs, strict=True):
        for number, (layout, one, two) in enumerate(zip(output.files, output.paths(), other.paths(), strict=True)):
            have, want = one.read_bytes(), two.read_bytes()
            spans = [
                (0, len(layout.head)),
                *((at, at + size) for step in output.steps for file, at, size in step.places if file == number),
            ]
            if len(have) != len(want) or any(have[low:high] != want[low:high] for low, high in spans):
                return False
    return True


@pytest.mark.parametrize("how", ["missing", "shorter", "longer"])
def test_a_partial_file_of_another_size_is_made_anew(how: str, source: Path, tmp_path: Path) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "two files"), plan_of(source, tmp_path / "out", "two files")
    run(whole)
    interrupted(plan, 12)
    partial = tmp_path / "out" / "F16.gguf.partial"
    {"missing": partial.unlink, "shorter": lambda: os.truncate(partial, 1000), "longer": lambda: os.truncate(partial, 10**6)}[
        how
    ]()
    run(plan)
    assert bytes_of(plan) == bytes_of(whole)


# The journal itself


def test_entries_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.start({"fingerprint": "f"})
    journal.add(Entry(3, 0, 7, 0xDEADBEEF))
    journal.close()
    again = Journal(tmp_path / "j")
    assert again.read() == ({"fingerprint": "f"}, [Entry(3, 0, 7, 0xDEADBEEF)], False)
    again.finish()
    assert again.read().finished
    again.remove()
    assert not (tmp_path / "j").exists()


def test_a_journal_has_one_holder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.gguf.partial.journal")
    with pytest.raises(errors.OutputBusy, match=r"out\.gguf: another process is writing it"):
        Journal(tmp_path / "out.gguf.partial.journal")
    journal.close()
    Journal(tmp_path / "out.gguf.partial.journal").close()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(told, 1) == b"x"
        journal.close()
        Journal(tmp_path / "j").close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


def test_a_journal_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    with pytest.raises(errors.EnvironmentFault, match="j: cannot be written"):
        Journal(tmp_path / "j")


def test_the_first_line_is_json(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source, tmp_path, "two files")
    interrupted(plan, 5)
    described = json.loads((tmp_path / "F16.gguf.partial.journal").read_bytes().split(b"\n")[0])
    assert described["fingerprint"] == plan.fingerprint(plan.outputs[0])
    assert list(described["sources"]) == [str(source / "model.safetensors")]


def test_a_split_half_renamed_and_then_damaged_is_made_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, plan = plan_of(source, tmp_path / "whole", "a split"), plan_of(source, tmp_path / "out", "a split")
    run(whole)
    real, calls = os.replace, itertools.count(1)

    def replace(partial: Path, final: Path) -> None:
        if next(calls) == 2:
            raise Stop
        real(partial, final)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(os, "replace", replace)
        run(plan)
    first, *_, last = names(plan)
    assert last.exists() and not first.exists()
    os.truncate(first.with_name(first.name + ".partial"), 1000)
    with pytest.raises(errors.OutputExists):
        run(plan)
    for number in itertools.count(1):  # killed while it is made anew, and gone on from: never half a file under a name
        if not killed(lambda: run(plan, executor=Here(), force=True), before=number):
            break
        assert all(found in ({}, right) for found, right in zip(bytes_of(plan), bytes_of(whole), strict=True))
    assert bytes_of(plan) == bytes_of(whole) and leftovers(tmp_path / "out") == []
