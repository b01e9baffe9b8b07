"""Split GGUFs: named and keyed as llama.cpp does it, opened whole from any part, refused when parts do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hostile_gguf import I32, LITTLE, U16, put
from reference import DATA

from hubclient.errors import DamagedInput, UsageError
from hubclient.formats.encodings import F32
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.split import group_by_part
from hubclient.formats.model import FileLayout, OutputSpec, TensorSpec, Value

TENSORS = tuple(TensorSpec(f"t{i}", (100,), F32) for i in range(5))
METADATA = {"general.architecture": Value("str", "llama"), "general.alignment": Value("u32", 64)}


def write(folder: Path, files: tuple[FileLayout, ...]) -> list[Path]:
    for file in files:
        (folder / file.name).write_bytes(file.head + bytes(file.size - len(file.head)))
    return [folder / file.name for file in files]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write(tmp_path, FORMAT.layout(OutputSpec("model.gguf", TENSORS, METADATA, max_shard_size=800)))


def split_file(no: int, count: int, total: int, *tensors: bytes, more: tuple[bytes, ...] = ()) -> bytes:
    pairs = [
        LITTLE.pair("split.no", U16, LITTLE.pack("H", no)),
        LITTLE.pair("split.count", U16, LITTLE.pack("H", count)),
        LITTLE.pair("split.tensors.count", I32, LITTLE.pack("i", total)),
    ]
    return bytes(LITTLE.file([*pairs, *more], tensors, bytes(32 * len(tensors))))


def test_parts_are_named_and_keyed_as_llama_cpp_does_it(parts: list[Path]):
    gguf = pytest.importorskip("gguf")
    assert [path.name for path in parts] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    readers = [gguf.GGUFReader(path) for path in parts]
    assert [[t.name for t in reader.tensors] for reader in readers] == [["t0", "t1"], ["t2", "t3"], ["t4"]]
    keys = [[key for key in reader.fields if not key.startswith("GGUF.")] for reader in readers]
    split = ["split.no", "split.count", "split.tensors.count"]
    assert keys == [["general.architecture", "general.alignment", *split], split, split]
    for number, reader in enumerate(readers):
        fields = [reader.fields[key] for key in split]
        assert [field.contents() for field in fields] == [number, 3, 5]
        assert [field.types[0].name for field in fields] == ["UINT16", "UINT16", "INT32"]


def test_any_part_opens_the_whole_set_in_order(parts: list[Path]):
    for path in parts:
        opened = FORMAT.open(path)
        assert opened.path == path and [file.path for file in opened.files] == parts
        assert list(opened.tensors) == ["t0", "t1", "t2", "t3", "t4"]
        assert [t.file for t in opened.tensors.values()] == [parts[i] for i in (0, 0, 1, 1, 2)]
        assert opened.metadata == METADATA


def test_the_first_part_follows_the_alignment_and_the_others_the_default(parts: list[Path]):
    tensors = FORMAT.open(parts[0]).tensors
    assert tensors["t1"].offset - tensors["t0"].offset == 448 and tensors["t3"].offset - tensors["t2"].offset == 416


def test_a_set_that_is_split_again_has_its_new_parts_only(parts: list[Path], tmp_path: Path):
    opened = FORMAT.open(parts[0])
    spec = OutputSpec("whole.gguf", TENSORS, dict(opened.metadata) | {"split.count": Value("u16", 9)})
    (file,) = FORMAT.layout(spec)
    assert b"split." not in file.head and file.name == "whole.gguf"


def test_what_fits_is_not_split(tmp_path: Path):
    assert [file.name for file in FORMAT.layout(OutputSpec("m.gguf", TENSORS, max_shard_size=2000))] == ["m.gguf"]
    assert len(FORMAT.layout(OutputSpec("m.gguf", TENSORS, max_shard_size=1999))) == 2


def test_a_tensor_larger_than_the_limit_has_a_part_of_its_own():
    assert [len(file.tensors) for file in FORMAT.layout(OutputSpec("m.gguf", TENSORS, max_shard_size=1))] == [1] * 5


def test_the_first_part_may_have_no_tensors():
    assert group_by_part((2, 1, 1)) == [[], [1, 2], [0]]
    assert group_by_part(()) == [[]]


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="0 bytes"):
        FORMAT.layout(OutputSpec("m.gguf", TENSORS, max_shard_size=0))
    many = tuple(TensorSpec(f"t{i}", (1,), F32) for i in range(65536))
    with pytest.raises(UsageError, match="65536 files"):
        FORMAT.layout(OutputSpec("m.gguf", many, max_shard_size=1))


@pytest.mark.parametrize("name", ["Weird-00001-of-00002-of-00003", "model.Q8_0", "ümlaut 1"])
def test_names_with_dots_and_numbers_survive(tmp_path: Path, name: str):
    paths = write(tmp_path, FORMAT.layout(OutputSpec(f"{name}.gguf", TENSORS, METADATA, max_shard_size=800)))
    assert paths[1].name == f"{name}-00002-of-00003.gguf" and len(FORMAT.open(paths[1]).tensors) == 5


def test_a_merged_file_keeps_no_trace_of_its_split(tmp_path: Path):
    opened = FORMAT.open(put(tmp_path / "merged.gguf", split_file(0, 0, 1, LITTLE.tensor("a"))))
    assert list(opened.tensors) == ["a"] and not opened.metadata


def test_a_missing_part_is_named(parts: list[Path]):
    parts[1].unlink()
    with pytest.raises(DamagedInput, match=r"1 of 3 parts of this split are missing, the first is 'model-00002-of-00003\.gguf'"):
        FORMAT.open(parts[2])


def test_a_part_under_another_name_is_refused(parts: list[Path]):
    renamed = parts[0].rename(parts[0].with_name("other.gguf"))
    with pytest.raises(DamagedInput, match=r"other\.gguf: the file says that it is part 1 of 3, but its name does not"):
        FORMAT.open(renamed)


def test_a_part_copied_over_another_is_refused(parts: list[Path]):
    shutil.copy(parts[1], parts[2])
    with pytest.raises(DamagedInput, match=r"00003-of-00003\.gguf: not a part of this split: its split\.no is 1 where 2 belongs"):
        FORMAT.open(parts[0])


def test_a_truncated_part_is_named(parts: list[Path]):
    put(parts[2], parts[2].read_bytes()[:90])
    with pytest.raises(DamagedInput, match=r"00003-of-00003\.gguf: the file ends inside"):
        FORMAT.open(parts[0])


FOREIGN_PARTS = {
    "of another count": (split_file(1, 3, 2, LITTLE.tensor("b")), r"its split\.count is 3 where 2 belongs"),
    "of another total": (split_file(1, 2, 7, LITTLE.tensor("b")), r"its split\.tensors\.count is 7 where 2 belongs"),
    "with a tensor again": (split_file(1, 2, 2, LITTLE.tensor("a")), "the tensor 'a' is in an earlier part"),
    "with too many tensors": (
        split_file(1, 2, 2, LITTLE.tensor("b"), LITTLE.tensor("c", offset=32)), "claims 2 tensors, its parts hold 3",
    ),
    "with none": (split_file(1, 2, 2), "claims 2 tensors, its parts hold 1"),
    "without split keys": (LITTLE.file([], [LITTLE.tensor("b")], bytes(32)), r"its split\.count is None"),
    "of another architecture": (
        split_file(1, 2, 2, LITTLE.tensor("b"), more=(LITTLE.text("general.architecture", "bert"),)),
        r"its general\.architecture differs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN_PARTS)
def test_a_foreign_part_is_refused(tmp_path: Path, case: str):
    second, words = FOREIGN_PARTS[case]
    architecture = LITTLE.text("general.architecture", "llama")
    first = put(tmp_path / "m-00001-of-00002.gguf", split_file(0, 2, 2, LITTLE.tensor("a"), more=(architecture,)))
    put(tmp_path / "m-00002-of-00002.gguf", second)
    with pytest.raises(DamagedInput, match=words):
        FORMAT.open(first)


@pytest.mark.parametrize("no", [2, 65535])
def test_a_part_number_beyond_the_count_is_refused(tmp_path: Path, no: int):
    with pytest.raises(DamagedInput, match="its name does not"):
        FORMAT.open(put(tmp_path / "m-00001-of-00002.gguf", split_file(no, 2, 2, LITTLE.tensor("a"))))


def test_split_keys_of_a_wrong_type_are_refused(tmp_path: Path):
    for value in (LITTLE.text("split.count", "3"), LITTLE.pair("split.count", I32, LITTLE.pack("i", -2))):
        with pytest.raises(DamagedInput, match=r"split\.count is"):
            FORMAT.open(put(tmp_path / "m-00001-of-00003.gguf", LITTLE.file([value])))


def test_parts_may_repeat_and_add_metadata(tmp_path: Path):
    same, more = LITTLE.text("general.architecture", "llama"), LITTLE.text("general.name", "n")
    first = put(tmp_path / "m-00001-of-00002.gguf", split_file(0, 2, 2, LITTLE.tensor("a"), more=(same,)))
    put(tmp_path / "m-00002-of-00002.gguf", split_file(1, 2, 2, LITTLE.tensor("b"), more=(same, more)))
    assert list(FORMAT.open(first).metadata) == ["general.architecture", "general.name"]


@pytest.mark.llama
def test_llama_cpp_runs_a_model_that_we_split(tmp_path: Path):
    xllamacpp = pytest.importorskip("xllamacpp")
    source = DATA / "gguf" / "llama3_rope_tied.gguf"
    opened = FORMAT.open(source)
    tensors = tuple(TensorSpec(t.name, t.shape, t.encoding) for t in opened.tensors.values())
    data, refs = source.read_bytes(), list(opened.tensors.values())
    for file in FORMAT.layout(OutputSpec("split.gguf", tensors, opened.metadata, max_shard_size=50_000)):
        whole = bytearray(file.head + bytes(file.size - len(file.head)))
        for index, offset, nbytes, _ in file.tensors:
            whole[offset : offset + nbytes] = data[refs[index].offset : refs[index].offset + nbytes]
        (tmp_path / file.name).write_bytes(whole)
    first = min(tmp_path.glob("split-00001-of-*.gguf"))
    assert len(list(tmp_path.glob("*.gguf"))) > 2
    assert _next_tokens(xllamacpp, first) == _next_tokens(xllamacpp, source)


def _next_tokens(xllamacpp, path: Path):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.verbosity = str(path), 128, False, -1
    request = {"prompt": [[1, 2, 3, 4, 5]], "max_tokens": 4, "temperature": 0, "logprobs": 3}
    choice = xllamacpp.Server(params).handle_completions(request)["choices"][0]
    return [(step["id"], step["logprob"]) for step in choice["logprobs"]["content"]]
