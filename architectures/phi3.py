"""Phi 3 and 4: Llama with fused projections, part of each head rotated, LongRoPE. Source: Transformers `modeling_phi3`."""

from hubclient.architectures import (
    Architecture, Layout, LongRopeFactors, LongRopeScale, Placement, Share, block, f32, product, ratio, total, u32,
)  # fmt: skip
from hubclient.architectures.decoder import CONFIG, ENDS, ENDS_SHAPES, FIRST, HIDDEN, INV_FREQ, LAST, NORMS, TIED

BLOCK = {
    "self_attn.qkv_proj.weight": "attn_qkv.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
HEAD = ratio("hidden_size", "num_attention_heads")
GGUF = Layout.of(
    ENDS,
    block("model.layers.{i}", "blk.{i}", NORMS, BLOCK),
    drop=INV_FREQ,
    derive={
        "rope_factors_long.weight": LongRopeFactors("long_factor", HEAD),
        "rope_factors_short.weight": LongRopeFactors("short_factor", HEAD),
    },
)

PHI3 = Architecture(
    name="phi3", hf=("Phi3ForCausalLM", "Phi3Model"), model_type="phi3", prefix="model.",
    config=(
        *CONFIG, u32("original_max_position_embeddings", "rope.scaling.original_context_length"),
        Share("partial_rotary_factor", of=HEAD, key="rope.dimension_count"), f32("rope_parameters.rope_theta", "rope.freq_base"),
        LongRopeScale(), u32("sliding_window", "attention.sliding_window", null=0),
    ),
    defaults={
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": product("num_attention_heads", 1), "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
        "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied=TIED,
    shapes={
        **ENDS_SHAPES, "model.layers.{i}.input_layernorm.weight": HIDDEN,
        "model.layers.{i}.post_attention_layernorm.weight": HIDDEN,
        "model.layers.{i}.self_attn.qkv_proj.weight": (
            total("hidden_size", product(2, product("num_key_value_heads", HEAD))), "hidden_size",
        ),
        "model.layers.{i}.self_attn.o_proj.weight": ("hidden_size", "hidden_size"),
        "model.layers.{i}.mlp.gate_up_proj.weight": (product(2, "intermediate_size"), "hidden_size"),
        "model.layers.{i}.mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
    },
    assumed={"rope_parameters.rope_type": ("default", "longrope", None), "hidden_act": ("silu", None)},
    tokenizer={"prefer": "sentencepiece", "trust_special": True},
    placement=Placement(
        "model.layers.{i}", FIRST, LAST, {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", HEAD)), window="sliding_window",
    ),
)  # fmt: skip

ARCHITECTURES = (PHI3,)
