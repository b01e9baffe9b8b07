"""Layouts: what is written is read back, byte for byte as ggml and gguf-py have it; what GGUF cannot hold is refused."""

from __future__ import annotations

import math
import struct
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libggml import header_as_ggml_writes_it
from reference import DATA, REFERENCE

from hubclient.errors import DamagedInput, Unsupported, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import BY_GGML, ENCODINGS, F32, Q8_0
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.values import NumberArray, PackedArray
from hubclient.formats.model import FileLayout, OpenedCheckpoint, OutputSpec, TensorSpec, Value

FOREIGN = sorted((REFERENCE / "foreign" if REFERENCE else DATA / "gguf").glob("*.gguf"))
VOCABULARIES = sorted((REFERENCE / "vocabs").glob("*.gguf")) if REFERENCE else []

INTEGERS = {
    "u8": (0, 2**8 - 1), "i8": (-(2**7), 2**7 - 1), "u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1), "u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1),
}  # fmt: skip
FLOATS = {"f32": st.floats(width=32, allow_nan=False), "f64": st.floats(allow_nan=False)}
TEXTS = st.text() | st.binary(max_size=12).map(lambda data: data.decode("utf-8", "surrogateescape"))
SCALARS = {kind: st.integers(*bounds) for kind, bounds in INTEGERS.items()} | FLOATS | {"bool": st.booleans(), "str": TEXTS}
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15)


@st.composite
def values(draw: st.DrawFn) -> Value:
    kind = draw(st.sampled_from(sorted(SCALARS)))
    depth = draw(st.sampled_from([0, 0, 1, 1, 1, 2]))
    if depth == 0:
        return Value(kind, draw(SCALARS[kind]))
    if depth == 1:
        return Value(f"[{kind}]", draw(st.lists(SCALARS[kind], max_size=6)))
    return Value(f"[[{kind}]]", draw(st.lists(st.lists(SCALARS[kind], max_size=3), min_size=1, max_size=3)))


@st.composite
def tensors(draw: st.DrawFn) -> TensorSpec:
    encoding = BY_GGML[draw(st.sampled_from(sorted(BY_GGML)))]
    rows = draw(st.lists(st.integers(0, 3), max_size=3))
    columns = draw(st.integers(0, 3)) * encoding.block
    shape = () if encoding.block == 1 and draw(st.booleans()) else (*rows, columns)
    return TensorSpec(draw(NAMES), shape, encoding)


@st.composite
def specs(draw: st.DrawFn) -> OutputSpec:
    metadata = draw(st.dictionaries(NAMES, values(), max_size=6))
    if draw(st.booleans()):
        metadata["general.alignment"] = Value("u32", draw(st.sampled_from([8, 32, 64, 128])))
    chosen = draw(st.lists(tensors(), max_size=6, unique_by=lambda tensor: tensor.name))
    return OutputSpec("model.gguf", tuple(chosen), metadata, max_shard_size=draw(st.none() | st.integers(1, 4000)))


def write(folder: Path, files: tuple[FileLayout, ...]) -> Path:
    """The files with zeros for weights; the first one's path."""
    for file in files:
        with (folder / file.name).open("wb") as out:
            out.write(file.head)
            out.truncate(file.size)
    return folder / files[0].name


def spec_of(opened: OpenedCheckpoint, limit: int | None = None) -> OutputSpec:
    tensors = tuple(TensorSpec(t.name, t.shape, t.encoding) for t in opened.tensors.values())
    return OutputSpec("model.gguf", tensors, opened.metadata, max_shard_size=limit)


def unpacked(value: Any) -> Any:
    return [unpacked(item) for item in value] if isinstance(value, (PackedArray, list, tuple)) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(spec=specs())
