"""Broken, contradictory and hostile tokenizers: one sentence each, that names the file, and no blow-up."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tokenizing import files_in, golden_folder, golden_tokenizer, write

from hubclient.errors import DamagedInput, HubclientError, UnknownTokenizer
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import from_gguf, read_files, residual, to_files, to_gguf

GGML = "tokenizer.ggml."


def read(name: str, tmp_path: Path, **edits: Callable[[Any], Any]) -> Any:
    """A golden tokenizer after its JSON files were edited; a name's last underscore is its dot."""
    files = files_in(golden_folder(name))
    for file, edit in edits.items():
        file = ".".join(file.rsplit("_", 1))
        content = json.loads(files[file].read_text())
        result = edit(content)
        files |= write({file: json.dumps(content if result is None else result).encode()}, tmp_path)
    return read_files(files)


def model(**changes: Any) -> Callable[[Any], Any]:
    return lambda content: content["model"].update(changes)


def added(index: int, **changes: Any) -> Callable[[Any], Any]:
    return lambda content: content["added_tokens"][index].update(changes)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda content: content.pop("model") and None, "has no model"),
        (model(vocab={}), "has no vocabulary"),
        (model(vocab={"a": 0, "b": 0}, merges=[]), "the id 0 to both 'a' and 'b'"),
        (model(vocab={"a": -1}, merges=[]), "the id -1"),
        (model(vocab={"a": 2**31}, merges=[]), "the id 2147483648"),
        (model(vocab={"a": "0"}, merges=[]), "not a whole number"),
        (model(vocab={"a": True}, merges=[]), "not a whole number"),
        (model(merges=[["q", "zzzz"]]), "merge 0 needs the token 'zzzz'"),
        (model(merges=["a b c"]), "two parts"),
        (model(merges=[["a"]]), "two texts"),
        (model(merges=5), "has no merges"),
        (model(unk_token=5), "unk_token is not text"),
        (added(0, id=-4), "needs a content and an id"),
        (added(0, content=""), "needs a content and an id"),
        (added(1, id=504), "the id 504 to both"),
        (added(0, id=3), "the id 3, which another token has"),
        (lambda content: content.update(normalizer=[1]), "normalizer that is not an object"),
    ],
)
def test_a_contradictory_tokenizer_json_is_one_sentence(edit: Callable[[Any], Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedInput, match=fault) as caught:
        read("qwen2", tmp_path, tokenizer_json=edit)
    assert str(caught.value).startswith(f"{tmp_path / 'tokenizer.json'}: ")
    assert "\n" not in str(caught.value)


def test_a_model_of_another_kind_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownTokenizer, match="WordLevel"):
        read("qwen2", tmp_path, tokenizer_json=model(type="WordLevel"))


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ([], "not an object"),
        ({"x": {"content": "a"}}, "needs an id and a content"),
        ({"٣": {"content": "a"}}, "needs an id and a content"),
        ({"99999999999": {"content": "a"}}, "needs an id and a content"),
        ({"3": {"content": 5}}, "needs an id and a content"),
        ({"3": {"content": "<|im_end|>"}}, "the id 3, but tokenizer.json gives it 506"),
    ],
)
def test_a_contradictory_tokenizer_config_is_one_sentence(table: Any, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedInput, match=fault):
        read("qwen2", tmp_path, tokenizer_config_json=lambda content: content.update(added_tokens_decoder=table))


