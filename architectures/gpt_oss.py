"""GPT-OSS: experts with biases, published in MXFP4; attention with sinks, every other block within a window.

Transformers interleaves the rows of gate and up projections; blocks of MXFP4 lie along their columns, so their rows can be
sorted as they are. Source: Transformers `modeling_gpt_oss`; llama.cpp `models/openai-moe.cpp`; mlx-lm `gpt_oss.py`.
"""

from hubclient.architectures import (
    Architecture,
    Layout,
    Placement,
    block,
    concat,
    either,
    every,
    given,
    listed,
    present,
    product,
    reshape,
    stored_as,
    transpose,
    u32,
    ungroup,
)
from hubclient.architectures.decoder import ATTENTION, BLOCK_SHAPES, DECODER, ENDS, ENDS_SHAPES, FIRST, HEAD_DIM, LAST, TIED
from hubclient.architectures.experts import counts

COUNT, FEED, BLOCK = "num_local_experts", "intermediate_size", "model.layers.{i}"
BOTH, PAIRS, HALVES = product(2, FEED), product(COUNT, FEED), concat(COUNT, COUNT)
SORTED = ungroup(PAIRS, 1, 1)
GATE_UP = SORTED >> reshape((COUNT, BOTH, None), (product(2, COUNT), FEED, None)) >> ~HALVES
GATE_UP_BIAS = (
    reshape((COUNT, BOTH), (product(COUNT, BOTH),))
    >> SORTED
    >> reshape((product(COUNT, BOTH),), (product(2, COUNT), FEED))
    >> ~HALVES
)
PACKED = ("MXFP4", "MXFP4_PLANES")
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
EXPERTS = {
    **either(
        stored_as(PACKED, {"mlp.experts.gate_up_proj_blocks": GATE_UP >> ("ffn_gate_exps.weight", "ffn_up_exps.weight")}),
        {"mlp.experts.gate_up_proj": transpose >> GATE_UP >> ("ffn_gate_exps.weight", "ffn_up_exps.weight")},
    ),
    **either(
        stored_as(PACKED, {"mlp.experts.down_proj_blocks": "ffn_down_exps.weight"}),
        {"mlp.experts.down_proj": transpose >> "ffn_down_exps.weight"},
    ),
    "mlp.experts.gate_up_proj_bias": GATE_UP_BIAS >> ("ffn_gate_exps.bias", "ffn_up_exps.bias"),
    "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
}
SWITCHED = {
    **stored_as(
        PACKED,
        {
            "mlp.experts.gate_up_proj_blocks": GATE_UP >> ("mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"),
            "mlp.experts.down_proj_blocks": "mlp.experts.down_proj.weight",
        },
    ),
    "mlp.experts.gate_up_proj": transpose >> GATE_UP >> ("mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"),
    "mlp.experts.down_proj": transpose >> "mlp.experts.down_proj.weight",
    "mlp.experts.gate_up_proj_bias": GATE_UP_BIAS >> ("mlp.experts.gate_proj.bias", "mlp.experts.up_proj.bias"),
    "mlp.experts.down_proj_bias": "mlp.experts.down_proj.bias",
}
LAYOUT = Layout.of(ENDS, block(BLOCK, "blk.{i}", ATTENTION, ROUTER, EXPERTS), name="gpt-oss")
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}

GPT_OSS = Architecture(
    name="gpt_oss",
    hf=("GptOssForCausalLM", "GptOssModel"),
    model_type="gpt_oss",
    prefix="model.",
    config=(
        *DECODER,
        *HEAD_DIM,
        *counts(COUNT),
        u32("sliding_window", "attention.sliding_window"),
        u32(FEED, "expert_feed_forward_length"),
    ),
    aliases={"num_experts": COUNT},
    defaults={
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0,
        "rope_scaling": YARN,
        "tie_word_embeddings": False,
    },
    layouts={
        "gguf": LAYOUT,
        "mlx": LAYOUT.following(block(BLOCK, BLOCK, SWITCHED), name="gpt_oss", bits={f"{BLOCK}.mlp.router.weight": (8, 64)}),
    },
    implied={
        **TIED,
        "attention_bias": present("model.layers.0.self_attn.q_proj.bias"),
        "rope_parameters.truncate": given("model.layers.0.self_attn.sinks", value=False),
        "quantization_config": given(f"{BLOCK}.mlp.experts.gate_up_proj_blocks", AS_PUBLISHED),
    },
    shapes={
        **ENDS_SHAPES,
        **BLOCK_SHAPES,
        f"{BLOCK}.self_attn.sinks": ("num_attention_heads",),
        f"{BLOCK}.mlp.router.weight": (COUNT, "hidden_size"),
        f"{BLOCK}.mlp.router.bias": (COUNT,),
        f"{BLOCK}.mlp.experts.gate_up_proj_blocks": (COUNT, BOTH, "hidden_size"),
        f"{BLOCK}.mlp.experts.gate_up_proj": (COUNT, "hidden_size", BOTH),
        f"{BLOCK}.mlp.experts.gate_up_proj_bias": (COUNT, BOTH),
        f"{BLOCK}.mlp.experts.down_proj_blocks": (COUNT, "hidden_size", FEED),
        f"{BLOCK}.mlp.experts.down_proj": (COUNT, FEED, "hidden_size"),
        f"{BLOCK}.mlp.experts.down_proj_bias": (COUNT, "hidden_size"),
    },
    assumed={
        "rope_parameters.rope_type": ("yarn", "default", None),
        "rope_parameters.truncate": (False, None),
        "swiglu_alpha": (1.702, None),
        "swiglu_limit": (7.0, None),
        "hidden_act": ("silu", None),
    },
    placement=Placement(
        BLOCK,
        FIRST,
        LAST,
        {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", "head_dim")),
        window="sliding_window",
        window_in=listed("layer_types", "sliding_attention", every(2)),
        experts=("mlp.experts",),
    ),
)

ARCHITECTURES = (GPT_OSS,)
