"""Gemma 2: norms before and after each half, stored as w in Transformers and as w + 1 in GGUF.

Source: Transformers `modeling_gemma2`; llama.cpp `models/gemma2.cpp` for what it takes the query scale to be.
"""

from hubclient.architectures import (
    Architecture, Kinds, Layout, Placement, block, by_value, every, f32, listed, product, ratio, shift, u32,
)  # fmt: skip
from hubclient.architectures.decoder import ATTENTION, CONFIG, FIRST, HEAD_DIM, HIDDEN, INV_FREQ, MLP, SHAPES, SIZES

NORM = shift(1.0)
ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": NORM >> "output_norm.weight",
}
NORMS = {
    "input_layernorm.weight": NORM >> "attn_norm.weight",
    "post_attention_layernorm.weight": NORM >> "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": NORM >> "ffn_norm.weight",
    "post_feedforward_layernorm.weight": NORM >> "post_ffw_norm.weight",
}
PATTERN = "attention.sliding_window_pattern"
GGUF = Layout.of(
    ENDS,
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, MLP),
    drop=(*INV_FREQ, "lm_head.weight"),  # always tied: a stored head repeats the embedding
)

GEMMA2 = Architecture(
    name="gemma2", hf=("Gemma2ForCausalLM", "Gemma2Model"), model_type="gemma2", prefix="model.",
    config=(
        *CONFIG, *HEAD_DIM, f32("attn_logit_softcapping", "attn_logit_softcapping"),
        f32("final_logit_softcapping", "final_logit_softcapping"), u32("sliding_window", "attention.sliding_window"),
        Kinds("layer_types", PATTERN, "sliding_attention", "full_attention", assume=every(2), otherwise=every(2)),
    ),
    defaults={
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096, "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied=SIZES,
    shapes={
        **SHAPES, "model.layers.{i}.pre_feedforward_layernorm.weight": HIDDEN,
        "model.layers.{i}.post_feedforward_layernorm.weight": HIDDEN,
    },
    assumed={
        "rope_parameters.rope_type": ("default", None), "rope_parameters.rope_theta": (10000.0, None),
        "query_pre_attn_scalar": by_value("num_hidden_layers", {46: ratio("hidden_size", "num_attention_heads")}, "head_dim"),
        "hidden_activation": ("gelu_pytorch_tanh", None), "tie_word_embeddings": (True,),
    },
    tokenizer={"add_space_prefix": False, "prefer": "sentencepiece", "tokenizer_class": {"default": "GemmaTokenizer"}},
    placement=Placement(
        "model.layers.{i}", FIRST, ("model.norm", "lm_head"), {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", "head_dim")), window="sliding_window",
        window_in=listed("layer_types", "sliding_attention", every(2)),
    ),
)  # fmt: skip

ARCHITECTURES = (GEMMA2,)
