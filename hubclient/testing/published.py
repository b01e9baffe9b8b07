"""Models as their repositories hold them, described by a small file: config.json, and names and shapes of all tensors.

    {"repository": "meta-llama/Llama-3.1-8B", "dtype": "BF16", "config": {...},
     "tensors": {"model.norm.weight": [4096], ...},
     "block": {"name": "model.layers.{i}", "count": 32, "tensors": {"self_attn.q_proj.weight": [4096, 4096], ...}}}

`block` is short for tensors that repeat. `dropped` and `omitted` list names that can be recomputed, and that the formats
have no place for. What is written from such a file has true headers at full size, and nothing behind them on the disk.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubclient import Checkpoint
from hubclient.formats.encodings import ENCODINGS
from hubclient.testing import folders
from hubclient.testing.bench import Subject, require

_SAID = "has no place in"


@dataclass(frozen=True)
class Published:
    """A model as its repository holds it. `table` is the file's content."""

    name: str
    table: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """config.json's content."""
        return dict(self.table["config"])

    @property
    def hf_class(self) -> str:
        """The class that config.json names."""
        return str(self.config["architectures"][0])

    @property
    def dtype(self) -> str:
        """The safetensors dtype of the weights."""
        return str(self.table.get("dtype", "BF16"))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, by name."""
        block = self.table.get("block", {"name": "", "count": 0, "tensors": {}})
        repeated = {
            f"{block['name']}.{name}".replace("{i}", str(layer)): tuple(shape)
            for layer in range(block["count"])
            for name, shape in block["tensors"].items()
        }
        return {name: tuple(shape) for name, shape in self.table["tensors"].items()} | repeated

    @property
    def dropped(self) -> set[str]:
        """Tensors that can be recomputed."""
        layers = range(self.table["block"]["count"]) if "block" in self.table else (0,)
        return {name.replace("{i}", str(layer)) for name in self.table.get("dropped", ()) for layer in layers}

    @property
    def omitted(self) -> set[str]:
        """Full names of tensors that formats have no place for."""
        return set(self.table.get("omitted", ()))

    def write(self, folder: Path, tokenizer: Mapping[str, bytes] | None = None) -> Path:
        """The repository's folder, its weights a hole; with the kit's own tokenizer if none is given."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config, indent=2))
        for name, content in folders.byte_level().items() if tokenizer is None else ():
            (folder / name).write_text(json.dumps(content))
        for name, data in (tokenizer or {}).items():
            (folder / name).write_bytes(data)
        put_sparse(folder / "model.safetensors", {name: (self.dtype, shape) for name, shape in self.shapes.items()})
        return folder


def load(path: Path) -> Published:
    """The model that a file describes."""
    return Published(path.stem, json.loads(path.read_text()))


def put_sparse(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file with the true header for tensors of these dtypes and shapes, and a hole behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * ENCODINGS[dtype].block_bytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + size]}
    folders.put_header(path, header)
    os.truncate(path, path.stat().st_size + end)


def planned(subject: Subject, folder: Path) -> None:
    """Every tensor of a published model has its place in every format, from headers alone."""
    assert subject.published is not None
    model = load(subject.published)
    source = Checkpoint.from_pretrained(model.write(folder / model.name), host=subject.host)
    require(source.model.architecture.name == subject.architecture.name, f"{model.name} is read as {source.model.architecture.name}")
    for space in ("gguf", "mlx"):
        if space in subject.architecture.layouts:
            plan = source.plan(folder / f"out-{space}", format=space)
            lost = {loss for loss in plan.losses if not (_SAID in loss and any(name in loss for name in model.omitted))}
            require(not lost, f"{model.name} to {space}: {'; '.join(sorted(lost)[:3])}")
            placed = [step.name for output in plan.outputs for step in output.steps]
            require(len(set(placed)) == len(placed), f"{model.name} to {space}: a name is written twice")
