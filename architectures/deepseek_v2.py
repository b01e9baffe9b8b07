"""DeepSeek V2: latent attention, some leading dense blocks, then experts of which every token goes through some.

Keys and values are computed from one small vector per token. GGUF keeps the matrix that does it in two parts: for keys
(transposed, so that it can be applied to queries) and for values. Source: Transformers `modeling_deepseek_v2`; llama.cpp
`models/deepseek2.cpp`, which chooses groups by their two best experts where Transformers takes the best alone.
"""

from hubclient.architectures import (
    NULL,
    Architecture,
    Fixed,
    Flags,
    Following,
    Layout,
    Placement,
    block,
    code,
    concat,
    each,
    either,
    f32,
    given,
    optional,
    product,
    reshape,
    total,
    transpose,
    u32,
    ungroup,
)
from hubclient.architectures.decoder import DECODER, ENDS, ENDS_SHAPES, FIRST, HIDDEN, INV_FREQ, LAST, MLP, NORMS, TIED
from hubclient.architectures.entries import Scaled, Sum, Told
from hubclient.architectures.experts import ROUTER, SIZE, counts, shapes, shared, stacked, switched

COUNT, HEADS, NOPE, VALUE = "n_routed_experts", "num_attention_heads", "qk_nope_head_dim", "v_head_dim"
KEY = total(NOPE, "qk_rope_head_dim")
KEYS, VALUES = product(HEADS, NOPE), product(HEADS, VALUE)
LATENT = total("kv_lora_rank", "qk_rope_head_dim")

KV_B = (
    ungroup(HEADS, NOPE, VALUE)
    >> ~concat(KEYS, VALUES)
    >> each(reshape((KEYS, None), (HEADS, NOPE, None)) >> transpose, reshape((VALUES, None), (HEADS, VALUE, None)))
)
ATTENTION = {
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": KV_B >> ("attn_k_b.weight", "attn_v_b.weight"),
    "self_attn.o_proj.weight": "attn_output.weight",
    **either(
        {
            "self_attn.q_a_proj.weight": "attn_q_a.weight",
            "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
            "self_attn.q_b_proj.weight": "attn_q_b.weight",
        },
        {"self_attn.q_proj.weight": "attn_q.weight"},
    ),
}
EXPERTS = {**ROUTER, **stacked(COUNT), **optional(shared("shared_experts"))}
LAYOUT = Layout.of(
    ENDS, block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, either(EXPERTS, MLP)), name="deepseek2", drop=INV_FREQ
)
GATE = "model.layers.{i}.mlp.gate.weight"  # a plain parameter in mlx-lm, which it does not quantise

CONFIG = (
    *(line for line in DECODER if line != u32("num_key_value_heads", "attention.head_count_kv")),
    Fixed("attention.head_count_kv", "u32", 1),
    *counts(COUNT),
    *SIZE,
    u32("n_group", "expert_group_count"),
    u32("topk_group", "expert_group_used_count"),
    code("scoring_func", "expert_gating_func", {"softmax": 1, "sigmoid": 2}),
    u32("n_shared_experts", "expert_shared_count"),
    f32("routed_scaling_factor", "expert_weights_scale"),
    Flags("norm_topk_prob", {True: "expert_weights_norm"}, otherwise=False),
    u32("first_k_dense_replace", "leading_dense_block_count"),
    u32("vocab_size", "vocab_size"),
    u32("q_lora_rank", "attention.q_lora_rank"),
    u32("kv_lora_rank", "attention.kv_lora_rank"),
    u32("qk_rope_head_dim", "rope.dimension_count"),
    Following(LATENT, "attention.key_length"),
    Following("kv_lora_rank", "attention.value_length"),
    Sum(NOPE, "qk_rope_head_dim", "attention.key_length_mla"),
    u32(VALUE, "attention.value_length_mla"),
    Scaled("rope_parameters.mscale_all_dim", "rope.scaling.yarn_log_multiplier", 0.1),
)
BLOCK = "model.layers.{i}"
SHAPES = {
    **ENDS_SHAPES,
    f"{BLOCK}.input_layernorm.weight": HIDDEN,
    f"{BLOCK}.post_attention_layernorm.weight": HIDDEN,
    f"{BLOCK}.self_attn.q_proj.weight": (product(HEADS, KEY), "hidden_size"),
    f"{BLOCK}.self_attn.q_a_proj.weight": ("q_lora_rank", "hidden_size"),
    f"{BLOCK}.self_attn.q_a_layernorm.weight": ("q_lora_rank",),
    f"{BLOCK}.self_attn.q_b_proj.weight": (product(HEADS, KEY), "q_lora_rank"),
    f"{BLOCK}.self_attn.kv_a_proj_with_mqa.weight": (LATENT, "hidden_size"),
    f"{BLOCK}.self_attn.kv_a_layernorm.weight": ("kv_lora_rank",),
    f"{BLOCK}.self_attn.kv_b_proj.weight": (product(HEADS, total(NOPE, VALUE)), "kv_lora_rank"),
    f"{BLOCK}.self_attn.o_proj.weight": ("hidden_size", VALUES),
    f"{BLOCK}.mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
    f"{BLOCK}.mlp.up_proj.weight": ("intermediate_size", "hidden_size"),
    f"{BLOCK}.mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
    **shapes(COUNT, "shared_experts", product("n_shared_experts", "moe_intermediate_size")),
}

DEEPSEEK_V2 = Architecture(
    name="deepseek_v2",
    hf=("DeepseekV2ForCausalLM", "DeepseekV2Model"),
    model_type="deepseek_v2",
    prefix="model.",
    config=(*CONFIG, Told("topk_method", "expert_group_count", {1: "greedy"}, "group_limited_greedy")),
    defaults={
        "vocab_size": 102400,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": product(HEADS, 1),
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 0,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": False,
        "moe_intermediate_size": 1407,
        "tie_word_embeddings": False,
    },
    layouts={"gguf": LAYOUT, "mlx": LAYOUT.following(switched(COUNT), name="deepseek_v2", keep=(GATE,))},
    implied={**TIED, "q_lora_rank": given(f"{BLOCK}.self_attn.q_proj.weight", NULL)},
    shapes=SHAPES,
    assumed={
        "rope_parameters.rope_type": ("default", "yarn", None),
        "rope_parameters.mscale": "rope_parameters.mscale_all_dim",
        "scoring_func": ("softmax", None),
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
    },
    placement=Placement(BLOCK, FIRST, LAST, {"lm_head": "model.embed_tokens"}, kv_elements=LATENT, experts=("mlp.experts",)),
)

ARCHITECTURES = (DEEPSEEK_V2,)
