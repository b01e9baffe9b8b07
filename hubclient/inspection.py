"""What a checkpoint holds, as plain data: from headers alone, and also for architectures that nobody here knows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hubclient.errors import HubclientError
from hubclient.mix import joined, mix
from hubclient.opening import speaking

if TYPE_CHECKING:
    from hubclient.checkpoint import Checkpoint
    from hubclient.formats.model import Extent

_LONG = 32  # array elements that are shown


def inspect(checkpoint: Checkpoint, *, tensors: bool = False) -> dict[str, Any]:
    """Format, architecture, sizes, the mix of encodings, metadata; with `tensors` also every tensor. Sizes in bytes."""
    opened = checkpoint.opened
    shares = mix((ref.encoding.name, math.prod(ref.shape), ref.nbytes) for ref in opened.tensors.values())
    total = joined(shares.values())
    result: dict[str, Any] = {
        "path": checkpoint.called(opened.path),
        "format": opened.format,
        **_architecture(checkpoint),
        "files": [{"path": checkpoint.called(file.path), "bytes": file.size} for file in opened.files],
        **({"projector": checkpoint.called(opened.companion.path)} if opened.companion is not None else {}),
        "sidecars": sorted(opened.sidecars),
        "tensor_count": total.tensors,
        "parameters": total.weights,
        "bytes": total.nbytes,
        "bits_per_weight": total.bits_per_weight,
        "encodings": {name: share.nbytes for name, share in shares.items()},
        "mix": {name: share.as_json() for name, share in shares.items()},
        "metadata": {key: _shown(value.value) for key, value in opened.metadata.items()},
    }
    if tensors:
        result["tensors"] = [
            {
                "name": ref.name,
                "shape": list(ref.shape),
                "encoding": ref.encoding.name,
                "bytes": ref.nbytes,
                "file": ref.file.name,
                "offset": ref.offset,
                **({"planes": [_place(plane) for plane in ref.planes]} if ref.planes else {}),
            }
            for ref in opened.tensors.values()
        ]
    return result


def _architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    """The architecture and what it converts to, and why to no more; if it is not known, why, for inspecting must not depend on it."""
    from hubclient.spokes.reach import stuck, targets

    try:
        model = checkpoint.model
    except HubclientError as error:
        return {"architecture": None, "class": None, "why": str(error)}
    why = stuck(model) or ("" if model.tensors else _weightless(checkpoint))
    return {
        "architecture": model.architecture.name,
        "class": model.hf_class,
        "converts_to": list(targets(model)),
        **({"why": why} if why else {}),
        "config": dict(model.raw_config),
    }


def _weightless(checkpoint: Checkpoint) -> str:
    """Why there are no weights that could be converted."""
    try:
        with speaking(checkpoint.origins):
            checkpoint.host.format(checkpoint.format).open(checkpoint.opened.path)
    except HubclientError as error:
        return str(error)
    return "there are no tensors"


def _place(plane: Extent) -> dict[str, Any]:
    return {"file": plane.file.name, "offset": plane.offset, "bytes": plane.nbytes}


def _shown(value: Any) -> Any:
    if isinstance(value, str | int | float | bool):
        return value
    items = [_shown(item) for item in value[:_LONG]]
    return items if len(value) <= _LONG else {"length": len(value), "first": items}
