"""Importance matrices: both forms as llama-imatrix wrote them, byte for byte back, and what is none refused in one sentence."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_gguf import ARRAY, BIG, F32, LITTLE, STRING, U32
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import DATA, REFERENCE

from hubclient.errors import DamagedInput, SourceMissing
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.imatrix import (
    Entry,
    ImportanceMatrix,
    check_fits,
    imatrix_data,
    lay_out_imatrix,
    read_imatrix,
    recorded,
)

FOLDER = DATA / "quant" / "imatrix"
DENSE, ROUTED, OLDER = (FOLDER / name for name in ("llama_h256.imatrix.gguf", "mixtral.imatrix.gguf", "llama_h256.imatrix.dat"))
MIXTRAL = {"blk.0.ffn_down_exps.weight": (4, 64, 128), "blk.0.attn_q.weight": (64, 64)}


def written(matrix: ImportanceMatrix) -> bytes:
    """The whole file."""
    layout = lay_out_imatrix(matrix, "a.gguf")
    data = bytearray(layout.size)
    data[: len(layout.head)] = layout.head
    for place, part in zip(layout.tensors, imatrix_data(matrix), strict=True):
        data[place.offset : place.offset + place.nbytes] = part
    return bytes(data)


def made(**entries: tuple[Any, Any]) -> ImportanceMatrix:
    """A matrix of these sums and counts."""
    arrays = {name: Entry(np.array(sums, np.float32), np.array(counts)) for name, (sums, counts) in entries.items()}
    return ImportanceMatrix(arrays, ("text.txt",), 3, 64)


def refused(path: Path, *needles: str) -> None:
    """Reading ends with one sentence that names the file and holds the needles."""
    with pytest.raises(DamagedInput) as caught:
        read_imatrix(path)
    told = str(caught.value)
    assert str(path) in told and "\n" not in told and len(told) < 400
    for needle in needles:
        assert needle in told, f"{needle!r} is not in {told!r}"


@pytest.mark.parametrize(("path", "chunks", "entries"), [(DENSE, 76, 14), (ROUTED, 79, 16)], ids=["dense", "routed"])
def test_what_llama_imatrix_wrote_is_read(path: Path, chunks: int, entries: int):
    matrix = read_imatrix(path)
    assert (matrix.datasets, matrix.chunks, matrix.chunk_size, len(matrix.entries)) == (("text.txt",), chunks, 64, entries)
    dense = matrix.entries["blk.0.attn_q.weight"]
    assert dense.counts.tolist() == [chunks * 64] and dense.sums.dtype == np.float32


def test_every_expert_has_a_row_and_a_count_of_its_own():
    entry = read_imatrix(ROUTED).entries["blk.0.ffn_gate_exps.weight"]
    assert entry.sums.shape == (4, 64) and entry.used == 4
    assert entry.counts.sum() == 2 * 79 * 64  # every token goes to two of them


@pytest.mark.parametrize("path", [DENSE, ROUTED], ids=["dense", "routed"])
def test_writing_gives_the_bytes_of_llama_imatrix(path: Path):
    assert written(read_imatrix(path)) == path.read_bytes()


def test_both_forms_give_the_same_importance():
    older, newer = read_imatrix(OLDER), read_imatrix(DENSE)
    assert (older.datasets, older.chunks, older.chunk_size) == (("text.txt",), 76, 0)
    assert older.entries.keys() == newer.entries.keys()
    for name, entry in newer.entries.items():
        weights = older.weights(name, (1, 256))
        assert weights is not None
        np.testing.assert_allclose(weights, entry.values, rtol=3e-7)


def test_an_expert_that_no_token_went_through_matters_evenly():
    matrix = made(x=([[4, 8], [0, 0]], [4, 0]))
    weights = matrix.weights("x", (2, 5, 2))
    assert weights is not None and weights.tolist() == [[1, 2], [1, 1]] and matrix.entries["x"].used == 1


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 4), columns=st.integers(1, 9), seed=st.integers(0, 1 << 30),
    names=st.sets(st.text("abcé.0", min_size=1, max_size=12), min_size=1, max_size=5),
)  # fmt: skip
def test_reading_gives_what_was_written(tmp_path_factory, rows: int, columns: int, seed: int, names: set[str]):
    rng = np.random.default_rng(seed)
    one = {name: (rng.random((rows, columns), np.float32), rng.integers(0, 1 << 20, rows)) for name in names}
    matrix = made(**one)
    path = tmp_path_factory.mktemp("imatrix") / "a.gguf"
    path.write_bytes(written(matrix))
    again = read_imatrix(path)
    assert list(again.entries) == sorted(names, key=str.encode) and again.datasets == matrix.datasets
    for name, entry in matrix.entries.items():
        np.testing.assert_array_equal(again.entries[name].sums, entry.sums)
        np.testing.assert_array_equal(again.entries[name].counts, entry.counts)


# What is no importance matrix


@pytest.mark.parametrize("path", [DENSE, OLDER], ids=["gguf", "dat"])
def test_a_file_that_ends_early_is_refused_wherever_it_ends(path: Path, tmp_path: Path):
    data, short = path.read_bytes(), tmp_path / "short"
    ends = [*range(0, 200, 7), *range(200, len(data) - 16, 997)]
    for end in ends:
        short.write_bytes(data[:end])
        refused(short)


def test_a_dat_may_lack_what_follows_the_entries(tmp_path: Path):
    path = tmp_path / "a.dat"
    path.write_bytes(OLDER.read_bytes()[: -(4 + 4 + len("text.txt"))])
    matrix = read_imatrix(path)
    assert (len(matrix.entries), matrix.chunks, matrix.datasets) == (14, 0, ())


def test_other_files_are_refused(tmp_path: Path):
    text, model = FOLDER / "text.txt", DATA / "gguf" / "bert.gguf"
    refused(text, "no importance matrix")
    refused(model, "no importance matrix", "'model'")
    with pytest.raises(SourceMissing):
        read_imatrix(tmp_path / "none")


def gguf(
    tmp_path: Path,
    tensors: Sequence[tuple[str, tuple[int, ...], int]],
    numbers: list[float],
    *,
    keys: str = "tdcs",
    order: Any = LITTLE,
) -> Path:
    """A GGUF with tensors (name, dimensions, offset) over these floats; `keys` are the initials of those that are there."""
    pairs = {
        "t": order.pair("general.type", STRING, order.string("imatrix")),
        "d": order.pair("imatrix.datasets", ARRAY, order.pack("IQ", STRING, 1) + order.string("x")),
        "c": order.pair("imatrix.chunk_count", U32, order.pack("I", 1)),
        "s": order.pair("imatrix.chunk_size", U32, order.pack("I", 8)),
        "f": order.pair("imatrix.chunk_size", F32, order.pack("f", 8)),
    }
    entries = [order.tensor(name, dims, 0, offset) for name, dims, offset in tensors]
    path = tmp_path / "made.gguf"
    path.write_bytes(order.file([pairs[key] for key in keys], entries, order.pack(f"{len(numbers)}f", *numbers)))
    return path


PAIR = [("a.in_sum2", (2, 2), 0), ("a.counts", (1, 2), 32)]
GOOD = [1.0, 2.0, 3.0, 4.0, 0, 0, 0, 0, 2.0, 1.0]


@pytest.mark.parametrize("order", [LITTLE, BIG], ids=["little", "big"])
def test_either_byte_order_is_read(tmp_path: Path, order: Any):
    entry = read_imatrix(gguf(tmp_path, PAIR, GOOD, order=order)).entries["a"]
    assert entry.sums.tolist() == [[1, 2], [3, 4]] and entry.counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("tensors", "changes", "keys", "needle"),
    [
        (PAIR[:1], {}, "tdcs", "'a.counts'"),
        (PAIR[1:], {}, "tdcs", "'a.in_sum2'"),
        ([("a.in_sum2", (3,), 0), ("a.counts", (2,), 32)], {}, "tdcs", "3 sums and 2 counts"),
        (PAIR, {}, "dcs", ""),
        (PAIR, {}, "tcs", "imatrix.datasets"),
        (PAIR, {}, "tds", "imatrix.chunk_count"),
        (PAIR, {}, "tdc", "imatrix.chunk_size"),
        (PAIR, {}, "tdcf", "f32"),
        ([], {}, "tdcs", "no entries"),
        (PAIR, {3: float("nan")}, "tdcs", "column 1"),
        (PAIR, {0: float("inf")}, "tdcs", "column 0"),
        (PAIR, {1: -1.0}, "tdcs", "-1.0 in column 1"),
        (PAIR, {8: float("nan")}, "tdcs", "count no tokens"),
        (PAIR, {9: -3.0}, "tdcs", "count no tokens"),
        (PAIR, {9: 1e30}, "tdcs", "count no tokens"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(tmp_path: Path, tensors: Any, changes: dict[int, float], keys: str, needle: str):
    path = gguf(tmp_path, tensors, [changes.get(at, number) for at, number in enumerate(GOOD)], keys=keys)
    if needle:
        refused(path, needle)
    else:
        assert read_imatrix(path).chunks == 1  # older files do not say what they are


@pytest.mark.parametrize(
    ("data", "needle"),
    [
        (struct.pack("<i", 0), "0 entries"),
        (struct.pack("<i", -1), "-1 entries"),
        (struct.pack("<i", 1 << 30), "entries"),
        (struct.pack("<ii", 1, 1 << 30), "63 are allowed"),
        (struct.pack("<ii1sii", 1, 1, b"a", 1, 1 << 30), "1073741824 values"),
        (struct.pack("<ii1sii", 1, 1, b"a", 1, 1 << 20), "ends inside"),
        (struct.pack("<ii1siifi1siif", 2, 1, b"a", 1, 1, 1.0, 1, b"a", 1, 1, 1.0), "2 entries of 1 names"),
        (struct.pack("<ii1siif", 1, 1, b"a", 1, 1, float("nan")), "nan in column 0"),
    ],
)  # fmt: skip
def test_a_damaged_dat_is_refused(tmp_path: Path, data: bytes, needle: str):
    path = tmp_path / "a.dat"
    path.write_bytes(data)
    refused(path, needle)


# Of this model, or of another


def test_a_matrix_of_this_model_fits_and_leaves_out_what_is_not_multiplied():
    matrix = made(**{"blk.0.attn_q.weight": ([[1] * 64], [1]), "blk.0.ffn_down_exps.weight": ([[1] * 128] * 4, [1] * 4)})
    further = {"blk.0.attn_norm.weight": (64,), "blk.1.attn_q.weight": (64, 64), "token_embd.weight": (512, 64)}
    assert check_fits(matrix, {**MIXTRAL, **further}) == ("blk.1.attn_q.weight",)


@pytest.mark.parametrize(
    ("entries", "needle"),
    [
        ({"blk.7.attn_q.weight": ([[1] * 64], [1])}, "has no blk.7.attn_q.weight"),
        ({"blk.0.attn_q.weight": ([[1] * 96], [1])}, "96 numbers where the tensor has 64 columns"),
        ({"blk.0.ffn_down_exps.weight": ([[1] * 128] * 8, [1] * 8)}, "1024 numbers where the tensor has 4 experts of 128"),
    ],
)  # fmt: skip
def test_a_matrix_of_another_model_is_refused(entries: dict[str, Any], needle: str):
    with pytest.raises(DamagedInput, match="another model") as caught:
        check_fits(made(**entries), MIXTRAL)
    assert needle in str(caught.value)


def test_weights_of_another_size_are_refused_but_for_the_embedding():
    matrix = made(**{"blk.0.attn_q.weight": ([[1, 2]], [1]), "token_embd.weight": ([[1, 2]], [1])})
    assert matrix.weights("blk.9.attn_q.weight", (4, 2)) is None
    assert matrix.weights("token_embd.weight", (9, 3)) is None
    with pytest.raises(DamagedInput, match="3 columns"):
        matrix.weights("blk.0.attn_q.weight", (4, 3))


def test_heads_that_all_tokens_go_through_have_one_count():
    matrix = made(**{"blk.0.attn_k_b.weight": ([[2, 4, 6, 8]], [2])})
    weights = matrix.weights("blk.0.attn_k_b.weight", (2, 16, 2))
    assert weights is not None and weights.tolist() == [[1, 2], [3, 4]]


def test_the_keys_that_record_a_matrix_are_those_of_llama_quantize():
    folder = REFERENCE / "foreign" if REFERENCE else DATA / "gguf"
    metadata = FORMAT.open(folder / "llama_h256-imatrix-IQ2_XXS.gguf").metadata
    keys = recorded(read_imatrix(DENSE), "llama_h256.imatrix.gguf")
    assert len(keys) == 4 and {key: metadata[key] for key in keys} == keys
    assert len(recorded(made(), "é" * 200)["quantize.imatrix.file"].value.encode("utf-8", "surrogateescape")) == 127
