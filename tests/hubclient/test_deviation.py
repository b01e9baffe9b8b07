"""How far quantised values are off: the numbers that the files themselves give, whoever does the work and however often it stops."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import Stop, interrupted
from quantising import EXPERTS, dense, gguf, held, importance, routed, stored_matrix, values
from running import Here

from hubclient import Checkpoint, read_imatrix, tiles
from hubclient.checkpoint import run
from hubclient.deviation import Deviation, deviation
from hubclient.fidelity import Kept, Outcome
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS, F32
from hubclient.journal import Entry, Journal
from hubclient.model import Quantization
from hubclient.outputs import Output
from hubclient.plan import Plan

DOWN = "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a NaN in every row of a tensor of 64."""
    numbers = np.random.default_rng(3).standard_normal((64, 96), np.float32)
    numbers[:, 5] = np.nan
    return checkpoints.llama(tmp_path_factory.mktemp("odd") / "llama", tensors={"model.layers.1.mlp.down_proj.weight": numbers})


def plan_of(source: Path, out: Path, *types: str, **wishes: Any) -> Plan:
    quantization = Quantization(measure=True, nonfinite=True, **wishes)
    return Checkpoint.from_pretrained(source).plan(out, format="gguf", type=types, quantization=quantization)


def the_same(one: Mapping[str, Kept], two: Mapping[str, Kept]) -> None:
    """Equal counts; sums may have been added up in another order."""
    assert one.keys() == two.keys()
    for name, kept in one.items():
        assert (kept.fidelity, kept.changed, kept.elements) == (two[name].fidelity, two[name].changed, two[name].elements), name
        if kept.deviation is None:
            assert two[name].deviation is None
        else:
            assert kept.deviation == pytest.approx(two[name].deviation, rel=1e-12), name


# The numbers


def check(kept: Kept, before: Any, after: Any, block: int) -> None:
    """Against numpy, from the numbers in the files."""
    off = before - after
    assert kept.deviation is not None and kept.fidelity == "quantised"
    assert kept.deviation.rmse(kept.elements) == pytest.approx(math.sqrt(np.square(off).mean()), rel=1e-9)
    cosine = (before * after).sum() / np.linalg.norm(before) / np.linalg.norm(after)
    assert kept.deviation.cosine == pytest.approx(cosine, rel=1e-9)
    blocks = np.square(off).reshape(len(off), -1, block).mean(axis=2)
    assert kept.deviation.worst_rmse == pytest.approx(math.sqrt(blocks.max()), rel=1e-9)
    assert (kept.deviation.row, kept.deviation.column // block) == divmod(int(blocks.argmax()), blocks.shape[1])


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K_M"])
def test_they_are_those_of_the_files(kind: str, model: Path, tmp_path: Path) -> None:
    plan = plan_of(model, tmp_path / "a.gguf", kind)
    outcome = run(plan)
    plain = gguf(model, tmp_path / "f32.gguf", "f32")
    found = outcome.tensors[0]
    assert {name for name, kept in found.items() if kept.deviation is None} == {name for name in found if "norm" in name}
    for step in plan.outputs[0].steps:
        if step.quantises:
            before, after = values(plain, step.name), values(outcome.paths[0], step.name)
            check(found[step.name], before, after, step.encoding.block)


def test_a_stack_of_experts_is_one_tensor(tmp_path: Path) -> None:
    source = routed(tmp_path / "mixtral")
    outcome = run(plan_of(source, tmp_path / "a.gguf", "Q4_0", importance=importance(source)), jobs=1, max_memory=1)
    plain, name = gguf(source, tmp_path / "f32.gguf", "f32"), "blk.0.ffn_up_exps.weight"
    assert outcome.tensors[0][name].elements == EXPERTS * 96 * 64
    check(outcome.tensors[0][name], values(plain, name), values(outcome.paths[0], name), 32)


def test_requantising_is_measured_against_the_blocks_it_began_with(model: Path, tmp_path: Path) -> None:
    before = gguf(model, tmp_path / "before.gguf", "Q8_0")
    outcome = run(plan_of(before, tmp_path / "a.gguf", "Q4_0", requantize=True))
    check(outcome.tensors[0][DOWN], values(before, DOWN), values(outcome.paths[0], DOWN), 32)


def test_what_moves_is_not_measured(model: Path, tmp_path: Path) -> None:
    before = gguf(model, tmp_path / "before.gguf", "Q8_0")
    outcome = run(plan_of(before, tmp_path / "a.gguf", "Q8_0"))
    assert all(kept.deviation is None and kept.fidelity == "exact" for kept in outcome.tensors[0].values())


def test_unless_it_is_asked_for_nothing_is_measured(source: Path, tmp_path: Path) -> None:
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "a.gguf", format="gguf", type="Q8_0")
    assert all(kept.deviation is None for kept in run(plan).tensors[0].values())


