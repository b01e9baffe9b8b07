"""Architectures of a third party that have a layout for one format alone: the others are refused, and nothing else suffers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from golden import tensors

from hubclient import Checkpoint, place
from hubclient.architectures import Layout, block, concat, either, identity, optional, stored_as
from hubclient.architectures.language.arrays import Leaf
from hubclient.architectures.language.layouts import Matching
from hubclient.architectures.llama import LLAMA
from hubclient.errors import UnsupportedArchitecture
from hubclient.formats.encodings import ENCODINGS
from hubclient.spokes import projector, rebuild
from hubclient.spokes.matching import packed
from hubclient.testing import Bench

ALONE = replace(LLAMA, name="alone", layouts={"mlx": LLAMA.layouts["mlx"]}, when=None)
SEEING = replace(
    ALONE, name="seeing", layouts={**ALONE.layouts, "mmproj": Layout.of(optional({"visual.weight": "v.weight"}), name="clip")}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoints.llama(tmp_path / "source")


@pytest.mark.parametrize("architecture", [ALONE, SEEING], ids=lambda item: item.name)
def test_a_model_goes_to_mlx_and_back(architecture: Any, folder: Path, tmp_path: Path):
    host = Bench([architecture])
    Checkpoint.from_pretrained(folder, host=host).save_pretrained(tmp_path / "mlx", format="mlx")
    there = Checkpoint.from_pretrained(tmp_path / "mlx", host=host)
    there.save_pretrained(tmp_path / "back")
    assert tensors(tmp_path / "back") == tensors(folder)
    assert there.model.lacking == (() if architecture is ALONE else ("the vision part, which mlx-lm leaves out",))


def test_it_is_copied_placed_and_refused_where_it_has_no_layout(folder: Path, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(folder, host=Bench([SEEING]))
    checkpoint.save_pretrained(tmp_path / "copy", type="f32")
    assert place(checkpoint, {"cuda:0": 1 << 10, "cpu": 1 << 30}).fits
    with pytest.raises(UnsupportedArchitecture, match="has no GGUF layout"):
        checkpoint.plan(tmp_path / "x.gguf", format="gguf")


def test_its_tensors_are_of_the_text_part_unless_the_projector_alone_knows_them():
    assert projector.belongs(SEEING, "visual.weight")
    assert not projector.belongs(SEEING, "model.norm.weight")
    assert not projector.belongs(ALONE, "visual.weight")
    assert (SEEING.knows("mmproj", "visual.weight"), SEEING.knows("gguf", "model.norm.weight")) == (True, False)


@dataclass(frozen=True)
class Doubled:
    """A derivation: the base of rope, doubled."""

    def forward(self, config: Any) -> np.ndarray:
        return np.array([2 * config["rope_parameters"]["rope_theta"]], np.float32)

    def backward(self, values: np.ndarray, config: Any) -> dict[str, Any]:
        return {"rope_theta": float(values[0]) / 2}


def test_what_it_derives_tells_of_the_config_whichever_format_it_is_for():
    own = replace(ALONE, layouts={"own": Layout.of({"a.weight": "x"}, derive={"base": Doubled()})})
    config, losses = rebuild.with_derived(own, {}, {"base": lambda: np.array([20000], np.float32)})
    assert (config, losses) == ({"rope_parameters": {"rope_theta": 10000.0}}, [])
    assert rebuild.with_derived(ALONE, {"a": 1}, {}) == ({"a": 1}, [])
    assert ALONE.name_in("gguf") == "alone"


def matched(encodings: Any, stored: str) -> Matching:
    layout = Layout.of(stored_as(encodings, {"w_packed": "x"}))
    return layout.match(["x"], "target", {}, {}, {"x": stored})


@pytest.mark.parametrize(
    ("encodings", "stored", "expected"),
    [
        (("MXFP4", "MXFP4_PLANES"), "MXFP4", {"w_packed": ENCODINGS["MXFP4_PLANES"]}),
        ("F8_E4M3", "F8_E4M3", {"w_packed": ENCODINGS["F8_E4M3"]}),
        ("Q4_0", "Q4_0", {}),  # which safetensors has no name for
    ],
)
def test_packed_tensors_have_an_encoding_that_safetensors_has(encodings: Any, stored: str, expected: dict[str, Any]):
    assert packed(matched(encodings, stored)) == expected


def test_packed_tensors_become_plain_ones_by_any_layout_that_has_both_lines(folder: Path):
    from hubclient.spokes.matching import as_if_stored

    lines = either(
        stored_as(("MXFP4", "MXFP4_PLANES"), {("gate_blocks", "up_blocks"): concat(2, 2) >> "both"}),
        {("gate", "up"): concat(2, 2) >> "both"},
    )
    own = replace(ALONE, layouts={**ALONE.layouts, "own": Layout.of(block("", "", lines), {"other": identity >> "other"})})
    model = Checkpoint.from_pretrained(folder, host=Bench([ALONE])).model

    @dataclass(frozen=True)
    class Ref:
        encoding: Any

    blocks, plain = Ref(ENCODINGS["MXFP4_PLANES"]), Ref(ENCODINGS["F32"])
    stored = {"gate_blocks": Leaf((2, 32), blocks), "up_blocks": Leaf((2, 32), blocks), "other": Leaf((2, 2), plain)}
    found = as_if_stored(replace(model, architecture=own, tensors=stored), ENCODINGS["F32"])
    assert {name: array.shape for name, array in found.items()} == {"other": (2, 2), "gate": (2, 32), "up": (2, 32)}
