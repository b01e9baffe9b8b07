"""LongRoPE: lists of factors as tensors, the scale of attention, and the older spellings of the config."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hubclient.architectures import LongRopeFactors, LongRopeScale
from hubclient.architectures.language.config import normalise, spell
from hubclient.errors import DamagedInput

LONG, SCALE = LongRopeFactors("long_factor", "head_dim"), LongRopeScale()
FACTORS = [1.08, 1.1, 64.5, 2.0000000000000004]
RAW: dict[str, Any] = {
    "head_dim": 8,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "longrope", "long_factor": FACTORS, "short_factor": [1.0] * 4},
}


def config(**changes: Any) -> dict[str, Any]:
    return normalise({**RAW, **changes}, {})


def test_factors_come_back_in_as_few_digits_as_say_so() -> None:
    stored = LONG.forward(config())
    assert stored is not None and stored.dtype == np.float32
    assert LONG.backward(stored, config()) == {"rope_type": "longrope", "long_factor": [1.08, 1.1, 64.5, 2.0]}


def test_no_other_rope_has_factors() -> None:
    assert LONG.forward(config(rope_scaling=None)) is None
    assert SCALE.forward(config(rope_scaling=None), "x") == {}


@pytest.mark.parametrize(
    "factors", [None, "1111", [1.0] * 3, [1.0, 1.0, 1.0, None], [1.0, 1.0, 1.0, 0], [1, 1, 1, math.nan]], ids=str
)
def test_factors_that_fit_no_head_are_refused(factors: Any) -> None:
    with pytest.raises(DamagedInput, match="long_factor"):
        LONG.forward(config(rope_scaling={**RAW["rope_scaling"], "long_factor": factors}))


@pytest.mark.parametrize("stored", [[1.0] * 3, [1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, math.nan]], ids=str)
def test_stored_factors_that_fit_no_head_tell_nothing(stored: list[float]) -> None:
    assert LONG.backward(np.array(stored, np.float32), config()) is None


def test_only_the_rotated_part_of_a_head_has_factors() -> None:
    part = config(partial_rotary_factor=0.5, rope_scaling={**RAW["rope_scaling"], "long_factor": [1.0, 2.0]})
    assert LONG.forward(part) is not None


def test_the_scale_follows_from_the_contexts_and_is_not_read_back() -> None:
    ((key, (_, scale)),) = SCALE.forward(config(), "x").items()
    assert scale == math.sqrt(1 + math.log(32) / math.log(4096))
    assert SCALE.backward({key: float(np.float32(scale))}, "x", config()) == {}


def test_a_scale_of_ones_own_is_kept() -> None:
    own = config(rope_scaling={**RAW["rope_scaling"], "attention_factor": 1.25})
    assert SCALE.forward(own, "x") == {"x.rope.scaling.attn_factor": ("f32", 1.25)}
    assert SCALE.backward({"x.rope.scaling.attn_factor": 1.25}, "x", config()) == {"rope_parameters.attention_factor": 1.25}


def test_both_names_of_the_scaling_mean_the_same() -> None:
    older = config(rope_scaling={**RAW["rope_scaling"], "type": "su"})
    lists = {key: value for key, value in RAW["rope_scaling"].items() if key != "type"}
    newer = config(rope_scaling=None, rope_parameters={**lists, "rope_theta": 10000.0, "rope_type": "longrope"})
    assert older["rope_parameters"] == newer["rope_parameters"] == config()["rope_parameters"]


def test_older_versions_of_transformers_get_the_three_keys_that_they_accept() -> None:
    assert spell(config())["rope_scaling"] == RAW["rope_scaling"]
