"""T5, v1.0 and v1.1. Source: Transformers `modeling_t5`; llama.cpp `models/t5.cpp`.

The decoder's blocks are counted apart from the encoder's. Only the first block of each has a table of relative positions.
"""

from collections.abc import Mapping

from hubclient.architectures import (
    Architecture, Expr, Fact, Layout, Placement, absent, alike, block, by_value, columns_of, either, f32, given, optional, present,
    product, rows_of, u32,
)  # fmt: skip

SELF = {f"SelfAttention.{x}.weight": f"attn_{x}.weight" for x in "qkvo"} | {"layer_norm.weight": "attn_norm.weight"}
CROSS = {f"EncDecAttention.{x}.weight": f"cross_attn_{x}.weight" for x in "qkvo"} | {
    "layer_norm.weight": "cross_attn_norm.weight"
}
PLAIN = {"DenseReluDense.wi.weight": "ffn_up.weight"}
GATED = {"DenseReluDense.wi_0.weight": "ffn_gate.weight", "DenseReluDense.wi_1.weight": "ffn_up.weight"}
FEED_FORWARD = {"DenseReluDense.wo.weight": "ffn_down.weight", "layer_norm.weight": "ffn_norm.weight", **either(PLAIN, GATED)}
ENCODER = {
    "shared.weight": "token_embd.weight",
    **block("encoder.block.{i}.layer.0", "enc.blk.{i}", SELF),
    **block("encoder.block.{i}.layer.1", "enc.blk.{i}", FEED_FORWARD),
    "encoder.final_layer_norm.weight": "enc.output_norm.weight",
}
DECODER = {
    **block("decoder.block.{j}.layer.0", "dec.blk.{j}", SELF),
    **block("decoder.block.{j}.layer.1", "dec.blk.{j}", CROSS),
    **block("decoder.block.{j}.layer.2", "dec.blk.{j}", FEED_FORWARD),
    "decoder.final_layer_norm.weight": "dec.output_norm.weight",
    **optional({"lm_head.weight": "output.weight"}),
}
POSITIONS = {"layer.0.SelfAttention.relative_attention_bias.weight": "attn_rel_b.weight"}
UNUSED = optional({"layer.1.EncDecAttention.relative_attention_bias.weight": "cross_attn_rel_b.weight"})  # in old files
FIRST_BLOCKS = (block("encoder.block.0", "enc.blk.0", POSITIONS), block("decoder.block.0", "dec.blk.0", POSITIONS, UNUSED))
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight, or there in its place

SIZES = (
    u32("n_positions", "context_length"),
    u32("d_model", "embedding_length"),
    u32("d_ff", "feed_forward_length"),
    u32("num_layers", "block_count"),
    u32("num_heads", "attention.head_count"),
    u32("d_kv", "attention.key_length"),
    u32("d_kv", "attention.value_length"),
    f32("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    f32("layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
    u32("relative_attention_num_buckets", "attention.relative_buckets_count"),
)
DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": product("num_layers", 1),
    "num_heads": 8,
    "n_positions": product(512, 1),  # what llama.cpp's converter writes where a config has none; the model has no limit
    "relative_attention_num_buckets": 32,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
}
IMPLIED: Mapping[str, Fact] = {
    "vocab_size": rows_of("shared.weight"),
    "d_model": columns_of("shared.weight"),
    "d_ff": columns_of("encoder.block.0.layer.1.DenseReluDense.wo.weight"),
    "feed_forward_proj": given("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", "gated-gelu", "relu"),
    "tie_word_embeddings": absent("lm_head.weight"),
    "is_encoder_decoder": present("decoder.final_layer_norm.weight"),
}
READERS = {
    "feed_forward_proj": ("relu", "gated-gelu"),
    "dense_act_fn": ("relu", "gelu_new", None),
    "relative_attention_max_distance": (128, None),
}
INNER = product("num_heads", "d_kv")
MATRICES: Mapping[str, tuple[Expr, ...]] = {
    **dict.fromkeys([f"{kind}Attention.{x}" for kind in ("Self", "EncDec") for x in "qkv"], (INNER, "d_model")),
    **dict.fromkeys([f"{kind}Attention.o" for kind in ("Self", "EncDec")], ("d_model", INNER)),
    **dict.fromkeys(["DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1"], ("d_ff", "d_model")),
    "DenseReluDense.wo": ("d_model", "d_ff"),
    "SelfAttention.relative_attention_bias": ("relative_attention_num_buckets", "num_heads"),
    "layer_norm": ("d_model",),
}
SHAPES = {
    f"{part}.block.{{i}}.layer.{{k}}.{name}.weight": size for name, size in MATRICES.items() for part in ("encoder", "decoder")
}

T5 = Architecture(
    name="t5",
    hf=("T5ForConditionalGeneration", "T5Model", "T5WithLMHeadModel"),
    model_type="t5", blocks="num_layers", repeats={"j": "num_decoder_layers"},
    aliases={"hidden_size": "d_model", "head_dim": "d_kv", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    prefixes={"encoder.embed_tokens.": "shared.", "decoder.embed_tokens.": "shared."},
    config=(*SIZES, u32("num_decoder_layers", "decoder_block_count"), u32("decoder_start_token_id", "decoder_start_token_id")),
    defaults={**DEFAULTS, "scale_decoder_outputs": by_value("tie_word_embeddings", {False: False}, True)},
    layouts={"gguf": Layout.of(ENCODER, DECODER, *FIRST_BLOCKS, name="t5", drop=COPIES)},
    implied={**IMPLIED, "scale_decoder_outputs": absent("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")},  # not in v1.1
    shapes={
        **alike(("shared", "lm_head"), "vocab_size", "d_model"),
        **alike(("encoder.final_layer_norm", "decoder.final_layer_norm"), "d_model"), **SHAPES,
    },
    assumed={**READERS, "scale_decoder_outputs": (False,)},
    tokenizer={"tokenizer_class": {"default": "T5Tokenizer"}},
    placement=Placement(
        "decoder.block.{j}",
        ("shared", "encoder.embed_tokens", "encoder.block.{i}", "encoder.final_layer_norm", "decoder.embed_tokens"),
        ("decoder.final_layer_norm", "lm_head"),
        dict.fromkeys(("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"), "shared"),
        kv_elements=product(2, INNER),  # for each token of the decoder, and of the encoder's output
    ),
)  # fmt: skip

ARCHITECTURES = (T5,)
