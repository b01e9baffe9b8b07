"""Our notes in a repository's folder: pins, uses, digests, outputs, who writes now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hubclient.cache import notes
from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.owner import Owner
from hubclient.errors import DamagedInput

COMMIT = "a" * 40


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    return RepoPaths(tmp_path, RepoId("org/name"))


def test_a_pin_stays_until_it_is_taken_away(paths: RepoPaths):
    assert notes.read_pins(paths) == {}
    one, whole = notes.write_pin(paths, COMMIT, "paper"), notes.write_pin(paths, None)
    assert notes.read_pins(paths) == {COMMIT: one, "all": whole} and one.why == "paper"
    assert notes.remove_pin(paths, COMMIT) and not notes.remove_pin(paths, COMMIT)
    assert list(notes.read_pins(paths)) == ["all"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"by": 1}', "\0" * 50])
def test_a_pin_that_cannot_be_read_is_a_pin(paths: RepoPaths, content: str):
    notes.write_pin(paths, COMMIT)
    (paths.notes / "pins" / COMMIT).write_text(content)
    assert notes.read_pins(paths)[COMMIT].why


def test_uses_are_noted_with_their_time(paths: RepoPaths):
    before = time.time()
    assert notes.mark_used(paths, COMMIT)
    assert before - 1 <= notes.last_used(paths)[COMMIT] <= time.time() + 1
    os.utime(paths.notes / "used" / COMMIT, (1, 1))
    assert notes.mark_used(paths, COMMIT) and notes.last_used(paths)[COMMIT] > before - 1


def test_digests_of_blobs_whose_names_are_none(paths: RepoPaths):
    digest = Digest("sha256", "b" * 64)
    assert notes.recorded_digest(paths, "snapshots/x/../weird name") is None
    assert notes.record_digest(paths, "snapshots/x/../weird name", digest)
    assert notes.recorded_digest(paths, "snapshots/x/../weird name") == digest
    notes.forget_digest(paths, "snapshots/x/../weird name")
    assert notes.recorded_digest(paths, "snapshots/x/../weird name") is None


def test_outputs_by_path_the_latest_counts(paths: RepoPaths):
    first = notes.Output("/out/a.gguf", "gguf", "F16", COMMIT, "2026-01-01T00:00:00Z")
    notes.record_output(paths, first)
    notes.record_output(paths, replace(first, type="Q8_0"))
    notes.record_output(paths, replace(first, path="/out/b.gguf"))
    (paths.notes / "outputs" / "broken.json").write_text("{")
    assert [(output.path, output.type) for output in notes.read_outputs(paths)] == [
        ("/out/a.gguf", "Q8_0"),
        ("/out/b.gguf", "F16"),
    ]


def test_a_writer_is_live_while_it_writes(paths: RepoPaths):
    with notes.active(paths, COMMIT):
        assert notes.live(paths) == {COMMIT} and notes.dead(paths) == ()
    assert notes.live(paths) == frozenset()


def test_a_killed_writer_is_dead(paths: RepoPaths):
    code = "import os, signal; from pathlib import Path; from hubclient.cache import notes; from hubclient.cache.layout import *;"
    code += f"\nwith notes.active(RepoPaths(Path({str(paths.cache)!r}), RepoId('org/name')), {COMMIT!r}): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert notes.live(paths) == frozenset() and len(notes.dead(paths)) == 1


@pytest.mark.parametrize(("age", "live"), [(60, {COMMIT}), (notes.FORGOTTEN + 60, set())])
def test_a_writer_elsewhere_is_live_for_a_day(paths: RepoPaths, age: float, live: set[str]):
    folder = paths.notes / "active"
    folder.mkdir(parents=True)
    (folder / "x").write_text(json.dumps({"commit": COMMIT, "host": "elsewhere", "space": "s", "pid": 1, "started": 1}))
    os.utime(folder / "x", (time.time() - age,) * 2)
    assert notes.live(paths) == live


def test_a_process_is_told_from_a_later_one_of_its_number():
    this = Owner.this()
    assert this.alive is True
    assert replace(this, started=this.started + 1).alive is False
    assert replace(this, pid=2**22 + 1).alive is False
    assert replace(this, host="elsewhere").alive is None and replace(this, space="another boot").alive is None


def test_a_cache_that_cannot_be_written_forgets_uses_and_refuses_pins(paths: RepoPaths):
    paths.path.mkdir()
    (paths.path / ".hubclient").write_text("a file in the way")
    assert not notes.mark_used(paths, COMMIT) and not notes.record_digest(paths, "x", Digest("sha256", "b" * 64))
    assert notes.read_pins(paths) == {} and notes.last_used(paths) == {} and notes.read_outputs(paths) == ()
    with pytest.raises(DamagedInput, match="is not the folder"):
        notes.write_pin(paths, COMMIT)
    with pytest.raises(DamagedInput), notes.active(paths, COMMIT):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_link_in_the_place_of_a_note_is_none(paths: RepoPaths, tmp_path: Path):
    for folder in ("active", "digests", "outputs"):
        (paths.notes / folder).mkdir(parents=True)
    os.mkfifo(paths.notes / "active" / "x")
    os.mkfifo(paths.notes / "outputs" / "x.json")
    (tmp_path / "elsewhere").write_text("sha256 " + "b" * 64)
    os.symlink(tmp_path / "elsewhere", paths.notes / "digests" / ("c" * 64))
    assert notes.live(paths) == frozenset() and notes.read_outputs(paths) == ()
    assert notes.recorded_digest(paths, "c" * 64) is None


def test_a_writer_that_takes_long_keeps_its_note_fresh(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notes, "REFRESH", 0.01)
    monkeypatch.setattr(Owner, "alive", None)
    with notes.active(paths, COMMIT) as note:
        os.utime(note, (1, 1))
        for _ in range(500):
            if notes.live(paths):
                break
            time.sleep(0.01)
        assert notes.live(paths) == {COMMIT}
    assert not note.exists() and notes.dead(paths) == ()


def test_uses_are_noted_where_links_cannot_be_told_from_files(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch):
    def utime(path: Path, times: object = None, *, follow_symlinks: bool = True) -> None:
        if not follow_symlinks:
            raise NotImplementedError("utime: follow_symlinks unavailable on this platform")
        usual(path)

    assert notes.mark_used(paths, COMMIT)
    usual = os.utime
    os.utime(paths.notes / "used" / COMMIT, (1, 1))
    monkeypatch.setattr(os, "utime", utime)
    assert notes.mark_used(paths, COMMIT) and notes.last_used(paths)[COMMIT] > 1


def _killing(fault: type[OSError] | None):
    def kill(pid: int, signal: int) -> None:
        assert signal == 0 and pid > 0
        if fault:
            raise fault

    return kill


@pytest.mark.skipif(os.name != "posix", reason="only there processes are asked so")
@pytest.mark.parametrize(
    ("fault", "started", "alive"),
    [
        (ProcessLookupError, 7, False),
        (PermissionError, 7, None),
        (None, 7, None),
        (None, 0, True),
        (ProcessLookupError, 0, False),
    ],
)
def test_a_process_that_is_not_shown_is_asked(
    monkeypatch: pytest.MonkeyPatch, fault: type[OSError] | None, started: int, alive: bool | None
):
    other = replace(Owner.this(), pid=2**22 - 1, started=started)
    monkeypatch.setattr("hubclient.cache.owner._started", lambda pid: None)
    monkeypatch.setattr(os, "kill", _killing(fault))
    assert other.alive is alive


@pytest.mark.parametrize("pid", [0, -1, 2**80])
def test_a_number_that_no_process_has_is_that_of_a_dead_one(pid: int):
    assert replace(Owner.this(), pid=pid).alive is False
