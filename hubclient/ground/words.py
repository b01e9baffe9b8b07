"""Words for sentences: numbers of things, and sizes."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """A number of things: "1 file", "2,000 repositories", "3 further copies"."""
    return f"{number:,} {plural(number, what)}"


def human(nbytes: float) -> str:
    """A size for people: "1.5 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def plural(number: int, what: str) -> str:
    """The word alone."""
    if number == 1:
        return what
    return what[:-1] + "ies" if what.endswith(("ry", "py")) else what + "s"
