"""Which encoding each tensor gets: the converter's rules, held against every golden where the reference data is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import REFERENCE

from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32, Q8_0
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.storage import FILE_TYPES, file_type, stored_type
from hubclient.formats.model import Encoding

GOLDENS = sorted((REFERENCE / "golden" / "goldens").glob("*.json")) if REFERENCE else []
# stored by rules of their own: packed experts that are moved as they are, layers that a projector's converter names
EXCEPTIONS = {
    "gpt_oss_mxfp4": "_exps.weight",
    "gemma3_vision": "mm.input_projection.weight",
    "voxtral": "a.conv1d.",
}


@pytest.mark.parametrize(
    ("name", "shape", "wanted", "stored"),
    [
        ("blk.0.attn_q.weight", (64, 64), Q8_0, Q8_0),
        ("blk.0.attn_q.weight", (64, 33), Q8_0, F16),
        ("blk.0.attn_q.weight", (64, 33), BF16, BF16),
        ("blk.0.attn_q.bias", (64,), Q8_0, F32),
        ("blk.0.attn_norm.weight", (64,), F16, F32),
        ("blk.0.attn_q_norm.weight", (2, 64), BF16, F32),
        ("blk.11.ffn_gate_inp.weight", (8, 64), F16, F32),
        ("blk.1.2.ffn_gate_inp.weight", (8, 64), F16, F16),
        ("position_embd.weight", (512, 64), F16, F32),
        ("token_types.weight", (2, 64), F16, F32),
        ("rope_freqs.weight", (32,), BF16, F32),
        ("blk.0.ssm_a", (8, 16), BF16, F32),
        ("blk.0.attn_q.weight.lora_a", (8, 64), F16, F16),
        ("token_embd.weight", (512, 256), ENCODINGS["TQ1_0"], F16),
        ("blk.0.ffn_up.weight", (512, 256), ENCODINGS["TQ1_0"], ENCODINGS["TQ1_0"]),
        ("v.patch_embd.weight", (64, 3, 14, 14), BF16, F32),
        ("v.patch_embd.weight", (64, 3, 14, 14), F16, F16),
    ],
)
def test_a_tensor_is_stored_as_the_converter_stores_it(name, shape, wanted, stored):
    assert stored_type(name, shape, wanted) == stored


@pytest.mark.parametrize("source", ["MXFP4", "MXFP4_PLANES"])
def test_packed_experts_stay_packed_whatever_is_asked_for(source: str):
    for wanted in (F32, BF16, Q8_0):
        assert stored_type("blk.0.ffn_up_exps.weight", (4, 64, 64), wanted, ENCODINGS[source]) == ENCODINGS["MXFP4"]
    assert stored_type("blk.0.attn_q.weight", (64, 64), BF16, ENCODINGS[source]) == BF16
    assert stored_type("blk.0.ffn_up_exps.weight", (4, 64, 64), BF16, F32) == BF16


def test_a_plain_file_with_packed_experts_has_a_type_of_its_own():
    packed = {F32, BF16, ENCODINGS["MXFP4"]}
    assert [file_type(wanted, packed) for wanted in (F32, F16, BF16, Q8_0)] == [38, 38, 38, 7]
    assert [file_type(wanted, {F32, BF16}) for wanted in (F32, F16, BF16, Q8_0)] == [0, 1, 32, 7]


def test_file_types_are_those_of_llama_cpp():
    gguf = pytest.importorskip("gguf")
    theirs = {kind.name.removeprefix("MOSTLY_").removeprefix("ALL_"): kind.value for kind in gguf.LlamaFileType}
    assert {name: number for name, number in FILE_TYPES.items() if name in theirs} == {
        name: number for name, number in theirs.items() if name != "GUESSED"
    }


def wanted(outtype: str, output: dict[str, Any]) -> Encoding:
    """The type that the converter was asked for, or that `auto` came to mean."""
    if outtype != "auto":
        return FORMAT.encoding(outtype)
    names = {number: name for name, number in FILE_TYPES.items()}
    number = output["kv"].get("general.file_type", {}).get("value")  # gpt_neox and mpt carry none
    name = names.get(number) or max(output["tensors"], key=lambda tensor: tensor["nbytes"])["type"]
    return BF16 if name == "MXFP4_MOE" else FORMAT.encoding(name)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_the_goldens_store_every_tensor_alike(path: Path):
    record = json.loads(path.read_text())
    exception = EXCEPTIONS.get(record["name"], "-")
    for part in ("gguf", "gguf_mmproj"):
        for outtype, output in (record.get(part) or {}).items():
            for tensor in output.get("tensors", ()):
                if exception not in tensor["name"]:
                    stored = stored_type(tensor["name"], tensor["shape"], wanted(outtype, output))
                    assert stored.name == tensor["type"], (part, outtype, tensor["name"])
