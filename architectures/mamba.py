"""Mamba: a state space in every block, no attention. Source: Transformers `modeling_mamba`, llama.cpp `models/mamba.cpp`."""

from collections.abc import Mapping

from hubclient.architectures import (
    Architecture, Expr, Fact, Fixed, Layout, Placement, absent, block, columns_of, f32, negative_exp, optional, present, product,
    ratio, rounded_up, rows_of, squeeze, total, u32, with_biases,
)  # fmt: skip

ENDS = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    **optional({"lm_head.weight": "output.weight"}),
}
MIXER = {
    "in_proj.weight": "ssm_in.weight",
    "conv1d.weight": squeeze(1) >> "ssm_conv1d.weight",
    "conv1d.bias": "ssm_conv1d.bias",
    "x_proj.weight": "ssm_x.weight",
    "dt_proj.weight": "ssm_dt.weight",
    "dt_proj.bias": "ssm_dt.bias",
    "A_log": negative_exp >> "ssm_a",
    "D": "ssm_d",
    "out_proj.weight": "ssm_out.weight",
}
CHANNELS_LAST = squeeze(1) >> ~squeeze(-1)  # of a convolution with one input channel
GGUF = Layout.of(
    ENDS,
    block("backbone.layers.{i}", "blk.{i}", {"norm.weight": "attn_norm.weight"}),
    block("backbone.layers.{i}.mixer", "blk.{i}", MIXER),
)
# What llama.cpp wants of models without attention or a longest context.
UNUSED = (
    Fixed("context_length", "u32", 1 << 20),
    Fixed("feed_forward_length", "u32", 0),
    Fixed("attention.head_count", "u32", 0),
)
SIZES: Mapping[str, Fact] = {
    "tie_word_embeddings": absent("lm_head.weight"),
    "vocab_size": rows_of("backbone.embeddings.weight"),
    "hidden_size": columns_of("backbone.embeddings.weight"),
    "conv_kernel": columns_of("backbone.layers.0.mixer.conv1d.weight"),
    "use_bias": present("backbone.layers.0.mixer.in_proj.bias"),
    "use_conv_bias": present("backbone.layers.0.mixer.conv1d.bias"),
}
INNER = "intermediate_size"
SHAPES: Mapping[str, tuple[Expr, ...]] = {
    "backbone.embeddings.weight": ("vocab_size", "hidden_size"),
    "lm_head.weight": ("vocab_size", "hidden_size"),
    "backbone.norm_f.weight": ("hidden_size",),
    "backbone.layers.{i}.norm.weight": ("hidden_size",),
    "backbone.layers.{i}.mixer.out_proj.weight": ("hidden_size", INNER),
}

MAMBA = Architecture(
    name="mamba", hf=("MambaForCausalLM", "MambaModel"), model_type="mamba", prefix="backbone.",
    prefixes={"backbone.embedding.": "backbone.embeddings."},
    config=(
        *UNUSED, u32("hidden_size", "embedding_length"), u32("num_hidden_layers", "block_count"),
        u32("conv_kernel", "ssm.conv_kernel"), u32(INNER, "ssm.inner_size"), u32("state_size", "ssm.state_size"),
        u32("time_step_rank", "ssm.time_step_rank"), f32("layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
        Fixed("ssm.dt_b_c_rms", "bool", value=False, only=True),  # true for Falcon Mamba
    ),
    defaults={
        "vocab_size": 50280, "hidden_size": 768, "state_size": 16, "num_hidden_layers": 32, "layer_norm_epsilon": 1e-5,
        "expand": (2, ratio(INNER, "hidden_size")), "conv_kernel": 4, INNER: product("expand", "hidden_size"),
        "time_step_rank": rounded_up("hidden_size", 16), "tie_word_embeddings": True,
    },
    layouts={
        "gguf": GGUF,
        "mlx": GGUF.following(
            {"backbone.layers.{i}.mixer.conv1d.weight": CHANNELS_LAST >> "backbone.layers.{i}.mixer.conv1d.weight"},
        ),
    },
    implied=SIZES,
    shapes=with_biases({
        **SHAPES, "backbone.layers.{i}.mixer.in_proj.weight": (product(2, INNER), "hidden_size"),
        "backbone.layers.{i}.mixer.conv1d.weight": (INNER, 1, "conv_kernel"),
        "backbone.layers.{i}.mixer.x_proj.weight": (total("time_step_rank", product(2, "state_size")), INNER),
        "backbone.layers.{i}.mixer.dt_proj.weight": (INNER, "time_step_rank"),
        "backbone.layers.{i}.mixer.A_log": (INNER, "state_size"), "backbone.layers.{i}.mixer.D": (INNER,),
    }),
    assumed={"expand": (2,), "hidden_act": ("silu", None)},
    placement=Placement(
        "backbone.layers.{i}", ("backbone.embeddings",), ("backbone.norm_f", "lm_head"), {"lm_head": "backbone.embeddings"},
        state_elements=product(INNER, total("state_size", "conv_kernel")),  # llama.cpp keeps one column less of the latter
    ),
)  # fmt: skip

ARCHITECTURES = (MAMBA,)
