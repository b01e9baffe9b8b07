"""GPT-OSS: experts with biases, published in MXFP4; attention with sinks, every other block within a window.

Source: Transformers `modeling_gpt_oss`; llama.cpp `models/openai-moe.cpp`; mlx-lm `gpt_oss.py`.
"""

from hubclient.architectures import Architecture, Expr, Layout, Placement, block, every, given, listed, present, product, u32
from hubclient.architectures.decoder import ATTENTION, BLOCK_SHAPES, DECODER, ENDS, ENDS_SHAPES, FIRST, HEAD_DIM, LAST, TIED
from hubclient.architectures.experts import counts, interleaved

COUNT, FEED, BLOCK = "num_local_experts", "intermediate_size", "model.layers.{i}"
BOTH = product(2, FEED)
AS_PUBLISHED = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
}
ROUTER = {
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    **{f"self_attn.{part}_proj.bias": f"attn_{part}.bias" for part in "qkv"},
    "self_attn.o_proj.bias": "attn_output.bias",
}
EXPERTS = interleaved(COUNT, FEED, "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SWITCHED = interleaved(COUNT, FEED, "mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj")
GGUF = Layout.of(ENDS, block(BLOCK, "blk.{i}", ATTENTION, ROUTER, EXPERTS), name="gpt-oss")
EXPERT_SIZES: dict[str, tuple[Expr, ...]] = {
    "gate_up_proj_blocks": (BOTH, "hidden_size"),
    "gate_up_proj": ("hidden_size", BOTH),
    "gate_up_proj_bias": (BOTH,),
    "down_proj_blocks": ("hidden_size", FEED),
    "down_proj": (FEED, "hidden_size"),
    "down_proj_bias": ("hidden_size",),
}
YARN = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096}

GPT_OSS = Architecture(
    name="gpt_oss", hf=("GptOssForCausalLM", "GptOssModel"), model_type="gpt_oss", prefix="model.",
    config=(
        *DECODER, *HEAD_DIM, *counts(COUNT), u32("sliding_window", "attention.sliding_window"),
        u32(FEED, "expert_feed_forward_length"),
    ),
    aliases={"num_experts": COUNT},
    defaults={
        "num_hidden_layers": 36, "num_local_experts": 128, "num_experts_per_tok": 4, "vocab_size": 201088, "hidden_size": 2880,
        "intermediate_size": 2880, "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "sliding_window": 128,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 150000.0,
        "rope_scaling": {"rope_type": "yarn", **YARN}, "tie_word_embeddings": False,
    },
    layouts={
        "gguf": GGUF,
        "mlx": GGUF.following(block(BLOCK, BLOCK, SWITCHED), name="gpt_oss", bits={f"{BLOCK}.mlp.router.weight": (8, 64)}),
    },
    implied={
        **TIED, "attention_bias": present("model.layers.0.self_attn.q_proj.bias"),
        "rope_parameters.truncate": given("model.layers.0.self_attn.sinks", value=False),
        "quantization_config": given(f"{BLOCK}.mlp.experts.gate_up_proj_blocks", AS_PUBLISHED),
    },
    shapes={
        **ENDS_SHAPES, **BLOCK_SHAPES, f"{BLOCK}.self_attn.sinks": ("num_attention_heads",),
        f"{BLOCK}.mlp.router.weight": (COUNT, "hidden_size"), f"{BLOCK}.mlp.router.bias": (COUNT,),
        **{f"{BLOCK}.mlp.experts.{name}": (COUNT, *sizes) for name, sizes in EXPERT_SIZES.items()},
    },
    assumed={
        "rope_parameters.rope_type": ("yarn", "default", None), "rope_parameters.truncate": (False, None),
        "swiglu_alpha": (1.702, None), "swiglu_limit": (7.0, None), "hidden_act": ("silu", None),
    },
    placement=Placement(
        BLOCK, FIRST, LAST, {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", "head_dim")), window="sliding_window",
        window_in=listed("layer_types", "sliding_attention", every(2)), experts=("mlp.experts",),
    ),
)  # fmt: skip

ARCHITECTURES = (GPT_OSS,)
