"""Published models at full size, as sparse files: real names, shapes and configs, no weights on the disk.

tests/data/full_size holds one compact table per model: config.json, the tensors, and those of one block.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawsafetensors import entry, put, put_index
from reference import DATA

from hubclient.formats.encodings import ENCODINGS
from hubclient.model import Inline
from hubclient.plan import OutputPlan

FOLDER = DATA / "full_size"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


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

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, by name."""
        block = self.table["block"]
        repeated = {
            f"{block['name']}.{name}".replace("{i}", str(layer)): tuple(shape)
            for layer in range(block["count"])
            for name, shape in block["tensors"].items()
        }
        return {name: tuple(shape) for name, shape in self.table["tensors"].items()} | repeated

    @property
    def dropped(self) -> set[str]:
        """Tensors that can be recomputed."""
        return {name.replace("{i}", str(layer)) for name in self.table.get("dropped", ()) for layer in range(self.table["block"]["count"])}

    @property
    def omitted(self) -> set[str]:
        """Full names of tensors that GGUF has no place for."""
        return set(self.table.get("omitted", ()))

    def write(self, folder: Path, *, extra: dict[str, tuple[str, tuple[int, ...]]] | None = None) -> Path:
        """The repository's folder, sparse. `extra` adds tensors: name -> (dtype, shape)."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config, indent=2))
        tokenizer = DATA / "golden" / "checkpoints" / self.table["tokenizer"]
        for path in tokenizer.iterdir():
            if path.name not in ("config.json", "generation_config.json") and path.suffix != ".safetensors":
                shutil.copyfile(path, folder / path.name)
        tensors = {name: (self.table["dtype"], shape) for name, shape in self.shapes.items()} | (extra or {})
        count = self.table["shards"]
        if count == 1:
            put_sparse(folder / "model.safetensors", tensors)
            return folder
        names = sorted(tensors)
        places = {name: f"model-{number * count // len(names) + 1:05d}-of-{count:05d}.safetensors" for number, name in enumerate(names)}
        for shard in sorted(set(places.values())):
            put_sparse(folder / shard, {name: tensors[name] for name in names if places[name] == shard})
        put_index(folder / "model.safetensors.index.json", places)
        return folder


def published(name: str) -> Published:
    """The model of one of NAMES."""
    return Published(name, json.loads((FOLDER / f"{name}.json").read_text()))


def put_sparse(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of that size with a true header and nothing behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * ENCODINGS[dtype].block_bytes
        header[name] = entry(dtype, shape, end, end + size)
        end += size
    put(path, header)
    os.truncate(path, path.stat().st_size + end)


def write_planned(output: OutputPlan, folder: Path) -> Path:
    """The files of a plan, sparse: headers, and of the tensors only those that are computed from the config."""
    folder.mkdir(exist_ok=True)
    paths: Sequence[Path] = [folder / path.name for path in output.paths()]
    for path, layout in zip(paths, output.files, strict=True):
        path.write_bytes(layout.head)
        os.truncate(path, layout.size)
    for step in output.steps:
        (leaf,) = list(step.array.leaves())[:1]
        if isinstance(leaf.ref, Inline):
            with paths[step.file].open("rb+") as file:
                file.seek(step.offset)
                file.write(leaf.ref.data)
    return paths[0]