def test_what_is_laid_out_is_read_back_and_laid_out_the_same(tmp_path: Path, spec: OutputSpec):
    files = FORMAT.layout(spec)
    opened = FORMAT.open(write(tmp_path, files))
    assert spec_of(opened).tensors == spec.tensors
    assert list(opened.metadata) == list(spec.metadata)
    for key, value in spec.metadata.items():
        assert (opened.metadata[key].type, unpacked(opened.metadata[key].value)) == (value.type, unpacked(value.value))
    places = [(placed.tensor, file.name, placed.offset, placed.nbytes) for file in files for placed in file.tensors]
    assert places == [(i, t.file.name, t.offset, t.nbytes) for i, t in enumerate(opened.tensors.values())]
    assert FORMAT.layout(spec_of(opened, spec.max_shard_size)) == files


@pytest.mark.parametrize("path", [*FOREIGN, *VOCABULARIES], ids=lambda path: path.name)
def test_files_of_llama_cpp_are_laid_out_again_byte_for_byte(path: Path):
    opened = FORMAT.open(path)
    (file,) = FORMAT.layout(spec_of(opened))
    data = path.read_bytes()
    if opened.tensors:  # vocabularies end without padding
        assert file.size == len(data)
        assert [placed.offset for placed in file.tensors] == [tensor.offset for tensor in opened.tensors.values()]
    assert file.head[: len(data)] == data[: len(file.head)]


@pytest.mark.llama
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=30)
@given(spec=specs())
def test_ggml_writes_the_same_header(tmp_path: Path, spec: OutputSpec):
    flat = {key: value for key, value in spec.metadata.items() if not value.type.startswith("[[")}  # it reads no nested arrays
    shaped = tuple(t for t in spec.tensors if len(t.shape) == 1 or t.shape[:1] > (1,))  # and writes no leading axis of 1
    files = FORMAT.layout(OutputSpec("model.gguf", shaped, flat, max_shard_size=spec.max_shard_size))
    write(tmp_path, files)
    for file in files:
        assert header_as_ggml_writes_it(tmp_path / file.name) == file.head


