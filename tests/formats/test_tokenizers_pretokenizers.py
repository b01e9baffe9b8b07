"""The table of pre-tokenizers, read in both directions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizing import golden_folder, golden_tokenizer, texts

from hubclient.errors import UnknownTokenizer
from hubclient.formats.tokenizers import Tokenizer, read_files, to_gguf
from hubclient.formats.tokenizers.bytelevel import encode_bytes
from hubclient.formats.tokenizers.pretokenizers import GPT2, LLAMA3, O200K, QWEN2, ROWS, Row, cut, recognise, row_named, steps_of

# every name that src/llama-vocab.cpp compares `tokenizer.ggml.pre` with, for vocabularies in the byte alphabet
NAMES = (
    "default", "minicpm5", "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "jina-v5-nano", "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "youtu", "falcon", "mpt", "starcoder",
    "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert",
    "jais-2", "jina-v1-en", "jina-v2-code", "roberta-bpe", "refact", "command-r", "qwen2", "deepseek-r1-qwen", "kormo",
    "f2llmv2", "qwen35", "stablelm2", "olmo", "dbrx", "smaug-bpe", "poro-chat", "chatglm-bpe", "glm4", "glm5", "viking",
    "jais", "tekken", "smollm", "codeshell", "bloom", "gpt3-finnish", "exaone", "exaone4", "exaone-moe", "chameleon",
    "minerva-7b", "megrez", "gpt-4o", "llama4", "kanana2", "talkie", "granite-embed-multi-97m", "tiny_aya", "cohere2moe",
    "superbpe", "trillion", "granite-docling", "bailingmoe", "bailingmoe2", "llada-moe", "seed-coder", "hunyuan",
    "hunyuan-dense", "hy_v4", "joyai-llm", "kimi-k2", "ufakzeka", "grok-2", "afmoe", "laguna", "minimax-m2", "solar-open",
    "mellum2",
)  # fmt: skip
# rows that llama.cpp takes for the one before them, which is the usual one
TWINS = {"glm4": "llama-bpe", "granite-embed-multi-97m": "gpt-4o"}


def names(row: Row) -> tuple[str, ...]:
    steps = steps_of(cut(row))
    assert steps is not None
    return recognise(steps, nfc=row.nfc, ignore_merges=bool(row.ignore_merges), roberta=row.sep)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_written_for_a_name_is_recognised_as_it(row: Row) -> None:
    assert names(row)[0] == TWINS.get(row.name, row.name)
    assert row.name in names(row)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_llama_cpp_knows_has_a_row(name: str) -> None:
    row = row_named(name)
    assert row is not None
    assert name in (row.name, *row.same)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_cut_by_the_tokenizers_library(row: Row) -> None:
    from tokenizers import Tokenizer as Library

    document = {"version": "1.0", "pre_tokenizer": cut(row), "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    empty: dict[str, Any] = {"added_tokens": [], "normalizer": None, "post_processor": None, "decoder": None}
    library = Library.from_str(json.dumps({**empty, **document}))
    for text in texts()[:40]:
        pieces = library.pre_tokenizer.pre_tokenize_str(text)
        assert "".join(piece for piece, _ in pieces) == encode_bytes(text.encode())


def split(regex: str, behavior: str = "Isolated", *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
EXPANDED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([{"type": "ByteLevel", "add_prefix_space": True}], "gpt-2"),  # before `use_regex` was written
        ([split(GPT2), BYTES], "gpt-2"),
        ([split(LLAMA3, "Removed", invert=True), BYTES], "dbrx"),
        ([split(LLAMA3.replace(r"\r\n", "\r\n")), BYTES], "dbrx"),
        ([split(QWEN2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", EXPANDED)), BYTES], "deepseek-r1-qwen"),
        ([split(LLAMA3.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)").replace("+|", "++|")), BYTES], "dbrx"),
        ([split(O200K, "Removed", invert=True), {"type": "Sequence", "pretokenizers": [BYTES]}], "gpt-4o"),
        ([split(r"\p{N}"), split(GPT2), BYTES], "starcoder"),
        ([{"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}], "starcoder"),
    ],
)
def test_other_spellings_of_the_same_cut_are_recognised(parts: list[dict[str, Any]], name: str) -> None:
    steps = steps_of({"type": "Sequence", "pretokenizers": parts})
    assert steps is not None
    assert recognise(steps, nfc=False, ignore_merges=False, roberta=False)[0] == name


def changed(name: str, **parts: Any) -> Tokenizer:
    """A golden tokenizer with other parts."""
    tokenizer = golden_tokenizer(name)
    assert tokenizer.document is not None
    return Tokenizer({**tokenizer.document, **parts}, config=tokenizer.config, source="t")


def test_added_tokens_never_break_recognition() -> None:
    tokenizer = golden_tokenizer("qwen2")
    assert tokenizer.document is not None
    more = [{"id": 600 + index, "content": f"<extra {index}>", "special": index % 2 == 0} for index in range(50)]
    with_more = changed("qwen2", added_tokens=[*tokenizer.document["added_tokens"], *more])
    assert to_gguf(with_more)["tokenizer.ggml.pre"] == to_gguf(tokenizer)["tokenizer.ggml.pre"]


def test_an_unknown_expression_is_named_with_what_to_do() -> None:
    with pytest.raises(UnknownTokenizer, match=r"expression '\\\\w\+\|\\\\W\+'") as caught:
        to_gguf(changed("qwen2", pre_tokenizer={"type": "Sequence", "pretokenizers": [split(r"\w+|\W+"), BYTES]}))
    assert "--pre NAME" in str(caught.value.hint)


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("a", "MergedWithNext"), BYTES]}},
        {"pre_tokenizer": {"type": "UnicodeScripts"}},
    ],
)
def test_what_llama_cpp_has_nothing_like_is_unknown(parts: dict[str, Any]) -> None:
    with pytest.raises(UnknownTokenizer):
        to_gguf(changed("qwen2", **parts))


def test_a_name_given_by_hand_needs_no_recognition() -> None:
    odd = changed("qwen2", pre_tokenizer={"type": "UnicodeScripts"})
    assert to_gguf(odd, pre="kimi-k2")["tokenizer.ggml.pre"].value == "kimi-k2"


def test_a_family_may_prefer_one_of_several_names_for_the_same_thing() -> None:
    tokenizer = golden_tokenizer("gpt2_prefixed")
    assert to_gguf(tokenizer, options={"pre": ("phi-2",)})["tokenizer.ggml.pre"].value == "phi-2"
    assert to_gguf(tokenizer, options={"pre": ("tekken",)})["tokenizer.ggml.pre"].value == "gpt-2"


@pytest.mark.parametrize(
    ("name", "pre"), [("gpt2_prefixed", "gpt-2"), ("roberta_cls", "roberta-bpe"), ("llama", "default"), ("bert", "jina-v2-en")]
)
def test_golden_tokenizers_are_recognised_by_structure(name: str, pre: str) -> None:
    assert to_gguf(golden_tokenizer(name))["tokenizer.ggml.pre"].value == pre


def test_the_whole_folder_need_not_be_there() -> None:
    tokenizer = read_files({"tokenizer.json": golden_folder("qwen2") / "tokenizer.json"})
    assert tokenizer is not None
    assert to_gguf(tokenizer)["tokenizer.ggml.pre"].value == "gpt-2"
