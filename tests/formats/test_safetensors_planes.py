"""Tensors in planes: two tensors in a safetensors header, one tensor here."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawsafetensors import entry, materialise, put, put_index
from safetensors import deserialize

from hubclient.errors import DamagedInput, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32, affine
from hubclient.formats.model import Encoding, Extent, OutputSpec, TensorRef, TensorSpec
from hubclient.formats.safetensors import FORMAT
from hubclient.formats.safetensors.planes import Stored, split
from hubclient.formats.safetensors.writer import layout

MXFP4 = ENCODINGS["MXFP4_PLANES"]
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

SHAPES = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3).map(lambda blocks: blocks * 32))
PACKED = st.builds(lambda number, shape: TensorSpec(f"e{number}.w_blocks", shape, MXFP4), st.integers(0, 9), SHAPES)
PLAIN = st.builds(
    lambda number, shape, encoding: TensorSpec(f"p{number}_scales", shape, encoding),
    st.integers(0, 9),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([F32, BF16, ENCODINGS["U8"]]),
)
SPECS = st.builds(
    OutputSpec,
    name=st.just("out"),
    tensors=st.lists(PACKED | PLAIN, min_size=1, max_size=6, unique_by=lambda tensor: tensor.name).map(tuple),
    max_shard_size=st.none() | st.integers(1, 500),
)


def planes(tensor: TensorSpec, seed: int) -> tuple[bytes, ...]:
    """Distinct bytes for each plane of a tensor."""
    shares = tensor.encoding.planes or (tensor.encoding.block_bytes,)
    blocks = tensor.nbytes // sum(shares)
    return tuple(hashlib.shake_128(f"{seed} {plane}".encode()).digest(blocks * share) for plane, share in enumerate(shares))


def held(ref: TensorRef) -> tuple[bytes, ...]:
    return tuple(plane.file.read_bytes()[plane.offset : plane.offset + plane.nbytes] for plane in ref.extents)


def one(shape: tuple[int, ...], encoding: Encoding, name: str = "w_blocks") -> OutputSpec:
    return OutputSpec("out", (TensorSpec(name, shape, encoding),))


@given(SPECS)
def test_what_is_laid_out_opens_again_equal(spec):
    data = [planes(tensor, seed) for seed, tensor in enumerate(spec.tensors)]
    files = layout(spec)
    with tempfile.TemporaryDirectory() as name:
        materialise(Path(name), files, data)
        opened = FORMAT.open(Path(name))
        found = {ref.name: (ref.shape, ref.encoding, ref.nbytes, held(ref)) for ref in opened.tensors.values()}
    expected = {
        tensor.name: (tensor.shape, tensor.encoding, tensor.nbytes, own) for tensor, own in zip(spec.tensors, data, strict=True)
    }
    assert found == expected


@given(SPECS)
def test_the_library_sees_blocks_and_scales(spec):
    data = [planes(tensor, seed) for seed, tensor in enumerate(spec.tensors)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        files = layout(spec)
        materialise(Path(name), files, data)
        for file in (file for file in files if file.tensors):
            found |= dict(deserialize(Path(name, file.name).read_bytes()))
    expected = {}
    for tensor, own in zip(spec.tensors, data, strict=True):
        plain = (Stored(tensor.name, tensor.encoding.name, tensor.shape),)
        for stored, plane in zip(split(tensor) if tensor.encoding == MXFP4 else plain, own, strict=True):
            expected[stored.name] = (stored.dtype, list(stored.shape), plane)
    assert {name: (each["dtype"], each["shape"], bytes(each["data"])) for name, each in found.items()} == expected


@given(SPECS)
def test_the_planes_of_a_tensor_stay_in_one_shard_and_the_index_names_all(spec):
    files = layout(spec)
    homes: dict[int, set[str]] = {}
    for file in files:
        for place in file.tensors:
            homes.setdefault(place.tensor, set()).add(file.name)
    assert all(len(home) == 1 for home in homes.values())
    if files[-1].name.endswith(".json"):
        index = json.loads(files[-1].head)
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in spec.tensors)
        stored = [(tensor.name, index) for index, tensor in enumerate(spec.tensors)]
        stored += [(split(tensor)[1].name, index) for index, tensor in enumerate(spec.tensors) if tensor.encoding.planes]
        assert index["weight_map"] == {name: next(iter(homes[tensor])) for name, tensor in stored}


def test_a_tensor_in_planes_is_placed_plane_by_plane():
    (file,) = layout(one((2, 3, 64), MXFP4))
    assert [(place.tensor, place.plane, place.nbytes) for place in file.tensors] == [(0, 0, 192), (0, 1, 12)]
    header = json.loads(file.head[8:])
    assert header["w_blocks"] == entry("U8", [2, 3, 2, 16], 0, 192)
    assert header["w_scales"] == entry("U8", [2, 3, 2], 192, 204)


@pytest.mark.parametrize("encoding", [affine(4, 64, BF16), ENCODINGS["NVFP4_PLANES"], ENCODINGS["MXFP8_PLANES"]])
def test_other_planes_have_no_names_in_safetensors(encoding):
    with pytest.raises(UnsupportedEncoding, match=f"no type for {encoding}, which tensor 'w_blocks'"):
        layout(one((2, 64), encoding))


def test_only_blocks_can_be_named():
    with pytest.raises(UnsupportedEncoding, match="'w' cannot be MXFP4_PLANES in safetensors: its name does not end in _blocks"):
        layout(one((2, 64), MXFP4, "w"))
    with pytest.raises(UsageError, match="'w_blocks' a row of 33 is not a whole number of MXFP4_PLANES blocks"):
        layout(one((2, 33), MXFP4))
    both = (TensorSpec("w_scales", (1,), F32), TensorSpec("w_blocks", (2, 32), MXFP4))
    with pytest.raises(UsageError, match="cannot be called 'w_scales'"):
        layout(OutputSpec("out", both))


def _mlx(tensor: TensorSpec) -> list[tuple[str, str, tuple[int, ...]]]:
    rows, columns = tensor.shape
    scales = (rows, columns // 64)
    return [(tensor.name, "U32", (rows, columns // 8)), *((f"{tensor.name}.{name}", "BF16", scales) for name in ("s", "b"))]


def test_another_format_names_planes_its_own_way_and_wider_elements_come_first():
    encoding = affine(4, 64, BF16)
    tensors = (TensorSpec("x", (3,), F16), TensorSpec("b", (2, 128), encoding), TensorSpec("a", (2, 128), encoding))
    spec = OutputSpec("out", tensors)
    (file,) = layout(spec, split=_mlx)
    assert list(json.loads(file.head[8:]))[1:] == ["b", "a", "x", "b.s", "b.b", "a.s", "a.b"]
    assert [(place.tensor, place.plane) for place in file.tensors] == [(1, 0), (2, 0), (0, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
    (file,) = layout(spec, split=_mlx, by_name=True)
    assert list(json.loads(file.head[8:]))[1:] == ["a", "b", "a.b", "a.s", "b.b", "b.s", "x"]


# Reading


BLOCKS, SCALES = entry("U8", [2, 3, 2, 16], 0, 192), entry("U8", [2, 3, 2], 192, 204)


def test_blocks_and_scales_are_one_tensor_in_the_place_of_the_blocks(tmp_path):
    path = put(
        tmp_path / "a.safetensors",
        {"w_blocks": BLOCKS, "w_scales": SCALES, "z_scales": entry("U8", [1], 204, 205)},
        bytes(205),
    )
    opened = FORMAT.open(path)
    start = path.stat().st_size - 205
    assert list(opened.tensors) == ["w_blocks", "z_scales"]
    extents = (Extent(path, start, 192), Extent(path, start + 192, 12))
    assert opened.tensors["w_blocks"] == TensorRef("w_blocks", (2, 3, 64), MXFP4, path, start, 204, planes=extents)


def test_blocks_and_scales_may_lie_in_different_shards(tmp_path):
    put(tmp_path / A, {"w_scales": entry("U8", [2, 3, 2], 0, 12)}, bytes(12))
    put(tmp_path / B, {"w_blocks": BLOCKS}, bytes(192))
    put_index(tmp_path / "model.safetensors.index.json", {"w_scales": A, "w_blocks": B})
    (ref,) = FORMAT.open(tmp_path).tensors.values()
    assert (ref.file.name, [plane.file.name for plane in ref.extents]) == (B, [B, A])


@pytest.mark.parametrize(
    ("scales", "fault"),
    [
        (None, "of MXFP4_PLANES, but there is no 'w_scales'"),
        (entry("U8", [2, 3, 3], 192, 210), r"which U8 \[2, 3, 3\] of scales do not fit"),
        (entry("U8", [12], 192, 204), r"which U8 \[12\] of scales do not fit"),
        (entry("F16", [2, 3, 2], 192, 216), r"which F16 \[2, 3, 2\] of scales do not fit"),
    ],
)
def test_blocks_without_fitting_scales_are_refused(scales, fault, tmp_path):
    header = {"w_blocks": BLOCKS} | ({"w_scales": scales} if scales else {})
    path = put(tmp_path / "a.safetensors", header, bytes(scales["data_offsets"][1] if scales else 192))
    with pytest.raises(DamagedInput, match=f"tensor 'w_blocks' holds blocks.*{fault}") as caught:
        FORMAT.open(path)
    assert caught.value.file == path


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("w_blocks", entry("I8", [2, 3, 2, 16], 0, 192)),
        ("w_blocks", entry("U8", [2, 3, 4, 8], 0, 192)),
        ("w_blocks", entry("U8", [12, 16], 0, 192)),
        ("w_blocks", entry("U8", [192], 0, 192)),
        ("w_block", BLOCKS),
    ],
)
def test_what_only_resembles_blocks_is_left_alone(name, described, tmp_path):
    path = put(tmp_path / "a.safetensors", {name: described, "w_scales": SCALES}, bytes(204))
    tensors = FORMAT.open(path).tensors
    assert {ref.name: (list(ref.shape), ref.encoding.name) for ref in tensors.values()} == {
        name: (described["shape"], described["dtype"]),
        "w_scales": ([2, 3, 2], "U8"),
    }
    assert not any(ref.planes for ref in tensors.values())
