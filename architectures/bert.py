"""BERT: encoders for embeddings, and sequence classifiers with their pooler. Source: Transformers `modeling_bert`."""

from dataclasses import replace

from hubclient.architectures import Architecture, Fixed, Layout, Placement, all_of, block, columns_of, f32, labels, present
from hubclient.architectures import rows_of, says, u32
from hubclient.architectures.qwen2 import POOLING

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
BLOCK = {
    f"{hf}.{part}": f"{gguf}.{part}"
    for hf, gguf in {
        "attention.self.query": "attn_q",
        "attention.self.key": "attn_k",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "attention.output.LayerNorm": "attn_output_norm",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
        "output.LayerNorm": "layer_output_norm",
    }.items()
    for part in ("weight", "bias")
}
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
IMPLIED = {
    "vocab_size": rows_of("embeddings.word_embeddings.weight"),
    "hidden_size": columns_of("embeddings.word_embeddings.weight"),
    "max_position_embeddings": rows_of("embeddings.position_embeddings.weight"),
    "type_vocab_size": rows_of("embeddings.token_type_embeddings.weight"),
    "intermediate_size": rows_of("encoder.layer.0.intermediate.dense.weight"),
}
