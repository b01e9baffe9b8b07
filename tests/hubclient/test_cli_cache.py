"""`hubclient cache` as people use it: what it says, what it asks, and how it ends."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from cachemaking import MAIN, OTHER, make

from hubclient.cli import main

Run = Callable[..., tuple[Any, str, str]]
OLD = time.time() - 30 * 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def run(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `hubclient cache ...`."""

    def call(*arguments: str | Path) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["hubclient", "cache", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return caught.value.code, captured.out, captured.err

    return call


def unfinished(cache: Path, size: int, *spans: tuple[int, int]) -> Path:
    """A part that has its final size from the start, and its ledger."""
    paths = make(cache, {"config.json": b"{}"})
    part = paths.blobs / f"{'c' * 64}.12345678.incomplete"
    part.write_bytes(bytes(size))
    lines = "".join(f"{start} {stop} 00000000\n" for start, stop in spans)
    part.with_name(part.name.replace(".incomplete", ".ledger.incomplete")).write_text("{}\n" + lines)
    return part


@pytest.mark.parametrize("answer", ["n", "interrupt"])
def test_who_does_not_agree_loses_nothing(cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    make(cache, {"a.txt": b"a"})

    def confirm(question: str, **options: Any) -> bool:
        if answer == "interrupt":
            raise click.Abort
        return False

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, _, err = run("rm", "org/name")
    assert code == 1 and err.splitlines()[-1] == "nothing was removed" and "interrupted" not in err
    assert (cache / "models--org--name").is_dir()


def test_where_nobody_can_be_asked_nothing_is_removed(cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make(cache, {"a.txt": b"a"})
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = run("rm", "org/name")
    assert code == 2 and "nothing was removed" in err and "--yes" in err and (cache / "models--org--name").is_dir()


def test_several_are_removed_at_once_and_of_one_a_folder(cache: Path, run: Run) -> None:
    make(cache, {"a.txt": b"a"})
    make(cache, {"b.txt": b"b", "onnx/m.bin": b"m", "onnx/n.bin": b"n"}, "org/other")
    code, out, err = run("rm", "org/name", "org/other:onnx/", "--yes", "--json")
    told = json.loads(out)
    assert code == 0 and not err and told["removed"]["repositories"] == ["org/name"]
    assert [row["files"] for row in told["plan"]["revisions"]] == [[], ["onnx/m.bin", "onnx/n.bin"]]
    left = cache / "models--org--other" / "snapshots" / MAIN
    assert [path.name for path in left.iterdir()] == ["b.txt"] and not (cache / "models--org--name").exists()


def test_a_file_and_its_repository_named_together_are_the_repository(cache: Path, run: Run) -> None:
    make(cache, {"a.txt": b"a", "b.txt": b"b"})
    told = json.loads(run("rm", "org/name:a.txt", "org/name", "--dry-run", "--json")[1])["plan"]
    assert told["repositories"] == ["org/name"] and [row["files"] for row in told["revisions"]] == [[]]


def test_the_option_for_another_cache_may_follow_the_command(cache: Path, run: Run) -> None:
    make(cache.with_name("another"), {"a.txt": b"a"}, "org/elsewhere")
    code, out, _ = run("ls", "--cache", cache.with_name("another"), "--json")
    assert code == 0 and [row["repo"] for row in json.loads(out)["repositories"]] == ["org/elsewhere"]


def test_pins_in_json(cache: Path, run: Run) -> None:
    make(cache, {"a.txt": b"a"})
    told = json.loads(run("pin", "org/name", "--why", "mine", "--json")[1])
    assert [(pin["source"], pin["why"]) for pin in told["pinned"]] == [("org/name", "mine")]
    assert json.loads(run("unpin", "org/name", "--json")[1]) == {"unpinned": ["org/name"], "not_pinned": []}
    assert json.loads(run("unpin", "org/name", "--json")[1]) == {"unpinned": [], "not_pinned": ["org/name"]}


@pytest.mark.parametrize(
    "command", [["ls"], ["stats"], ["prune"], ["gc", "--max-size", "1G"], ["verify"], ["repair", "--offline"]]
)
def test_without_a_cache_there_is_nothing_to_do(cache: Path, run: Run, command: list[str]) -> None:
    code, out, err = run(*command)
    assert code == 0 and not out and f"{cache}: there is no cache here yet" in err, err
    code, out, _ = run(*command, "--json")
    assert code == 0 and json.loads(out) and not cache.exists()


@pytest.mark.parametrize("command", [["ls"], ["stats"], ["prune"], ["show", "org/name"]])
def test_a_file_is_no_cache(cache: Path, run: Run, command: list[str]) -> None:
    cache.write_text("")
    code, out, err = run(*command)
    assert code == 5 and not out and err == f"hubclient: {cache}: is no folder, and so no cache\n"


def test_what_a_refused_download_left_is_no_fault_and_goes(cache: Path, run: Run) -> None:
    ref = cache / "models--org--name" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(MAIN)
    code, _, err = run("verify")
    assert code == 0 and "all intact" in err
    code, _, err = run("repair", "--offline")
    assert code == 0 and "0 faults mended, 0 left" in err
    code, _, err = run("prune", "--grace", "0s", "--yes")
    assert code == 0 and not ref.exists(), err


def test_a_ref_to_what_is_gone_is_a_fault_where_other_revisions_are(cache: Path, run: Run) -> None:
    make(cache, {"a.txt": b"a"})
    (cache / "models--org--name" / "refs" / "v2").write_text(OTHER)
    assert run("verify")[0] == 1


def test_what_was_not_downloaded_is_counted(cache: Path, run: Run) -> None:
    paths = make(cache, {"a.txt": b"a", "b.txt": b"b"})
    (paths.snapshot(MAIN) / "b.txt").unlink()
    code, _, err = run("verify")
    assert code == 0 and "is not all here: 1 of 2 files was never downloaded" in err
    assert "1 of 2 files" in run("show", "org/name")[1]


def test_many_that_stay_are_told_by_their_reasons(cache: Path, run: Run) -> None:
    for number in range(8):
        make(cache, {"a.bin": bytes([number]) * 3000}, f"org/{number}")
    assert run("pin", "org/0")[0] == 0
    code, _, err = run("gc", "--max-size", "4000B", "--dry-run")
    kept = [line for line in err.splitlines() if line.startswith("kept")]
    assert code == 0 and len(kept) == 1 and "7 revisions used within the last hour (--grace 0s includes them)" in kept[0], err
    assert "1 revision pinned" in kept[0] and "still 20.0 kB over the limit of 4.0 kB" in err


def test_few_that_stay_are_named(cache: Path, run: Run) -> None:
    make(cache, {"a.bin": b"a" * 3000})
    err = run("gc", "--max-size", "1B", "--dry-run")[2]
    assert f"kept: org/name@{MAIN[:12]} was used just now" in err


def test_of_an_unfinished_download_it_is_told_what_has_come(cache: Path, run: Run) -> None:
    unfinished(cache, 5_000_000, (0, 1000), (4_000_000, 4_001_000))
    row = json.loads(run("ls", "--json")[1])["repositories"][0]
    assert (row["incomplete"], row["downloads"]) == (2000, 1)
    assert "1 unfinished download, 2.0 kB so far" in run("ls")[1]
    assert json.loads(run("stats", "--json")[1])["incomplete"]["count"] == 1
    err = run("prune", "--dry-run")[2]
    assert "kept: an unfinished download of org/name was written just now" in err and "blobs" not in err
    assert len(err.splitlines()) == 2


def test_an_abandoned_download_is_one_thing(cache: Path, run: Run) -> None:
    part = unfinished(cache, 3000, (0, 1000))
    for path in part.parent.iterdir():
        os.utime(path, (OLD, OLD))
    assert "1 unfinished download of org/name" in run("prune", "--dry-run")[1]


def test_only_what_is_nearly_called_so_is_offered(cache: Path, run: Run) -> None:
    make(cache, {"a.txt": b"a"}, "org/tiny-llama")
    assert "did you mean" not in run("show", "org/nope")[2]
    assert "did you mean org/tiny-llama?" in run("show", "other/tiny-lama")[2]
