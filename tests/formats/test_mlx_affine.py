"""MLX's affine quantisation against MLX itself: live where it is installed, else by what it was recorded to give.

`data/quant/mlx_affine.npz` holds inputs (F32, F16, BF16: rows of 128; the last two rows have NaN and infinities) and, for each
dtype, width and group, what mlx 0.32.4 made of them on the CPU: words, scales, biases, and the sha256 of the rows before
those two as mx.dequantize gives them back.
"""

from __future__ import annotations

import hashlib
import json
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pytest
from golden import FOLDER, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reference import DATA

from hubclient.errors import UnsupportedEncoding
from hubclient.formats.encodings import ENCODINGS, F32, Q8_0
from hubclient.formats.mlx.affine import Affine, decode, encode

Planes: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

WIDTHS, GROUPS, DTYPES = (2, 3, 4, 5, 6, 8), (32, 64, 128), ("F32", "F16", "BF16")
EVERY = [(bits, group, dtype) for dtype in DTYPES for bits in WIDTHS for group in GROUPS]
QUANTISED = [
    path.stem
    for path in sorted((FOLDER / "goldens").glob("*.json"))
    if (json.loads(path.read_text()).get("mlx") or {}).get("q4", {}).get("tensors")
]
LARGEST = {"F32": 3.4028234e38, "F16": 65504.0, "BF16": 3.3895314e38}


def wide(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Stored numbers as float64."""
    if dtype == "BF16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return numbers.view(np.float16 if dtype == "F16" else np.float32).astype(np.float64)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as numbers of the dtype; what is too large becomes the largest."""
    values = np.clip(values, -LARGEST[dtype], LARGEST[dtype]).astype(np.float32)
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    return values if dtype == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)


def bits_of(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """The patterns, with one for every NaN: their signs and payloads differ between processors."""
    patterns = np.ascontiguousarray(numbers).view(f"u{numbers.dtype.itemsize}")
    return np.where(np.isnan(wide(numbers, dtype)), patterns.dtype.type(0x7FFF), patterns)


def same(ours: Planes, theirs: Planes, dtype: str) -> bool:
    words = bool((ours[0] == theirs[0]).all()) and ours[0].dtype == theirs[0].dtype
    return words and all((bits_of(a, dtype) == bits_of(b, dtype)).all() for a, b in zip(ours[1:], theirs[1:], strict=True))


def quantise(rows: np.ndarray, bits: int, group: int, dtype: str) -> Planes:
    """The planes that raw rows hold in turn."""
    how = Affine(bits, group, dtype)
    words, groups = how.sizes(rows.shape[1])
    ends = np.cumsum([4 * words, groups * how.number.itemsize])
    parts = np.split(encode(rows, how), ends, axis=1)
    packed, scales, biases = (
        np.ascontiguousarray(part).view(kind) for part, kind in zip(parts, ("<u4", how.number, how.number), strict=True)
    )
    return packed, scales, biases


def raw_of(planes: Planes) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(plane).view(np.uint8) for plane in planes], axis=1)


def dequantise(words: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int, group: int, dtype: str) -> np.ndarray:
    """In the dtype of the scales, rounded twice."""
    how, columns = Affine(bits, group, dtype), words.shape[1] * 32 // bits
    return decode(raw_of((words, scales, biases)), how, columns, np.empty((len(words), columns), how.number))


