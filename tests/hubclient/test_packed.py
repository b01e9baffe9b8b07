"""Weights that are packed with scales: what they are unpacked to, what a copy keeps, and what does not fit together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import CONFIG, WEIGHTS
from golden import Golden, Stored, Workshop, copy, tensors, transformers_result
from rawsafetensors import entry, put
from running import Failing, refused

from hubclient import Checkpoint, verify
from hubclient.checkpoint import run
from hubclient.errors import DamagedInput, Lossy, UnsupportedEncoding

FP8 = Golden("deepseek_v3_fp8")
NEEDED = pytest.mark.skipif(not FP8.exists, reason="needs the full reference data")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
Stock = dict[str, Stored]


def e4m3(byte: int) -> float:
    """What a byte of F8_E4M3 stands for, by the definition."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    size = (1 + mantissa / 8) * 2.0 ** (exponent - 7) if exponent else mantissa / 8 * 2.0**-6
    return float("nan") if byte & 127 == 127 else -size if byte > 127 else size


E4M3 = np.array([e4m3(byte) for byte in range(256)], np.float32)


def numbers(stored: Stored) -> np.ndarray:
    """Any of the encodings that weights and scales are in, as float32."""
    octets = np.frombuffer(stored.data, np.uint8)
    if stored.dtype == "F8_E4M3":
        return E4M3[octets].reshape(stored.shape)
    if stored.dtype in ("F8_E8M0", "U8"):
        return (2.0 ** (octets.astype(np.float64) - 127)).astype(np.float32).reshape(stored.shape)
    return octets.view(np.int8).astype(np.float32).reshape(stored.shape) if stored.dtype == "I8" else stored.values


def product(weight: Stored, scale: Stored, block: tuple[int, int] | None) -> np.ndarray:
    """Number times scale, in float32."""
    factors = numbers(scale)
    if block:
        factors = factors.repeat(block[0], 0).repeat(block[1], 1)[: weight.shape[0], : weight.shape[1]]
    return numbers(weight) * factors


def to_bf16(values: np.ndarray) -> bytes:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).tobytes()


def unpacked(source: Stock, suffix: str, block: tuple[int, int] | None) -> dict[str, np.ndarray]:
    """The products, by the names of the weights."""
    return {name: product(weight, source[name + suffix], block) for name, weight in source.items() if name + suffix in source}


def settings_of(folder: Path) -> Any:
    return json.loads((folder / CONFIG).read_text()).get("quantization_config")


# Made up


@dataclass(frozen=True)
class Kind:
    """A way of packing: its settings, how weights and scales are stored, and what else lies beside them."""

    settings: Mapping[str, Any]
    suffix: str
    shape: Callable[[int, int], tuple[int, ...]]
    scales: str = "F32"
    weights: str = "F8_E4M3"
    block: tuple[int, int] | None = None
    aside: tuple[str, ...] = field(default=())


def compressed(strategy: str, **more: Any) -> dict[str, Any]:
    number = "int" if more.get("format") == "int-quantized" else "float"
    scheme = {"num_bits": 8, "type": number, "symmetric": True, "strategy": strategy, **more.pop("weights", {})}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": groups,
        "ignore": ["lm_head"],
        **more,
    }


