"""Tensors that lie in several places, through the engine: planned, cut, read, written, killed, gone on with, verified."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import after
from rawsafetensors import entry, put, put_index
from running import Here, counting_reads, killed, leftovers

from hubclient import Checkpoint, disk, errors, tiles
from hubclient.architectures.language.arrays import Array, Concat, Leaf, Slice
from hubclient.architectures.language.gathers import Permute
from hubclient.checkpoint import run
from hubclient.direct import write_blocks
from hubclient.formats import codecs, gguf, safetensors
from hubclient.formats.encodings import BF16, ENCODINGS, F32
from hubclient.formats.model import Encoding, FileLayout, OpenedCheckpoint, OutputSpec, Placed, TensorSpec
from hubclient.inspection import inspect
from hubclient.model import Inline, Target, leaf
from hubclient.plan import OutputPlan, Place, Plan, Step, lay_out
from hubclient.rows import FilePool, Reader
from hubclient.verification import _judge

PLANES, BLOCKS = ENCODINGS["MXFP4_PLANES"], ENCODINGS["MXFP4"]
ROWS, COLUMNS = 24, 96
SHAPE = (2, ROWS // 2, COLUMNS)
NIBBLES, SCALES = ROWS * COLUMNS // 2, ROWS * COLUMNS // 32
KINDS = ("to planes", "to blocks", "both")


@pytest.fixture(scope="module")
def packed() -> np.ndarray[Any, Any]:
    """The rows of the tensor: nibbles, then scales."""
    rows = np.random.default_rng(0).integers(0, 256, (ROWS, PLANES.row_bytes(COLUMNS)), np.uint8)
    rows[:, COLUMNS // 2 :] %= 255
    return rows


@pytest.fixture(scope="module")
def opened(packed: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> OpenedCheckpoint:
    """A tensor in planes whose scales are in another shard, and a plain one."""
    folder = tmp_path_factory.mktemp("source")
    one, two = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    blocks, scales = packed[:, : COLUMNS // 2].tobytes(), packed[:, COLUMNS // 2 :].tobytes()
    shape = [2, ROWS // 2, COLUMNS // 32]
    put(
        folder / one,
        {"w_scales": entry("U8", shape, 0, SCALES), "x": entry("F32", [4, 5], SCALES, SCALES + 80)},
        scales + bytes(80),
    )
    put(folder / two, {"w_blocks": entry("U8", [*shape, 16], 0, NIBBLES)}, blocks)
    put_index(folder / "model.safetensors.index.json", {"w_blocks": two, "w_scales": one, "x": one})
    return safetensors.FORMAT.open(folder)


def turned(array: Array) -> Array:
    """Rows of the tensor in another order, cut and put together again: whatever arrays there are that move rows."""
    halves = [Slice(array, first, (ROWS // 2, COLUMNS)) for first in (0, ROWS // 2)]
    flat = Concat((halves[1], halves[0]), (ROWS, COLUMNS))
    return Permute(flat, (2, 3, 4), (0, 2, 1))


def output_of(opened: OpenedCheckpoint, path: Path, encoding: Encoding, change: Callable[[Array], Array] = turned) -> OutputPlan:
    array = change(leaf(opened.tensors["w_blocks"]))
    specs = (TensorSpec("x", (4, 5), F32), TensorSpec("w_blocks", array.shape, encoding))
    target = Target(OutputSpec(path.name, specs), (leaf(opened.tensors["x"]), array), encoding.name)
    format_: Any = gguf.FORMAT if encoding == BLOCKS else safetensors.FORMAT
    files = format_.layout(target.spec)
    return OutputPlan(path, format_.name, format_.folder, target.type, files, tuple(lay_out(target, files)), (), ())


def plan_of(opened: OpenedCheckpoint, folder: Path, kind: str = "both") -> Plan:
    outputs = []
    if kind != "to blocks":
        outputs.append(output_of(opened, folder / "planes", PLANES))
    if kind != "to planes":
        outputs.append(output_of(opened, folder / "blocks.gguf", BLOCKS))
    return Plan(opened.path, opened.format, None, opened.files, tuple(outputs))


@pytest.fixture(scope="module")
def expected(packed: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The rows that come out."""
    half = ROWS // 2
    flat = np.concatenate([packed[half:], packed[:half]])
    rows = flat.reshape(2, 3, 4, -1).transpose(0, 2, 1, 3).reshape(ROWS, -1)
    return {"planes": rows, "blocks": codecs.transcode(rows, PLANES, BLOCKS, COLUMNS)}


