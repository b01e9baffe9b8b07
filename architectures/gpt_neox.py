"""GPT-NeoX and Pythia: a part of each head rotated, q, k and v of each head together, a head that is never tied.

Sources: Transformers `modeling_gpt_neox`; llama.cpp `conversion/gptneox.py`, `models/gptneox.cpp`; mlx-lm `gpt_neox.py`.
"""

from hubclient.architectures import (
    Architecture, Layout, Placement, Share, alike, biased, block, boolean, columns_of, f32, optional, present, product, ratio,
    rows_of, u32, ungroup, with_biases,
)  # fmt: skip
from hubclient.architectures.decoder import ROPE_TYPES, SCALING

SIZE = ratio("hidden_size", "num_attention_heads")
QKV = ungroup("num_attention_heads", SIZE, SIZE, SIZE)
ENDS = {
    "gpt_neox.embed_in.weight": "token_embd.weight",
    **biased({"gpt_neox.final_layer_norm": "output_norm"}),
    "embed_out.weight": "output.weight",
}
BLOCK = {
    "attention.query_key_value.weight": QKV >> "attn_qkv.weight",
    "attention.dense.weight": "attn_output.weight",
    **optional({"attention.query_key_value.bias": QKV >> "attn_qkv.bias", "attention.dense.bias": "attn_output.bias"}),
    **biased({
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }),
}  # fmt: skip
GGUF = Layout.of(
    ENDS, block("gpt_neox.layers.{i}", "blk.{i}", BLOCK), name="gptneox", untyped=True,  # as llama.cpp's converter leaves it
    drop=tuple(f"gpt_neox.layers.{{i}}.attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq")),
)  # fmt: skip
MLX = GGUF.following(
    {name: f"model.{name.removeprefix('gpt_neox.')}" for name in map(str, ENDS)},
    block("gpt_neox.layers.{i}", "model.h.{i}", {name: name for name in map(str, BLOCK)}),
)

GPT_NEOX = Architecture(
    name="gpt_neox", hf=("GPTNeoXForCausalLM", "GPTNeoXModel"), model_type="gpt_neox", prefix="gpt_neox.",
    prefixes={"lm_head.": "embed_out."},  # what Transformers calls it since version 5
    config=(
        u32("max_position_embeddings", "context_length"), u32("hidden_size", "embedding_length"),
        u32("num_hidden_layers", "block_count"), u32("intermediate_size", "feed_forward_length"),
        u32("num_attention_heads", "attention.head_count"), Share("rotary_pct", SIZE, "rope.dimension_count"),
        boolean("use_parallel_residual", "use_parallel_residual"), f32("layer_norm_eps", "attention.layer_norm_epsilon"),
        f32("rotary_emb_base", "rope.freq_base", unless=(10000,)), *SCALING,
    ),
    defaults={
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64, "intermediate_size": 24576,
        "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 10000,
        "use_parallel_residual": True, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": MLX},
    implied={
        "attention_bias": present("gpt_neox.layers.0.attention.dense.bias"), "vocab_size": rows_of("gpt_neox.embed_in.weight"),
        "hidden_size": columns_of("gpt_neox.embed_in.weight"),
        "intermediate_size": rows_of("gpt_neox.layers.0.mlp.dense_h_to_4h.weight"),
    },
    shapes=with_biases({
        "gpt_neox.embed_in.weight": ("vocab_size", "hidden_size"), "embed_out.weight": ("vocab_size", "hidden_size"),
        "gpt_neox.layers.{i}.attention.query_key_value.weight": (product(3, "hidden_size"), "hidden_size"),
        "gpt_neox.layers.{i}.attention.dense.weight": ("hidden_size", "hidden_size"),
        "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight": ("intermediate_size", "hidden_size"),
        "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight": ("hidden_size", "intermediate_size"),
        "gpt_neox.final_layer_norm.weight": ("hidden_size",),
        **alike((f"gpt_neox.layers.{{i}}.{name}_layernorm" for name in ("input", "post_attention")), "hidden_size"),
    }),
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "hidden_act": ("gelu", None), "tie_word_embeddings": (False, None)},
    tokenizer={"tokenizer_class": {"gpt-2": "GPTNeoXTokenizer", "olmo": "GPTNeoXTokenizer"}},
    aliases={"rope_parameters.partial_rotary_factor": "rotary_pct", "rope_parameters.rope_theta": "rotary_emb_base"},
    placement=Placement(
        "gpt_neox.layers.{i}", ("gpt_neox.embed_in",), ("gpt_neox.final_layer_norm", "embed_out"),
        kv_elements=product(2, "hidden_size"),
    ),
)  # fmt: skip

ARCHITECTURES = (GPT_NEOX,)
