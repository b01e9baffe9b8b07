"""Tables that many decoders share: the config pairs and the tensor names of a pre-norm block."""

from collections.abc import Mapping

from hubclient.architectures import (
    ROPE,
    Expr,
    Fact,
    Pairs,
    Placement,
    absent,
    columns_of,
    f32,
    optional,
    present,
    product,
    rows_of,
    u32,
    with_biases,
)

COUNTS: Pairs = (
    u32("num_hidden_layers", "block_count"),
    u32("max_position_embeddings", "context_length"),
    u32("hidden_size", "embedding_length"),
    u32("intermediate_size", "feed_forward_length"),
    u32("num_attention_heads", "attention.head_count"),
    u32("num_key_value_heads", "attention.head_count_kv"),
)
CONFIG: Pairs = (*COUNTS, f32("rms_norm_eps", "attention.layer_norm_rms_epsilon"))
HEAD_DIM: Pairs = (u32("head_dim", "attention.key_length"), u32("head_dim", "attention.value_length"))
DECODER: Pairs = (*CONFIG, *ROPE)
SCALING: Pairs = ROPE[1:]
UNUSUAL_ROPE: Pairs = (f32("rope_parameters.rope_theta", "rope.freq_base", unless=(10000.0,)), *SCALING)  # as readers assume

ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    **optional({"lm_head.weight": "output.weight"}),
}
NORMS = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
MLP = {
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
ATTENTION = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
}
INV_FREQ = ("model.layers.{i}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq")

SIZES: Mapping[str, Fact] = {
    "vocab_size": rows_of("model.embed_tokens.weight"),
    "hidden_size": columns_of("model.embed_tokens.weight"),
    "intermediate_size": columns_of("model.layers.0.mlp.down_proj.weight"),
}
TIED: Mapping[str, Fact] = {"tie_word_embeddings": absent("lm_head.weight"), **SIZES}
BIASED: Mapping[str, Fact] = {"attention_bias": present("model.layers.0.self_attn.q_proj.bias")}

HIDDEN = ("hidden_size",)
Q, KV = product("num_attention_heads", "head_dim"), product("num_key_value_heads", "head_dim")
ENDS_SHAPES: Mapping[str, tuple[Expr, ...]] = with_biases({
    "model.embed_tokens.weight": ("vocab_size", "hidden_size"),
    "lm_head.weight": ("vocab_size", "hidden_size"),
    "model.norm.weight": HIDDEN,
})  # fmt: skip
BLOCK_SHAPES: Mapping[str, tuple[Expr, ...]] = with_biases({
    "model.layers.{i}.input_layernorm.weight": HIDDEN,
    "model.layers.{i}.post_attention_layernorm.weight": HIDDEN,
    "model.layers.{i}.self_attn.q_proj.weight": (Q, "hidden_size"),
    "model.layers.{i}.self_attn.k_proj.weight": (KV, "hidden_size"),
    "model.layers.{i}.self_attn.v_proj.weight": (KV, "hidden_size"),
    "model.layers.{i}.self_attn.o_proj.weight": ("hidden_size", Q),
    "model.layers.{i}.mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
    "model.layers.{i}.mlp.up_proj.weight": ("intermediate_size", "hidden_size"),
    "model.layers.{i}.mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
})  # fmt: skip
SHAPES = {**ENDS_SHAPES, **BLOCK_SHAPES}

ROPE_TYPES = ("default", "linear", "yarn", None)
FIRST, LAST = ("model.embed_tokens",), ("model.norm", "lm_head")
PLACEMENT = Placement(
    "model.layers.{i}",
    FIRST,
    LAST,
    {"lm_head": "model.embed_tokens"},
    kv_elements=product(2, product("num_key_value_heads", "head_dim")),
)
