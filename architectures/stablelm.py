"""StableLM 2: a part of each head rotated; the 12B with a norm per head of q and k and no second norm in a block.

Sources: Transformers `modeling_stablelm`; llama.cpp `conversion/stablelm.py`, `models/stablelm.cpp`.
"""

from hubclient.architectures import (
    Architecture,
    Layout,
    Share,
    alike,
    biased,
    block,
    boolean,
    f32,
    optional,
    present,
    ratio,
    stack,
)
from hubclient.architectures.decoder import (
    ATTENTION, COUNTS, ENDS, INV_FREQ, MLP, PLACEMENT, ROPE_TYPES, SHAPES, TIED, UNUSUAL_ROPE,
)  # fmt: skip
from hubclient.architectures.qwen2 import BIASES

NORMS = {**biased({"input_layernorm": "attn_norm"}), **optional(biased({"post_attention_layernorm": "ffn_norm"}))}
HEAD_NORMS = optional({
    "self_attn.q_layernorm.norms.{h}.weight": stack("h", "num_attention_heads") >> "attn_q_norm.weight",
    "self_attn.k_layernorm.norms.{h}.weight": stack("h", "num_key_value_heads") >> "attn_k_norm.weight",
})  # fmt: skip
GGUF = Layout.of(
    {**ENDS, "model.norm.bias": "output_norm.bias"},
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, HEAD_NORMS, BIASES, MLP),
    drop=INV_FREQ,
)

STABLELM = Architecture(
    name="stablelm", hf=("StableLmForCausalLM", "StableLmModel"), model_type="stablelm", prefix="model.",
    config=(
        *COUNTS, Share("partial_rotary_factor", ratio("hidden_size", "num_attention_heads"), "rope.dimension_count"),
        boolean("use_parallel_residual", "use_parallel_residual"), f32("layer_norm_eps", "attention.layer_norm_epsilon"),
        *UNUSUAL_ROPE,
    ),
    defaults={
        "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": ratio("hidden_size", "num_attention_heads"), "max_position_embeddings": 4096,
        "layer_norm_eps": 1e-5, "rope_theta": 10000.0, "partial_rotary_factor": 0.25, "use_qkv_bias": False,
        "use_parallel_residual": False, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()},
    implied={
        **TIED, "use_qkv_bias": present("model.layers.0.self_attn.q_proj.bias"),
        "qk_layernorm": present("model.layers.0.self_attn.q_layernorm.norms.0.weight"),
    },
    shapes=SHAPES | alike((f"model.layers.{{i}}.self_attn.{x}_layernorm.norms.{{h}}" for x in "qk"), "head_dim"),
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "hidden_act": ("silu", None), "tie_word_embeddings": (False,)},
    placement=PLACEMENT,
)  # fmt: skip

ARCHITECTURES = (STABLELM,)