def test_gguf_py_reads_the_same_values(tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    path = DATA / "gguf" / "llama3_rope_tied.gguf"
    ours = write(tmp_path, FORMAT.layout(spec_of(FORMAT.open(path))))
    before, after = gguf.GGUFReader(path), gguf.GGUFReader(ours)
    assert {key: field.contents() for key, field in before.fields.items()} == {
        key: field.contents() for key, field in after.fields.items()
    }
    assert [(t.name, t.shape.tolist(), t.tensor_type, t.data_offset) for t in before.tensors] == [
        (t.name, t.shape.tolist(), t.tensor_type, t.data_offset) for t in after.tensors
    ]


def test_the_head_ends_where_the_data_starts(tmp_path: Path):
    spec = OutputSpec("m.gguf", (TensorSpec("a", (3,), F32), TensorSpec("b", (2, 32), Q8_0)), {"k": Value("str", "x")})
    (file,) = FORMAT.layout(spec)
    assert len(file.head) % 32 == 0
    assert [(p.tensor, p.offset - len(file.head), p.nbytes) for p in file.tensors] == [(0, 0, 12), (1, 32, 68)]
    assert file.size == len(file.head) + 32 + 96 and file.name == "m.gguf"


def test_metadata_sets_the_alignment():
    tensors = (TensorSpec("a", (3,), F32), TensorSpec("b", (3,), F32))
    (file,) = FORMAT.layout(OutputSpec("m.gguf", tensors, {"general.alignment": Value("u32", 256)}))
    assert len(file.head) == 256 and [p.offset for p in file.tensors] == [256, 512] and file.size == 768


def test_arrays_may_be_lists_tuples_numpy_or_packed():
    numpy = pytest.importorskip("numpy")
    heads = {
        FORMAT.layout(OutputSpec("m.gguf", (), {"k": Value("[f32]", numbers)}))[0].head
        for numbers in (
            [1.0, 2.5],
            (1, 2.5),
            numpy.array([1, 2.5], numpy.float32),
            NumberArray("f32", array("f", [1, 2.5])),
            NumberArray("f64", array("d", [1, 2.5])),
        )
    }
    assert len(heads) == 1


WRONG_VALUES = {
    "too large": Value("u8", 256),
    "negative": Value("u32", -1),
    "a float for an integer": Value("i32", 1.5),
    "text for a number": Value("f32", "1"),
    "a number for text": Value("str", 1),
    "too large for float32": Value("f32", 1e300),
    "nothing": Value("u32", None),
    "too large in an array": Value("[u16]", [1, 65536]),
    "not a sequence": Value("[str]", 3),
    "numbers for strings": Value("[str]", ["a", 1]),
    "no boolean": Value("bool", 2),
    "no booleans": Value("[bool]", [True, "yes"]),
    "unknown type": Value("u128", 1),
    "a lone surrogate": Value("str", "\ud800"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_a_value_that_its_type_cannot_hold_is_one_sentence_naming_the_key(case: str):
    with pytest.raises(DamagedInput, match=r"'model\.key'") as caught:
        FORMAT.layout(OutputSpec("m.gguf", (), {"model.key": WRONG_VALUES[case]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "k" * 65536, "a\0b", "\ud800"], ids=["empty", "long", "NUL", "surrogate"])
def test_a_key_that_gguf_cannot_hold_is_refused(key: str):
    with pytest.raises(Unsupported, match="cannot hold the name"):
        FORMAT.layout(OutputSpec("m.gguf", (), {key: Value("u8", 1)}))


@pytest.mark.parametrize(
    ("tensor", "error", "words"),
    [
        (TensorSpec("n" * 64, (1,), F32), Unsupported, "of 64 bytes; 1 to 63"),
        (TensorSpec("é" * 32, (1,), F32), Unsupported, "of 64 bytes; 1 to 63"),
        (TensorSpec("", (1,), F32), Unsupported, "of 0 bytes"),
        (TensorSpec("t\0", (1,), F32), Unsupported, "NUL"),
        (TensorSpec("t\ud800", (1,), F32), Unsupported, "surrogate"),
        (TensorSpec("t", (1,) * 5, F32), Unsupported, "up to 4 dimensions"),
        (TensorSpec("t", (4, 16), Q8_0), UnsupportedEncoding, "'t' has rows of 16 elements"),
        (TensorSpec("t", (), Q8_0), UnsupportedEncoding, "'t' has rows of 1 elements"),
        (TensorSpec("t", (4,), ENCODINGS["F8_E4M3"]), UnsupportedEncoding, "no type for F8_E4M3, in which the tensor 't'"),
    ],
)
def test_a_tensor_that_gguf_cannot_hold_is_refused(tensor: TensorSpec, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        FORMAT.layout(OutputSpec("m.gguf", (tensor,)))


def test_a_tensor_name_may_have_63_bytes(tmp_path: Path):
    path = write(tmp_path, FORMAT.layout(OutputSpec("m.gguf", (TensorSpec("n" * 63, (1,), F32),))))
    assert list(FORMAT.open(path).tensors) == ["n" * 63]


def test_two_tensors_of_one_name_are_refused():
    tensors = (TensorSpec("a", (1,), F32), TensorSpec("b", (1,), F32), TensorSpec("a", (2,), F32))
    with pytest.raises(UsageError, match="2 tensors called 'a'"):
        FORMAT.layout(OutputSpec("m.gguf", tensors))


@pytest.mark.parametrize("value", [Value("u32", 0), Value("u32", 48), Value("u32", 1 << 21), Value("i32", 32)])
def test_a_wrong_alignment_is_refused(value: Value):
    with pytest.raises(DamagedInput, match=r"general\.alignment"):
        FORMAT.layout(OutputSpec("m.gguf", (), {"general.alignment": value}))


def test_float_arrays_keep_their_bits_even_of_nan(tmp_path: Path):
    bits = struct.pack("<3I", 0x7FC00001, 0xFFC00000, 0x80000000)
    spec = OutputSpec("m.gguf", (), {"k": Value("[f32]", NumberArray.unpack("f32", bits))})
    read = FORMAT.open(write(tmp_path, FORMAT.layout(spec))).metadata["k"].value
    assert read.packed == bits and math.isnan(read[0]) and FORMAT.layout(OutputSpec("m.gguf", (), {"k": Value("[f32]", read)}))
