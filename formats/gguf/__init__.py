"""GGUF, the container of llama.cpp: reader, writer, and what only GGUF knows.

`FORMAT` is the format object. Importing this package loads no reader, writer or array library.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubclient.formats.model import Encoding, FileLayout, OpenedCheckpoint, OutputSpec


PROJECTOR = "mmproj-"  # begins the name of the file with a model's vision part, as llama.cpp has it


class GGUF:
    """Reads versions 2 and 3 of either byte order, whole and split; writes version 3, little-endian. A `Format`."""

    name = "gguf"
    folder = False

    def detect(self, path: Path) -> bool:
        """Whether `path` is a file that begins like a GGUF, or is called like one. EnvironmentFault if it cannot be read."""
        from hubclient.formats.sourcefile import is_file, open_source

        if not is_file(path):
            return False
        if path.suffix.lower() == ".gguf":
            return True
        with open_source(path) as (file, _):
            return file.read(4) == b"GGUF"

    def open(self, path: Path) -> OpenedCheckpoint:
        """Read the headers of a file, or of all parts of a split; see `reader.open_checkpoint`.

        The file of the vision part is its companion, if it lies beside it under the name `mmproj-` + the file's own, or if the
        two differ in the type alone that their names end in.
        """
        from hubclient.formats.gguf.reader import open_checkpoint

        beside, opened = _companion(path), open_checkpoint(path)
        return opened.with_companion(open_checkpoint(beside)) if beside else opened

    def layout(self, spec: OutputSpec) -> tuple[FileLayout, ...]:
        """Headers and offsets of the output's one or more files; see `writer.layout_files`."""
        from hubclient.formats.gguf.writer import layout_files

        return layout_files(spec)

    def encoding(self, name: str) -> Encoding:
        """The ggml type of that name, in any case. Raises UnsupportedEncoding with the nearest names of those that can be made."""
        from hubclient.formats.encodings import BY_GGML

        types = {encoding.name: encoding for encoding in BY_GGML.values()}
        found = types.get(name.upper())
        if found is None:
            raise _unknown_type(name)
        return found


def projector_of(name: str, there: Callable[[str], bool]) -> str | None:
    """The name of the vision part's file beside the text part's, if one is there: `mmproj-` and the same name, or else the one
    that differs in the type alone, as no recipe speaks of the vision part, which is of another type then.
    """
    from hubclient.formats.gguf.storage import CONVERTED, FILE_TYPES

    if there(PROJECTOR + name):
        return PROJECTOR + name
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    before, _, kind = stem.rpartition("-")
    others = CONVERTED if before and kind.upper() in FILE_TYPES else ()
    found = [beside for other in others if there(beside := f"{PROJECTOR}{before}-{other}{suffix}")]
    return found[0] if len(found) == 1 else None


def _companion(path: Path) -> Path | None:
    found = projector_of(path.name, lambda name: path.with_name(name).is_file())
    return path.with_name(found) if found else None


def _unknown_type(name: str) -> Exception:
    from hubclient.errors import UnsupportedEncoding
    from hubclient.formats.gguf.ruletables import TYPES
    from hubclient.ground.names import meant, shown

    return UnsupportedEncoding(f"GGUF has no tensor type {shown(name)}{meant(name, TYPES)}")


FORMAT = GGUF()
