"""GGUF, the container of llama.cpp: reader, writer, and what only GGUF knows.

`FORMAT` is the format object. Importing this package loads no reader, writer or array library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubclient.formats.model import Encoding, FileLayout, OpenedCheckpoint, OutputSpec


PROJECTOR = "mmproj-"  # begins the name of the file with a model's vision part, as llama.cpp has it


class GGUF:
    """Reads versions 2 and 3 of either byte order, whole and split; writes version 3, little-endian. A `Format`."""

    name = "gguf"
    folder = False

    def detect(self, path: Path) -> bool:
        """Whether `path` is a file that begins like a GGUF, or is called like one."""
        try:
            if not path.is_file():
                return False
            with path.open("rb") as file:
                return file.read(4) == b"GGUF" or path.suffix.lower() == ".gguf"
        except OSError:
            return False

    def open(self, path: Path) -> OpenedCheckpoint:
        """Read the headers of a file, or of all parts of a split; see `reader.open_checkpoint`.

        The file of the vision part is its companion, if it lies beside it under the name `mmproj-` + the file's own.
        """
        from hubclient.formats.gguf.reader import open_checkpoint

        beside = path.with_name(f"{PROJECTOR}{path.name}")
        opened = open_checkpoint(path)
        return opened.with_companion(open_checkpoint(beside)) if beside.is_file() else opened

    def layout(self, spec: OutputSpec) -> tuple[FileLayout, ...]:
        """Headers and offsets of the output's one or more files; see `writer.layout_files`."""
        from hubclient.formats.gguf.writer import layout_files

        return layout_files(spec)

    def encoding(self, name: str) -> Encoding:
        """The ggml type of that name, in any case. Raises UnsupportedEncoding with the nearest names."""
        from hubclient.formats.encodings import BY_GGML

        types = {encoding.name: encoding for encoding in BY_GGML.values()}
        found = types.get(name.upper())
        if found is None:
            raise _unknown_type(name, list(types))
        return found


def _unknown_type(name: str, types: list[str]) -> Exception:
    from difflib import get_close_matches

    from hubclient.errors import UnsupportedEncoding

    near = get_close_matches(name.upper(), types, n=3, cutoff=0.4)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return UnsupportedEncoding(f"GGUF has no tensor type {name!r}{meant}")


FORMAT = GGUF()
