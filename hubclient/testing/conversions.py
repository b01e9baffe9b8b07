"""Checks from end to end: a made-up checkpoint on disk goes to every format and back, and comes back exact, or it is said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient import Checkpoint
from hubclient.architectures.expressions import lookup
from hubclient.testing import folders
from hubclient.testing.bench import Subject, require

if TYPE_CHECKING:
    from hubclient.testing.folders import Stored
    from hubclient.testing.synthetic import Synthetic

_FORMATS = {"gguf": ".gguf", "mlx": "-mlx"}
_CLOSE = 1e-5


def exact(subject: Subject, folder: Path) -> None:
    """To the format and back: tensors, config.json and tokenizer are what they were, but for what the plan said."""
    for model in subject.models:
        source = folders.write(model, folder / model.variant)
        out, losses, dropped = converted(subject, source, subject.space)
        back, more, _ = converted(subject, out[0], "safetensors")
        gone = _gone(model, (*losses, *more), dropped)
        same_tensors(folders.read(source), folders.read(back[0]), gone, losses)
        require(folders.config_in(back[0]) == folders.config_in(source), f"config.json differs in {_differing(source, back[0])}")
        for name in folders.tokenizer():
            require((back[0] / name).read_bytes() == (source / name).read_bytes(), f"{name} differs")
        require(not [loss for loss in losses if "no place" not in loss and "never reads" not in loss], f"lost on the way: {'; '.join(losses)}")


def exact_or_said(subject: Subject, folder: Path) -> None:
    """The same where our own keys are missing: equal values under the same names, and the config values that pairs keep."""
    for model in subject.models:
        source = folders.write(model, folder / model.variant)
        out, losses, dropped = converted(subject, source, subject.space)
        foreign = folders.stripped(out, folder / f"{model.variant}-foreign")
        back, more, _ = converted(subject, foreign[0], "safetensors")
        gone = _gone(model, (*losses, *more), dropped)
        same_values(folders.read(source), folders.read(back[0]), gone)
        _same_config(subject, source, back[0])


def all_ways(subject: Subject, folder: Path) -> None:
    """From every format to every other, itself among them: Hugging Face tensors at the end are those at the beginning."""
    model = subject.models[0]
    source = folders.write(model, folder / "model")
    spaces = [space for space in _FORMATS if space in subject.architecture.layouts]
    for first in spaces:
        for second in spaces:
            said: list[str] = []
            path, left = source, set()
            for number, space in enumerate((first, second, "safetensors")):
                out, losses, dropped = converted(subject, path, space, name=f"{first}-{second}-{number}")
                path, said, left = out[0], [*said, *losses], {*left, *dropped}
            same_tensors(folders.read(source), folders.read(path), _gone(model, said, left), said)
    again, _, _ = converted(subject, source, "safetensors", name="again")
    same_tensors(folders.read(source), folders.read(again[0]), set(), ())


def recognised(subject: Subject, folder: Path) -> None:
    """A file of this declaration without our keys is read as this declaration, or as the look-alike that it names."""
    architecture = subject.architecture
    expected = {architecture.name, architecture.look_alike}
    for model in subject.models:
        source = folders.write(model, folder / model.variant)
        out, _, _ = converted(subject, source, subject.space)
        foreign = folders.stripped(out, folder / f"{model.variant}-foreign")
        found = Checkpoint.from_pretrained(foreign[0], host=subject.host).model.architecture.name
        require(found in expected, f"a file of {architecture.name} is read as {found}; `when` and `look_alike` tell them apart")


def converted(subject: Subject, source: Path, space: str, name: str = "") -> tuple[list[Path], tuple[str, ...], tuple[str, ...]]:
    """A checkpoint in another format beside it: the paths, what was lost, what can be recomputed."""
    suffix = _FORMATS.get(space, "-back")
    target = source.parent / f"{name or source.name.removesuffix('.gguf')}{suffix}"
    checkpoint = Checkpoint.from_pretrained(source, host=subject.host)
    plan = checkpoint.plan(target, format=space)
    written = checkpoint.save_pretrained(target, format=space)
    return list(written), plan.losses, tuple(name for output in plan.outputs for name in output.dropped)


def same_tensors(before: Mapping[str, Stored], after: Mapping[str, Stored], gone: set[str], said: Sequence[str]) -> None:
    """The same names, dtypes and bytes, but for tensors that are `gone` and those that a sentence in `said` is about."""
    _same_names(before, after, gone)
    for name, tensor in after.items():
        if not any(name in loss for loss in said):
            require(tensor[:2] == before[name][:2], f"{name} is {_described(before[name])}, and comes back as {_described(tensor)}")
            require(tensor.data == before[name].data, f"{name} comes back with other values")


def same_values(before: Mapping[str, Stored], after: Mapping[str, Stored], gone: set[str]) -> None:
    """The same names, shapes and numbers, whatever dtypes hold them."""
    import numpy as np

    bare = _renamed(before, after)
    _same_names(bare, after, gone | {name for other in gone for name in (other, _tail(other, bare))})
    for name, tensor in after.items():
        require(tensor.shape == bare[name].shape, f"{name} is {_described(bare[name])}, and comes back as {_described(tensor)}")
        close = np.allclose(_floats(tensor), _floats(bare[name]), atol=_CLOSE, rtol=0)
        require(close, f"{name} comes back with other values")


def _gone(model: Synthetic, losses: Sequence[str], dropped: Sequence[str] | set[str]) -> set[str]:
    """The tensors that the plans said would not be there, or not as they were."""
    return {*dropped, *(name for name in model.shapes if any(f" {name} " in f" {loss.replace(',', ' ').replace(':', ' ')} " for loss in losses))}


def _same_names(before: Mapping[str, Stored], after: Mapping[str, Stored], gone: set[str]) -> None:
    lost = [name for name in before if name not in after and name not in gone]
    require(not lost, f"{', '.join(lost[:3])} of {len(lost)} tensors lost, and nothing is said of it")
    new = [name for name in after if name not in before]
    require(not new, f"{', '.join(new[:3])} of {len(new)} tensors that were not there before")
