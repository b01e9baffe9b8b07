"""MLX folders: what mlx-lm writes, and back; with the help of our own key or without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import config_of, edited
from golden import VARIANTS, Golden, Stored, Workshop, copy, goldens, mlx_differences, tensors

from hubclient import Checkpoint, Quantization, verify
from hubclient.errors import DamagedInput, UsageError
from hubclient.plugins import get_host

# Tensors that can be recomputed and are left out.
DROPPED = {"gpt2_mask_buffers": ("h.0.attn.bias", "h.1.attn.bias")}


def known(golden: Golden) -> bool:
    """Whether we have a layout for a golden's architecture."""
    return "mlx" in get_host().architectures("hf", golden.config["architectures"][0])[0].layouts


def whole(golden: Golden) -> bool:
    """Whether MLX has a place for all of a model."""
    return "vision_config" not in golden.config


def made(golden: Golden, variant: str) -> bool:
    """Whether mlx-lm could convert it."""
    return "tensors" in golden.record["mlx"].get(variant, {})


ALL = [golden for golden in goldens() if known(golden)]
EACH = pytest.mark.parametrize("golden", ALL, ids=lambda golden: golden.name)
WHOLE = pytest.mark.parametrize("golden", [golden for golden in ALL if whole(golden)], ids=lambda golden: golden.name)
KEPT = pytest.mark.parametrize(
    "golden", [golden for golden in ALL if whole(golden) and not golden.unpacked], ids=lambda golden: golden.name
)
LLAMA = Golden("llama")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("mlx"))


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values to a dtype, to nearest even, and back."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def dequantised(module: str, stored: dict[str, Stored]) -> np.ndarray:
    """What mx.dequantize gives: level times scale, plus bias, each rounded to the dtype of the scales."""
    words, scales, biases = (stored[f"{module}.{part}"] for part in ("weight", "scales", "biases"))
    *rows, groups = scales.shape
    stream = np.frombuffer(words.data, np.uint8).reshape(-1, 4 * words.shape[-1])
    bits = np.unpackbits(stream, axis=1, bitorder="little")
    width = next(
        width for width in (2, 3, 4, 5, 6, 8) if bits.shape[1] % (width * groups) == 0 and bits.shape[1] // width // groups == 64
    )
    levels = (bits.reshape(len(stream), -1, width) << np.arange(width)).sum(axis=2).astype(np.float32)
    grouped = levels.reshape(*rows, groups, -1)
    product = rounded(grouped * scales.values[..., None], scales.dtype)
    return rounded(product + biases.values[..., None], scales.dtype).reshape(*rows, -1)


# What is written


@pytest.mark.parametrize("variant", VARIANTS)
@EACH
def test_every_tensor_and_the_config_are_those_of_mlx_lm(golden: Golden, variant: str, workshop: Workshop):
    if not made(golden, variant):
        pytest.skip("mlx-lm cannot convert it")
    assert mlx_differences(golden, workshop.mlx(golden, variant), variant) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_are_laid_out_as_by_mlx_lm(variant: str, workshop: Workshop):
    folder = workshop.mlx(LLAMA, variant)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "generation_config.json",
    }
    text = (folder / "config.json").read_text()
    assert text == json.dumps(dict(sorted(json.loads(text).items())), indent=4)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == 139584  # mlx-lm's own count, packed or not


def test_the_end_of_text_is_that_of_the_generation_config(tmp_path: Path):
    source = copy(LLAMA.checkpoint, tmp_path / "source")
    (source / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out", format="mlx")
    assert config_of(tmp_path / "out")["eos_token_id"] == [2, 3]
    assert (tmp_path / "out" / "generation_config.json").read_text() == '{"eos_token_id": [2, 3]}'
    Checkpoint.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "back")
    assert config_of(tmp_path / "back") == config_of(source)


