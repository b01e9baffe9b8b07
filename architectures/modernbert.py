"""ModernBERT: rotary positions, gates, and windows in all but every third block. Source: Transformers `modeling_modernbert`."""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Fixed, Layout, Placement, alike, block, code, columns_of, f32, optional, present, product, rows_of, text, u32,
    with_biases,
)  # fmt: skip
from hubclient.architectures.bert import ENCODING, LABELS
from hubclient.architectures.language.periods import FirstOf

EMBEDDINGS = {
    "model.embeddings.tok_embeddings.weight": "token_embd.weight",
    "model.embeddings.norm.weight": "token_embd_norm.weight",
    "model.final_norm.weight": "output_norm.weight",
}
BLOCK = {
    **optional({"attn_norm.weight": "attn_norm.weight"}),  # the first block has none
    "attn.Wqkv.weight": "attn_qkv.weight",
    "attn.Wo.weight": "attn_output.weight",
    "mlp_norm.weight": "ffn_norm.weight",
    "mlp.Wi.weight": "ffn_up.weight",
    "mlp.Wo.weight": "ffn_down.weight",
}
ENCODER = (EMBEDDINGS, block("model.layers.{i}", "blk.{i}", BLOCK))
HEAD = {
    "head.dense.weight": "cls.weight",
    "head.norm.weight": "cls.norm.weight",
    "classifier.weight": "cls.output.weight",
    "classifier.bias": "cls.output.bias",
}
MASKED = ("head.dense.weight", "head.norm.weight", "decoder.weight", "decoder.bias")

MODERNBERT = Architecture(
    name="modernbert", hf=("ModernBertModel", "ModernBertForMaskedLM"), model_type="modernbert", prefix="model.",
    config=(
        u32("num_hidden_layers", "block_count"), u32("max_position_embeddings", "context_length"),
        u32("hidden_size", "embedding_length"), u32("intermediate_size", "feed_forward_length"),
        u32("num_attention_heads", "attention.head_count"), f32("norm_eps", "attention.layer_norm_epsilon"),
        f32("norm_eps", "attention.layer_norm_rms_epsilon"), f32("rope_parameters.full_attention.rope_theta", "rope.freq_base"),
        f32("rope_parameters.sliding_attention.rope_theta", "rope.freq_base_swa"), Fixed("rope.scaling.type", "str", "none"),
        u32("local_attention", "attention.sliding_window"),
        FirstOf(
            "global_attn_every_n_layers", "layer_types", "full_attention", "sliding_attention",
            "attention.sliding_window_pattern",
        ),
        code("classifier_pooling", "classifier.pooling_type", {"mean": 1, "cls": 2}),
        text("hidden_activation", "hidden_activation"), u32("vocab_size", "vocab_size"), *ENCODING,
    ),
    defaults={
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12,
        "max_position_embeddings": 8192, "norm_eps": 1e-5, "rope_parameters.full_attention.rope_theta": 160000.0,
        "rope_parameters.full_attention.rope_type": "default", "rope_parameters.sliding_attention.rope_theta": 10000.0,
        "rope_parameters.sliding_attention.rope_type": "default", "local_attention": 128,
        "global_attn_every_n_layers": product(3, 1),  # Transformers 5 lists the kinds instead
        "classifier_pooling": "cls", "hidden_activation": "gelu",
    },
    aliases={
        "global_rope_theta": "rope_parameters.full_attention.rope_theta",
        "local_rope_theta": "rope_parameters.sliding_attention.rope_theta",
    },
    layouts={"gguf": Layout.of(*ENCODER, name="modern-bert", omit=MASKED)},
    implied={
        "vocab_size": rows_of("model.embeddings.tok_embeddings.weight"),
        "hidden_size": columns_of("model.embeddings.tok_embeddings.weight"),
        "intermediate_size": columns_of("model.layers.0.mlp.Wo.weight"),
    },
    shapes=with_biases({
        "model.embeddings.tok_embeddings.weight": ("vocab_size", "hidden_size"),
        "model.layers.{i}.attn.Wqkv.weight": (product(3, "hidden_size"), "hidden_size"),
        "model.layers.{i}.attn.Wo.weight": ("hidden_size", "hidden_size"),
        "model.layers.{i}.mlp.Wi.weight": (product(2, "intermediate_size"), "hidden_size"),
        "model.layers.{i}.mlp.Wo.weight": ("hidden_size", "intermediate_size"), "head.dense.weight": ("hidden_size", "hidden_size"),
        **alike(("model.embeddings.norm", "model.final_norm", "head.norm"), "hidden_size"),
        **alike(("model.layers.{i}.attn_norm", "model.layers.{i}.mlp_norm"), "hidden_size"),
    }),
    assumed={
        "hidden_activation": ("gelu", "silu"), "classifier_activation": ("gelu", None), "rope_scaling": (None,),
        "rope_parameters.full_attention.rope_type": ("default",), "rope_parameters.sliding_attention.rope_type": ("default",),
    },
    tokenizer={
        "add_default": {"bos": True, "eos": True, "sep": True}, "tokenizer_class": {"modern-bert": "PreTrainedTokenizerFast"},
    },
    placement=Placement("model.layers.{i}", ("model.embeddings",), ("model.final_norm", "head", "decoder", "classifier")),
)  # fmt: skip

MODERNBERT_CLASSIFIER = replace(
    MODERNBERT, name="modernbert-classifier", hf=("ModernBertForSequenceClassification",), config=(*MODERNBERT.config, LABELS),
    defaults={**MODERNBERT.defaults, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    layouts={"gguf": Layout.of(*ENCODER, HEAD, name="modern-bert")},
    when=present("classifier.weight"),
)  # fmt: skip

ARCHITECTURES = (MODERNBERT, MODERNBERT_CLASSIFIER)
