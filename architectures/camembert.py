"""CamemBERT: XLM-RoBERTa under another name, so files are read as that. Source: Transformers `modeling_camembert`.

llama.cpp's converter takes it for BERT, positions and vocabulary, and its results differ; here it is what it is.
"""

from dataclasses import replace

from hubclient.architectures.xlm_roberta import XLM_ROBERTA, XLM_ROBERTA_CLASSIFIER

CAMEMBERT = replace(
    XLM_ROBERTA, name="camembert", hf=("CamembertModel", "CamembertForMaskedLM"), model_type="camembert", when=None,
    look_alike="xlm-roberta",
)  # fmt: skip

CAMEMBERT_CLASSIFIER = replace(
    XLM_ROBERTA_CLASSIFIER, name="camembert-classifier", hf=("CamembertForSequenceClassification",), model_type="camembert",
    when=None, look_alike="xlm-roberta-classifier",
)  # fmt: skip

ARCHITECTURES = (CAMEMBERT, CAMEMBERT_CLASSIFIER)
