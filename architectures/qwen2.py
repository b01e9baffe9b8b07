"""Qwen 2 and 2.5. Source: Transformers `modeling_qwen2`."""

from hubclient.architectures import Architecture, Layout, Placement, block, code, optional, product, ratio
from hubclient.architectures.decoder import ATTENTION, DECODER, ENDS, FIRST, INV_FREQ, LAST, MLP, NORMS, ROPE_TYPES, SHAPES, TIED

POOLING = code("pooling_mode", "pooling_type", {"mean": 1, "cls": 2, "lasttoken": 3})
BIASES = optional(
    {
        "self_attn.q_proj.bias": "attn_q.bias",
        "self_attn.k_proj.bias": "attn_k.bias",
        "self_attn.v_proj.bias": "attn_v.bias",
    }
)
GGUF = Layout.of(ENDS, block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, MLP, BIASES), drop=INV_FREQ)

QWEN2 = Architecture(
    name="qwen2", hf=("Qwen2ForCausalLM", "Qwen2Model"), model_type="qwen2", prefix="model.", config=(*DECODER, POOLING),
    defaults={
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": (32, product("num_attention_heads", 1)), "head_dim": ratio("hidden_size", "num_attention_heads"),
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied=TIED, shapes=SHAPES,
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "use_sliding_window": (False, None), "hidden_act": ("silu", None)},
    tokenizer={"prefer": "sentencepiece", "tokenizer_class": {"qwen2": "Qwen2Tokenizer", "gpt-2": "Qwen2Tokenizer"}},
    placement=Placement(
        "model.layers.{i}", FIRST, LAST, {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", ratio("hidden_size", "num_attention_heads"))),
    ),
)  # fmt: skip

ARCHITECTURES = (QWEN2,)
