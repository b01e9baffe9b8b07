"""The checkpoints that benchmarks measure are what they claim to be, and hubclient takes them for real ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoints import CHECKPOINTS, Llama, ensure, write_checkpoint
from benchmarks.deepseek import DeepSeekV3
from hubclient import Checkpoint

TINY = Llama(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=96, vocab=300)


def bf16(path: Path, offset: int, count: int) -> np.ndarray:
    halves = np.fromfile(path, "<u2", count, offset=offset)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def test_a_checkpoint_has_the_tensors_of_its_dimensions(tmp_path: Path) -> None:
    opened = Checkpoint.from_pretrained(write_checkpoint(TINY, tmp_path / "tiny")).opened
    assert {name: ref.shape for name, ref in opened.tensors.items()} == dict(TINY.tensors())
    assert {ref.encoding.name for ref in opened.tensors.values()} == {"BF16"}
    assert len(opened.tensors) == 9 * 2 + 3


def test_weights_look_trained_and_differ_between_tensors(tmp_path: Path) -> None:
    opened = Checkpoint.from_pretrained(write_checkpoint(TINY, tmp_path / "tiny")).opened
    values = {name: bf16(ref.file, ref.offset, math.prod(ref.shape)) for name, ref in opened.tensors.items()}
    assert values["model.embed_tokens.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert abs(values["model.embed_tokens.weight"].mean()) < 0.001
    assert values["model.norm.weight"].mean() == pytest.approx(1, abs=0.02)
    assert not np.array_equal(values["model.layers.0.mlp.up_proj.weight"], values["model.layers.1.mlp.up_proj.weight"])


def test_the_same_checkpoint_has_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_checkpoint(TINY, tmp_path / name) / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_shards_are_listed_in_an_index(tmp_path: Path) -> None:
    folder = write_checkpoint(replace(TINY, shards=3), tmp_path / "sharded")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert len(Checkpoint.from_pretrained(folder).opened.tensors) == len(index["weight_map"]) == 21


def test_a_sparse_checkpoint_takes_no_room(tmp_path: Path) -> None:
    weights = write_checkpoint(replace(TINY, hidden=4096, sparse=True), tmp_path / "sparse") / "model.safetensors"
    assert weights.stat().st_size > 1 << 20
    assert weights.stat().st_blocks * 512 < 1 << 20


def test_it_converts(tmp_path: Path) -> None:
    folder = write_checkpoint(replace(TINY, tied=True), tmp_path / "tiny")
    (out,) = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "tiny.gguf", format="gguf", type="q8_0")
    metadata = Checkpoint.from_pretrained(out).opened.metadata
    assert metadata["tokenizer.ggml.model"].value == "llama"
    assert len(metadata["tokenizer.ggml.tokens"].value) == 300


def test_one_is_written_only_if_it_is_not_there(tmp_path: Path) -> None:
    folder = ensure("small", tmp_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert ensure("small", tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def elements(name: str) -> list[int]:
    return [math.prod(shape) for _, shape in CHECKPOINTS[name].tensors()]


def test_the_dimensions_are_those_that_are_promised() -> None:
    assert sum(elements("tinyllama")) == 1_100_048_384  # as published
    assert sum(elements("small")) * 2 == pytest.approx(1e6, rel=0.1)
    assert max(elements("wide")) * 2 == 4_194_304_000
    assert sum(sorted(elements("wide"))[:-1]) * 2 < 50e6
    assert len(elements("deep")) == 90_003 and CHECKPOINTS["deep"].shards == 160
    assert len(elements("deepseek")) == 46_183 and len(elements("deepseek-fp8")) == 91_991  # as published
    own = [math.prod(shape) for name, shape in CHECKPOINTS["deepseek"].tensors() if "layers.61." not in name]
    assert sum(own) == pytest.approx(671e9, rel=0.001)


def test_shards_are_in_the_order_of_the_safetensors_library(tmp_path: Path) -> None:
    model = DeepSeekV3(hidden=64, layers=4, further=0, heads=2, intermediate=64, expert_width=64, experts=8, shards=5, vocab=300)
    folder = write_checkpoint(model, tmp_path / "experts")
    (widest,) = [name for name, _ in model.tensors() if model.dtype(name) == "F32"]
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == 5
    for file in files:
        names = list(Checkpoint.from_pretrained(file).opened.tensors)
        assert names == sorted(names, key=lambda name: (name != widest, name))
