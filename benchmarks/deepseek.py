"""DeepSeek-V3's names and dimensions: 61 blocks, 256 experts in each but the first three, one block that looks ahead.

Source: the published config.json and index. As published the matrices of the blocks are 8-bit floats, with a scale for each
128 x 128 of them; people convert them to bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BLOCK = 128
_SCALED = tuple(
    f"{name}.weight" for name in ("_mqa", "q_a_proj", "q_b_proj", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
)
_ATTENTION_NORMS = ("input_layernorm", "post_attention_layernorm")
Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class DeepSeekV3:
    """Dimensions, and how many shards there are. Weights are holes; `further` blocks predict tokens after the next."""

    hidden: int = 7168
    layers: int = 61
    dense: int = 3
    experts: int = 256
    heads: int = 128
    intermediate: int = 18432
    expert_width: int = 2048
    query_rank: int = 1536
    latent: int = 512
    nope: int = 128
    rope: int = 64
    value: int = 128
    vocab: int = 129280
    further: int = 1
    shards: int = 160
    sparse: bool = True
    scaled: bool = False

    def tensors(self) -> Shapes:
        """Names and shapes in the order of the modules."""
        for name, shape in self._tensors():
            yield name, shape
            if self.scaled and name.endswith(_SCALED):
                yield f"{name}_scale_inv", tuple(-(-size // _BLOCK) for size in shape)

    def _tensors(self) -> Shapes:
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        for layer in range(self.layers + self.further):
            block = f"model.layers.{layer}"
            if layer >= self.layers:
                yield f"{block}.embed_tokens.weight", (self.vocab, self.hidden)
                yield f"{block}.enorm.weight", (self.hidden,)
                yield f"{block}.hnorm.weight", (self.hidden,)
                yield f"{block}.eh_proj.weight", (self.hidden, 2 * self.hidden)
            yield from self._attention(f"{block}.self_attn")
            yield from self._feed_forward(f"{block}.mlp", layer)
            yield from ((f"{block}.{name}.weight", (self.hidden,)) for name in _ATTENTION_NORMS)
            if layer >= self.layers:
                yield f"{block}.shared_head.norm.weight", (self.hidden,)
                yield f"{block}.shared_head.head.weight", (self.vocab, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocab, self.hidden)

    def dtype(self, name: str) -> str:
        """The corrections of the experts' scores are wider than everything else, matrices of blocks narrower if scaled."""
        if name.endswith(("e_score_correction_bias", "_scale_inv")):
            return "F32"
        return "F8_E4M3" if self.scaled and name.endswith(_SCALED) else "BF16"

    def _attention(self, module: str) -> Shapes:
        yield f"{module}.q_a_proj.weight", (self.query_rank, self.hidden)
        yield f"{module}.q_a_layernorm.weight", (self.query_rank,)
        yield f"{module}.q_b_proj.weight", (self.heads * (self.nope + self.rope), self.query_rank)
        yield f"{module}.kv_a_proj_with_mqa.weight", (self.latent + self.rope, self.hidden)
        yield f"{module}.kv_a_layernorm.weight", (self.latent,)
        yield f"{module}.kv_b_proj.weight", (self.heads * (self.nope + self.value), self.latent)
        yield f"{module}.o_proj.weight", (self.hidden, self.heads * self.value)

    def _feed_forward(self, module: str, layer: int) -> Shapes:
        if layer < self.dense:
            yield from self._gated(module, self.intermediate)
            return
        yield f"{module}.gate.weight", (self.experts, self.hidden)
        yield f"{module}.gate.e_score_correction_bias", (self.experts,)
        for expert in range(self.experts):
            yield from self._gated(f"{module}.experts.{expert}", self.expert_width)
        yield from self._gated(f"{module}.shared_experts", self.expert_width)

    def _gated(self, module: str, width: int) -> Shapes:
        yield f"{module}.gate_proj.weight", (width, self.hidden)
        yield f"{module}.up_proj.weight", (width, self.hidden)
        yield f"{module}.down_proj.weight", (self.hidden, width)

    def config(self) -> dict[str, Any]:
        """config.json's content."""
        blocks = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [_BLOCK, _BLOCK]}
        return {
            **({"quantization_config": blocks} if self.scaled else {}),
            "architectures": ["DeepseekV3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "first_k_dense_replace": self.dense,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "kv_lora_rank": self.latent,
            "max_position_embeddings": 163840,
            "model_type": "deepseek_v3",
            "moe_intermediate_size": self.expert_width,
            "moe_layer_freq": 1,
            "n_group": 8,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_attention_heads": self.heads,
            "num_experts_per_tok": 8,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.heads,
            "num_nextn_predict_layers": self.further,
            "q_lora_rank": self.query_rank,
            "qk_nope_head_dim": self.nope,
            "qk_rope_head_dim": self.rope,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
            "rope_theta": 10000,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": False,
            "topk_group": 4,
            "topk_method": "noaux_tc",
            "torch_dtype": "bfloat16",
            "v_head_dim": self.value,
            "vocab_size": self.vocab,
        }