def test_what_mlx_lm_would_take_for_something_else_is_said(tmp_path: Path):
    """Its own defaults are not those of Transformers, and it does not read rope_parameters."""
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}
    changes = {
        "tie_word_embeddings": None,
        "rms_norm_eps": None,
        "rope_theta": None,
        "rope_scaling": None,
        "rope_parameters": rope,
    }
    source = edited(LLAMA.checkpoint, tmp_path / "source", **changes)
    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out", format="mlx")
    config = config_of(tmp_path / "out")
    assert config["tie_word_embeddings"] is False and config["rms_norm_eps"] == 1e-6
    assert config["rope_theta"] == 500000.0 and config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    Checkpoint.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "back")
    assert config_of(tmp_path / "back") == config_of(source)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"torch_dtype": "float16"}, "F16"),
        ({"torch_dtype": None, "dtype": "float16"}, "BF16"),
        ({"torch_dtype": None, "text_config": {"dtype": "float32"}}, "F32"),
        ({"torch_dtype": "auto"}, "BF16"),
        ({"torch_dtype": 16}, "BF16"),
    ],
)
def test_tensors_are_cast_as_the_config_says_to_mlx_lm(changes: dict[str, Any], dtype: str, tmp_path: Path):
    source = edited(LLAMA.checkpoint, tmp_path / "source", **changes)
    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out", format="mlx")
    assert {stored.dtype for stored in tensors(tmp_path / "out").values()} == {dtype}


@pytest.mark.parametrize(
    ("kind", "bits", "group"), [("2bit", 2, 32), ("3bit", 3, 64), ("5bit", 5, 32), ("6bit", 6, 64), ("8bit", 8, 32)]
)
def test_all_widths(kind: str, bits: int, group: int, tmp_path: Path):
    Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(tmp_path / "out", format="mlx", type=kind, group_size=group)
    assert config_of(tmp_path / "out")["quantization"] == {"group_size": group, "bits": bits, "mode": "affine"}
    report = verify(tmp_path / "out", LLAMA.checkpoint)
    assert report.ok and report.counts() == {"exact": 21}


def test_rows_that_are_no_whole_number_of_groups_stay_as_they_are(tmp_path: Path):
    Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(tmp_path / "out", format="mlx", type="4bit", group_size=128)
    stored = tensors(tmp_path / "out")
    assert {name for name in stored if name.endswith(".scales")} == {f"model.layers.{i}.mlp.down_proj.scales" for i in (0, 1)}
    assert stored["lm_head.weight"].dtype == "BF16"
    assert config_of(tmp_path / "out")["quantization"]["group_size"] == 128


def test_a_head_that_is_tied_and_stored_all_the_same_is_left_out_and_said(tmp_path: Path):
    """mlx-lm has no such module, so it would refuse scales for it."""
    folder = copy(LLAMA.checkpoint, tmp_path / "tied")
    (folder / "config.json").write_text(json.dumps({**LLAMA.config, "tie_word_embeddings": True}))
    plan = Checkpoint.from_pretrained(folder).plan(tmp_path / "out", format="mlx", type="4bit")
    assert not [step.name for step in plan.outputs[0].steps if "lm_head" in step.name]
    assert plan.losses == ("tensor lm_head.weight has no place in MLX, where a tied head is the embedding",)


def test_several_types_share_one_read(tmp_path: Path):
    written = Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(
        tmp_path / "{name}-{type}", format="mlx", type=["auto", "4bit", "f16"]
    )
    assert [path.name for path in written] == ["llama-BF16", "llama-4bit", "llama-F16"]
    assert config_of(written[2])["torch_dtype"] == "float16"


