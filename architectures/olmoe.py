"""OLMoE: experts in every block, and norms of all queries and all keys. Source: Transformers `modeling_olmoe`."""

from dataclasses import replace

from hubclient.architectures import Architecture, Layout, block, columns_of, product, ratio
from hubclient.architectures.decoder import (
    ATTENTION, BIASED, DECODER, ENDS, INV_FREQ, KV, NORMS, PLACEMENT, ROPE_TYPES, SHAPES, TIED, Q,
)  # fmt: skip
from hubclient.architectures.experts import ROUTER, counts, shapes, stacked, switched
from hubclient.architectures.qwen3 import QK_NORMS

COUNT, BLOCK = "num_experts", "model.layers.{i}"
GGUF = Layout.of(ENDS, block(BLOCK, "blk.{i}", NORMS, ATTENTION, QK_NORMS, ROUTER, stacked(COUNT)), drop=INV_FREQ)

OLMOE = Architecture(
    name="olmoe", hf=("OlmoeForCausalLM", "OlmoeModel"), model_type="olmoe", prefix="model.", config=(*DECODER, *counts(COUNT)),
    aliases={"num_local_experts": COUNT},
    defaults={
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": product("num_attention_heads", 1), "head_dim": ratio("hidden_size", "num_attention_heads"),
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "num_experts": 64, "num_experts_per_tok": 8,
        "tie_word_embeddings": False,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following(switched(COUNT), name="olmoe")},
    implied={**TIED, **BIASED, "intermediate_size": columns_of("model.layers.0.mlp.experts.0.down_proj.weight")},
    shapes={
        **SHAPES, **shapes(COUNT, inner="intermediate_size"), f"{BLOCK}.self_attn.q_norm.weight": (Q,),
        f"{BLOCK}.self_attn.k_norm.weight": (KV,),
    },
    assumed={
        "rope_parameters.rope_type": ROPE_TYPES, "hidden_act": ("silu", None), "clip_qkv": (None,),
        "norm_topk_prob": (False, None),
    },
    placement=replace(PLACEMENT, experts=("mlp.experts",)),
)  # fmt: skip

ARCHITECTURES = (OLMOE,)
