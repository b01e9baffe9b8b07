"""Bad input, seen from the command line: one sentence that names the file and the fault, the exit code, nothing written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import ABSENT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawsafetensors import blob
from running import environment

from hubclient import Checkpoint
from hubclient.errors import HubclientError
from hubclient.formats import gguf
from hubclient.formats.encodings import F32
from hubclient.formats.model import OutputSpec, TensorSpec, Value

Failing = Callable[..., tuple[int, str]]
Edit = Callable[[Path], object]

WEIGHTS, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
BLOCK = "model.layers.0."


def refused(failing: Failing, source: Path, code: int, *needles: str, to: str = "gguf", only: str | None = None) -> None:
    """Converting says so, and leaves nothing behind."""
    out = source.parent / "out"
    out.mkdir()
    found, err = failing("convert", source, out / "result", "--to", to, *(["--only", only] if only else []))
    first, *hint = err.splitlines()
    assert found == code, err
    assert first.startswith("hubclient: ") and len(first) < 1000 and len(hint) <= 1 and "fault of ours" not in err
    for needle in needles:
        assert needle in first, f"{needle!r} is not in {first!r}"
    assert list(out.iterdir()) == []


# config.json


def changed(folder: Path, **keys: Any) -> Path:
    config = {**json.loads((folder / CONFIG).read_text()), **keys}
    return checkpoints.write_json(folder / CONFIG, {key: value for key, value in config.items() if value is not ABSENT})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is empty"),
        (b"{", "is not valid JSON"),
        (b"[]", "holds a list"),
        (b'"x"', "holds a string"),
        (b"null", "holds null"),
        (b"3", "holds a number"),
        (b"{} {}", "is not valid JSON"),
        (b"\0" * 100, "is not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, "nested deeper"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper"),
        (b'{"model_type": "llama", "model_type": "bert"}', "twice"),
        (b'{"rms_norm_eps": NaN}', "NaN"),
        (b'{"rms_norm_eps": Infinity}', "Infinity"),
        (b'{"hidden_size": 1e400}', "1e400"),
        (b'{"hidden_size": ' + b"9" * 100_000 + b"}", "digits"),
        (b'{"architectures": ["\\ud800"]}', "surrogate"),
        (b"[" + b"[]," * 4_000_001 + b"[]]", "values"),
    ],
)
def test_a_config_that_is_no_config(text: bytes, fault: str, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / CONFIG).write_bytes(text)
    refused(failing, folder, 4, f"llama/{CONFIG}: ", fault)


HUGE = 2**70
ODD: list[Any] = ["x", -1, HUGE, [1], {"a": 1}, 1.5, True]


@pytest.mark.parametrize("value", [*ODD, 0])
@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "num_hidden_layers",
        "intermediate_size",
        "vocab_size",
        "head_dim",
    ],
)
def test_a_size_that_is_no_size_or_not_the_tensors(key: str, value: Any, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config={key: value})
    if key == "num_hidden_layers" and value is not True and isinstance(value, int) and value > 0:
        refused(failing, folder, 3, "llama", "model.layers.2.")
    elif not (key == "head_dim" and value == 0):  # as null: Transformers takes it from the hidden size then
        refused(failing, folder, 4, "llama")


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("key", ["max_position_embeddings", "rms_norm_eps", "rope_theta"])
def test_a_number_of_the_wrong_kind(key: str, value: Any, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config={key: value})
    wrong = not isinstance(value, int | float) or isinstance(value, bool)
    if wrong or (key == "max_position_embeddings" and value != 1.5 and not 0 <= value < 2**32):
        refused(failing, folder, 4, f"llama/{CONFIG}: ", key)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"hidden_size": 128}, "hidden_size is 128"),
        ({"vocab_size": 300}, "vocab_size"),
        ({"vocab_size": ABSENT}, "vocab_size"),  # then it is 32,000
        ({"num_attention_heads": 5}, "hidden_size / num_attention_heads is 64 / 5"),
        ({"num_key_value_heads": 3}, BLOCK + "self_attn.k_proj.weight"),
        ({"num_hidden_layers": 1}, "block 1"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'"),
        ({"architectures": [5]}, "architectures is [5]"),
        ({"architectures": {"a": 1}}, "architectures"),
        ({"rope_scaling": "linear"}, "rope settings"),
        ({"rope_scaling": [1]}, "rope settings"),
        ({"rope_parameters": 7}, "rope settings"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "x"}}, "factor is 'x'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": "x"}}, "original_max_position"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 0}}, "factor is 0"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": []}}, "low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 1}}, "low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 0}}, "original_max_position"),
        ({"rope_theta": -5, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope_theta"),
        ({"head_dim": 2**31, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, "head_dim"),
    ],
)
def test_a_config_that_contradicts_itself_or_the_tensors(
    keys: dict[str, Any], fault: str, failing: Failing, tmp_path: Path
) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config=keys)
    refused(failing, folder, 4, "llama", fault)


@pytest.mark.parametrize(
    ("key", "value"), [("n_embd", "x"), ("n_embd", 32), ("n_inner", "x"), ("n_inner", 100), ("n_layer", "2"), ("n_layer", 1)]
)
def test_sizes_of_a_gpt2(key: str, value: Any, failing: Failing, tmp_path: Path) -> None:
    refused(failing, checkpoints.gpt2(tmp_path / "gpt2", config={key: value}), 4, "gpt2", "block" if key == "n_layer" else key)


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", 32), ("vocab_size", 63), ("max_position_embeddings", "x"), ("layer_norm_eps", [])]
)
def test_sizes_of_a_bert(key: str, value: Any, failing: Failing, tmp_path: Path) -> None:
    refused(failing, checkpoints.bert(tmp_path / "bert", config={key: value}), 4, "bert", key)


# Unsupported, from headers alone: what is missing, and how to add it


@pytest.mark.parametrize(
    "keys",
    [
        {"architectures": ["FooForCausalLM"]},
        {"architectures": ABSENT, "model_type": "foo"},
        {"architectures": [], "model_type": ABSENT},
    ],
)
def test_an_unknown_architecture_is_named_with_the_way_to_add_it(keys: dict[str, Any], failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config=keys)
    code, err = failing("convert", folder, tmp_path / "out.gguf", "--to", "gguf")
    assert code == 3 and ("FooForCausalLM" in err or "model_type" in err)
    assert "plugins ls" in err and "add-an-architecture" in err and len(err.splitlines()) == 2


def test_a_class_with_a_typing_error_is_told_its_neighbours(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config={"architectures": ["LlamaForCausalLLM"]})
    refused(failing, folder, 3, "LlamaForCausalLM")


@pytest.mark.parametrize("names", [["strange.weight"], [f"strange.{i}.weight" for i in range(9)], ["x" * 5000], ["a\nb\x1b[2J"]])
def test_tensors_without_a_rule_are_named_with_the_way_to_add_one(names: list[str], failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", tensors=dict.fromkeys(names, (4,)))
    code, err = failing("convert", folder, tmp_path / "out.gguf", "--to", "gguf")
    assert code == 3 and "no rule in the architecture llama" in err and "add-an-architecture" in err
    assert len(err.splitlines()) == 2 and len(err) < 1000 and (len(names) < 4 or "and 6 more" in err)


@pytest.mark.parametrize("name", [BLOCK + "mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"])
def test_a_missing_tensor_is_named(name: str, failing: Failing, tmp_path: Path) -> None:
    refused(failing, checkpoints.llama(tmp_path / "llama", tensors={name: None}), 3, "llama", name)


def test_a_missing_head_is_named(failing: Failing, tmp_path: Path) -> None:
    refused(failing, checkpoints.llama(tmp_path / "llama", tensors={"lm_head.weight": None}), 3, "lm_head.weight is missing")


def test_more_layers_than_there_are_tensors_are_named(failing: Failing, tmp_path: Path) -> None:
    for layers in (3, 10**9):
        folder = checkpoints.llama(tmp_path / str(layers) / "llama", config={"num_hidden_layers": layers})
        refused(failing, folder, 3, "model.layers.2.input_layernorm.weight", "which the architecture llama needs")


def test_weights_packed_in_a_way_that_is_not_known_are_named(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", config={"quantization_config": {"quant_method": "gptq", "bits": 4}})
    refused(failing, folder, 3, "gptq")


# Shapes


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (BLOCK + "self_attn.q_proj.weight", (63, 64)),
        (BLOCK + "self_attn.q_proj.weight", (128, 64)),
        (BLOCK + "self_attn.q_proj.weight", (64, 64, 2)),
        (BLOCK + "self_attn.q_proj.weight", (0, 64)),
        (BLOCK + "self_attn.q_proj.weight", ()),
        (BLOCK + "self_attn.k_proj.weight", (16, 64)),
        (BLOCK + "self_attn.q_proj.bias", (63,)),
        ("model.embed_tokens.weight", (272, 32)),
        ("model.embed_tokens.weight", (271, 64)),
        ("model.embed_tokens.weight", (272,)),
    ],
)
def test_a_shape_that_the_config_excludes_is_named(name: str, shape: tuple[int, ...], failing: Failing, tmp_path: Path) -> None:
    refused(failing, checkpoints.llama(tmp_path / "llama", tensors={name: shape}), 4, "llama", name)


@pytest.mark.parametrize("shape", [(64,), (64, 3, 64), ()])
def test_a_transposed_matrix_must_be_one(shape: tuple[int, ...], failing: Failing, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    refused(failing, checkpoints.gpt2(tmp_path / "gpt2", tensors={name: shape}), 4, "gpt2", name)


def test_more_dimensions_than_the_target_has_are_unsupported(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", tensors={BLOCK + "mlp.down_proj.weight": (1, 1, 1, 1, 64, 96)})
    refused(failing, folder, 3, "blk.0.ffn_down.weight")


def test_one_tensor_under_two_names_is_a_contradiction(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", tensors={"embed_tokens.weight": (272, 64)})
    refused(failing, folder, 4, "llama", "model.embed_tokens.weight")


# safetensors and the index


def cut(size: int) -> Edit:
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


def put(name: str, data: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(data)


def replace(name: str, make: Callable[[Path], object]) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return edit


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        *((cut(size), 4) for size in (0, 1, 7, 8, 9, 100, 2000, -1, -100_000)),
        (put(WEIGHTS, b"hello, this is no tensor file at all"), 4),
        (put(WEIGHTS, b"\xff" * 4096), 4),
        (put(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"), 4),
        (put(WEIGHTS, blob({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, bytes(4))), 4),
        (put(WEIGHTS, blob({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))), 4),
        (put(WEIGHTS, blob(b"{" + b'"a":[' * 50_000)), 4),
        (replace(WEIGHTS, Path.mkdir), 4),
        (replace(WEIGHTS, os.mkfifo), 4),
        (replace(WEIGHTS, lambda path: path.symlink_to("nowhere")), 5),
        (replace(WEIGHTS, lambda path: path.symlink_to(path.name)), 5),
        (replace(CONFIG, os.mkfifo), 4),
        (replace(CONFIG, Path.mkdir), 4),
    ],
)  # fmt: skip
def test_weights_that_are_none(edit: Edit, code: int, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    edit(folder)
    refused(failing, folder, code, "llama/")


def test_a_file_longer_than_its_header_says_is_refused(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"PK\3\4")
    refused(failing, folder, 4, WEIGHTS)


def map_to(**changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] |= {"model.norm.weight": changes["name"]} if "name" in changes else changes
        checkpoints.write_json(folder / INDEX, index)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        put(INDEX, b"{"),
        put(INDEX, b"{}"),
        put(INDEX, b'{"weight_map": []}'),
        put(INDEX, b'{"weight_map": {}}'),
        *(
            map_to(name=name)
            for name in (5, None, "", "../x.safetensors", "/etc/passwd", "a\\b", "CON", "x\0y", INDEX, "other.safetensors")
        ),
        map_to(name="model-00003-of-00003.safetensors"),
        map_to(ghost="model-00001-of-00002.safetensors"),
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        lambda folder: shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"),
    ],
)
def test_an_index_that_lies(edit: Edit, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=2)
    edit(folder)
    refused(failing, folder, 4, INDEX)


@pytest.mark.parametrize("gone", [WEIGHTS, CONFIG])
def test_a_folder_that_lacks_what_matters(gone: str, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / gone).unlink()
    refused(failing, folder, 3 if gone == WEIGHTS else 4, "llama", gone)


# Tokenizer and other small files


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"model": 5}', b'{"model": {"type": "BPE"}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 1000000000}, "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}',
    ],
)  # fmt: skip
def test_a_tokenizer_that_is_none(text: bytes, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / TOKENIZER).write_bytes(text)
    refused(failing, folder, 4, f"llama/{TOKENIZER}: ")
    shutil.rmtree(tmp_path / "out")
    refused(failing, folder, 4, f"llama/{TOKENIZER}: ", only="tokenizer")


def test_an_unknown_kind_of_tokenizer_is_unsupported(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / TOKENIZER).write_bytes(b'{"model": {"type": "Foo", "vocab": {}}}')
    refused(failing, folder, 3, TOKENIZER, "Foo")


def test_an_unknown_pre_tokenizer_is_unsupported_and_may_be_named(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    document = json.loads((folder / TOKENIZER).read_text())
    document["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "q+"}, "behavior": "Isolated", "invert": False}
    checkpoints.write_json(folder / TOKENIZER, document)
    code, err = failing("convert", folder, tmp_path / "out.gguf", "--to", "gguf")
    assert code == 3 and "--pre" in err
    Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "out.gguf", format="gguf", pre="gpt-2")


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"]
)
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_small_files_that_are_broken(name: str, text: bytes, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / name).write_bytes(text)
    refused(failing, folder, 4, f"llama/{name}: ")


@pytest.mark.parametrize(
    ("modules", "pooling"),
    [
        ("{", None),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', None),
        ('[{"type": "x.Pooling", "path": "../other"}]', None),
        ('[{"type": "x.Pooling", "path": {}}]', None),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', "["),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', "[]"),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', '{"pooling_mode_max_tokens": true}'),
    ],
)
def test_pooling_that_is_none(modules: str, pooling: str | None, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.bert(tmp_path / "bert")
    (folder / "modules.json").write_text(modules)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / CONFIG).write_text(pooling)
    refused(failing, folder, 4, "bert/modules.json" if pooling is None else "1_Pooling/config.json")


# GGUF


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("right")
    (path,) = Checkpoint.from_pretrained(checkpoints.llama(folder / "llama")).save_pretrained(
        folder / "llama.gguf", format="gguf", type="f32"
    )
    return path


def gguf_with(
    right: Path, folder: Path, metadata: dict[str, Value | None] | None = None, shapes: dict[str, Any] | None = None
) -> Path:
    """A copy with other keys (None: without) and other tensors, all zero."""
    opened = gguf.FORMAT.open(right)
    whole = {key: value for key, value in {**opened.metadata, **(metadata or {})}.items() if value is not None}
    sizes = {
        name: shape
        for name, shape in {**{n: r.shape for n, r in opened.tensors.items()}, **(shapes or {})}.items()
        if shape is not None
    }
    (layout,) = gguf.FORMAT.layout(OutputSpec("x", tuple(TensorSpec(name, shape, F32) for name, shape in sizes.items()), whole))
    path = folder / "bad.gguf"
    path.write_bytes(layout.head.ljust(layout.size, b"\0"))
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
    refused(failing, gguf_with(right, tmp_path, {"general.architecture": value}), code, fault, to="safetensors")


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
    refused(failing, gguf_with(right, tmp_path, {key: value}), 4, "bad.gguf: ", key.removeprefix("llama."), to="safetensors")


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
    refused(failing, gguf_with(right, tmp_path, keys), 4, "bad.gguf: ", to="safetensors")


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
    refused(failing, gguf_with(right, tmp_path, shapes=shapes), code, fault, to="safetensors")


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
        refused(failing, gguf_with(right, tmp_path, {key: value}), 4, "bad.gguf: ", to="safetensors")


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
        gguf_with(right, tmp_path, {"hubclient.checkpoint": own_key(right, **changes)}),
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
    refused(failing, gguf_with(right, tmp_path, {"hubclient.checkpoint": value}), 4, "bad.gguf: ", to="safetensors")


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24, 100, 5000, -1, -100_000])
def test_a_gguf_that_ends_too_early(size: int, right: Path, failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(right.read_bytes()[:size])
    refused(failing, tmp_path / "bad.gguf", 4, "bad.gguf", to="safetensors")


# Bounded time and memory


SPARSE = {
    CONFIG: 1 << 30, TOKENIZER: 1 << 30, "tokenizer.model": 1 << 30, "tokenizer_config.json": 1 << 30, "generation_config.json": 1 << 30,
    "modules.json": 1 << 30, "README.md": 1 << 30, INDEX: 1 << 30,
}  # fmt: skip


@pytest.mark.parametrize("name", SPARSE)
def test_a_gigabyte_where_a_small_file_belongs_is_not_read(name: str, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=2 if name == INDEX else 1)
    with (folder / name).open("ab") as file:
        file.truncate(SPARSE[name])
    for target in ("gguf", "safetensors"):
        line = [sys.executable, "-m", "hubclient", "convert", str(folder), str(tmp_path / "out"), "--to", target]
        done = subprocess.run(
            line, env=environment(), capture_output=True, text=True, timeout=60, preexec_fn=_little_memory, check=False
        )
        if target == "gguf" or done.returncode != 0:
            assert done.returncode == 4 and f"{name}: is 1,073,741,824 bytes" in done.stderr, done.stderr
        assert not (tmp_path / "out").exists() or name == "modules.json"
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def _little_memory() -> None:
    """Too little for a gigabyte of text; code and libraries take their share of addresses."""
    resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))


# Whatever bytes


def valid_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Small right checkpoints of every kind, by file."""
    folder = tmp_path_factory.mktemp("samples")
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1}
    llama = checkpoints.llama(folder / "llama", sizes=sizes)
    checkpoints.write_json(llama / "generation_config.json", {"temperature": 0.6, "top_k": 5})
    (path,) = Checkpoint.from_pretrained(llama).save_pretrained(folder / "gguf" / "model.gguf", format="gguf")
    bare = gguf_with(path, folder, {"hubclient.tokenizer": None, "hubclient.checkpoint": None})
    (folder / "bare").mkdir()
    bare.rename(folder / "bare" / "model.gguf")
    small = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 4, "num_attention_heads": 2}
    checkpoints.bert(folder / "bert", sizes=small)
    checkpoints.llama(folder / "sharded", shards=2, sizes=sizes)
    return {name: valid_files(folder / name) for name in ("llama", "gguf", "bare", "bert", "sharded")}


