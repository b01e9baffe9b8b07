"""Killed at every named fault point: nothing is lost or half there, and the same command given again completes."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from killscenes import MODEL, NOW, TWIN, Scene, Trial, World, running_world
from running import ROOT, environment
from soundness import faults

from hubclient.ground.faultpoints import POINTS

# The points that the command of a scene reaches, and at which occurrences of each it is killed.
SCENES: Mapping[Scene, Mapping[str, tuple[int, ...]]] = {
    Scene("_first", ("pull", MODEL)): {
        "pull.tree-written": (1,),
        "pull.part-created": (1, 2),
        "pull.range-written": (1, 3),
        "pull.ledger-written": (1, 4),
        "pull.hashed": (1, 3),
        "pull.placed": (1, 3),
        "pull.link-made": (1, 6),
        "pull.linked": (1, 6),
        "pull.ref-written": (1,),
    },
    Scene("_unfinished", ("pull", MODEL)): {"pull.part-adopted": (1, 2), "pull.range-written": (1, 2), "pull.hashed": (2, 3)},
    Scene("_twin", ("pull", f"{MODEL}@v1")): {"pull.taken": (1,), "pull.placed": (1, 2)},
    Scene("_twin", ("pull", MODEL)): {"pull.taken": (1,)},
    Scene("_store", ("pull", MODEL)): {"pull.shared-noted": (1,)},
    Scene("_locked", ("sync",)): {"sync.entry-done": (1, 3), "pull.placed": (2, 7), "pull.linked": (9,)},
    Scene("_several", ("lock", MODEL, TWIN)): {"lock.written": (1,)},
    Scene("_several", ("cache", "ls")): {"catalog.begun": (1,), "catalog.rows-written": (1,), "catalog.committed": (1,)},
    Scene("_bad_catalog", ("cache", "ls")): {"catalog.rebuilt": (1,), "catalog.begun": (1,), "catalog.rows-written": (1,)},
    Scene("_several", ("cache", "verify")): {
        "verify.marked": (1, 5),
        "catalog.begun": (1, 3),
        "catalog.rows-written": (2, 3),
        "catalog.committed": (1, 4),
    },
    Scene("_several", ("cache", "gc", "--max-age", "0s", *NOW)): {"gc.repo-trashed": (1, 3), "gc.trash-emptied": (1, 3)},
    Scene("_several", ("cache", "gc", "--keep-last", "1", *NOW)): {
        "gc.ref-removed": (1,),
        "gc.snapshot-trashed": (1,),
        "gc.blob-trashed": (1, 3),
        "gc.blob-removed": (1, 3),
    },
    Scene("_orphaned", ("cache", "prune", *NOW)): {
        "gc.snapshot-trashed": (1,),
        "gc.blob-trashed": (1, 4),
        "gc.blob-removed": (1, 4),
        "gc.trash-emptied": (1,),
    },
    Scene("_several", ("cache", "rm", f"{MODEL}:README.md", "--yes")): {"gc.file-removed": (1,)},
    Scene("_several", ("cache", "rm", MODEL + "@{v1}", "--yes")): {"gc.ref-removed": (1,)},
    Scene("_store", ("cache", "gc", "--max-age", "0s", *NOW)): {"gc.shared-removed": (1, 2), "gc.repo-trashed": (1,)},
    Scene("_spoilt", ("cache", "repair")): {"repair.copied": (1, 2), "repair.placed": (1, 2), "repair.shown": (1,)},
    Scene("_store_spoilt", ("cache", "repair")): {"repair.shared": (1, 2), "repair.placed": (1, 2)},
    Scene("_spoilt_alone", ("cache", "repair")): {
        "repair.fetched": (1, 2),
        "pull.range-written": (1, 5),
        "pull.hashed": (1, 2),
        "pull.placed": (1, 2),
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("kills")) as world:
        yield world


def _cases() -> Iterator[Any]:
    for scene, points in SCENES.items():
        for point, times in points.items():
            for count in times:
                named = f"{' '.join(scene.command[:2])} {scene.start} {point}:{count}".replace("org/", "")
                yield pytest.param(scene, f"{point}:{count}", id=named)


def test_every_point_of_the_table_has_a_scenario() -> None:
    assert {point for points in SCENES.values() for point in points} == set(POINTS)


@pytest.mark.parametrize(("scene", "point"), [*_cases()])
def test_killed_at(scene: Scene, point: str, world: World, tmp_path: Path) -> None:
    trial = Trial(world, scene, tmp_path / "place")
    killed = trial.play(point=point)
    assert killed.killed, f"it does not come to that: {killed}"
    assert trial.wrong() == []
    assert trial.wrong_when_completed() == []
    if point.startswith("catalog."):
        _refuse_wrong_catalog(trial)


def _refuse_wrong_catalog(trial: Trial) -> None:
    """What the catalog tells is what a new one would, and SQLite finds nothing wrong with it."""
    (path,) = trial.place.glob("catalog/*.sqlite3")
    told = trial.world.complete(trial.place, "cache", "ls", "--json")
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    shutil.rmtree(path.parent)
    assert trial.world.complete(trial.place, "cache", "ls", "--json") == told


@pytest.mark.parametrize(
    ("command", "point"),
    [(("pull", MODEL), "pull.placed:2"), (("cache", "gc", "--max-age", "0s", *NOW), "gc.repo-trashed")],
)
def test_the_variable_kills_a_command_of_its_own(command: tuple[str, ...], point: str, world: World, tmp_path: Path) -> None:
    cache = world.copied("_first", tmp_path / "place") / "cache"
    environ = environment(HF_HUB_CACHE=str(cache), HF_HOME=str(tmp_path), HF_ENDPOINT=str(world.hub.endpoint))
    line = [sys.executable, "-m", "hubclient", *command]
    assert subprocess.run(line, env={**environ, "HUBCLIENT_FAULTPOINT": point}, check=False).returncode == -signal.SIGKILL
    assert faults(cache) == []
    assert subprocess.run(line, env=environ, check=False).returncode == 0
    assert faults(cache) == []


def import_script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("verb", ["pull", "gc", "repair", "sync", "verify"])
def test_killed_at_random(verb: str, world: World, tmp_path: Path) -> None:
    """With larger files, and as often as one likes: `python scripts/kill_at_random.py`."""
    script = import_script("kill_at_random")
    rounds = script.Verb(world, script.VERBS[verb], tmp_path)
    assert [(seed, *found) for seed in range(15) if (found := rounds.play(seed))] == []
    assert rounds.counts["killed"] > 5
