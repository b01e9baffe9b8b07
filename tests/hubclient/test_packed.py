"""Weights that are packed with scales: what they are unpacked to, and what a copy keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import CONFIG, WEIGHTS
from golden import Golden, Stored, Workshop, copy, tensors, transformers_result
from packing import KINDS, Q_PROJ, Kind, packed, product, to_bf16, unpacked, write
from rawsafetensors import entry, put

from hubclient import Checkpoint, verify
from hubclient.checkpoint import run
from hubclient.errors import Lossy

FP8 = Golden("deepseek_v3_fp8")
NEEDED = pytest.mark.skipif(not FP8.exists, reason="needs the full reference data")
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@EACH
def test_what_is_packed_is_number_times_scale(kind: Kind, tmp_path: Path):
    folder = packed(tmp_path / "source", kind)
    expected = unpacked(tensors(folder), kind.suffix, kind.block)
    plain = json.loads((folder / CONFIG).read_text())
    del plain["quantization_config"]
    for dtype in ("f32", "bf16"):
        (out,) = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / dtype, type=dtype)
        found = tensors(out)
        assert len(expected) == 14 and found.keys() == checkpoints.llama_shapes(plain).keys()
        for name, values in expected.items():
            nan = np.isnan(values)
            assert np.array_equal(np.isnan(found[name].values), nan)
            wanted = values if dtype == "f32" else Stored("BF16", values.shape, to_bf16(values)).values
            assert np.array_equal(found[name].values[~nan], wanted[~nan]), name
        written = json.loads((out / CONFIG).read_text())
        assert written == {**plain, "torch_dtype": {"f32": "float32", "bf16": "bfloat16"}[dtype]}
        assert verify(out, folder).ok


@EACH
def test_a_copy_stays_packed(kind: Kind, tmp_path: Path):
    folder = packed(tmp_path / "source", kind)
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "{type}")
    assert plan.losses == () and plan.outputs[0].type == kind.weights
    ((copy,),) = (run(plan).paths,)
    assert tensors(copy) == tensors(folder)
    assert (copy / CONFIG).read_bytes() == (folder / CONFIG).read_bytes()
    report = verify(copy, folder)
    assert report.ok and set(report.counts()) == {"exact"}


@EACH
def test_other_formats_hold_the_same_numbers(kind: Kind, tmp_path: Path):
    folder = packed(tmp_path / "source", kind)
    checkpoint = Checkpoint.from_pretrained(folder)
    for space, name in (("gguf", "out.gguf"), ("mlx", "out")):
        plan = checkpoint.plan(tmp_path / name, format=space, type="f32")
        assert set(run(plan).tensors[0].values()) and run(plan, force=True).counts(0).keys() == {"exact"}
        assert verify(tmp_path / name, folder).ok
        assert [loss for loss in plan.losses if "activations" in loss] == list(plan.losses)
        assert bool(plan.losses) == bool(kind.aside)


def test_how_activations_are_rounded_is_a_loss_unless_it_is_copied(tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(packed(tmp_path / "source", KINDS["whole tensors"]))
    assert checkpoint.plan(tmp_path / "copy").losses == ()
    for space, kind in (("safetensors", "bf16"), ("gguf", "bf16"), ("mlx", "bf16")):
        with pytest.raises(Lossy, match=r"down_proj.activation_scale' and 13 more: how activations are rounded"):
            checkpoint.save_pretrained(tmp_path / "out", format=space, type=kind, strict=True)


@pytest.mark.parametrize(("name", "exact"), [("blocks and exponents", True), ("blocks", False)])
def test_values_decide_whether_unpacking_to_a_shorter_dtype_is_exact(name: str, exact: bool, tmp_path: Path):
    """Four bits times a power of two fit bfloat16; times a float32 they rarely do."""
    folder = packed(tmp_path / "source", KINDS[name])
    outcome = run(Checkpoint.from_pretrained(folder).plan(tmp_path / "out", type="bf16"))
    of = outcome.tensors[0][Q_PROJ]
    assert of.fidelity == ("exact" if exact else "rounded")
    values = unpacked(tensors(folder), "_scale_inv", (32, 48))[Q_PROJ]
    again = Stored("BF16", values.shape, to_bf16(values)).values
    assert of.changed == np.count_nonzero((values != again) & ~np.isnan(values))


def test_packed_weights_are_verified_by_their_numbers(tmp_path: Path):
    folder = packed(tmp_path / "source", KINDS["blocks"])
    (out,) = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "out", type="bf16")
    stock = tensors(out)
    write(out / WEIGHTS, {**stock, Q_PROJ: Stored("BF16", stock[Q_PROJ].shape, bytes(len(stock[Q_PROJ].data)))})
    verdicts = {tensor.name: tensor.verdict for tensor in verify(out, folder).tensors}
    assert verdicts.pop(Q_PROJ) == "wrong" and set(verdicts.values()) == {"exact"}


# As published


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("packed"))


@NEEDED
@pytest.mark.parametrize("space", ["gguf", "mlx"])
def test_what_was_packed_comes_back_in_bfloat16(space: str, workshop: Workshop):
    source = tensors(FP8.checkpoint)
    products = unpacked(source, "_scale_inv", (128, 128))
    folder = workshop.gguf(FP8, "auto") if space == "gguf" else workshop.mlx(FP8, "fp")
    plan = Checkpoint.from_pretrained(folder).plan(workshop.folder / f"{space}-back")
    assert plan.losses == ()
    ((back,),) = (run(plan).paths,)
    expected = {name: item for name, item in source.items() if not name.endswith("_scale_inv")}
    expected |= {name: Stored("BF16", values.shape, to_bf16(values)) for name, values in products.items()}
    assert tensors(back) == expected
    assert json.loads((back / CONFIG).read_text()) == {
        key: value for key, value in FP8.config.items() if key != "quantization_config"
    }


@NEEDED
@pytest.mark.parametrize("kind", ["f32", "auto", "q8_0"])
def test_verify_compares_files_of_other_formats_with_the_products(kind: str, workshop: Workshop):
    for out in (workshop.gguf(FP8, kind), workshop.stripped(FP8, kind)):
        report = verify(out, FP8.checkpoint)
        assert report.ok and set(report.counts()) == {"exact"}


@NEEDED
@pytest.mark.torch
def test_transformers_computes_the_same_but_for_a_block_that_it_cuts_elsewhere(tmp_path: Path):
    """Its `Fp8Dequantize` divides 192 rows with two scales into halves, where weight_block_size says 128 and the rest."""
    (out,) = Checkpoint.from_pretrained(FP8.checkpoint).save_pretrained(tmp_path / "out", type="f32")
    source, stock = tensors(FP8.checkpoint), tensors(out)
    for name in (name for name, item in source.items() if item.shape == (192, 32) and item.dtype == "F8_E4M3"):
        values = product(source[name], source[name + "_scale_inv"], (96, 128))
        stock[name] = Stored("F32", values.shape, values.tobytes())
    write(out / WEIGHTS, stock)
    data = (out / WEIGHTS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": {"format": "pt"}, **json.loads(data[8 : 8 + size])}
    put(out / WEIGHTS, header, data[8 + size :])
    assert np.abs(transformers_result(FP8, out) - FP8.logits).max() <= 1e-4


@pytest.mark.parametrize("space", ["gguf", "mlx"])
def test_settings_inside_text_config_are_gone_as_well_once_nothing_is_packed(space: str, tmp_path: Path):
    source = copy(Golden("mistral3").checkpoint, tmp_path / "source")
    header: dict[str, Any] = {}
    data = b""
    for name, stored in tensors(source).items():
        parts = {name: stored}
        if name.startswith("language_model.") and name.endswith("_proj.weight"):
            ones = Stored("F8_E4M3", stored.shape, b"\x38" * math.prod(stored.shape))
            grid = tuple(-(-size // 128) for size in stored.shape)
            parts = {name: ones, f"{name}_scale_inv": Stored("F32", grid, np.ones(grid, np.float32).tobytes())}
        for part, own in parts.items():
            header[part] = entry(own.dtype, own.shape, len(data), len(data) + len(own.data))
            data += own.data
    put(source / WEIGHTS, header, data)
    config = json.loads((source / CONFIG).read_text())
    config["text_config"]["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (source / CONFIG).write_text(json.dumps(config))
    there = tmp_path / ("there.gguf" if space == "gguf" else "there")
    Checkpoint.from_pretrained(source).save_pretrained(there, format=space)
    (back,) = Checkpoint.from_pretrained(there).save_pretrained(tmp_path / "back")
    written = [folder / CONFIG for folder in (there, back) if folder.is_dir()]
    assert written and not any("quantization_config" in path.read_text() for path in written)
