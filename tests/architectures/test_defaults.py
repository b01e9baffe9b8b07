"""What a config.json leaves out is what Transformers' own classes take it to be, in the spelling of either version."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from hubclient.architectures import Architecture
from hubclient.architectures.language.config import normalise
from hubclient.architectures.language.expressions import COMPUTED, lookup
from hubclient.architectures.language.pairs import forward
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan

pytestmark = pytest.mark.torch

EVERY = Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()
SIZES: dict[str, dict[str, Any]] = {  # what no config.json leaves out
    "gpt2": {"n_embd": 96, "n_layer": 3, "n_head": 6},
    "mamba": {"hidden_size": 96, "num_hidden_layers": 3, "expand": 3},
    "mamba2": {"hidden_size": 96, "num_hidden_layers": 3, "num_heads": 3, "n_groups": 2},
    "bloom": {"n_embed": 96, "num_hidden_layers": 3, "num_attention_heads": 6},
    "falcon": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "new_decoder_architecture": True},
    **{
        family: {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 200}
        for family in (
            "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "jamba", "bert", "stablelm", "olmo2", "starcoder2", "gpt_neox",
            "qwen2_vl_text",
        )
    },
}  # fmt: skip
MORE: list[dict[str, Any]] = [
    {},
    {"rope_theta": 5e5},
    {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
    {"num_key_value_heads": 2},
    {"num_key_value_heads": None},
    {"head_dim": 32},
    {"tie_word_embeddings": True},
]

# what Transformers does by default and GGUF cannot say
OTHERWISE = {
    "mistral": ["sliding_window"],  # llama.cpp runs it as Llama
    "mistral3": ["sliding_window"],
    "qwen3_moe": ["norm_topk_prob"],  # False by default, though no published model has that
    "t5": ["scale_decoder_outputs"],
    "umt5": ["tie_word_embeddings"],
}


TOO_MUCH = {
    *((name, "num_key_value_heads") for name in ("gemma", "gemma3", "gemma3_vision", "jamba")),
    *((name, "rope_theta", "rope_scaling") for name in ("gemma3", "gemma3_vision", "phi3")),
    ("mamba2", "head_dim"),
}


def left_out(architecture: Architecture, **keys: Any) -> dict[str, Any]:
    """A config.json that says nothing but these keys, in the object where the family has them."""
    if not architecture.nested:
        return {"model_type": architecture.model_type, **keys}
    inner = {"text_config": {"model_type": architecture.nested, **keys}, "vision_config": {}}
    return {"model_type": architecture.model_type, **inner}


def of_transformers(raw: dict[str, Any]) -> dict[str, Any]:
    """config.json as Transformers' class for this model would write it in full."""
    from transformers import AutoConfig

    model_type = raw["model_type"]
    full: dict[str, Any] = AutoConfig.for_model(**deepcopy(raw)).to_dict()  # which changes what it is given
    assert full["model_type"] == model_type
    return full


def elsewhere(full: dict[str, Any], key: str) -> Any:
    """What Transformers 5 has under another name than config.json, or in sets per kind of block."""
    rope = full["rope_parameters"]
    match key:
        case "rope_local_base_freq":
            return rope["sliding_attention"]["rope_theta"]
        case "rope_theta":
            return rope.get("full_attention", rope)["rope_theta"]
    return full[f"_{key}"]


def stored(architecture: Architecture, raw: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The metadata, and which derived tensors there are."""
    config = normalise(raw, architecture.defaults, architecture.aliases)
    derived = [value.forward(config) is not None for value in architecture.layouts["gguf"].derive.values()]
    return forward(architecture.config, config, "fam"), derived


@pytest.mark.parametrize("architecture", EVERY, ids=lambda item: item.name)
@pytest.mark.parametrize("sizes", [{}, SIZES], ids=["nothing", "sizes"])
@pytest.mark.parametrize("more", MORE, ids=str)
def test_a_config_that_leaves_the_rest_out_gives_the_metadata_of_the_full_one(
    architecture: Architecture, sizes: dict[str, dict[str, Any]], more: dict[str, Any]
):
    from huggingface_hub.errors import StrictDataclassError

    if (architecture.name, *more) in TOO_MUCH and more != {"num_key_value_heads": 2}:
        pytest.skip("Transformers 5 refuses it, or misreads the older spelling")
    raw = left_out(architecture, **sizes.get(architecture.nested or architecture.model_type, {}), **more)
    try:
        full = of_transformers(raw)
    except (StrictDataclassError, AttributeError) as error:
        pytest.skip(f"Transformers 5 refuses it: {error}")
    assert stored(architecture, raw) == stored(architecture, full)


@pytest.mark.parametrize("architecture", EVERY, ids=lambda item: item.name)
def test_every_default_is_that_of_transformers(architecture: Architecture):
    full = normalise(of_transformers(left_out(architecture)), {}, architecture.aliases)
    own = normalise({}, architecture.defaults)
    for key, default in architecture.defaults.items():
        if key in ("rope_theta", "rope_local_base_freq", "sliding_window_pattern"):
            assert elsewhere(full, key) == default
        elif key == "rope_scaling":
            assert default.items() <= full["rope_parameters"].items()
        elif key == "id2label":
            assert {str(number): label for number, label in full[key].items()} == default
        elif lookup(full, key) is None:  # Transformers fills it in where it is used
            computed = default[1] if isinstance(default, tuple) else default
            assert isinstance(computed, COMPUTED), key
        else:
            assert lookup(own, key) == lookup(full, key), key


@pytest.mark.parametrize("architecture", EVERY, ids=lambda item: item.name)
def test_what_readers_of_gguf_assume_is_what_transformers_does_by_default(architecture: Architecture):
    from hubclient.spokes.rebuild import assumption_losses

    raw = left_out(architecture)
    losses = assumption_losses(architecture.assumed, normalise(raw, architecture.defaults))
    assert [loss.split()[1] for loss in losses] == OTHERWISE.get(architecture.name, [])
    full = normalise(of_transformers(raw), architecture.defaults, architecture.aliases)
    assert assumption_losses(architecture.assumed, full) == losses
    assert assumption_losses(architecture.projector_assumed, full) == []
