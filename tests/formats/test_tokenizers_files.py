"""Folders of every kind: what is read, what counts where files disagree, and what is written."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizing import differing, files_in, golden_folder, golden_tokenizer, loaded, write

from hubclient.errors import DamagedInput, UnknownTokenizer, UsageError
from hubclient.formats.tokenizers import Tokenizer, from_gguf, is_tokenizer_file, read_files, residual, to_files, to_gguf

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"


def subset(name: str, *files: str) -> Tokenizer:
    """A golden tokenizer from some of its files."""
    found = files_in(golden_folder(name))
    tokenizer = read_files({file: found[file] for file in files})
    assert tokenizer is not None
    return tokenizer


def folder(tmp_path: Path, **contents: Any) -> dict[str, Path]:
    """Files of JSON content; a name's last underscore is its dot."""
    names = {name: ".".join(name.rsplit("_", 1)) for name in contents}
    paths: dict[str, Path] = write({names[name]: json.dumps(content).encode() for name, content in contents.items()}, tmp_path)
    return paths


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert read_files(folder(tmp_path, config_json={"vocab_size": 5}, tokenizer_config_json={})) is None


def test_vocabulary_and_merges_alone_give_the_same_tokenizer() -> None:
    older = subset("gpt2_prefixed", "vocab.json", "merges.txt", "tokenizer_config.json")
    assert to_gguf(older) == to_gguf(subset("gpt2_prefixed", "tokenizer.json", "tokenizer_config.json")) | {
        key: value for key, value in to_gguf(older).items() if key.endswith(("add_bos_token", "add_eos_token"))
    }
    assert differing(loaded(to_files(older)), loaded(to_files(golden_tokenizer("gpt2_prefixed")))) == []


def test_a_word_list_alone_gives_the_same_tokenizer() -> None:
    older = subset("bert", "vocab.txt", "tokenizer_config.json")
    assert to_gguf(older) == to_gguf(subset("bert", "tokenizer.json", "tokenizer_config.json"))
    assert differing(loaded(to_files(older)), loaded(to_files(golden_tokenizer("bert"))), special=True) == []


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_sentencepiece_model_alone_is_enough(name: str) -> None:
    alone = subset(name, "tokenizer.model")
    keys, whole = to_gguf(alone), to_gguf(golden_tokenizer(name))
    count = len(keys[TOKENS].value)
    assert keys[TOKENS].value == whole[TOKENS].value[:count]
    assert keys["tokenizer.ggml.unknown_token_id"] == whole["tokenizer.ggml.unknown_token_id"]
    assert json.loads(to_files(alone)["tokenizer.json"])["model"]["byte_fallback"]


def test_files_are_told_from_others_by_name() -> None:
    ours = ["tokenizer.model.v3", "tekken_240911.json", "additional_chat_templates/tool_use.jinja", "spiece.model", "vocab.txt"]
    assert all(map(is_tokenizer_file, ours))
    assert not any(map(is_tokenizer_file, ["config.json", "model.safetensors", "tokenizer.json.bak", "x/tokenizer.json"]))


def test_rows_that_no_token_has_are_padded_and_come_off_again() -> None:
    tokenizer = golden_tokenizer("qwen2")
    keys = to_gguf(tokenizer, vocab_size=520)
    assert keys[TOKENS].value[512:] == [f"[PAD{index}]" for index in range(512, 520)]
    assert keys[TYPES].value[512:] == [5] * 8
    rebuilt = from_gguf(keys)
    assert rebuilt is not None
    assert max(json.loads(to_files(rebuilt)["tokenizer.json"])["model"]["vocab"].values()) < 512
    assert to_gguf(rebuilt)[TOKENS] == keys[TOKENS]


def test_a_token_without_a_row_is_an_error_that_names_both_numbers() -> None:
    with pytest.raises(DamagedInput, match=r"token 511 but the model's vocab_size is 500"):
        to_gguf(golden_tokenizer("qwen2"), vocab_size=500)


def test_a_special_token_that_is_nowhere_in_the_vocabulary_is_no_token() -> None:
    tokenizer = golden_tokenizer("qwen2")
    named = replace(tokenizer, config={**tokenizer.settings, "mask_token": "[NOWHERE]"})
    assert to_gguf(named, vocab_size=512)[TOKENS] == to_gguf(tokenizer, vocab_size=512)[TOKENS]
    assert to_gguf(named, vocab_size=520)[TOKENS].value[512] == "[NOWHERE]"  # where Transformers puts it


