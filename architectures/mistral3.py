"""Mistral 3: a Pixtral tower, a patch merger and a projector before Mistral.

Source: Transformers `modeling_mistral3`, `modeling_pixtral`; llama.cpp `conversion/llava.py`.
"""

from dataclasses import replace

from hubclient.architectures import Fixed, Layout, alike, block, optional, present, product, rope, u32, with_biases
from hubclient.architectures.language.imaging import Also
from hubclient.architectures.llama import MISTRAL
from hubclient.architectures.vision import ACTIVATION, FEED, PATCH, SIZES, TOWER, VISION, WIDTH

TEXT = MISTRAL.within("language_model", mlx="language_model")
TOWER_BLOCKS, HEADS = "vision_tower.transformer.layers.{v}", rope("vision_config.num_attention_heads")
BLOCK = {
    "attention.q_proj.weight": HEADS >> "attn_q.weight",
    "attention.k_proj.weight": HEADS >> "attn_k.weight",
    "attention.v_proj.weight": "attn_v.weight",
    "attention.o_proj.weight": "attn_out.weight",
    "attention_norm.weight": "ln1.weight",
    "ffn_norm.weight": "ln2.weight",
    "feed_forward.gate_proj.weight": "ffn_gate.weight",
    "feed_forward.up_proj.weight": "ffn_up.weight",
    "feed_forward.down_proj.weight": "ffn_down.weight",
}
PROJECTOR = {
    "linear_1.weight": "mm.1.weight",
    **optional({"linear_1.bias": "mm.1.bias"}),
    "linear_2.weight": "mm.2.weight",
    **optional({"linear_2.bias": "mm.2.bias"}),
    "norm.weight": "mm.input_norm.weight",
    "patch_merger.merging_layer.weight": "mm.patch_merger.weight",
}
MMPROJ = Layout.of(
    block("multi_modal_projector", "", PROJECTOR),
    block("vision_tower", "", {"patch_conv.weight": "v.patch_embd.weight", "ln_pre.weight": "v.pre_ln.weight"}),
    block(TOWER_BLOCKS, "v.blk.{v}", BLOCK),
    name="clip", drop=("v.token_embd.img_break",),
)  # fmt: skip
MERGED = product("spatial_merge_size", "spatial_merge_size")

MISTRAL3 = replace(
    TEXT, name="mistral3", hf=("Mistral3ForConditionalGeneration",), model_type="mistral3", nested="mistral",
    outer=("spatial_merge_size", "multimodal_projector_bias"),
    prefixes={
        "model.language_model.": "language_model.model.", "model.multi_modal_projector.": "multi_modal_projector.",
        "model.vision_tower.": "vision_tower.", "lm_head.": "language_model.lm_head.",
    },
    repeats=TOWER,
    defaults={
        **TEXT.defaults, "vision_config.hidden_size": 1024, "vision_config.intermediate_size": 4096,
        "vision_config.num_hidden_layers": 24, "vision_config.num_attention_heads": 16, "vision_config.num_channels": 3,
        "vision_config.image_size": 1024, "vision_config.patch_size": 16, "vision_config.hidden_act": "gelu",
        "spatial_merge_size": 2,
    },
    projector=(
        *VISION, *SIZES, Fixed("vision.attention.layer_norm_epsilon", "f32", 1e-5),  # written into Transformers' modeling_pixtral
        ACTIVATION, u32("spatial_merge_size", "vision.spatial_merge_size"),
        Also("preprocessor.size.longest_edge", "vision.image_size"), Also("preprocessor.patch_size", "vision.patch_size"),
        Fixed("projector_type", "str", "pixtral"),
    ),
    token_rows={"v.token_embd.img_break": ("language_model.model.embed_tokens.weight", "[IMG_BREAK]")},  # between rows of patches
    layouts={
        "gguf": replace(TEXT.layouts["gguf"], name="mistral3"),
        "mlx": replace(TEXT.layouts["mlx"].leaving(MMPROJ), name="mistral3"), "mmproj": MMPROJ,
    },
    implied={**TEXT.implied, "multimodal_projector_bias": present("multi_modal_projector.linear_1.bias")},
    shapes=with_biases({
        **TEXT.shapes, "vision_tower.patch_conv.weight": (WIDTH, "vision_config.num_channels", PATCH, PATCH),
        **alike((f"{TOWER_BLOCKS}.attention.{x}_proj" for x in "qkvo"), WIDTH, WIDTH),
        **alike((f"{TOWER_BLOCKS}.feed_forward.gate_proj", f"{TOWER_BLOCKS}.feed_forward.up_proj"), FEED, WIDTH),
        f"{TOWER_BLOCKS}.feed_forward.down_proj.weight": (WIDTH, FEED),
        **alike((f"{TOWER_BLOCKS}.attention_norm", f"{TOWER_BLOCKS}.ffn_norm"), WIDTH),
        **alike(("vision_tower.ln_pre", "multi_modal_projector.norm"), WIDTH),
        "multi_modal_projector.patch_merger.merging_layer.weight": (WIDTH, product(MERGED, WIDTH)),
        "multi_modal_projector.linear_1.weight": ("hidden_size", WIDTH),
        "multi_modal_projector.linear_2.weight": ("hidden_size", "hidden_size"),
    }),
    projector_assumed={
        "vision_config.model_type": ("pixtral", None), "vision_config.hidden_act": ("gelu", "silu"),
        "vision_config.rope_theta": (10000.0, None), "vision_config.rope_parameters.rope_theta": (10000.0, None),
        "vision_feature_layer": (-1, None), "projector_hidden_act": ("gelu", None),
    },
    look_alike=None,
    placement=replace(TEXT.placement, first=("vision_tower", "multi_modal_projector", *TEXT.placement.first)),
)  # fmt: skip

ARCHITECTURES = (MISTRAL3,)
