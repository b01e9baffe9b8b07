"""Larch, a decoder that nobody has published: fused qkv with grouped heads, gated MLP, config keys of its own."""

from hubclient.architectures import Architecture, Layout, Placement, absent, block, concat, f32, optional, product, rows_of, u32

HUBCLIENT_API = "1"

Q, KV = product("n_heads", "head_size"), product("n_kv_heads", "head_size")

ENDS = {
    "trunk.embed.weight": "token_embd.weight",
    "trunk.norm.weight": "output_norm.weight",
    **optional({"lm_head.weight": "output.weight"}),
}
BLOCK = {
    "norm1.weight": "attn_norm.weight",
    "attn.qkv.weight": ~concat(Q, KV, KV) >> ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
    "attn.out.weight": "attn_output.weight",
    "norm2.weight": "ffn_norm.weight",
    ("mlp.gate.weight", "mlp.up.weight"): concat("d_ff", "d_ff") >> "ffn_up.weight",
    "mlp.down.weight": "ffn_down.weight",
}

GGUF = Layout.of(ENDS, block("trunk.blocks.{i}", "blk.{i}", BLOCK))

LARCH = Architecture(
    name="larch",
    hf=("LarchForCausalLM",),
    model_type="larch",
    prefix="trunk.",
    blocks="n_blocks",
    config=(
        u32("n_blocks", "block_count"),
        u32("max_length", "context_length"),
        u32("d_model", "embedding_length"),
        u32("d_ff", "feed_forward_length"),
        u32("n_heads", "attention.head_count"),
        u32("n_kv_heads", "attention.head_count_kv"),
        u32("head_size", "attention.key_length"),
        f32("norm_eps", "attention.layer_norm_rms_epsilon"),
        f32("rotary_base", "rope.freq_base"),
    ),
    defaults={"norm_eps": 1e-6, "rotary_base": 10000.0, "tie_word_embeddings": False},
    layouts={"gguf": GGUF, "mlx": GGUF.following()},
    shapes={
        "trunk.embed.weight": ("vocab_size", "d_model"),
        "lm_head.weight": ("vocab_size", "d_model"),
        "trunk.blocks.{i}.attn.out.weight": ("d_model", Q),
        "trunk.blocks.{i}.mlp.down.weight": ("d_model", "d_ff"),
    },
    implied={"tie_word_embeddings": absent("lm_head.weight"), "vocab_size": rows_of("trunk.embed.weight")},
    placement=Placement(
        "trunk.blocks.{i}", ("trunk.embed",), ("trunk.norm", "lm_head"), {"lm_head": "trunk.embed"}, kv_elements=product(2, KV)
    ),
)

ARCHITECTURES = (LARCH,)
