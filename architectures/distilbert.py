"""DistilBERT: BERT without kinds of tokens and without a pooler. Source: Transformers `modeling_distilbert`."""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Fixed, Layout, Placement, absent, alike, all_of, biased, block, columns_of, misread, present, rows_of, u32,
    with_biases,
)  # fmt: skip
from hubclient.architectures.bert import ENCODING, LABELS

EMBEDDINGS = {
    "distilbert.embeddings.word_embeddings.weight": "token_embd.weight",
    "distilbert.embeddings.position_embeddings.weight": "position_embd.weight",
    "distilbert.embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "distilbert.embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
BLOCK = biased({
    "attention.q_lin": "attn_q",
    "attention.k_lin": "attn_k",
    "attention.v_lin": "attn_v",
    "attention.out_lin": "attn_output",
    "sa_layer_norm": "attn_output_norm",
    "ffn.lin1": "ffn_up",
    "ffn.lin2": "ffn_down",
    "output_layer_norm": "layer_output_norm",
})  # fmt: skip
ENCODER = (EMBEDDINGS, block("distilbert.transformer.layer.{i}", "blk.{i}", BLOCK))
HEAD = {
    "pre_classifier.weight": misread("llama.cpp applies tanh behind it where the model applies ReLU") >> "cls.weight",
    "pre_classifier.bias": "cls.bias",
    "classifier.weight": "cls.output.weight",
    "classifier.bias": "cls.output.bias",
}
MASKED = tuple(f"vocab_{name}.{part}" for name in ("transform", "layer_norm", "projector") for part in ("weight", "bias"))
LAYER = "distilbert.transformer.layer.{i}"

DISTILBERT = Architecture(
    name="distilbert", hf=("DistilBertModel", "DistilBertForMaskedLM"), model_type="distilbert", prefix="distilbert.",
    blocks="n_layers",
    config=(
        u32("n_layers", "block_count"), u32("max_position_embeddings", "context_length"), u32("dim", "embedding_length"),
        u32("hidden_dim", "feed_forward_length"), u32("n_heads", "attention.head_count"),
        Fixed("attention.layer_norm_epsilon", "f32", 1e-12), Fixed("tokenizer.ggml.token_type_count", "u32", 1), *ENCODING,
    ),
    defaults={"vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768, "hidden_dim": 3072},
    aliases={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    layouts={"gguf": Layout.of(*ENCODER, name="bert", drop=("distilbert.embeddings.position_ids",), omit=MASKED)},
    implied={
        "vocab_size": rows_of("distilbert.embeddings.word_embeddings.weight"),
        "dim": columns_of("distilbert.embeddings.word_embeddings.weight"),
        "max_position_embeddings": rows_of("distilbert.embeddings.position_embeddings.weight"),
        "hidden_dim": rows_of("distilbert.transformer.layer.0.ffn.lin1.weight"),
    },
    shapes=with_biases({
        "distilbert.embeddings.word_embeddings.weight": ("vocab_size", "dim"),
        "distilbert.embeddings.position_embeddings.weight": ("max_position_embeddings", "dim"),
        **alike((*(f"{LAYER}.attention.{x}_lin" for x in ("q", "k", "v", "out")), "pre_classifier"), "dim", "dim"),
        **alike(("distilbert.embeddings.LayerNorm", f"{LAYER}.sa_layer_norm", f"{LAYER}.output_layer_norm"), "dim"),
        f"{LAYER}.ffn.lin1.weight": ("hidden_dim", "dim"), f"{LAYER}.ffn.lin2.weight": ("dim", "hidden_dim"),
    }),
    assumed={"activation": ("gelu", None)},
    when=all_of(
        present("distilbert.embeddings.word_embeddings.weight"), absent("token_types.weight"), absent("cls.output.weight"),
    ),
    placement=Placement(
        "distilbert.transformer.layer.{i}", ("distilbert.embeddings",),
        ("vocab_transform", "vocab_layer_norm", "vocab_projector", "pre_classifier", "classifier"),
    ),
)  # fmt: skip

DISTILBERT_CLASSIFIER = replace(
    DISTILBERT, name="distilbert-classifier", hf=("DistilBertForSequenceClassification",), config=(*DISTILBERT.config, LABELS),
    defaults={**DISTILBERT.defaults, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    layouts={"gguf": Layout.of(*ENCODER, HEAD, name="bert", drop=("distilbert.embeddings.position_ids",))},
    when=all_of(absent("token_types.weight"), present("classifier.weight")),
)  # fmt: skip

ARCHITECTURES = (DISTILBERT, DISTILBERT_CLASSIFIER)
