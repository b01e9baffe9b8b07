"""The checkpoints that are measured, written here: random weights in bf16, or none, in Transformers' folder layout.

    python -m benchmarks.checkpoints tinyllama .bench/checkpoints/tinyllama

`tinyllama` has the published dimensions of TinyLlama-1.1B, `small` the same layout in 1 MB, `blocks` in 1.5 MB with rows of
whole super-blocks, `wide` one tensor of 4.2 GB, `deep` 90,003 tensors in 160 shards. `deepseek` has the names and dimensions of DeepSeek-V3 in 160 shards, 1.3 TB in bf16,
`deepseek-fp8` as it is published, 91,991 tensors; `experts` has its first four blocks at smaller sizes, 3.5 GB. All but the
first three are sparse files: their headers are real, their weights read as zeros.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.deepseek import DeepSeekV3
from benchmarks.vocabulary import write_tokenizer

_BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
_STEP = 1 << 22  # weights made at a time


class Dimensions(Protocol):
    """What a checkpoint is made from."""

    @property
    def vocab(self) -> int:
        """Tokens."""

    @property
    def shards(self) -> int:
        """Weight files, which hold about as many bytes each."""

    @property
    def sparse(self) -> bool:
        """Whether weights are holes."""

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order in which they fill the shards."""

    def dtype(self, name: str) -> str:
        """BF16, F32 or F8_E4M3."""

    def config(self) -> dict[str, Any]:
        """config.json's content."""


@dataclass(frozen=True, slots=True)
class Llama:
    """Dimensions of a Llama, and how it is stored: in how many shards, with weights or sparse."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    shards: int = 1
    sparse: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes in the order of the published files."""
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        for layer in range(self.layers):
            yield from ((f"model.layers.{layer}.{name}.weight", shape) for name, shape in self._block())
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab, self.hidden)

    def _block(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            ("input_layernorm", (self.hidden,)),
            ("mlp.down_proj", (self.hidden, self.intermediate)),
            ("mlp.gate_proj", (self.intermediate, self.hidden)),
            ("mlp.up_proj", (self.intermediate, self.hidden)),
            ("post_attention_layernorm", (self.hidden,)),
            ("self_attn.k_proj", (keys, self.hidden)),
            ("self_attn.o_proj", (self.hidden, queries)),
            ("self_attn.q_proj", (queries, self.hidden)),
            ("self_attn.v_proj", (keys, self.hidden)),
        )

    def dtype(self, name: str) -> str:  # noqa: ARG002
        """All alike."""
        return "BF16"

    def config(self) -> dict[str, Any]:
        """config.json's content."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 2048,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "vocab_size": self.vocab,
        }


CHECKPOINTS: Mapping[str, Dimensions] = {
    "tinyllama": Llama(hidden=2048, layers=22, heads=32, kv_heads=4, head_dim=64, intermediate=5632, vocab=32000),
    "small": Llama(hidden=128, layers=2, heads=4, kv_heads=2, head_dim=32, intermediate=352, vocab=512),
    "blocks": Llama(hidden=256, layers=1, heads=4, kv_heads=2, head_dim=64, intermediate=512, vocab=512),
    "wide": Llama(
        hidden=1 << 16, layers=1, heads=1, kv_heads=1, head_dim=32, intermediate=32, vocab=32000, tied=True, sparse=True
    ),
    "deep": Llama(
        hidden=2048, layers=10_000, heads=32, kv_heads=4, head_dim=64, intermediate=5632, vocab=32000, shards=160, sparse=True
    ),
    "deepseek": DeepSeekV3(),
    "deepseek-fp8": DeepSeekV3(scaled=True),
    "experts": DeepSeekV3(
        hidden=2048, layers=4, heads=32, intermediate=4096, expert_width=1024, vocab=4096, further=0, shards=160
    ),
}


def write_checkpoint(model: Dimensions, folder: Path) -> Path:
    """Write the folder anew; it appears under its name when it is complete."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(model.config(), indent=2) + "\n")
    write_tokenizer(partial, model.vocab)
    _write_weights(model, partial)
    partial.rename(folder)
    return folder


def ensure(name: str, bench: Path) -> Path:
    """The folder of a checkpoint by name, written if it is not there yet."""
    folder = bench / "checkpoints" / name
    return folder if folder.exists() else write_checkpoint(CHECKPOINTS[name], folder)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _BYTES[self.dtype]


def _write_weights(model: Dimensions, folder: Path) -> None:
    tensors = [_Tensor(name, shape, model.dtype(name)) for name, shape in model.tensors()]
    total = sum(tensor.nbytes for tensor in tensors)
    shards = list(_shards(tensors, total / model.shards))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= {tensor.name: name for tensor in shard}
        _write_shard(folder / name, shard, sparse=model.sparse, seed=number)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _shards(tensors: Sequence[_Tensor], size: float) -> Iterator[list[_Tensor]]:
    """Stretches of tensors that begin in the same `size` bytes, each in the order of the safetensors library: wide first, by name."""
    begun, shard = 0, 0
    found: list[_Tensor] = []
    for tensor in tensors:
        if begun >= (shard + 1) * size and found:
            yield sorted(found, key=lambda item: (-_BYTES[item.dtype], item.name))
            shard, found = int(begun // size), []
        found.append(tensor)
        begun += tensor.nbytes
    yield sorted(found, key=lambda item: (-_BYTES[item.dtype], item.name))


def _write_shard(path: Path, tensors: Sequence[_Tensor], *, sparse: bool, seed: int) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        if sparse:
            file.truncate(8 + len(header) + end)
            return
        for index, tensor in enumerate(tensors):
            for weights in _weights(tensor.shape, seed * 1_000_003 + index):
                file.write(weights)


def _weights(shape: tuple[int, ...], seed: int) -> Iterator[bytes]:
    """bf16 weights as a trained model has them: matrices about 0, norms about 1, deviation 0.02."""
    import numpy as np

    random = np.random.default_rng(seed)
    for start in range(0, count := math.prod(shape), _STEP):
        values = random.standard_normal(min(_STEP, count - start), np.float32)
        values *= np.float32(0.02)
        values += np.float32(len(shape) == 1)
        bits = values.view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # to nearest, ties to even
        yield (bits >> np.uint32(16)).astype("<u2").tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CHECKPOINTS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(write_checkpoint(CHECKPOINTS[arguments.name], arguments.folder))


if __name__ == "__main__":
    main()
