"""What vision towers share: the metadata of projector files, and the blocks of CLIP and SigLIP towers.

Source: llama.cpp `tools/mtmd/clip.cpp` and `clip-impl.h`; Transformers `modeling_clip`, `modeling_siglip`.
"""

from collections.abc import Mapping

from hubclient.architectures import Expr, Fixed, Flags, Pairs, f32, numbers, u32

VISION: Pairs = (
    Fixed("has_vision_encoder", "bool", value=True),
    u32("hidden_size", "vision.projection_dim"),
    u32("vision_config.image_size", "vision.image_size"),
    u32("vision_config.patch_size", "vision.patch_size"),
    numbers("preprocessor.image_mean", "vision.image_mean", "[f32]"),
    numbers("preprocessor.image_std", "vision.image_std", "[f32]"),
)
SIZES: Pairs = (
    u32("vision_config.hidden_size", "vision.embedding_length"),
    u32("vision_config.intermediate_size", "vision.feed_forward_length"),
    u32("vision_config.num_hidden_layers", "vision.block_count"),
    u32("vision_config.num_attention_heads", "vision.attention.head_count"),
)
EPSILON: Pairs = (f32("vision_config.layer_norm_eps", "vision.attention.layer_norm_epsilon"),)
ACTIVATION = Flags("vision_config.hidden_act", {"gelu": "use_gelu", "gelu_pytorch_tanh": "use_gelu", "silu": "use_silu"})

TOWER: Mapping[str, Expr] = {"v": "vision_config.num_hidden_layers"}
CLIP_BLOCK = {
    f"{hf}.{part}": f"{gguf}.{part}"
    for hf, gguf in {
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
    }.items()
    for part in ("weight", "bias")
}
POST_NORM = {
    "post_layernorm.weight": "v.post_ln.weight",
    "post_layernorm.bias": "v.post_ln.bias",
}
CLIP_DEFAULTS = {
    "vision_config.hidden_size": 768,
    "vision_config.intermediate_size": 3072,
    "vision_config.num_hidden_layers": 12,
    "vision_config.num_attention_heads": 12,
    "vision_config.image_size": 224,
    "vision_config.patch_size": 32,
    "vision_config.layer_norm_eps": 1e-5,
    "vision_config.hidden_act": "quick_gelu",
}
