"""inspect: what a checkpoint holds, from headers, also where nobody here knows the architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import edited
from golden import Golden, copy
from hostile_gguf import LITTLE, put
from rawsafetensors import put_bytes_tensors
from running import command, counting_reads

from hubclient import Checkpoint
from hubclient.inspection import inspect


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "llama")


def look(path: Path, **options: Any) -> dict[str, Any]:
    return inspect(Checkpoint.from_pretrained(path), **options)


def test_a_folder_is_told_as_plain_data(source: Path) -> None:
    with counting_reads() as reads:
        found = look(source)
    assert reads == [] and json.loads(json.dumps(found)) == found
    assert (found["format"], found["architecture"], found["class"]) == ("safetensors", "llama", "LlamaForCausalLM")
    assert found["converts_to"] == ["gguf", "mlx", "safetensors"]
    assert found["tensor_count"] == 21 and found["parameters"] == 96_576 and found["bytes"] == 2 * 96_576
    assert found["encodings"] == {"BF16": 2 * 96_576}
    assert found["sidecars"] == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert found["config"]["rope_theta"] == 10000.0
    assert found["files"] == [{"path": str(source / "model.safetensors"), "bytes": (source / "model.safetensors").stat().st_size}]
    assert "tensors" not in found


def test_tensors_are_listed_when_asked_for(source: Path) -> None:
    tensors = look(source, tensors=True)["tensors"]
    assert len(tensors) == 21
    assert {key: tensors[0][key] for key in ("name", "shape", "encoding", "bytes", "file")} == {
        "name": "lm_head.weight", "shape": [272, 64], "encoding": "BF16", "bytes": 34_816, "file": "model.safetensors",
    }  # fmt: skip


def test_long_metadata_is_shortened(source: Path, tmp_path: Path) -> None:
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "x.gguf", format="gguf")
    tokens = look(path)["metadata"]["tokenizer.ggml.tokens"]
    assert tokens["length"] == 272 and len(tokens["first"]) == 32


def test_an_unknown_architecture_is_inspected_all_the_same(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "x", config={"architectures": ["FrobnicatorForCausalLM"], "model_type": "frobnicator"})
    found = look(folder)
    assert found["architecture"] is None and "FrobnicatorForCausalLM" in found["why"] and found["parameters"] == 96_576
    done = command("inspect", folder, cwd=tmp_path)
    assert done.returncode == 0 and "FrobnicatorForCausalLM" in done.stdout


def test_a_single_file_without_a_config_is_inspected(tmp_path: Path) -> None:
    path = put_bytes_tensors(tmp_path / "weights.safetensors", "a", "b", metadata={"made": "here"})
    found = look(path)
    assert found["tensor_count"] == 2 and found["metadata"] == {"made": "here"} and found["architecture"] is None


def test_a_gguf_without_tensors_is_inspected(tmp_path: Path) -> None:
    found = look(put(tmp_path / "vocab.gguf", LITTLE.file([LITTLE.text("general.architecture", "llama")])))
    assert found["tensor_count"] == 0 and found["encodings"] == {}


def test_a_tokenizer_alone_is_inspected(tmp_path: Path) -> None:
    for name, data in checkpoints.byte_level().items():
        (tmp_path / name).write_bytes(data)
    done = command("inspect", tmp_path, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["sidecars"] == ["tokenizer.json", "tokenizer_config.json"]


def test_the_mix_is_told_by_encoding(source: Path, tmp_path: Path) -> None:
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "x.gguf", format="gguf", type="Q8_0")
    found = look(path, tensors=True)
    assert list(found["mix"]) == ["Q8_0", "F32"]  # the largest first
    assert found["mix"]["F32"] == {"tensors": 5, "weights": 320, "bytes": 1280, "bits_per_weight": 32.0}
    assert found["mix"]["Q8_0"]["bits_per_weight"] == 8.5
    for key, whole in (("tensors", found["tensor_count"]), ("weights", found["parameters"]), ("bytes", found["bytes"])):
        assert sum(share[key] for share in found["mix"].values()) == whole
    assert found["encodings"] == {name: share["bytes"] for name, share in found["mix"].items()}
    assert found["bits_per_weight"] == pytest.approx(found["bytes"] * 8 / found["parameters"], rel=1e-5)


@pytest.mark.parametrize(("format_", "type_", "bits"), [("mlx", "4bit", 4.5), ("safetensors", "f16", 16.0)])
def test_any_format_has_a_mix(format_: str, type_: str, bits: float, source: Path, tmp_path: Path) -> None:
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "x", format=format_, type=type_)
    shares = look(path)["mix"]
    assert next(iter(shares.values()))["bits_per_weight"] == bits and sum(one["tensors"] for one in shares.values()) == 21


def test_nothing_has_no_bits_per_weight(tmp_path: Path) -> None:
    path = put(tmp_path / "vocab.gguf", LITTLE.file([LITTLE.text("general.architecture", "llama")]))
    assert look(path)["mix"] == {} and look(path)["bits_per_weight"] is None
    done = command("inspect", path, cwd=tmp_path)
    assert done.returncode == 0 and "bits per weight" not in done.stdout


def test_the_command_shows_the_mix(source: Path, tmp_path: Path) -> None:
    lines = [line.split() for line in command("inspect", source, cwd=tmp_path).stdout.splitlines()]
    assert ["BF16", "21", "96,576", "193.2", "kB", "16.00"] in lines and ["bits", "per", "weight", "16.00"] in lines


@pytest.mark.parametrize("extra", [(), ("--tensors",)])
def test_the_command_shows_a_table(extra: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    done = command("inspect", source, *extra, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "llama (LlamaForCausalLM)" in done.stdout and "96,576 in 21 tensors" in done.stdout
    assert ("model.layers.0.self_attn.q_proj.weight" in done.stdout) == bool(extra)


# What it converts to


def test_weights_that_cannot_be_read_convert_to_nothing(source: Path, tmp_path: Path) -> None:
    folder = copy(source, tmp_path / "x")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    found = inspect(Checkpoint.from_pretrained(folder, only="config"))
    assert found["architecture"] == "llama" and found["converts_to"] == [] and ".bin files are not read" in found["why"]
    done = command("inspect", folder, cwd=tmp_path)
    assert done.returncode == 0 and "nothing here" in done.stdout and ".bin files are not read" in done.stdout


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_weights_that_cannot_be_unpacked_are_copied_at_most(method: str, source: Path, tmp_path: Path) -> None:
    folder = edited(source, tmp_path / "x", quantization_config={"quant_method": method, "bits": 4})
    found = look(folder)
    assert found["converts_to"] == ["safetensors"] and f"packed by '{method}'" in found["why"]


def test_a_config_alone_converts_to_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    found = inspect(Checkpoint.from_pretrained(tmp_path, only="config"))
    assert found["converts_to"] == [] and "holds no weights" in found["why"]


@pytest.mark.parametrize(("name", "targets"), [("mistral3", ["gguf", "mlx", "safetensors"]), ("bert", ["gguf", "safetensors"])])
def test_what_is_promised_can_be_planned(name: str, targets: list[str], tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_pretrained(Golden(name).checkpoint)
    assert inspect(checkpoint)["converts_to"] == targets and "why" not in inspect(checkpoint)
    for target in targets:
        assert checkpoint.plan(tmp_path / "{type}", format=target).outputs
