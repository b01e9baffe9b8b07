"""What cannot be had from MLX folders, or made one of: refused in one sentence, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import edited
from golden import Golden, Workshop, copy
from running import Failing

from hubclient import Checkpoint
from hubclient.errors import DamagedInput, UnsupportedArchitecture, UnsupportedEncoding, UsageError

LLAMA = Golden("llama")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("mlx"))


def test_an_architecture_without_a_layout_is_refused_by_name(tmp_path: Path):
    with pytest.raises(UnsupportedArchitecture, match="the architecture bert is known, but has no MLX layout") as caught:
        Checkpoint.from_pretrained(Golden("bert").checkpoint).save_pretrained(tmp_path / "out", format="mlx")
    assert caught.value.hint == "bert converts to gguf and safetensors"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        (
            {"type": "7bit"},
            UnsupportedEncoding,
            "MLX has no type '7bit'; made here are f32, f16, bf16, 2bit, 3bit, 4bit, 5bit, 6bit, 8bit$",
        ),
        ({"type": "Q8_0"}, UnsupportedEncoding, "MLX has no type 'Q8_0'"),
        (
            {"type": "mxfp4"},
            UnsupportedEncoding,
            "mxfp4 is a type of MLX that is read, and kept by auto, but not made here; f32, f16, bf16, 2bit, ",
        ),
        ({"type": "4bit", "group_size": 48}, UsageError, "MLX has groups of 32, 64, 128, not of 48"),
        ({"type": "bf16", "group_size": 64}, UsageError, "bf16 has no groups"),
        ({"format": "gguf", "group_size": 64}, UsageError, "the types of gguf have no groups"),
        ({"only": "projector"}, UsageError, "a folder holds all parts"),
    ],
)
def test_what_mlx_does_not_have_is_refused(options: dict[str, Any], kind: type[Exception], told: str, tmp_path: Path):
    with pytest.raises(kind, match=told):
        Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(tmp_path / "out", **{"format": "mlx", **options})
    assert not list(tmp_path.iterdir())


def test_packed_weights_of_others_are_refused(tmp_path: Path):
    source = edited(LLAMA.checkpoint, tmp_path / "source", quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedEncoding, match="packed by 'awq'"):
        Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out", format="mlx")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantization": {"group_size": 32, "bits": 4}, "quantization_config": None}, "do not fit 4 bits in groups of 32"),
        ({"quantization_config": {"group_size": 64, "bits": 3}}, "contradicts itself"),
        ({"quantization": None}, "has no quantization"),
        ({"num_hidden_layers": 3}, "no tensor named"),
        ({"hidden_size": 128}, "has the shape"),
        ({"vocab_size": 1000}, "vocab_size"),
    ],
)  # fmt: skip
def test_contradictions_are_one_sentence(
    changes: dict[str, Any], told: str, workshop: Workshop, tmp_path: Path, failing: Failing
):
    folder = edited(workshop.stripped_mlx(LLAMA, "q4"), tmp_path / "source", **changes)
    code, said = failing("convert", folder, tmp_path / "out", "--to", "safetensors")
    assert code == (3 if told == "no tensor named" else 4) and told in said
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_without_config_is_refused(workshop: Workshop, tmp_path: Path):
    folder = copy(workshop.mlx(LLAMA, "fp"), tmp_path / "a")
    (folder / "config.json").unlink()
    with pytest.raises(DamagedInput, match=r"there is no config\.json beside the weights"):
        Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "out")
