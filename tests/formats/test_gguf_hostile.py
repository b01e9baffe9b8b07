"""Wrong files: each gives one sentence that names the file and the fault, in little time and memory.

The first table follows llama.cpp's tests/test-gguf.cpp case by case; then what its advisories and other readers taught
(CVE-2024-21802, CVE-2025-53630, CVE-2026-27940: sums and products that wrap; CVE-2026-7482: tensors beyond the file;
ggml#1516: unbounded alignment and counts), and what nobody tests: truncation and garbling at every byte.
"""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from hostile_gguf import ARRAY, BIG, BOOL, F32, I32, LITTLE, STRING, U8, U32, U64, Bytes, ordinary, put
from libggml import header_as_ggml_writes_it

from hubclient.errors import DamagedInput, HubclientError
from hubclient.formats.gguf import FORMAT

L = LITTLE
MAX = 2**64 - 1
PAIR = L.pair("k", U32, L.pack("I", 1))
ALIGN = "general.alignment"
TENSOR = L.tensor("t")


def alignment(value: int, kind: int = U32) -> bytes:
    return bytes(L.pair(ALIGN, kind, L.pack("I", value)))


# name in test-gguf.cpp: (bytes, words of the sentence)
LLAMA_CPP_CASES = {
    "HEADER_BAD_MAGIC": (L.file(magic=b"FUGG"), "begins with b'FUGG'"),
    "HEADER_BAD_VERSION_0": (L.file(version=0), "version 0 cannot"),
    "HEADER_BAD_VERSION_1": (L.file(version=1), "version 1 cannot"),
    "HEADER_BAD_VERSION_FUTURE": (L.file(version=4), "version 4 cannot"),
    "HEADER_BAD_N_TENSORS": (L.file(tensor_count=MAX), f"claims {MAX} tensors"),
    "HEADER_BAD_N_KV": (L.file(pair_count=MAX), f"claims {MAX} metadata keys"),
    "KV_BAD_KEY_SIZE": (L.file([L.pair("k", U32, L.pack("I", 1), key_length=MAX)]), f"pair 0 has a name of {MAX} bytes"),
    "KV_EMPTY_KEY": (L.file([L.pair("", U32, L.pack("I", 1))]), "pair 0 has a name of 0 bytes"),
    "KV_BAD_TYPE": (L.file([L.pair("k", 13, b"\0")]), "value of 'k' has the unknown type 13"),
    "KV_BAD_VALUE_SIZE": (L.file([L.array("k", F32, MAX, b"")]), "ends inside the value of 'k'"),
    "KV_DUPLICATE_KEY": (L.file([PAIR, PAIR]), "key 'k' occurs twice"),
    "KV_BAD_ALIGN": (L.file([alignment(13)]), f"{ALIGN} is 13"),
    "KV_WRONG_TYPE_ALIGN": (L.file([alignment(32, I32)]), f"{ALIGN} is of type i32"),
    "TENSORS_BAD_NAME_SIZE": (L.file([], [L.tensor("n" * 64)], bytes(16)), "entry 0 has a name of 64 bytes"),
    "TENSORS_BAD_N_DIMS": (L.file([], [L.tensor("t", (1,) * 5)], bytes(16)), "'t' has 5 dimensions"),
    "TENSORS_BAD_SHAPE": (L.file([], [L.tensor("t", (MAX,))], bytes(16)), "'t' has the impossible shape"),
    "TENSORS_NE_TOO_BIG": (L.file([], [L.tensor("t", (4 * (2**31 - 1),) * 2)], bytes(16)), "'t' has the impossible shape"),
    "TENSORS_NBYTES_TOO_BIG": (L.file([], [L.tensor("t", (2**31, 2**30), 27)], bytes(16)), "'t' ends at byte"),
    "TENSORS_NBYTES_PAD_WRAP": (L.file([], [L.tensor("t", (4, 2**30 - 1, 2**30 + 1))], bytes(16)), "'t' ends at byte"),
    "TENSORS_BAD_TYPE": (L.file([], [L.tensor("t", kind=43)], bytes(16)), "'t' has the ggml type 43, which does not exist"),
    "TENSORS_BAD_OFFSET": (L.file([], [L.tensor("t", offset=MAX)], bytes(16)), f"'t' starts at {MAX}, no multiple"),
    "TENSORS_DUPLICATE_NAME": (L.file([], [TENSOR, L.tensor("t", offset=32)], bytes(48)), "tensor 't' occurs twice"),
    "TENSORS_BAD_ALIGN": (L.file([alignment(13)], [TENSOR], bytes(16)), f"{ALIGN} is 13"),
    "TENSORS_INCONSISTENT_ALIGN": (
        L.file([], [TENSOR, L.tensor("u", offset=16)], bytes(32), alignment=1),
        "'u' starts at 16, no multiple of the alignment 32",
    ),
    "DATA_NOT_ENOUGH_DATA": (L.file([], [TENSOR], bytes(15)), "'t' ends at byte"),
    "DATA_BAD_ALIGN": (L.file([alignment(13)], [TENSOR], bytes(16)), f"{ALIGN} is 13"),
    "DATA_INCONSISTENT_ALIGN": (
        L.file([], [L.tensor("t", (3,)), L.tensor("u", (3,), offset=12)], bytes(24), alignment=1),
        "'u' starts at 12",
    ),
    "DATA_MEM_SIZE_OVERFLOW": (
        L.file([], [L.tensor("t", (2**63 - 64,), 24), L.tensor("u", (2**63 - 64,), 24, 2**63 - 64)], bytes(32)),
        "'t' ends at byte",
    ),
}

