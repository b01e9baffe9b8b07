"""Round trips through several formats: HF -> X -> Y -> HF gives the same folder, but for elements that a hop says do not come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import Golden, goldens, tensors

from hubclient import Checkpoint
from hubclient.checkpoint import run
from hubclient.plugins import get_host

TYPE = {"gguf": "f32", "mlx": "auto", "safetensors": "auto"}
PATHS = (("mlx",), ("gguf", "mlx"), ("mlx", "gguf"), ("gguf", "gguf"), ("mlx", "mlx"))
# Vision towers have no place in MLX folders, as mlx-lm has none for them; that is a listed loss and not asked for here.
ALL = [golden for golden in goldens() if "vision_config" not in golden.config and not golden.unpacked]


def takes(golden: Golden, space: str) -> bool:
    (architecture,) = get_host().architectures("hf", golden.config["architectures"][0])
    return space in architecture.layouts


EACH = [
    pytest.param(golden, path, id=f"{golden.name}-{'-'.join(path)}")
    for golden in ALL
    for path in PATHS
    if all(takes(golden, space) for space in path)
]


def walked(source: Path, path: tuple[str, ...], folder: Path) -> tuple[Path, int, str]:
    """The folder at the end of the path, how many elements the hops say would not come back, and what they say is lost."""
    current, changed, said = source, 0, ""
    for number, space in enumerate((*path, "safetensors")):
        out = folder / f"{number}{'.gguf' if space == 'gguf' else ''}"
        plan = Checkpoint.from_pretrained(current).plan(out, format=space, type=TYPE[space])
        said += "\n".join((*plan.losses, *plan.outputs[0].dropped))
        for kept in run(plan).tensors[0].values():
            assert kept.fidelity != "quantised"
            changed += kept.changed if kept.changed is not None else kept.elements
        current = out
    return current, changed, said


@pytest.mark.parametrize(("golden", "path"), EACH)
def test_the_same_folder_comes_back(golden: Golden, path: tuple[str, ...], tmp_path: Path):
    back, changed, said = walked(golden.checkpoint, path, tmp_path)
    before, after = tensors(golden.checkpoint), tensors(back)
    assert {name for name in before if name not in said} <= after.keys() <= before.keys()
    for name in after:
        assert (after[name].dtype, after[name].shape) == (before[name].dtype, before[name].shape)
    unlike = [name for name in after if name not in said and after[name].data != before[name].data]
    assert sum(int((before[name].values != after[name].values).sum()) for name in unlike) <= changed
    assert bool(unlike) <= bool(changed)
    assert json.loads((back / "config.json").read_text()) == golden.config


def test_every_direction_between_three_formats(tmp_path: Path):
    (golden,) = (golden for golden in ALL if golden.name == "llama")
    at = {"safetensors": golden.checkpoint}
    for space in ("gguf", "mlx"):
        (at[space],) = Checkpoint.from_pretrained(golden.checkpoint).save_pretrained(
            tmp_path / (f"llama.{space}" if space == "gguf" else space), format=space, type=TYPE[space]
        )
    before = tensors(golden.checkpoint)
    for source, path in at.items():
        for target in at:
            (out,) = Checkpoint.from_pretrained(path).save_pretrained(
                tmp_path / f"{source}-{target}{'.gguf' if target == 'gguf' else ''}", format=target, type=TYPE[target]
            )
            (back,) = Checkpoint.from_pretrained(out).save_pretrained(tmp_path / f"{source}-{target}-back")
            after = tensors(back)
            assert {name: tensor.data for name, tensor in after.items()} == {name: tensor.data for name, tensor in before.items()}