def test_parts_alone(tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(LLAMA.checkpoint)
    checkpoint.save_pretrained(tmp_path / "config", format="mlx", type="4bit", only="config")
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["config.json"]
    checkpoint.save_pretrained(tmp_path / "tokenizer", format="mlx", only="tokenizer")
    assert "config.json" not in {path.name for path in (tmp_path / "tokenizer").iterdir()}
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (LLAMA.checkpoint / "tokenizer.json").read_bytes()


# The way back


@KEPT
def test_a_folder_comes_back_as_it_was(golden: Golden, workshop: Workshop):
    folder = workshop.mlx(golden, "fp")
    assert Checkpoint.from_pretrained(folder).format == "mlx"
    plan = Checkpoint.from_pretrained(folder).plan(workshop.folder / "never")
    assert plan.losses == ()
    back = workshop.back(folder)
    source = {name: stored for name, stored in tensors(golden.checkpoint).items() if name not in DROPPED.get(golden.name, ())}
    assert tensors(back) == source
    assert config_of(back) == golden.config
    for path in golden.checkpoint.rglob("*"):
        if path.is_file() and ".safetensors" not in path.name and path.name != "config.json":
            assert (back / path.relative_to(golden.checkpoint)).read_bytes() == path.read_bytes()


@EACH
def test_packed_matrices_come_back_as_mlx_unpacks_them(golden: Golden, workshop: Workshop, tmp_path: Path):
    """In names and order of MLX itself, so that names tell which tensor is which."""
    if not made(golden, "q4") or golden.record["mlx"]["q4"]["quantize"]["group_size"] != 64:
        pytest.skip("mlx-lm cannot convert it")
    folder = workshop.mlx(golden, "q4")
    stored = tensors(folder)
    for kind, dtype in (("f32", "F32"), ("bf16", "BF16")):
        Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / kind, format="mlx", type=kind)
        found = tensors(tmp_path / kind)
        for name in (name.removesuffix(".biases") for name in stored if name.endswith(".biases")):
            values = dequantised(name, stored)
            assert found[f"{name}.weight"].dtype == dtype
            assert np.array_equal(found[f"{name}.weight"].values, rounded(values, dtype)), name


@pytest.mark.parametrize("variant", VARIANTS)
@WHOLE
def test_a_folder_of_somebody_else_converts_too(golden: Golden, variant: str, workshop: Workshop):
    """Without our key: config.json is as mlx-lm left it, tensors have the dtypes that they have there."""
    folder = workshop.stripped_mlx(golden, variant)
    back = workshop.back(folder)
    packed = {"quantization", "quantization_config"}  # GPT-OSS stays packed, which both say in their own way
    there, here = ({key: value for key, value in config_of(path).items() if key not in packed} for path in (folder, back))
    assert here == there
    report = verify(folder, back)
    assert report.ok, report
    if variant == "fp":
        assert report.counts() == {"exact": len(report.tensors)}


@EACH
def test_from_mlx_to_mlx_everything_stays(golden: Golden, workshop: Workshop, tmp_path: Path):
    folder = workshop.mlx(golden, "q4")
    Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "again", format="mlx")
    assert tensors(tmp_path / "again") == tensors(folder)
    packed = any(name.endswith(".scales") for name in tensors(folder))  # llama_odd_dims only says so
    gone = () if packed else ("quantization", "quantization_config")
    assert config_of(tmp_path / "again") == {key: value for key, value in config_of(folder).items() if key not in gone}


def test_a_packed_folder_is_packed_anew_where_that_is_asked(workshop: Workshop, tmp_path: Path):
    source = Checkpoint.from_pretrained(workshop.mlx(LLAMA, "q4"))
    with pytest.raises(UsageError, match="quantised as AFFINE4_G64_BF16 already"):
        source.plan(tmp_path / "a", format="mlx", type="8bit")
    source.save_pretrained(tmp_path / "a", format="mlx", type="8bit", quantization=Quantization(requantize=True))
    assert config_of(tmp_path / "a")["quantization"] == {"group_size": 64, "bits": 8, "mode": "affine"}
    assert tensors(tmp_path / "a")["lm_head.weight"].shape == (512, 16)
    assert verify(tmp_path / "a", workshop.mlx(LLAMA, "q4")).ok