def damage(data: st.DataObject, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, min(len(broken), 6000) - 1)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "remove", "swap"]))
        if how == "flip" and broken:
            broken[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del broken[at:]
        elif how == "insert":
            broken[at:at] = data.draw(
                st.binary(max_size=8) | st.sampled_from([b"[", b"{", b'"', b"null", b"-1", b"1e999", b"\xff" * 8])
            )
        elif how == "remove":
            del broken[at : at + data.draw(st.integers(1, 64))]
        elif how == "swap" and broken:
            other = data.draw(st.integers(0, len(broken) - 1))
            broken[at], broken[other] = broken[other], broken[at]
    return bytes(broken)


@pytest.mark.parametrize("kind", ["llama", "gguf", "bare", "bert", "sharded"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_is_damaged_only_our_errors_come_out(
    kind: str, data: st.DataObject, samples: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = samples[kind]
    victim = data.draw(st.sampled_from(sorted(files)))
    folder = tmp_path_factory.mktemp("damaged")
    for name, content in files.items():
        (folder / name).write_bytes(damage(data, content) if name == victim else content)
    source = folder / "model.gguf" if "model.gguf" in files else folder
    for target in ("gguf", "safetensors"):
        try:
            Checkpoint.from_pretrained(source).plan(folder / "out", format=target).as_json()
        except HubclientError as error:
            assert error.exit_code in (2, 3, 4, 5) and str(error)
    shutil.rmtree(folder)
