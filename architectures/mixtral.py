"""Mixtral, which GGUF calls Llama: the same attention, experts in place of the feed-forward part.

Source: Transformers `modeling_mixtral`; llama.cpp `models/llama.cpp`.
"""

from dataclasses import replace

from hubclient.architectures import Architecture, Layout, block, columns_of, present, product, stack
from hubclient.architectures.decoder import ENDS, INV_FREQ, NORMS, ROPE_TYPES, SHAPES, TIED
from hubclient.architectures.experts import counts
from hubclient.architectures.llama import ATTENTION, LLAMA

PARTS = {"w1": "gate", "w2": "down", "w3": "up"}
STACK = stack("e", "num_local_experts")
EXPERTS = {
    "block_sparse_moe.gate.weight": "ffn_gate_inp.weight",
    **{f"block_sparse_moe.experts.{{e}}.{hf}.weight": STACK >> f"ffn_{part}_exps.weight" for hf, part in PARTS.items()},
}
SWITCHED = {
    f"block_sparse_moe.experts.{{e}}.{hf}.weight": STACK >> f"block_sparse_moe.switch_mlp.{part}_proj.weight"
    for hf, part in PARTS.items()
}
GGUF = Layout.of(ENDS, block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, EXPERTS), name="llama", drop=INV_FREQ)
MOE = "model.layers.{i}.block_sparse_moe"

MIXTRAL = Architecture(
    name="mixtral", hf=("MixtralForCausalLM", "MixtralModel"), model_type="mixtral", prefix="model.",
    config=(*LLAMA.config, *counts("num_local_experts")),
    aliases={"num_experts": "num_local_experts"},
    defaults={
        **LLAMA.defaults, "intermediate_size": 14336, "num_key_value_heads": (8, product("num_attention_heads", 1)),
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    layouts={
        "gguf": GGUF, "mlx": GGUF.following(block("model.layers.{i}", "model.layers.{i}", SWITCHED), name="mixtral"),
    },
    implied={**TIED, "intermediate_size": columns_of("model.layers.0.block_sparse_moe.experts.0.w2.weight")},
    shapes={
        **SHAPES, f"{MOE}.gate.weight": ("num_local_experts", "hidden_size"),
        f"{MOE}.experts.{{e}}.w1.weight": ("intermediate_size", "hidden_size"),
        f"{MOE}.experts.{{e}}.w2.weight": ("hidden_size", "intermediate_size"),
        f"{MOE}.experts.{{e}}.w3.weight": ("intermediate_size", "hidden_size"),
    },
    assumed={"rope_parameters.rope_type": ROPE_TYPES, "hidden_act": ("silu", None), "sliding_window": (None,)},
    when=present("model.layers.0.block_sparse_moe.gate.weight"),
    tokenizer=LLAMA.tokenizer,
    placement=replace(LLAMA.placement, experts=("block_sparse_moe.experts",), renamed={"block_sparse_moe": "mlp"}),
)  # fmt: skip

ARCHITECTURES = (MIXTRAL,)
