"""Models as their repositories hold them, described by a small file: config.json, and names and shapes of all tensors.

    {"repository": "meta-llama/Llama-3.1-8B", "dtype": "BF16", "config": {...},
     "tensors": {"model.norm.weight": [4096], ...},
     "block": {"name": "model.layers.{i}", "count": 32, "tensors": {"self_attn.q_proj.weight": [4096, 4096], ...}}}

`block` is short for tensors that repeat; where there are several kinds of blocks, `blocks` lists them, each from `first` to
before `count`, or for the `layers` it lists, with `experts` of what has "{e}" in its name. Further keys: `dtypes` by ends of
names; `dropped`, names that can be recomputed; `omitted` and `omitted_blocks`, names and beginnings of names that formats
have no place for; `losses`, what GGUF cannot say of the config; `shards`. What is written from such a file has true headers
at full size, and nothing behind them on the disk.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hubclient import Checkpoint
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.safetensors.planes import BLOCKS, SCALES
from hubclient.testing import folders
from hubclient.testing.bench import Subject
from hubclient.testing.faults import require

Shapes = dict[str, tuple[int, ...]]
Extra = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


@dataclass(frozen=True)
class Published:
    """A model as its repository holds it. `table` is the file's content."""

    name: str
    table: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """config.json's content."""
        content: dict[str, Any] = self.table["config"]
        return content

    @cached_property
    def shapes(self) -> Shapes:
        """Every tensor's shape, by name."""
        repeated = {
            f"{block['name']}.{name}".replace("{i}", str(layer)).replace("{e}", str(expert)): tuple(shape)
            for block in self.blocks
            for layer in block.get("layers") or range(block.get("first", 0), block["count"])
            for name, shape in block["tensors"].items()
            for expert in range(block["experts"] if "{e}" in name else 1)
        }
        return {name: tuple(shape) for name, shape in self.table["tensors"].items()} | repeated

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The kinds of blocks."""
        return self.table.get("blocks") or [self.table["block"]]

    @cached_property
    def read(self) -> Shapes:
        """The shapes as the format presents them: blocks of MXFP4 and their scales are one tensor."""
        found = {}
        for name, shape in self.shapes.items():
            if name.endswith(BLOCKS):
                found[name] = (*shape[:-2], shape[-2] * 32)
            elif not name.endswith(SCALES):
                found[name] = shape
        return found

    def dtype(self, name: str) -> str:
        """The dtype of a stored tensor."""
        own = (dtype for end, dtype in self.table.get("dtypes", {}).items() if name.endswith(end))
        return str(next(own, self.table["dtype"]))

    @cached_property
    def dropped(self) -> set[str]:
        """Tensors that can be recomputed."""
        return {
            name.replace("{i}", str(layer)) for name in self.table.get("dropped", ()) for layer in range(self.blocks[0]["count"])
        }

    @cached_property
    def omitted(self) -> set[str]:
        """Full names of tensors that GGUF has no place for, some of them whole blocks."""
        begin = tuple(self.table.get("omitted_blocks", ()))
        return {*self.table.get("omitted", ()), *(name for name in self.shapes if begin and name.startswith(begin))}

    @cached_property
    def losses(self) -> set[str]:
        """What GGUF cannot say of the config."""
        return set(self.table.get("losses", ()))

    def write(self, folder: Path, tokenizer: Mapping[str, bytes], extra: Extra | None = None) -> Path:
        """The repository's folder, sparse, with these tokenizer files. `extra` adds tensors."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config, indent=2))
        for name, data in tokenizer.items():
            (folder / name).write_bytes(data)
        tensors = {name: (self.dtype(name), shape) for name, shape in self.shapes.items()} | dict(extra or {})
        count = self.table.get("shards", 1)
        if count == 1:
            put_sparse(folder / "model.safetensors", tensors)
            return folder
        names = sorted(tensors)
        places = {
            name: f"model-{number * count // len(names) + 1:05d}-of-{count:05d}.safetensors" for number, name in enumerate(names)
        }
        for shard in sorted(set(places.values())):
            put_sparse(folder / shard, {name: tensors[name] for name in names if places[name] == shard})
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder


def load(path: Path) -> Published:
    """The model that a file describes."""
    return Published(path.stem, json.loads(path.read_text()))


def put_sparse(path: Path, tensors: Extra) -> None:
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
    tokenizer = {name: json.dumps(content).encode() for name, content in subject.files.items()}
    source = Checkpoint.from_pretrained(model.write(folder / model.name, tokenizer), host=subject.host)
    found = source.model.architecture.name
    require(found == subject.architecture.name, f"it is read as {found}")
    for space in ("gguf", "mlx"):
        if space in subject.architecture.layouts:
            plan = source.plan(folder / f"out-{space}", format=space)
            known = model.omitted | {f"{module}.weight" for module in subject.architecture.placement.tied}  # stored, though tied
            lost = [loss for loss in plan.losses if loss not in model.losses and known.isdisjoint(loss.split())]
            require(not lost, f"to {space}: {'; '.join(lost[:3])}")
            for output in plan.outputs:
                placed = [step.name for step in output.steps]
                require(len(set(placed)) == len(placed), f"to {space}: a name is written twice")
