"""What an output is called after: different outputs are called differently, and what is packed is called after that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import edited
from golden import Golden, Stored
from packing import KINDS, Q_PROJ, Stock, packed

from hubclient import Checkpoint
from hubclient.errors import UnsupportedEncoding, UsageError

OSS = Golden("gpt_oss_mxfp4")
LLAMA = Golden("llama")


def labels(source: Path, folder: Path, **options: Any) -> list[str]:
    plan = Checkpoint.from_pretrained(source).plan(folder / "{name}-{type}", **options)
    assert len({output.path for output in plan.outputs}) == len(plan.outputs)
    return [output.type for output in plan.outputs]


def all_but_one_unpacked(stock: Stock) -> None:
    for name in [name for name in stock if name.endswith("_scale_inv") and not name.startswith(Q_PROJ)]:
        del stock[name]
        weight = stock[name.removesuffix("_scale_inv")]
        stock[name.removesuffix("_scale_inv")] = Stored("BF16", weight.shape, bytes(2 * len(weight.data)))


def test_a_folder_is_called_after_what_is_packed_however_little_it_is(tmp_path: Path):
    source = packed(tmp_path / "source", KINDS["blocks"], all_but_one_unpacked)
    assert labels(source, tmp_path, type=["auto", "bf16"]) == ["F8_E4M3", "BF16"]


@pytest.mark.skipif(not OSS.exists, reason="needs the full reference data")
@pytest.mark.parametrize(("space", "kinds"), [("safetensors", ["MXFP4", "BF16"]), ("mlx", ["mxfp4", "BF16"])])
def test_blocks_that_stay_are_told_from_those_that_are_unpacked(space: str, kinds: list[str], tmp_path: Path):
    assert labels(OSS.checkpoint, tmp_path, format=space, type=["auto", "bf16"]) == kinds


def test_types_that_would_be_called_the_same_are_refused_by_name(tmp_path: Path):
    (folder,) = Checkpoint.from_pretrained(LLAMA.checkpoint).save_pretrained(
        tmp_path / "llama", format="mlx", type="4bit", group_size=32
    )
    with pytest.raises(UsageError, match=r"again-4bit: several of these types would be called so; convert them one by one"):
        Checkpoint.from_pretrained(folder).plan(tmp_path / "again-{type}", format="mlx", type=["auto", "4bit"])


@pytest.mark.parametrize("kind", ["F8_E4M3", "float8_e5m2", "U8", "int8", "bool", "F4"])
def test_what_is_only_read_is_refused_with_what_is_written(kind: str, tmp_path: Path):
    with pytest.raises(UnsupportedEncoding) as caught:
        Checkpoint.from_pretrained(LLAMA.checkpoint).plan(tmp_path / "out", type=kind)
    assert str(caught.value).endswith("is read, and kept by auto, but not made here; F64, F32, F16, BF16 are")


@pytest.mark.parametrize("name", ["{typ}.gguf", "{Type}.gguf", "{name}-{}.gguf", "{0}/{type}.gguf"])
def test_what_is_no_placeholder_is_refused(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match=r"is no placeholder; an output's name may contain \{name\} and \{type\}$"):
        Checkpoint.from_pretrained(LLAMA.checkpoint).plan(tmp_path / name, format="gguf")


def test_a_source_that_is_called_like_a_placeholder_keeps_its_name(tmp_path: Path):
    source = edited(LLAMA.checkpoint, tmp_path / "{type}")
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "{name}.gguf", format="gguf")
    assert plan.outputs[0].path == tmp_path / "{type}.gguf"
