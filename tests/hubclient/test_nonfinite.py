"""NaN and infinities, which blocks cannot hold: refused with tensor and row, replaced where that is asked for, and counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from quantising import gguf, held, routed, values
from running import Failing

from hubclient import Checkpoint
from hubclient.checkpoint import run
from hubclient.cli import main
from hubclient.errors import DamagedInput
from hubclient.model import Quantization

DOWN = "model.layers.1.mlp.down_proj.weight"  # 64 rows of 96
ODD = {(3, 7): np.nan, (3, 8): np.inf, (3, 9): -np.inf, (40, 95): np.nan}


def odd(folder: Path, dtype: str = "BF16", name: str = DOWN, places: dict[tuple[int, int], float] = ODD, **options: Any) -> Path:
    """A Llama in which there are such numbers in one tensor."""
    return checkpoints.llama(folder, dtype=dtype, tensors={name: numbers(places)}, **options)


def numbers(places: dict[tuple[int, int], float]) -> np.ndarray[Any, Any]:
    found = np.random.default_rng(5).standard_normal((64, 96), np.float32)
    for place, value in places.items():
        found[place] = value
    return found


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd(tmp_path_factory.mktemp("odd") / "llama")


# Refused


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_tensor_and_row_are_named_and_nothing_is_left(kind: str, dtype: str, tmp_path: Path) -> None:
    source = odd(tmp_path / "llama", dtype, places={(40, 95): -np.inf})
    with pytest.raises(DamagedInput) as caught:
        gguf(source, tmp_path / "out" / "a.gguf", kind)
    told = f"tensor blk.1.ffn_down.weight, row 40, column 95 is -inf, which {kind} cannot hold"
    assert str(caught.value) == f"{source / 'model.safetensors'}: {told}"
    assert caught.value.tensor == "blk.1.ffn_down.weight" and "--allow-nonfinite" in str(caught.value.hint)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("kind", "fits"), [("Q8_0", 4e6), ("Q4_0", 2e5)])
def test_numbers_too_large_for_the_scales_are_refused(kind: str, fits: float, tmp_path: Path) -> None:
    """llama-quantize refuses such rows as well; the largest scale is 65504."""
    gguf(odd(tmp_path / "fits", places={(40, 95): fits}), tmp_path / "fits.gguf", kind)
    with pytest.raises(DamagedInput, match=f"blk.1.ffn_down.weight, row 40 has numbers too large for the scales of {kind}"):
        gguf(odd(tmp_path / "llama", places={(40, 95): 1e9}), tmp_path / "out" / "a.gguf", kind)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_row_is_that_of_the_tensor_however_it_is_cut(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubclient import tiles

    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    with pytest.raises(DamagedInput, match=r"blk\.1\.ffn_down\.weight, row (3, column 7|40, column 95) is nan"):
        gguf(bad, tmp_path / "a.gguf", "Q8_0", jobs=1, max_memory=1)


def test_of_a_transposed_matrix_it_is_the_row_as_it_is_written(tmp_path: Path) -> None:
    values = np.zeros((64, 256), np.float32)
    values[5, 200] = np.nan
    source = checkpoints.gpt2(tmp_path / "gpt2", tensors={"transformer.h.0.mlp.c_fc.weight": values})
    with pytest.raises(DamagedInput, match=r"tensor blk\.0\.ffn_up\.weight, row 200, column 5 is nan"):
        gguf(source, tmp_path / "a.gguf", "Q8_0")


def test_of_stacked_experts_the_file_and_the_row_of_the_stack(tmp_path: Path) -> None:
    values = np.zeros((64, 96), np.float32)
    values[1, 2] = np.nan
    name = "model.layers.0.block_sparse_moe.experts.2.w2.weight"
    source = routed(tmp_path / "mixtral", tensors={name: values})
    with pytest.raises(DamagedInput, match=r"tensor blk\.0\.ffn_down_exps\.weight, row 129, column 2 is nan"):
        gguf(source, tmp_path / "a.gguf", "Q4_0")


def test_mlx_types_cannot_hold_them_either(bad: Path, tmp_path: Path) -> None:
    name = DOWN.replace(".weight", "")
    source = Checkpoint.from_pretrained(bad)
    with pytest.raises(DamagedInput, match=rf"tensor {name}\S*, row 3, column 7 is nan, which AFFINE"):
        source.save_pretrained(tmp_path / "a", format="mlx", type="4bit", group_size=32)
    assert list(tmp_path.iterdir()) == []
    wishes = Quantization(nonfinite=True)
    (folder,) = source.save_pretrained(tmp_path / "a", format="mlx", type="4bit", group_size=32, quantization=wishes)
    opened = Checkpoint.from_pretrained(folder).opened
    assert any(ref.encoding.name.startswith("AFFINE") for ref in opened.tensors.values())


def test_blocks_whose_scale_is_none_are_found(tmp_path: Path) -> None:
    path = gguf(checkpoints.llama(tmp_path / "llama"), tmp_path / "a.gguf", "Q8_0")
    ref = Checkpoint.from_pretrained(path).opened.tensors["blk.0.ffn_up.weight"]
    data = bytearray(path.read_bytes())
    at = ref.offset + ref.encoding.row_bytes(64) * 11 + 34  # the second block of a row
    data[at : at + 2] = np.float16(np.inf).tobytes()
    path.write_bytes(data)
    with pytest.raises(DamagedInput, match=r"blk\.0\.ffn_up\.weight, row 11, column (3[2-9]|[45]\d|6[0-3]) is -?(inf|nan)"):
        gguf(path, tmp_path / "b.gguf", "Q4_0", requantize=True)
    assert held(gguf(path, tmp_path / "c.gguf", "auto")) == held(path), "what moves is not looked at"


def test_the_command_ends_with_four(bad: Path, tmp_path: Path, failing: Failing) -> None:
    code, told = failing("convert", bad, tmp_path / "{type}.gguf", "--to", "gguf", "--type", "f16", "--type", "Q4_0")
    sentence, hint = told.splitlines()
    assert code == 4 and "tensor blk.1.ffn_down.weight, row " in sentence and "--allow-nonfinite" in hint
    assert list(tmp_path.iterdir()) == []


# Where they belong


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_floats_hold_them(kind: str, bad: Path, tmp_path: Path) -> None:
    found = values(gguf(bad, tmp_path / "a.gguf", kind), "blk.1.ffn_down.weight")
    for place, value in ODD.items():
        assert np.array_equal(found[place], value, equal_nan=True)


def test_nor_are_they_in_the_way_in_a_tensor_that_stays_a_float(tmp_path: Path) -> None:
    norm = np.ones(64, np.float32)
    norm[5] = np.nan
    source = checkpoints.llama(tmp_path / "llama", tensors={"model.norm.weight": norm})
    assert np.isnan(values(gguf(source, tmp_path / "a.gguf", "Q8_0"), "output_norm.weight")).sum() == 1


# Replaced


def replaced() -> np.ndarray[Any, Any]:
    """As the option says: NaN is 0, infinities are the largest finite number of their row."""
    found = numbers(ODD)
    largest = np.abs(np.delete(found[3], [7, 8, 9])).max()
    found[3, 7], found[3, 8], found[3, 9], found[40, 95] = 0, largest, -largest, 0
    return found


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("make", [checkpoints.llama], ids=["llama"])
def test_they_are_replaced_as_documented_and_counted(kind: str, make: Callable[..., Path], bad: Path, tmp_path: Path) -> None:
    wishes = Quantization(nonfinite=True, measure=True)
    outcome = run(Checkpoint.from_pretrained(bad).plan(tmp_path / "a.gguf", format="gguf", type=kind, quantization=wishes))
    mended = make(tmp_path / "mended", tensors={DOWN: replaced()})
    assert held(outcome.paths[0]) == held(gguf(mended, tmp_path / "b.gguf", kind))
    kept = outcome.tensors[0]["blk.1.ffn_down.weight"]
    assert (kept.fidelity, kept.changed, kept.elements) == ("quantised", 4, 64 * 96)
    assert kept.deviation is not None and np.isfinite(kept.deviation.squares)
    others = [own.changed for name, own in outcome.tensors[0].items() if "norm" not in name and own is not kept]
    assert set(others) == {None}


def test_a_row_of_nothing_else_becomes_zero(tmp_path: Path) -> None:
    places = {(0, column): np.inf for column in range(96)}
    path = gguf(odd(tmp_path / "llama", places=places), tmp_path / "a.gguf", "Q8_0", nonfinite=True)
    assert not values(path, "blk.1.ffn_down.weight")[0].any()


def test_the_command_replaces_and_counts(
    bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["hubclient", "convert", str(bad), str(tmp_path / "a.gguf"), "--to", "gguf", "--type", "Q8_0", "--allow-nonfinite"]
    monkeypatch.setattr(sys, "argv", [*line, "--json"])
    with pytest.raises(SystemExit):
        main()
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert output["tensors"]["blk.1.ffn_down.weight"] == {"fidelity": "quantised", "replaced": 4, "elements": 64 * 96}
