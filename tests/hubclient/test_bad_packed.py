"""Weights and scales that do not fit together, and ways of packing that nobody here knows: named, refused, or copied as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from checkpoints import CONFIG, WEIGHTS
from golden import Stored, tensors
from packing import BLOCKS, KINDS, Q_PROJ, Stock, compressed, packed
from running import Failing, refused

from hubclient import Checkpoint
from hubclient.errors import DamagedInput, UnsupportedEncoding


def settings_of(folder: Path) -> Any:
    return json.loads((folder / CONFIG).read_text()).get("quantization_config")


def put_in(name: str, item: Stored) -> Callable[[Stock], object]:
    return lambda stock: stock.update({name: item})


def without(name: str) -> Callable[[Stock], object]:
    return lambda stock: stock.pop(name)


SCALE = Q_PROJ + "_scale_inv"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(without(SCALE), f"'{Q_PROJ}' is F8_E4M3 without its scale, '{SCALE}'", id="no scale"),
        pytest.param(without(Q_PROJ), f"'{SCALE}' is the scale of '{Q_PROJ}', which is not there", id="no weight"),
        pytest.param(
            put_in(SCALE, Stored("F32", (2, 1), bytes(8))),
            f"'{SCALE}' is [2, 1] where [2, 2] is needed for blocks of 32 x 48 of '{Q_PROJ}', which is [64, 64]",
            id="too few scales",
        ),
        pytest.param(put_in(SCALE, Stored("F32", (), bytes(4))), "is [] where [2, 2] is needed", id="a single scale"),
        pytest.param(put_in(SCALE, Stored("I32", (2, 2), bytes(16))), "is I32, which scales cannot be", id="scales of integers"),
        pytest.param(put_in(SCALE, Stored("U8", (2, 2), bytes(4))), "is U8, which scales cannot be", id="bytes"),
        pytest.param(
            put_in(Q_PROJ, Stored("BF16", (64, 64), bytes(8192))), "is BF16 [64, 64], where a matrix of F8_E4M3", id="not packed"
        ),
        pytest.param(put_in(Q_PROJ, Stored("F8_E4M3", (64,), bytes(64))), "is F8_E4M3 [64], where a matrix", id="a vector"),
        pytest.param(
            put_in("lm_head.weight_scale_inv", Stored("F32", (9, 2), bytes(72))),
            "is the scale of 'lm_head.weight', which quantization_config says is not packed",
            id="a module that is left out",
        ),
    ],
)
def test_weights_and_scales_that_do_not_fit_are_named(
    change: Callable[[Stock], object], told: str, failing: Failing, tmp_path: Path
) -> None:
    refused(failing, packed(tmp_path / "source", KINDS["blocks"], change), 4, f"source/{WEIGHTS}: tensor ", told)


@pytest.mark.parametrize("shape", [(64,), (63, 1), (2,), (64, 64), (1, 1, 1), (64, 1, 1)])
def test_scales_without_blocks_are_for_all_or_for_a_row_or_for_a_column(shape: tuple[int, ...], tmp_path: Path):
    item = Stored("F32", shape, np.ones(shape, np.float32).tobytes())
    folder = packed(tmp_path / "source", KINDS["rows"], put_in(Q_PROJ + "_scale", item))
    checkpoint = Checkpoint.from_pretrained(folder)
    if shape == (64,):
        checkpoint.plan(tmp_path / "out", type="f32")
    else:
        with pytest.raises(DamagedInput, match="one scale neither for all nor for each row or column of"):
            checkpoint.plan(tmp_path / "out", type="f32")


@pytest.mark.parametrize(
    "settings",
    [
        *({"weight_block_size": value} for value in ("x", [32], [0, 48], [32, -1], [1.5, 2], [True, 2], {"a": 1}, 7)),
        *({"modules_to_not_convert": value} for value in ("lm_head", [1], {"a": 1}, 3)),
    ],
    ids=str,
)
def test_settings_that_are_none_are_named(settings: dict[str, Any], failing: Failing, tmp_path: Path) -> None:
    (key,) = settings
    folder = packed(tmp_path / "source", KINDS["blocks"], **settings)
    refused(failing, folder, 4, f"source/{CONFIG}: ", f"quantization_config has {settings[key]!r} for {key}")


@pytest.mark.parametrize("groups", [{}, None, [], {"a": 3}, {"a": {"weights": None}}], ids=str)
def test_groups_that_are_none_are_named(groups: Any, failing: Failing, tmp_path: Path) -> None:
    folder = packed(tmp_path / "source", KINDS["compressed rows"], config_groups=groups)
    refused(failing, folder, 4, f"source/{CONFIG}: ", "for config_groups")


UNREAD: dict[str, Any] = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "'fp8' with fmt 'e5m2'": {**BLOCKS, "fmt": "e5m2"},
    "'fp8' with expert_dtype 'fp4'": {**BLOCKS, "expert_dtype": "fp4"},
    "'compressed-tensors' as 'pack-quantized'": compressed("group", format="pack-quantized"),
    "'compressed-tensors' as None": compressed("channel", format=None),
    "'compressed-tensors' as ['a']": compressed("channel", format=["a"]),
    "'compressed-tensors' as sparse matrices": compressed("channel", sparsity_config={"format": "sparse-bitmask"}),
    "strategy 'group'": compressed("group"),
    "symmetric False": compressed("channel", weights={"symmetric": False}),
    "num_bits 4": compressed("channel", weights={"num_bits": 4}),
    "7": 7,
    "'x'": "x",
    "['fp8']": {"quant_method": ["fp8"]},
    "None": {"bits": 4},
}


@pytest.mark.parametrize(("told", "settings"), UNREAD.items())
def test_other_ways_of_packing_are_copied_and_refused_by_name(told: str, settings: Any, tmp_path: Path):
    folder = checkpoints.llama(tmp_path / "source", config={"quantization_config": settings})
    checkpoint = Checkpoint.from_pretrained(folder)
    (copy,) = checkpoint.save_pretrained(tmp_path / "copy")
    assert tensors(copy) == tensors(folder) and settings_of(copy) == settings
    for space, kind in (("gguf", "auto"), ("mlx", "auto"), ("safetensors", "f16")):
        with pytest.raises(UnsupportedEncoding, match=r"the weights are packed by .*, which cannot be read") as error:
            checkpoint.plan(tmp_path / "out", format=space, type=kind)
        assert told in str(error.value)
