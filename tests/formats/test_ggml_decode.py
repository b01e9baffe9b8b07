"""Decoders of ggml's block types against gguf-py and ggml itself: bit for bit, whatever the bytes say."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libggml import ggml
from reference import REFERENCE, ROOT

from hubclient.formats import codecs, float8
from hubclient.formats import ggml as blocktypes
from hubclient.formats.encodings import BF16, ENCODINGS, F16, Q8_0
from hubclient.formats.ggml import byteorder
from hubclient.formats.model import Encoding

TYPES = [ENCODINGS[name] for name in blocktypes.FAMILY]
UNKNOWN_TO_GGUF_PY = ("Q8_1", "Q8_K", "Q1_0", "Q2_0")  # as of gguf 0.19
FAMILIES = sorted(set(blocktypes.FAMILY.values()))
EDGES = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0xFE00], np.uint16)

each_type = pytest.mark.parametrize("encoding", TYPES, ids=lambda encoding: encoding.name)


def random_blocks(encoding: Encoding, count: int = 2048) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, encoding.block_bytes), np.uint8)


def blocks_with_edge_scales(encoding: Encoding) -> np.ndarray:
    """Blocks whose float16 numbers are zeros, denormals, the largest, infinities and NaN, in every combination of two."""
    pairs = np.array([(a, b) for a in EDGES for b in EDGES], np.uint16)
    blocks = random_blocks(encoding, len(pairs))
    for start, width, count in byteorder.NUMBERS[encoding.name]:
        if width == 2 and count < 3:
            blocks[:, start : start + 2 * count] = np.ascontiguousarray(pairs[:, :count]).view(np.uint8)
    return blocks


def ours(blocks: np.ndarray, encoding: Encoding) -> np.ndarray:
    return codecs.decode(np.ascontiguousarray(blocks), encoding, blocks.shape[1] // encoding.block_bytes * encoding.block)


def of_ggml(blocks: np.ndarray, encoding: Encoding) -> np.ndarray:
    name = encoding.name.lower().replace("_k", "_K")
    function = getattr(ggml(), f"dequantize_row_{name}")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    values = np.empty((len(blocks), blocks.shape[1] // encoding.block_bytes * encoding.block), np.float32)
    function(np.ascontiguousarray(blocks).ctypes.data, values.ctypes.data, values.size)
    return values


def of_gguf_py(blocks: np.ndarray, encoding: Encoding) -> np.ndarray:
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):
        values: np.ndarray = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[encoding.name])
    return values


def same(values: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bits, NaN and NaN being equal."""
    nan = np.isnan(expected)
    patterns, wanted = (np.ascontiguousarray(array, np.float32).view(np.uint32) for array in (values, expected))
    return bool((np.isnan(values) == nan).all() and (patterns == wanted)[~nan].all())


@pytest.mark.llama
@each_type
def test_random_bytes_decode_as_in_ggml(encoding: Encoding):
    if encoding.name == "Q8_1":
        pytest.skip("ggml never decodes Q8_1")
    for blocks in (random_blocks(encoding), blocks_with_edge_scales(encoding)):
        assert same(ours(blocks, encoding), of_ggml(blocks, encoding))


@each_type
def test_random_bytes_decode_as_in_gguf_py(encoding: Encoding):
    if encoding.name in UNKNOWN_TO_GGUF_PY:
        pytest.skip("gguf-py does not decode it")
    for blocks in (random_blocks(encoding), blocks_with_edge_scales(encoding)):
        assert same(ours(blocks, encoding), of_gguf_py(blocks, encoding))


