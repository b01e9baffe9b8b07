"""A config.json that came with other tensors: said so, naming both models, and never where the tensors are only incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import checkpoints
import pytest
from checkpoints import WEIGHTS
from golden import Golden, copy, tensors
from packing import write

from hubclient import Checkpoint
from hubclient.errors import DamagedInput, UnmappedTensor


@pytest.mark.parametrize("space", ["gguf", "mlx"])
@pytest.mark.parametrize(
    ("weights", "config", "named"),
    [
        ("llama", "gemma2", "gemma2 .*those of llama.*"),
        ("gemma2", "llama", "llama .*gemma2"),
        ("gpt2_prefixed", "qwen2", "qwen2 .*gpt2"),
    ],
)
def test_the_config_of_another_model_is_named_with_the_model_of_the_tensors(
    weights: str, config: str, named: str, space: str, tmp_path: Path
):
    folder = copy(Golden(weights).checkpoint, tmp_path / "source")
    shutil.copyfile(Golden(config).checkpoint / "config.json", folder / "config.json")
    told = rf"source/config\.json: is of the architecture {named}: they do not belong together"
    with pytest.raises(DamagedInput, match=told) as caught:
        Checkpoint.from_pretrained(folder).plan(tmp_path / "out", format=space)
    assert caught.value.hint and caught.value.file == folder / "config.json"


@pytest.mark.parametrize("part", ["self_attn.q_proj.weight", "input_layernorm.weight"])
def test_a_tensor_of_a_block_that_is_missing_is_just_that(part: str, tmp_path: Path):
    folder = checkpoints.llama(tmp_path / "source")
    name = f"model.layers.1.{part}"
    write(folder / WEIGHTS, {key: item for key, item in tensors(folder).items() if key != name})
    with pytest.raises(UnmappedTensor, match=f"no tensor named {name}"):
        Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")


def test_a_tensor_that_no_architecture_has_is_just_that(tmp_path: Path):
    folder = checkpoints.llama(tmp_path / "source")
    stock = tensors(folder)
    write(folder / WEIGHTS, {**stock, "model.layers.0.frobnicator.weight": stock["model.norm.weight"]})
    with pytest.raises(UnmappedTensor, match="no rule in the architecture llama for 1 tensor: model"):
        Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
