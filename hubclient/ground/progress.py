"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # bytes done, bytes in all
Stage = Callable[[str], None]  # what takes time now, in a few words
