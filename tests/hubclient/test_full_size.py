"""Real models at their published size, planned from headers alone: names, shapes, sizes and losses, both ways.

tests/data/full_size holds one compact table per model: config.json, the tensors, and those of one block. The files are
sparse: true headers at full size, no weights on the disk.
"""

from __future__ import annotations

import math
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from golden import without_our_keys
from reference import DATA

from hubclient import Checkpoint
from hubclient.architectures.language.config import normalise
from hubclient.architectures.language.typed import shortest_float32
from hubclient.formats.gguf import FORMAT
from hubclient.formats.tokenizers import is_tokenizer_file
from hubclient.model import Inline
from hubclient.plan import OutputPlan
from hubclient.testing.published import Extra, Published, load

FOLDER = DATA / "full_size"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def published(name: str) -> Published:
    """The model of one of NAMES."""
    return load(FOLDER / f"{name}.json")


def write(model: Published, folder: Path, *, extra: Extra | None = None) -> Path:
    """The repository's folder, sparse, with a golden's tokenizer of its kind."""
    known = (DATA / place / model.table["tokenizer"] for place in ("golden/checkpoints", "tokenizers"))
    tokenizer = next(path for path in known if path.is_dir())
    files = {path.name: path.read_bytes() for path in tokenizer.iterdir() if is_tokenizer_file(path.name)}
    return model.write(folder, files, extra)


def write_planned(output: OutputPlan, folder: Path) -> Path:
    """The files of a plan, sparse: headers, and of the tensors only those that are computed from the config."""
    folder.mkdir(exist_ok=True)
    paths: Sequence[Path] = [folder / path.name for path in output.paths()]
    for path, layout in zip(paths, output.files, strict=True):
        path.write_bytes(layout.head)
        os.truncate(path, layout.size)
    for step in output.steps:
        (leaf,) = list(step.array.leaves())[:1]
        if isinstance(leaf.ref, Inline):
            with paths[step.places[0].file].open("rb+") as file:
                file.seek(step.places[0].offset)
                file.write(leaf.ref.data)
    return paths[0]


MODELS = [pytest.param(published(name), id=name) for name in NAMES]
ROPE_FACTORS = {"llama-3.1-8b": (1, 64), "llama-3.1-70b": (1, 64), "phi-3-mini-128k": (2, 96)}  # derived tensors, elements
PREFIX = {"gpt2": "transformer.", "bloom-560m": "transformer."}
# What is F32 in every GGUF, beside vectors: positions, token types, routers, biases of stacked experts.
FLOATS = (
    "wpe.weight", "position_embeddings.weight", "token_type_embeddings.weight", "block_sparse_moe.gate.weight", "mlp.gate.weight",
    "router.weight", "_proj_bias", "A_log", "conv1d.weight",
)  # fmt: skip


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


def folder(model: Published, disk: Path) -> Path:
    path = disk / model.name
    return path if path.exists() else write(model, path)


def to_gguf(model: Published, disk: Path, kind: str) -> OutputPlan:
    plan = Checkpoint.from_pretrained(folder(model, disk)).plan(disk / f"{model.name}-{kind}.gguf", format="gguf", type=kind)
    (output,) = plan.outputs
    return output


def sizes(model: Published) -> tuple[int, int, int]:
    """Elements that GGUF keeps: in matrices, in blocks of MXFP4, and in what it keeps as F32."""
    left_out = model.dropped | {name.replace(".weight", ".gamma") for name in model.omitted} | model.omitted
    left_out |= {name.replace(".bias", ".beta") for name in model.omitted}
    unread = model.table.get("unread", {})  # first rows that GGUF does not keep
    shapes = {name: (shape[0] - unread.get(name, 0), *shape[1:]) for name, shape in model.read.items() if shape}
    kept = {name: math.prod(shape) for name, shape in shapes.items() if name not in left_out}
    blocks = sum(size for name, size in kept.items() if name.endswith("_blocks"))
    floats = sum(size for name, size in kept.items() if len(model.shapes[name]) == 1 or name.endswith(FLOATS))
    return sum(kept.values()) - blocks - floats, blocks, floats


def short_rows(model: Published) -> int:
    """Elements of matrices whose rows blocks of 32 cannot divide, so that they are F16 in a quantised file."""
    short = {name: shape for name, shape in model.read.items() if len(shape) == 2 and shape[1] % 32 and name not in model.dropped}
    return sum(math.prod(shape) for name, shape in short.items() if "norm" not in name and not name.endswith(FLOATS))


def canonical(model: Published) -> set[str]:
    """Full names in today's spelling, without what GGUF does not keep."""
    older = {"gamma": "weight", "beta": "bias"}
    names = set()
    for name in model.read.keys() - model.dropped:
        head, _, last = name.rpartition(".")
        names.add(PREFIX.get(model.name, "") + f"{head}.{older.get(last, last)}")
    return names - model.omitted


@pytest.mark.parametrize("model", MODELS)
def test_the_table_has_as_many_parameters_as_the_repository(model: Published):
    assert sum(math.prod(shape) for shape in model.shapes.values()) == model.table["parameters"]


