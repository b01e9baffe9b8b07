"""Qwen 2 and 3 with experts: every block has a router and experts, Qwen 2 also one that every token goes through.

Source: Transformers `modeling_qwen2_moe`, `modeling_qwen3_moe`; llama.cpp `models/qwen2moe.cpp`, `models/qwen3moe.cpp`.
"""

from dataclasses import replace

from hubclient.architectures import Architecture, Layout, block, either, given, present, ratio, u32
from hubclient.architectures.decoder import (
    ATTENTION, BIASED, DECODER, ENDS, HEAD_DIM, INV_FREQ, MLP, NORMS, SHAPES, TIED,
)  # fmt: skip
from hubclient.architectures.experts import ROUTER, SIZE, counts, shapes, shared, stacked, switched
from hubclient.architectures.qwen2 import BIASES, QWEN2
from hubclient.architectures.qwen3 import OUTPUT_BIAS, QK_NORMS, QWEN3

COUNT, GATE = "num_experts", "model.layers.{i}.mlp.gate.weight"
EXPERTS = {**ROUTER, **stacked(COUNT)}
ONE_MORE = {"mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight", **shared("shared_expert")}
BLOCK2 = block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, BIASES, either({**EXPERTS, **ONE_MORE}, MLP))
BLOCK3 = block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, BIASES, QK_NORMS, OUTPUT_BIAS, either(EXPERTS, MLP))
GGUF2 = Layout.of(ENDS, BLOCK2, name="qwen2moe", drop=INV_FREQ)
GGUF3 = Layout.of(ENDS, BLOCK3, name="qwen3moe", drop=INV_FREQ)
ALL_SPARSE = {"mlp_only_layers": ([], None), "decoder_sparse_step": (1, None)}  # llama.cpp knows no dense block
PLACEMENT = replace(QWEN2.placement, experts=("mlp.experts",))

QWEN2_MOE = replace(
    QWEN2, name="qwen2_moe", hf=("Qwen2MoeForCausalLM", "Qwen2MoeModel"), model_type="qwen2_moe",
    config=(
        *DECODER, *counts(COUNT), *SIZE, u32("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ),
    defaults={
        **QWEN2.defaults, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "norm_topk_prob": False,
    },
    layouts={"gguf": GGUF2, "mlx": GGUF2.following(switched(COUNT), name="qwen2_moe")},
    implied={**TIED, "qkv_bias": present("model.layers.0.self_attn.q_proj.bias")},
    shapes={
        **SHAPES, **shapes(COUNT, "shared_expert", "shared_expert_intermediate_size"),
        "model.layers.{i}.mlp.shared_expert_gate.weight": (1, "hidden_size"),
    },
    assumed={**QWEN2.assumed, **ALL_SPARSE, "norm_topk_prob": (False,)},
    placement=PLACEMENT,
)  # fmt: skip

QWEN3_MOE: Architecture = replace(
    QWEN2_MOE, name="qwen3_moe", hf=("Qwen3MoeForCausalLM", "Qwen3MoeModel"), model_type="qwen3_moe",
    config=(*DECODER, *HEAD_DIM, *counts(COUNT), *SIZE),
    aliases={"num_local_experts": "num_experts"},
    defaults={
        **QWEN2.defaults, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_key_value_heads": 4,
        "head_dim": ratio("hidden_size", "num_attention_heads"), "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "norm_topk_prob": False,
    },
    layouts={
        "gguf": GGUF3, "mlx": GGUF3.following(switched(COUNT), name="qwen3_moe", bits={GATE: (8, 64)}),
    },
    implied={**TIED, **BIASED, "norm_topk_prob": given(GATE, value=True)},
    shapes={**QWEN3.shapes, **shapes(COUNT)},
    assumed={**QWEN2.assumed, **ALL_SPARSE, "norm_topk_prob": (True,)},
    placement=replace(QWEN3.placement, experts=("mlp.experts",)),
)  # fmt: skip

ARCHITECTURES = (QWEN2_MOE, QWEN3_MOE)