def plainly(blocks: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The types that gguf-py lacks, written down with numpy."""
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
    if encoding.name == "Q8_K":
        return blocks[:, 4:260].view(np.int8) * np.ascontiguousarray(blocks[:, :4]).view("<f4")
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    if encoding.name == "Q8_1":
        return blocks[:, 4:].view(np.int8) * scale
    if encoding.name == "Q1_0":
        return (2 * bits - 1) * scale
    return (bits[:, ::2] + 2 * bits[:, 1::2] - 1) * scale


@pytest.mark.parametrize("name", UNKNOWN_TO_GGUF_PY)
def test_types_that_gguf_py_lacks_decode_by_their_formula(name: str):
    for blocks in (random_blocks(ENCODINGS[name]), blocks_with_edge_scales(ENCODINGS[name])):
        with np.errstate(all="ignore"):
            assert same(ours(blocks, ENCODINGS[name]), plainly(blocks, ENCODINGS[name]))


@pytest.mark.llama
@given(st.sampled_from([encoding for encoding in TYPES if encoding.name != "Q8_1"]), st.data())
@settings(deadline=None)
def test_any_bytes_decode_as_in_ggml(encoding: Encoding, data: st.DataObject):
    size = encoding.block_bytes * data.draw(st.integers(1, 3))
    row = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)[None]
    assert same(ours(row, encoding), of_ggml(row, encoding))


def encoded_by_ggml() -> Iterator[tuple[str, Encoding, np.ndarray]]:
    if REFERENCE is None or not (REFERENCE / "quant" / "encoded.npz").exists():
        pytest.skip("no reference data")
    with np.load(REFERENCE / "quant" / "encoded.npz") as entries:
        for key in entries.files:
            name = key.split("/")[0].upper()
            if name in blocktypes.FAMILY:
                yield key, ENCODINGS[name], entries[key]


@pytest.mark.llama
def test_what_ggml_encoded_decodes_as_in_ggml():
    wrong = [key for key, encoding, rows in encoded_by_ggml() if not same(ours(rows, encoding), of_ggml(rows, encoding))]
    assert not wrong


def test_what_ggml_encoded_decodes_as_in_gguf_py():
    known = [entry for entry in encoded_by_ggml() if entry[1].name not in UNKNOWN_TO_GGUF_PY]
    assert not [key for key, encoding, rows in known if not same(ours(rows, encoding), of_gguf_py(rows, encoding))]


@each_type
@pytest.mark.parametrize("target", [BF16, F16, Q8_0], ids=lambda encoding: encoding.name)
def test_transcoding_is_decoding_and_encoding(encoding: Encoding, target: Encoding):
    columns = 256 * 300  # more than a step, and no multiple of one
    stored = np.random.default_rng(3).integers(0, 256, (2, encoding.row_bytes(columns)), np.uint8)
    expected = codecs.encode(codecs.decode(stored, encoding, columns), target) if encoding != target else stored
    assert (codecs.transcode(stored, encoding, target, columns) == expected).all()


@each_type
def test_rows_decode_alike_wherever_they_lie(encoding: Encoding):
    stored = random_blocks(encoding, 6)
    shifted = np.empty(stored.size + 1, np.uint8)[1:].reshape(stored.shape)
    shifted[...] = stored
    expected = ours(stored, encoding)
    assert same(codecs.decode(shifted, encoding, encoding.block), expected)
    assert same(codecs.decode(stored[::2], encoding, encoding.block), expected[::2])
    assert same(codecs.decode(stored.reshape(2, -1), encoding, 3 * encoding.block), expected.reshape(2, -1))
    assert codecs.decode(stored[:0], encoding, encoding.block).shape == (0, encoding.block)


# Byte order


@each_type
def test_turning_round_twice_changes_nothing(encoding: Encoding):
    stored = random_blocks(encoding, 3)
    once = codecs.byteswap(stored, encoding)
    assert (codecs.byteswap(once, encoding) == stored).all()
    numbers = sum(width * count for _, width, count in byteorder.NUMBERS[encoding.name])
    assert (once == stored).all() == (numbers == 0)


@each_type
def test_numbers_lie_side_by_side_within_the_block(encoding: Encoding):
    spans = [(start, start + width * count) for start, width, count in byteorder.NUMBERS[encoding.name]]
    ends = [0, *(end for _, end in spans)]
    assert all(start >= end for (start, _), end in zip(spans, ends, strict=False)) and ends[-1] <= encoding.block_bytes


def test_turning_round_is_that_of_gguf_py_where_it_knows_how():
    pytest.importorskip("tqdm")
    known = pytest.importorskip("gguf.scripts.gguf_convert_endian").byteswap_tensors
    for kind, swap in known.items():
        encoding = ENCODINGS[kind.name]
        stored = random_blocks(encoding, 3)
        theirs = SimpleNamespace(data=stored.reshape(-1).copy())
        for start in range(0, stored.size, encoding.block_bytes):
            swap(theirs, start)
        assert (codecs.byteswap(stored, encoding).reshape(-1) == theirs.data).all(), encoding.name


# The tables of kernels


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_kernels_that_are_promised(family: str):
    module = import_module(f"hubclient.formats.ggml.{family}")
    names = {name for name, home in blocktypes.FAMILY.items() if home == family}
    assert set(module.DECODERS) == names


def test_every_block_type_of_ggml_has_a_decoder():
    assert {e.name for e in ENCODINGS.values() if e.ggml is not None and e.blocked} == set(blocktypes.FAMILY)
    assert set(byteorder.NUMBERS) == set(blocktypes.FAMILY)


def test_importing_the_codecs_does_not_import_numba():
    code = "import sys; from hubclient.formats import codecs; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


# Eight-bit floats


def test_every_float8_is_that_of_its_definition():
    known = {
        "F8_E4M3": {0x00: 0.0, 0x80: -0.0, 0x01: 2**-9, 0x07: 7 * 2**-9, 0x08: 2**-6, 0x38: 1.0, 0x7E: 448.0, 0xFE: -448.0},
        "F8_E5M2": {0x00: 0.0, 0x80: -0.0, 0x01: 2**-16, 0x3C: 1.0, 0x7B: 57344.0, 0x7C: np.inf, 0xFC: -np.inf},
        "F8_E8M0": {0: 2.0**-127, 1: 2.0**-126, 127: 1.0, 254: 2.0**127},
        "F8_E4M3FNUZ": {0x00: 0.0, 0x01: 2**-10, 0x40: 1.0, 0x7F: 240.0, 0xFF: -240.0},
        "F8_E5M2FNUZ": {0x00: 0.0, 0x01: 2**-17, 0x40: 1.0, 0x7F: 57344.0, 0xFF: -57344.0},
    }
    nan = {"F8_E4M3": {0x7F, 0xFF}, "F8_E5M2": {0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}, "F8_E8M0": {255}}
    every = np.arange(256, dtype=np.uint8)[None]
    for name, values in known.items():
        decoded = codecs.decode(every, ENCODINGS[name], 256)[0]
        assert same(decoded[list(values)], np.array(list(values.values()), np.float32)), name
        assert set(np.flatnonzero(np.isnan(decoded)).tolist()) == nan.get(name, {0x80}), name


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F8_E4M3", "float8_e4m3fn"),
        ("F8_E5M2", "float8_e5m2"),
        ("F8_E8M0", "float8_e8m0fnu"),
        ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
        ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
    ],
)
def test_every_float8_is_that_of_torch(name: str, dtype: str):
    torch = pytest.importorskip("torch")
    if not hasattr(torch, dtype):
        pytest.skip("this torch does not have it")
    every = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)).to(torch.float32).numpy()
    assert same(float8.table(name), every)


def test_truth_values_decode_to_zero_and_one():
    assert codecs.decode(np.array([[0, 1, 1]], np.uint8), ENCODINGS["BOOL"], 3).tolist() == [[0.0, 1.0, 1.0]]