def dequantise_f32(words: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int, group: int, dtype: str) -> np.ndarray:
    """In float32, rounded once."""
    return decode(raw_of((words, scales, biases)), Affine(bits, group, dtype), words.shape[1] * 32 // bits)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(DATA / "quant" / "mlx_affine.npz") as data:
        return dict(data)


def planes(recorded: dict[str, np.ndarray], bits: int, group: int, dtype: str) -> Planes:
    words, scales, biases = (recorded[f"{dtype}_{bits}_{group}_{plane}"] for plane in ("words", "scales", "biases"))
    return words, scales, biases


@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
def test_words_scales_and_biases_are_what_mlx_gave(recorded: dict[str, np.ndarray], bits: int, group: int, dtype: str):
    assert same(quantise(recorded[dtype], bits, group, dtype), planes(recorded, bits, group, dtype), dtype)


@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
def test_rows_come_back_as_mlx_gave_them(recorded: dict[str, np.ndarray], bits: int, group: int, dtype: str):
    rows = dequantise(*planes(recorded, bits, group, dtype), bits, group, dtype)
    assert hashlib.sha256(rows[:14].tobytes()).digest() == recorded[f"{dtype}_{bits}_{group}_rows"].tobytes()


@pytest.mark.parametrize("name", QUANTISED)
def test_matrices_of_a_checkpoint_become_what_mlx_lm_wrote(name: str):
    record = json.loads((FOLDER / "goldens" / f"{name}.json").read_text())["mlx"]
    told = record["q4"]["config_added"]["quantization"]
    before, after = ({tensor["name"]: tensor for tensor in record[kind]["tensors"]} for kind in ("fp", "q4"))
    for path, tensor in tensors(FOLDER / "checkpoints" / name).items():
        module = path.removesuffix(".weight")
        unchanged = before.get(path, {}).get("sha256") == hashlib.sha256(tensor.data).hexdigest()
        if unchanged and tensor.dtype in DTYPES and f"{module}.biases" in after and after[path]["dtype"] == "U32":
            how = told.get(module, told)
            rows = np.frombuffer(tensor.data, "<f4" if tensor.dtype == "F32" else "<u2").reshape(-1, tensor.shape[-1])
            ours = quantise(rows, how["bits"], how["group_size"], tensor.dtype)
            for plane, part in zip(ours, ("weight", "scales", "biases"), strict=True):
                assert hashlib.sha256(plane.tobytes()).hexdigest() == after[f"{module}.{part}"]["sha256"], f"{module}.{part}"


def test_the_small_golden_has_matrices_to_compare():
    assert "llama" in QUANTISED


@pytest.mark.parametrize("bits", WIDTHS)
def test_levels_are_one_stream_of_bits_lowest_first(bits: int):
    levels = np.random.default_rng(bits).integers(0, 1 << bits, (5, 96))
    stream = (levels[:, :, None] >> np.arange(bits) & 1).reshape(5, -1).astype(np.uint8)
    words = np.packbits(stream, axis=1, bitorder="little").view("<u4")
    one, zero = np.ones((5, 3), np.float32), np.zeros((5, 3), np.float32)
    assert (dequantise(words, one, zero, bits, 32, "F32") == levels).all()


@given(st.sampled_from(WIDTHS), st.data())
def test_any_levels_survive_the_way_there_and_back(bits: int, data: st.DataObject):
    top = (1 << bits) - 1
    levels = data.draw(arrays.arrays(np.float32, (2, 32), elements=st.integers(0, top).map(float)))
    levels[:, :2] = 0, top  # then the scale is 1: every level is its own number
    words, scales, biases = quantise(levels, bits, 32, "F32")
    assert (dequantise(words, scales, biases, bits, 32, "F32") == levels).all()


FINITE = st.floats(-1e4, 1e4, width=32, allow_subnormal=True)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EVERY), st.data())
def test_numbers_come_back_within_a_step_of_their_group(every: tuple[int, int, str], data: st.DataObject):
    bits, group, dtype = every
    rows = stored(data.draw(arrays.arrays(np.float32, (2, 128), elements=FINITE, fill=st.nothing())), dtype)
    words, scales, biases = quantise(rows, bits, group, dtype)
    found, wanted = dequantise_f32(words, scales, biases, bits, group, dtype), wide(rows, dtype).reshape(2, -1, group)
    step = np.abs(wide(scales, dtype))[:, :, None]
    # half a step, or a whole one at the far end, which moves when an end and zero are met exactly; then the roundings
    # of scale and bias to the dtype, the scale's as often as there are levels
    rounding = {"F32": 2.0**-22, "F16": 2.0**-10, "BF16": 2.0**-7}[dtype]
    largest = np.abs(wanted).max(2, keepdims=True)
    assert (np.abs(found.reshape(wanted.shape) - wanted) <= step * (1 + rounding * 2**bits) + largest * rounding + 1.1e-7).all()


