"""A tiny random Larch goes to GGUF and comes back with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hubclient_larch import LARCH
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hubclient import Checkpoint

CONFIG = {
    "architectures": ["LarchForCausalLM"],
    "model_type": "larch",
    "n_blocks": 2,
    "d_model": 64,
    "d_ff": 96,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_size": 16,
    "max_length": 128,
    "norm_eps": 1e-5,
    "rotary_base": 50000.0,
    "vocab_size": 257,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
BLOCK = {
    "norm1.weight": (64,),
    "attn.qkv.weight": (64 + 2 * 32, 64),
    "attn.out.weight": (64, 64),
    "norm2.weight": (64,),
    "mlp.gate.weight": (96, 64),
    "mlp.up.weight": (96, 64),
    "mlp.down.weight": (64, 96),
}
SHAPES = {
    "trunk.embed.weight": (257, 64),
    **{f"trunk.blocks.{layer}.{name}": shape for layer in range(2) for name, shape in BLOCK.items()},
    "trunk.norm.weight": (64,),
    "lm_head.weight": (257, 64),
}


def write(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """A Transformers folder: config.json, tokenizer.json and model.safetensors (header length, JSON header, data)."""
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(shape).astype("<f4") for name, shape in SHAPES.items()}
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    head = json.dumps(header).encode()
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tensors


def read(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = (8 + length + at for at in entry["data_offsets"])
        found[name] = np.frombuffer(data[first:last], "<f4").reshape(entry["shape"])
    return found


def test_the_declaration_claims_what_pyproject_announces() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert all(f'"{claim}" = "hubclient_larch"' in pyproject for claim in LARCH.claims())


def test_safetensors_to_gguf_and_back(tmp_path: Path) -> None:
    tensors = write(tmp_path / "source")
    Checkpoint.from_pretrained(tmp_path / "source").save_pretrained(tmp_path / "larch.gguf", format="gguf", type="f32")
    Checkpoint.from_pretrained(tmp_path / "larch.gguf").save_pretrained(tmp_path / "again", format="safetensors")
    again = read(tmp_path / "again")
    assert again.keys() == tensors.keys()
    assert all(again[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == CONFIG
