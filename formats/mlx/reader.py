"""Opening an MLX folder: the same files as a Transformers folder, but matrices may be packed as config.json says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubclient.formats.jsonfile import read_object
from hubclient.formats.mlx.packing import read_quantization
from hubclient.formats.mlx.planes import SCALES, WEIGHT, join
from hubclient.formats.model import OpenedCheckpoint
from hubclient.formats.safetensors.header import METADATA, peek_header
from hubclient.formats.safetensors.index import INDEX_SUFFIX
from hubclient.formats.safetensors.reader import SINGLE, SUFFIX, looks_like_safetensors, open_checkpoint
from hubclient.formats.sourcefile import is_folder, listing

NAME = "mlx"
_CONFIG = "config.json"


def looks_like_mlx(path: Path) -> bool:
    """Whether the weights say that they are MLX's, or config.json and the tensors' names do.

    Reads one header; all of them only if config.json has `quantization`. Raises what reading them raises.
    """
    if not looks_like_safetensors(path):
        return False
    headers = map(peek_header, _weights(path))
    first = next(headers, None)
    if first is None:
        return False
    if _metadata(first).get("format") == NAME:
        return True
    config = (path if is_folder(path) else path.parent) / _CONFIG
    if not config.is_file() or not isinstance(read_object(config).get("quantization"), dict):
        return False
    return _has_packed(first) or any(map(_has_packed, headers))


def open_mlx(path: Path) -> OpenedCheckpoint:
    """The checkpoint at `path`, as `hubclient.formats.safetensors` opens it, with packed matrices as one tensor each.

    Raises what that raises, and DamagedInput for what is not packed as config.json says.
    """
    opened = open_checkpoint(path)
    config = opened.sidecars.get(_CONFIG)
    quantization = read_quantization(read_object(config), config) if config is not None else None
    tensors = join(opened.tensors, quantization, config or path)
    return replace(opened, format=NAME, tensors=MappingProxyType(tensors))


def _weights(path: Path) -> Iterator[Path]:
    """The weight files at `path`, the usual single one first."""
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        yield path
        return
    folder = path if is_folder(path) else path.parent
    names = [name for name in listing(folder) if name.endswith(SUFFIX) and not name.startswith(".")]
    yield from (folder / name for name in sorted(names, key=lambda name: (name != SINGLE, name)))


def _metadata(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entries.get(METADATA)
    return found if isinstance(found, dict) else {}


def _has_packed(entries: Mapping[str, Any]) -> bool:
    return any(
        name.endswith(WEIGHT)
        and isinstance(entry, dict)
        and entry.get("dtype") == "U32"
        and name.removesuffix(WEIGHT) + SCALES in entries
        for name, entry in entries.items()
    )
