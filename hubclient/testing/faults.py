"""Faults of a declaration, as sentences for its author."""

from __future__ import annotations

from typing import NoReturn


class Fault(AssertionError):
    """A declaration does not do what it must; `str()` is one sentence for its author."""


def require(holds: bool, fault: str) -> None:
    """Fault unless it holds."""
    __tracebackhide__ = True  # pytest shows the sentence, not the way to it
    if not holds:
        raise Fault(fault)


def refuse(fault: str) -> NoReturn:
    """A fault."""
    __tracebackhide__ = True
    raise Fault(fault)