def tekken(size: int, special: int) -> bytes:
    config = {"default_vocab_size": size, "default_num_special_tokens": special, "pattern": "."}
    return json.dumps({"config": config, "vocab": []}).encode()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("vocab.txt", b"a\nb\na\n", "'a' twice"),
        ("vocab.txt", b"\xff\xfe\n", "not UTF-8"),
        ("tekken.json", tekken(5, 9), "counts 5 tokens"),
        ("tekken.json", tekken(5, 0), "fewer"),
        ("tekken.json", b"[]", "a list"),
        ("tokenizer.model", b"", "0 pieces"),
        ("tokenizer.json", b'{"model": ', "not valid JSON"),
    ],
)
def test_other_broken_files(name: str, content: bytes, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedInput, match=fault) as caught:
        read_files(write({name: content}, tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_merges_in_a_text_file_have_two_parts(tmp_path: Path) -> None:
    with pytest.raises(DamagedInput, match=r"merges\.txt: has 'a b c' in line 2"):
        read_files(write({"vocab.json": b'{"a": 0}', "merges.txt": b"#version: 0.2\na b c\n"}, tmp_path))


def spoiled(**changes: Value | None) -> dict[str, Value]:
    keys: dict[str, Any] = {**to_gguf(golden_tokenizer("llama")), **{GGML + name: value for name, value in changes.items()}}
    return {key: value for key, value in keys.items() if value is not None}


def texts(edit: Callable[[list[str]], Any]) -> Value:
    listed = list(to_gguf(golden_tokenizer("llama"))[f"{GGML}tokens"].value)
    edit(listed)
    return Value("[str]", listed)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": None}, "has no tokenizer.ggml.model"),
        ({"model": Value("u32", 1)}, "of type u32"),
        ({"tokens": None}, "has no tokenizer.ggml.tokens"),
        ({"tokens": Value("[i32]", [1])}, "where texts were expected"),
        ({"tokens": texts(lambda listed: listed.__setitem__(5, "<s>"))}, "'<s>' both as token 1 and as token 5"),
        ({"tokens": texts(lambda listed: listed.__setitem__(5, "\udcff"))}, "token 5, which is not UTF-8"),
        ({"tokens": texts(lambda listed: listed.__setitem__(5, "x" * 70000))}, "more than 65536 characters"),
        ({"scores": None}, "needs"),
        ({"scores": Value("[f32]", [0.0])}, "only 1 values"),
        ({"scores": Value("[f32]", [float("nan")] * 512)}, "the score nan"),
        ({"scores": Value("[f64]", [1e300] * 512)}, "no 32-bit float"),
        ({"scores": Value("[str]", ["a"] * 512)}, "numbers were expected"),
        ({"token_type": Value("[i32]", [1])}, "only 1 values"),
        ({"token_type": Value("str", "1")}, "numbers were expected"),
    ],
)
def test_contradictory_keys_are_one_sentence(changes: dict[str, Value | None], fault: str) -> None:
    with pytest.raises(DamagedInput, match=fault) as caught:
        from_gguf(spoiled(**changes), source="m.gguf")
    assert str(caught.value).startswith("m.gguf: ")


@pytest.mark.parametrize("text", ["<0x-1>", "<0xGG>", "<0x>", "<0x100>", ""])
def test_a_byte_token_that_names_no_byte_harms_nobody(text: str) -> None:
    rebuilt = from_gguf(spoiled(tokens=texts(lambda listed: listed.__setitem__(40, text))))
    assert rebuilt is not None
    assert json.loads(to_files(rebuilt)["tokenizer.json"])["model"]["vocab"][text] == 40


@pytest.mark.parametrize("index", [2**32 - 1, 512, -5])
def test_a_special_id_that_is_no_token_counts_as_none(index: int) -> None:
    rebuilt = from_gguf(spoiled(padding_token_id=Value("i64", index)))
    assert rebuilt is not None
    assert "pad_token" not in rebuilt.settings


@pytest.mark.parametrize("kind", ["rwkv", "plamo2", "hybriddna", "surprise"])
def test_a_kind_without_a_hugging_face_form_is_unknown(kind: str) -> None:
    with pytest.raises(UnknownTokenizer, match=kind):
        from_gguf(spoiled(model=Value("str", kind)))


def test_an_unknown_pre_tokenizer_is_unknown() -> None:
    with pytest.raises(UnknownTokenizer, match="surprise"):
        from_gguf(to_gguf(golden_tokenizer("qwen2")) | {f"{GGML}pre": Value("str", "surprise")})