MORE_CASES = {
    "empty": (b"", "ends inside the header"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "begins with b'vers'"),
    "big-endian version 1": (BIG.file(version=1), "version 1 cannot"),
    "key too long": (L.file([L.pair("k" * 65536, U8, b"\0")]), "has a name of 65536 bytes"),
    "key is no UTF-8": (L.file([L.pair(b"\xff\xfe", U8, b"\0")]), "a name that is not UTF-8"),
    "key with NUL": (L.file([L.pair(b"a\0b", U8, b"\0")]), "NUL byte"),
    "tensor name is no UTF-8": (L.file([], [L.tensor(b"\xff")], bytes(16)), "a name that is not UTF-8"),
    "tensor name with NUL": (L.file([], [L.tensor(b"t\0")], bytes(16)), "NUL byte"),
    "tensor without a name": (L.file([], [L.tensor("")], bytes(16)), "entry 0 has a name of 0 bytes"),
    "boolean of 2": (L.file([L.pair("k", BOOL, b"\2")]), "'k' is a boolean stored as 2"),
    "booleans of 255": (L.file([L.array("k", BOOL, 3, b"\0\1\xff")]), "'k' has booleans that are neither 0 nor 1"),
    "string beyond the file": (L.file([L.pair("k", STRING, L.pack("Q", 2**62))]), "ends inside the value of 'k'"),
    "string of a wrapping length": (L.file([L.pair("k", STRING, L.pack("Q", MAX))]), "ends inside the value of 'k'"),
    "too many strings": (L.file([L.array("k", STRING, 2**61, b"")]), "claims 2305843009213693952 strings"),
    "array of a wrapping size": (L.file([L.array("k", U64, 2**61 + 1, bytes(64))]), "ends inside the value of 'k'"),
    "string in an array beyond the file": (
        L.file([L.array("k", STRING, 3, L.string("a") + L.pack("Q", MAX) + L.string("b"))]),
        "ends inside the value of 'k'",
    ),
    "last string beyond the file": (
        L.file([L.array("k", STRING, 2, L.string("a") + L.string("b", 10**6))]),
        "ends inside the value of 'k'",
    ),
    "unknown type in an array": (L.file([L.array("k", 99, 1, bytes(8))]), "'k' has the unknown type 99"),
    "arrays nested deeply": (
        L.file([L.pair("k", ARRAY, L.pack("IQ", ARRAY, 1) * 100_000)]), "'k' nests arrays deeper than 4",
    ),
    "many nested arrays": (
        L.file([L.array("k", ARRAY, 100_000, L.pack("IQ", U8, 0) * 100_000)]), "or more than 65536 of them",
    ),
    "nested arrays of different types": (
        L.file([L.array("k", ARRAY, 2, L.pack("IQB", U8, 1, 1) + L.pack("IQI", U32, 1, 1))]), "'k' mixes arrays",
    ),
    "alignment of 0": (L.file([alignment(0)]), f"{ALIGN} is 0"),
    "alignment of gigabytes": (L.file([alignment(1 << 31)], [TENSOR], bytes(16)), f"{ALIGN} is {1 << 31}"),
    "alignment as an array": (L.file([L.array(ALIGN, U32, 1, L.pack("I", 32))]), f"{ALIGN} is of type [u32]"),
    "hidden behind a zero dimension": (L.file([], [L.tensor("t", (0, 2**62, 2**62))]), "'t' has the impossible shape"),
    "half a block": (L.file([], [L.tensor("t", (48, 2), 8)], bytes(128)), "rows of 48 elements, no whole number of Q8_0 blocks"),
    "negative type": (L.file([], [L.tensor("t", kind=2**32 - 1)], bytes(16)), "ggml type 4294967295, which does not exist"),
    "offset beyond the file": (L.file([], [L.tensor("t", offset=2**40)], bytes(16)), "'t' ends at byte"),
    "offset that wraps": (L.file([], [L.tensor("t", offset=MAX - 31)], bytes(16)), "'t' ends at byte"),
    "overlapping tensors": (L.file([], [L.tensor("t", (16,)), L.tensor("u", offset=32)], bytes(64)), "'t' and 'u' overlap"),
    "the same place twice": (L.file([], [TENSOR, L.tensor("u")], bytes(32)), "'t' and 'u' overlap"),
    "no data at all": (L.file([], [TENSOR], alignment=1), "ends inside the padding before the tensor data"),
    "fewer tensors than claimed": (L.file([], [TENSOR], bytes(16), tensor_count=2), "entry 1 has a name of 0 bytes"),
}  # fmt: skip
ALL_CASES = LLAMA_CPP_CASES | MORE_CASES


