"""LLaVA 1.5: a CLIP tower and a two-layer projector before Llama. Source: Transformers `modeling_llava`, `modeling_clip`."""

from dataclasses import replace

from hubclient.architectures import Fixed, Layout, Placement, block
from hubclient.architectures.llama import LLAMA
from hubclient.architectures.vision import ACTIVATION, CLIP_BLOCK, CLIP_DEFAULTS, EPSILON, POST_NORM, SIZES, TOWER, VISION

TEXT = LLAMA.within("language_model", mlx="language_model")
ENDS = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
    **POST_NORM,
}
PROJECTOR = {
    "multi_modal_projector.linear_1.weight": "mm.0.weight",
    "multi_modal_projector.linear_1.bias": "mm.0.bias",
    "multi_modal_projector.linear_2.weight": "mm.2.weight",
    "multi_modal_projector.linear_2.bias": "mm.2.bias",
}
MMPROJ = Layout.of(
    PROJECTOR,
    block("vision_tower", "", ENDS),
    block("vision_tower.encoder.layers.{v}", "v.blk.{v}", CLIP_BLOCK),
    name="clip",
    drop=("vision_tower.embeddings.position_ids",),
)
PREFIXES = {
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.vision_tower.vision_model.": "vision_tower.",
    "model.vision_tower.": "vision_tower.",
    "vision_tower.vision_model.": "vision_tower.",
    "lm_head.": "language_model.lm_head.",
}

LLAVA = replace(
    TEXT,
    name="llava",
    hf=("LlavaForConditionalGeneration",),
    model_type="llava",
    nested="llama",
    prefixes=PREFIXES,
    repeats=TOWER,
    defaults={**TEXT.defaults, **CLIP_DEFAULTS},
    projector=(*VISION, *SIZES, *EPSILON, ACTIVATION, Fixed("projector_type", "str", "mlp")),
    layouts={
        "gguf": replace(TEXT.layouts["gguf"], name="llama"),
        "mlx": replace(TEXT.layouts["mlx"].leaving(MMPROJ), name="llava"),
        "mmproj": MMPROJ,
    },
    assumed={
        **TEXT.assumed,
        "vision_config.model_type": ("clip_vision_model", None),
        "vision_feature_layer": (-2, None),
        "vision_feature_select_strategy": ("default", None),
        "projector_hidden_act": ("gelu", None),
    },
    look_alike="llama",
    placement=Placement(
        "language_model.model.layers.{i}",
        ("vision_tower", "multi_modal_projector", "language_model.model.embed_tokens"),
        ("language_model.model.norm", "language_model.lm_head"),
        {"language_model.lm_head": "language_model.model.embed_tokens"},
        kv_elements=TEXT.placement.kv_elements,
    ),
)

ARCHITECTURES = (LLAVA,)
