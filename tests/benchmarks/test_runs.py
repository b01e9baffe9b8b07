"""Contestants are run alike, and what fails is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runs import Contest, fresh, in_turns, inside, measured


def test_a_process_is_timed_and_its_memory_measured() -> None:
    small = measured([sys.executable, "-c", "import time; time.sleep(0.2)"])
    large = measured([sys.executable, "-c", "b'1' * (64 << 20)"])
    assert small.seconds >= 0.2
    assert large.peak - small.peak > 48 << 20


def test_the_memory_of_who_starts_it_does_not_count() -> None:
    ballast = b"1" * (256 << 20)
    assert measured([sys.executable, "-c", "pass"]).peak < len(ballast) / 2


def test_the_output_is_synced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    measured([sys.executable, "-c", f"open({str(out)!r}, 'w').write('x')"], sync=out)
    assert out.read_text() == "x"


def test_all_files_of_a_folder_are_synced(tmp_path: Path) -> None:
    write = f"import pathlib; [pathlib.Path({str(tmp_path)!r}, name).write_text('x') for name in 'ab']"
    assert measured([sys.executable, "-c", write], sync=tmp_path).seconds > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_commands_compete_from_the_same_start(tmp_path: Path) -> None:
    out, starts = tmp_path / "out", []

    def start() -> Path:
        starts.append(fresh(out))
        return out

    write = [sys.executable, "-c", f"open({str(out)!r}, 'x').write('x')"]
    contest = Contest({"writes": write, "does not": [sys.executable, "-c", "pass"]}, start, synced={"writes"})
    runs = in_turns(2, contest.contestants)
    assert len(starts) == 4 and all(len(seconds) == 2 for seconds in runs.values())
    assert all(len(peaks) == 2 and min(peaks) > 1 for peaks in contest.peaks.values())


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        measured([sys.executable, "-c", "raise SystemExit('no such model')"])
    assert "no such model" in caught.value.stderr


def test_contestants_take_turns() -> None:
    order: list[str] = []
    results = in_turns(2, {"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0})  # type: ignore[func-returns-value]
    assert order == ["a", "b", "a", "b"]
    assert results == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_each_run_starts_with_nothing_at_the_output(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"x" * 100)
    out = tmp_path / "new" / "out.gguf"
    assert fresh(out, tmp_path / "source") == out
    assert out.parent.is_dir()
    out.write_bytes(b"old")
    Path(f"{out}.partial").write_bytes(b"old")
    fresh(out)
    assert list(out.parent.iterdir()) == []


def test_a_copy_is_timed_inside_a_process(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 100)
    assert 0 < inside("copy", tmp_path / "weights", tmp_path / "copy") < 60
    assert (tmp_path / "copy").read_bytes() == b"x" * 100
