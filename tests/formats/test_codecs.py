"""Codecs against numpy, gguf-py and ggml itself: bit for bit, over every pattern where there are few enough."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from libggml import ggml
from reference import DATA, REFERENCE

from hubclient.errors import UnsupportedEncoding
from hubclient.formats import codecs
from hubclient.formats import ggml as blocktypes
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32, Q8_0
from hubclient.formats.model import Encoding

PATTERNS = np.arange(65536, dtype=np.uint16)
F64 = ENCODINGS["F64"]
BITS = st.integers(0, 2**32 - 1)
CODED = [F64, F32, F16, BF16, Q8_0]
PAIRS = [(a, b) for a in [*CODED, ENCODINGS["I16"]] for b in CODED]


def edge_floats() -> np.ndarray:
    """float32 patterns around every float16 and bfloat16, their midpoints, and all exponents with assorted mantissas."""
    near = (PATTERNS.astype(np.uint32) << 16)[:, None] + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    exponents = np.arange(512, dtype=np.uint32)[:, None] << 23
    mantissas = np.unique(np.concatenate([(1 << np.arange(23)) + d for d in (-1, 0, 1)]) & 0x7FFFFF).astype(np.uint32)
    halves = PATTERNS.view(np.float16).astype(np.float32).view(np.uint32)[:, None]
    steps = halves + np.array([-4097, -4096, -4095, -1, 0, 1, 4095, 4096, 4097], np.int64).astype(np.uint32)
    return np.unique(np.concatenate([near.ravel(), (exponents | mantissas).ravel(), steps.ravel()])).view(np.float32)


def raw(values: np.ndarray) -> np.ndarray:
    rows: np.ndarray = values.reshape(1, -1).view(np.uint8)
    return rows


def bits(values: np.ndarray) -> np.ndarray:
    patterns: np.ndarray = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").ravel()
    return patterns


def same_floats(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal bits, except that numpy builds differ in the payload they give a NaN."""
    nan = np.isnan(theirs)
    return bool((np.isnan(ours) == nan).all() and (bits(ours)[~nan.ravel()] == bits(theirs)[~nan.ravel()]).all())


