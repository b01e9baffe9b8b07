"""Our GGUFs are what llama.cpp's converter writes: every tensor's bytes and every key, but for listed exceptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import EXCEPTIONS, FAMILIES, TYPES, Golden, Workshop, copy, differences, goldens, unexplained
from reference import REFERENCE

from hubclient import Checkpoint


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("parity"))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_every_tensor_and_key_is_that_of_the_reference(golden: Golden, kind: str, workshop: Workshop):
    found = differences(golden, workshop.gguf(golden, kind, pre=golden.pre), kind)
    assert unexplained(golden, found) == {}


@pytest.mark.parametrize("golden", [golden for golden in goldens() if golden.name in EXCEPTIONS], ids=lambda golden: golden.name)
def test_an_exception_is_listed_only_as_long_as_it_holds(golden: Golden, workshop: Workshop):
    expected, reason = EXCEPTIONS[golden.name]
    assert reason
    found = differences(golden, workshop.gguf(golden, "f32", pre=golden.pre), "f32")
    names = {what: sorted(line.split()[0] for line in lines) for what, lines in found.items()}
    assert names == {what: sorted(names) for what, names in expected.items()}


def test_every_family_has_a_golden_on_every_machine():
    names = {golden.name for golden in goldens()}
    alike = ("mistral", "qwen3", "mt5", "distilbert", "roberta", "camembert")  # much like one that is there
    assert all(names.intersection(members) or family in alike for family, members in FAMILIES.items())
    if REFERENCE:
        assert names == {name for members in FAMILIES.values() for name in members}


@pytest.mark.torch
@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_a_config_as_transformers_saves_it_gives_the_same_gguf(golden: Golden, workshop: Workshop, tmp_path: Path):
    """In the spelling of the installed version, without whatever is a default of the family."""
    from transformers import AutoConfig

    folder = copy(golden.checkpoint, tmp_path / golden.name)
    AutoConfig.from_pretrained(golden.checkpoint).save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    assert "torch_dtype" not in saved and "rope_theta" not in saved
    gguf, *_ = Checkpoint.from_pretrained(folder).save_pretrained(
        tmp_path / "out.gguf", format="gguf", type="f32", pre=golden.pre
    )
    assert unexplained(golden, differences(golden, gguf, "f32")) == {}
