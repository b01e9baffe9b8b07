"""LLaVA 1.5: a CLIP tower and a two-layer projector before Llama. Source: Transformers `modeling_llava`, `modeling_clip`."""

from dataclasses import replace

from hubclient.architectures import Fixed, Layout, biased, block, with_biases
from hubclient.architectures.language.imaging import Also, FeatureLayers
from hubclient.architectures.llama import LLAMA
from hubclient.architectures.vision import (
    ACTIVATION, CLIP, CLIP_BLOCK, CLIP_BLOCKS, CLIP_DEFAULTS, CLIP_PREFIXES, CLIP_SHAPES, EPSILON, PATCHES, SIZES, TOWER, VISION,
    WIDTH,
)  # fmt: skip

TEXT = LLAMA.within("language_model", mlx="language_model")
ENDS = (PATCHES, {"embeddings.class_embedding": "v.class_embd"}, biased({"pre_layrnorm": "v.pre_ln"}))
PROJECTOR = biased({"linear_1": "mm.0", "linear_2": "mm.2"})
MMPROJ = Layout.of(
    block("multi_modal_projector", "", PROJECTOR), block(CLIP, "", *ENDS), block(CLIP_BLOCKS, "v.blk.{v}", CLIP_BLOCK),
    name="clip", drop=(f"{CLIP}.embeddings.position_ids",),
    omit=(f"{CLIP}.post_layernorm.weight", f"{CLIP}.post_layernorm.bias"),  # LLaVA leaves it out, llama.cpp would apply it
)  # fmt: skip

LLAVA = replace(
    TEXT, name="llava", hf=("LlavaForConditionalGeneration",), model_type="llava", nested="llama",
    outer=("vision_feature_layer",), prefixes=CLIP_PREFIXES, repeats=TOWER,
    defaults={**TEXT.defaults, **CLIP_DEFAULTS, "vision_feature_layer": -2},
    projector=(
        *VISION, *SIZES, *EPSILON, ACTIVATION,
        FeatureLayers("vision_feature_layer", "vision_config.num_hidden_layers", "vision.feature_layer"),
        Also("preprocessor.size.shortest_edge", "vision.image_size"), Also("preprocessor.crop_size.height", "vision.image_size"),
        Also("preprocessor.crop_size.width", "vision.image_size"), Fixed("projector_type", "str", "mlp"),
    ),
    layouts={
        "gguf": replace(TEXT.layouts["gguf"], name="llama"), "mlx": replace(TEXT.layouts["mlx"].leaving(MMPROJ), name="llava"),
        "mmproj": MMPROJ,
    },
    shapes=with_biases({
        **TEXT.shapes, **CLIP_SHAPES, "multi_modal_projector.linear_1.weight": ("hidden_size", WIDTH),
        "multi_modal_projector.linear_2.weight": ("hidden_size", "hidden_size"),
    }),
    projector_assumed={
        "vision_config.model_type": ("clip_vision_model", None),
        "vision_config.hidden_act": ("quick_gelu", "gelu", "gelu_pytorch_tanh", "silu"),
        "vision_feature_select_strategy": ("default", None), "projector_hidden_act": ("gelu", None),
    },
    look_alike="llama",
    placement=replace(TEXT.placement, first=("vision_tower", "multi_modal_projector", *TEXT.placement.first)),
)  # fmt: skip

ARCHITECTURES = (LLAVA,)