@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
@pytest.mark.parametrize("value", [0.0, -0.0, 0.25, -3.0, 1e-30, -1e-42, 6e4, -2e38])
def test_a_group_of_one_number_gives_that_number(bits: int, group: int, dtype: str, value: float):
    rows = stored(np.full((1, 128), value, np.float32), dtype)
    planes = quantise(rows, bits, group, dtype)
    assert np.allclose(dequantise_f32(*planes, bits, group, dtype), wide(rows, dtype), rtol=0, atol=5e-8)
    assert np.allclose(wide(dequantise(*planes, bits, group, dtype), dtype), wide(rows, dtype), rtol=0, atol=5e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_spoils_its_own_group_only(dtype: str):
    values = np.linspace(-1, 1, 128, dtype=np.float32)[None].copy()
    clean = quantise(stored(values, dtype), 4, 32, dtype)
    values[0, 40] = np.inf
    numbers = values if dtype == "F32" else stored(values, dtype)
    if dtype != "F32":
        numbers[0, 40] = {"F16": 0x7C00, "BF16": 0x7F80}[dtype]
    words, scales, biases = quantise(numbers, 4, 32, dtype)
    assert np.isnan(wide(scales, dtype)[0, 1]) and np.isinf(wide(biases, dtype)[0, 1]) and (words[0, 4:8] == 0).all()
    others = [0, 2, 3]
    assert (scales[0, others] == clean[1][0, others]).all() and (words[0, 8:] == clean[0][0, 8:]).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_float32_is_rounded_to_the_dtype_before_it_is_quantised(dtype: str):
    rows = (np.random.default_rng(3).integers(-500, 500, (4, 64)) / 64).astype(np.float32)
    short = rows.astype(np.float16).view(np.uint16) if dtype == "F16" else nearest_bf16(rows)
    assert same(quantise(rows, 4, 64, dtype), quantise(short, 4, 64, dtype), dtype)


def nearest_bf16(rows: np.ndarray) -> np.ndarray:
    bits = rows.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rounding_or_two(dtype: str):
    rows = stored(np.random.default_rng(4).standard_normal((8, 256)).astype(np.float32), dtype)
    words, scales, biases = quantise(rows, 5, 64, dtype)
    once, twice = dequantise_f32(words, scales, biases, 5, 64, dtype), dequantise(words, scales, biases, 5, 64, dtype)
    levels = dequantise(words, np.ones((8, 4), np.float32), np.zeros((8, 4), np.float32), 5, 64, "F32").reshape(8, 4, 64)
    exact = levels * wide(scales, dtype)[:, :, None] + wide(biases, dtype)[:, :, None]
    assert dtype == "F32" or (once == exact.astype(np.float32).reshape(8, 256)).all()
    assert (wide(twice, dtype) == once).all() == (dtype == "F32")


@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
def test_an_encoding_names_its_quantisation(bits: int, group: int, dtype: str):
    how, encoding = Affine(bits, group, dtype), ENCODINGS[f"AFFINE{bits}_G{group}_{dtype}"]
    assert how == Affine.of(encoding) and how.row_bytes(384) == encoding.row_bytes(384)


def test_bytes_may_start_anywhere():
    rows = np.random.default_rng(6).standard_normal((4, 64)).astype(np.float32)
    how, there = Affine(6, 32, "F32"), np.zeros(4 * 64 + 1000, np.uint8)
    raw = there[1 : 1 + 4 * how.row_bytes(64)].reshape(4, -1)
    assert (encode(rows, how, raw) == encode(rows, how)).all()
    assert (decode(raw, how, 64) == decode(encode(rows, how), how, 64)).all()
    assert (encode(np.asfortranarray(rows), how) == encode(rows, how)).all()


def test_no_rows_at_all():
    words, scales, biases = quantise(np.empty((0, 64), np.float32), 4, 64, "F32")
    assert (words.shape, scales.shape) == ((0, 8), (0, 1))
    assert dequantise(words, scales, biases, 4, 64, "F32").shape == (0, 64)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ((7, 64, "BF16"), "MLX's affine quantisation has 2, 3, 4, 5, 6 or 8 bits, not 7"),
        ((4, 16, "BF16"), "MLX's affine quantisation has groups of 32, 64 or 128, not 16"),
        ((4, 64, "F64"), "the scales of MLX's affine quantisation are F32, F16 or BF16, not F64"),
    ],
)
def test_what_mlx_does_not_have_is_refused_in_one_sentence(how: Any, sentence: str):
    with pytest.raises(UnsupportedEncoding) as caught:
        quantise(np.zeros((1, 64), np.float32), *how)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("encoding", [F32, Q8_0, ENCODINGS["MXFP4_PLANES"]])
def test_an_encoding_that_is_not_affine_is_refused(encoding: Any):
    with pytest.raises(UnsupportedEncoding, match="is no affine quantisation of MLX"):
        Affine.of(encoding)


