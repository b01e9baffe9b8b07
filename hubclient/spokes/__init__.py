"""Spokes: what each format means in Hugging Face terms. Reading gives a Model, writing takes one; both touch headers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hubclient.errors import UnsupportedFormat

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding, OpenedCheckpoint
    from hubclient.model import Model, Request, Target
    from hubclient.plugins import Host


class Spoke(Protocol):
    """One format's two directions."""

    def read(self, opened: OpenedCheckpoint, host: Host) -> Model:
        """The canonical view of an opened checkpoint."""
        ...

    def write(self, model: Model, request: Request) -> Target:
        """An output in this format. Raises Unsupported* or DamagedInput, from headers alone."""
        ...

    def choose(self, model: Model, name: str) -> tuple[str, Encoding | None]:
        """The type that a `--type` name means for this model, for file names and as an encoding (None: per tensor)."""
        ...


def spoke(format_name: str) -> Spoke:
    """The spoke of a built-in format."""
    if format_name == "safetensors":
        from hubclient.spokes import huggingface

        return huggingface
    if format_name == "gguf":
        from hubclient.spokes import gguf

        return gguf
    raise UnsupportedFormat(f"{format_name} is known as a format, but not how it names the tensors of an architecture")