@pytest.mark.parametrize("kind", ["f32", "auto", "q8_0"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_over_mlx_gives_the_same_gguf(variant: str, kind: str, workshop: Workshop, tmp_path: Path):
    folder = workshop.mlx(LLAMA, variant)
    wishes = Quantization(requantize=True)
    for name, source in (("a", folder), ("b", workshop.back(folder))):
        Checkpoint.from_pretrained(source).save_pretrained(
            tmp_path / f"{name}.gguf", format="gguf", type=kind, quantization=wishes
        )
    there, again = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert verify(there, again).counts() == {"exact": 21} and verify(there, folder).ok
    if variant == "fp":
        assert verify(there, LLAMA.checkpoint).ok


@pytest.mark.parametrize("variant", VARIANTS)
@WHOLE
def test_from_gguf_straight_to_mlx_is_as_over_safetensors(golden: Golden, variant: str, workshop: Workshop, tmp_path: Path):
    gguf = workshop.gguf(golden, "f32")
    for name, source in (("straight", gguf), ("over", workshop.back(gguf))):
        Checkpoint.from_pretrained(source).save_pretrained(tmp_path / name, format="mlx", type=VARIANTS[variant])
    assert config_of(tmp_path / "straight") == config_of(tmp_path / "over")
    assert tensors(tmp_path / "straight") == tensors(tmp_path / "over")


def test_verify_sees_what_is_wrong(workshop: Workshop, tmp_path: Path):
    folder = copy(workshop.mlx(LLAMA, "q4"), tmp_path / "a")
    opened = Checkpoint.from_pretrained(folder).opened
    ref = opened.tensors["model.layers.0.mlp.up_proj.weight"]
    data = bytearray(ref.file.read_bytes())
    for byte in range(ref.planes[0].offset, ref.planes[0].offset + 8):
        data[byte] ^= 0xFF
    ref.file.write_bytes(data)
    report = verify(folder, LLAMA.checkpoint)
    assert not report.ok and [tensor.name for tensor in report.tensors if tensor.verdict == "wrong"] == [ref.name]


def test_another_rounding_of_scales_is_within_the_bound(workshop: Workshop, tmp_path: Path):
    """As on another device."""
    folder = copy(workshop.mlx(LLAMA, "q4"), tmp_path / "a")
    ref = Checkpoint.from_pretrained(folder).opened.tensors["lm_head.weight"]
    data = bytearray(ref.file.read_bytes())
    scales = ref.planes[1]
    view = np.frombuffer(data, "<u2", scales.nbytes // 2, scales.offset)
    view[:] += 1
    ref.file.write_bytes(data)
    report = verify(folder, LLAMA.checkpoint)
    assert report.ok and report.counts() == {"exact": 20, "within": 1}


def test_a_folder_of_shards_is_one_checkpoint(workshop: Workshop, tmp_path: Path):
    Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(
        tmp_path / "out", format="mlx", type="4bit", max_shard_size=40_000
    )
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert tensors(tmp_path / "out") == tensors(workshop.mlx(LLAMA, "q4"))
    assert verify(tmp_path / "out", LLAMA.checkpoint).ok
    (tmp_path / "out" / shards[0]).unlink()
    with pytest.raises(DamagedInput, match="names the shard"):
        Checkpoint.from_pretrained(tmp_path / "out")


@pytest.mark.mlx
@pytest.mark.parametrize("variant", VARIANTS)
@EACH
def test_mlx_lm_loads_it(golden: Golden, variant: str, workshop: Workshop):
    """Where there is MLX: strictly, so every parameter is there and none too many."""
    utils = pytest.importorskip("mlx_lm.utils")
    utils.load_model(workshop.mlx(golden, variant))


def test_force_replaces_an_mlx_folder(workshop: Workshop, tmp_path: Path):
    folder = copy(workshop.mlx(LLAMA, "q4"), tmp_path / "a")
    Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(folder, format="mlx", force=True)
    assert tensors(folder) == tensors(workshop.mlx(LLAMA, "fp"))
    shutil.rmtree(folder)
