"""Gemma 3 with its SigLIP tower, whose patches are averaged, normalised and projected before the text part.

Source: Transformers `modeling_gemma3`, `modeling_siglip`; llama.cpp `conversion/gemma.py`.
"""

from dataclasses import replace

from hubclient.architectures import Fixed, Layout, biased, block, present
from hubclient.architectures.gemma2 import NORM
from hubclient.architectures.gemma3 import GEMMA3
from hubclient.architectures.language.imaging import Also, PooledTokens
from hubclient.architectures.vision import (
    CLIP, CLIP_BLOCK, CLIP_BLOCKS, CLIP_DEFAULTS, CLIP_PREFIXES, CLIP_SHAPES, EPSILON, PATCHES, SIZES, TOWER, VISION, WIDTH,
)  # fmt: skip

TEXT = GEMMA3.within("language_model", mlx="language_model")
ENDS = (PATCHES, {"embeddings.patch_embedding.bias": "v.patch_embd.bias"}, biased({"post_layernorm": "v.post_ln"}))
PROJECTOR = {
    "mm_input_projection_weight": "mm.input_projection.weight",
    "mm_soft_emb_norm.weight": NORM >> "mm.soft_emb_norm.weight",
}
HEAD = (
    "attention.in_proj_bias", "attention.in_proj_weight", "attention.out_proj.bias", "attention.out_proj.weight",
    "layernorm.bias", "layernorm.weight", "mlp.fc1.bias", "mlp.fc1.weight", "mlp.fc2.bias", "mlp.fc2.weight", "probe",
)  # fmt: skip
MMPROJ = Layout.of(
    block("multi_modal_projector", "", PROJECTOR), block(CLIP, "", *ENDS), block(CLIP_BLOCKS, "v.blk.{v}", CLIP_BLOCK),
    name="clip", drop=(f"{CLIP}.embeddings.position_ids",),
    omit=tuple(f"{CLIP}.head.{part}" for part in HEAD),  # pools a whole image, which Gemma does not ask for
)  # fmt: skip

GEMMA3_VISION = replace(
    TEXT, name="gemma3_vision", hf=("Gemma3ForConditionalGeneration",), model_type="gemma3", nested="gemma3_text",
    outer=("mm_tokens_per_image",), prefixes=CLIP_PREFIXES, repeats=TOWER,
    defaults={
        **TEXT.defaults, **CLIP_DEFAULTS, "vision_config.patch_size": 16, "vision_config.layer_norm_eps": 1e-6,
        "vision_config.hidden_act": "gelu_pytorch_tanh", "mm_tokens_per_image": 256,
    },
    projector=(
        *VISION, *SIZES, *EPSILON, Fixed("use_gelu", "bool", value=True),
        PooledTokens(
            "mm_tokens_per_image", "vision_config.image_size", "vision_config.patch_size", "vision.projector.scale_factor",
        ),
        Also("preprocessor.size.height", "vision.image_size"), Also("preprocessor.size.width", "vision.image_size"),
        Fixed("projector_type", "str", "gemma3"),
    ),
    layouts={
        "gguf": replace(TEXT.layouts["gguf"], name="gemma3"), "mlx": replace(TEXT.layouts["mlx"].leaving(MMPROJ), name="gemma3"),
        "mmproj": MMPROJ,
    },
    implied={**TEXT.implied, "vision_config.vision_use_head": present(f"{CLIP}.head.probe")},
    shapes={
        **TEXT.shapes, **CLIP_SHAPES, "multi_modal_projector.mm_input_projection_weight": (WIDTH, "hidden_size"),
        "multi_modal_projector.mm_soft_emb_norm.weight": (WIDTH,),
    },
    projector_assumed={
        "vision_config.model_type": ("siglip_vision_model", None), "vision_config.hidden_act": ("gelu_pytorch_tanh", "gelu"),
    },
    look_alike="gemma3",
    placement=replace(TEXT.placement, first=("vision_tower", "multi_modal_projector", *TEXT.placement.first)),
)  # fmt: skip

ARCHITECTURES = (GEMMA3_VISION,)
