"""Laying out a folder as mlx-lm writes it: the weights, and an index that is there even for a single file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubclient.formats.mlx.planes import split
from hubclient.formats.model import FileLayout, OutputSpec, TensorSpec, Value
from hubclient.formats.safetensors.planes import Stored
from hubclient.formats.safetensors.reader import INDEX
from hubclient.formats.safetensors.writer import layout as safetensors_layout

MAX_SHARD_SIZE = 5 << 30  # MAX_FILE_SIZE_GB of mlx_lm/utils.py


def write_json(value: Mapping[str, Any]) -> bytes:
    """`value` as mlx-lm writes config.json and the index: four spaces, ASCII, no newline at the end."""
    return json.dumps(value, indent=4).encode()


def layout(spec: OutputSpec) -> tuple[FileLayout, ...]:
    """The weight files, the index and the sidecars. Raises UsageError or UnsupportedEncoding.

    Shards begin where mlx-lm's would if tensors came in its order, but the planes of a matrix stay together. Inside a
    file the order is ours: mlx-lm's is that of a hash table.
    """
    limit = MAX_SHARD_SIZE if spec.max_shard_size is None else spec.max_shard_size
    metadata = {**spec.metadata, "format": Value("str", "mlx")}
    files = safetensors_layout(replace(spec, metadata=metadata, max_shard_size=limit), split=split)
    weights = [file for file in files if file.tensors]
    others = [file for file in files if not file.tensors and file.name != INDEX]
    if weights:
        index = write_json(_index(spec.tensors, weights))
        weights.append(FileLayout(INDEX, index, (), len(index)))
    return (*weights, *others)


def _index(tensors: Sequence[TensorSpec], files: Sequence[FileLayout]) -> dict[str, Any]:
    size = sum(place.nbytes for file in files for place in file.tensors)
    places = {_parts(tensors[place.tensor])[place.plane].name: file.name for file in files for place in file.tensors}
    totals = {"total_size": size, "total_parameters": sum(_counted(tensors))}
    return {"metadata": totals, "weight_map": dict(sorted(places.items()))}


def _parts(tensor: TensorSpec) -> Sequence[Stored]:
    return split(tensor) if tensor.encoding.planes else (Stored(tensor.name, "", tensor.shape),)


def _counted(tensors: Sequence[TensorSpec]) -> Iterator[int]:
    """Numbers of the tensors that mlx-lm counts: those of modules without sub-modules, packed or not."""
    import math

    parents = {parent for tensor in tensors for parent in _above(tensor.name.rpartition(".")[0])}
    for tensor in tensors:
        if tensor.name.rpartition(".")[0] not in parents:
            yield math.prod(tensor.shape)


def _above(module: str) -> Iterator[str]:
    """Every module that this one lies in."""
    while module:
        module = module.rpartition(".")[0]
        yield module
