"""StarCoder 2: layer norms and a plain feed-forward part, biases everywhere. Source: Transformers `modeling_starcoder2`."""

from dataclasses import replace

from hubclient.architectures import ROPE, Architecture, Layout, biased, block, f32, optional, present, ratio, rows_of, with_biases
from hubclient.architectures.decoder import ATTENTION, COUNTS, ENDS, INV_FREQ, PLACEMENT, ROPE_TYPES, SHAPES, TIED
from hubclient.architectures.qwen2 import BIASES
from hubclient.architectures.qwen3 import OUTPUT_BIAS

NORMS = biased({"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"})
MLP = {
    "mlp.c_fc.weight": "ffn_up.weight",
    "mlp.c_proj.weight": "ffn_down.weight",
    **optional({"mlp.c_fc.bias": "ffn_up.bias", "mlp.c_proj.bias": "ffn_down.bias"}),
}
GGUF = Layout.of(
    {**ENDS, "model.norm.bias": "output_norm.bias"},
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, BIASES, OUTPUT_BIAS, MLP),
    drop=INV_FREQ,
)

STARCODER2 = Architecture(
    name="starcoder2", hf=("Starcoder2ForCausalLM", "Starcoder2Model"), model_type="starcoder2", prefix="model.",
    config=(*COUNTS, f32("norm_epsilon", "attention.layer_norm_epsilon"), *ROPE),
    defaults={
        "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24,
        "num_key_value_heads": 2, "head_dim": ratio("hidden_size", "num_attention_heads"), "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5, "rope_theta": 10000.0, "use_bias": True, "tie_word_embeddings": True,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()},
    implied={
        **TIED, "intermediate_size": rows_of("model.layers.0.mlp.c_fc.weight"),
        "use_bias": present("model.layers.0.self_attn.q_proj.bias"),
    },
    shapes=with_biases({
        **SHAPES, "model.layers.{i}.mlp.c_fc.weight": ("intermediate_size", "hidden_size"),
        "model.layers.{i}.mlp.c_proj.weight": ("hidden_size", "intermediate_size"),
    }),
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "sliding_window": (None,), "hidden_act": ("gelu_pytorch_tanh", None)},
    placement=replace(PLACEMENT, window="sliding_window"),
)  # fmt: skip

ARCHITECTURES = (STARCODER2,)
