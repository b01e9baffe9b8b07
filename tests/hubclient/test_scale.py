"""Many experts in many shards: every byte is read once, forwards, through few open files, and none to make a plan."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from running import counting_reads, environment

from benchmarks.checkpoints import write_checkpoint
from benchmarks.deepseek import DeepSeekV3
from hubclient import Checkpoint
from hubclient.checkpoint import run
from hubclient.plan import Plan
from hubclient.rows import FilePool
from hubclient.tiles import groups, schedule

SMALL = partial(
    DeepSeekV3, hidden=128, heads=2, intermediate=256, expert_width=256, query_rank=64, latent=64, nope=64, value=64, vocab=300
)
PUBLISHED = {False: 46_183, True: 91_991}  # tensors, in bf16 and with scales
KINDS = [("gguf", "bf16"), ("gguf", "f16"), ("gguf", "q8_0"), ("mlx", "auto"), ("mlx", "4bit")]


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three dense blocks and one of 256 experts in 160 shards, 53 MB that are holes."""
    return write_checkpoint(SMALL(layers=4, further=0), tmp_path_factory.mktemp("scale") / "experts")


def planned(source: Path, out: Path, to: str, kind: str) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out / "made", format=to, type=kind)


def needed(plan: Plan) -> int:
    """Bytes of the stored tensors that an output is made of, each once."""
    leaves = (leaf.ref for step in plan.outputs[0].steps for leaf in step.array.leaves())
    return sum({ref.name: ref.nbytes for ref in leaves}.values())


def read(plan: Plan, **options: Any) -> int:
    with counting_reads() as sizes:
        run(plan, **options)
    return sum(sizes)


@pytest.mark.parametrize(("to", "kind"), KINDS)
def test_experts_that_are_stacked_are_read_once(to: str, kind: str, experts: Path, tmp_path: Path) -> None:
    plan = planned(experts, tmp_path, to, kind)
    assert len(plan.sources) == 160 + 1  # and the index
    assert needed(plan) <= read(plan, jobs=2) <= 1.05 * needed(plan)


@pytest.mark.parametrize(("to", "kind"), [("gguf", "q8_0"), ("mlx", "auto")])
def test_scales_beside_the_experts_cost_little(to: str, kind: str, tmp_path: Path) -> None:
    source = write_checkpoint(SMALL(layers=4, further=0, scaled=True), tmp_path / "scaled")
    plan = planned(source, tmp_path, to, kind)
    assert needed(plan) <= read(plan, jobs=2) <= 1.05 * needed(plan)


def test_little_memory_does_not_make_it_read_more(experts: Path, tmp_path: Path) -> None:
    plan = planned(experts, tmp_path, "gguf", "q8_0")
    assert read(plan, jobs=4, max_memory=1) <= 1.05 * needed(plan)


def visits(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards in the order in which one thread goes to them, with tiles as small as they get."""
    seen: list[Path] = []
    real = FilePool.read_into

    def read_into(self: FilePool, path: Path, buffer: memoryview, offset: int) -> None:
        seen.append(path)
        real(self, path, buffer, offset)

    monkeypatch.setattr(FilePool, "read_into", read_into)
    run(plan, jobs=1, max_memory=1)
    return [*seen[:1], *(after for before, after in pairwise(seen) if after != before)]


@pytest.mark.parametrize(("to", "kind"), [("gguf", "bf16"), ("gguf", "q8_0"), ("mlx", "4bit")])
def test_shards_are_gone_through_once_although_stacks_interleave(
    to: str, kind: str, experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(experts, tmp_path, to, kind)
    homes: dict[str, set[Path]] = defaultdict(set)
    for step in plan.outputs[0].steps:
        homes[step.name] |= {leaf.ref.file for leaf in step.array.leaves()}
    spread = [files for files in homes.values() if len(files) > 100]
    assert len(spread) == 3 and len(set.intersection(*spread)) > 30  # gate, up and down of the experts
    shards = visits(plan, monkeypatch)
    assert shards == sorted(set(shards))


def test_the_order_of_tiles_misses_no_row_and_repeats_none(experts: Path, tmp_path: Path) -> None:
    found = groups(planned(experts, tmp_path, "gguf", "q8_0").outputs)
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for tile in schedule(found, 1, 1):
        rows[id(tile.group)].append((tile.start, tile.stop))
    for group in found:
        cut = sorted(rows[id(group)])
        assert [start for start, _ in cut] == [0, *(stop for _, stop in cut[:-1])] and cut[-1][1] == group.array.rows


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_few_files_are_open_at_a_time(experts: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "hubclient", "convert", str(experts), str(tmp_path / "a.gguf"), "--to", "gguf", "--jobs", "8"]
    limit: Callable[[], None] = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (100, 100))
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scaled", [False, True], ids=["bf16", "fp8"])
@pytest.mark.parametrize("to", ["gguf", "mlx"])
def test_the_whole_model_is_planned_from_headers(scaled: bool, to: str, tmp_path: Path) -> None:
    """As many tensors as published in 160 shards, at a fortieth of the size."""
    source = write_checkpoint(SMALL(scaled=scaled), tmp_path / "whole")
    with counting_reads() as sizes:
        plan = planned(source, tmp_path, to, "bf16")
    assert not sizes
    assert len(Checkpoint.from_pretrained(source).opened.tensors) == PUBLISHED[scaled]
    (output,) = plan.outputs
    stacks = [step for step in output.steps if len(step.array.shape) == 3 and step.array.shape[0] == 256]
    assert len(stacks) == 3 * 58
    assert not any("layers.61." in leaf.ref.name for step in output.steps for leaf in step.array.leaves())
    assert any("model.layers.61" in loss for loss in output.losses)
