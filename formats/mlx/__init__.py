"""MLX: the folders that mlx-lm reads and writes, and MLX's own quantisation (`affine`)."""

from __future__ import annotations

from pathlib import Path

from hubclient.errors import EnvironmentFault, HubclientError, UnsupportedEncoding
from hubclient.formats import safetensors
from hubclient.formats.encodings import BF16
from hubclient.formats.mlx.packing import DTYPES, made, named
from hubclient.formats.mlx.reader import NAME, looks_like_mlx, open_mlx
from hubclient.formats.mlx.writer import layout
from hubclient.formats.model import Encoding, FileLayout, OpenedCheckpoint, OutputSpec
from hubclient.ground.names import shown

__all__ = ["FORMAT", "Mlx"]


class Mlx:
    """MLX as a `Format`; an output is a folder that mlx-lm loads."""

    name = NAME
    folder = True

    def detect(self, path: Path) -> bool:
        """Whether `path` is a folder of safetensors, or such a file, that MLX wrote. EnvironmentFault if that cannot be read."""
        try:
            return looks_like_mlx(path)
        except EnvironmentFault:
            raise
        except HubclientError:
            return False

    def open(self, path: Path) -> OpenedCheckpoint:
        """See `hubclient.formats.mlx.reader.open_mlx`."""
        return open_mlx(path)

    def layout(self, spec: OutputSpec) -> tuple[FileLayout, ...]:
        """See `hubclient.formats.mlx.writer.layout`."""
        return layout(spec)

    def encoding(self, name: str) -> Encoding:
        """The dtype or packing of this name; a packing as it is for a bfloat16 model, in groups of the usual size."""
        packing = named(name, None)
        if packing is not None:
            return packing.encoding(BF16)
        try:
            encoding = safetensors.FORMAT.encoding(name)
        except UnsupportedEncoding:
            encoding = None
        if encoding not in DTYPES:
            raise UnsupportedEncoding(f"MLX has no type {shown(name)}; made here are {', '.join(made())}")
        return encoding


FORMAT = Mlx()
