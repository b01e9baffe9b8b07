"""Which formats a model can be turned into, by its headers and its architecture's layouts; and the sentence where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubclient.errors import UnsupportedArchitecture
from hubclient.model import encodings_of

if TYPE_CHECKING:
    from hubclient.model import Model

_NEED_A_LAYOUT = ("gguf", "mlx")  # of the built-in formats; a folder for Transformers takes any tensors


def targets(model: Model) -> tuple[str, ...]:
    """The formats' names, sorted; none for a model without tensors. What cannot be unpacked can be copied, and no more."""
    if not model.tensors:
        return ()
    own = model.opened.format
    if stuck(model):
        return (own,)
    from hubclient.spokes.projector import SPACE

    return tuple(sorted({own, "safetensors", *model.architecture.layouts} - {SPACE}))


def stuck(model: Model) -> str:
    """Why the weights cannot be unpacked, so that a copy is all that can be made; empty if they can."""
    from hubclient.formats.codecs import can_decode

    unknown = sorted({str(own) for array in model.tensors.values() for own in encodings_of(array) if not can_decode(own)})
    return model.packed.unread or (f"there are weights in {unknown[0]}, which cannot be decoded here" if unknown else "")


def refuse_without_layout(model: Model, format_: str) -> None:
    """UnsupportedArchitecture, with what there is instead, if a format is asked for that the architecture has no layout for."""
    architecture = model.architecture
    if format_ in _NEED_A_LAYOUT and format_ not in architecture.layouts:
        told = f"{model.opened.path}: the architecture {architecture.name} is known, but has no {format_.upper()} layout"
        others = " and ".join(targets(model))
        raise UnsupportedArchitecture(told, architecture.name, hint=f"{architecture.name} converts to {others or 'nothing else'}")