def in_blocks(high: int, wide: int) -> tuple[int, ...]:
    return -(-high // 32), -(-wide // 48)


BLOCKS = {"quant_method": "fp8", "weight_block_size": [32, 48], "modules_to_not_convert": ["lm_head"]}
WHOLE = {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}
KINDS = {
    "blocks": Kind(BLOCKS, "_scale_inv", in_blocks, block=(32, 48)),
    "blocks and powers of two": Kind({**BLOCKS, "scale_fmt": "ue8m0"}, "_scale_inv", in_blocks, "U8", block=(32, 48)),
    "blocks and exponents": Kind(BLOCKS, "_scale_inv", in_blocks, "F8_E8M0", block=(32, 48)),
    "whole tensors": Kind(WHOLE, "_scale_inv", lambda _, __: (), "BF16", aside=("activation_scale",)),
    "rows": Kind({"quant_method": "fbgemm_fp8"}, "_scale", lambda high, _: (high, 1), aside=("input_scale_ub",)),
    "compressed tensors": Kind(compressed("tensor"), "_scale", lambda _, __: (1,), "BF16", aside=("input_scale",)),
    "compressed rows": Kind(compressed("channel"), "_scale", lambda high, _: (high, 1), "BF16"),
    "compressed blocks": Kind(
        compressed("block", weights={"block_structure": [32, 48]}), "_scale", in_blocks, "BF16", block=(32, 48)
    ),
    "compressed integers": Kind(compressed("channel", format="int-quantized"), "_scale", lambda high, _: (high, 1), weights="I8"),
}
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def write(path: Path, stock: Stock) -> None:
    end = 0
    header = {name: entry(item.dtype, item.shape, end, end := end + len(item.data)) for name, item in stock.items()}
    put(path, header, b"".join(item.data for item in stock.values()))


def packed(folder: Path, kind: Kind, change: Callable[[Stock], object] = lambda _: None, **settings: Any) -> Path:
    """A Llama whose layers are packed in this way, after `change` to its tensors."""
    checkpoints.llama(folder, config={"quantization_config": {**kind.settings, **settings}})
    stock, rng = tensors(folder), np.random.default_rng(0)
    for name in [name for name in stock if name.endswith("proj.weight")]:
        high, wide = stock[name].shape
        shape = kind.shape(high, wide)
        octets = rng.integers(0, 255, (high, wide), np.uint8)  # NaN is among the products too
        scales = rng.uniform(0.001, 0.1, shape).astype(np.float32)
        raw = {"F32": scales.tobytes(), "BF16": to_bf16(scales)}.get(
            kind.scales, rng.integers(120, 130, shape, np.uint8).tobytes()
        )
        stock[name] = Stored(kind.weights, (high, wide), octets.tobytes())
        stock[name + kind.suffix] = Stored(kind.scales, shape, raw)
        for ending in kind.aside:
            stock[name.removesuffix("weight") + ending] = Stored("BF16", (), b"\x80\x3f")
    change(stock)
    write(folder / WEIGHTS, stock)
    return folder


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


# What does not fit together


def put_in(name: str, item: Stored) -> Callable[[Stock], object]:
    return lambda stock: stock.update({name: item})


def without(name: str) -> Callable[[Stock], object]:
    return lambda stock: stock.pop(name)


SCALE = Q_PROJ + "_scale_inv"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(without(SCALE), f"'{Q_PROJ}' is F8_E4M3 without its scale, '{SCALE}'", id="no scale"),
        pytest.param(without(Q_PROJ), f"'{SCALE}' is the scale of '{Q_PROJ}', which is not there", id="no weight"),
        pytest.param(
            put_in(SCALE, Stored("F32", (2, 1), bytes(8))),
            f"'{SCALE}' is [2, 1] where [2, 2] is needed for blocks of 32 x 48 of '{Q_PROJ}', which is [64, 64]",
            id="too few scales",
        ),
        pytest.param(put_in(SCALE, Stored("F32", (), bytes(4))), "is [] where [2, 2] is needed", id="a single scale"),
        pytest.param(put_in(SCALE, Stored("I32", (2, 2), bytes(16))), "is I32, which scales cannot be", id="scales of integers"),
        pytest.param(put_in(SCALE, Stored("U8", (2, 2), bytes(4))), "is U8, which scales cannot be", id="bytes"),
        pytest.param(
            put_in(Q_PROJ, Stored("BF16", (64, 64), bytes(8192))), "is BF16 [64, 64], where a matrix of F8_E4M3", id="not packed"
        ),
        pytest.param(put_in(Q_PROJ, Stored("F8_E4M3", (64,), bytes(64))), "is F8_E4M3 [64], where a matrix", id="a vector"),
        pytest.param(
            put_in("lm_head.weight_scale_inv", Stored("F32", (9, 2), bytes(72))),
            "is the scale of 'lm_head.weight', which quantization_config says is not packed",
            id="a module that is left out",
        ),
    ],
)
def test_weights_and_scales_that_do_not_fit_are_named(
    change: Callable[[Stock], object], told: str, failing: Failing, tmp_path: Path
) -> None:
    refused(failing, packed(tmp_path / "source", KINDS["blocks"], change), 4, f"source/{WEIGHTS}: tensor ", told)


