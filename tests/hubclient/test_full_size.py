"""Real models at their published size, planned from headers alone: names, shapes, sizes and losses, both ways."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import pytest
from fullsize import NAMES, Published, published, write_planned
from golden import without_our_keys

from hubclient import Checkpoint
from hubclient.architectures.config import normalise
from hubclient.formats.gguf import FORMAT
from hubclient.plan import OutputPlan

MODELS = [pytest.param(published(name), id=name) for name in NAMES]
ROPE_FACTORS = {"llama-3.1-8b": 64, "llama-3.1-70b": 64}  # elements of rope_freqs.weight
PREFIX = {"gpt2": "transformer."}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


def folder(model: Published, disk: Path) -> Path:
    path = disk / model.name
    return path if path.exists() else model.write(path)


def to_gguf(model: Published, disk: Path, kind: str) -> OutputPlan:
    plan = Checkpoint.from_pretrained(folder(model, disk)).plan(disk / f"{model.name}-{kind}.gguf", format="gguf", type=kind)
    (output,) = plan.outputs
    return output


def sizes(model: Published) -> tuple[int, int]:
    """Elements that GGUF keeps, in matrices and in the rest."""
    left_out = model.dropped | {name.replace(".weight", ".gamma") for name in model.omitted} | model.omitted
    left_out |= {name.replace(".bias", ".beta") for name in model.omitted}
    kept = {name: shape for name, shape in model.shapes.items() if name not in left_out}
    matrices = sum(math.prod(shape) for shape in kept.values() if len(shape) > 1)
    return matrices, sum(math.prod(shape) for shape in kept.values()) - matrices


def canonical(model: Published) -> set[str]:
    """Full names in today's spelling, without what GGUF does not keep."""
    older = {"gamma": "weight", "beta": "bias"}
    names = set()
    for name in model.shapes.keys() - model.dropped:
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
    matrices, rest = sizes(model)
    f32_matrices = {"gpt2": 1024 * 768, "bert-base-uncased": (512 + 2) * 768}.get(model.name, 0)  # positions and token types
    width = {"f32": 4.0, "auto": 2.0, "Q8_0": 34 / 32}[kind]
    expected = (matrices - f32_matrices) * width + 4 * (f32_matrices + rest + ROPE_FACTORS.get(model.name, 0))
    assert sum(step.nbytes for step in output.steps) == expected
    assert len({step.name for step in output.steps}) == len(output.steps)
    assert output.size >= max(step.offset + step.nbytes for step in output.steps)
    assert sum(len(list(step.array.leaves())) for step in output.steps) == len(canonical(model)) + (model.name in ROPE_FACTORS)


@pytest.mark.parametrize("model", MODELS)
def test_what_has_no_place_in_gguf_is_listed(model: Published, disk: Path):
    output = to_gguf(model, disk, "auto")
    assert set(output.losses) == {f"tensor {name} has no place in GGUF" for name in model.omitted}
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
        expected = {name: shape for name, shape in model.shapes.items() if name not in model.dropped}
        expected = {name: shape for name, shape in expected.items() if today(name, model) not in model.omitted}
        assert found == expected
        assert checkpoint.config == model.config
    else:
        bare = "bert." if model.name.startswith("bert") else ""  # BertModel, without the heads that GGUF cannot hold
        assert found.keys() == {name.removeprefix(bare) for name in canonical(model)}
        config = normalise(model.config, checkpoint.model.architecture.defaults)
        for key in ("hidden_size", "n_embd", "num_hidden_layers", "n_layer", "head_dim", "rope_parameters", "vocab_size"):
            assert checkpoint.model.config.get(key) == config.get(key), key
    assert output.size > sum(step.nbytes for step in output.steps) > 0


def today(name: str, model: Published) -> str:
    head, _, last = name.rpartition(".")
    return PREFIX.get(model.name, "") + f"{head}.{ {'gamma': 'weight', 'beta': 'bias'}.get(last, last)}"


def header_without_our_keys(source: Path) -> Path:
    """As golden.without_our_keys, for a file whose tensors are holes."""
    target = source.with_name("foreign.gguf")
    without_our_keys(source, target, sparse=True)
    return target


def test_old_files_hold_position_ids_which_are_no_weights(disk: Path, tmp_path: Path):
    model = published("bert-base-uncased")
    source = model.write(tmp_path / "old", extra={"bert.embeddings.position_ids": ("I64", (1, 512))})
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
