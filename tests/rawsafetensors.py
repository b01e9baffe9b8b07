"""safetensors files written by hand, right or wrong, and the writing of a layout's files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubclient.formats.model import FileLayout

Entry = dict[str, Any]


def entry(dtype: str, shape: Sequence[Any], begin: Any, end: Any) -> Entry:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def blob(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file's bytes; `header` is JSON text or a value, `length` what the prefix claims if not the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def put(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob(header, data, length=length))
    return path


def put_bytes_tensors(path: Path, *names: str, metadata: Mapping[str, str] | None = None) -> Path:
    """A file of one-byte tensors called `names`."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    header |= {name: entry("U8", [1], place, place + 1) for place, name in enumerate(names)}
    return put(path, header, bytes(len(names)))


def put_index(path: Path, weight_map: Mapping[str, Any], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": dict(weight_map), **more}))
    return path


def materialise(folder: Path, files: Sequence[FileLayout], contents: Sequence[bytes | Sequence[bytes]] | None = None) -> None:
    """Writes an output as the engine would: heads, each tensor's bytes (zeros if not given) at its offset, full size.

    A tensor in planes has a sequence of bytes.
    """
    for layout in files:
        path = folder / layout.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(layout.head)
            file.truncate(layout.size)
            for place in layout.tensors if contents is not None else ():
                assert contents is not None
                data = contents[place.tensor]
                plane = data if isinstance(data, bytes) else data[place.plane]
                assert len(plane) == place.nbytes
                file.seek(place.offset)
                file.write(plane)
