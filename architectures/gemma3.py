"""Gemma 3, text: Gemma 2 with normalised queries and keys, five sliding blocks to one full, a rope for each kind.

Source: Transformers `modeling_gemma3`; llama.cpp `models/gemma3.cpp` for what it takes the query scale to be.
"""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Kinds, Layout, absent, block, by_value, every, f32, listed, optional, others, ratio, rope_settings, u32,
)  # fmt: skip
from hubclient.architectures.decoder import ATTENTION, CONFIG, HEAD_DIM, INV_FREQ, MLP, SIZES
from hubclient.architectures.gemma2 import ENDS, GEMMA2, NORM, NORMS, PATTERN

QK_NORMS = {
    "self_attn.q_norm.weight": NORM >> "attn_q_norm.weight",
    "self_attn.k_norm.weight": NORM >> "attn_k_norm.weight",
}
GGUF = Layout.of(
    {**ENDS, **optional({"lm_head.weight": "output.weight"})},
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, QK_NORMS, MLP),
    drop=INV_FREQ,
)
FULL, LOCAL = "rope_parameters.full_attention", "rope_parameters.sliding_attention"
SLIDING = others(every("sliding_window_pattern", -1))

GEMMA3: Architecture = replace(
    GEMMA2, name="gemma3", hf=("Gemma3ForCausalLM",), model_type="gemma3_text",
    config=(
        *CONFIG, *HEAD_DIM, *rope_settings(FULL), f32("rope_local_base_freq", "rope.freq_base_swa"),
        f32(f"{LOCAL}.rope_theta", "rope.freq_base_swa"),  # the newer spelling, which decides
        u32("sliding_window", "attention.sliding_window"),
        Kinds("layer_types", PATTERN, "sliding_attention", "full_attention", assume=others(every(6, -1)), otherwise=SLIDING),
        f32("final_logit_softcapping", "final_logit_softcapping"),
    ),
    defaults={
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "sliding_window": 4096, "sliding_window_pattern": 6, "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following(name="gemma3_text")},
    implied={"tie_word_embeddings": absent("lm_head.weight"), **SIZES},
    shapes={
        **GEMMA2.shapes, "model.layers.{i}.self_attn.q_norm.weight": ("head_dim",),
        "model.layers.{i}.self_attn.k_norm.weight": ("head_dim",),
    },
    assumed={
        f"{FULL}.rope_type": ("default", "linear", "yarn", None), f"{LOCAL}.rope_type": ("default", None),
        "query_pre_attn_scalar": by_value("num_hidden_layers", {62: ratio("hidden_size", "num_attention_heads")}, "head_dim"),
        "hidden_activation": ("gelu_pytorch_tanh", None), "attn_logit_softcapping": (None,),
        "use_bidirectional_attention": (False, None),
    },
    placement=replace(GEMMA2.placement, window_in=listed("layer_types", "sliding_attention", SLIDING)),
)  # fmt: skip

ARCHITECTURES = (GEMMA3,)
