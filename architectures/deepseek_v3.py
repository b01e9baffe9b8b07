"""DeepSeek V3 and R1: as V2, but experts are scored by sigmoids, with a correction of each expert's score.

GGUF calls both `deepseek2`, and has no place for the layers that predict further tokens, which follow the last block.
Source: Transformers `modeling_deepseek_v3`; mlx-lm `deepseek_v3.py` for how it keeps the latent attention.
"""

from dataclasses import replace

from hubclient.architectures import Layout, Pair, block, either, given, present
from hubclient.architectures.decoder import ENDS, INV_FREQ, MLP, NORMS
from hubclient.architectures.deepseek_v2 import BLOCK, CONFIG, COUNT, DEEPSEEK_V2, EXPERTS, GATE, SCORES
from hubclient.architectures.experts import switched
from hubclient.architectures.language.latent import ATTENTION, KV_B

CORRECTION = "mlp.gate.e_score_correction_bias"
CORRECTIONS = f"{BLOCK}.{CORRECTION}"
CORRECTED = either({**EXPERTS, CORRECTION: "exp_probs_b.bias"}, MLP)
FURTHER = {"i": "num_nextn_predict_layers"}
OF_FURTHER = tuple(
    f"{BLOCK}.{name}.weight" for name in ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head")
)
GGUF = Layout.of(
    ENDS,
    block(BLOCK, "blk.{i}", NORMS, ATTENTION, CORRECTED),
    name="deepseek2", drop=INV_FREQ, omit=OF_FURTHER, further=FURTHER,
)  # fmt: skip
MLX = GGUF.following(
    switched(COUNT),
    block(BLOCK, BLOCK, {"self_attn.kv_b_proj.weight": KV_B >> ("self_attn.embed_q.weight", "self_attn.unembed_out.weight")}),
    name="deepseek_v3", omit=OF_FURTHER, keep=(GATE,), wide=(CORRECTIONS,), further=FURTHER,
)  # fmt: skip

DEEPSEEK_V3 = replace(
    DEEPSEEK_V2, name="deepseek_v3", hf=("DeepseekV3ForCausalLM", "DeepseekV3Model"), model_type="deepseek_v3",
    config=(*CONFIG, Pair("scoring_func", "expert_gating_func", "u32", codes=SCORES, null=SCORES["sigmoid"])),
    aliases={"num_local_experts": COUNT, "num_mtp_layers": "num_nextn_predict_layers"},
    defaults={
        **DEEPSEEK_V2.defaults, "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
        "num_attention_heads": 128, "max_position_embeddings": 4096, "first_k_dense_replace": 3, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
        "norm_topk_prob": True, "moe_intermediate_size": 2048, "num_nextn_predict_layers": 1,
    },
    layouts={"gguf": GGUF, "mlx": MLX},
    implied={
        **DEEPSEEK_V2.implied, "topk_method": given(CORRECTIONS, "noaux_tc"), "num_nextn_predict_layers": given(CORRECTIONS, 0),
    },
    shapes={**DEEPSEEK_V2.shapes, CORRECTIONS: (COUNT,)},
    assumed={
        **DEEPSEEK_V2.assumed, "scoring_func": ("sigmoid", None), "topk_method": ("noaux_tc", None),
        "rope_interleave": (True, None),
    },
    when=present(CORRECTIONS),
)  # fmt: skip

ARCHITECTURES = (DEEPSEEK_V3,)
