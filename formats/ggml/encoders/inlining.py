"""Pieces of kernels: functions that are copied into the kernels which call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let Numba copy the function to where it is called, before compiling.

    Around a call that LLVM does not inline, Numba counts a reference to every array among the arguments, up and down
    again: ten atomic operations or more, some 50 ns. A kernel that is called for every few numbers cannot bear that.
    """
    return njit(nogil=True, error_model="numpy", inline="always")(function)  # type: ignore[no-any-return]
