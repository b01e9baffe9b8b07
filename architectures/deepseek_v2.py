"""DeepSeek V2: latent attention, some leading dense blocks, then experts of which every token goes through some.

Source: Transformers `modeling_deepseek_v2`; llama.cpp `models/deepseek2.cpp`, which chooses groups of experts by their two
best where Transformers takes the best alone.
"""

from typing import Any

from hubclient.architectures import (
    NULL, Architecture, Flags, Layout, Placement, block, code, either, f32, given, optional, product, u32,
)  # fmt: skip
from hubclient.architectures.decoder import BLOCK_SHAPES, DECODER, ENDS, ENDS_SHAPES, FIRST, INV_FREQ, LAST, MLP, NORMS, TIED
from hubclient.architectures.experts import ROUTER, SIZE, counts, shapes, shared, stacked, switched
from hubclient.architectures.language.entries import Told
from hubclient.architectures.language.latent import ATTENTION, CACHED, SHAPES
from hubclient.architectures.language.latent import CONFIG as LATENT

BLOCK, COUNT = "model.layers.{i}", "n_routed_experts"
GATE = f"{BLOCK}.mlp.gate.weight"  # a plain parameter in mlx-lm, which it does not quantise
EXPERTS: dict[Any, object] = {**ROUTER, **stacked(COUNT), **optional(shared("shared_experts"))}
GGUF = Layout.of(ENDS, block(BLOCK, "blk.{i}", NORMS, ATTENTION, either(EXPERTS, MLP)), name="deepseek2", drop=INV_FREQ)
CONFIG = (
    *(line for line in DECODER if line != u32("num_key_value_heads", "attention.head_count_kv")),
    *LATENT,
    *counts(COUNT),
    *SIZE,
    u32("n_group", "expert_group_count"),
    u32("topk_group", "expert_group_used_count"),
    u32("n_shared_experts", "expert_shared_count"),
    f32("routed_scaling_factor", "expert_weights_scale"),
    Flags("norm_topk_prob", {True: "expert_weights_norm"}, otherwise=False),
    u32("first_k_dense_replace", "leading_dense_block_count"),
    u32("vocab_size", "vocab_size"),
)
SCORES = {"softmax": 1, "sigmoid": 2}

DEEPSEEK_V2 = Architecture(
    name="deepseek_v2", hf=("DeepseekV2ForCausalLM", "DeepseekV2Model"), model_type="deepseek_v2", prefix="model.",
    config=(
        *CONFIG, code("scoring_func", "expert_gating_func", SCORES),
        Told("topk_method", "expert_group_count", {1: "greedy"}, "group_limited_greedy"),
    ),
    aliases={"num_experts": COUNT},
    defaults={
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": product("num_attention_heads", 1), "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "n_routed_experts": 64, "n_shared_experts": 2, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "routed_scaling_factor": 1.0, "norm_topk_prob": False, "moe_intermediate_size": 1407, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following(switched(COUNT), name="deepseek_v2", keep=(GATE,))},
    implied={**TIED, "q_lora_rank": given(f"{BLOCK}.self_attn.q_proj.weight", NULL)},
    shapes={
        **ENDS_SHAPES, **{name: sizes for name, sizes in BLOCK_SHAPES.items() if "self_attn" not in name}, **SHAPES,
        **shapes(COUNT, "shared_experts", product("n_shared_experts", "moe_intermediate_size")),
    },
    assumed={
        "rope_parameters.rope_type": ("default", "yarn", None), "rope_parameters.mscale": "rope_parameters.mscale_all_dim",
        "scoring_func": ("softmax", None), "hidden_act": ("silu", None), "attention_bias": (False, None),
    },
    placement=Placement(BLOCK, FIRST, LAST, {"lm_head": "model.embed_tokens"}, kv_elements=CACHED, experts=("mlp.experts",)),
)  # fmt: skip

ARCHITECTURES = (DEEPSEEK_V2,)
