"""What encoders, and models with an encoder and a decoder, have of their own: embeddings under several names, skipped rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import MADE, Golden, copy, tensors

from hubclient import Checkpoint, place
from hubclient.architectures.distilbert import DISTILBERT_CLASSIFIER
from hubclient.formats.gguf import FORMAT
from hubclient.spokes.matching import lost
from hubclient.testing.folders import Stored, put

UMT5, XLM_ROBERTA = MADE / "checkpoints" / "umt5", Golden("xlm_roberta").checkpoint
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
POSITIONS = "embeddings.position_embeddings.weight"


def with_embeddings(names: tuple[str, ...], folder: Path) -> Path:
    """UMT5 whose embedding is stored under these names."""
    copy(UMT5, folder)
    found = tensors(UMT5)
    shared = found.pop("shared.weight")
    stored = {name: Stored(item.dtype, item.shape, item.data) for name, item in (found | dict.fromkeys(names, shared)).items()}
    put(folder / "model.safetensors", stored)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    return {name: data[ref.offset : ref.offset + ref.nbytes] for name, ref in FORMAT.open(path).tensors.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    (path,) = Checkpoint.from_pretrained(UMT5).save_pretrained(tmp_path_factory.mktemp("umt5") / "x.gguf", format="gguf")
    return contents(path)


@pytest.mark.parametrize("name", COPIES)
def test_an_embedding_stored_as_the_encoders_or_decoders_is_the_shared_one(name: str, expected: dict[str, bytes], tmp_path: Path):
    source = with_embeddings((name,), tmp_path / "source")
    (gguf,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "x.gguf", format="gguf", strict=True)
    assert contents(gguf) == expected
    Checkpoint.from_pretrained(gguf).save_pretrained(tmp_path / "back", strict=True)
    assert tensors(tmp_path / "back").keys() == tensors(source).keys()


@pytest.mark.parametrize("names", [("shared.weight", *COPIES), COPIES])
def test_copies_of_the_embedding_are_left_out(names: tuple[str, ...], expected: dict[str, bytes], tmp_path: Path):
    source = Checkpoint.from_pretrained(with_embeddings(names, tmp_path / "source"))
    (output,) = source.plan(tmp_path / "x.gguf", format="gguf").outputs
    assert len(output.dropped) == len(names) - 1 and output.losses == ()
    (gguf,) = source.save_pretrained(tmp_path / "x.gguf", format="gguf")
    assert contents(gguf) == expected


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_as_many_positions_are_skipped_as_the_config_says_whatever_the_tokenizer_pads_with(pad: int, tmp_path: Path):
    source = copy(XLM_ROBERTA, tmp_path / "source")
    config: dict[str, Any] = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "pad_token_id": pad}))
    (gguf,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "x.gguf", format="gguf", type="f32")
    opened = FORMAT.open(gguf)
    assert opened.tensors["position_embd.weight"].shape == (129 - pad, 64)
    assert opened.metadata["bert.context_length"].value == 129 - pad
    Checkpoint.from_pretrained(gguf).save_pretrained(tmp_path / "back")
    before, after = tensors(source)[POSITIONS].values, tensors(tmp_path / "back")[POSITIONS].values
    assert np.array_equal(after[pad + 1 :], before[pad + 1 :]) and not after[: pad + 1].any()
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == {**config, "pad_token_id": pad}


def test_a_config_that_names_no_class_is_the_familys_base_model(tmp_path: Path):
    source = copy(XLM_ROBERTA, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    del config["architectures"]
    (source / "config.json").write_text(json.dumps(config))
    assert Checkpoint.from_pretrained(source).model.architecture.name == "xlm-roberta"


def test_an_activation_that_llama_cpp_does_not_know_is_said():
    names = ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"]
    assert lost(DISTILBERT_CLASSIFIER.layouts["gguf"].match(names, "hf", {})) == [
        "pre_classifier.weight: llama.cpp applies tanh behind it where the model applies ReLU"
    ]


def test_an_encoders_blocks_come_before_the_decoders_which_alone_keep_a_cache():
    modules = place(UMT5, {"cpu": 1 << 40}, context=100).modules
    assert [module.name for module in modules] == [
        "shared", "encoder.embed_tokens", "encoder.block.0", "encoder.block.1", "encoder.final_layer_norm",
        "decoder.embed_tokens", "decoder.block.0", "decoder.block.1", "decoder.final_layer_norm", "lm_head",
    ]  # fmt: skip
    keys_and_values = 100 * 2 * 4 * 8 * 2  # tokens, keys and values, heads, their size, bytes
    assert {module.name: module.cache for module in modules if module.cache} == dict.fromkeys(
        ("decoder.block.0", "decoder.block.1"), keys_and_values
    )
