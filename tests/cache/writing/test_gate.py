"""Writers and removals see each other: a writer waits for a removal that may not have seen it, and is not taken away with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cachemaking import MAIN, make

from hubclient.cache.layout import RepoPaths
from hubclient.cache.notes import live
from hubclient.cache.retention.trash import Trash, running
from hubclient.cache.writing import gate
from hubclient.cache.writing.gate import writer


@pytest.fixture
def paths(tmp_path: Path) -> RepoPaths:
    return make(tmp_path / "hub", {"config.json": b"{}"})


def _trash(paths: RepoPaths) -> Trash:
    trash = Trash(paths.notes / "trash", paths.cache)
    trash.show()
    return trash


def test_without_a_removal_nobody_waits(paths: RepoPaths) -> None:
    with writer(paths, MAIN, lambda: pytest.fail("it waits")):
        assert live(paths) == {MAIN}
    assert live(paths) == frozenset()


def test_a_writer_is_noted_before_it_waits_for_a_removal(paths: RepoPaths) -> None:
    trash, seen = _trash(paths), []

    def waiting() -> None:
        seen.append(live(paths))
        if len(seen) == 3:
            trash.empty(lambda _: None)

    with writer(paths, MAIN, waiting):
        assert seen == [{MAIN}] * 3
    trash.close()


def test_a_removal_is_seen_though_another_ends_in_that_moment(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    trash = _trash(paths)
    monkeypatch.setattr(os, "listdir", lambda _: ["1.2.0123456789abcdef.01234567", "gone", trash.path.name])
    assert running(paths.notes / "trash")
    trash.close()
    assert not running(paths.notes / "trash")


def test_what_a_killed_removal_left_is_not_waited_for(paths: RepoPaths) -> None:
    _trash(paths).close()
    with writer(paths, MAIN, lambda: pytest.fail("it waits")):
        pass


def test_a_removal_that_does_not_end_is_waited_for_no_longer_than_that(paths: RepoPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.1)
    trash = _trash(paths)
    with writer(paths, MAIN):
        assert live(paths) == {MAIN}
    trash.close()


def test_a_note_that_went_with_its_repository_is_written_again(paths: RepoPaths, tmp_path: Path) -> None:
    trash = _trash(paths)

    def waiting() -> None:
        paths.path.rename(tmp_path / "gone")

    with writer(paths, MAIN, waiting):
        assert live(paths) == {MAIN} and not paths.snapshots.exists()
    trash.close()


def test_a_removal_of_whom_nobody_can_be_asked_is_waited_for_a_short_while(
    paths: RepoPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "DOUBT", 0.1)
    seen = []
    (paths.notes / "trash" / f"7.7.{'0' * 16}.{'a' * 8}").mkdir(parents=True)  # of another machine or container
    with writer(paths, MAIN, lambda: seen.append(live(paths))):
        assert 0 < len(seen) < 100 and live(paths) == {MAIN}
