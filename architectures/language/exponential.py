"""exp in float32 as the programs round it that write GGUF files, so that the same weights give the same bytes.

llama.cpp's converter calls PyTorch, which leaves exp to a vector library that is right to 0.56 units in the last place, not
to 0.5: one value in a hundred differs from the nearest float32. What is below was found by comparing results; it gives
PyTorch 2.13's on the machine of the golden data for tens of millions of numbers of every size, and the same everywhere,
because nothing but additions and multiplications of float32 happens. exp(x) is 2^k times an entry of a table of 2^(j/128)
times 1 + r + r^2/2, where x = (128 k + j) ln(2)/128 + r. Other processors may use another path of that library.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Rows = np.ndarray[Any, Any]

_STEPS = 128  # of a power of two
_STEP = 0.0054168701171875, -1.6577690757912933e-06  # ln(2)/128 in two float32, the first of few bits: its multiples are exact
_BITS = 60  # behind the point, while the table is made
_NORMAL = 126 * 0.6931471805599453  # beyond it results may be subnormal or infinite, and are computed in float64


def exponential(values: Rows) -> Rows:
    """The exponentials of float32 values, in float32."""
    import numpy as np

    plain = np.abs(values) < np.float32(_NORMAL)
    x = np.where(plain, values, np.float32(0))
    steps = np.rint(x * np.float32(_STEPS / 0.6931471805599453))
    rest = (x - steps * np.float32(_STEP[0])) - steps * np.float32(_STEP[1])
    beyond = rest + (rest * rest) * np.float32(0.5)
    number = steps.astype(np.int32)
    high, low = (part[number % _STEPS] for part in _powers())
    result = np.ldexp(high + (low + high * beyond), number // _STEPS)
    if not plain.all():
        with np.errstate(over="ignore", invalid="ignore"):
            result[~plain] = np.exp(values[~plain].astype(np.float64)).astype(np.float32)
    return result


@cache
def _powers() -> tuple[Rows, Rows]:
    """2^(j/128) for each step, to the nearest float32, and what is missing; by whole numbers, so the same on every machine."""
    import numpy as np

    exact = [1 << (step + _STEPS * _BITS) for step in range(_STEPS)]
    for _ in range(7):  # 128 = 2^7
        exact = [isqrt(number) for number in exact]
    high = [np.float32(number / (1 << _BITS)) for number in exact]
    low = [(number - int(float(near) * (1 << _BITS))) / (1 << _BITS) for number, near in zip(exact, high, strict=True)]
    return np.array(high, np.float32), np.array(low, np.float32)
