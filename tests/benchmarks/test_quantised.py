"""The file that is unpacked is what llama-quantize would have made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from libggml import ggml
from reference import REFERENCE

from benchmarks.checkpoints import CHECKPOINTS, Llama, write_checkpoint
from benchmarks.quantised import kind_of, pack
from hubclient import Checkpoint
from hubclient.formats.encodings import BF16
from hubclient.formats.model import TensorRef


@pytest.mark.llama
def test_a_packed_file_is_read_and_close_to_what_it_was(tmp_path: Path) -> None:
    model = Llama(hidden=256, layers=3, heads=4, kv_heads=2, head_dim=64, intermediate=512, vocab=300)
    source = Checkpoint.from_pretrained(write_checkpoint(model, tmp_path / "model"))
    (plain,) = source.save_pretrained(tmp_path / "plain.gguf", format="gguf", type="bf16")
    pack(plain, tmp_path / "packed.gguf", ggml())
    packed = Checkpoint.from_pretrained(tmp_path / "packed.gguf")
    kinds = {name: ref.encoding.name for name, ref in packed.opened.tensors.items()}
    assert (kinds["output.weight"], kinds["token_embd.weight"], kinds["output_norm.weight"]) == ("Q6_K", "Q4_K", "F32")
    (folder,) = packed.save_pretrained(tmp_path / "back", format="safetensors", type="f32")
    (was,) = source.save_pretrained(tmp_path / "was", format="safetensors", type="f32")
    for name, ref in Checkpoint.from_pretrained(folder).opened.tensors.items():
        before = Checkpoint.from_pretrained(was).opened.tensors[name]
        one, two = (np.fromfile(item.file, np.float32, item.nbytes // 4, offset=item.offset) for item in (before, ref))
        assert np.abs(one - two).max() < 0.02, name


@pytest.mark.skipif(REFERENCE is None, reason="llama-quantize's choices are in the reference data")
@pytest.mark.parametrize("name", ["llama_gqa", "llama_mha"])
def test_types_are_those_of_the_recipe(name: str) -> None:
    assert REFERENCE is not None
    recorded = json.loads((REFERENCE / "quant" / "mixes.json").read_text())[name]
    layers = recorded["config"]["num_hidden_layers"]
    for tensor, kind in recorded["types"]["Q4_K_M"].items():
        shape = tuple(size for size in reversed(recorded["tensors"][tensor]) if size > 1)
        if len(shape) > 1:
            ref = TensorRef(tensor, shape, BF16, Path("x"), 0, 0)
            assert kind_of(ref, layers).name.lower() == kind.lower(), tensor


def test_the_large_checkpoint_has_rows_of_whole_blocks() -> None:
    assert all(shape[-1] % 256 == 0 for _, shape in CHECKPOINTS["tinyllama"].tensors())
