"""exp in float32: PyTorch's results to the bit, near the true ones, and undone where values allow."""

from __future__ import annotations

import numpy as np
import pytest

from hubclient.architectures.language.elementwise import NegativeExp
from hubclient.architectures.language.exponential import exponential

EVERY_BF16 = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)


def numbers(low: float, high: float, count: int = 200_000) -> np.ndarray:
    return np.random.default_rng(3).uniform(low, high, count).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize(
    "values", [EVERY_BF16, numbers(-1, 3), numbers(-90, 90), numbers(-110, -85), numbers(-1e-3, 1e-3)], ids=["bf16", *"abcd"]
)
def test_it_is_what_pytorch_computes(values: np.ndarray) -> None:
    import torch

    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        pytest.skip("PyTorch takes another way on this processor")
    theirs = torch.exp(torch.from_numpy(values)).numpy()
    assert np.array_equal(exponential(values), theirs, equal_nan=True)


def test_it_is_within_a_unit_in_the_last_place() -> None:
    values = numbers(-87, 88)
    exact = np.exp(values.astype(np.longdouble))
    assert np.all(np.abs(exponential(values) - exact) <= np.spacing(exact.astype(np.float32)))


def test_ends_and_holes() -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 100.0, -200.0], np.float32)
    assert exponential(values).tobytes() == np.array([1, 1, np.inf, 0, np.nan, np.inf, 0], np.float32).tobytes()


def test_bf16_logarithms_of_the_sizes_that_models_have_come_back() -> None:
    """As A_log of 1 to a few hundred states; nearer to zero, the exponential is nearer to one than float32 can say."""
    values = EVERY_BF16[(np.abs(EVERY_BF16) >= 2.0**-12) & (np.abs(EVERY_BF16) < 16)]
    back = NegativeExp().inverse.apply(NegativeExp().apply(values))
    bits = back.view(np.uint32)
    assert np.array_equal(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16, values.view(np.uint32))
