"""XLM-RoBERTa: RoBERTa with a SentencePiece vocabulary. Source: Transformers `modeling_xlm_roberta`."""

from dataclasses import replace

from hubclient.architectures import absent, all_of, present, says
from hubclient.architectures.roberta import KINDS, ROBERTA, ROBERTA_CLASSIFIER

TOKENIZER = {"tokenizer_class": {"default": "XLMRobertaTokenizer"}}

XLM_ROBERTA = replace(
    ROBERTA, name="xlm-roberta", hf=("XLMRobertaModel", "XLMRobertaForMaskedLM"), model_type="xlm-roberta",
    defaults={**ROBERTA.defaults, "vocab_size": 30522},
    when=all_of(says("tokenizer.ggml.model", "t5"), KINDS, absent("cls.output.weight")),
    tokenizer=TOKENIZER,
)  # fmt: skip

XLM_ROBERTA_CLASSIFIER = replace(
    ROBERTA_CLASSIFIER, name="xlm-roberta-classifier", hf=("XLMRobertaForSequenceClassification",), model_type="xlm-roberta",
    defaults={**ROBERTA_CLASSIFIER.defaults, "vocab_size": 30522},
    when=all_of(says("tokenizer.ggml.model", "t5"), KINDS, present("classifier.out_proj.weight")),
    tokenizer=TOKENIZER,
)  # fmt: skip

ARCHITECTURES = (XLM_ROBERTA, XLM_ROBERTA_CLASSIFIER)