@pytest.mark.parametrize("kind", ["f32", "auto", "Q8_0"])
@pytest.mark.parametrize("model", MODELS)
def test_the_plan_for_gguf_has_every_tensor_in_its_size(model: Published, kind: str, disk: Path):
    output = to_gguf(model, disk, kind)
    matrices, blocks, floats = sizes(model)
    width = {"f32": 4.0, "auto": 2.0, "Q8_0": 34 / 32}[kind]
    expected = (
        matrices * width
        + short_rows(model) * max(2 - width, 0)
        + blocks * 17 / 32
        + 4 * (floats + ROPE_FACTORS.get(model.name, (0, 0))[1])
    )
    assert sum(step.nbytes for step in output.steps) == expected
    assert len({step.name for step in output.steps}) == len(output.steps)
    assert output.size >= max(place.offset + place.nbytes for step in output.steps for place in step.places)
    sources = {leaf.ref.name for step in output.steps for leaf in step.array.leaves()}
    assert len(sources) == len(canonical(model)) + ROPE_FACTORS.get(model.name, (0, 0))[0]


@pytest.mark.parametrize("model", MODELS)
def test_what_has_no_place_in_gguf_is_listed(model: Published, disk: Path):
    output = to_gguf(model, disk, "auto")
    assert set(output.losses) == {f"tensor {name} has no place in GGUF" for name in model.omitted} | model.losses
    assert set(output.dropped) == {PREFIX.get(model.name, "") + name for name in model.dropped}


@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "foreign"])
@pytest.mark.parametrize("model", MODELS)
def test_the_way_back_gives_the_published_names_shapes_and_config(model: Published, ours: bool, disk: Path, tmp_path: Path):
    gguf = write_planned(to_gguf(model, disk, "auto"), tmp_path)
    if not ours:
        gguf = header_without_our_keys(gguf)
    checkpoint = Checkpoint.from_pretrained(gguf)
    plan = checkpoint.plan(tmp_path / "back", format="safetensors")
    (output,) = plan.outputs
    assert output.losses == ()
    found = {step.name: step.array.shape for step in output.steps}
    if ours:
        expected = {name: shape for name, shape in model.read.items() if name not in model.dropped}
        expected = {name: shape for name, shape in expected.items() if today(name, model) not in model.omitted}
        assert found == expected
        assert checkpoint.config == model.config
    else:
        architecture, hf_class = checkpoint.model.architecture, checkpoint.model.hf_class
        bare = architecture.prefix if architecture.headless(hf_class) else ""  # BertModel: heads have no place in GGUF
        assert found.keys() == {name.removeprefix(bare) for name in canonical(model)}
        config = normalise(model.config, architecture.defaults, architecture.aliases)
        for key in ("hidden_size", "n_embd", architecture.blocks, "head_dim", "vocab_size"):
            assert checkpoint.model.config.get(key) == config.get(key), key
        assert (checkpoint.model.config.get("rope_parameters") or {}) == as_float32(config.get("rope_parameters") or {})
    assert output.size > sum(step.nbytes for step in output.steps) > 0


def as_float32(value: Any) -> Any:
    """Numbers as GGUF holds them, in as few digits as say so."""
    match value:
        case float():
            return shortest_float32(value)
        case list():
            return [as_float32(item) for item in value]
        case dict():
            return {key: as_float32(item) for key, item in value.items()}
    return value


def today(name: str, model: Published) -> str:
    head, _, last = name.rpartition(".")
    return PREFIX.get(model.name, "") + f"{head}.{ {'gamma': 'weight', 'beta': 'bias'}.get(last, last) }"


def header_without_our_keys(source: Path) -> Path:
    """As golden.without_our_keys, for a file whose tensors are holes."""
    target = source.with_name("foreign.gguf")
    without_our_keys(source, target, sparse=True)
    return target


def test_old_files_hold_position_ids_which_are_no_weights(disk: Path, tmp_path: Path):
    model = published("bert-base-uncased")
    source = write(model, tmp_path / "old", extra={"bert.embeddings.position_ids": ("I64", (1, 512))})
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "old.gguf", format="gguf")
    assert plan.outputs[0].dropped == ("bert.embeddings.position_ids",)
    assert len(plan.losses) == len(model.omitted)


def test_thirty_shards_of_a_seventy_billion_model_are_planned_in_little_memory(disk: Path):
    model = published("llama-3.1-70b")
    source = folder(model, disk)
    assert len(list(source.glob("*.safetensors"))) == 30
    to_gguf(model, disk, "bf16")  # what is imported on the way does not count
    tracemalloc.start()
    try:
        plan = Checkpoint.from_pretrained(source).plan(disk / "little.gguf", format="gguf", type="bf16")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan.outputs[0].size > 141_000_000_000
    assert peak < 300e6  # most of it room for a tokenizer.json of the largest size that is read


def test_a_planned_gguf_can_be_split(disk: Path, tmp_path: Path):
    model = published("llama-3.1-8b")
    checkpoint = Checkpoint.from_pretrained(folder(model, disk))
    (output,) = checkpoint.plan(tmp_path / "split.gguf", format="gguf", max_shard_size=2_000_000_000).outputs
    assert len(output.files) == 9
    assert all(file.size < 2_100_000_000 for file in output.files)
    first = write_planned(output, tmp_path)
    opened = FORMAT.open(first)
    assert len(opened.tensors) == len(output.steps)
