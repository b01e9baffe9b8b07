"""The made-up vocabularies are real ones to the programs that read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import tokenizers

from benchmarks.open_vocabulary import write_vocabulary
from benchmarks.vocabulary import SMALLEST, write_tokenizer
from hubclient import Checkpoint

TEXTS = ["the cat sat on the mat", "a", " two  spaces", "Größe 12 — ∑", "line\nbreak"]


@pytest.mark.parametrize("size", [SMALLEST, 512, 3000])
def test_sentencepiece_and_tokenizers_agree_on_every_text(size: int, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, size)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert model.vocab_size() == fast.get_vocab_size() == size
    for text in TEXTS:
        ids = model.encode(text)
        assert fast.encode(text, add_special_tokens=False).ids == ids
        assert model.decode(ids) == text


def test_it_names_its_special_tokens(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 400)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert [settings[name] for name in ("unk_token", "bos_token", "eos_token")] == ["<unk>", "<s>", "</s>"]


def test_no_vocabulary_is_larger_than_its_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="larger than the words"):
        write_tokenizer(tmp_path, 2_000_000)


def test_a_gguf_vocabulary_is_one(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v.gguf", 1000, merges=50)
    metadata = Checkpoint.from_pretrained(tmp_path / "v.gguf").opened.metadata
    tokens = list(metadata["tokenizer.ggml.tokens"].value)
    assert len(set(tokens)) == len(metadata["tokenizer.ggml.scores"].value) == 1000
    assert metadata["tokenizer.ggml.merges"].value[0] == f"{tokens[0]} {tokens[0]}"
