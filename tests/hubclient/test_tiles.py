"""Cutting work: every row once, whole units where possible, within the budget; and reading rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawsafetensors import entry, put

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.architectures.language.elementwise import Add, Computed
from hubclient.architectures.language.gathers import Permute, Transpose
from hubclient.errors import EnvironmentFault, SourceChanged
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32, Q8_0
from hubclient.formats.model import Encoding, FileLayout, TensorRef
from hubclient.formats.safetensors import FORMAT
from hubclient.model import Inline
from hubclient.plan import OutputPlan, Place, Step
from hubclient.rows import FilePool, Reader
from hubclient.tiles import Group, groups, tiles
from hubclient.work import work


def leaf(*shape: int, encoding: Encoding = F32, name: str = "a", offset: int = 0) -> Leaf:
    return Leaf(shape, TensorRef(name, shape, encoding, Path("source"), offset, encoding.nbytes(shape)))


def step(array: Array, encoding: Encoding = F32, index: int = 0, name: str = "a") -> Step:
    return Step(index, name, array, encoding, (Place(0, 0, encoding.nbytes(array.shape)),))


def group(array: Array, *encodings: Encoding) -> Group:
    return Group(array, tuple((at, step(array, encoding)) for at, encoding in enumerate(encodings or (F32,))))


def output(*steps: Step) -> OutputPlan:
    return OutputPlan(Path("out"), "gguf", False, "F32", (FileLayout("out", b"", (), 0),), steps, (), ())


# Cutting


@given(
    rows=st.integers(1, 5000),
    columns=st.integers(1, 300),
    memory=st.integers(-(10**6), 10**8),
    jobs=st.integers(1, 64),
    wide=st.booleans(),
)
def test_tiles_cover_every_row_once_and_in_order(rows: int, columns: int, memory: int, jobs: int, wide: bool) -> None:
    array = leaf(rows, columns, encoding=F32 if wide else BF16)
    cut = list(tiles(group(array), memory, jobs))
    assert [tile.start for tile in cut] == [0, *(tile.stop for tile in cut[:-1])]
    assert cut[-1].stop == rows and all(tile.start < tile.stop for tile in cut)


@given(memory=st.integers(2 << 20, 1 << 30), jobs=st.integers(1, 16), columns=st.sampled_from([1, 64, 4096, 100_000]))
def test_a_tile_takes_a_small_part_of_a_jobs_share(memory: int, jobs: int, columns: int) -> None:
    share = memory // jobs
    for tile in tiles(group(leaf(1_000_000, columns, encoding=BF16), F16), memory, jobs):
        assert (tile.stop - tile.start) * columns * 2 <= max(share // 8, 128 << 10, columns * 2)
        break


@pytest.mark.parametrize(
    ("read", "written", "bytes_each"),
    [(BF16, BF16, 2), (BF16, F16, 2), (BF16, F32, 4), (F32, F16, 4), (ENCODINGS["Q4_K"], BF16, 2)],
)
def test_a_tile_is_measured_where_its_rows_take_most(read: Encoding, written: Encoding, bytes_each: int) -> None:
    """Decoding to float32 on the way from one encoding to another is done in small steps and does not count."""
    first, *_ = tiles(group(leaf(100_000, 256, encoding=read), written), 40 << 20, 1)
    (last,) = {tile.stop - tile.start for tile in tiles(group(leaf(first.stop, 256 * bytes_each // 4), F32), 40 << 20, 1)}
    assert first.stop == last


def test_rows_that_are_computed_are_measured_as_float32() -> None:
    plain, computed = leaf(100_000, 256, encoding=BF16), Computed(leaf(100_000, 256, encoding=BF16), Add(1.0))
    (one, *_), (two, *_) = (list(tiles(group(array, BF16), 40 << 20, 1)) for array in (plain, computed))
    assert one.stop == pytest.approx(2 * two.stop, abs=1)  # tiles are made equal


def test_tiles_are_whole_heads_where_a_head_fits() -> None:
    array = Permute(leaf(64 * 100, 32), (100, 2, 32), (0, 2, 1), "rope")
    assert all(tile.start % 64 == 0 for tile in tiles(group(array), 8 << 20, 4))


def test_nothing_is_cut_from_nothing() -> None:
    for shape in ((0,), (0, 5), (5, 0), (0, 0)):
        assert list(tiles(group(leaf(*shape)), 1 << 30, 1)) == []


def test_a_scalar_is_one_tile() -> None:
    (tile,) = tiles(group(leaf()), 1 << 30, 1)
    assert (tile.start, tile.stop) == (0, 1)


def test_steps_of_several_outputs_that_read_the_same_are_one_group_in_source_order() -> None:
    late, early = leaf(4, 4, name="late", offset=100), leaf(4, 4, name="early")
    first = output(step(late, name="late"), step(early, name="early", index=1))
    second = output(step(late, F16, name="late"), step(early, F16, name="early", index=1))
    found = groups([first, second])
    assert [[(at, one.name) for at, one in each.steps] for each in found] == [
        [(0, "early"), (1, "early")],
        [(0, "late"), (1, "late")],
    ]


def test_different_transforms_of_one_tensor_are_not_mixed_up() -> None:
    array = leaf(4, 4)
    found = groups([output(step(array)), output(step(Transpose(array)))])
    assert [len(each.steps) for each in found] == [1, 1]


def test_what_comes_from_no_file_comes_first() -> None:
    inline = Leaf((2,), Inline("made", (2,), F32, bytes(8)))
    assert groups([output(step(leaf(2, 2)), step(inline, name="made", index=1))])[0].array is inline


# Reading and encoding


def stored(folder: Path, array: np.ndarray[Any, Any], dtype: str) -> Leaf:
    path = put(folder / "a.safetensors", {"a": entry(dtype, array.shape, 0, array.nbytes)}, array.tobytes())
    ref = FORMAT.open(path).tensors["a"]
    return Leaf(ref.shape, ref)


def made(array: Array, *encodings: Encoding, start: int = 0, stop: int | None = None) -> list[np.ndarray[Any, Any]]:
    from hubclient.tiles import Tile

    one = group(array, *encodings)
    with FilePool() as pool:
        tile = Tile(one, start, array.rows if stop is None else stop)
        return [np.array(data) for _, data, _ in work(tile, [each for _, each in one.steps], Reader(pool))]


def test_several_encodings_come_from_one_tile(tmp_path: Path) -> None:
    values = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    f32, f16, q8 = made(stored(tmp_path, values, "F32"), F32, F16, Q8_0, start=3, stop=9)
    assert f32.tobytes() == values[3:9].tobytes() and f16.tobytes() == values[3:9].astype(np.float16).tobytes()
    assert q8.shape == (6, 34)


def test_integers_move_and_are_not_made_floats(tmp_path: Path) -> None:
    values = np.array([[2**62 + 1, -1], [3, 4]], np.int64)
    (moved,) = made(stored(tmp_path, values, "I64"), ENCODINGS["I64"])
    assert moved.tobytes() == values.tobytes()


def test_computed_values_are_encoded_for_each(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    f32, f16 = made(Computed(stored(tmp_path, values, "F32"), Add(1.0)), F32, F16)
    assert (
        f32.tobytes() == (values + np.float32(1)).tobytes()
        and f16.tobytes() == (values + np.float32(1)).astype(np.float16).tobytes()
    )


def test_a_transposed_matrix_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((48, 32), np.float32)
    array = Transpose(stored(tmp_path, values, "F32"))
    whole = made(array, F32, Q8_0 if values.shape[0] % 32 == 0 else F16)
    parts = [made(array, F32, F16, start=row, stop=row + 1) for row in range(32)]
    assert whole[0].tobytes() == values.T.copy().tobytes() == b"".join(part[0].tobytes() for part in parts)
    assert whole[1].tobytes() == b"".join(part[1].tobytes() for part in parts)


def blocks(values: np.ndarray[Any, Any]) -> bytes:
    from hubclient.formats import codecs

    return codecs.encode(values, Q8_0).tobytes()


def test_rows_of_a_packed_vector_are_its_elements(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 96, dtype=np.float32)
    path = tmp_path / "raw"
    path.write_bytes(b"xxx" + blocks(values.reshape(1, -1)))
    vector = Leaf((96,), TensorRef("v", (96,), Q8_0, path, 3, 102))
    (whole,) = made(vector, F32)
    parts = [made(vector, F32, start=at, stop=at + 7) for at in range(0, 91, 7)] + [made(vector, F32, start=91)]
    assert whole.tobytes() == b"".join(part[0].tobytes() for part in parts)
    assert np.abs(whole.view(np.float32).reshape(-1) - values).max() < 0.01


def test_packed_rows_move_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((8, 64), np.float32)
    path = tmp_path / "raw"
    path.write_bytes(data := blocks(values))
    matrix = Leaf((8, 64), TensorRef("m", (8, 64), Q8_0, path, 0, len(data)))
    (moved,) = made(Permute(matrix, (2, 2, 2), (0, 2, 1)), Q8_0)
    rows = np.frombuffer(data, np.uint8).reshape(8, 68)
    assert moved.tobytes() == rows.reshape(2, 2, 2, 68).transpose(0, 2, 1, 3).tobytes()


def test_big_endian_values_are_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(np.array([[1.5, -2.0]], ">f4").tobytes())
    array = Leaf((1, 2), TensorRef("a", (1, 2), F32, path, 0, 8, big_endian=True))
    assert made(array, F32)[0].tobytes() == np.array([1.5, -2.0], "<f4").tobytes()


@pytest.mark.parametrize("encoding", [F32, BF16, Q8_0, ENCODINGS["U8"]])
@pytest.mark.parametrize("shape", [(4, 32), (32,), ()])
def test_no_rows_are_an_empty_array(encoding: Encoding, shape: tuple[int, ...], tmp_path: Path) -> None:
    if shape == () and encoding.blocked:
        return
    path = tmp_path / "raw"
    path.write_bytes(bytes(encoding.nbytes(shape)))
    array = Leaf(shape, TensorRef("a", shape, encoding, path, 0, encoding.nbytes(shape)))
    with FilePool() as pool:
        assert Reader(pool).floats(array, 0, 0).shape == (0, array.columns)
        if not (encoding.blocked and len(shape) < 2):
            assert len(Reader(pool).native(array, 0, 0)) == 0


# Open files


def test_a_pool_keeps_no_more_files_open_than_it_may(tmp_path: Path) -> None:
    paths = [tmp_path / str(at) for at in range(10)]
    for at, path in enumerate(paths):
        path.write_bytes(bytes([at]) * 4)
    with FilePool(3) as pool:
        for _ in range(2):
            for at, path in enumerate(paths):
                buffer = bytearray(4)
                pool.read_into(path, memoryview(buffer), 0)
                assert buffer == bytes([at]) * 4 and len(pool._files) <= 3


def test_a_file_that_ends_too_early_has_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with FilePool() as pool, pytest.raises(SourceChanged, match="became shorter"):
        pool.read_into(tmp_path / "a", memoryview(bytearray(4)), 1)


def test_a_file_that_cannot_be_opened_is_the_environments_fault(tmp_path: Path) -> None:
    with FilePool() as pool, pytest.raises(EnvironmentFault, match="cannot be opened"):
        pool.read_into(tmp_path / "none", memoryview(bytearray(4)), 0)
    with FilePool() as pool, pytest.raises(EnvironmentFault, match="cannot be read"):
        pool.read_into(tmp_path, memoryview(bytearray(4)), 0)
