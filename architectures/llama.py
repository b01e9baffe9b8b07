"""Llama, and Mistral, which llama.cpp runs as Llama. Source: Transformers `modeling_llama`, `modeling_mistral`."""

from dataclasses import replace

from hubclient.architectures import Architecture, Layout, Llama3Factors, block, optional, present, product, ratio, rope, u32
from hubclient.architectures.decoder import (
    BIASED, DECODER, ENDS, HEAD_DIM, INV_FREQ, MLP, NORMS, PLACEMENT, ROPE_TYPES, SHAPES, TIED,
)  # fmt: skip

HEADS, KV_HEADS = rope("num_attention_heads", "head_dim"), rope("num_key_value_heads", "head_dim")
ATTENTION = {
    "self_attn.q_proj.weight": HEADS >> "attn_q.weight",
    "self_attn.k_proj.weight": KV_HEADS >> "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
}
BIASES = optional(
    {
        "self_attn.q_proj.bias": HEADS >> "attn_q.bias",
        "self_attn.k_proj.bias": KV_HEADS >> "attn_k.bias",
        "self_attn.v_proj.bias": "attn_v.bias",
        "self_attn.o_proj.bias": "attn_output.bias",
        "mlp.gate_proj.bias": "ffn_gate.bias",
        "mlp.up_proj.bias": "ffn_up.bias",
        "mlp.down_proj.bias": "ffn_down.bias",
    }
)
GGUF = Layout.of(
    ENDS,
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, MLP, BIASES),
    drop=INV_FREQ,
    derive={"rope_freqs.weight": Llama3Factors("head_dim")},
)

LLAMA = Architecture(
    name="llama", hf=("LlamaForCausalLM", "LlamaModel"), model_type="llama", prefix="model.",
    config=(*DECODER, *HEAD_DIM, u32("vocab_size", "vocab_size"), u32("head_dim", "rope.dimension_count")),
    defaults={
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": product("num_attention_heads", 1), "head_dim": ratio("hidden_size", "num_attention_heads"),
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()},
    implied={**TIED, **BIASED, "mlp_bias": present("model.layers.0.mlp.gate_proj.bias")},
    shapes=SHAPES,
    assumed={"rope_parameters.rope_type": (*ROPE_TYPES, "llama3"), "hidden_act": ("silu", None)},
    tokenizer={"add_space_prefix": "tokenizer_config", "prefer": "sentencepiece"},
    placement=PLACEMENT,
)  # fmt: skip

MISTRAL = replace(
    LLAMA, name="mistral", hf=("MistralForCausalLM", "MistralModel"), model_type="mistral",
    defaults={
        **LLAMA.defaults, "intermediate_size": 14336, "num_key_value_heads": (8, product("num_attention_heads", 1)),
        "max_position_embeddings": 131072, "sliding_window": 4096,
    },
    layouts={"gguf": replace(GGUF, name="llama"), "mlx": GGUF.following()},
    shapes=SHAPES,
    assumed={**LLAMA.assumed, "sliding_window": (None,)},
    look_alike="llama",
    placement=replace(LLAMA.placement, window="sliding_window"),
)  # fmt: skip

ARCHITECTURES = (LLAMA, MISTRAL)