def test_a_flag_in_tokenizer_config_counts_more_than_in_tokenizer_json() -> None:
    tokenizer = golden_tokenizer("qwen2")
    table = {index: dict(item) for index, item in tokenizer.settings["added_tokens_decoder"].items()}
    table["510"]["special"] = True
    changed = replace(tokenizer, config={**tokenizer.settings, "added_tokens_decoder": table})
    assert (to_gguf(tokenizer)[TYPES].value[510], to_gguf(changed)[TYPES].value[510]) == (4, 3)


def test_an_added_token_is_written_as_it_stands_in_raw_text() -> None:
    tokenizer = golden_tokenizer("qwen2")
    assert tokenizer.document is not None
    texts = ["Ġindent", "<é>", "▁▁", "<｜end▁of｜>"]
    more = [{"id": 512 + place, "content": text, "special": False, "normalized": False} for place, text in enumerate(texts)]
    document = {**tokenizer.document, "added_tokens": [*tokenizer.document["added_tokens"], *more]}
    keys = to_gguf(replace(tokenizer, document=document))
    assert keys[TOKENS].value[512:] == [" indent", "<é>", "  ", "<｜end▁of｜>"]
    assert keys[TYPES].value[512:] == [4, 4, 4, 3]  # the last looks like a control token


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"chat_template.jinja": "J"}, {"tokenizer.chat_template": "J"}),
        ({"chat_template.json": '{"chat_template": "K"}'}, {"tokenizer.chat_template": "K"}),
        (
            {"chat_template.jinja": "J", "additional_chat_templates/tool-use.jinja": "T"},
            {"tokenizer.chat_template": "J", "tokenizer.chat_template.tool_use": "T", "tokenizer.chat_templates": ["tool_use"]},
        ),
    ],
)
def test_chat_templates_in_files_of_their_own(files: dict[str, str], expected: dict[str, Any], tmp_path: Path) -> None:
    source = files_in(golden_folder("gpt2_prefixed"))
    more = write({name: text.encode() for name, text in files.items()}, tmp_path)
    tokenizer = read_files({"tokenizer.json": source["tokenizer.json"], **more})
    assert tokenizer is not None
    keys = to_gguf(tokenizer)
    assert {key: value.value for key, value in keys.items() if "chat_template" in key} == expected
    back = from_gguf(keys, residual(tokenizer, keys))
    assert back is not None
    assert {name: data.decode() for name, data in to_files(back).items() if name in files} == files


def test_named_templates_survive_without_what_was_kept() -> None:
    tokenizer = golden_tokenizer("gpt2_prefixed")
    several = [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]
    keys = to_gguf(replace(tokenizer, config={**tokenizer.settings, "chat_template": several}))
    rebuilt = from_gguf(keys)
    assert rebuilt is not None
    assert rebuilt.settings["chat_template"] == several


def test_a_tiktoken_list_counts_for_nothing_beside_tokenizer_json(tmp_path: Path) -> None:
    tiktoken = write({"tokenizer.model": b"IQ== 0\nIg== 1\n"}, tmp_path)
    source = files_in(golden_folder("llama3_rope_tied"))
    tokenizer = read_files({**tiktoken, "tokenizer.json": source["tokenizer.json"]})
    assert tokenizer is not None
    assert to_gguf(tokenizer)["tokenizer.ggml.model"].value == "gpt2"
    with pytest.raises(UnknownTokenizer, match="tiktoken"):
        read_files(tiktoken)


def test_a_small_tekken_file_is_read(tmp_path: Path) -> None:
    ranked = [*(bytes([byte]) for byte in range(256)), b"ab", b"abc"]
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(data).decode()} for rank, data in enumerate(ranked)]
    config = {"pattern": r"\p{L}+|[^\p{L}]+", "default_vocab_size": 264, "default_num_special_tokens": 6}
    special = [{"rank": rank, "token_str": text} for rank, text in enumerate(["<unk>", "<s>", "</s>"])]
    files = folder(tmp_path, tekken_json={"config": config, "vocab": vocab, "special_tokens": special})
    tokenizer = read_files(files)
    assert tokenizer is not None
    keys = to_gguf(tokenizer, pre="tekken")
    assert keys[TOKENS].value[:7] == ["<unk>", "<s>", "</s>", "<SPECIAL_3>", "<SPECIAL_4>", "<SPECIAL_5>", "Ā"]
    assert keys["tokenizer.ggml.merges"].value == ["a b", "ab c"]
    assert loaded(to_files(tokenizer)).encode("abc", add_special_tokens=False).ids == [263]


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no option 'add_space'"):
        to_gguf(golden_tokenizer("qwen2"), options={"add_space": True})
