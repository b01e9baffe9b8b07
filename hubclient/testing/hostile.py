"""Checks that wrong checkpoints are refused, in one sentence that names what is wrong, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient import Checkpoint
from hubclient.errors import DamagedInput, HubclientError, UnmappedTensor
from hubclient.testing.bench import Subject
from hubclient.testing.conversions import converted
from hubclient.testing.faults import refuse, require
from hubclient.testing.names import matched

if TYPE_CHECKING:
    from hubclient.formats.model import TensorRef
    from hubclient.testing.synthetic import Synthetic

Tensors = Mapping[str, "TensorRef"]


def missing(subject: Subject, folder: Path) -> None:
    """Without any one of the tensors that a model must have, nothing is planned, and the tensor is named."""
    model, checkpoint = _opened(subject, folder)
    for name in _required(subject, model):
        file_name = model.file_name(name)
        tensors = {other: ref for other, ref in checkpoint.opened.tensors.items() if other != file_name}
        _refused(
            subject, checkpoint, tensors, name.removeprefix(subject.architecture.prefix), f"{name} is missing", UnmappedTensor
        )


def wrong_shape(subject: Subject, folder: Path) -> None:
    """A tensor of another shape than `shapes` or its transform asks for is refused by name; others cannot be noticed."""
    model, checkpoint = _opened(subject, folder)
    stored = checkpoint.opened.tensors
    undeclared = {file for file, _ in _files(model, model.undeclared)}
    for name in _required(subject, model):
        ref = stored.get(model.file_name(name))
        if ref is None or ref.planes or ref.name in undeclared:
            continue
        wider = replace(ref, shape=(*ref.shape[:-1], ref.shape[-1] + 1))
        tail = name.removeprefix(subject.architecture.prefix)
        _refused(subject, checkpoint, {**stored, ref.name: wider}, tail, f"{name} is a column wider", DamagedInput)


def stranger(subject: Subject, folder: Path) -> None:
    """A tensor that no line covers is refused by name."""
    model, checkpoint = _opened(subject, folder)
    some = next(iter(checkpoint.opened.tensors.values()))
    name = f"{subject.architecture.prefix}quite.unheard_of.weight"
    tensors = {**checkpoint.opened.tensors, model.file_name(name): replace(some, name=model.file_name(name))}
    _refused(subject, checkpoint, tensors, "quite.unheard_of", f"{name} is there", UnmappedTensor)


def block_too_many(subject: Subject, folder: Path) -> None:
    """A block more than the config counts is refused."""
    model, checkpoint = _opened(subject, folder)
    count = model.counts["i"]
    layout = subject.architecture.layouts[subject.space]
    further = {
        pattern.name({**dict.fromkeys(pattern.captures, 0), "i": count}): model.file_name(pattern.name({**dict.fromkeys(pattern.captures, 0), "i": 0}))
        for rule in layout.rules for pattern in rule.hf if "i" in pattern.captures and not rule.stored
    }  # fmt: skip
    stored = checkpoint.opened.tensors
    more = {
        model.file_name(name): replace(stored[first], name=model.file_name(name))
        for name, first in further.items()
        if first in stored
    }
    if more:
        _refused(
            subject,
            checkpoint,
            {**stored, **more},
            str(count),
            f"block {count} is there and the config counts {count}",
            HubclientError,
        )


def truncated(subject: Subject, folder: Path) -> None:
    """Weights without their last byte are refused, before the conversion and after it."""
    model, checkpoint = _opened(subject, folder)
    out, _ = converted(subject, checkpoint.opened.path, subject.space)
    for path in (checkpoint.opened.path, out[0]):
        extents = (
            extent
            for ref in Checkpoint.from_pretrained(path, host=subject.host).opened.tensors.values()
            for extent in ref.extents
        )
        last = max(extents, key=lambda extent: extent.offset + extent.nbytes)
        os.truncate(last.file, last.offset + last.nbytes - 1)  # behind it there may be padding
        try:
            Checkpoint.from_pretrained(path, host=subject.host)
        except DamagedInput as error:
            require(path.name in str(error), f"truncated weights are refused without naming {path.name}: {error}")
        else:
            refuse(f"the {model.variant} model's {path.name} is opened although its last byte is missing")


def _opened(subject: Subject, folder: Path) -> tuple[Synthetic, Checkpoint]:
    """A checkpoint with what a model must have, opened."""
    model = subject.models[1]
    return model, Checkpoint.from_pretrained(subject.write(model, folder / model.variant), host=subject.host)


def _required(subject: Subject, model: Synthetic) -> Iterator[str]:
    """The tensors that the layout must find."""
    for bound in matched(subject, model, model.names_in(subject.space), "hf").bound:
        yield from bound.inputs


def _files(model: Synthetic, patterns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Names in files, and full names, of the tensors of some patterns."""
    from hubclient.architectures.language.patterns import Pattern, template

    wanted = {Pattern.of(text).template for text in patterns}
    return ((model.file_name(name), name) for name in model.shapes if template(name)[0] in wanted)


def _refused(
    subject: Subject,
    checkpoint: Checkpoint,
    tensors: Tensors,
    named: str,
    fault: str,
    kind: type[HubclientError] | Callable[..., object],
) -> None:
    altered = Checkpoint(replace(checkpoint.opened, tensors=tensors), subject.host)
    try:
        altered.plan(checkpoint.opened.path.parent / "refused", format=subject.space)
    except HubclientError as error:
        require(isinstance(error, kind), f"{fault}, which is refused as {type(error).__name__}: {error}")  # type: ignore[arg-type]
        require(named in str(error), f"{fault}, which is refused without naming it: {error}")
    else:
        refuse(f"{fault}, and a conversion is planned all the same")
