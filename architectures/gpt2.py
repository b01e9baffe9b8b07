"""GPT-2: learned positions, fused qkv, Conv1D weights stored (in, out). Source: Transformers `modeling_gpt2`."""

from hubclient.architectures import (
    Architecture, Layout, Placement, absent, alike, block, columns_of, f32, optional, product, rows_of, transpose, u32, with_biases,
)  # fmt: skip

ENDS = {
    "transformer.wte.weight": "token_embd.weight",
    "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
    **optional({"lm_head.weight": "output.weight"}),
}
BLOCK = {
    "ln_1.weight": "attn_norm.weight",
    "ln_1.bias": "attn_norm.bias",
    "attn.c_attn.weight": transpose >> "attn_qkv.weight",
    "attn.c_attn.bias": "attn_qkv.bias",
    "attn.c_proj.weight": transpose >> "attn_output.weight",
    "attn.c_proj.bias": "attn_output.bias",
    "ln_2.weight": "ffn_norm.weight",
    "ln_2.bias": "ffn_norm.bias",
    "mlp.c_fc.weight": transpose >> "ffn_up.weight",
    "mlp.c_fc.bias": "ffn_up.bias",
    "mlp.c_proj.weight": transpose >> "ffn_down.weight",
    "mlp.c_proj.bias": "ffn_down.bias",
}
GGUF = Layout.of(
    ENDS, block("transformer.h.{i}", "blk.{i}", BLOCK),
    drop=("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"),  # causal masks
)  # fmt: skip
MLX = GGUF.following(
    {name: name.replace("transformer.", "model.") for name in map(str, ENDS) if name != "lm_head.weight"},
    block(
        "transformer.h.{i}", "model.h.{i}",
        {name: name if isinstance(to, str) else transpose >> name for name, to in BLOCK.items()},
    ),
    omit=("lm_head.weight",),  # always tied there
)  # fmt: skip

GPT2 = Architecture(
    name="gpt2", hf=("GPT2LMHeadModel", "GPT2Model"), model_type="gpt2", prefix="transformer.", blocks="n_layer",
    config=(
        u32("n_layer", "block_count"), u32("n_positions", "context_length"), u32("n_embd", "embedding_length"),
        u32("n_inner", "feed_forward_length"), u32("n_head", "attention.head_count"),
        f32("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ),
    defaults={
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": product(4, "n_embd"),
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    layouts={"gguf": GGUF, "mlx": MLX},
    implied={
        "tie_word_embeddings": absent("lm_head.weight"), "vocab_size": rows_of("transformer.wte.weight"),
        "n_embd": columns_of("transformer.wte.weight"), "n_positions": rows_of("transformer.wpe.weight"),
        "n_inner": columns_of("transformer.h.0.mlp.c_fc.weight"),
    },
    shapes=with_biases({
        "transformer.wte.weight": ("vocab_size", "n_embd"), "transformer.wpe.weight": ("n_positions", "n_embd"),
        **alike(("transformer.h.{i}.ln_1", "transformer.h.{i}.ln_2", "transformer.ln_f"), "n_embd"),
        "transformer.h.{i}.attn.c_attn.weight": ("n_embd", product(3, "n_embd")),
        "transformer.h.{i}.attn.c_proj.weight": ("n_embd", "n_embd"), "transformer.h.{i}.mlp.c_fc.weight": ("n_embd", "n_inner"),
        "transformer.h.{i}.mlp.c_proj.weight": ("n_inner", "n_embd"),
    }, out=-1),
    assumed={
        "activation_function": ("gelu_new", None), "scale_attn_weights": (True, None),
        "scale_attn_by_inverse_layer_idx": (False, None),
    },
    tokenizer={"tokenizer_class": {"gpt-2": "GPT2Tokenizer"}},
    placement=Placement(
        "transformer.h.{i}", ("transformer.wte", "transformer.wpe"), ("transformer.ln_f", "lm_head"),
        {"lm_head": "transformer.wte"}, kv_elements=product(2, "n_embd"),
    ),
)  # fmt: skip

ARCHITECTURES = (GPT2,)
