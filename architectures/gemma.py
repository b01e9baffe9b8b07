"""Gemma: Llama with norms stored as w for 1 + w, and heads of their own size. Source: Transformers `modeling_gemma`."""

from hubclient.architectures import Architecture, Layout, Placement, block, product, shift
from hubclient.architectures.decoder import ATTENTION, CONFIG, FIRST, HEAD_DIM, INV_FREQ, LAST, MLP, SHAPES, SIZES

NORM = shift(1.0)
ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": NORM >> "output_norm.weight",
}
NORMS = {
    "input_layernorm.weight": NORM >> "attn_norm.weight",
    "post_attention_layernorm.weight": NORM >> "ffn_norm.weight",
}
GGUF = Layout.of(
    ENDS,
    block("model.layers.{i}", "blk.{i}", NORMS, ATTENTION, MLP),
    drop=(*INV_FREQ, "lm_head.weight"),  # always tied: a stored head repeats the embedding
)

GEMMA = Architecture(
    name="gemma", hf=("GemmaForCausalLM", "GemmaModel"), model_type="gemma", prefix="model.", config=(*CONFIG, *HEAD_DIM),
    defaults={
        "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    layouts={"gguf": GGUF, "mlx": GGUF.following()}, implied=SIZES, shapes=SHAPES,
    assumed={
        "rope_parameters.rope_type": ("default", None), "rope_parameters.rope_theta": (10000.0, None),
        "hidden_act": ("gelu_pytorch_tanh", "gelu", None),  # which Transformers, too, takes for the former
        "use_bidirectional_attention": (None, False), "tie_word_embeddings": (True,),
    },
    tokenizer={
        "add_space_prefix": False, "prefer": "sentencepiece", "tokenizer_class": {"default": "GemmaTokenizer"},
        "default_ids": {"eot": 107},
    },
    placement=Placement(
        "model.layers.{i}", FIRST, LAST, {"lm_head": "model.embed_tokens"},
        kv_elements=product(2, product("num_key_value_heads", "head_dim")),
    ),
)  # fmt: skip

ARCHITECTURES = (GEMMA,)