@pytest.mark.parametrize("shape", [(64,), (63, 1), (2,), (64, 64), (1, 1, 1), (64, 1, 1)])
def test_scales_without_blocks_are_for_all_or_for_a_row_or_for_a_column(shape: tuple[int, ...], tmp_path: Path):
    item = Stored("F32", shape, np.ones(shape, np.float32).tobytes())
    folder = packed(tmp_path / "source", KINDS["rows"], put_in(Q_PROJ + "_scale", item))
    checkpoint = Checkpoint.from_pretrained(folder)
    if shape == (64,):
        checkpoint.plan(tmp_path / "out", type="f32")
    else:
        with pytest.raises(DamagedInput, match="one scale neither for all nor for each row or column of"):
            checkpoint.plan(tmp_path / "out", type="f32")


@pytest.mark.parametrize(
    "settings",
    [
        *({"weight_block_size": value} for value in ("x", [32], [0, 48], [32, -1], [1.5, 2], [True, 2], {"a": 1}, 7)),
        *({"modules_to_not_convert": value} for value in ("lm_head", [1], {"a": 1}, 3)),
    ],
    ids=str,
)
def test_settings_that_are_none_are_named(settings: dict[str, Any], failing: Failing, tmp_path: Path) -> None:
    (key,) = settings
    folder = packed(tmp_path / "source", KINDS["blocks"], **settings)
    refused(failing, folder, 4, f"source/{CONFIG}: ", f"quantization_config has {settings[key]!r} for {key}")


@pytest.mark.parametrize("groups", [{}, None, [], {"a": 3}, {"a": {"weights": None}}], ids=str)
def test_groups_that_are_none_are_named(groups: Any, failing: Failing, tmp_path: Path) -> None:
    folder = packed(tmp_path / "source", KINDS["compressed rows"], config_groups=groups)
    refused(failing, folder, 4, f"source/{CONFIG}: ", "for config_groups")


UNREAD: dict[str, Any] = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "'fp8' with fmt 'e5m2'": {**BLOCKS, "fmt": "e5m2"},
    "'fp8' with expert_dtype 'fp4'": {**BLOCKS, "expert_dtype": "fp4"},
    "'compressed-tensors' as 'pack-quantized'": compressed("group", format="pack-quantized"),
    "'compressed-tensors' as None": compressed("channel", format=None),
    "'compressed-tensors' as ['a']": compressed("channel", format=["a"]),
    "'compressed-tensors' as sparse matrices": compressed("channel", sparsity_config={"format": "sparse-bitmask"}),
    "strategy 'group'": compressed("group"),
    "symmetric False": compressed("channel", weights={"symmetric": False}),
    "num_bits 4": compressed("channel", weights={"num_bits": 4}),
    "7": 7,
    "'x'": "x",
    "['fp8']": {"quant_method": ["fp8"]},
    "None": {"bits": 4},
}


@pytest.mark.parametrize(("told", "settings"), UNREAD.items())
def test_other_ways_of_packing_are_copied_and_refused_by_name(told: str, settings: Any, tmp_path: Path):
    folder = checkpoints.llama(tmp_path / "source", config={"quantization_config": settings})
    checkpoint = Checkpoint.from_pretrained(folder)
    (copy,) = checkpoint.save_pretrained(tmp_path / "copy")
    assert tensors(copy) == tensors(folder) and settings_of(copy) == settings
    for space, kind in (("gguf", "auto"), ("mlx", "auto"), ("safetensors", "f16")):
        with pytest.raises(UnsupportedEncoding, match=r"the weights are packed by .*, which cannot be read") as error:
            checkpoint.plan(tmp_path / "out", format=space, type=kind)
        assert told in str(error.value)


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
