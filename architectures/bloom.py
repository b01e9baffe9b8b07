"""BLOOM: ALiBi instead of positions, a norm behind the embedding, q, k and v of each head together.

Sources: Transformers `modeling_bloom`; llama.cpp `conversion/bloom.py`, `models/bloom.cpp`.
"""

from collections.abc import Mapping

from hubclient.architectures import (
    Architecture, Expr, Fact, Following, Layout, Placement, absent, alike, biased, block, columns_of, f32, optional, product,
    ratio, rows_of, u32, ungroup, with_biases,
)  # fmt: skip

SIZE, FEED = ratio("hidden_size", "n_head"), product(4, "hidden_size")
ENDS = {
    "transformer.word_embeddings.weight": "token_embd.weight",
    **biased({"transformer.word_embeddings_layernorm": "token_embd_norm", "transformer.ln_f": "output_norm"}),
    **optional({"lm_head.weight": "output.weight"}),
}
BLOCK = biased({
    "input_layernorm": "attn_norm",
    "self_attention.query_key_value": ungroup("n_head", SIZE, SIZE, SIZE) >> "attn_qkv",
    "self_attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
})  # fmt: skip
TIED: Mapping[str, Fact] = {
    "tie_word_embeddings": absent("lm_head.weight"),
    "vocab_size": rows_of("transformer.word_embeddings.weight"),
    "hidden_size": columns_of("transformer.word_embeddings.weight"),
}
H = "transformer.h.{i}"
SHAPES: Mapping[str, tuple[Expr, ...]] = with_biases({
    "transformer.word_embeddings.weight": ("vocab_size", "hidden_size"),
    "lm_head.weight": ("vocab_size", "hidden_size"),
    f"{H}.self_attention.dense.weight": ("hidden_size", "hidden_size"),
    **alike(("transformer.word_embeddings_layernorm", "transformer.ln_f"), "hidden_size"),
    **alike((f"{H}.{name}" for name in ("input_layernorm", "post_attention_layernorm", "ln_attn", "ln_mlp")), "hidden_size"),
})  # fmt: skip
PLACEMENT = Placement(
    "transformer.h.{i}",
    ("transformer.word_embeddings", "transformer.word_embeddings_layernorm"),
    ("transformer.ln_f", "lm_head"),
    {"lm_head": "transformer.word_embeddings"},
    kv_elements=product(2, "hidden_size"),
)

BLOOM = Architecture(
    name="bloom", hf=("BloomForCausalLM", "BloomModel"), model_type="bloom", prefix="transformer.", blocks="n_layer",
    config=(
        u32("seq_length", "context_length"), u32("hidden_size", "embedding_length"), Following(FEED, "feed_forward_length"),
        u32("n_layer", "block_count"), u32("n_head", "attention.head_count"), Following("n_head", "attention.head_count_kv"),
        f32("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ),
    defaults={
        "vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "layer_norm_epsilon": 1e-5,
        "seq_length": product("hidden_size", 1),  # as llama.cpp's converter has it; the model itself knows no limit
        "tie_word_embeddings": True,
    },
    layouts={"gguf": Layout.of(ENDS, block("transformer.h.{i}", "blk.{i}", BLOCK))},
    implied=TIED,
    shapes=with_biases({
        **SHAPES, f"{H}.self_attention.query_key_value.weight": (product(3, "hidden_size"), "hidden_size"),
        f"{H}.mlp.dense_h_to_4h.weight": (FEED, "hidden_size"), f"{H}.mlp.dense_4h_to_h.weight": ("hidden_size", FEED),
    }),
    assumed={"apply_residual_connection_post_layernorm": (False, None)},
    aliases={"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    placement=PLACEMENT,
)  # fmt: skip

ARCHITECTURES = (BLOOM,)
