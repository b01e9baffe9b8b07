"""The header of a safetensors file: every claim is checked, and each fault is one sentence."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rawsafetensors import blob, entry, put
from safetensors import SafetensorError, deserialize

from hubclient.errors import DamagedInput, SourceMissing
from hubclient.formats.encodings import BY_SAFETENSORS
from hubclient.formats.safetensors.header import Header, read_header, stored_bytes

ONE = entry("U8", [1], 0, 1)
TWICE = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'


def header_of(tmp_path: Path, header, data=b"", **more) -> Header:
    return read_header(put(tmp_path / "x.safetensors", header, data, **more))


def fault(tmp_path: Path, header, data=b"", **more) -> str:
    with pytest.raises(DamagedInput) as caught:
        header_of(tmp_path, header, data, **more)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.safetensors'}: ") and message.isprintable() and len(message) < 600
    return message.removeprefix(f"{tmp_path / 'x.safetensors'}: ")


def test_tensors_come_by_offset_with_absolute_places(tmp_path):
    header = {"b": entry("F32", [1, 2], 4, 12), "__metadata__": {"format": "pt"}, "a": entry("F16", [2], 0, 4)}
    opened = header_of(tmp_path, header, bytes(12))
    start = 8 + len(json.dumps(header))
    assert [(t.name, t.shape, t.encoding.name, t.offset - start, t.nbytes) for t in opened.tensors.values()] == [
        ("a", (2,), "F16", 0, 4), ("b", (1, 2), "F32", 4, 8),
    ]  # fmt: skip
    assert opened.metadata == {"format": "pt"}
    assert opened.source.size == start + 12


def test_scalars_empty_tensors_and_padding_are_ordinary(tmp_path):
    header = {"z": entry("F32", [0, 3], 4, 4), "s": entry("F32", [], 0, 4), "e": entry("BF16", [0], 0, 0)}
    opened = header_of(tmp_path, json.dumps(header).encode() + b"    ", bytes(4))
    assert {name: ref.nbytes for name, ref in opened.tensors.items()} == {"e": 0, "s": 4, "z": 0}
    assert header_of(tmp_path, {}).tensors == {}


@pytest.mark.parametrize("name", sorted(BY_SAFETENSORS))
def test_every_dtype_has_the_size_that_the_library_gives_it(tmp_path, name):
    nbytes = stored_bytes(BY_SAFETENSORS[name], (2, 4))
    data = blob({"t": entry(name, [2, 4], 0, nbytes)}, bytes(nbytes))
    assert len(deserialize(data)[0][1]["data"]) == nbytes
    (tmp_path / "x").write_bytes(data)
    assert read_header(tmp_path / "x").tensors["t"].encoding is BY_SAFETENSORS[name]


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"), [("F4", [4, 1], 2), ("F6_E2M3", [2, 2], 3), ("F6_E3M2", [4], 3), ("F4", [0], 0)]
)
def test_types_below_a_byte_are_packed_over_the_whole_tensor(tmp_path, dtype, shape, nbytes):
    assert header_of(tmp_path, {"t": entry(dtype, shape, 0, nbytes)}, bytes(nbytes)).tensors["t"].nbytes == nbytes


@pytest.mark.parametrize(("dtype", "shape"), [("F4", [3]), ("F4", []), ("F6_E2M3", [2]), ("F6_E3M2", [5, 1])])
def test_a_fraction_of_a_byte_is_refused(tmp_path, dtype, shape):
    assert "whole number of bytes" in fault(tmp_path, {"t": entry(dtype, shape, 0, 2)}, bytes(2))


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        # the JSON
        (b"{x}", b"", "header is not valid JSON at line 1, column 2"),
        (b"{}\0", b"", "not valid JSON"),
        (b"{}{}", b"", "not valid JSON"),
        (b" {}", b"", "does not begin with '{'"),
        (b"[]", b"", "does not begin with '{'"),
        (b"\xef\xbb\xbf{}", b"", "does not begin with '{'"),
        (b'{"\xff": 1}', b"", "header is not UTF-8"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"", "nested"),
        (TWICE, b"\0", "'a' twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0", "'dtype' twice"),
        (b'{"__metadata__":{},"__metadata__":{}}', b"", "'__metadata__' twice"),
        (b'{"__metadata__":{"k":"1","k":"2"}}', b"", "'k' twice"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"\0", "NaN"),
        (b'{"a":{"dtype":"U8","shape":[1' + b"0" * 5000 + b'],"data_offsets":[0,1]}}', b"\0", "digits"),
        # the metadata
        ({"__metadata__": None}, b"", "__metadata__"),
        ({"__metadata__": ["format"]}, b"", "__metadata__"),
        ({"__metadata__": {"n": 1}}, b"", "__metadata__"),
        ({"__metadata__": {"n": {}}}, b"", "__metadata__"),
        # the fields
        ({"": ONE}, b"\0", "tensor '' has an empty name"),
        ({"a": None}, b"", "tensor 'a' is described by None"),
        ({"a": ["U8", [1], [0, 1]]}, b"\0", "exactly dtype, shape and data_offsets"),
        ({"a": {"dtype": "U8", "shape": [1]}}, b"\0", "exactly"),
        ({"a": {**ONE, "stride": [1]}}, b"\0", "exactly"),
        ({"a": entry("F7", [1], 0, 1)}, b"\0", "dtype 'F7'"),
        ({"a": entry("u8", [1], 0, 1)}, b"\0", "dtype 'u8'"),
        ({"a": {**ONE, "dtype": ["U8"]}}, b"\0", "dtype ['U8']"),
        ({"a": {**ONE, "dtype": 3}}, b"\0", "dtype 3"),
        ({"a": {**ONE, "shape": 1}}, b"\0", "shape 1"),
        ({"a": {**ONE, "shape": "1"}}, b"\0", "shape '1'"),
        ({"a": entry("U8", [True], 0, 1)}, b"\0", "shape [True]"),
        ({"a": entry("U8", [1.0], 0, 1)}, b"\0", "shape [1.0]"),
        ({"a": entry("U8", [-1], 0, 1)}, b"\0", "shape [-1]"),
        ({"a": entry("U8", [-1, -1], 0, 1)}, b"\0", "shape [-1, -1]"),
        ({"a": entry("U8", [None], 0, 1)}, b"\0", "shape [None]"),
        ({"a": entry("U8", [1] * 65, 0, 1)}, b"\0", "shape"),
        ({"a": entry("U8", [9] * 1_000_000, 0, 1)}, b"\0", "shape"),
        ({"a": {**ONE, "data_offsets": [0]}}, b"\0", "data_offsets [0]"),
        ({"a": {**ONE, "data_offsets": [0, 1, 2]}}, b"\0", "data_offsets"),
        ({"a": {**ONE, "data_offsets": {"begin": 0, "end": 1}}}, b"\0", "data_offsets"),
        ({"a": entry("U8", [1], False, True)}, b"\0", "data_offsets"),
        ({"a": entry("U8", [1], 0.0, 1.0)}, b"\0", "data_offsets"),
        ({"a": entry("U8", [1], -1, 0)}, b"\0", "data_offsets"),
        ({"a": entry("U8", [1], 1, 0)}, b"\0", "data_offsets"),
        ({"a": entry("U8", [1], 2**64, 2**64 + 1)}, b"\0", "data_offsets"),
        # sizes: wrap-around in 64 bits would give the size claimed
        ({"a": entry("U8", [2], 0, 1)}, b"\0", "takes 1 bytes, but its shape [2] of U8 needs 2"),
        ({"a": entry("U8", [2**32, 2**32], 0, 0)}, b"", "larger than any file"),
        ({"a": entry("F32", [2**62], 0, 0)}, b"", "larger than any file"),
        ({"a": entry("F64", [2**61 + 1], 0, 8)}, bytes(8), "larger than any file"),
        ({"a": entry("U8", [2**64], 0, 0)}, b"", "shape"),
        ({"a": entry("U8", [0, 2**62, 2**62], 0, 0)}, b"", "larger than any file"),
        # places
        ({"a": entry("U8", [1], 1, 2)}, bytes(2), "leaves bytes before it unused"),
        ({"a": ONE, "b": entry("U8", [1], 2, 3)}, bytes(3), "tensor 'b' begins at byte"),
        ({"a": ONE, "b": ONE}, bytes(1), "overlaps the one before it"),
        ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [2], 1, 3)}, bytes(4), "overlaps the one before it"),
        ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3), "overlaps"),
        ({"a": entry("U8", [2], 0, 2), "z": entry("U8", [0], 1, 1)}, bytes(2), "overlaps"),
        ({"a": ONE}, b"\0PK\x03\x04", "has 4 bytes after its last tensor"),
        ({}, b"\0", "has 1 bytes after its last tensor"),
        ({"a": entry("U8", [9], 0, 9)}, bytes(8), "is cut off: its tensors end at byte"),
        ({"a": entry("U8", [2**62], 0, 2**62)}, bytes(8), "is cut off"),
    ],
)  # fmt: skip
def test_hostile_headers_are_refused_in_one_sentence(tmp_path, header, data, words):
    assert words in fault(tmp_path, header, data)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0, "too short"), (1, "too short"), (3, "is cut off"), (100_000_000, "is cut off"), (100_000_001, "more than"),
        (2**63, "more than the 100,000,000"), (2**64 - 1, "more than"),
    ],
)  # fmt: skip
def test_a_false_header_length_is_not_believed(tmp_path, length, words):
    assert words in fault(tmp_path, b"{}", length=length)


def test_a_header_length_that_splits_the_json_is_refused(tmp_path):
    text = json.dumps({"a": ONE}).encode()
    assert "not valid JSON" in fault(tmp_path, text, b"\0", length=len(text) - 1)
    assert "not valid JSON" in fault(tmp_path, text, b"\0", length=len(text) + 1)


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path):
    whole = blob({"__metadata__": {"k": "v"}, "a": entry("F32", [2, 2], 0, 16), "é": entry("U8", [3], 16, 19)}, bytes(19))
    path = tmp_path / "x.safetensors"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedInput, match=r"x\.safetensors: (is \d bytes, too short|is cut off)"):
            read_header(path)


def test_a_sparse_file_with_a_huge_claim_costs_little(tmp_path):
    path = put(tmp_path / "x.safetensors", b"\0", length=100_000_000)
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedInput, match="does not begin"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_tensor_at_fault_is_a_field_of_the_error(tmp_path):
    with pytest.raises(DamagedInput) as caught:
        header_of(tmp_path, {"evil\n\x1b[31mname" + "x" * 500: entry("U8", [2], 0, 1)}, b"\0")
    assert caught.value.tensor is not None and caught.value.tensor.startswith("evil\n")
    assert caught.value.file == tmp_path / "x.safetensors"
    assert str(caught.value).isprintable()


def test_a_file_written_over_after_opening_shows_in_its_digest(tmp_path):
    before = header_of(tmp_path, {"a": ONE}, b"\0")
    after = header_of(tmp_path, {"b": ONE}, b"\0")
    assert list(before.tensors) == ["a"]
    assert before.source.header_digest != after.source.header_digest


def test_links_are_followed_and_other_things_refused(tmp_path):
    real = put(tmp_path / "blobs" / "abc", {"a": ONE}, b"\0")
    (tmp_path / "x.safetensors").symlink_to("blobs/abc")
    assert read_header(tmp_path / "x.safetensors").tensors["a"].file == tmp_path / "x.safetensors"
    real.unlink()
    with pytest.raises(SourceMissing, match="is a link to blobs/abc, which does not exist"):
        read_header(tmp_path / "x.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, words in (("blobs", "is a folder"), ("pipe.safetensors", "pipe")):
        with pytest.raises(DamagedInput, match=words):
            read_header(tmp_path / name)


VALID = blob(
    {"__metadata__": {"format": "pt"}, "b": entry("F16", [2, 1], 0, 4), "z": entry("I8", [0], 4, 4), "a": entry("F4", [6], 4, 7)},
    bytes(7),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=3))
@example([(0, 0)])
def test_a_garbled_file_is_refused_or_is_one_that_the_library_opens_alike(tmp_path, changes):
    data = bytearray(VALID)
    for place, byte in changes:
        data[place] = byte
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    try:
        header = read_header(path)
    except DamagedInput as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
    else:
        theirs = dict(deserialize(bytes(data)))
        assert {n: (t.encoding.name, list(t.shape), t.nbytes) for n, t in header.tensors.items()} == {
            n: (t["dtype"], t["shape"], len(t["data"])) for n, t in theirs.items()
        }


NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 8, 2**31, 2**32, 2**62, 2**63, 2**64, -1, True, 1.0, None])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
@given(
    st.dictionaries(
        st.text(max_size=2),
        st.builds(
            entry, st.sampled_from(["F32", "U8", "F4", "F6_E2M3", "F9", 3]), st.lists(NUMBERS, max_size=3), NUMBERS, NUMBERS
        ),
        max_size=3,
    ),
    st.integers(0, 12),
)
def test_no_header_is_accepted_that_the_library_refuses(tmp_path, header, size):
    data = blob(header, bytes(size))
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    try:
        read_header(path)
    except DamagedInput:
        return
    try:
        deserialize(data)
    except SafetensorError as error:
        pytest.fail(f"accepted {header}, which the library refuses: {error}")
