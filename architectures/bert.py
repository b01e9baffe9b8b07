"""BERT: encoders for embeddings, and sequence classifiers with their pooler. Source: Transformers `modeling_bert`."""

from dataclasses import replace

from hubclient.architectures import (
    Architecture, Fixed, Layout, Placement, alike, all_of, biased, block, columns_of, f32, labels, present, rows_of, says, u32,
    with_biases,
)  # fmt: skip
from hubclient.architectures.qwen2 import POOLING

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
BLOCK = biased({
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
})  # fmt: skip
ENCODER = ({f"bert.{hf}": gguf for hf, gguf in EMBEDDINGS.items()}, block("bert.encoder.layer.{i}", "blk.{i}", BLOCK))
POSITION_IDS = ("bert.embeddings.position_ids",)
POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
PRETRAINING = (
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
)
HEAD = {  # llama.cpp applies cls, tanh, cls.output: the classifier and the pooler before it
    "bert.pooler.dense.weight": "cls.weight",
    "bert.pooler.dense.bias": "cls.bias",
    "classifier.weight": "cls.output.weight",
    "classifier.bias": "cls.output.bias",
}
ENCODING = (Fixed("attention.causal", "bool", value=False), POOLING)
SIZES = (
    u32("num_hidden_layers", "block_count"),
    u32("hidden_size", "embedding_length"),
    u32("intermediate_size", "feed_forward_length"),
    u32("num_attention_heads", "attention.head_count"),
    f32("layer_norm_eps", "attention.layer_norm_epsilon"),
    u32("type_vocab_size", "tokenizer.ggml.token_type_count"),
)
LABELS = labels("id2label", "classifier.output_labels")
LAYER = "encoder.layer.{i}"
SHAPES = with_biases({
    "embeddings.word_embeddings.weight": ("vocab_size", "hidden_size"),
    "embeddings.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
    "embeddings.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
    **{f"{LAYER}.attention.self.{x}.weight": ("hidden_size", "hidden_size") for x in ("query", "key", "value")},
    **alike((f"{LAYER}.attention.output.dense", "pooler.dense"), "hidden_size", "hidden_size"),
    f"{LAYER}.intermediate.dense.weight": ("intermediate_size", "hidden_size"),
    f"{LAYER}.output.dense.weight": ("hidden_size", "intermediate_size"),
    **alike((f"{where}.LayerNorm" for where in ("embeddings", f"{LAYER}.attention.output", f"{LAYER}.output")), "hidden_size"),
})  # fmt: skip

BERT = Architecture(
    name="bert",
    hf=("BertModel", "BertForMaskedLM", "BertForPreTraining"),
    model_type="bert", prefix="bert.",
    config=(*SIZES, u32("max_position_embeddings", "context_length"), *ENCODING),
    defaults={
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    },
    layouts={"gguf": Layout.of(*ENCODER, drop=POSITION_IDS, omit=(*POOLER, *PRETRAINING))},
    spellings={"gamma": "weight", "beta": "bias"},
    implied={
        "vocab_size": rows_of("bert.embeddings.word_embeddings.weight"),
        "hidden_size": columns_of("bert.embeddings.word_embeddings.weight"),
        "max_position_embeddings": rows_of("bert.embeddings.position_embeddings.weight"),
        "type_vocab_size": rows_of("bert.embeddings.token_type_embeddings.weight"),
        "intermediate_size": rows_of("bert.encoder.layer.0.intermediate.dense.weight"),
    },
    shapes={f"bert.{name}": sizes for name, sizes in SHAPES.items()},
    assumed={"hidden_act": ("gelu", None), "position_embedding_type": ("absolute", None), "is_decoder": (False, None)},
    placement=Placement("bert.encoder.layer.{i}", ("bert.embeddings",), ("bert.pooler", "cls", "classifier")),
)  # fmt: skip

BERT_CLASSIFIER = replace(
    BERT, name="bert-classifier", hf=("BertForSequenceClassification",), config=(*BERT.config, LABELS),
    defaults={**BERT.defaults, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    layouts={"gguf": Layout.of(*ENCODER, HEAD, name="bert", drop=POSITION_IDS)},
    when=all_of(
        says("tokenizer.ggml.model", "bert"), present("classifier.weight"),
        present("bert.embeddings.token_type_embeddings.weight"),
    ),
)  # fmt: skip

ARCHITECTURES = (BERT, BERT_CLASSIFIER)
