"""GGUFs that llama.cpp's converter wrote, which carry no key of ours, become folders that Transformers computes the same from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden import FOLDER, Golden, foreign, tensors, transformers_result

from hubclient import Checkpoint, verify

# The largest difference of a logit: nothing but the order of sums, or what float16 rounded off the source's bfloat16 or float32.
TOLERANCE = {"llama": 1e-4, "llama3_rope_tied": 2e-2, "llama_h256": 1e-4, "qwen2": 1e-4, "gemma2": 1e-4, "bert": 2e-2, "t5": 2e-2,
    "mixtral": 1e-4, "qwen3_moe": 1e-4, "deepseek_v3": 1e-4, "gpt_oss_mxfp4": 1e-4, "mamba2": 1e-4, "phi3": 1e-4,
}  # fmt: skip
NAMES = [name for name in TOLERANCE if foreign(name) and (FOLDER / "goldens" / f"{name}.json").is_file()]
EACH = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def converted(name: str, folder: Path) -> Path:
    path = folder / name
    if not path.exists():
        source = foreign(name)
        assert source is not None
        Checkpoint.from_pretrained(source).save_pretrained(path, strict=True)
    return path


@EACH
def test_nothing_is_lost(name: str, folder: Path):
    source = foreign(name)
    assert source is not None
    checkpoint = Checkpoint.from_pretrained(source)
    assert not any(key.startswith("hubclient.") for key in checkpoint.opened.metadata)
    assert checkpoint.plan(folder / "never").losses == ()


@EACH
def test_tensors_are_those_of_the_source_as_the_file_rounded_them(name: str, folder: Path):
    original, found = tensors(Golden(name).checkpoint), tensors(converted(name, folder))
    prefix = {"bert": "pooler."}.get(name, "none")
    assert found.keys() == {key for key in original if not key.startswith(prefix)}
    for key, back in found.items():
        source = original[key]
        assert back.shape == source.shape
        if back.dtype == source.dtype:
            assert back.data == source.data, key
        else:
            rounded = source.values.astype(np.float16).astype(np.float32)
            assert np.array_equal(back.values, rounded) or np.array_equal(back.values, source.values), key


@EACH
def test_the_folder_is_the_same_model_as_the_file(name: str, folder: Path):
    source = foreign(name)
    assert source is not None
    assert verify(source, converted(name, folder)).ok


@EACH
def test_the_tokenizer_says_to_gguf_what_the_file_said(name: str, folder: Path, tmp_path: Path):
    source = foreign(name)
    assert source is not None
    (again,) = Checkpoint.from_pretrained(converted(name, folder)).save_pretrained(tmp_path / "again.gguf", format="gguf")
    one, two = (
        {k: v for k, v in Checkpoint.from_pretrained(path).opened.metadata.items() if k.startswith("tokenizer.")}
        for path in (source, again)
    )
    assert {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)} == set()


@pytest.mark.torch
@EACH
def test_transformers_gives_the_goldens_logits(name: str, folder: Path):
    golden = Golden(name)
    found = transformers_result(golden, converted(name, folder))
    assert np.abs(found - golden.logits).max() <= TOLERANCE[name]
    if golden.kind == "causal":
        assert int(found.argmax()) == golden.record["transformers"]["argmax"][-1]


@pytest.mark.torch
@EACH
def test_transformers_reads_config_and_tokenizer(name: str, folder: Path):
    from transformers import AutoConfig, AutoTokenizer

    path = converted(name, folder)
    config, original = AutoConfig.from_pretrained(path).to_dict(), AutoConfig.from_pretrained(Golden(name).checkpoint).to_dict()
    ours = json.loads((path / "config.json").read_text())
    unlike = {key for key in ours if key in original and config[key] != original[key]}
    assert unlike <= {"dtype", "bos_token_id", "eos_token_id"}
    text = (
        "Hello  world, naïve 東京 def f(x):"  # without digits, of which the pre-tokenizer named in the file makes its own groups
    )
    assert (
        AutoTokenizer.from_pretrained(path)(text)["input_ids"]
        == AutoTokenizer.from_pretrained(Golden(name).checkpoint)(text)["input_ids"]
    )
