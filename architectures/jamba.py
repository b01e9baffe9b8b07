"""Jamba: one attention block among several Mamba ones, experts in every other block. Source: Transformers `modeling_jamba`."""

from hubclient.architectures import (
    Alternating, Architecture, Layout, Multiple, Placement, absent, alike, block, columns_of, either, every, f32, offset_of,
    optional, others, period_of, product, ratio, rounded_up, rows_of, stack, total, u32, with_biases,
)  # fmt: skip
from hubclient.architectures.decoder import ATTENTION, FIRST, MLP, SHAPES
from hubclient.architectures.mamba import CHANNELS_LAST, MIXER

ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.final_layernorm.weight": "output_norm.weight",
    **optional({"lm_head.weight": "output.weight"}),
}
NORMS = {"input_layernorm.weight": "attn_norm.weight", "pre_ff_layernorm.weight": "ffn_norm.weight"}
MAMBA = {
    **{f"mamba.{name}": to for name, to in MIXER.items()},
    "mamba.dt_layernorm.weight": "ssm_dt_norm.weight",
    "mamba.b_layernorm.weight": "ssm_b_norm.weight",
    "mamba.c_layernorm.weight": "ssm_c_norm.weight",
}
DENSE = {name.replace("mlp.", "feed_forward."): to for name, to in MLP.items()}
STACK = stack("e", "num_experts")
EXPERTS = {
    "feed_forward.router.weight": "ffn_gate_inp.weight",
    "feed_forward.experts.{e}.gate_proj.weight": STACK >> "ffn_gate_exps.weight",
    "feed_forward.experts.{e}.up_proj.weight": STACK >> "ffn_up_exps.weight",
    "feed_forward.experts.{e}.down_proj.weight": STACK >> "ffn_down_exps.weight",
}
SWITCHED = {
    f"feed_forward.experts.{{e}}.{part}.weight": STACK >> f"feed_forward.switch_mlp.{part}.weight"
    for part in ("gate_proj", "up_proj", "down_proj")
}
BLOCK, ROUTER = "model.layers.{i}", "model.layers.{i}.feed_forward.router.weight"
GGUF = Layout.of(
    ENDS,
    block(BLOCK, "blk.{i}", NORMS, either(ATTENTION, MAMBA), either(DENSE, EXPERTS)),
)
INNER, ATTENDING = product("mamba_expand", "hidden_size"), every("attn_layer_period", "attn_layer_offset")

JAMBA = Architecture(
    name="jamba", hf=("JambaForCausalLM", "JambaModel"), model_type="jamba", prefix="model.",
    aliases={"n_ctx": "max_position_embeddings", "num_local_experts": "num_experts"},
    config=(
        u32("num_hidden_layers", "block_count"), u32("max_position_embeddings", "context_length"),
        u32("hidden_size", "embedding_length"), u32("intermediate_size", "feed_forward_length"),
        u32("num_attention_heads", "attention.head_count"),
        Alternating("num_key_value_heads", "attention.head_count_kv", "attn_layer_period", "attn_layer_offset"),
        u32("mamba_d_conv", "ssm.conv_kernel"), Multiple("mamba_expand", "hidden_size", "ssm.inner_size"),
        u32("mamba_d_state", "ssm.state_size"), u32("mamba_dt_rank", "ssm.time_step_rank"),
        f32("rms_norm_eps", "attention.layer_norm_rms_epsilon"), u32("num_experts", "expert_count"),
        u32("num_experts_per_tok", "expert_used_count"),
    ),
    defaults={
        "vocab_size": 65536, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": (8, product("num_attention_heads", 1)), "head_dim": ratio("hidden_size", "num_attention_heads"),
        "rms_norm_eps": 1e-6, "max_position_embeddings": 262144, "num_experts_per_tok": 2, "num_experts": 16,
        "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16,
        "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": rounded_up("hidden_size", 16), "tie_word_embeddings": False,
    },
    layouts={
        "gguf": GGUF,
        "mlx": GGUF.following(
            block(BLOCK, BLOCK, SWITCHED, {"mamba.conv1d.weight": CHANNELS_LAST >> "mamba.conv1d.weight"}),
            bits={ROUTER: (8, 64)},
        ),
    },
    implied={
        "tie_word_embeddings": absent("lm_head.weight"), "vocab_size": rows_of("model.embed_tokens.weight"),
        "hidden_size": columns_of("model.embed_tokens.weight"), "expert_layer_period": period_of(ROUTER),
        "expert_layer_offset": offset_of(ROUTER),
    },
    shapes=with_biases({
        **{
            name.replace("mlp.", "feed_forward.").replace("model.norm", "model.final_layernorm"): sizes
            for name, sizes in SHAPES.items()
        },
        f"{BLOCK}.feed_forward.router.weight": ("num_experts", "hidden_size"),
        f"{BLOCK}.feed_forward.experts.{{e}}.gate_proj.weight": ("intermediate_size", "hidden_size"),
        f"{BLOCK}.feed_forward.experts.{{e}}.up_proj.weight": ("intermediate_size", "hidden_size"),
        f"{BLOCK}.feed_forward.experts.{{e}}.down_proj.weight": ("hidden_size", "intermediate_size"),
        f"{BLOCK}.mamba.in_proj.weight": (product(2, INNER), "hidden_size"),
        f"{BLOCK}.mamba.conv1d.weight": (INNER, 1, "mamba_d_conv"),
        f"{BLOCK}.mamba.x_proj.weight": (total("mamba_dt_rank", product(2, "mamba_d_state")), INNER),
        f"{BLOCK}.mamba.dt_proj.weight": (INNER, "mamba_dt_rank"), f"{BLOCK}.mamba.A_log": (INNER, "mamba_d_state"),
        f"{BLOCK}.mamba.out_proj.weight": ("hidden_size", INNER), f"{BLOCK}.mamba.D": (INNER,),
        **alike((f"{BLOCK}.mamba.b_layernorm", f"{BLOCK}.mamba.c_layernorm"), "mamba_d_state"),
        f"{BLOCK}.mamba.dt_layernorm.weight": ("mamba_dt_rank",), f"{BLOCK}.pre_ff_layernorm.weight": ("hidden_size",),
    }),
    assumed={"mamba_expand": (2,), "hidden_act": ("silu", None), "head_dim": ratio("hidden_size", "num_attention_heads")},
    placement=Placement(
        BLOCK, FIRST, ("model.final_layernorm", "lm_head"), {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", ratio("hidden_size", "num_attention_heads"))), kv_in=ATTENDING,
        state_elements=product(INNER, total("mamba_d_state", "mamba_d_conv")), state_in=others(ATTENDING),
        experts=("feed_forward.experts",),
    ),
)  # fmt: skip

ARCHITECTURES = (JAMBA,)