def test_mlx_types_are_measured_too(source: Path, tmp_path: Path) -> None:
    plan = Checkpoint.from_pretrained(source).plan(
        tmp_path / "mlx", format="mlx", type="4bit", group_size=32, quantization=Quantization(measure=True)
    )
    found = [kept for kept in run(plan).tensors[0].values() if kept.fidelity == "quantised"]
    assert found and all(kept.deviation is not None and 0.99 < kept.deviation.cosine < 1 for kept in found)


@given(rows=st.integers(1, 9), blocks=st.integers(1, 3), cut=st.integers(0, 9), seed=st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_parts_add_up(rows: int, blocks: int, cut: int, seed: int) -> None:
    columns, target = 32 * blocks, ENCODINGS["Q4_0"]
    before = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    raw, made = before.view(np.uint8), codecs.encode(before, target)
    cut = min(cut, rows)
    whole = deviation(raw, F32, made, target, columns, 100)
    parts = [
        deviation(raw[part], F32, made[part], target, columns, 100 + part.start) for part in (slice(0, cut), slice(cut, rows))
    ]
    for joined in (parts[0].joined(parts[1]), parts[1].joined(parts[0])):
        assert joined == pytest.approx(whole, rel=1e-12)


def test_nothing_against_nothing_is_the_same() -> None:
    raw, target = np.zeros((2, 128), np.uint8), ENCODINGS["Q8_0"]
    found = deviation(raw, F32, codecs.encode(raw.view(np.float32), target), target, 32, 0)
    assert found.rmse(64) == 0 == found.worst_rmse and found.cosine == 1
    assert Deviation().rmse(0) == 0 and Deviation().worst_rmse == 0


def test_blocks_that_are_no_numbers_are_infinitely_far_off() -> None:
    """Of numbers that are finite, and whose scale float16 cannot hold."""
    before, target = np.ones((3, 64), np.float32), ENCODINGS["Q8_0"]
    before[1, 40] = 1e9
    found = deviation(before.view(np.uint8), F32, codecs.encode(before, target), target, 64, 0)
    assert found.rmse(192) == found.worst_rmse == math.inf and (found.row, found.column) == (1, 32) and math.isnan(found.cosine)


# Stopped and gone on with


def test_the_journal_keeps_every_digit(tmp_path: Path) -> None:
    entries = [
        Entry(1, 0, 7, 0xDEADBEEF, 3, Deviation(1 / 3, 2e-308, 5e300, -0.1, 1e-17, 6, 224)),
        Entry(1, 7, 9, 1, 0, Deviation(math.inf, 1.0, math.inf, -math.inf, math.inf, 8, 0)),
        Entry(2, 0, 1, 2, -1, None),
    ]
    journal = Journal(tmp_path / "j")
    journal.start({})
    for entry in entries:
        journal.add(entry)
    assert journal.read().entries == entries
    with (tmp_path / "j").open("ab") as file:
        file.write(b"1 9 10 00000001 0 1.0 2.0\n1 9 10 00000001 0 x 1 1 1 1 0 0\n1 9 10 00000001 0 1 1 1 1 1 0.5 0\n")
    assert journal.read().entries == entries
    journal.remove()


@pytest.mark.parametrize("after", [2, 30, 300])
def test_a_run_that_went_on_with_other_tiles_says_the_same(
    after: int, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(plan_of(odd, tmp_path / "whole-{type}.gguf", "Q4_0", "Q8_0"))
    plan = plan_of(odd, tmp_path / "{type}.gguf", "Q4_0", "Q8_0")
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    interrupted(plan, after, max_memory=1)
    monkeypatch.undo()
    outcome = run(plan, jobs=2, max_memory=48 << 20)
    for one, two in zip(outcome.tensors, whole.tensors, strict=True):
        the_same(one, two)
        assert one[DOWN].changed == 64
    assert [held(path) for path in outcome.paths] == [held(path) for path in whole.paths]


@pytest.mark.parametrize("heights", [(64, 5), (5, 64)], ids=["large, then small", "small, then large"])
def test_rows_that_were_damaged_and_written_again_count_once(
    heights: tuple[int, int], odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the journal has two lines that hold again, and the later one may speak of more rows."""
    whole = run(plan_of(odd, tmp_path / "whole.gguf", "Q8_0"))
    plan = plan_of(odd, tmp_path / "a.gguf", "Q8_0")
    (step,) = [step for step in plan.outputs[0].steps if step.name == DOWN]
    partial, journal = tmp_path / "a.gguf.partial", tmp_path / "a.gguf.partial.journal"

    def two_tiles(done: int, total: int) -> None:
        if journal.read_bytes().count(b"\n%d " % step.index) == 2:
            raise Stop

    monkeypatch.setattr(tiles, "_SMALLEST", heights[0] * 96 * 2)
    if heights[0] == 64:
        _unpublished(plan, monkeypatch, max_memory=1)
    else:
        with pytest.raises(Stop):
            run(plan, executor=Here(), progress=two_tiles, max_memory=1)
    data = bytearray(partial.read_bytes())
    for row in (0, 7):
        data[step.places[0].offset + row * step.encoding.row_bytes(96)] ^= 0xFF
    partial.write_bytes(data)
    monkeypatch.setattr(tiles, "_SMALLEST", heights[1] * 96 * 2)
    _unpublished(plan, monkeypatch, max_memory=1)
    outcome = run(plan)
    the_same(outcome.tensors[0], whole.tensors[0])
    assert held(outcome.paths[0]) == held(whole.paths[0])


def _unpublished(plan: Plan, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that stops when all bytes are written and nothing has its name."""

    def stop(self: Output) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Output, "publish", stop)
        with pytest.raises(Stop):
            run(plan, executor=Here(), **options)


# Elsewhere


def test_processes_quantise_by_importance_and_measure(tmp_path: Path) -> None:
    source = routed(tmp_path / "mixtral")
    matrix = read_imatrix(stored_matrix(importance(source), tmp_path / "m.gguf"))
    here = run(plan_of(source, tmp_path / "here.gguf", "Q4_0", importance=matrix))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        there = run(plan_of(source, tmp_path / "there.gguf", "Q4_0", importance=matrix), executor=executor)
    assert held(there.paths[0]) == held(here.paths[0])
    the_same(there.tensors[0], here.tensors[0])


def test_a_report_is_there_before_the_output_and_a_failed_one_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    source = Checkpoint.from_pretrained(dense(tmp_path / "llama"))
    plan = source.plan(out, format="gguf", type="Q4_0", quantization=Quantization(measure=True))

    def fails(_outcome: object) -> None:
        assert not out.exists()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        run(plan, told=fails)
    assert not out.exists()
    told: list[Outcome] = []
    outcome = run(plan, told=told.append)
    assert out.exists() and told == [outcome] and any(kept.deviation for kept in outcome.tensors[0].values())
