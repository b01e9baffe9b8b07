"""Qwen 3: Qwen 2 with a head size of its own and normalised queries and keys. Source: Transformers `modeling_qwen3`."""

from dataclasses import replace

from hubclient.architectures import Architecture, Layout, block, optional, product
from hubclient.architectures.decoder import ATTENTION, BIASED, DECODER, ENDS, HEAD_DIM, INV_FREQ, MLP, NORMS, SHAPES, TIED
from hubclient.architectures.qwen2 import BIASES, POOLING, QWEN2

QK_NORMS = {
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
}
OUTPUT_BIAS = optional({"self_attn.o_proj.bias": "attn_output.bias"})
GGUF = Layout.of(ENDS, block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, QK_NORMS, MLP, BIASES, OUTPUT_BIAS), drop=INV_FREQ)

QWEN3: Architecture = replace(
    QWEN2, name="qwen3", hf=("Qwen3ForCausalLM", "Qwen3Model"), model_type="qwen3", config=(*DECODER, *HEAD_DIM, POOLING),
    defaults={**QWEN2.defaults, "head_dim": 128}, layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied={**TIED, **BIASED},
    shapes={
        **SHAPES, "model.layers.{i}.self_attn.q_norm.weight": ("head_dim",),
        "model.layers.{i}.self_attn.k_norm.weight": ("head_dim",),
    },
    placement=replace(QWEN2.placement, kv_elements=product(2, product("num_key_value_heads", "head_dim"))),
)  # fmt: skip

ARCHITECTURES = (QWEN3,)
