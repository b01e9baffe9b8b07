"""Falcon: attention and feed-forward side by side, queries, keys and values in one matrix.

The older layout (7B) has one key and value for all heads and one norm per block, the newer one (40B) groups of heads and two
norms. Sources: Transformers `modeling_falcon`; llama.cpp `conversion/falcon.py`, `models/falcon.cpp`.
"""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Fixed, Following, Layout, biased, block, by_value, either, f32, given, optional, product, ratio, rows_of, total,
    u32, ungroup,
)  # fmt: skip
from hubclient.architectures.bloom import PLACEMENT, SHAPES, TIED
from hubclient.architectures.decoder import ROPE_TYPES, UNUSUAL_ROPE
from hubclient.architectures.language.entries import Told

SIZE = ratio("hidden_size", "num_attention_heads")
KV_HEADS = by_value("new_decoder_architecture", {True: "num_kv_heads"}, by_value("multi_query", {False: "num_kv_heads"}, 1))
QKV = ungroup(KV_HEADS, product(ratio("num_attention_heads", KV_HEADS), SIZE), SIZE, SIZE)

ENDS = {
    "transformer.word_embeddings.weight": "token_embd.weight",
    **biased({"transformer.ln_f": "output_norm"}),
    **optional({"lm_head.weight": "output.weight"}),
}
NORMS = either(biased({"input_layernorm": "attn_norm"}), biased({"ln_attn": "attn_norm_2", "ln_mlp": "attn_norm"}))
BLOCK = {
    "self_attention.query_key_value.weight": QKV >> "attn_qkv.weight",
    "self_attention.dense.weight": "attn_output.weight",
    "mlp.dense_h_to_4h.weight": "ffn_up.weight",
    "mlp.dense_4h_to_h.weight": "ffn_down.weight",
}

FALCON = Architecture(
    name="falcon", hf=("FalconForCausalLM", "FalconModel"), model_type="falcon", prefix="transformer.",
    config=(
        Fixed("context_length", "u32", 2048),  # whatever config.json says
        Fixed("tensor_data_layout", "str", "jploski"), u32("hidden_size", "embedding_length"),
        u32("ffn_hidden_size", "feed_forward_length"), u32("num_hidden_layers", "block_count"),
        u32("num_attention_heads", "attention.head_count"), Following(KV_HEADS, "attention.head_count_kv"),
        Told("new_decoder_architecture", "attention.head_count_kv", {1: False}, otherwise=True),
        u32("num_kv_heads", "attention.head_count_kv", when={"new_decoder_architecture": (True,)}, null=1),
        f32("layer_norm_epsilon", "attention.layer_norm_epsilon"), *UNUSUAL_ROPE,
    ),
    defaults={
        "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "num_kv_heads": product("num_attention_heads", 1), "ffn_hidden_size": product(4, "hidden_size"),
        "layer_norm_epsilon": 1e-5, "rope_theta": 10000.0, "new_decoder_architecture": False, "multi_query": True,
        "tie_word_embeddings": True,
    },
    layouts={
        "gguf": Layout.of(
            ENDS, block("transformer.h.{i}", "blk.{i}", NORMS, BLOCK),
            drop=("transformer.h.{i}.self_attention.rotary_emb.inv_freq",),
        ),
    },
    implied={
        **TIED, "ffn_hidden_size": rows_of("transformer.h.0.mlp.dense_h_to_4h.weight"),
        "num_ln_in_parallel_attn": given("transformer.h.0.ln_attn.weight", 2, 1),
    },
    shapes={
        **SHAPES,
        "transformer.h.{i}.self_attention.query_key_value.weight": (
            total("hidden_size", product(2, product(KV_HEADS, SIZE))), "hidden_size",
        ),
        "transformer.h.{i}.mlp.dense_h_to_4h.weight": ("ffn_hidden_size", "hidden_size"),
        "transformer.h.{i}.mlp.dense_4h_to_h.weight": ("hidden_size", "ffn_hidden_size"),
    },
    assumed={
        "alibi": (False, None), "parallel_attn": (True, None), "activation": ("gelu", None),
        "rope_parameters.rope_type": ROPE_TYPES,
    },
    aliases={"n_embed": "hidden_size"},
    placement=replace(PLACEMENT, first=("transformer.word_embeddings",), kv_elements=product(2, product(KV_HEADS, SIZE))),
)  # fmt: skip

ARCHITECTURES = (FALCON,)