@pytest.mark.parametrize(
    "raw",
    [np.zeros((2, 39), np.uint8), np.zeros((2, 41), np.uint8), np.zeros((2, 40), np.int8), np.zeros(80, np.uint8)],
    ids=["short", "long", "signed", "flat"],
)
def test_raw_rows_of_another_size_are_refused(raw: np.ndarray):
    with pytest.raises(ValueError, match=r"raw rows of 64 are uint8 \[\d+, 40\]"):
        decode(raw, Affine(4, 64, "F32"), 64)


@pytest.mark.parametrize("out", [np.zeros((2, 64), np.uint16), np.zeros((2, 63), np.float32), np.zeros((64, 2), np.float32).T])
def test_rows_that_cannot_hold_the_numbers_are_refused(out: np.ndarray):
    with pytest.raises(ValueError, match=r"out has to be contiguous numbers \[2, 64\]"):
        decode(np.zeros((2, 40), np.uint8), Affine(4, 64, "F32"), 64, out)


def test_rows_that_are_no_whole_groups_are_refused():
    with pytest.raises(ValueError, match="a row of 96 is not a whole number of groups of 64"):
        quantise(np.zeros((1, 96), np.float32), 4, 64, "F32")


# Against MLX itself


def mlx_number(array: Any, core: Any) -> np.ndarray:
    return np.array(array) if array.dtype in (core.float32, core.uint32) else np.array(array.view(core.uint16))


def mlx_gives(rows: np.ndarray, bits: int, group: int, dtype: str) -> tuple[Planes, np.ndarray]:
    """Planes and the rows they give back."""
    core = pytest.importorskip("mlx.core")
    core.set_default_device(core.cpu)
    types = {"F32": core.float32, "F16": core.float16, "BF16": core.bfloat16}
    quantised = core.quantize(core.array(rows).view(types[dtype]), group, bits)
    back = core.dequantize(*quantised, group, bits)
    words, scales, biases = (mlx_number(plane, core) for plane in quantised)
    return (words, scales, biases), mlx_number(back, core)


@pytest.mark.mlx
@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
def test_the_recording_is_what_mlx_gives(recorded: dict[str, np.ndarray], bits: int, group: int, dtype: str):
    theirs, back = mlx_gives(recorded[dtype], bits, group, dtype)
    assert same(planes(recorded, bits, group, dtype), theirs, dtype)
    assert hashlib.sha256(back[:14].tobytes()).digest() == recorded[f"{dtype}_{bits}_{group}_rows"].tobytes()


def ordinary(rng: np.random.Generator, dtype: str) -> np.ndarray:
    return stored((rng.standard_normal((64, 384)) * np.exp2(rng.integers(-30, 14, (64, 1)))).astype(np.float32), dtype)


def nearly_equal(rng: np.random.Generator, dtype: str) -> np.ndarray:
    middle = np.repeat(rng.standard_normal((64, 1)), 384, 1)
    return stored((middle * (1 + 1e-7 * rng.integers(-3, 3, (64, 384)))).astype(np.float32), dtype)


def any_patterns(rng: np.random.Generator, dtype: str) -> np.ndarray:
    if dtype == "F32":
        return rng.integers(0, 1 << 32, (64, 384), np.uint32).view(np.float32)
    return rng.integers(0, 1 << 16, (64, 384), np.uint16)


def finite_patterns(rng: np.random.Generator, dtype: str) -> np.ndarray:
    rows = any_patterns(rng, dtype)
    return np.where(np.isfinite(wide(rows, dtype)), rows, rows.dtype.type(0))


@pytest.mark.mlx
@pytest.mark.parametrize(("bits", "group", "dtype"), EVERY)
@pytest.mark.parametrize("kind", [ordinary, nearly_equal, any_patterns, finite_patterns])
def test_mlx_gives_the_same_both_ways(bits: int, group: int, dtype: str, kind: Any):
    rows = kind(np.random.default_rng(bits * group), dtype)
    theirs, back = mlx_gives(rows, bits, group, dtype)
    assert same(quantise(rows, bits, group, dtype), theirs, dtype)
    assert (bits_of(dequantise(*theirs, bits, group, dtype), dtype) == bits_of(back, dtype)).all()


def test_every_width_group_and_dtype_of_the_table_is_tested():
    names = {name for name in ENCODINGS if name.startswith("AFFINE")}
    assert names == {f"AFFINE{bits}_G{group}_{dtype}" for bits, group, dtype in product(WIDTHS, GROUPS, DTYPES)}
