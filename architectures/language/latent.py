"""Latent attention: keys and values of all heads are computed from one small vector per token, which alone is cached.

GGUF keeps the matrix that does it in two parts: for keys (transposed, so that it can be applied to queries instead) and for
values. Source: Transformers `modeling_deepseek_v2`; llama.cpp `models/deepseek2.cpp`.
"""

from hubclient.architectures.language.entries import Sum, Times
from hubclient.architectures.language.expressions import Expr, product, total
from hubclient.architectures.language.entries import Fixed, Following
from hubclient.architectures.language.pairs import Pairs, u32
from hubclient.architectures.language.primitives import concat, reshape, transpose, ungroup
from hubclient.architectures.language.tables import either
from hubclient.architectures.language.transforms import each

HEADS, NOPE, ROPE, VALUE = "num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"
KEYS, VALUES = product(HEADS, NOPE), product(HEADS, VALUE)
QUERIES = product(HEADS, total(NOPE, ROPE))
CACHED = total("kv_lora_rank", ROPE)

KV_B = (
    ungroup(HEADS, NOPE, VALUE)
    >> ~concat(KEYS, VALUES)
    >> each(reshape((KEYS, None), (HEADS, NOPE, None)) >> transpose, reshape((VALUES, None), (HEADS, VALUE, None)))
)
LOW_RANK = {
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
}
ATTENTION = {
    **either(LOW_RANK, {"self_attn.q_proj.weight": "attn_q.weight"}),
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.kv_b_proj.weight": KV_B >> ("attn_k_b.weight", "attn_v_b.weight"),
    "self_attn.o_proj.weight": "attn_output.weight",
}
CONFIG: Pairs = (
    Fixed("attention.head_count_kv", "u32", 1),
    u32("q_lora_rank", "attention.q_lora_rank"),
    u32("kv_lora_rank", "attention.kv_lora_rank"),
    u32(ROPE, "rope.dimension_count"),
    Following(CACHED, "attention.key_length"),
    Following("kv_lora_rank", "attention.value_length"),
    Sum(NOPE, ROPE, "attention.key_length_mla"),
    u32(VALUE, "attention.value_length_mla"),
    Times("rope_parameters.mscale_all_dim", "rope.scaling.yarn_log_multiplier", 0.1),
)
SIZES: dict[str, tuple[Expr, ...]] = {
    "q_proj": (QUERIES, "hidden_size"),
    "q_a_proj": ("q_lora_rank", "hidden_size"),
    "q_a_layernorm": ("q_lora_rank",),
    "q_b_proj": (QUERIES, "q_lora_rank"),
    "kv_a_proj_with_mqa": (CACHED, "hidden_size"),
    "kv_a_layernorm": ("kv_lora_rank",),
    "kv_b_proj": (product(HEADS, total(NOPE, VALUE)), "kv_lora_rank"),
    "o_proj": ("hidden_size", VALUES),
}
SHAPES = {f"model.layers.{{i}}.self_attn.{name}.weight": sizes for name, sizes in SIZES.items()}
