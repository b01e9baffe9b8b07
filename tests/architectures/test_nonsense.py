"""Nonsense for every config key and every metadata key, in turn: one plain sentence or a plan, and nothing else."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from golden import Golden, Workshop, copy, goldens

from hubclient import Checkpoint
from hubclient.errors import DamagedInput, HubclientError, Unsupported
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.values import NumberArray
from hubclient.formats.model import Value

NAMES = ("llama3_rope_tied", "qwen2", "gemma2", "gpt2_prefixed", "bert_cls", "xlm_roberta", "modernbert_cls", "umt5")
SOME = [golden for golden in goldens() if golden.name in NAMES]
EACH = pytest.mark.parametrize("golden", SOME, ids=lambda golden: golden.name)

JSON: list[Any] = [
    None, True, False, -1, 0, 1, 3, 2**31, 2**32 - 1, 2**40, 10**400, 0.0, -0.5, 1e-300, 1e308, "", "x", "8",
    [], [1], {}, {"a": 1}, [["x"]],
    {"rope_type": "llama3"}, {"rope_type": ["x"]}, {"rope_type": "yarn", "factor": "x"}, {"type": "linear"},
    {"type": "llama3", "factor": 0, "low_freq_factor": 4, "high_freq_factor": 1}, {"rope_type": "llama3", "rope_theta": 10**400},
]  # fmt: skip
UNUSUAL = (
    "rope_scaling",
    "rope_parameters",
    "rope_theta",
    "head_dim",
    "text_config",
    "pooling_mode",
    "id2label",
    "sliding_window",
    "dtype",
)
METADATA: list[Value | None] = [
    None, Value("u32", 0), Value("u32", 1), Value("u32", 3), Value("u32", 2**32 - 1), Value("i32", -1), Value("u64", 2**63),
    Value("f32", 0.0), Value("f32", float("nan")), Value("f32", float("inf")), Value("f32", -1.5), Value("f64", 1e300),
    Value("str", ""), Value("str", "x"), Value("str", "\udcff"), Value("str", "{}"), Value("str", "[]"),
    Value("str", '{"version":1}'), Value("bool", True), Value("[u32]", NumberArray("u32", array("I", [1, 2]))),
    Value("[f32]", NumberArray("f32", array("f", []))), Value("[str]", ["a", "b"]), Value("[str]", []),
    Value("[[i32]]", ((1,), (2,))),
]  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("nonsense"))


def plan_or_sentence(checkpoint: Checkpoint, out: Path) -> None:
    """A plan for GGUF of config alone, or an error of ours in one short line that names a file."""
    try:
        checkpoint.plan(out, format="gguf", only="config")
    except (DamagedInput, Unsupported) as error:
        text = str(error)
        assert "\n" not in text and len(text) < 400, text
        assert str(checkpoint.opened.path) in text or "architecture" in text, text


@EACH
def test_config_values(golden: Golden, tmp_path: Path):
    folder = copy(golden.checkpoint, tmp_path / golden.name)
    for key in sorted({*golden.config, *UNUSUAL}):
        for value in JSON:
            (folder / "config.json").write_text(json.dumps({**golden.config, key: value}))
            plan_or_sentence(Checkpoint.from_pretrained(folder), tmp_path / "out")


@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "stripped"])
@EACH
def test_metadata_values(golden: Golden, ours: bool, workshop: Workshop, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(workshop.gguf(golden, "f32") if ours else workshop.stripped(golden, "f32"))
    name = checkpoint.opened.metadata["general.architecture"].value
    more = {"general.sampling.temp", "general.sampling.top_k", f"{name}.rope.scaling.type", f"{name}.pooling_type"}
    known = {key for key in checkpoint.opened.metadata if not key.startswith(("tokenizer.ggml.t", "tokenizer.ggml.m"))}
    for key in sorted(known | more | ({"hubclient.checkpoint"} if ours else set())):
        for value in METADATA:
            metadata = {**checkpoint.opened.metadata, **({key: value} if value is not None else {})}
            if value is None:
                metadata.pop(key, None)
            plan_or_sentence(Checkpoint(replace(checkpoint.opened, metadata=metadata), checkpoint.host), tmp_path / "out")


@EACH
def test_shapes_that_contradict_the_config(golden: Golden, tmp_path: Path):
    folder = copy(golden.checkpoint, tmp_path / golden.name)
    sizes = {"hidden_size", "intermediate_size", "vocab_size", "n_embd", "n_inner", "n_positions", "type_vocab_size"}
    sizes |= {"num_key_value_heads", "head_dim"} if golden.name.startswith("llama") else set()
    for key in sorted(sizes & golden.config.keys()):
        if golden.config[key] is not None:
            (folder / "config.json").write_text(json.dumps({**golden.config, key: golden.config[key] * 2}))
            with pytest.raises(DamagedInput, match=key) as raised:
                Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")
            assert str(folder) in str(raised.value)


@EACH
def test_blocks_that_the_config_does_not_announce(golden: Golden, tmp_path: Path):
    folder = copy(golden.checkpoint, tmp_path / golden.name)
    key = Checkpoint.from_pretrained(golden.checkpoint).model.architecture.blocks
    for layers, fault in ((1, "says that it has 1 blocks"), (9, "no tensor named")):
        (folder / "config.json").write_text(json.dumps({**golden.config, key: layers}))
        with pytest.raises(HubclientError, match=fault):
            Checkpoint.from_pretrained(folder).plan(tmp_path / "out.gguf", format="gguf")


def test_a_file_that_claims_four_thousand_million_blocks(workshop: Workshop, tmp_path: Path):
    opened = FORMAT.open(workshop.gguf(Golden("llama"), "f32"))
    metadata = {**opened.metadata, "llama.block_count": Value("u32", 2**32 - 1)}
    checkpoint = Checkpoint(replace(opened, metadata=metadata), Checkpoint.from_pretrained(opened.path).host)
    with pytest.raises(Unsupported, match=r"no tensor named blk\.2\.attn_norm\.weight"):
        checkpoint.plan(tmp_path / "out")
