"""Plans of small conversions, and runs of them that stop in the middle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Here, contents

from hubclient import Checkpoint
from hubclient.checkpoint import run
from hubclient.plan import Plan

OPTIONS: dict[str, dict[str, Any]] = {
    "two files": {"format": "gguf", "type": ("f16", "q8_0")},
    "a split": {"format": "gguf", "type": ("f16",), "max_shard_size": 60_000},
    "a folder": {"format": "safetensors", "type": ("f16",), "max_shard_size": 120_000},
}
SUFFIX = {"two files": ".gguf", "a split": ".gguf", "a folder": ""}


def plan_of(source: Path, folder: Path, kind: str) -> Plan:
    return Checkpoint.from_pretrained(source).plan(folder / ("{type}" + SUFFIX[kind]), **OPTIONS[kind])


def names(plan: Plan) -> list[Path]:
    return [path for output in plan.outputs for path in ([output.path] if output.folder else output.paths())]


def bytes_of(plan: Plan) -> list[dict[str, bytes]]:
    return [contents(path) for path in names(plan)]


class Stop(Exception):
    """What a test raises in the middle of a run."""


def after(tile_count: int) -> Callable[[int, int], None]:
    """A progress function that stops a run when so many tiles are noted."""
    calls = itertools.count(1)

    def progress(done: int, total: int) -> None:
        if next(calls) == tile_count:
            raise Stop

    return progress


def interrupted(plan: Plan, tile_count: int, **options: Any) -> None:
    with pytest.raises(Stop):
        run(plan, executor=Here(), progress=after(tile_count), **options)


def to_gguf(source: Path, out: Path, **options: Any) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out, format="gguf", type="f16", **options)


def to_folder(source: Path, out: Path, **options: Any) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out, format="safetensors", **options)
