"""Switches of the environment, read as huggingface_hub reads its own."""

from __future__ import annotations

import os
from collections.abc import Mapping

_ON = {"1", "ON", "YES", "TRUE"}


def switched_on(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a variable says yes; anything but 1, on, yes and true is no."""
    return environ.get(name, "").upper() in _ON