def decoded(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    return codecs.decode(raw(values), encoding, values.size).reshape(-1)


def encoded(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    return codecs.encode(values.reshape(1, -1), encoding).reshape(-1)


def test_every_float16_decodes_as_numpy_decodes_it():
    assert same_floats(decoded(PATTERNS, F16), PATTERNS.view(np.float16).astype(np.float32))


def test_every_bfloat16_decodes_by_shifting():
    assert (bits(decoded(PATTERNS, BF16)) == PATTERNS.astype(np.uint32) << 16).all()


@pytest.mark.parametrize("encoding", [F16, BF16])
def test_every_pattern_of_16_bits_survives_a_round_trip(encoding: Encoding):
    again = encoded(decoded(PATTERNS, encoding), encoding).view(np.uint16)
    nan = np.isnan(decoded(PATTERNS, encoding))
    assert (again[~nan] == PATTERNS[~nan]).all()
    assert np.isnan(decoded(again, encoding)[nan]).all()


def test_float32_rounds_to_float16_as_in_numpy():
    values = edge_floats()
    with np.errstate(over="ignore"):
        assert same_floats(encoded(values, F16).view(np.float16), values.astype(np.float16))


def test_float32_rounds_to_bfloat16_as_in_gguf_py():
    gguf = pytest.importorskip("gguf")
    values = edge_floats()
    assert (encoded(values, BF16) == gguf.quants.quantize(values[None], gguf.GGMLQuantizationType.BF16)[0]).all()


@pytest.mark.torch
def test_torch_rounds_alike():
    torch = pytest.importorskip("torch")
    values = edge_floats()
    for encoding, dtype in ((F16, torch.float16), (BF16, torch.bfloat16)):
        theirs = torch.from_numpy(values).to(dtype).view(torch.int16).numpy().view(np.uint16)
        real = ~np.isnan(values)
        assert (encoded(values, encoding).view(np.uint16)[real] == theirs[real]).all()


@given(st.lists(BITS, min_size=1, max_size=40))
def test_any_float32_pattern_rounds_as_in_numpy(patterns: list[int]):
    values = np.array(patterns, np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        assert same_floats(encoded(values, F16).view(np.float16), values.astype(np.float16))


def reference_q8_0(values: np.ndarray) -> np.ndarray:
    gguf = pytest.importorskip("gguf")
    with np.errstate(all="ignore"):
        packed: np.ndarray = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    return packed


def ggml_q8_0(values: np.ndarray) -> np.ndarray:
    out = np.empty((len(values), Q8_0.row_bytes(values.shape[1])), np.uint8)
    source = np.ascontiguousarray(values).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    ggml().ggml_quantize_chunk(8, source, out.ctypes.data, 0, len(values), values.shape[1], None)
    return out


def ordinary_rows(seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = np.exp2(rng.integers(-40, 30, (400, 1)))
    return np.asarray(rng.standard_normal((400, 256)) * scales, np.float32)


Q8_0_CASES: dict[str, Callable[[], np.ndarray]] = {
    "ordinary": ordinary_rows,
    "from bfloat16": lambda: (bits(ordinary_rows()) & np.uint32(0xFFFF0000)).view(np.float32).reshape(400, 256),
    "zeros": lambda: np.zeros((3, 64), np.float32),
    "halves": lambda: (np.arange(-127, 129, dtype=np.float32) / 2).reshape(8, 32) * np.float32(127 / 64),
    "exact levels": lambda: np.tile(np.arange(-127, 129, 4, dtype=np.float32), (4, 1)),
    "just below halves": lambda: np.nextafter(np.arange(-64, 64, dtype=np.float32) + 0.5, np.float32(0)).reshape(4, 32),
    "huge": lambda: np.full((2, 32), 3e38, np.float32) * np.linspace(-1, 1, 32, dtype=np.float32),
    "scale beyond float16": lambda: np.linspace(-1e10, 1e10, 64, dtype=np.float32).reshape(1, 64),
    "scale a float16 denormal": lambda: np.linspace(-1e-5, 1e-5, 64, dtype=np.float32).reshape(1, 64),
    "scale a float32 denormal": lambda: np.linspace(-5e-37, 5e-37, 64, dtype=np.float32).reshape(1, 64),
    "denormals": lambda: np.linspace(-1e-40, 1e-40, 64, dtype=np.float32).reshape(1, 64),
    "negative zero": lambda: np.full((1, 32), -0.0, np.float32),
}


@pytest.mark.parametrize("case", Q8_0_CASES)
def test_q8_0_has_the_bytes_of_gguf_py(case: str):
    values = Q8_0_CASES[case]()
    assert (codecs.encode(values, Q8_0) == reference_q8_0(values)).all()


@pytest.mark.llama
@pytest.mark.parametrize("case", Q8_0_CASES)
def test_q8_0_has_the_bytes_of_ggml(case: str):
    values = Q8_0_CASES[case]()
    assert (codecs.encode(values, Q8_0) == ggml_q8_0(values)).all()


@settings(max_examples=300)
@given(arrays.arrays(np.float32, (2, 32), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_finite_block_is_encoded_as_gguf_py_does_it(values: np.ndarray):
    assert (codecs.encode(values, Q8_0) == reference_q8_0(values)).all()


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_blocks_with_infinities_or_nan_say_so_in_their_scale_and_leave_others_alone(odd: float):
    values = ordinary_rows()[:2, :64].copy()
    values[1, 3] = odd
    ours = codecs.encode(values, Q8_0)
    assert (ours == reference_q8_0(values)).all()
    back = codecs.decode(ours, Q8_0, 64)
    assert not np.isfinite(back[1, :32]).any() and np.isfinite(back[1, 32:]).all() and np.isfinite(back[0]).all()


def test_q8_0_decodes_as_gguf_py_for_every_scale_and_level():
    gguf = pytest.importorskip("gguf")
    blocks = np.empty((65536, 34), np.uint8)
    blocks[:, :2] = PATTERNS.view(np.uint8).reshape(-1, 2)
    blocks[:, 2:] = np.arange(65536 * 32).reshape(-1, 32) * 7 % 256
    with np.errstate(invalid="ignore"):
        theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    assert same_floats(codecs.decode(blocks, Q8_0, 32), theirs)


@pytest.mark.llama
def test_q8_0_decodes_as_ggml():
    blocks = codecs.encode(ordinary_rows(), Q8_0)
    theirs = np.empty((400, 256), np.float32)
    ggml().dequantize_row_q8_0(blocks.ctypes.data, theirs.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), theirs.size)
    assert (bits(codecs.decode(blocks, Q8_0, 256)) == bits(theirs)).all()


def test_q8_0_is_within_half_a_step():
    values = ordinary_rows()
    back = codecs.decode(codecs.encode(values, Q8_0), Q8_0, 256)
    largest = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
    fits = (largest > 1e-2) & (largest < 1e6)  # where float16 holds the scale to 11 bits
    error = np.abs(back - values).reshape(-1, 32)
    assert fits.any() and (error <= largest * (0.5 / 127 + 2.0**-10))[fits[:, 0]].all()


def golden_q8_0() -> list[Any]:
    with np.load(DATA / "quant" / "q8_0.npz") as data:
        cases = [(name, data[f"input_{name}"], data[f"q8_0_{name}"]) for name in
                 sorted(key.removeprefix("input_") for key in data.files if key.startswith("input_"))]  # fmt: skip
    if REFERENCE and (REFERENCE / "quant" / "encoded.npz").is_file():
        with np.load(REFERENCE / "quant" / "inputs.npz") as inputs, np.load(REFERENCE / "quant" / "encoded.npz") as outputs:
            cases += [(f"full {name}", inputs[name], outputs[f"Q8_0/{name}/none"]) for name in inputs.files]
    return [pytest.param(values, packed, id=name) for name, values, packed in cases]


@pytest.mark.parametrize(("values", "packed"), golden_q8_0())
def test_q8_0_has_the_recorded_bytes_of_ggml(values: np.ndarray, packed: np.ndarray):
    assert (codecs.encode(values, Q8_0) == packed).all()


@pytest.mark.parametrize("name", ["I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"])
def test_integers_become_the_nearest_float32(name: str):
    dtype = np.dtype({"I": "int", "U": "uint"}[name[0]] + name[1:])
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.max, 0, 1, limits.max // 3, limits.max // 2 + 1], dtype)
    assert (codecs.decode(raw(values), ENCODINGS[name], 6)[0] == values.astype(np.float32)).all()


def test_float64_is_rounded_once_to_float32():
    values = np.array([0.1, 1e300, -1e300, 1e-50, np.inf, np.nan, 1 + 2.0**-24, 1 + 2.0**-24 + 2.0**-50])
    with np.errstate(over="ignore"):
        assert same_floats(decoded(values, F64), values.astype(np.float32))
    assert (encoded(np.array([0.1, -2], np.float32), F64).view(np.float64) == np.array([0.1, -2], np.float32)).all()


def sample(encoding: Encoding, rows: int, columns: int) -> np.ndarray:
    """Raw rows of ordinary values."""
    values = np.random.default_rng(3).standard_normal((rows, columns)).astype(np.float32) * 50
    if encoding.name == "I16":
        return values.astype(np.int16).view(np.uint8)
    return codecs.encode(values, encoding)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("shape", [(3, 64), (1, 160_000), (0, 32), (2, 0)], ids=str)
def test_transcoding_is_decoding_and_encoding(source: Encoding, target: Encoding, shape: tuple[int, int]):
    rows, columns = shape
    stored = sample(source, rows, columns)
    expected = stored if source == target else codecs.encode(codecs.decode(stored, source, columns), target)
    assert (codecs.transcode(stored, source, target, columns) == expected).all()
    out = np.empty((rows, target.row_bytes(columns)), np.uint8)
    assert codecs.transcode(stored, source, target, columns, out=out) is out and (out == expected).all()


@pytest.mark.parametrize("target", [F64, F32, F16, Q8_0], ids=lambda encoding: encoding.name)
def test_every_bfloat16_is_transcoded_as_through_float32(target: Encoding):
    stored = raw(PATTERNS)
    through = codecs.encode(codecs.decode(stored, BF16, 65536), target)
    assert (codecs.transcode(stored, BF16, target, 65536) == through).all()


def test_the_same_encoding_is_a_copy_that_keeps_even_signalling_nan():
    assert (codecs.transcode(raw(PATTERNS), BF16, BF16, 65536) == raw(PATTERNS)).all()


@pytest.mark.parametrize("encoding", CODED, ids=lambda encoding: encoding.name)
def test_results_may_be_put_in_an_array_of_the_caller(encoding: Encoding):
    stored = sample(encoding, 4, 96)
    rows, packed = np.empty((4, 96), np.float32), np.empty_like(stored)
    assert codecs.decode(stored, encoding, 96, out=rows) is rows
    assert codecs.encode(rows, encoding, out=packed) is packed
    assert (rows == codecs.decode(stored, encoding, 96)).all() and (packed == codecs.encode(rows, encoding)).all()


@pytest.mark.parametrize("encoding", [F32, F16, BF16, Q8_0], ids=lambda encoding: encoding.name)
def test_rows_may_be_strided_and_unaligned(encoding: Encoding):
    stored = sample(encoding, 4, 64)
    wide = np.zeros((4, 2 * stored.shape[1] + 1), np.uint8)
    wide[:, 1 : stored.shape[1] + 1] = stored
    strided = wide[::2, 1 : stored.shape[1] + 1]
    flat = np.zeros(stored.size + 1, np.uint8)
    flat[1:] = stored.ravel()
    assert (codecs.decode(strided, encoding, 64) == codecs.decode(stored[::2], encoding, 64)).all()
    assert (codecs.decode(flat[1:].reshape(stored.shape), encoding, 64) == codecs.decode(stored, encoding, 64)).all()
    values = np.zeros((4, 128), np.float32)
    values[:, ::2] = codecs.decode(stored, encoding, 64)
    assert (codecs.encode(values[:, ::2], encoding) == codecs.encode(values[:, ::2].copy(), encoding)).all()
    out = flat[1:].reshape(stored.shape)
    assert (codecs.encode(values[:, ::2].copy(), encoding, out=out) == codecs.encode(values[:, ::2].copy(), encoding)).all()


def test_big_endian_rows_are_turned_round():
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    assert (codecs.byteswap(values.astype(">f4").view(np.uint8), F32).view(np.float32) == values).all()
    assert (codecs.byteswap(values.astype(">f8").view(np.uint8), F64).view(np.float64) == values).all()
    halves = PATTERNS.reshape(2, -1)
    assert (codecs.byteswap(halves.astype(">u2").view(np.uint8), BF16).view(np.uint16) == halves).all()
    quants = codecs.encode(values, Q8_0)
    turned = codecs.byteswap(quants, Q8_0)
    assert (turned[:, 2:] == quants[:, 2:]).all() and (turned[:, :2] == quants[:, 1::-1]).all()
    bytes_ = np.arange(10, dtype=np.uint8).reshape(2, 5)
    assert (codecs.byteswap(bytes_, ENCODINGS["U8"]) == bytes_).all()


@pytest.mark.parametrize("encoding", [*CODED, ENCODINGS["BOOL"], ENCODINGS["I32"]], ids=lambda encoding: encoding.name)
def test_turning_round_twice_changes_nothing(encoding: Encoding):
    stored = np.random.default_rng(0).integers(0, 256, (3, encoding.row_bytes(64)), np.uint8)
    once = codecs.byteswap(stored, encoding)
    out = np.empty_like(stored)
    assert codecs.byteswap(once, encoding, out=out) is out and (out == stored).all()


def test_what_can_be_done_is_known_and_what_cannot_is_one_sentence():
    affine = {name for name in ENCODINGS if name.startswith("AFFINE")}
    assert {e.name for e in ENCODINGS.values() if codecs.can_encode(e)} == {
        "F64",
        "F32",
        "F16",
        "BF16",
        *blocktypes.ENCODED,
        *affine,
    }
    named = [e for e in ENCODINGS.values() if e.ggml is not None or e.safetensors]
    assert {e.name for e in named if not codecs.can_decode(e)} == {"C64", "F4", "F6_E2M3", "F6_E3M2"}
    pairs, f4 = np.zeros((1, 16), np.uint8), ENCODINGS["F4"]
    with pytest.raises(UnsupportedEncoding, match="F4 cannot be decoded"):
        codecs.decode(pairs, f4, 32)
    with pytest.raises(UnsupportedEncoding, match="F4 cannot be encoded"):
        codecs.encode(np.zeros((1, 32), np.float32), f4)
    with pytest.raises(UnsupportedEncoding, match="F4 cannot be decoded"):
        codecs.transcode(pairs, f4, F16, 32)
    with pytest.raises(UnsupportedEncoding, match="F4 from a big-endian file"):
        codecs.byteswap(pairs, f4)


def test_rows_of_the_wrong_size_are_refused():
    with pytest.raises(ValueError, match="raw rows of 32 Q8_0 are uint8"):
        codecs.decode(np.zeros((1, 33), np.uint8), Q8_0, 32)
    with pytest.raises(ValueError, match="not a whole number of Q8_0"):
        codecs.encode(np.zeros((1, 33), np.float32), Q8_0)
    with pytest.raises(ValueError, match="float32"):
        codecs.encode(np.zeros((1, 32), np.float64), Q8_0)
    with pytest.raises(ValueError, match="out has to be"):
        codecs.encode(np.zeros((1, 32), np.float32), Q8_0, out=np.empty((1, 35), np.uint8))
