"""Published models with vision at their full size, planned from headers alone: both files, and the way back.

tests/data/full_size_vision holds one compact table per model, as tests/data/full_size has for text models, with the image
processor's settings and the blocks of both parts. What is written from a table has true headers, and no weights on the disk.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import without_our_keys
from reference import DATA

from hubclient import Checkpoint
from hubclient.plan import Plan
from hubclient.testing.published import put_sparse

NAMES = sorted(path.stem for path in (DATA / "full_size_vision").glob("*.json"))
EACH = pytest.mark.parametrize("name", NAMES)
ROW = {"mistral-small-3.1-24b": 5120}  # elements of the row of [IMG_BREAK], which the projector repeats


def table(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / "full_size_vision" / f"{name}.json").read_text())
    return content


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape."""
    return dict(_shapes(table(name)))


def _shapes(content: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((name, tuple(shape)) for name, shape in content["tensors"].items())
    for block in content["blocks"]:
        for layer in range(block["count"]):
            for name, shape in block["tensors"].items():
                yield f"{block['name']}.{name}".replace("{i}", str(layer)), tuple(shape)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


def folder(name: str, disk: Path) -> Path:
    """The repository's folder."""
    path, content = disk / name, table(name)
    if not path.exists():
        path.mkdir()
        for file in (DATA / "golden" / "checkpoints" / content["tokenizer"]).iterdir():
            if file.name not in ("generation_config.json", "model.safetensors"):
                shutil.copyfile(file, path / file.name)
        (path / "config.json").write_text(json.dumps(content["config"]))
        (path / "preprocessor_config.json").write_text(json.dumps(content["preprocessor"]))
        put_sparse(path / "model.safetensors", {key: (content["dtype"], shape) for key, shape in shapes(name).items()})
    return path


def planned(name: str, disk: Path, kind: str) -> Plan:
    return Checkpoint.from_pretrained(folder(name, disk)).plan(disk / f"{name}-{kind}.gguf", format="gguf", type=kind)


def written(name: str, disk: Path) -> Path:
    """Both files, headers only; where the text part is."""
    for output in planned(name, disk, "f16").outputs:
        (layout,) = output.files
        output.path.write_bytes(layout.head)
        os.truncate(output.path, layout.size)
    return disk / f"{name}-f16.gguf"


@EACH
def test_the_table_has_as_many_parameters_as_the_repository(name: str):
    assert sum(math.prod(shape) for shape in shapes(name).values()) == table(name)["parameters"]


@pytest.mark.parametrize("kind", ["f32", "auto", "Q8_0"])
@EACH
def test_both_files_hold_every_element_once(name: str, kind: str, disk: Path):
    plan, omitted = planned(name, disk, kind), table(name).get("omitted", ())
    text, projector = plan.outputs
    assert projector.path.name == f"mmproj-{text.path.name}"
    assert set(plan.losses) == {f"tensor {key} has no place in GGUF" for key in omitted}
    steps = [*text.steps, *projector.steps]
    assert len({step.name for step in steps}) == len(steps)
    kept = sum(math.prod(shape) for key, shape in shapes(name).items() if key not in omitted)
    assert sum(math.prod(step.array.shape) for step in steps) == kept + ROW.get(name, 0)
    assert {key for key in shapes(name) if key not in omitted} == {
        leaf.ref.name for step in steps for leaf in step.array.leaves()
    }


@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "foreign"])
@EACH
def test_the_way_back_gives_the_published_names_shapes_and_config(name: str, ours: bool, disk: Path, tmp_path: Path):
    text = written(name, disk)
    if not ours:
        without_our_keys(text, tmp_path / text.name, sparse=True)
        shutil.copyfile(text.with_name(f"mmproj-{text.name}"), tmp_path / f"mmproj-{text.name}")
        text = tmp_path / text.name
    checkpoint = Checkpoint.from_pretrained(text)
    (output,) = checkpoint.plan(tmp_path / "back").outputs
    assert output.losses == ()
    omitted, config = table(name).get("omitted", ()), table(name)["config"]
    assert {step.name: step.array.shape for step in output.steps} == {
        key: shape for key, shape in shapes(name).items() if key not in omitted
    }
    if ours:
        assert checkpoint.config == config
        return
    assert checkpoint.config["architectures"] == config["architectures"]
    seen = checkpoint.config["vision_config"]
    assert all(seen.get(key, value) == value for key, value in config["vision_config"].items())
    for key in ("mm_tokens_per_image", "spatial_merge_size", "vision_feature_layer", "multimodal_projector_bias"):
        assert checkpoint.config.get(key, config.get(key)) == config.get(key), key
    settings = json.loads(checkpoint.model.files["preprocessor_config.json"])
    assert settings["image_mean"] == pytest.approx(table(name)["preprocessor"]["image_mean"])
    for key in ("size", "crop_size", "patch_size"):
        assert settings.get(key) == table(name)["preprocessor"].get(key), key


@EACH
def test_mlx_leaves_the_tower_out_and_says_so(name: str, disk: Path):
    (output,) = Checkpoint.from_pretrained(folder(name, disk)).plan(disk / f"{name}-mlx", format="mlx").outputs
    vision = {key for key in shapes(name) if key.startswith(("vision_tower.", "visual.", "multi_modal_projector."))}
    assert {loss for loss in output.losses if loss.startswith("tensor ")} == {
        f"tensor {key} has no place in MLX" for key in vision
    }
    assert len(output.steps) >= len(shapes(name)) - len(vision)
