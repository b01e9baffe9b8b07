"""GPT-OSS as plain numbers: its packed experts have other names and another shape then, and Transformers computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden import Golden, foreign, goldens, tensors, transformers_result

from hubclient import Checkpoint
from hubclient.checkpoint import run

GOLDENS = [golden for golden in goldens() if golden.name == "gpt_oss_mxfp4"]
SOURCES = [(golden, golden.checkpoint) for golden in GOLDENS] + [
    (golden, path) for golden in GOLDENS if (path := foreign(golden.name)) is not None
]
EACH = pytest.mark.parametrize(("golden", "source"), SOURCES, ids=lambda one: getattr(one, "suffix", None) or "folder")


@EACH
def test_experts_are_plain_tensors_and_the_config_says_so(golden: Golden, source: Path, tmp_path: Path):
    outcome = run(Checkpoint.from_pretrained(source).plan(tmp_path / "plain", type="bf16"))
    assert set(outcome.counts(0)) == {"exact"}  # numbers of four bits and powers of two
    found = tensors(tmp_path / "plain")
    hidden, inner = golden.config["hidden_size"], golden.config["intermediate_size"]
    experts = golden.config["num_local_experts"]
    assert found["model.layers.0.mlp.experts.gate_up_proj"].shape == (experts, hidden, 2 * inner)
    assert found["model.layers.0.mlp.experts.down_proj"].shape == (experts, inner, hidden)
    assert not any(name.endswith(("_blocks", "_scales")) for name in found)
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())


@pytest.mark.torch
@EACH
def test_transformers_computes_the_same(golden: Golden, source: Path, tmp_path: Path):
    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "plain", type="bf16")
    assert np.abs(transformers_result(golden, tmp_path / "plain") - golden.logits).max() < 1e-4
