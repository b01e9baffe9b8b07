"""Laying out safetensors outputs: what is laid out opens again, here and in the safetensors library."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawsafetensors import materialise
from safetensors import deserialize, safe_open

from hubclient.errors import DamagedInput, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import BF16, BY_SAFETENSORS, ENCODINGS, F16, F32
from hubclient.formats.model import Format, OutputSpec, TensorSpec, Value
from hubclient.formats.safetensors import FORMAT
from hubclient.formats.safetensors.header import stored_bytes
from hubclient.formats.safetensors.writer import layout

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NAMES = TEXT.filter(bool)


@st.composite
def tensors(draw) -> TensorSpec:
    encoding = BY_SAFETENSORS[draw(st.sampled_from(sorted(BY_SAFETENSORS)))]
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    return TensorSpec(
        draw(NAMES), (*shape, draw(st.integers(0, 3)) * encoding.block) if encoding.blocked else tuple(shape), encoding
    )


SPECS = st.builds(
    OutputSpec,
    name=st.just("out"),
    tensors=st.lists(tensors(), min_size=1, max_size=8, unique_by=lambda tensor: tensor.name).map(tuple),
    metadata=st.dictionaries(TEXT, TEXT.map(lambda text: Value("str", text)), max_size=3),
    max_shard_size=st.none() | st.integers(1, 200),
)  # fmt: skip


def contents(spec: OutputSpec) -> list[bytes]:
    """Distinct bytes for each tensor."""
    return [
        hashlib.shake_128(str(index).encode()).digest(stored_bytes(t.encoding, t.shape)) for index, t in enumerate(spec.tensors)
    ]


def simple(*shapes: tuple[int, ...], encoding=F32, **more) -> OutputSpec:
    return OutputSpec("out", tuple(TensorSpec(f"t{index}", shape, encoding) for index, shape in enumerate(shapes)), **more)


@given(SPECS)
def test_what_is_laid_out_opens_again_equal(spec):
    data = contents(spec)
    files = layout(spec)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        materialise(folder, files, data)
        opened = FORMAT.open(folder)
        held = {tensor: (ref.shape, ref.encoding) for tensor, ref in opened.tensors.items()}
        assert held == {tensor.name: (tensor.shape, tensor.encoding) for tensor in spec.tensors}
        for tensor, expected in zip(spec.tensors, data, strict=True):
            ref = opened.tensors[tensor.name]
            assert ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes] == expected
        assert opened.metadata == {"format": Value("str", "pt"), **spec.metadata}


@given(SPECS)
def test_the_library_opens_what_is_laid_out(spec):
    data = contents(spec)
    files = layout(spec)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        materialise(Path(name), files, data)
        for file in files:
            if file.tensors:
                found |= dict(deserialize(Path(name, file.name).read_bytes()))
                with safe_open(Path(name, file.name), framework="np") as opened:
                    assert opened.metadata()["format"] == spec.metadata.get("format", Value("str", "pt")).value
    expected = {t.name: (t.encoding.safetensors, list(t.shape), block) for t, block in zip(spec.tensors, data, strict=True)}
    assert {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in found.items()} == expected


@given(SPECS)
def test_tensors_are_aligned_without_gaps_and_the_size_is_exact(spec):
    for file in layout(spec):
        if file.tensors:
            assert len(file.head) % 8 == 0
            end = len(file.head)
            for place in file.tensors:
                encoding = spec.tensors[place.tensor].encoding
                assert place.offset == end
                assert place.offset % (1 if encoding.blocked else encoding.block_bytes) == 0
                end += place.nbytes
            assert file.size == end
        else:
            assert file.size == len(file.head)


def test_one_file_needs_no_index_and_keeps_the_order_given_within_a_size():
    spec = OutputSpec(
        "out", tuple(TensorSpec(name, (2,), encoding) for name, encoding in (("c", F16), ("a", F32), ("b", BF16), ("d", F32)))
    )
    (file,) = layout(spec)
    assert file.name == "model.safetensors"
    assert [spec.tensors[place.tensor].name for place in file.tensors] == ["a", "d", "c", "b"]
    (length,) = struct.unpack_from("<Q", file.head)
    assert length == len(file.head) - 8
    assert list(json.loads(file.head[8:])) == ["__metadata__", "a", "d", "c", "b"]


def test_shards_fill_up_in_order_and_a_larger_tensor_stays_alone():
    files = layout(simple((1,), (2,), (9,), (1,), (1,), max_shard_size=12))
    assert [file.name for file in files] == [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)] + [
        "model.safetensors.index.json"
    ]
    assert [[place.tensor for place in file.tensors] for file in files] == [[0, 1], [2], [3, 4], []]
    index = json.loads(files[-1].head)
    assert index["metadata"] == {"total_size": 4 * 14}
    assert index["weight_map"] == {f"t{place.tensor}": file.name for file in files for place in file.tensors}
    assert files[-1].head.endswith(b"}\n")


def test_shards_are_five_gigabytes_unless_said_otherwise():
    assert len(layout(simple((2_500_000_000,), (2_500_000_000,), encoding=ENCODINGS["U8"]))) == 1
    assert len(layout(simple((2_500_000_000,), (2_500_000_001,), encoding=ENCODINGS["U8"]))) == 3


def test_the_index_is_sorted_by_name():
    files = layout(OutputSpec("out", tuple(TensorSpec(name, (1,), F32) for name in "cab"), max_shard_size=4))
    assert list(json.loads(files[-1].head)["weight_map"]) == ["a", "b", "c"]


def test_sidecars_are_whole_files_and_need_no_weights():
    files = layout(
        OutputSpec("out", (), sidecars={"config.json": b"{}\n", "1_Pooling/config.json": b"", "tokenizer.model": b"\0\1"})
    )
    assert [(file.name, file.head, file.tensors, file.size) for file in files] == [
        ("config.json", b"{}\n", (), 3), ("1_Pooling/config.json", b"", (), 0), ("tokenizer.model", b"\0\1", (), 2),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../config.json", "/x", "Model.safetensors", "model.safetensors", "nul.json", ""])
def test_a_sidecar_cannot_leave_the_folder_or_replace_the_weights(name):
    with pytest.raises(DamagedInput, match="out: the file name"):
        layout(simple((1,), sidecars={name: b""}))


def test_only_string_metadata_is_carried_and_may_say_another_format():
    spec = simple((1,), metadata={"format": Value("str", "mlx"), "count": Value("u32", 3), "note": Value("str", "é")})
    assert json.loads(layout(spec)[0].head[8:])["__metadata__"] == {"format": "mlx", "note": "é"}


@pytest.mark.parametrize("names", [("a", "a"), ("",), ("__metadata__",)])
def test_impossible_tensor_names_are_refused(names):
    with pytest.raises(UsageError, match="cannot be called"):
        layout(OutputSpec("out", tuple(TensorSpec(name, (1,), F32) for name in names)))


def test_what_the_format_cannot_hold_is_refused():
    with pytest.raises(UnsupportedEncoding, match="no type for Q8_0, which tensor 't0'"):
        layout(simple((32,), encoding=ENCODINGS["Q8_0"]))
    with pytest.raises(UsageError, match="whole number of bytes"):
        layout(simple((3,), encoding=ENCODINGS["F4"]))
    with pytest.raises(UsageError, match="larger than any file"):
        layout(simple((2**40, 2**40)))
    with pytest.raises(UsageError, match="not Unicode text"):
        layout(OutputSpec("out", (TensorSpec("\udc80", (1,), F32),)))
    with pytest.raises(UsageError, match="header would take"):
        layout(simple((1,), metadata={"x": Value("str", "y" * 100_000_000)}))
    with pytest.raises(UsageError, match="shard size of 0"):
        layout(simple((1,), max_shard_size=0))


def test_the_same_spec_gives_the_same_bytes():
    spec = simple((3,), (2, 2), metadata={"b": Value("str", "1"), "a": Value("str", "2")})
    assert layout(spec) == layout(spec)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("bf16", "BF16"), ("BF16", "BF16"), ("bfloat16", "BF16"), ("torch.bfloat16", "BF16"),
        ("Half", "F16"), ("fp16", "F16"), ("float16", "F16"), ("float32", "F32"), ("F32", "F32"), ("float", "F32"),
        ("double", "F64"), ("f8_e4m3", "F8_E4M3"), ("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2"),
        ("float8_e8m0fnu", "F8_E8M0"), ("f4", "F4"), ("int8", "I8"), ("uint8", "U8"), ("bool", "BOOL"), ("complex64", "C64"),
    ],
)  # fmt: skip
def test_dtypes_are_named_in_either_spelling(name, dtype):
    assert FORMAT.encoding(name) is BY_SAFETENSORS[dtype]


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "", "float33", "auto", "torch.", "x" * 1000])
def test_an_unknown_dtype_is_answered_with_those_that_can_be_written(name):
    with pytest.raises(UnsupportedEncoding, match=r"safetensors has no type .* made here are F64, F32, F16, BF16$") as caught:
        FORMAT.encoding(name)
    assert len(str(caught.value)) < 400


def test_the_format_is_a_format_and_imports_nothing_heavy():
    assert isinstance(FORMAT, Format)
    heavy = ("numpy", "numba", "safetensors", "rich", "click")
    code = f"import sys, hubclient.formats.safetensors; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout == "[]\n"


@pytest.mark.torch
def test_pytorch_loads_what_is_laid_out(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    wanted = {
        "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "bytes": torch.arange(3, dtype=torch.uint8),
        "flags": torch.tensor([True, False]), "bf16": torch.arange(5).to(torch.bfloat16),
        "f8": torch.arange(3).to(torch.float8_e4m3fn), "double": torch.arange(2, dtype=torch.float64),
    }  # fmt: skip
    spec = OutputSpec("out", tuple(TensorSpec(name, tuple(t.shape), FORMAT.encoding(str(t.dtype))) for name, t in wanted.items()))
    data = [bytes(t.reshape(-1).contiguous().view(torch.uint8).tolist()) if t.numel() else b"" for t in wanted.values()]
    materialise(tmp_path, layout(spec), data)
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].to(torch.float64), tensor.to(torch.float64))
