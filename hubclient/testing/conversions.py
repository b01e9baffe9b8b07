"""Checks from end to end: a made-up checkpoint on disk goes to every format and back, and comes back exact, or it is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient import Checkpoint
from hubclient.architectures.language.expressions import lookup
from hubclient.checkpoint import run
from hubclient.testing import folders
from hubclient.testing.bench import Subject
from hubclient.testing.configs import alike, plainly_kept
from hubclient.testing.faults import require
from hubclient.testing.made_up import ASIDE

if TYPE_CHECKING:
    from hubclient.testing.folders import Stored
    from hubclient.testing.synthetic import Synthetic

_FORMATS = {"gguf": ".gguf", "mlx": "-mlx"}
_CLOSE = 1e-5  # of values that are computed on the way


def exact(subject: Subject, folder: Path) -> None:
    """To the format and back: tensors, config.json and tokenizer are what they were, but for what the plan said."""
    for model in subject.models:
        source = subject.write(model, folder / model.variant)
        out, said = converted(subject, source, subject.space)
        back, more = converted(subject, out[0], "safetensors")
        _same_tensors(folders.read(source), folders.read(back[0]), _meant(model, {*said, *more}))
        _same_files(source, back[0])
        surprising = [
            sentence for sentence in said if " " in sentence and not any(part in sentence for part in _expected(subject))
        ]
        require(not surprising, f"a model as the declaration describes it loses something: {'; '.join(surprising[:3])}")


def exact_or_said(subject: Subject, folder: Path) -> None:
    """The same where our own keys are missing: equal values under the same names, and the config values that pairs keep."""
    for model in subject.models:
        source = subject.write(model, folder / model.variant)
        out, said = converted(subject, source, subject.space)
        foreign = folders.stripped(out, folder / f"{model.variant}-foreign")
        back, more = converted(subject, foreign[0], "safetensors")
        _same_values(folders.read(source), folders.read(back[0]), _meant(model, {*said, *more}))
        _same_config(subject, source, back[0])


def all_ways(subject: Subject, folder: Path) -> None:
    """From every format to every other, itself among them: Hugging Face tensors at the end are those at the beginning."""
    model = subject.kept
    source = subject.write(model, folder / "model")
    before = folders.read(source)
    spaces = [space for space in _FORMATS if space in subject.architecture.layouts]
    for first in spaces:
        out, said = converted(subject, source, first)
        for second in spaces:
            further, more = converted(subject, out[0], second, name=f"{first}-{second}")
            back, rest = converted(subject, further[0], "safetensors")
            _same_tensors(before, folders.read(back[0]), _meant(model, {*said, *more, *rest}))
    again, _ = converted(subject, source, "safetensors", name="again")
    _same_tensors(before, folders.read(again[0]), set())


def recognised(subject: Subject, folder: Path) -> None:
    """A file of this declaration without our keys is read as this declaration, or as the look-alike that it names."""
    architecture = subject.architecture
    for model in subject.models:
        source = subject.write(model, folder / model.variant)
        out, _ = converted(subject, source, subject.space)
        foreign = folders.stripped(out, folder / f"{model.variant}-foreign")
        found = Checkpoint.from_pretrained(foreign[0], host=subject.host).model.architecture.name
        expected = {architecture.name, architecture.look_alike}
        require(found in expected, f"a file of {architecture.name} is read as {found}; `when` and `look_alike` tell them apart")


def converted(subject: Subject, source: Path, space: str, name: str = "") -> tuple[list[Path], set[str]]:
    """A checkpoint in another format beside it: the paths; names of what can be recomputed, and sentences on what was lost."""
    target = source.parent / ((name or source.name.removesuffix(".gguf")) + _FORMATS.get(space, "-back"))
    checkpoint = Checkpoint.from_pretrained(source, host=subject.host)
    plan = checkpoint.plan(target, format=space)
    dropped = {name for output in plan.outputs for name in output.dropped}
    return list(run(plan).paths), {*plan.losses, *dropped}


def _expected(subject: Subject) -> Iterator[str]:
    """What the sentences on losses hold that the declaration itself decides: omitted tensors, transforms, what tensors imply."""
    yield "has no place in"
    yield from (f"config: {key} is " for key in subject.architecture.implied)
    yield from (
        loss for layout in subject.architecture.layouts.values() for rule in layout.rules if (loss := rule.transform.loss)
    )


def _meant(model: Synthetic, said: Iterable[str]) -> set[str]:
    """The tensors, by their names in files, that sentences are about."""
    words = {word for sentence in said for word in sentence.replace(",", " ").replace(":", " ").split()}
    return {model.file_name(name) for name in words & model.shapes.keys()}


def _same_tensors(before: Mapping[str, Stored], after: Mapping[str, Stored], meant: set[str]) -> None:
    """The same names, dtypes and bytes, but for tensors that something was said of."""
    _same_names(before, after, meant)
    for name in after.keys() - meant:
        one, two = before[name], after[name]
        require(one[:2] == two[:2], f"{name} is {one}, and comes back as {two}")
        require(one.data == two.data, f"{name} comes back with other values")


def _same_values(before: Mapping[str, Stored], after: Mapping[str, Stored], meant: set[str]) -> None:
    """The same names, shapes and numbers, whatever dtypes hold them."""
    import numpy as np

    _same_names(before, after, meant)
    for name in after.keys() - meant:
        one, two = before[name], after[name]
        require(one.shape == two.shape, f"{name} is {one}, and comes back as {two}")
        require(np.allclose(one.values, two.values, atol=_CLOSE, rtol=0), f"{name} comes back with other values")


def _same_names(before: Mapping[str, Stored], after: Mapping[str, Stored], meant: set[str]) -> None:
    lost = [name for name in before if name not in after and name not in meant]
    require(not lost, f"{', '.join(lost[:3])} of {len(lost)} tensors is lost, and nothing is said of it")
    new = [name for name in after if name not in before]
    require(not new, f"{', '.join(new[:3])} of {len(new)} tensors was not there before")


def _same_files(source: Path, back: Path) -> None:
    one, two = folders.config_in(source), folders.config_in(back)
    differing = [key for key in {**one, **two} if one.get(key) != two.get(key)]
    told = ", ".join(f"{key} is {one.get(key)!r:.50} and comes back as {two.get(key)!r:.50}" for key in differing[:3])
    require(not differing, f"config.json: {told}")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        require(json.loads((back / name).read_bytes()) == json.loads((source / name).read_bytes()), f"{name} differs")


def _same_config(subject: Subject, source: Path, back: Path) -> None:
    """Of the config values that pairs are about none comes back as another."""
    one, two = (Checkpoint.from_pretrained(path, host=subject.host).model.config for path in (source, back))
    for path in plainly_kept(subject.architecture.config, one, "any"):
        if path.partition(".")[0] not in ASIDE:
            before, after = lookup(one, path), lookup(two, path)
            require(alike(before, after), f"{path} is {before!r:.60} and comes back as {after!r:.60}")
