"""What GGUF keys cannot say: kept beside them, or noted in tokenizer_config.json; and what happens when either is stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizing import golden_tokenizer, write

from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import from_gguf, read_files, residual, to_files, to_gguf
from hubclient.formats.tokenizers.difference import changed, difference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def strict(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@given(JSON, JSON)
def test_a_difference_makes_one_value_of_another(before: Any, after: Any) -> None:
    change = json.loads(json.dumps(difference(before, after)))
    assert strict(changed(before, change)) == strict(after)


@given(JSON)
def test_equal_values_have_no_difference(value: Any) -> None:
    assert difference(value, json.loads(json.dumps(value))) is None


def test_a_few_changed_elements_of_a_long_list_are_told_alone() -> None:
    before = list(range(1000))
    after = [*before[:7], -1, *before[8:], "more"]
    change = difference(before, after)
    assert len(json.dumps(change)) < 60
    assert changed(before, change) == after


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2", "gpt2_prefixed", "bert", "roberta_cls"])
def test_what_is_kept_is_small(name: str) -> None:
    tokenizer = golden_tokenizer(name)
    assert len(residual(tokenizer, to_gguf(tokenizer))) < 1000


def test_a_key_that_was_edited_since_stays_edited() -> None:
    tokenizer = golden_tokenizer("qwen2")
    keys = to_gguf(tokenizer)
    kept = residual(tokenizer, keys)
    keys |= {"tokenizer.chat_template": Value("str", "edited"), "tokenizer.ggml.eos_token_id": Value("u32", 505)}
    back = from_gguf(keys, kept)
    assert back is not None
    assert (back.settings["chat_template"], back.settings["eos_token"]) == ("edited", "<|im_start|>")
    assert back.settings["tokenizer_class"] == tokenizer.settings["tokenizer_class"]


def test_what_was_kept_for_another_vocabulary_is_not_used() -> None:
    tokenizer = golden_tokenizer("qwen2")
    keys = to_gguf(tokenizer)
    kept = residual(tokenizer, keys)
    texts = [*keys["tokenizer.ggml.tokens"].value[:-1], "<other>"]
    other = {**keys, "tokenizer.ggml.tokens": Value("[str]", texts)}
    assert from_gguf(other, kept) == from_gguf(other)


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"version": 2}', '{"version": 1', "\udc80"])
def test_a_text_that_is_not_what_we_keep_is_damaged(kept: str) -> None:
    keys = to_gguf(golden_tokenizer("qwen2"))
    try:
        assert from_gguf(keys, kept) is not None
    except DamagedInput as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("it was taken for what we keep")


ODD: dict[str, Value | None] = {
    "tokenizer.ggml.pre": Value("str", "llama-v3"),
    "tokenizer.ggml.bos_token_id": Value("i64", 504),
    "tokenizer.ggml.cls_token_id": Value("u32", 1),
    "tokenizer.ggml.fim_pre_token_id": Value("u32", 508),
    "tokenizer.ggml.eot_token_id": Value("u32", 506),
    "tokenizer.ggml.add_eos_token": None,
    "tokenizer.rwkv.world": Value("[u8]", [1, 2, 3]),
    "tokenizer.ggml.suppress_tokens": Value("[i32]", [3, 5]),
}


def files_and_back(keys: dict[str, Value], tmp_path: Path, options: dict[str, Any] | None = None) -> dict[str, Value]:
    tokenizer = from_gguf(keys, options=options)
    assert tokenizer is not None
    again = read_files(write(to_files(tokenizer), tmp_path))
    assert again is not None
    return to_gguf(again, options=options)


def test_odd_keys_of_a_foreign_file_come_back(tmp_path: Path) -> None:
    keys = to_gguf(golden_tokenizer("llama3_rope_tied"))
    wanted = {key: value for key, value in {**keys, **ODD}.items() if value is not None}
    types = list(wanted["tokenizer.ggml.token_type"].value)
    types[5], types[506] = 5, 2  # an unused token, and a control token that is marked unknown
    wanted["tokenizer.ggml.token_type"] = Value("[i32]", types)
    assert files_and_back(wanted, tmp_path) == wanted


def test_odd_rows_of_a_foreign_sentencepiece_file_come_back(tmp_path: Path) -> None:
    wanted = to_gguf(golden_tokenizer("llama"))
    scores = list(wanted["tokenizer.ggml.scores"].value)
    scores[1], scores[300], scores[510] = 7.5, -3.0, 0.0
    wanted["tokenizer.ggml.scores"] = Value("[f32]", scores)
    del wanted["tokenizer.ggml.unknown_token_id"]
    assert files_and_back(wanted, tmp_path) == wanted


def test_what_the_family_adds_is_not_added_to_a_file_that_lacks_it(tmp_path: Path) -> None:
    wanted = to_gguf(golden_tokenizer("qwen2"))
    options = {"add_space_prefix": False, "add": {"sep": True}}
    assert files_and_back(wanted, tmp_path, options) == wanted


def test_notes_are_ignored_once_the_vocabulary_is_another(tmp_path: Path) -> None:
    keys = to_gguf(golden_tokenizer("qwen2")) | {"tokenizer.ggml.eot_token_id": Value("u32", 506)}
    tokenizer = from_gguf(keys)
    assert tokenizer is not None
    files = to_files(tokenizer)
    assert b'"hubclient"' in files["tokenizer_config.json"]
    document = json.loads(files["tokenizer.json"])
    document["added_tokens"].append({"id": 512, "content": "<new>", "special": True, "normalized": False})
    again = read_files(write({**files, "tokenizer.json": json.dumps(document).encode()}, tmp_path))
    assert again is not None
    assert "tokenizer.ggml.eot_token_id" not in to_gguf(again)


@pytest.mark.parametrize(
    "note",
    [
        {"general.name": {"type": "str", "value": "x"}},
        {"tokenizer.ggml.bos_token_id": {"type": "u32", "value": -1}},
        {"tokenizer.ggml.bos_token_id": {"type": "u32", "at": {"0": 1}}},
        {"tokenizer.ggml.token_type": {"type": "[i32]", "at": {"x": 1}}},
        {"tokenizer.ggml.token_type": {"type": "[i32]", "at": {"3": "a"}}},
        {"tokenizer.x": {"type": "[f128]", "value": [1.0]}},
        {"tokenizer.x": 5},
    ],
)
def test_notes_that_are_not_ours_are_damage(note: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = from_gguf(to_gguf(golden_tokenizer("qwen2")) | {"tokenizer.y": Value("u8", 1)})
    assert tokenizer is not None
    files = to_files(tokenizer)
    config = json.loads(files["tokenizer_config.json"])
    config["hubclient"]["gguf"]["keys"] = note
    again = read_files(write({**files, "tokenizer_config.json": json.dumps(config).encode()}, tmp_path))
    assert again is not None
    with pytest.raises(DamagedInput, match="note"):
        to_gguf(again)
