"""Rows on which encoders are compared: of every kind that has ever set two of them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.float32]
Draw: TypeAlias = Callable[[Generator, tuple[int, int]], NDArray[np.floating]]

LARGEST = 97  # the exponent of two of the largest numbers: 1e30, whose squares overflow
_OF_CODEBOOKS = 30
_LEAST = -149


def mixture(random: Generator, rows: int, columns: int, largest: int = LARGEST) -> Rows:
    """float32 [rows, columns]: rows of all kinds by turns, with numbers to a few times two to the power of `largest`."""
    draws = kinds(largest)
    shape = (-(-rows // len(draws)), columns)
    drawn = np.stack([draw(random, shape) for draw in draws.values()], axis=1)
    return np.ascontiguousarray(drawn.reshape(-1, columns)[:rows], np.float32)


def largest_for(name: str) -> int:
    """The exponent up to which ggml encodes a type: beyond, sums of its searches through codebooks overflow, and it aborts."""
    return _OF_CODEBOOKS if name.startswith(("IQ1", "IQ2", "IQ3")) else LARGEST


def kinds(largest: int = LARGEST) -> Mapping[str, Draw]:
    """All kinds of rows, as functions of a generator and a shape."""

    def huge(random: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        return np.ldexp(random.standard_normal(shape), largest)

    def scaled(random: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Runs of 32 of any magnitude."""
        exponents = random.integers(_LEAST, largest, (shape[0], -(-shape[1] // 32)))
        return np.ldexp(random.standard_normal(shape), np.repeat(exponents, 32, axis=1)[:, : shape[1]])

    def below_powers(random: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Largest numbers on powers of two and a few places below them."""
        tops = 1 - random.integers(0, 100, (shape[0], 1)) * 2.0**-24
        signs = random.choice([1, -1, 0.75, 0.4], shape)
        return np.ldexp(tops * signs, random.integers(_LEAST, largest, (shape[0], 1)))

    return MappingProxyType({**_KINDS, "huge": huge, "scaled": scaled, "below powers of two": below_powers})


def _normal(random: Generator, shape: tuple[int, int]) -> Rows:
    return random.standard_normal(shape, np.float32)


def _bf16(random: Generator, shape: tuple[int, int]) -> Rows:
    return (_normal(random, shape).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _denormal(random: Generator, shape: tuple[int, int]) -> Rows:
    return random.integers(0, 1 << 32, shape, np.uint32).__and__(np.uint32(0x807FFFFF)).view(np.float32)


def _some(random: Generator, shape: tuple[int, int]) -> Rows:
    """Zeros of both signs but for a tenth."""
    return _normal(random, shape) * (random.random(shape, np.float32) < np.float32(0.1))


def _outliers(random: Generator, shape: tuple[int, int]) -> Rows:
    return _normal(random, shape) * np.where(random.random(shape) < 0.01, 100, 1).astype(np.float32)


# Where numbers are few, there are ties; where they are tiny, scales underflow.
_KINDS: Mapping[str, Draw] = MappingProxyType(
    {
        "normal": _normal,
        "trained": lambda random, shape: _normal(random, shape) * np.float32(0.02),
        "bfloat16": _bf16,
        "heavy-tailed": lambda random, shape: random.standard_t(2, shape),
        "outliers": _outliers,
        "uniform": lambda random, shape: random.uniform(-1, 1, shape),
        "positive": lambda random, shape: np.abs(_normal(random, shape)),
        "integers": lambda random, shape: random.integers(-8, 9, shape).astype(np.float32),
        "ternary": lambda random, shape: random.choice(np.array([0.0, -0.0, 0.5, -0.5], np.float32), shape),
        "few": lambda random, shape: random.choice(random.standard_normal(5), shape),
        "constant": lambda random, shape: np.repeat(_normal(random, (shape[0], 1)), shape[1], axis=1),
        "zeros": lambda random, shape: np.copysign(np.zeros(shape, np.float32), _normal(random, shape)),
        "sparse": _some,
        "denormal": _denormal,
        "tiny": lambda random, shape: _normal(random, shape) * np.float32(1e-30),
    }
)
# The importance of columns: float32 [columns], from a generator and their number; zero where nothing ever came through.
IMPORTANCES: Mapping[str, Callable[[Generator, int], NDArray[np.floating]]] = MappingProxyType(
    {
        "uniform": lambda random, columns: random.random(columns),
        "peaked": lambda random, columns: np.exp(4 * random.standard_normal(columns)),
        "half of them zero": lambda random, columns: random.random(columns) * (random.random(columns) < 0.5),
        "all zero": lambda _, columns: np.zeros(columns),
        "equal": lambda _, columns: np.ones(columns),
    }
)


def importances(random: Generator, columns: int) -> Mapping[str, Rows]:
    """One of each kind, by name."""
    return {name: draw(random, columns).astype(np.float32) for name, draw in IMPORTANCES.items()}
