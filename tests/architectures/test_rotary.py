"""Llama 3's rope factors: those that llama.cpp's converter writes, and the settings that they tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import Llama3Factors
from hubclient.errors import DamagedInput

FACTORS = Llama3Factors("head_dim")
PUBLISHED = {  # head_dim, rope_parameters of published models
    "Llama-3.1-8B": (128, 8.0, 8192),
    "Llama-3.1-405B": (128, 8.0, 8192),
    "Llama-3.2-1B": (64, 32.0, 8192),
    "Llama-3.2-3B": (128, 32.0, 8192),
    "Llama-3.3-70B": (128, 8.0, 8192),
}


def config(head_dim: int, factor: Any, context: Any, *, theta: Any = 500000.0, low: Any = 1.0, high: Any = 4.0) -> dict[str, Any]:
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }
    return {"head_dim": head_dim, "rope_parameters": rope}


def told(settings: dict[str, Any]) -> dict[str, Any]:
    """What a GGUF says besides the factors."""
    return {"head_dim": settings["head_dim"], "rope_parameters": {"rope_theta": settings["rope_parameters"]["rope_theta"]}}


def by_torch(settings: dict[str, Any]) -> np.ndarray:
    """The factors in the float32 steps of llama.cpp's converter."""
    import torch

    dim, rope = settings["head_dim"], settings["rope_parameters"]
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context, result = rope["original_max_position_embeddings"], []
    for frequency in 1.0 / (rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)):
        length = 2 * math.pi / frequency
        if length < context / high:
            result.append(torch.tensor(1.0))
        elif length > context / low:
            result.append(torch.tensor(factor))
        else:
            smooth = (context / length - low) / (high - low)
            result.append(1 / ((1 - smooth) / factor + smooth))
    values: np.ndarray = torch.stack(result).numpy()
    return values


@pytest.mark.torch
@pytest.mark.parametrize("name", PUBLISHED)
def test_factors_of_published_models_are_those_of_the_converter(name: str):
    settings = config(*PUBLISHED[name])
    ours = FACTORS.forward(settings)
    assert ours is not None and np.array_equal(ours, by_torch(settings))


@pytest.mark.torch
def test_other_factors_are_but_for_the_rounding_of_powers():
    """PyTorch's float32 power is not always the nearest one: about one factor in two thousand differs."""
    steps = []
    for theta in (1e4, 1.5e5, 5e5, 1e6, 12345.678):
        for head_dim in (16, 32, 64, 80, 96, 128, 256):
            for factor, context in ((8.0, 8192), (32.0, 4096), (2.0, 256)):
                settings = config(head_dim, factor, context, theta=theta)
                ours = FACTORS.forward(settings)
                assert ours is not None
                steps.append(np.abs(ours.view(np.int32).astype(np.int64) - by_torch(settings).view(np.int32)))
    differences = np.concatenate(steps)
    assert differences.max() <= 4 and np.mean(differences > 0) < 0.003


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_found_again(name: str):
    settings = config(*PUBLISHED[name])
    factors = FACTORS.forward(settings)
    assert factors is not None and factors.shape == (PUBLISHED[name][0] // 2,) and factors.dtype == np.float32
    found = FACTORS.backward(factors, told(settings))
    assert found is not None
    assert {**found, "rope_theta": 500000.0} == settings["rope_parameters"]


@given(
    st.sampled_from([32, 64, 96, 128]),
    st.sampled_from([2.0, 4.0, 8.0, 16.0, 32.0, 2.5]),
    st.integers(8, 20),
    st.floats(1e4, 1e7),
    st.sampled_from([(1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (1.0, 32.0)]),
)
def test_settings_that_are_found_give_the_factors_again(
    head_dim: int, factor: float, power: int, theta: float, window: tuple[float, float]
):
    settings = config(head_dim, factor, 2**power, theta=theta, low=window[0], high=window[1])
    factors = FACTORS.forward(settings)
    assert factors is not None
    found = FACTORS.backward(factors, told(settings))
    if factors.max() == np.float32(factor):
        assert found is not None
    if found is not None:
        again = FACTORS.forward({"head_dim": head_dim, "rope_parameters": {**found, "rope_theta": theta}})
        assert again is not None
        assert np.all(np.abs(again - factors) <= 4 * np.spacing(np.maximum(again, factors)))


@pytest.mark.parametrize("kind", ["default", "linear", "yarn", None])
def test_no_factors_unless_they_are_asked_for(kind: str | None):
    assert FACTORS.forward({"head_dim": 64, "rope_parameters": {"rope_type": kind}}) is None
    assert FACTORS.forward({"head_dim": 64}) is None


@pytest.mark.parametrize(
    "factors",
    [
        np.arange(32, dtype=np.float32) + 1,
        np.zeros(32, np.float32),
        np.full(32, np.nan, np.float32),
        np.full(32, np.inf, np.float32),
        np.ones(31, np.float32),
        np.ones((4, 8), np.float32),
        np.ones(0, np.float32),
    ],
    ids=["rising", "zero", "nan", "infinite", "too few", "a matrix", "empty"],
)
def test_factors_that_no_settings_give_tell_nothing(factors: np.ndarray):
    assert FACTORS.backward(factors, told(config(64, 8.0, 8192))) is None


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (config(64, "8", 8192), "factor is '8' where a positive number is needed"),
        (config(64, 0, 8192), "factor is 0"),
        (config(64, True, 8192), "factor is True"),
        (config(64, 8.0, [8192]), "original_max_position_embeddings is"),
        (config(64, 8.0, 8192, theta=-1.0), "rope_theta is -1.0"),
        (config(64, 8.0, 8192, theta=10**400), "rope_theta is 1000"),
        (config(64, 8.0, 8192, low=4.0), "low_freq_factor is 4.0, which must be below high_freq_factor, 4.0"),
        (config(2**31, 8.0, 8192), "head_dim is 2147483648; no head is that large"),
        (config(64, 8.0, 8192, theta=1e-300), "rope_theta is 1e-300"),
        (config(0, 8.0, 8192), "head_dim is 0 where a positive integer is needed"),
    ],
)
def test_settings_that_make_no_sense_are_damaged_input(settings: dict[str, Any], fault: str):
    with pytest.raises(DamagedInput, match=fault):
        FACTORS.forward(settings)
