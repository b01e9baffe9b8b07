"""Names that come from inside a file: the one check before any of them becomes a path, and how to show them; and what may be
meant by a name that nobody knows.

Index `weight_map` entries, shard and sidecar names, repository files, archive members, plugin names: each passes
`safe_relative`, which holds a name to the rules of POSIX and Windows at once, so that what is safe here is safe where
the output is copied to.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from hubclient.errors import DamagedInput

MAX_PART_BYTES = 255  # NAME_MAX of Linux file systems, the shortest of the usual ones
MAX_NAME_BYTES = 1024  # PATH_MAX of macOS

# Windows: device names count with any extension and with the superscript digits of its code pages
# (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])[ ]*(?:\..*)?", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = frozenset('\\:*?"<>|')  # a backslash is a separator and a colon a drive or a stream there


def safe_relative(name: str, *, source: Path | str, taken: set[str] | None = None) -> PurePosixPath:
    """`name` as a relative path that stays inside its folder on every system; `source` is the file that holds it.

    `taken` collects the names met so far: a name that a case-insensitive or Unicode-normalising file system would
    confuse with one of them is refused, else it is added. Raises DamagedInput with the reason.
    """
    fault = _fault(name)
    if fault is None and taken is not None:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in taken:
            fault = "differs from another name only in case or not at all"
        taken.add(folded)
    if fault is not None:
        raise DamagedInput(f"the file name {shown(name)} {fault}", file=source)
    return PurePosixPath(name)


def shown(value: Any) -> str:
    """`value` for a one-line message: quoted, escaped and short, whatever it holds."""
    return _SHORT.repr(value)


def meant(value: Any, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what may have been meant, whatever the case; else all there is.

    A name that differs in its punctuation alone is what was meant ("q4km": Q4_K_M).
    """
    from difflib import get_close_matches

    names = list(known)
    asked = value[:MAX_PART_BYTES].upper() if isinstance(value, str) else ""
    near = [name for name in names if _letters(name) == _letters(asked)]
    if not near:
        close = get_close_matches(asked, [name.upper() for name in names], n=3, cutoff=0.5)
        near = [name for name in names if name.upper() in close]
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(names)}"


def several(texts: str | Iterable[str]) -> tuple[str, ...]:
    """What was given as several texts; a text alone is one of them, not its letters."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).upper()


def _fault(name: str) -> str | None:
    if not name:
        return "is empty"
    if not name.isprintable():  # NUL and other controls, line separators, text direction marks, lone surrogates
        return "holds a control character or one that cannot be printed"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if name.startswith("/"):
        return "is absolute"
    return next((fault for part in name.split("/") if (fault := _part_fault(part))), None)


def _part_fault(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the part {part!r}"
    if forbidden := _FORBIDDEN.intersection(part):
        return f"holds {min(forbidden)!r}"
    if part[-1] in ". ":
        return "has a part that ends in a dot or a space"
    if _DEVICE.fullmatch(part):
        return "is a reserved device name on Windows"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"has a part longer than {MAX_PART_BYTES} bytes"
    return None


def _short() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    short.maxlist = short.maxtuple = short.maxdict = 8
    short.maxlevel = 2
    return short


_SHORT = _short()