def assert_whole(plan: Plan, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    for output in plan.outputs:
        made = safetensors.FORMAT.open(output.path) if output.folder else gguf.FORMAT.open(output.path)
        assert made.tensors["w_blocks"].shape == (ROWS, COLUMNS)
        with FilePool() as pool:
            rows = Reader(pool).native(leaf(made.tensors["w_blocks"]), 0, ROWS)
        assert (rows == expected["planes" if output.folder else "blocks"]).all()


# Plans


def test_a_step_has_a_place_for_each_plane(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    (output,) = plan_of(opened, tmp_path, "to planes").outputs
    plain, step = output.steps
    start = len(output.files[0].head)
    assert (plain.name, plain.places) == ("x", (Place(0, start, 80),))
    assert step.places == (Place(0, start + 80, NIBBLES), Place(0, start + 80 + NIBBLES, SCALES))
    assert step.nbytes == NIBBLES + SCALES
    assert step.stretches(2, 5) == (
        Place(0, start + 80 + 2 * COLUMNS // 2, 3 * COLUMNS // 2),
        Place(0, start + 80 + NIBBLES + 2 * COLUMNS // 32, 3 * COLUMNS // 32),
    )


def test_only_a_step_with_planes_lists_its_places(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    plan = plan_of(opened, tmp_path)
    (plain, step), (_, block) = (json.loads(json.dumps(output["tensors"])) for output in plan.as_json()["outputs"])
    assert "places" not in plain and "places" not in block
    assert [tuple(place.values()) for place in step["places"]] == list(plan.outputs[0].steps[1].places)
    assert {key: step[key] for key in ("file", "offset", "bytes")} == step["places"][0]
    assert (step["encoding"], block["encoding"], block["source_encoding"]) == ("MXFP4_PLANES", "MXFP4", "MXFP4_PLANES")


def test_moving_and_repacking_are_exact(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    moved, packed_again = (output.steps[1] for output in plan_of(opened, tmp_path).outputs)
    assert (moved.moves, moved.repacks, moved.fidelity) == (True, False, "exact")
    assert (packed_again.moves, packed_again.repacks, packed_again.fidelity) == (False, True, "exact")
    decoded = output_of(opened, tmp_path / "bf16", BF16).steps[1]
    assert (decoded.moves, decoded.repacks, decoded.fidelity) == (False, False, "exact")


def test_what_can_neither_be_repacked_nor_encoded_is_refused_before_anything_is_read(
    opened: OpenedCheckpoint, tmp_path: Path
) -> None:
    array = leaf(opened.tensors["x"])
    target = Target(OutputSpec("out", (TensorSpec("x", (4, 5), PLANES),)), (array,), "MXFP4_PLANES")
    with pytest.raises(errors.UnsupportedEncoding, match="tensor x is to become MXFP4_PLANES, which cannot be encoded here"):
        list(lay_out(target, (FileLayout("a", b"", (Placed(0, 0, 1),), 1),)))


def test_planes_are_found_in_whichever_files_they_lie() -> None:
    array = Leaf((2, 32), Inline("w", (2, 32), PLANES, bytes(34)))
    target = Target(OutputSpec("out", (TensorSpec("w", (2, 32), PLANES), TensorSpec("v", (2, 32), PLANES))), (array, array), "")
    files = (
        FileLayout("a", b"", (Placed(0, 7, 2, 1), Placed(1, 9, 32, 0)), 41),
        FileLayout("b", b"", (Placed(0, 0, 32, 0), Placed(1, 32, 2, 1)), 34),
    )
    steps = list(lay_out(target, files))
    assert [(step.index, step.name, step.places) for step in steps] == [
        (0, "v", (Place(0, 9, 32), Place(1, 32, 2))),
        (1, "w", (Place(1, 0, 32), Place(0, 7, 2))),
    ]


def test_where_any_plane_lies_is_part_of_the_fingerprint(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    from dataclasses import replace

    plan = plan_of(opened, tmp_path, "to planes")
    ref = opened.tensors["w_blocks"]
    for at in range(2):
        planes = tuple(plane._replace(offset=plane.offset + (number == at)) for number, plane in enumerate(ref.planes))
        moved = replace(opened, tensors={**opened.tensors, "w_blocks": replace(ref, planes=planes)})
        assert plan.fingerprint(plan_of(moved, tmp_path, "to planes").outputs[0]) != plan.fingerprint(plan.outputs[0])


# Reading


@given(st.integers(0, ROWS), st.integers(0, ROWS))
@settings(deadline=None)
def test_rows_are_those_of_all_planes_side_by_side(
    opened: OpenedCheckpoint, packed: np.ndarray[Any, Any], one: int, other: int
) -> None:
    start, stop = sorted((one, other))
    whole = leaf(opened.tensors["w_blocks"])
    with FilePool() as pool:
        reader = Reader(pool)
        assert (reader.native(whole, start, stop) == packed[start:stop]).all()
        values = codecs.decode(packed, PLANES, COLUMNS)[start:stop]
        np.testing.assert_array_equal(reader.floats(whole, start, stop), values)


def test_a_vector_in_planes_is_read_as_numbers(opened: OpenedCheckpoint) -> None:
    from dataclasses import replace

    ref = replace(opened.tensors["w_blocks"], shape=(ROWS * COLUMNS,))
    whole = leaf(opened.tensors["w_blocks"])
    with FilePool() as pool:
        reader = Reader(pool)
        nibbles, scales = (plane.reshape(-1) for plane in np.split(reader.native(whole, 0, ROWS), [COLUMNS // 2], axis=1))
        row = np.concatenate([nibbles, scales])[None]
        values = codecs.decode(row, PLANES, ROWS * COLUMNS)[0]
        for start, stop in ((0, 1), (5, 40), (31, 33), (64, 64), (0, ROWS * COLUMNS)):
            np.testing.assert_array_equal(reader.floats(leaf(ref), start, stop)[:, 0], values[start:stop])


# Running


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_any_number_of_jobs_gives_the_same_bytes(
    jobs: int, opened: OpenedCheckpoint, expected: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    plan = plan_of(opened, tmp_path)
    run(plan, jobs=jobs)
    assert_whole(plan, expected)


@given(max_memory=st.integers(1, 36 << 20), smallest=st.integers(1, 1 << 12), jobs=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_any_budget_gives_the_same_bytes(
    max_memory: int,
    smallest: int,
    jobs: int,
    opened: OpenedCheckpoint,
    expected: dict[str, np.ndarray[Any, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_SMALLEST", smallest)
        plan = plan_of(opened, tmp_path_factory.mktemp("out"))
        run(plan, max_memory=max_memory, jobs=jobs)
        assert_whole(plan, expected)


def test_other_processes_give_the_same_bytes(
    opened: OpenedCheckpoint, expected: dict[str, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    plan = plan_of(opened, tmp_path)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        run(plan, executor=executor)
    assert_whole(plan, expected)


def test_planes_are_written_into_different_files(
    opened: OpenedCheckpoint, packed: np.ndarray[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    target = Target(OutputSpec("out", (TensorSpec("w", SHAPE, PLANES),)), (leaf(opened.tensors["w_blocks"]),), "")
    files = (
        FileLayout("b", b"head", (Placed(0, 5, SCALES, 1),), SCALES + 5),
        FileLayout("a", b"", (Placed(0, 0, NIBBLES),), NIBBLES),
    )
    output = OutputPlan(tmp_path / "out", "safetensors", True, "", files, tuple(lay_out(target, files)), (), ())
    run(Plan(opened.path, "safetensors", None, opened.files, (output,)), max_memory=1)
    assert (tmp_path / "out" / "a").read_bytes() == packed[:, : COLUMNS // 2].tobytes()
    assert (tmp_path / "out" / "b").read_bytes() == b"head\0" + packed[:, COLUMNS // 2 :].tobytes()


def test_progress_counts_the_bytes_of_all_planes(opened: OpenedCheckpoint, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(plan_of(opened, tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (2 * (80 + NIBBLES + SCALES),) * 2


def test_large_planes_go_past_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = 1500, 4096  # a tile of more than a megabyte of nibbles, at an odd place
    packed = np.random.default_rng(1).integers(0, 255, (rows, PLANES.row_bytes(columns)), np.uint8)
    blocks, scales = packed[:, : columns // 2].tobytes(), packed[:, columns // 2 :].tobytes()
    header = {
        "w_blocks": entry("U8", [1, rows, columns // 32, 16], 0, len(blocks)),
        "w_scales": entry("U8", [1, rows, columns // 32], len(blocks), len(blocks) + len(scales)),
        "x": entry("F32", [4, 5], len(blocks) + len(scales), len(blocks) + len(scales) + 80),
    }
    opened = safetensors.FORMAT.open(put(tmp_path / "a.safetensors", header, blocks + scales + bytes(80)))
    output = output_of(opened, tmp_path / "out", PLANES, change=lambda array: array)
    past: list[int] = []

    def noted(path: Path, view: memoryview, offset: int) -> tuple[int, int]:
        past.append(len(view))
        return write_blocks(path, view, offset)

    monkeypatch.setattr(disk, "write_blocks", noted)
    run(Plan(opened.path, opened.format, None, opened.files, (output,)))
    assert max(past) > 1 << 20
    made = safetensors.FORMAT.open(tmp_path / "out").tensors["w_blocks"]
    assert [plane.file.read_bytes()[plane.offset :][: plane.nbytes] for plane in made.planes] == [blocks, scales]


# Going on


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_anywhere_is_completed_by_the_next(
    kind: str,
    opened: OpenedCheckpoint,
    expected: dict[str, np.ndarray[Any, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "_SMALLEST", 150)  # several tiles
    run(plan_of(opened, tmp_path / "whole", kind))  # kernels are compiled before processes are forked
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        plan = plan_of(opened, folder, kind)
        if not killed(lambda plan=plan: run(plan, executor=Here(), max_memory=1), before=number):  # type: ignore[misc]
            break
        complete = all(output.path.exists() for output in plan.outputs)
        try:
            run(plan_of(opened, folder, kind))
        except errors.OutputExists:
            assert complete, f"killed before change {number}, the next run does not go on"
        assert_whole(plan, expected)
        assert complete or leftovers(folder) == []
        shutil.rmtree(folder)
    assert number > 30


def test_finished_tiles_are_not_read_again(opened: OpenedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(opened, tmp_path, "to planes")
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    stopped(plan, 8, max_memory=1)
    with counting_reads() as sizes:
        run(plan, max_memory=1)
    with counting_reads() as all_sizes:
        run(plan_of(opened, tmp_path / "again", "to planes"), max_memory=1)
    assert 0 < sum(sizes) < sum(all_sizes)


@pytest.mark.parametrize("plane", [0, 1])
def test_a_plane_that_is_not_what_was_written_is_written_again(
    plane: int,
    opened: OpenedCheckpoint,
    expected: dict[str, np.ndarray[Any, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of(opened, tmp_path, "to planes")
    monkeypatch.setattr(tiles, "_SMALLEST", 1)
    stopped(plan, 28, max_memory=1)
    partial = tmp_path / "planes.partial" / "model.safetensors"
    data = bytearray(partial.read_bytes())
    place = plan.outputs[0].steps[1].places[plane]
    data[place.offset : place.offset + place.nbytes] = bytes(place.nbytes)
    partial.write_bytes(data)
    run(plan, max_memory=1)
    assert_whole(plan, expected)


def stopped(plan: Plan, tile_count: int, **options: Any) -> None:
    from planning import Stop

    with pytest.raises(Stop):
        run(plan, executor=Here(), progress=after(tile_count), **options)


# Looking


def test_a_checkpoint_with_planes_is_inspected(opened: OpenedCheckpoint) -> None:
    told = inspect(Checkpoint.from_pretrained(opened.path), tensors=True)
    assert told["encodings"] == {"MXFP4_PLANES": NIBBLES + SCALES, "F32": 80}
    assert told["parameters"] == ROWS * COLUMNS + 20 and told["bytes"] == NIBBLES + SCALES + 80
    tensor = next(tensor for tensor in told["tensors"] if tensor["name"] == "w_blocks")
    assert (tensor["shape"], tensor["encoding"], tensor["bytes"]) == (list(SHAPE), "MXFP4_PLANES", NIBBLES + SCALES)
    assert [(plane["file"], plane["bytes"]) for plane in tensor["planes"]] == [
        ("model-00002-of-00002.safetensors", NIBBLES),
        ("model-00001-of-00002.safetensors", SCALES),
    ]


@pytest.mark.parametrize("kind", ["to planes", "to blocks"])
def test_a_repacked_tensor_is_verified_byte_by_byte(kind: str, opened: OpenedCheckpoint, tmp_path: Path) -> None:
    plan = plan_of(opened, tmp_path, kind)
    run(plan)
    (output,) = plan.outputs
    step: Step = output.steps[1]
    made = safetensors.FORMAT.open(output.path) if output.folder else gguf.FORMAT.open(output.path)
    ref = made.tensors["w_blocks"]
    with FilePool() as pool:
        assert _judge("w", step.array, ref, Reader(pool)).verdict == "exact"
        assert _judge("w", leaf(ref), opened.tensors["w_blocks"], Reader(pool)).verdict == "wrong", "other rows, other shape"
        place = ref.extents[-1]
        with place.file.open("rb+") as file:
            file.seek(place.offset + 5)
            file.write(b"\x03")
        assert _judge("w", step.array, ref, Reader(pool)).verdict == "wrong"
