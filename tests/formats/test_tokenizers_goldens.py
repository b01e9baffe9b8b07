"""Golden tokenizers: the same keys as llama.cpp's converter, and back to the same files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizing import (
    CONTRADICTORY,
    OPTIONS,
    differing,
    files_in,
    golden_folder,
    golden_names,
    golden_record,
    golden_size,
    golden_tokenizer,
    loaded,
    write,
)

from hubclient.formats.model import Value
from hubclient.formats.tokenizers import from_gguf, read_files, residual, to_files, to_gguf

TYPES = {"str": "string", "u8": "uint8", "u32": "uint32", "i32": "int32", "f32": "float32", "bool": "bool"}


def canonical(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def record(value: Value) -> dict[str, Any]:
    if value.type.startswith("["):
        return {"type": "array", "elem": TYPES[value.type[1:-1]], "sha256": canonical(list(value.value))}
    return {"type": TYPES[value.type], "sha256": canonical(value.value)}


def wanted(kept: dict[str, Any]) -> dict[str, Any]:
    if kept["type"] == "array":
        return {name: kept[name] for name in ("type", "elem", "sha256")}
    return {"type": kept["type"], "sha256": kept.get("sha256") or canonical(kept["value"])}


def keys_of(name: str, pre: str | None = None) -> dict[str, Value]:
    return to_gguf(golden_tokenizer(name), vocab_size=golden_size(name), pre=pre, options=OPTIONS.get(name))


@pytest.mark.parametrize("name", golden_names())
def test_keys_are_those_of_llama_cpps_converter(name: str) -> None:
    golden = golden_record(name)
    kept = golden["gguf"]["f32"].get("kv")
    if kept is None:
        pytest.skip("the reference fails on this checkpoint")
    expected = {key: wanted(value) for key, value in kept.items() if key.startswith("tokenizer.")}
    expected.pop("tokenizer.ggml.token_type_count", None)  # a value of config.json
    assert {key: record(value) for key, value in keys_of(name, golden["pre_override"]).items()} == expected | (
        {} if "tokenizer.ggml.pre" in expected else {"tokenizer.ggml.pre": record(Value("str", golden["pre_override"]))}
    )


@pytest.mark.parametrize("name", golden_names())
def test_the_same_files_come_back(name: str) -> None:
    tokenizer = golden_tokenizer(name)
    keys = keys_of(name)
    kept = residual(tokenizer, keys)
    back = from_gguf(keys, kept)
    assert back is not None
    written, originals = to_files(back), files_in(golden_folder(name))
    assert set(written) == set(tokenizer.files)
    for file, data in written.items():
        original = originals[file].read_bytes()
        assert (json.loads(data) == json.loads(original)) if file.endswith(".json") else (data == original), file
    assert len(kept) < 5000 or name in CONTRADICTORY
    assert to_gguf(back, vocab_size=golden_size(name), options=OPTIONS.get(name)) == keys


@pytest.mark.parametrize("name", golden_names())
def test_keys_alone_give_a_tokenizer_that_encodes_the_same(name: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    keys = keys_of(name)
    rebuilt = from_gguf(keys, options=OPTIONS.get(name))
    assert rebuilt is not None
    files = to_files(rebuilt)
    again = read_files(write(files, tmp_path))
    assert again is not None
    again = replace(again, ids=golden_tokenizer(name).ids)
    assert to_gguf(again, vocab_size=golden_size(name), options=OPTIONS.get(name)) == keys
    if name not in CONTRADICTORY:
        original = Library.from_file(str(golden_folder(name) / "tokenizer.json"))
        for special in (False, True):
            assert differing(original, loaded(files), special=special) == []


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name in golden_names() if name not in CONTRADICTORY])
def test_transformers_loads_the_rebuilt_files_and_encodes_the_same(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    options = dict(OPTIONS.get(name, {}))
    if name.startswith("qwen"):  # its class cuts in its own way, whatever the golden's tokenizer.json says
        options["tokenizer_class"] = {"gpt-2": "Qwen2Tokenizer"}
    rebuilt = from_gguf(keys_of(name), options=options)
    assert rebuilt is not None
    write(to_files(rebuilt), tmp_path)
    (tmp_path / "config.json").write_bytes((golden_folder(name) / "config.json").read_bytes())
    original = transformers.AutoTokenizer.from_pretrained(golden_folder(name))
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["Hello world, it is  so", " lead", "é 日本", "a <|im_end|> b [INST]c</s>d", "x [MASK] <mask>"]
    for special in (False, True):
        assert [found.encode(text, add_special_tokens=special) for text in texts] == [
            original.encode(text, add_special_tokens=special) for text in texts
        ]
