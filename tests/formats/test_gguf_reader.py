"""Right files: every kind of value, both byte orders, both versions, lazy arrays, and what the reader says about a file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_gguf import ARRAY, BIG, BOOL, I32, LITTLE, STRING, U8, U32, Bytes, ordinary, put
from libggml import row_size
from reference import DATA, REFERENCE, ROOT

from hubclient.errors import DamagedInput, SourceMissing, UnsupportedEncoding
from hubclient.formats.encodings import BY_GGML, F32, Q8_0
from hubclient.formats.gguf import FORMAT
from hubclient.formats.model import Format

FOREIGN = sorted((REFERENCE / "foreign" if REFERENCE else DATA / "gguf").glob("*.gguf"))
VOCABULARIES = sorted((REFERENCE / "vocabs").glob("*.gguf")) if REFERENCE else []


@pytest.mark.parametrize("make", [LITTLE, BIG], ids=["little", "big"])
def test_every_kind_of_value_is_read_in_both_byte_orders(tmp_path: Path, make: Bytes):
    metadata = FORMAT.open(put(tmp_path / "m.gguf", ordinary(make))).metadata
    assert {key: (value.type, value.value) for key, value in metadata.items() if not value.type.startswith("[")} == {
        "general.architecture": ("str", "llama"),
        "a.u8": ("u8", 200),
        "a.i8": ("i8", -100),
        "a.u16": ("u16", 60000),
        "a.i16": ("i16", -30000),
        "a.u32": ("u32", 4_000_000_000),
        "a.i32": ("i32", -2_000_000_000),
        "a.u64": ("u64", 2**64 - 1),
        "a.i64": ("i64", -(2**63)),
        "a.f32": ("f32", 0.10000000149011612),
        "a.f64": ("f64", 0.1),
        "a.yes": ("bool", True),
    }
    assert metadata["a.yes"].value is True and metadata["a.flags"].value[1] is False
    assert metadata["a.words"] == ("[str]", ["one", "", "dreißig"])
    assert metadata["a.sections"] == ("[i32]", [16, 24, -24, 0])
    assert metadata["a.flags"] == ("[bool]", [True, False, True])
    assert metadata["a.none"] == ("[f32]", [])


@pytest.mark.parametrize("make", [LITTLE, BIG], ids=["little", "big"])
def test_tensors_have_row_major_shapes_and_absolute_offsets(tmp_path: Path, make: Bytes):
    path = put(tmp_path / "m.gguf", ordinary(make))
    opened = FORMAT.open(path)
    start = len(path.read_bytes()) - 128
    first, second = opened.tensors.values()
    assert (first.name, first.shape, first.encoding, first.offset, first.nbytes) == ("first.weight", (2, 3), F32, start, 24)
    assert (second.name, second.shape, second.encoding) == ("second.weight", (2, 32), Q8_0)
    assert (second.offset, second.nbytes) == (start + 32, 68)
    assert first.big_endian is (make is BIG)
    assert path.read_bytes()[first.offset : first.offset + 24] == make.pack("6f", *range(6))


def test_the_source_file_carries_size_time_and_the_digest_of_its_header(tmp_path: Path):
    path = put(tmp_path / "m.gguf", ordinary())
    (file,) = FORMAT.open(path).files
    data = path.read_bytes()
    assert (file.path, file.size, file.mtime_ns) == (path, len(data), path.stat().st_mtime_ns)
    assert file.header_digest == hashlib.sha256(data[:-128]).hexdigest()


def test_the_digest_covers_the_header_and_not_the_weights(tmp_path: Path):
    right = ordinary()
    digests = [FORMAT.open(put(tmp_path / "m.gguf", data)).files[0].header_digest for data in (right, right[:-1] + b"\1")]
    assert digests[0] == digests[1]


def test_version_2_differs_from_version_3_in_nothing_else(tmp_path: Path):
    tensors = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file([], [LITTLE.tensor("a")], bytes(16), version=2))).tensors
    assert list(tensors) == ["a"]


def test_a_file_without_tensors_and_keys_is_empty(tmp_path: Path):
    opened = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file()))
    assert not opened.tensors and not opened.metadata and not opened.sidecars


def test_a_vocabulary_needs_no_padding_after_its_keys(tmp_path: Path):
    data = LITTLE.file([LITTLE.text("general.architecture", "llama")], alignment=1)
    assert FORMAT.open(put(tmp_path / "m.gguf", data)).metadata["general.architecture"].value == "llama"


@pytest.mark.parametrize("alignment", [1, 8, 64, 1 << 20])
def test_the_alignment_of_the_metadata_is_followed(tmp_path: Path, alignment: int):
    pairs = [LITTLE.pair("general.alignment", U32, LITTLE.pack("I", alignment))]
    tensors = [LITTLE.tensor("a", (3,)), LITTLE.tensor("b", (1,), offset=max(alignment, 12))]
    data = LITTLE.file(pairs, tensors, bytes(max(alignment, 12) + 4), alignment=alignment)
    path = put(tmp_path / "m.gguf", data)
    if max(alignment, 12) % alignment:
        with pytest.raises(DamagedInput):
            FORMAT.open(path)
    else:
        assert FORMAT.open(path).tensors["a"].offset % alignment == 0


def test_dimensions_of_zero_and_tensors_without_dimensions_are_as_ggml_takes_them(tmp_path: Path):
    tensors = [LITTLE.tensor("none", (32, 0), 8), LITTLE.tensor("scalar", ()), LITTLE.tensor("last", (0,), offset=32)]
    opened = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file([], tensors, bytes(32)))).tensors
    assert [(t.shape, t.nbytes) for t in opened.values()] == [((0, 32), 0), ((), 4), ((0,), 0)]


@pytest.mark.llama
@pytest.mark.parametrize("kind", sorted(BY_GGML), ids=lambda kind: BY_GGML[kind].name)
def test_every_type_is_recognised_with_the_size_that_ggml_gives_it(tmp_path: Path, kind: int):
    size = row_size(kind, 2 * BY_GGML[kind].block)
    data = LITTLE.file([], [LITTLE.tensor("t", (2 * BY_GGML[kind].block, 3), kind)], bytes(3 * size))
    (tensor,) = FORMAT.open(put(tmp_path / "m.gguf", data)).tensors.values()
    assert (tensor.encoding, tensor.nbytes) == (BY_GGML[kind], 3 * size)


def test_gaps_between_tensors_and_bytes_after_the_last_are_tolerated(tmp_path: Path):
    tensors = [LITTLE.tensor("late", (4,), offset=64), LITTLE.tensor("early", (4,), offset=0)]
    opened = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file([], tensors, bytes(64 + 16) + b"more")))
    assert list(opened.tensors) == ["late", "early"]


def test_the_padding_of_the_last_tensor_may_be_missing(tmp_path: Path):
    assert FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file([], [LITTLE.tensor("a", (4,))], bytes(16)))).tensors["a"].nbytes == 16


@pytest.mark.parametrize("make", [LITTLE, BIG], ids=["little", "big"])
def test_strings_that_are_no_utf8_keep_their_bytes(tmp_path: Path, make: Bytes):
    odd = [b"\xff\xfe", b"ok", b"\xed\xa0\x80", b"nul\0inside", "▁é".encode()]
    pairs = [
        make.array("tokens", STRING, len(odd), b"".join(make.string(text) for text in odd)),
        make.text("one", b"\x80abc"),
    ]
    metadata = FORMAT.open(put(tmp_path / "m.gguf", make.file(pairs))).metadata
    tokens = metadata["tokens"].value
    assert [token.encode("utf-8", "surrogateescape") for token in tokens] == odd
    assert [tokens.raw(i) for i in range(len(odd))] == odd
    assert metadata["one"].value.encode("utf-8", "surrogateescape") == b"\x80abc"


def test_arrays_behave_as_sequences(tmp_path: Path):
    metadata = FORMAT.open(put(tmp_path / "m.gguf", ordinary())).metadata
    words, sections, flags = (metadata[key].value for key in ("a.words", "a.sections", "a.flags"))
    assert words[-1] == "dreißig" and words[1:] == ["", "dreißig"] and "one" in words and words.index("") == 1
    assert sections[-1] == 0 and sections[:2] == [16, 24] and list(reversed(sections)) == [0, -24, 24, 16]
    assert flags[:2] == [True, False] and repr(flags) == "[True, False, True]"
    assert words == ("one", "", "dreißig") and words != ["one"] and words != "one" and words == metadata["a.words"].value
    assert sections != words and sections == [16.0, 24, -24, 0] and len(sections) == 4
    with pytest.raises(IndexError):
        words[3]


def test_arrays_of_arrays_are_read_although_ggml_refuses_them(tmp_path: Path):
    inner = [LITTLE.pack("IQ", I32, 2) + LITTLE.pack("2i", 1, 2), LITTLE.pack("IQ", I32, 1) + LITTLE.pack("i", 3)]
    pairs = [LITTLE.array("nested", ARRAY, 2, b"".join(inner)), LITTLE.array("empty", ARRAY, 0, b"")]
    metadata = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file(pairs))).metadata
    assert metadata["nested"] == ("[[i32]]", ([1, 2], [3]))
    assert metadata["empty"].value == ()


def test_long_headers_are_read_in_growing_steps(tmp_path: Path):
    words = [f"token {i} " + "x" * (i % 50) for i in range(60_000)]
    pairs = [
        LITTLE.array("long", STRING, len(words), b"".join(LITTLE.string(word) for word in words)),
        LITTLE.array("numbers", U8, 1 << 20, bytes(1 << 20)),
        LITTLE.array("flags", BOOL, 3, b"\1\0\1"),
    ]
    metadata = FORMAT.open(put(tmp_path / "m.gguf", LITTLE.file(pairs))).metadata
    assert list(metadata["long"].value) == words and metadata["long"].value[54321] == words[54321]
    assert len(metadata["numbers"].value) == 1 << 20 and metadata["flags"].value == [True, False, True]


def test_a_removed_type_is_named(tmp_path: Path):
    data = LITTLE.file([], [LITTLE.tensor("t", (32,), 31)], bytes(64))
    with pytest.raises(UnsupportedEncoding, match=r"m\.gguf: tensor 't' is stored as Q4_0_4_4 \(ggml type 31\), removed"):
        FORMAT.open(put(tmp_path / "m.gguf", data))


def test_detection_looks_at_the_first_bytes_and_the_name(tmp_path: Path):
    assert isinstance(FORMAT, Format)
    assert FORMAT.detect(put(tmp_path / "blob", ordinary()))
    assert FORMAT.detect(put(tmp_path / "broken.GGUF", b""))
    assert not FORMAT.detect(put(tmp_path / "other.bin", b"GGU"))
    assert not FORMAT.detect(tmp_path) and not FORMAT.detect(tmp_path / "absent.gguf")


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path):
    with pytest.raises(SourceMissing, match=r"absent\.gguf"):
        FORMAT.open(tmp_path / "absent.gguf")
    with pytest.raises(DamagedInput, match="folder"):
        FORMAT.open(tmp_path)


@pytest.mark.parametrize("name", ["q8_0", "Q8_0", "bf16", "Bf16", "iq4_xs", "MXFP4"])
def test_types_are_found_by_name_in_any_case(name: str):
    assert FORMAT.encoding(name).name == name.upper()


def test_an_unknown_type_names_the_nearest():
    with pytest.raises(UnsupportedEncoding, match=r"'q8'; did you mean .*Q8_"):
        FORMAT.encoding("q8")
    with pytest.raises(UnsupportedEncoding, match="'float33'"):
        FORMAT.encoding("float33")


@pytest.mark.parametrize("name", ["Q8_X", "i9", "float33", "Q8K", ""])
def test_types_that_cannot_be_written_are_not_suggested(name: str):
    with pytest.raises(UnsupportedEncoding) as caught:
        FORMAT.encoding(name)
    assert not {"Q8_1", "Q8_K", "I8", "I16", "F64"} & set(str(caught.value).replace(",", " ").replace("?", "").split())


@pytest.mark.parametrize("path", [*FOREIGN, *VOCABULARIES], ids=lambda path: path.name)
def test_files_of_llama_cpp_read_as_its_own_reader_reads_them(path: Path):
    gguf = pytest.importorskip("gguf")
    if path.stat().st_size > 1_000_000:
        pytest.skip("the reference reader takes minutes for this one")
    theirs, ours = gguf.GGUFReader(path), FORMAT.open(path)
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, field in fields.items():
        assert ours.metadata[key].value == field.contents(), key
    assert [
        (t.name, t.shape, t.encoding.ggml, t.offset, t.nbytes) for t in ours.tensors.values()
    ] == [
        (t.name, tuple(reversed(t.shape.tolist())), t.tensor_type, t.data_offset, t.n_bytes) for t in theirs.tensors
    ]  # fmt: skip


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.name)
def test_real_vocabularies_open_with_all_their_tokens(path: Path):
    metadata = FORMAT.open(path).metadata
    tokens, types = metadata["tokenizer.ggml.tokens"].value, metadata["tokenizer.ggml.token_type"].value
    assert len(list(tokens)) == len(tokens) == len(types) > 30_000


def test_opening_needs_no_array_library(tmp_path: Path):
    path = put(tmp_path / "m.gguf", ordinary())
    code = (
        "import sys, pathlib; from hubclient.formats.gguf import FORMAT; loaded = set(sys.modules)\n"
        "assert not {'numpy', 'numba', 'hubclient.formats.gguf.reader'} & loaded\n"
        f"FORMAT.open(pathlib.Path({str(path)!r})); assert not {{'numpy', 'numba', 'gguf'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
