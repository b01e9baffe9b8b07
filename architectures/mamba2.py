"""Mamba 2: a state space with heads and groups. Source: Transformers `modeling_mamba2`, llama.cpp `models/mamba2.cpp`."""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Layout, block, f32, negative_exp, product, ratio, reshape, squeeze, total, u32, with_biases,
)  # fmt: skip
from hubclient.architectures.mamba import CHANNELS_LAST, ENDS, INNER, MAMBA, SHAPES, SIZES, UNUSED

COLUMN = ~squeeze(-1)
MIXER = {
    "in_proj.weight": "ssm_in.weight",
    "conv1d.weight": squeeze(1) >> "ssm_conv1d.weight",
    "conv1d.bias": "ssm_conv1d.bias",
    "dt_bias": "ssm_dt.bias",
    "A_log": negative_exp >> COLUMN >> "ssm_a",
    "D": COLUMN >> "ssm_d",
    "norm.weight": reshape(of=(INNER,), to=("n_groups", ratio(INNER, "n_groups"))) >> "ssm_norm.weight",
    "out_proj.weight": "ssm_out.weight",
}
GGUF = Layout.of(
    ENDS,
    block("backbone.layers.{i}", "blk.{i}", {"norm.weight": "attn_norm.weight"}),
    block("backbone.layers.{i}.mixer", "blk.{i}", MIXER),
)
CONVOLVED = total(INNER, product(2, product("n_groups", "state_size")))

MAMBA2: Architecture = replace(
    MAMBA, name="mamba2", hf=("Mamba2ForCausalLM", "Mamba2Model"), model_type="mamba2",
    prefixes={**MAMBA.prefixes, "model.backbone.": "backbone.", "model.lm_head.": "lm_head."},  # Codestral Mamba
    config=(
        *UNUSED, u32("hidden_size", "embedding_length"), u32("num_hidden_layers", "block_count"),
        u32("conv_kernel", "ssm.conv_kernel"), u32(INNER, "ssm.inner_size"), u32("state_size", "ssm.state_size"),
        u32("num_heads", "ssm.time_step_rank"), u32("n_groups", "ssm.group_count"),
        f32("layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
    ),
    defaults={
        "num_heads": 128, "head_dim": (64, ratio(INNER, "num_heads")), "vocab_size": 32768, "hidden_size": 4096,
        "state_size": 128, "num_hidden_layers": 64, "layer_norm_epsilon": 1e-5, "expand": (2, ratio(INNER, "hidden_size")),
        "conv_kernel": 4, "n_groups": 8, INNER: product("expand", "hidden_size"), "tie_word_embeddings": False,
    },
    layouts={
        "gguf": GGUF,
        "mlx": GGUF.following(
            {"backbone.layers.{i}.mixer.conv1d.weight": CHANNELS_LAST >> "backbone.layers.{i}.mixer.conv1d.weight"},
        ),
    },
    implied=SIZES,
    shapes=with_biases({
        **SHAPES, "backbone.layers.{i}.mixer.in_proj.weight": (total(total(INNER, CONVOLVED), "num_heads"), "hidden_size"),
        "backbone.layers.{i}.mixer.conv1d.weight": (CONVOLVED, 1, "conv_kernel"),
        "backbone.layers.{i}.mixer.dt_bias": ("num_heads",),
        "backbone.layers.{i}.mixer.A_log": ("num_heads",), "backbone.layers.{i}.mixer.D": ("num_heads",),
        "backbone.layers.{i}.mixer.norm.weight": (INNER,),
    }),
    assumed={"hidden_act": ("silu", None), "head_dim": ratio(INNER, "num_heads")},
    placement=replace(MAMBA.placement, state_elements=total(product(INNER, "state_size"), product(CONVOLVED, "conv_kernel"))),
)  # fmt: skip

ARCHITECTURES = (MAMBA2,)
