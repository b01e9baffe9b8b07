"""RoBERTa: BERT whose positions begin behind the padding token's. Source: Transformers `modeling_roberta`.

The rows of positions up to the padding token's own are never read, and GGUF does not have them.
"""

from dataclasses import replace

from hubclient.architectures import (
    Following, Layout, Placement, absent, all_of, block, columns_of, less, present, product, rows_of, says, skip, total,
)  # fmt: skip
from hubclient.architectures.bert import BERT, BLOCK, EMBEDDINGS, ENCODING, LABELS, SHAPES, SIZES

UNREAD = total("pad_token_id", 1)
ENCODER = (
    {f"roberta.{hf}": gguf for hf, gguf in EMBEDDINGS.items()}
    | {"roberta.embeddings.position_embeddings.weight": skip(UNREAD) >> "position_embd.weight"},
    block("roberta.encoder.layer.{i}", "blk.{i}", BLOCK),
)
HEAD = {
    "classifier.dense.weight": "cls.weight",
    "classifier.dense.bias": "cls.bias",
    "classifier.out_proj.weight": "cls.output.weight",
    "classifier.out_proj.bias": "cls.output.bias",
}
POSITION_IDS = ("roberta.embeddings.position_ids",)
POOLER = ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias")
MASKED = (
    "lm_head.bias",
    *(f"lm_head.{name}.{part}" for name in ("dense", "layer_norm", "decoder") for part in ("weight", "bias")),
)
KINDS = present("roberta.embeddings.token_type_embeddings.weight")

ROBERTA = replace(
    BERT, name="roberta", hf=("RobertaModel", "RobertaForMaskedLM"), model_type="roberta", prefix="roberta.",
    config=(*SIZES, Following(less("max_position_embeddings", UNREAD), "context_length"), *ENCODING),
    defaults={**BERT.defaults, "vocab_size": 50265, "pad_token_id": (1, product(1, 1))},
    layouts={"gguf": Layout.of(*ENCODER, name="bert", drop=POSITION_IDS, omit=(*POOLER, *MASKED))},
    implied={
        "vocab_size": rows_of("roberta.embeddings.word_embeddings.weight"),
        "hidden_size": columns_of("roberta.embeddings.word_embeddings.weight"),
        "max_position_embeddings": rows_of("roberta.embeddings.position_embeddings.weight"),
        "type_vocab_size": rows_of("roberta.embeddings.token_type_embeddings.weight"),
        "intermediate_size": rows_of("roberta.encoder.layer.0.intermediate.dense.weight"),
    },
    shapes={f"roberta.{name}": sizes for name, sizes in SHAPES.items()},
    when=all_of(says("tokenizer.ggml.model", "gpt2"), KINDS, absent("cls.output.weight")),
    tokenizer={"tokenizer_class": {"gpt-2": "RobertaTokenizer"}},
    placement=Placement("roberta.encoder.layer.{i}", ("roberta.embeddings",), ("roberta.pooler", "lm_head", "classifier")),
)  # fmt: skip

ROBERTA_CLASSIFIER = replace(
    ROBERTA, name="roberta-classifier", hf=("RobertaForSequenceClassification",), config=(*ROBERTA.config, LABELS),
    defaults={**ROBERTA.defaults, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    layouts={"gguf": Layout.of(*ENCODER, HEAD, name="bert", drop=POSITION_IDS, omit=POOLER)},
    shapes={**ROBERTA.shapes, "classifier.dense.weight": ("hidden_size", "hidden_size"), "classifier.dense.bias": ("hidden_size",)},
    when=all_of(says("tokenizer.ggml.model", "gpt2"), KINDS, present("classifier.out_proj.weight")),
)  # fmt: skip

ARCHITECTURES = (ROBERTA, ROBERTA_CLASSIFIER)
