"""Falcon's three layouts of heads, and what llama.cpp's converter leaves out that its readers look for."""

from __future__ import annotations

from typing import Any

import pytest

from hubclient.architectures.falcon import FALCON
from hubclient.architectures.gpt_neox import GPT_NEOX
from hubclient.architectures.language.config import normalise
from hubclient.architectures.language.pairs import backward, forward
from hubclient.architectures.stablelm import STABLELM
from hubclient.spokes.rebuild import assumption_losses

SMALL = {"hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 2, "vocab_size": 100}


def metadata(raw: dict[str, Any]) -> dict[str, Any]:
    return forward(FALCON.config, normalise({**SMALL, **raw}, FALCON.defaults, FALCON.aliases), "falcon")


@pytest.mark.parametrize(
    ("raw", "heads", "told"),
    [
        ({}, 1, {"new_decoder_architecture": False}),
        ({"num_kv_heads": 8}, 1, {"new_decoder_architecture": False}),  # as Transformers saves the 7B
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2, {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ({"multi_query": False}, 8, {"new_decoder_architecture": True, "num_kv_heads": 8}),  # the same rows
    ],
)
def test_heads_of_keys_are_counted_as_the_layout_has_them(raw: dict[str, Any], heads: int, told: dict[str, Any]):
    written = metadata(raw)
    assert written["falcon.attention.head_count_kv"] == ("u32", heads)
    back = backward(FALCON.config, written, "falcon")
    assert {key: back[key] for key in ("new_decoder_architecture", "num_kv_heads") if key in back} == told


@pytest.mark.parametrize("architecture", [FALCON, STABLELM, GPT_NEOX], ids=lambda item: item.name)
def test_a_rope_base_is_written_where_it_is_not_what_readers_assume(architecture: Any):
    def written(theta: float) -> dict[str, Any]:
        raw = {**SMALL, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
        return forward(architecture.config, normalise(raw, architecture.defaults, architecture.aliases), "a")

    assert "a.rope.freq_base" not in written(10000.0)
    assert written(500042.0)["a.rope.freq_base"] == ("f32", 500042.0)
    back = backward(architecture.config, written(500042.0), "a")
    assert normalise(back, {}, {"rotary_emb_base": "rope_theta"})["rope_parameters"]["rope_theta"] == 500042.0


def test_models_with_alibi_one_after_the_other_or_biases_are_none_that_llama_cpp_runs():
    raw = {**SMALL, "alibi": True, "parallel_attn": False}
    losses = assumption_losses(FALCON.assumed, normalise(raw, FALCON.defaults))
    assert [loss.split()[1] for loss in losses] == ["alibi", "parallel_attn"]
    for name in ("post_attention_layernorm.weight", "self_attention.dense.bias"):
        assert not FALCON.layouts["gguf"].knows(f"transformer.h.0.{name}", "hf")
