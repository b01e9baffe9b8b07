"""GGUF files that are damaged, hostile or contradict themselves, on their way back to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import ABSENT, altered_gguf
from running import Failing, refused

from hubclient import Checkpoint
from hubclient.formats import gguf
from hubclient.formats.model import Value


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("right")
    (path,) = Checkpoint.from_pretrained(checkpoints.llama(folder / "llama")).save_pretrained(
        folder / "llama.gguf", format="gguf", type="f32"
    )
    return path


@pytest.mark.parametrize(
    ("value", "code", "fault"),
    [
        (None, 4, "general.architecture is missing"),
        (Value("u32", 7), 4, "general.architecture is of type u32"),
        (Value("[str]", ["llama"]), 4, "general.architecture is of type [str]"),
        (Value("str", ""), 3, "''"),
        (Value("str", "frobnicator"), 3, "frobnicator"),
    ],
)
def test_an_architecture_that_a_gguf_does_not_name(
    value: Value | None, code: int, fault: str, right: Path, failing: Failing, tmp_path: Path
) -> None:
    refused(failing, altered_gguf(right, tmp_path, {"general.architecture": value}), code, fault, to="safetensors")


WRONG = (Value("str", "x"), Value("[u32]", [1, 2]), Value("bool", True), Value("[str]", ["a"]))


@pytest.mark.parametrize("value", WRONG, ids=lambda value: value.type)
@pytest.mark.parametrize(
    "key",
    [
        "llama.block_count", "llama.embedding_length", "llama.attention.head_count", "llama.attention.head_count_kv", "llama.vocab_size",
        "llama.feed_forward_length", "llama.context_length", "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base",
        "llama.attention.key_length",
    ],
)  # fmt: skip
def test_a_key_of_the_wrong_type(key: str, value: Value, right: Path, failing: Failing, tmp_path: Path) -> None:
    refused(failing, altered_gguf(right, tmp_path, {key: value}), 4, "bad.gguf: ", key.removeprefix("llama."), to="safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", None), ("llama.block_count", Value("u32", 1)), ("llama.block_count", Value("u32", 0)),
        ("llama.attention.head_count", None), ("llama.attention.head_count", Value("u32", 0)), ("llama.attention.head_count", Value("u32", 7)),
        ("llama.embedding_length", Value("u32", 32)), ("llama.attention.head_count_kv", Value("u32", 3)),
        ("tokenizer.ggml.tokens", None), ("tokenizer.ggml.tokens", Value("[u32]", [1])), ("tokenizer.ggml.tokens", Value("[str]", [])),
        ("tokenizer.ggml.tokens", Value("str", "x")), ("tokenizer.ggml.token_type", Value("[i32]", [1])),
        ("tokenizer.ggml.token_type", Value("[str]", ["a"])), ("tokenizer.ggml.merges", Value("[str]", ["nospace"])),
        ("tokenizer.ggml.merges", Value("[str]", ["qqq zzz"])), ("tokenizer.ggml.merges", Value("u32", 1)),
        ("tokenizer.ggml.model", Value("u32", 1)), ("tokenizer.ggml.bos_token_id", Value("str", "x")),
    ],
)  # fmt: skip
def test_keys_that_contradict_the_file(key: str, value: Value | None, right: Path, failing: Failing, tmp_path: Path) -> None:
    keys = {key: value, "hubclient.tokenizer": None, "hubclient.checkpoint": None}
    refused(failing, altered_gguf(right, tmp_path, keys), 4, "bad.gguf: ", to="safetensors")


@pytest.mark.parametrize(
    ("shapes", "code", "fault"),
    [
        ({"strange.weight": (4,)}, 3, "strange.weight"),
        ({"blk.0.ffn_up.weight": None}, 3, "blk.0.ffn_up.weight"),
        ({"blk.7.ffn_up.weight": (96, 64)}, 4, "block 7"),
        ({"blk.0.attn_q.weight": (63, 64)}, 4, "blk.0.attn_q.weight"),
        ({"token_embd.weight": (272, 32)}, 4, "bad.gguf"),
    ],
)
def test_tensors_that_a_gguf_should_not_have(
    shapes: dict[str, Any], code: int, fault: str, right: Path, failing: Failing, tmp_path: Path
) -> None:
    refused(failing, altered_gguf(right, tmp_path, shapes=shapes), code, fault, to="safetensors")


def own_key(right: Path, **changes: Any) -> Value:
    content = json.loads(gguf.FORMAT.open(right).metadata["hubclient.checkpoint"].value)
    return Value("str", json.dumps({key: value for key, value in {**content, **changes}.items() if value is not ABSENT}))


@pytest.mark.parametrize(
    "value",
    [
        Value("str", ""),
        Value("str", "x"),
        Value("str", "[]"),
        Value("str", "{}"),
        Value("u32", 7),
        Value("[str]", ["{}"]),
        Value("str", "[" * 10_000),
    ],
)
@pytest.mark.parametrize("key", ["hubclient.checkpoint", "hubclient.tokenizer"])
def test_keys_of_our_own_with_garbage(key: str, value: Value, right: Path, failing: Failing, tmp_path: Path) -> None:
    if (key, value.value) != ("hubclient.tokenizer", "{}"):  # nothing is kept
        refused(failing, altered_gguf(right, tmp_path, {key: value}), 4, "bad.gguf: ", to="safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": ABSENT}, {"older_names": 5}, {"config": []}, {"config": {"set": 5, "unset": []}}, {"config": {"set": {}, "unset": 5}}, {"config": None},
        {"dtype": "F99"}, {"dtype": 5}, {"dtypes": {"a": 5}}, {"dtypes": []}, {"files": []}, {"files": {"README.md": 5}},
        {"config": {"set": {"rope_scaling": 7}, "unset": []}},
    ],
)  # fmt: skip
def test_our_own_key_with_odd_content(changes: dict[str, Any], right: Path, failing: Failing, tmp_path: Path) -> None:
    refused(
        failing,
        altered_gguf(right, tmp_path, {"hubclient.checkpoint": own_key(right, **changes)}),
        4,
        "bad.gguf: ",
        to="safetensors",
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/cron.d/x", "a/../../b", "a\\b", "CON", "x\0", ".", "", "evil.py", "config.json", "tokenizer.json", "model.safetensors",
        "MODEL.SAFETENSORS", "model.safetensors/x", "readme.MD", "1_Pooling/../../x", "a" * 3000,
    ],
)  # fmt: skip
def test_a_gguf_brings_no_files_but_those_we_carry(name: str, right: Path, failing: Failing, tmp_path: Path) -> None:
    value = own_key(right, files={name: "import os"})
    refused(failing, altered_gguf(right, tmp_path, {"hubclient.checkpoint": value}), 4, "bad.gguf: ", to="safetensors")


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24, 100, 5000, -1, -100_000])
def test_a_gguf_that_ends_too_early(size: int, right: Path, failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(right.read_bytes()[:size])
    refused(failing, tmp_path / "bad.gguf", 4, "bad.gguf", to="safetensors")
