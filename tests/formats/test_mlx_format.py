"""MLX folders: what is laid out opens again equal, and what is not packed as config.json says is refused by name."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawsafetensors import entry, materialise, put

from hubclient.errors import DamagedInput, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import AFFINE_BITS, AFFINE_GROUPS, BF16, ENCODINGS, F16, F32, affine
from hubclient.formats.mlx import FORMAT
from hubclient.formats.mlx.packing import PACKINGS, Packing, Quantization, named, read_quantization, write_quantization
from hubclient.formats.mlx.writer import MAX_SHARD_SIZE, layout
from hubclient.formats.model import Format, OutputSpec, TensorRef, TensorSpec, Value
from hubclient.formats.safetensors import FORMAT as SAFETENSORS

Q4 = affine(4, 64, BF16)
U32 = ENCODINGS["U32"]
GLOBAL = {"group_size": 64, "bits": 4, "mode": "affine"}
CONFIG = Path("config.json")

PACKED = st.sampled_from([ENCODINGS[name] for name in PACKINGS])
PLAIN = st.sampled_from([F32, F16, BF16, ENCODINGS["U8"]])


@st.composite
def tensors(draw) -> TensorSpec:
    module, encoding = f"a.{draw(st.integers(0, 20))}", draw(PACKED | PLAIN)
    rows = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    if encoding.planes:
        return TensorSpec(f"{module}.weight", (*rows, draw(st.integers(1, 3)) * encoding.block), encoding)
    return TensorSpec(f"{module}.bias", (*rows, draw(st.integers(0, 3))), encoding)


SPECS = st.builds(
    OutputSpec,
    name=st.just("out"),
    tensors=st.lists(tensors(), min_size=1, max_size=6, unique_by=lambda tensor: tensor.name).map(tuple),
    metadata=st.just({"hubclient.checkpoint": Value("str", "{}")}),
    max_shard_size=st.none() | st.integers(1, 500),
)


def planes(tensor: TensorSpec) -> tuple[bytes, ...]:
    """Distinct bytes for each plane of a tensor."""
    shares = tensor.encoding.planes or (tensor.encoding.block_bytes,)
    blocks = tensor.nbytes // sum(shares)
    return tuple(hashlib.shake_128(f"{tensor.name} {index}".encode()).digest(blocks * size) for index, size in enumerate(shares))


def held(ref: TensorRef) -> tuple[bytes, ...]:
    return tuple(plane.file.read_bytes()[plane.offset : plane.offset + plane.nbytes] for plane in ref.extents)


def packings(spec: OutputSpec) -> dict[str, Packing]:
    return {t.name.removesuffix(".weight"): PACKINGS[t.encoding.name][0] for t in spec.tensors if t.encoding.planes}


def folder(
    path: Path, quantization: Any = GLOBAL, *, shapes: Mapping[str, tuple[str, list[int]]] | None = None, **more: Any
) -> Path:
    """A folder with a packed matrix of 2 x 128 and a norm, or with other tensors: name -> dtype and shape."""
    parts = {
        "lin.weight": ("U32", [2, 16]),
        "lin.scales": ("BF16", [2, 2]),
        "lin.biases": ("BF16", [2, 2]),
        "norm.weight": ("BF16", [128]),
    }
    parts |= shapes or {}
    header, end = {"__metadata__": {"format": "mlx"}}, 0
    for name, (dtype, shape) in parts.items():
        if shape:
            size = ENCODINGS[dtype].nbytes(shape)
            header[name] = entry(dtype, shape, end, end + size)
            end += size
    put(path / "model.safetensors", header, bytes(end))
    config = {"model_type": "llama", **({} if quantization is None else {"quantization": quantization}), **more}
    (path / "config.json").write_text(json.dumps(config))
    return path


def refusal(path: Path, kind: type[Exception] = DamagedInput) -> str:
    with pytest.raises(kind) as caught:
        FORMAT.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mlx_is_a_format():
    assert isinstance(FORMAT, Format) and FORMAT.name == "mlx" and FORMAT.folder


@given(SPECS)
def test_what_is_laid_out_opens_again_equal(spec):
    data = [planes(tensor) for tensor in spec.tensors]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        materialise(path, layout(spec), data)
        said = write_quantization(packings(spec), Packing("affine", 4, 64), ())
        (path / "config.json").write_text(json.dumps({"quantization": said, "quantization_config": said}))
        opened = FORMAT.open(path)
        assert FORMAT.detect(path) and opened.format == "mlx"
        found = {ref.name: (ref.shape, ref.encoding, ref.nbytes, held(ref)) for ref in opened.tensors.values()}
    assert found == {t.name: (t.shape, t.encoding, t.nbytes, own) for t, own in zip(spec.tensors, data, strict=True)}
    assert opened.metadata == {"format": Value("str", "mlx"), **spec.metadata}


@given(SPECS)
def test_the_index_names_every_plane_and_counts_numbers(spec):
    files = {file.name: file for file in layout(spec)}
    index = json.loads(files["model.safetensors.index.json"].head)
    weights = [file for file in files.values() if file.tensors]
    assert index["metadata"]["total_size"] == sum(place.nbytes for file in weights for place in file.tensors)
    with tempfile.TemporaryDirectory() as name:
        materialise(Path(name), list(files.values()))
        heads = {file.name: SAFETENSORS.open(Path(name, file.name)).tensors for file in weights}
    assert index["weight_map"] == {name: file for file, tensors in heads.items() for name in tensors}
    assert list(index["weight_map"]) == sorted(index["weight_map"])


def test_parameters_are_counted_as_mlx_lm_counts_them():
    """Those of modules without sub-modules, packed ones by their numbers."""
    spec = OutputSpec(
        "out",
        (
            TensorSpec("model.layers.0.attn.q.weight", (8, 64), Q4),
            TensorSpec("model.layers.0.attn.q.bias", (8,), BF16),
            TensorSpec("model.layers.0.attn.sinks", (4,), BF16),
            TensorSpec("model.norm.weight", (64,), BF16),
        ),
    )
    (index,) = (file.head for file in layout(spec) if file.name == "model.safetensors.index.json")
    assert json.loads(index)["metadata"]["total_parameters"] == 8 * 64 + 8 + 64
    assert index.decode().startswith('{\n    "metadata"') and not index.endswith(b"\n")


def test_there_is_an_index_for_a_single_file_and_none_without_weights():
    one = OutputSpec("out", (TensorSpec("a.weight", (4, 64), Q4),), sidecars={"config.json": b"{}"})
    assert [file.name for file in layout(one)] == ["model.safetensors", "model.safetensors.index.json", "config.json"]
    assert [file.name for file in layout(OutputSpec("out", (), sidecars={"config.json": b"{}"}))] == ["config.json"]


def test_shards_begin_where_five_gibibytes_are_full():
    half = TensorSpec("a.weight", (MAX_SHARD_SIZE // 4, 1), BF16)
    spec = OutputSpec("out", (half, TensorSpec("b.weight", half.shape, BF16), TensorSpec("c.weight", (1,), BF16)))
    sizes = [len(file.tensors) for file in layout(spec) if file.tensors]
    assert sizes == [2, 1]


def test_planes_have_names_only_behind_weight():
    with pytest.raises(UnsupportedEncoding, match=r"'a\.bias' cannot be AFFINE4_G64_BF16"):
        layout(OutputSpec("out", (TensorSpec("a.bias", (2, 64), Q4),)))


# Telling MLX's folders from others


def test_a_folder_is_mlx_by_what_its_weights_say(tmp_path):
    assert FORMAT.detect(
        folder(tmp_path / "a", None, shapes={f"lin.{part}": ("", []) for part in ("weight", "scales", "biases")})
    )
    assert FORMAT.detect(tmp_path / "a" / "model.safetensors")


def test_a_folder_is_mlx_by_its_quantization_and_names(tmp_path):
    path = folder(tmp_path / "a")
    raw = (path / "model.safetensors").read_bytes().replace(b'"mlx"', b'"pt" ')
    (path / "model.safetensors").write_bytes(raw)
    assert FORMAT.detect(path) and FORMAT.open(path).tensors["lin.weight"].encoding == Q4


def test_a_transformers_folder_is_not_mlx(tmp_path):
    path = folder(tmp_path / "a", None)
    raw = (path / "model.safetensors").read_bytes().replace(b'"mlx"', b'"pt" ')
    (path / "model.safetensors").write_bytes(raw)
    assert not FORMAT.detect(path) and SAFETENSORS.detect(path)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(8) + b"[1]", b"\xff" * 40, b"\2\0\0\0\0\0\0\0{}"])
def test_detection_never_raises_on_odd_content(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_bytes(content)
    assert not FORMAT.detect(tmp_path)
    assert not FORMAT.detect(tmp_path / "absent") and not FORMAT.detect(tmp_path / "config.json")


# What does not fit

NONE: tuple[str, list[int]] = ("", [])


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"lin.scales": NONE}, "tensor 'lin.weight' is packed, but there is no tensor 'lin.scales'"),
        ({"lin.biases": NONE}, "tensor 'lin.weight' is packed, but there is no tensor 'lin.biases'"),
        ({"lin.weight": NONE}, "tensor 'lin.scales' are scales, but there is no tensor 'lin.weight'"),
        ({"lin.weight": ("BF16", [2, 128])}, "tensor 'lin.weight' is BF16, but it has scales, or config.json says"),
        ({"lin.weight": ("U32", [2, 17])}, "tensor 'lin.weight' has the shapes [2, 17] of words and [2, 2] of scales, which do not fit"),
        ({"lin.weight": ("U32", [3, 16])}, "tensor 'lin.weight' has the shapes [3, 16] of words"),
        ({"lin.weight": ("U32", [16])}, "tensor 'lin.weight' has the shapes [16] of words"),
        ({"lin.scales": ("BF16", [2, 4]), "lin.biases": ("BF16", [2, 4])}, "4 bits in groups of 64, as config.json says"),
        ({"lin.scales": ("U8", [2, 2])}, "tensor 'lin.scales' is U8 where scales are F32, F16 or BF16"),
        ({"lin.biases": ("F16", [2, 2])}, "tensor 'lin.biases' is F16 [2, 2], but 'lin.scales' is BF16 [2, 2]"),
        ({"lin.biases": ("BF16", [2, 1])}, "tensor 'lin.biases' is BF16 [2, 1], but 'lin.scales' is BF16 [2, 2]"),
    ],
)  # fmt: skip
def test_planes_that_do_not_fit_are_refused(tmp_path, shapes, told):
    assert told in refusal(folder(tmp_path / "a", shapes=shapes))


@pytest.mark.parametrize(
    ("quantization", "told"),
    [
        (None, "tensor 'lin.weight' is packed, but config.json has no quantization"),
        (4, "quantization is 4 where an object is needed"),
        ({**GLOBAL, "bits": 8}, "which do not fit 8 bits in groups of 64"),
        ({**GLOBAL, "bits": 7}, "bits is 7, which MLX does not have in mode affine (it has 2, 3, 4, 5, 6, 8)"),
        ({**GLOBAL, "bits": True}, "bits is True, which MLX does not have"),
        ({**GLOBAL, "group_size": 16}, "group_size is 16, which MLX does not have in mode affine (it has 32, 64, 128)"),
        ({**GLOBAL, "group_size": 10**30}, "which MLX does not have"),
        ({**GLOBAL, "mode": "nf4"}, "mode is 'nf4', which MLX does not have"),
        ({**GLOBAL, "mode": []}, "mode is [], which MLX does not have"),
        ({"mode": "mxfp4", "group_size": 64, "bits": 4}, "group_size is 64, which MLX does not have in mode mxfp4 (it has 32)"),
        ({"mode": "mxfp4", "group_size": 32, "bits": 4}, "tensor 'lin.scales' is BF16 where the scales of mode mxfp4 are U8"),
        ({**GLOBAL, "lin": False}, "tensor 'lin.weight' is packed, but config.json says that it is not quantised"),
        ({**GLOBAL, "lin": {"bits": 3}}, "which do not fit 3 bits in groups of 64"),
        ({**GLOBAL, "lin": {"bits": 1}}, "quantization of 'lin': bits is 1"),
        ({**GLOBAL, "gone": {"bits": 8}}, "quantization of 'gone': there is no tensor 'gone.weight'"),
        ({**GLOBAL, "norm": {"bits": 8}}, "tensor 'norm.weight' is BF16, but it has scales, or config.json says"),
    ],
)  # fmt: skip
def test_a_quantization_that_does_not_fit_is_refused(tmp_path, quantization, told):
    assert told in refusal(folder(tmp_path / "a", quantization))


def test_two_quantizations_that_contradict_each_other_are_refused(tmp_path):
    path = folder(tmp_path / "a", quantization_config={**GLOBAL, "bits": 8})
    assert "contradicts itself: 'bits' is 4 in quantization and 8 in quantization_config" in refusal(path)
    FORMAT.open(folder(tmp_path / "b", quantization_config=GLOBAL))
    FORMAT.open(folder(tmp_path / "c", quantization_config="int4"))


def test_biases_have_no_place_in_other_modes(tmp_path):
    shapes = {"lin.weight": ("U32", [2, 16]), "lin.scales": ("U8", [2, 4])}
    told = refusal(folder(tmp_path / "a", {"mode": "mxfp4"}, shapes=shapes))
    assert "tensor 'lin.biases' has no place: there are no biases in mode mxfp4" in told
    opened = FORMAT.open(folder(tmp_path / "b", {"mode": "mxfp4"}, shapes={**shapes, "lin.biases": NONE}))
    assert opened.tensors["lin.weight"].shape == (2, 128) and opened.tensors["lin.weight"].encoding.name == "MXFP4_PLANES"


def test_a_global_scale_is_refused(tmp_path):
    shapes = {"lin.weight": ("U32", [2, 16]), "lin.scales": ("U8", [2, 8]), "lin.biases": NONE, "lin.global_scale": ("F32", [2])}
    assert "lin.weight has a global scale" in refusal(
        folder(tmp_path / "a", {"mode": "nvfp4"}, shapes=shapes), UnsupportedEncoding
    )


def test_an_override_without_a_mode_is_affine_whatever_the_rest_is(tmp_path):
    opened = FORMAT.open(folder(tmp_path / "a", {"mode": "mxfp8", "lin": {"group_size": 64, "bits": 4}}))
    assert opened.tensors["lin.weight"].encoding == Q4


def test_other_entries_and_absent_modules_that_are_not_quantised_do_no_harm(tmp_path):
    path = folder(tmp_path / "a", {**GLOBAL, "quant_method": "mlx", "vision": False, "embed": True})
    assert FORMAT.open(path).tensors["lin.weight"].encoding == Q4


# The names of types


def test_names_of_packings():
    assert {named(f"{bits}bit", None) for bits in AFFINE_BITS} == {Packing("affine", bits, 64) for bits in AFFINE_BITS}
    assert {named("4Bit", group) for group in AFFINE_GROUPS} == {Packing("affine", 4, group) for group in AFFINE_GROUPS}
    assert named("MXFP4", None) == named("mxfp4", 32) == Packing("mxfp4", 4, 32)
    assert named("bf16", None) is None
    assert FORMAT.encoding("4bit") == Q4 and FORMAT.encoding("float16") == F16


@pytest.mark.parametrize(
    ("name", "group", "kind", "told"),
    [
        ("7bit", None, UnsupportedEncoding, "MLX has no type '7bit'; made here are f32, f16, bf16, 2bit, 3bit"),
        ("4bit", 48, UsageError, "MLX has groups of 32, 64, 128, not of 48"),
        ("mxfp4", 64, UsageError, "mxfp4 has groups of 32, not of 64"),
    ],
)
def test_packings_that_mlx_does_not_have(name, group, kind, told):
    with pytest.raises(kind, match=told.replace("(", r"\(")):
        named(name, group)


@pytest.mark.parametrize("name", ["Q8_0", "int8", "affine", "4 bit", "bit", "-4bit", ""])
def test_types_that_mlx_does_not_have(name):
    with pytest.raises(UnsupportedEncoding, match="MLX has no type"):
        FORMAT.encoding(name)


PACKING = st.sampled_from([packing for packing, _ in PACKINGS.values()])


@given(st.dictionaries(st.sampled_from("abcdef"), PACKING), PACKING, st.sets(st.sampled_from("abcdef")))
def test_a_written_quantization_reads_back(packed, default, forced):
    forced = {module for module in forced if packed.get(module, default).mode == "affine"}
    found = read_quantization({"quantization": write_quantization(packed, default, forced)}, CONFIG)
    assert isinstance(found, Quantization)
    assert {module: found.of(module) for module in packed} == packed
