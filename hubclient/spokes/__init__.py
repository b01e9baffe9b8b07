"""Spokes: what each format means in Hugging Face terms. Reading gives a Model, writing takes one; both touch headers only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from hubclient.errors import UnsupportedFormat

if TYPE_CHECKING:
    from hubclient.formats.model import Format, OpenedCheckpoint
    from hubclient.model import Model, Request, Target
    from hubclient.plugins import Host


class Spoke(Protocol):
    """One format's two directions."""

    def read(self, opened: OpenedCheckpoint, host: Host) -> Model:
        """The canonical view of an opened checkpoint."""
        ...

    def parts(self, model: Model, request: Request) -> tuple[Request, ...]:
        """The outputs that one request means: usually one, two where text and vision are files of their own."""
        ...

    def write(self, model: Model, request: Request) -> Target:
        """An output in this format. Raises Unsupported* or DamagedInput, from headers alone."""
        ...


_BUILT_IN = {"safetensors": "huggingface", "gguf": "gguf", "mlx": "mlx"}


def spoke(format_: Format) -> Spoke:
    """What a format means in Hugging Face terms; a third party's format brings it along as its attribute `spoke`."""
    if format_.name in _BUILT_IN:
        return cast("Spoke", import_module(f"hubclient.spokes.{_BUILT_IN[format_.name]}"))
    brought = getattr(format_, "spoke", None)
    if brought is None:
        raise UnsupportedFormat(f"the plugin for {format_.name} can open files, but does not say what their tensors mean")
    return cast("Spoke", brought)