@pytest.mark.parametrize("case", ALL_CASES)
def test_a_wrong_file_is_one_sentence_naming_the_file_and_the_fault(tmp_path: Path, case: str):
    data, words = ALL_CASES[case]
    path = put(tmp_path / "bad.gguf", data)
    with pytest.raises(DamagedInput) as caught:
        FORMAT.open(path)
    sentence = str(caught.value)
    assert str(path) in sentence and words in sentence and "\n" not in sentence and len(sentence) < 400
    assert caught.value.file == path and caught.value.exit_code == 4


SEEN_WITH_THE_DATA_ONLY = ("DATA_NOT_ENOUGH_DATA", "DATA_MEM_SIZE_OVERFLOW")  # ggml checks headers without the file's size


@pytest.mark.llama
@pytest.mark.parametrize("case", [case for case in LLAMA_CPP_CASES if case not in SEEN_WITH_THE_DATA_ONLY])
def test_ggml_refuses_its_own_cases_too(tmp_path: Path, case: str):
    assert header_as_ggml_writes_it(put(tmp_path / "bad.gguf", LLAMA_CPP_CASES[case][0])) is None


@pytest.mark.parametrize("make", [LITTLE, BIG], ids=["little", "big"])
def test_a_file_cut_off_at_any_byte_is_refused(tmp_path: Path, make: Bytes):
    whole, path = ordinary(make), tmp_path / "cut.gguf"
    needed = len(whole) - 28  # the padding of the last tensor may be missing
    for length in range(needed):
        put(path, whole[:length])
        with pytest.raises(DamagedInput, match=r"cut\.gguf"):
            FORMAT.open(path)
    assert FORMAT.open(put(path, whole[:needed])).tensors


def test_a_byte_changed_anywhere_in_the_header_never_escapes_as_a_raw_error(tmp_path: Path):
    whole, path = bytearray(ordinary()), tmp_path / "garbled.gguf"
    for place in range(len(whole) - 128):
        for flip in (0x01, 0x80, 0xFF):
            garbled = bytearray(whole)
            garbled[place] ^= flip
            put(path, garbled)
            try:
                opened = FORMAT.open(path)
            except HubclientError as error:
                assert str(path) in str(error) and len(str(error)) < 400
            else:
                assert all(t.offset + t.nbytes <= len(whole) for t in opened.tensors.values())


SPARSE_CLAIMS = {
    "string": [L.pair("k", STRING, L.pack("Q", 2**33))],
    "numbers": [L.array("k", U64, 2**30, b"")],
    "strings": [L.array("k", STRING, 2**24, b"")],
    "arrays": [L.array("k", ARRAY, 2**24, b"")],
}


@pytest.mark.parametrize("claim", SPARSE_CLAIMS)
def test_claims_that_a_huge_sparse_file_would_satisfy_cost_no_memory(tmp_path: Path, claim: str):
    path = put(tmp_path / "sparse.gguf", L.file(SPARSE_CLAIMS[claim], alignment=1))
    os.truncate(path, 2**35)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedInput):
            FORMAT.open(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("counts", [{"tensor_count": 2**24}, {"pair_count": 2**24}], ids=["tensors", "pairs"])
def test_counts_that_a_huge_sparse_file_would_satisfy_are_refused_at_once(tmp_path: Path, counts: dict[str, int]):
    path = put(tmp_path / "sparse.gguf", L.file(**counts))
    os.truncate(path, 2**35)
    with pytest.raises(DamagedInput, match="claims 16777216"):
        FORMAT.open(path)
