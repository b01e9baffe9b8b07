"""The safetensors format: single files, sharded checkpoints with an index, Transformers folders."""

from __future__ import annotations

from pathlib import Path

from hubclient.errors import EnvironmentFault, HubclientError, UnsupportedEncoding
from hubclient.formats.encodings import BY_SAFETENSORS
from hubclient.formats.model import Encoding, FileLayout, OpenedCheckpoint, OutputSpec
from hubclient.formats.safetensors.reader import (
    NAME,
    belongs_to_checkpoint,
    looks_like_safetensors,
    open_checkpoint,
    open_folder_without_weights,
)
from hubclient.formats.safetensors.writer import layout
from hubclient.ground.names import shown

__all__ = ["FORMAT", "Safetensors", "belongs_to_checkpoint", "made", "open_folder_without_weights"]

# How PyTorch, numpy and command lines spell the dtypes.
_SPELLINGS = {
    "float64": "F64", "double": "F64", "fp64": "F64", "float32": "F32", "float": "F32", "fp32": "F32",
    "float16": "F16", "half": "F16", "fp16": "F16", "bfloat16": "BF16",
    "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16", "short": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "byte": "U8", "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip


class Safetensors:
    """safetensors as a `Format`; an output is a folder that Transformers loads."""

    name = NAME
    folder = True

    def detect(self, path: Path) -> bool:
        """Whether `path` is a weight file, an index, or a folder with either or with only a config.json. EnvironmentFault."""
        try:
            return looks_like_safetensors(path)
        except EnvironmentFault:
            raise
        except HubclientError:
            return False

    def open(self, path: Path) -> OpenedCheckpoint:
        """See `open_checkpoint`: headers and the index are read and checked, no weight byte is."""
        return open_checkpoint(path)

    def layout(self, spec: OutputSpec) -> tuple[FileLayout, ...]:
        """See `hubclient.formats.safetensors.writer.layout`."""
        return layout(spec)

    def encoding(self, name: str) -> Encoding:
        """The dtype `name` in safetensors' or PyTorch's spelling, any case (`BF16`, `bfloat16`, `torch.bfloat16`)."""
        asked = name.lower().removeprefix("torch.")
        encoding = BY_SAFETENSORS.get(_SPELLINGS.get(asked, asked.upper()))
        if encoding is None:
            raise UnsupportedEncoding(f"safetensors has no type {shown(name)}; made here are {', '.join(made())}")
        return encoding


def made() -> tuple[str, ...]:
    """The dtypes that numbers can be turned into."""
    from hubclient.formats.codecs import can_encode

    return tuple(name for name, encoding in BY_SAFETENSORS.items() if can_encode(encoding))


FORMAT = Safetensors()
