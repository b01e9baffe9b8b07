"""Exactness is decided by the values: what is written is decoded, undone and compared with its source, tensor by tensor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import Stop, after, to_gguf
from running import Here

from hubclient.architectures.language.arrays import Array, Concat, Leaf, Reshape
from hubclient.architectures.language.elementwise import Add, Computed, NegativeExp, bare
from hubclient.architectures.language.gathers import Permute, Transpose
from hubclient.checkpoint import run
from hubclient.cli import main
from hubclient.fidelity import Check, kept
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS
from hubclient.model import Inline
from hubclient.plan import Place, Step
from hubclient.rows import FilePool, Reader

COLUMNS = 4


def leaf(values: np.ndarray[Any, Any], dtype: str) -> Leaf:
    raw = codecs.encode(values.astype(np.float32), ENCODINGS[dtype])
    return Leaf(values.shape, Inline("a", values.shape, ENCODINGS[dtype], raw.tobytes()))


def counted(array: Array, target: str) -> tuple[str, int | None]:
    """The verdict on a tensor written whole."""
    step = Step(0, "a", array, ENCODINGS[target], (Place(0, 0, 0),))
    with FilePool() as pool:
        reader = Reader(pool)
        values = array.read(0, array.rows, reader.floats)
        data = codecs.encode(values, ENCODINGS[target])
        check = Check(step)
        verdict = kept(step, check.changed(0, array.rows, values, data, reader) if check.applies else None)
    return verdict.fidelity, verdict.changed


def rounded(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    return codecs.decode(codecs.encode(values, ENCODINGS[dtype]), ENCODINGS[dtype], values.shape[1])


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.floats(width=32), min_size=COLUMNS, max_size=10 * COLUMNS),
    st.sampled_from(["F32", "BF16", "F16"]),
    st.sampled_from(["F32", "BF16", "F16"]),
)
def test_the_elements_that_do_not_come_back_are_counted(numbers: list[float], source: str, target: str) -> None:
    whole = np.array(numbers[: len(numbers) // COLUMNS * COLUMNS], np.float32).reshape(-1, COLUMNS)
    stored = rounded(whole, source)
    again = rounded(rounded(stored, target), source)
    lost = int(np.count_nonzero((stored.view(np.uint32) != again.view(np.uint32)) & ~(np.isnan(stored) & np.isnan(again))))
    fidelity, changed = counted(leaf(whole, source), target)
    assert changed == lost
    assert fidelity == ("exact" if lost == 0 else "rounded")


@pytest.mark.parametrize(
    ("values", "operation", "exact"),
    [
        pytest.param([1.0, 0.9921875, 1.0078125, -1.0], Add(1.0), True, id="norms near one plus one"),
        pytest.param([1e-6, 1.0, 1.0, 1.0], Add(1.0), False, id="a norm near zero plus one"),
        pytest.param([0.0, 1.0, 2.0, 2.765625], NegativeExp(), True, id="exponentials of bfloat16"),
        pytest.param([-200.0, 1.0, 2.0, 3.0], NegativeExp(), False, id="an exponential too small for float32"),
    ],
)
def test_arithmetic_is_exact_where_its_inverse_brings_the_values_back(values: list[float], operation: Any, exact: bool) -> None:
    array = Computed(leaf(np.array([values], np.float32), "BF16"), operation)
    fidelity, changed = counted(array, "F32")
    assert (fidelity, changed) == (("exact", 0) if exact else ("computed", 1))


def test_rows_that_moved_are_compared_with_themselves() -> None:
    values = np.random.default_rng(0).standard_normal((8, COLUMNS)).astype(np.float32)
    moved = Permute(Computed(leaf(values, "BF16"), Add(1.0)), (2, 2, 2), (0, 2, 1))
    assert counted(Reshape(moved, (4, 8)), "F32") == counted(Computed(leaf(values, "BF16"), Add(1.0)), "F32")


def test_nothing_is_claimed_of_parts_that_went_through_different_arithmetic() -> None:
    part = leaf(np.ones((2, COLUMNS), np.float32), "BF16")
    mixed = Concat((Computed(part, Add(1.0)), part), (4, COLUMNS))
    assert bare(mixed) is None
    assert counted(mixed, "F32") == ("computed", None)


def test_blocks_are_said_to_be_quantised_and_unpacked_exactly() -> None:
    values = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    assert counted(leaf(values, "BF16"), "Q8_0") == ("quantised", None)
    assert counted(leaf(values, "Q8_0"), "F32") == ("exact", 0)


def test_blocks_that_are_made_anew_are_no_copies() -> None:
    array, places = leaf(np.zeros((32, 32)), "Q8_0"), (Place(0, 0, 32 * 34),)
    assert Step(0, "a", array, ENCODINGS["Q8_0"], places).fidelity == "exact"
    assert Step(0, "a", Transpose(array), ENCODINGS["Q8_0"], places).fidelity == "quantised"


def test_what_a_stopped_run_counted_is_not_forgotten(source: Path, tmp_path: Path) -> None:
    plan = to_gguf(source, tmp_path / "whole.gguf")
    whole = run(plan, executor=Here()).tensors[0]
    again = to_gguf(source, tmp_path / "again.gguf")
    with pytest.raises(Stop):
        run(again, executor=Here(), progress=after(5))
    assert run(again, executor=Here()).tensors[0] == whole
    assert any(kept.changed == 0 and kept.fidelity == "exact" for kept in whole.values())


def test_the_command_says_it_for_each_tensor(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["hubclient", "convert", str(source), str(tmp_path / "x.gguf"), "--to", "gguf", "--type", "f16", "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        main()
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert output["tensors"]["output_norm.weight"] == {"fidelity": "exact", "changed": 0, "elements": 64}
