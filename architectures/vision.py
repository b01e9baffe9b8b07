"""What vision towers share: the metadata of projector files, and the tables of CLIP and SigLIP towers.

Source: llama.cpp `tools/mtmd/clip.cpp` and `clip-impl.h`; Transformers `modeling_clip`, `modeling_siglip`.
"""

from collections.abc import Mapping

from hubclient.architectures import Expr, Fixed, Flags, Pairs, alike, biased, f32, numbers, u32, with_biases

VISION: Pairs = (
    Fixed("has_vision_encoder", "bool", value=True),
    u32("hidden_size", "vision.projection_dim"),
    u32("vision_config.patch_size", "vision.patch_size"),
    numbers("preprocessor.image_mean", "vision.image_mean", "[f32]"),
    numbers("preprocessor.image_std", "vision.image_std", "[f32]"),
)
SIZES: Pairs = (
    u32("vision_config.image_size", "vision.image_size"),
    u32("vision_config.hidden_size", "vision.embedding_length"),
    u32("vision_config.intermediate_size", "vision.feed_forward_length"),
    u32("vision_config.num_hidden_layers", "vision.block_count"),
    u32("vision_config.num_attention_heads", "vision.attention.head_count"),
)
EPSILON: Pairs = (f32("vision_config.layer_norm_eps", "vision.attention.layer_norm_epsilon"),)
ACTIVATION = Flags("vision_config.hidden_act", {"gelu": "use_gelu", "gelu_pytorch_tanh": "use_gelu", "silu": "use_silu"})

TOWER: Mapping[str, Expr] = {"v": "vision_config.num_hidden_layers"}
CLIP = "vision_tower.vision_model"
CLIP_BLOCKS = f"{CLIP}.encoder.layers.{{v}}"
CLIP_BLOCK = biased({
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
})  # fmt: skip
PATCHES = {
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
}
WIDTH, FEED, PATCH = "vision_config.hidden_size", "vision_config.intermediate_size", "vision_config.patch_size"
CLIP_SHAPES: Mapping[str, tuple[Expr, ...]] = with_biases({
    f"{CLIP}.embeddings.patch_embedding.weight": (WIDTH, "vision_config.num_channels", PATCH, PATCH),
    f"{CLIP}.embeddings.class_embedding": (WIDTH,),
    **alike((f"{CLIP_BLOCKS}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")), WIDTH, WIDTH),
    f"{CLIP_BLOCKS}.mlp.fc1.weight": (FEED, WIDTH),
    f"{CLIP_BLOCKS}.mlp.fc2.weight": (WIDTH, FEED),
    **alike((f"{CLIP_BLOCKS}.layer_norm1", f"{CLIP_BLOCKS}.layer_norm2"), WIDTH),
    **alike((f"{CLIP}.pre_layrnorm", f"{CLIP}.post_layernorm"), WIDTH),
})  # fmt: skip
CLIP_DEFAULTS = {
    "vision_config.hidden_size": 768,
    "vision_config.intermediate_size": 3072,
    "vision_config.num_hidden_layers": 12,
    "vision_config.num_attention_heads": 12,
    "vision_config.num_channels": 3,
    "vision_config.image_size": 224,
    "vision_config.patch_size": 32,
    "vision_config.layer_norm_eps": 1e-5,
    "vision_config.hidden_act": "quick_gelu",
}
CLIP_PREFIXES = {  # as Transformers 5 saves them, with its classes' own parts or without
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.vision_tower.vision_model.": f"{CLIP}.",
    "model.vision_tower.": f"{CLIP}.",
    f"{CLIP}.": f"{CLIP}.",
    "vision_tower.": f"{CLIP}.",
    "lm_head.": "language_model.lm_head.",
}