@pytest.mark.parametrize("kind", ["none", "no_vocab"])
def test_a_file_that_says_it_has_no_tokenizer_has_none(kind: str) -> None:
    assert from_gguf({f"{GGML}model": Value("str", kind)}) is None


def test_a_huge_vocab_size_is_refused_before_memory_is_taken() -> None:
    with pytest.raises(DamagedInput, match="not possible"):
        to_gguf(golden_tokenizer("qwen2"), vocab_size=1 << 40)


JUNK: list[Any] = [
    None, True, 0, -1, 2**31, 10**30, 0.5, 1e39, "", "a", "<s>", "▁", "\0", [], {}, [None], [[]], {"type": "Sequence"},
    {"type": "ByteLevel"}, [["a", "b"]], {"id": "<s>"}, {"content": "x"}, {"type": "Split", "pattern": {"Regex": 5}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in islice(items, 40):
        yield from places(item, (*path, key))


def mutated(value: Any, rng: random.Random) -> Any:
    value = copy.deepcopy(value)
    *path, last = rng.choice([path for path in places(value) if path])
    owner = value
    for key in path:
        owner = owner[key]
    if rng.random() < 0.8:
        owner[last] = copy.deepcopy(rng.choice(JUNK))
    else:
        del owner[last]
    return value


def refused_or_done(action: Callable[[], Any]) -> None:
    try:
        action()
    except HubclientError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2", "bert", "mt5", "roberta_cls"])
def test_mutated_files_are_refused_or_converted_but_never_crash(name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    files = files_in(golden_folder(name))
    originals = {file: json.loads(files[file].read_text()) for file in ("tokenizer.json", "tokenizer_config.json", "config.json")}

    def whole(files: dict[str, Path]) -> None:
        tokenizer = read_files(files)
        if tokenizer is not None:
            keys = to_gguf(tokenizer, pre=rng.choice([None, "gpt-2"]))
            from_gguf(keys, residual(tokenizer, keys))
            rebuilt = from_gguf(keys)
            assert rebuilt is not None
            to_files(rebuilt)

    for _ in range(60):
        file = rng.choice([*originals, "tokenizer.json"])
        changed = {**files, **write({file: json.dumps(mutated(originals[file], rng)).encode()}, tmp_path)}
        if rng.random() < 0.3:
            changed = {name: path for name, path in changed.items() if not name.endswith(".model")}
        refused_or_done(lambda changed=changed: whole(changed))  # type: ignore[misc]


@pytest.mark.parametrize("name", ["llama", "qwen2", "bert", "mt5"])
def test_mutated_keys_and_kept_differences_never_crash(name: str) -> None:
    rng = random.Random(name)
    tokenizer = golden_tokenizer(name)
    keys = to_gguf(tokenizer)
    kept = json.loads(residual(tokenizer, keys))
    odd = [Value("str", "x"), Value("u32", 2**32 - 1), Value("[str]", []), Value("[[i32]]", [[1]]), Value("[f32]", [0.0] * 512)]

    def back(keys: dict[str, Value], kept: str | None) -> None:
        rebuilt = from_gguf(keys, kept)
        if rebuilt is not None:
            to_files(rebuilt)

    for _ in range(60):
        key = rng.choice(list(keys))
        spoiled_keys = {**keys, key: rng.choice(odd)}
        refused_or_done(lambda spoiled_keys=spoiled_keys: back(spoiled_keys, None))  # type: ignore[misc]
        refused_or_done(lambda spoiled_keys=spoiled_keys: back(spoiled_keys, json.dumps(kept)))  # type: ignore[misc]
        changed = {**mutated(kept, rng), "version": kept["version"], "tokens": kept["tokens"]}
        refused_or_done(lambda changed=changed: back(keys, json.dumps(changed)))  # type: ignore[misc]
