"""Experts that are missing, too many or of another size, blocks that are both dense and sparse, packed experts that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import Shapes, llama_shapes
from running import Failing, refused

from hubclient import Checkpoint
from hubclient.errors import DamagedInput
from hubclient.formats.model import Value

MOE: dict[str, Any] = {
    **checkpoints.LLAMA,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
OSS: dict[str, Any] = {
    **checkpoints.LLAMA,
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "head_dim": 16,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "quantization_config": {"quant_method": "mxfp4"},
}
BLOCK = "model.layers.1."
EXPERT = BLOCK + "mlp.experts.1."


def moe_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden, inner, size = config["hidden_size"], config["moe_intermediate_size"], config["head_dim"]
    found = {name: shape for name, shape in llama_shapes(config).items() if ".mlp." not in name}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        found |= {f"{block}self_attn.{part}_norm.weight": (size,) for part in "qk"}
        found[f"{block}mlp.gate.weight"] = (config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            found |= expert_shapes(f"{block}mlp.experts.{expert}.", hidden, inner)
    return found


def expert_shapes(begin: str, hidden: int, inner: int) -> Shapes:
    sizes = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    return {f"{begin}{part}.weight": shape for part, shape in sizes.items()}


def oss_tensors(config: Mapping[str, Any]) -> dict[str, Any]:
    hidden, inner, count = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    found: dict[str, Any] = {name: shape for name, shape in llama_shapes(config).items() if ".mlp." not in name}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        sizes = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "o_proj": hidden}
        found |= {f"{block}self_attn.{name}.bias": (size,) for name, size in sizes.items()} | {f"{block}self_attn.sinks": (4,)}
        found |= {f"{block}mlp.router.weight": (count, hidden), f"{block}mlp.router.bias": (count,)}
        for name, rows, columns in (("gate_up_proj", 2 * inner, hidden), ("down_proj", hidden, inner)):
            found[f"{block}mlp.experts.{name}_bias"] = (count, rows)
            found[f"{block}mlp.experts.{name}_blocks"] = np.zeros((count, rows, columns // 32, 16), np.uint8)
            found[f"{block}mlp.experts.{name}_scales"] = np.zeros((count, rows, columns // 32), np.uint8)
    return found


def moe(folder: Path, **options: Any) -> Path:
    return checkpoints.make(folder / "moe", MOE, moe_shapes, checkpoints.byte_level(), dtype="BF16", **options)


def oss(folder: Path, *, tensors: Mapping[str, Any] | None = None, **options: Any) -> Path:
    made = {**oss_tensors({**OSS, **options.get("sizes", {})}), **(tensors or {})}
    return checkpoints.make(folder / "oss", OSS, no_shapes, checkpoints.byte_level(), dtype="BF16", tensors=made, **options)


def no_shapes(config: Mapping[str, Any]) -> Shapes:
    return {}


@pytest.mark.parametrize("space", ["gguf", "mlx"])
def test_what_the_others_are_made_from_is_right(space: str, tmp_path: Path):
    for source in (moe(tmp_path), oss(tmp_path)):
        Checkpoint.from_pretrained(source).save_pretrained(tmp_path / f"{source.name}.out", format=space, strict=True)


def test_packed_experts_stay_packed_unless_a_type_is_asked_for(tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(oss(tmp_path))
    before = checkpoint.opened.tensors
    (same,) = checkpoint.save_pretrained(tmp_path / "auto")
    after = Checkpoint.from_pretrained(same).opened.tensors
    assert {name: (ref.shape, ref.encoding) for name, ref in before.items()} == {
        name: (ref.shape, ref.encoding) for name, ref in after.items()
    }
    (plain,) = checkpoint.save_pretrained(tmp_path / "f16", type="f16")
    found = Checkpoint.from_pretrained(plain).opened.tensors
    assert {ref.encoding.name for ref in found.values()} == {"F16"}
    assert not any(name.endswith(("_blocks", "_scales")) for name in found)


@pytest.mark.parametrize("space", ["gguf", "mlx"])
@pytest.mark.parametrize(
    ("options", "code", "fault"),
    [
        ({"tensors": {f"{EXPERT}up_proj.weight": None}}, 3, f"no tensor named {EXPERT}up_proj.weight"),
        ({"tensors": dict.fromkeys(expert_shapes(EXPERT, 64, 32))}, 3, "experts.1."),
        ({"config": {"num_experts": 4}}, 3, "experts.3."),
        ({"config": {"num_experts": 2**31}}, 3, "experts.3."),
        ({"config": {"num_experts": 2}}, 4, "experts.2."),
        ({"config": {"num_experts": 0}}, 4, "num_experts is 0"),
        ({"config": {"num_experts": "all"}}, 4, "num_experts is 'all'"),
        ({"tensors": expert_shapes(f"{BLOCK}mlp.experts.3.", 64, 32)}, 4, "experts.3."),
        ({"tensors": expert_shapes(f"{BLOCK}mlp.experts.01.", 64, 32)}, 3, "experts.01."),
        ({"tensors": {f"{EXPERT}up_proj.weight": (32, 32)}}, 4, f"{EXPERT}up_proj.weight has the shape [32, 32]"),
        ({"tensors": {f"{BLOCK}mlp.gate.weight": None}}, 3, f"no tensor named {BLOCK}mlp.gate.weight"),
        ({"tensors": {f"{BLOCK}mlp.gate.weight": (4, 64)}}, 4, "num_experts = 3"),
        ({"tensors": expert_shapes(f"{BLOCK}mlp.", 64, 96)}, 4, f"has {BLOCK}mlp."),
    ],
)
def test_experts_that_are_not_those_of_the_config(
    options: dict[str, Any], code: int, fault: str, space: str, failing: Failing, tmp_path: Path
):
    refused(failing, moe(tmp_path, **options), code, "moe", fault, to=space)


@pytest.mark.parametrize("space", ["gguf", "mlx"])
@pytest.mark.parametrize(
    ("options", "code", "fault"),
    [
        ({"tensors": {f"{BLOCK}mlp.experts.gate_up_proj_blocks": None}}, 3, "gate_up_proj_scales"),
        ({"tensors": {f"{BLOCK}mlp.experts.gate_up_proj_scales": None}}, 4, "gate_up_proj_scales"),
        ({"tensors": {f"{BLOCK}mlp.experts.gate_up_proj_bias": None}}, 3, "gate_up_proj_bias"),
        ({"tensors": {f"{BLOCK}mlp.experts.gate_up_proj": (3, 64, 192)}}, 4, "gate_up_proj"),
        ({"config": {"num_local_experts": 4}}, 4, "num_local_experts = 4"),
        ({"config": {"intermediate_size": 64}}, 4, "intermediate_size"),
    ],
)
def test_packed_experts_that_are_not_those_of_the_config(
    options: dict[str, Any], code: int, fault: str, space: str, failing: Failing, tmp_path: Path
):
    refused(failing, oss(tmp_path, **options), code, "oss", fault, to=space)


def test_more_experts_than_a_stack_can_hold_are_refused_before_they_are_named(tmp_path: Path):
    """Three names for each of four thousand million experts would fill the memory."""
    (written,) = Checkpoint.from_pretrained(moe(tmp_path)).save_pretrained(tmp_path / "moe.gguf", format="gguf")
    checkpoint = Checkpoint.from_pretrained(written)
    metadata = {**checkpoint.opened.metadata, "qwen3moe.expert_count": Value("u32", 2**32 - 1)}
    hostile = Checkpoint(replace(checkpoint.opened, metadata=metadata), checkpoint.host)
    with pytest.raises(DamagedInput, match=r"blk\.0\.ffn_\w+_exps\.weight has the shape .* asks for 4294967295 \(num_experts\)"):
        hostile.plan(tmp_path / "out")
