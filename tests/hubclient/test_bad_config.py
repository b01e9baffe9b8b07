"""A config, names or shapes that contradict themselves, each other or what is known here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import ABSENT, CONFIG
from running import Failing, refused

BLOCK = "model.layers.0."


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
    if key == "num_hidden_layers" and value is not True and isinstance(value, int) and 0 < value < 2**32:
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
    refused(failing, checkpoints.gpt2(tmp_path / "gpt2", config={key: value}), 4, "gpt2", key)


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
    added = {
        "classifier.weight": (1, 1, 1, 1, 1, 64),
        "classifier.bias": (1,),
        "pooler.dense.weight": (64, 64),
        "pooler.dense.bias": (64,),
    }
    config = {"architectures": ["BertForSequenceClassification"]}
    folder = checkpoints.bert(tmp_path / "bert", config=config, tensors=added)
    refused(failing, folder, 3, "cls.output.weight")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (checkpoints.gpt2, "transformer.ln_f.weight"),
        (checkpoints.gpt2, "transformer.h.1.ln_2.bias"),
        (checkpoints.gpt2, "transformer.h.1.attn.c_attn.bias"),
        (checkpoints.bert, "embeddings.LayerNorm.bias"),
        (checkpoints.bert, "encoder.layer.1.intermediate.dense.bias"),
        (checkpoints.bert, "encoder.layer.1.output.LayerNorm.weight"),
    ],
)
def test_norms_and_biases_of_a_wrong_length_are_named(make: Any, name: str, failing: Failing, tmp_path: Path) -> None:
    refused(failing, make(tmp_path / "model", tensors={name: (63,)}), 4, "model", name)


def test_a_shape_that_the_config_does_not_ask_for_is_a_contradiction(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", tensors={"model.norm.weight": (32,)})
    refused(failing, folder, 4, "model.norm.weight", "hidden_size = 64")


def test_one_tensor_under_two_names_is_a_contradiction(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", tensors={"embed_tokens.weight": (272, 64)})
    refused(failing, folder, 4, "llama", "model.embed_tokens.weight")
