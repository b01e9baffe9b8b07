"""OLMo 2: norms behind attention and feed-forward, and of all queries and all keys. Source: Transformers `modeling_olmo2`."""

from hubclient.architectures import Architecture, Layout, block, product, ratio
from hubclient.architectures.decoder import (
    ATTENTION, BIASED, DECODER, ENDS, HIDDEN, INV_FREQ, KV, MLP, PLACEMENT, ROPE_TYPES, SHAPES, TIED, Q,
)  # fmt: skip
from hubclient.architectures.qwen2 import BIASES
from hubclient.architectures.qwen3 import QK_NORMS

NORMS = {
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}
GGUF = Layout.of(ENDS, block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, QK_NORMS, BIASES, MLP), drop=INV_FREQ)

OLMO2 = Architecture(
    name="olmo2", hf=("Olmo2ForCausalLM", "Olmo2Model"), model_type="olmo2", prefix="model.", config=DECODER,
    defaults={
        "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": product("num_attention_heads", 1), "head_dim": ratio("hidden_size", "num_attention_heads"),
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied={**TIED, **BIASED},
    shapes={
        **SHAPES, "model.layers.{i}.post_feedforward_layernorm.weight": HIDDEN, "model.layers.{i}.self_attn.q_norm.weight": (Q,),
        "model.layers.{i}.self_attn.k_norm.weight": (KV,),
    },
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "hidden_act": ("silu", None), "tie_word_embeddings": (False,)},
    placement=PLACEMENT,
)  # fmt: skip

ARCHITECTURES = (OLMO2,)
