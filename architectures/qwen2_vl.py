"""Qwen 2 VL: a tower over pairs of frames and a merger before Qwen 2 with three-part rope.

Source: Transformers `modeling_qwen2_vl`; llama.cpp `conversion/qwenvl.py`.
"""

from dataclasses import replace

from hubclient.architectures import (
    ROPE, Fixed, Layout, Sections, alike, biased, block, concat, each, product, reshape, rows_per_column, u32, ungroup, with_biases,
)  # fmt: skip
from hubclient.architectures.decoder import CONFIG
from hubclient.architectures.language.imaging import Also
from hubclient.architectures.qwen2 import QWEN2
from hubclient.architectures.vision import VISION

TEXT = QWEN2.within(mlx="language_model")
WIDTH, COLOURS, PATCH = "vision_config.embed_dim", "vision_config.in_channels", "vision_config.patch_size"
PLANES = product(WIDTH, COLOURS)  # one image plane per output and colour; a frame pair has two of each
ROWS = product(PLANES, PATCH)
FRAME = reshape(of=(ROWS, PATCH), to=(WIDTH, COLOURS, PATCH, PATCH))
FRAMES = (
    reshape(of=(WIDTH, COLOURS, 2, PATCH, PATCH), to=(product(2, ROWS), PATCH))
    >> ungroup(PLANES, PATCH, PATCH)
    >> ~concat(ROWS, ROWS)
    >> each(FRAME, FRAME)
)
QKV = ~concat(WIDTH, WIDTH, WIDTH)
BLOCK = biased({
    "attn.qkv": QKV >> ("attn_q", "attn_k", "attn_v"), "attn.proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
    "norm1": "ln1", "norm2": "ln2",
})  # fmt: skip
MERGER = biased({"ln_q": "v.post_ln", "mlp.0": "mm.0", "mlp.2": "mm.2"})
MMPROJ = Layout.of(
    {"visual.patch_embed.proj.weight": FRAMES >> ("v.patch_embd.weight", "v.patch_embd.weight.1")},
    block("visual.merger", "", MERGER), block("visual.blocks.{v}", "v.blk.{v}", BLOCK), name="clip",
)  # fmt: skip

QWEN2_VL = replace(
    TEXT, name="qwen2vl", hf=("Qwen2VLForConditionalGeneration",), model_type="qwen2_vl", nested="qwen2_vl_text",
    prefixes={"model.language_model.": "model.", "model.visual.": "visual."},
    repeats={"v": "vision_config.depth"},
    config=(*CONFIG, Sections("rope_parameters.mrope_section", "rope.dimension_sections"), *ROPE),
    defaults={
        **TEXT.defaults, "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": (8, product("num_attention_heads", 1)), "rms_norm_eps": 1e-5,
        "rope_theta": 1e6, "vision_config.depth": 32, "vision_config.embed_dim": 1280, "vision_config.hidden_size": 3584,
        "vision_config.num_heads": 16, "vision_config.in_channels": 3, "vision_config.patch_size": 14,
    },
    projector=(
        Fixed("vision.image_size", "u32", 560),  # as the converter has it where config.json says none: the tower takes any size
        *VISION, u32("vision_config.embed_dim", "vision.embedding_length"),
        u32("vision_config.hidden_size", "vision.feed_forward_length"),  # as the converter has it; tensors tell the true one
        u32("vision_config.depth", "vision.block_count"), u32("vision_config.num_heads", "vision.attention.head_count"),
        Fixed("vision.attention.layer_norm_epsilon", "f32", 1e-6), Also("preprocessor.patch_size", "vision.patch_size"),
        Fixed("projector_type", "str", "qwen2vl_merger"),
    ),
    layouts={
        "gguf": TEXT.layouts["gguf"], "mlx": replace(TEXT.layouts["mlx"].leaving(MMPROJ), name="qwen2_vl"), "mmproj": MMPROJ,
    },
    assumed={
        "rope_parameters.rope_type": ("default", "mrope", None), "use_sliding_window": (False, None),
        "hidden_act": ("silu", None),
    },
    implied={**TEXT.implied, "vision_config.mlp_ratio": rows_per_column("visual.blocks.0.mlp.fc1.weight")},
    shapes=with_biases({
        **TEXT.shapes, "visual.patch_embed.proj.weight": (WIDTH, COLOURS, 2, PATCH, PATCH),
        "visual.blocks.{v}.attn.qkv.weight": (product(3, WIDTH), WIDTH), "visual.blocks.{v}.attn.proj.weight": (WIDTH, WIDTH),
        **alike(("visual.blocks.{v}.norm1", "visual.blocks.{v}.norm2", "visual.merger.ln_q"), WIDTH),
        "visual.blocks.{v}.mlp.fc2.bias": (WIDTH,), "visual.merger.mlp.0.weight": (product(4, WIDTH), product(4, WIDTH)),
        "visual.merger.mlp.2.weight": ("hidden_size", product(4, WIDTH)),
    }),
    projector_assumed={
        "vision_config.temporal_patch_size": (2, None), "vision_config.spatial_merge_size": (2, None),
        "vision_config.hidden_act": ("quick_gelu", None),
    },
    placement=replace(TEXT.placement, first=("visual", *TEXT.placement.first)),
)  # fmt: skip

ARCHITECTURES = (QWEN2_VL,)
