"""GGUFs that llama.cpp's quantiser wrote become folders whose weights are the numbers that the blocks stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden import FOREIGN, tensors

from hubclient import Checkpoint, verify
from hubclient.checkpoint import run

QUANTISED = sorted({path.name: path for folder in FOREIGN for path in folder.glob("llama_h256-*.gguf")}.values())
EACH = pytest.mark.parametrize("source", QUANTISED, ids=lambda path: path.stem.removeprefix("llama_h256-"))


@EACH
def test_unpacking_is_exact_and_said_to_be(source: Path, tmp_path: Path):
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "folder")
    assert all("metadata quantize.imatrix." in loss for loss in plan.losses)  # how the blocks were chosen, which no folder says
    outcome = run(plan)
    assert outcome.counts(0) == {"exact": len(plan.outputs[0].steps)}
    assert verify(source, tmp_path / "folder").ok


@EACH
def test_as_bfloat16_every_element_that_was_rounded_is_counted(source: Path, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(source)
    run(checkpoint.plan(tmp_path / "whole"))
    outcome = run(checkpoint.plan(tmp_path / "half", type="bf16"))
    whole, half = tensors(tmp_path / "whole"), tensors(tmp_path / "half")
    for name, kept in outcome.tensors[0].items():
        assert kept.changed == np.count_nonzero(whole[name].values != half[name].values), name


@pytest.mark.torch
@EACH
def test_transformers_unpacks_the_same_weights(source: Path, tmp_path: Path):
    import torch
    from transformers import AutoModelForCausalLM

    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "folder")
    theirs = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "folder", dtype=torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
