"""Models with rows of whole blocks, importance for them, and what a quantised file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np

from hubclient import Checkpoint
from hubclient.formats import codecs
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.imatrix import Entry, ImportanceMatrix, imatrix_data, lay_out_imatrix
from hubclient.model import Quantization

EXPERTS = 4
MIXTRAL: dict[str, Any] = {
    **checkpoints.LLAMA,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
}


def dense(folder: Path, **options: Any) -> Path:
    """A Llama whose rows are whole blocks of 256; its output and embedding are two."""
    return checkpoints.llama(folder, sizes={"hidden_size": 256, "intermediate_size": 256}, **options)


def routed(folder: Path, **options: Any) -> Path:
    """A mixture of experts; rows are whole blocks of 32."""
    return checkpoints.make(folder, MIXTRAL, mixtral_shapes, checkpoints.byte_level(), dtype="BF16", **options)


def mixtral_shapes(config: Mapping[str, Any]) -> checkpoints.Shapes:
    """As a Llama's, each feed-forward part once for each expert, and a router."""
    shapes: checkpoints.Shapes = {}
    parts = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    for name, shape in checkpoints.llama_shapes(config).items():
        block, _, rest = name.partition(".mlp.")
        if not rest:
            shapes[name] = shape
            continue
        part = parts[rest.removesuffix(".weight")]
        shapes[f"{block}.block_sparse_moe.gate.weight"] = (config["num_local_experts"], config["hidden_size"])
        for expert in range(config["num_local_experts"]):
            shapes[f"{block}.block_sparse_moe.experts.{expert}.{part}.weight"] = shape
    return shapes


def gguf(source: Path, out: Path, type_: str, **options: Any) -> Path:
    """A GGUF of this type; options of `Quantization`, or of `save_pretrained`."""
    wishes = {key: options.pop(key) for key in tuple(options) if key in Quantization.__dataclass_fields__}
    quantization = Quantization(**wishes)
    return Checkpoint.from_pretrained(source).save_pretrained(
        out, format="gguf", type=type_, quantization=quantization, **options
    )[0]


def importance(source: Path, *, seed: int = 0, without: str = "no such name") -> ImportanceMatrix:
    """Made-up importance for all matrices in a model's blocks but those with a word in their names."""
    rng = np.random.default_rng(seed)
    (output,) = Checkpoint.from_pretrained(source).plan("x.gguf", format="gguf", type="f32").outputs
    entries = {}
    for step in output.steps:
        shape = step.array.shape
        if len(shape) > 1 and step.name.startswith("blk.") and without not in step.name:
            experts = shape[0] if len(shape) > 2 else 1
            counts = rng.integers(1, 9, experts)
            entries[step.name] = Entry(rng.gamma(0.5, size=(experts, shape[-1])).astype(np.float32), counts)
    return ImportanceMatrix(entries, ("text.txt",), 3, 64)


def stored_matrix(matrix: ImportanceMatrix, path: Path) -> Path:
    """The file of an importance matrix."""
    layout = lay_out_imatrix(matrix, path.name)
    data = bytearray(layout.head.ljust(layout.size, b"\0"))
    for place, part in zip(layout.tensors, imatrix_data(matrix), strict=True):
        data[place.offset : place.offset + place.nbytes] = part
    path.write_bytes(data)
    return path


def held(path: Path) -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    """Shape, type and bytes of each tensor, by name; of a split, those of all parts."""
    return {
        name: (ref.shape, ref.encoding.name, ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes])
        for name, ref in FORMAT.open(path).tensors.items()
    }


def types(path: Path) -> dict[str, str]:
    """The type of each tensor."""
    return {name: ref.encoding.name for name, ref in FORMAT.open(path).tensors.items()}


def keys(path: Path) -> dict[str, Any]:
    """The metadata."""
    return {key: value.value for key, value in FORMAT.open(path).metadata.items()}


def values(path: Path, name: str) -> np.ndarray[Any, Any]:
    """A tensor's numbers in float64, one row to each row of it."""
    ref = Checkpoint.from_pretrained(path).opened.tensors[name]
    raw = np.frombuffer(ref.file.read_bytes(), np.uint8, ref.nbytes, ref.offset).reshape(math.prod(ref.shape[:-1]), -1)
    return codecs.decode(raw, ref.encoding, ref.shape[-1]).astype(np.float64)
