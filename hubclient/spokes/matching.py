"""A model's tensors through an architecture's layout for a format, either way; and faults that name file and tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.expressions import Expr, evaluate
from hubclient.architectures.language.layouts import Bound, Matching
from hubclient.architectures.language.tables import Side
from hubclient.errors import DamagedInput, UnmappedTensor
from hubclient.formats.encodings import in_safetensors
from hubclient.formats.model import Encoding, OpenedCheckpoint
from hubclient.ground.names import shown
from hubclient.model import encodings_of

if TYPE_CHECKING:
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.model import Model

T = TypeVar("T")
_LONG = 100  # characters of a tensor's name in a message
_NO_RULE = "docs/add-an-architecture.md shows how a package of your own declares an architecture, with a rule for every tensor"
_NO_TENSOR = "the checkpoint is incomplete, or of another architecture or number of blocks than its config says"


def match(
    architecture: Architecture, space: str, tensors: Mapping[str, Array], side: Side, config: Mapping[str, Any], where: str
) -> Matching:
    """These tensors' names sorted under the rules of the layout for `space`.

    Raises UnmappedTensor or DamagedInput unless all is there, and nothing too much.
    """
    if not tensors:
        return Matching((), (), (), (), ())  # a config or vocabulary alone; whoever needs tensors says so
    counts = architecture.counts(config)
    layout = architecture.layouts[space]
    asked = encodings(tensors) if layout.asks_encodings else None
    shapes = {name: array.shape for name, array in tensors.items()} if side == "target" else None
    matching = layout.match(tensors, side, counts, config, asked, shapes)
    if matching.unmatched:
        told = _several(where, matching.unmatched, f"no rule in the architecture {architecture.name}")
        raise UnmappedTensor(told, matching.unmatched, hint=_NO_RULE)
    if matching.missing:
        told = _several(where, matching.missing, "no tensor", f"which the architecture {architecture.name} needs")
        raise UnmappedTensor(told, matching.missing, hint=_NO_TENSOR)
    if matching.surplus:
        raise DamagedInput(f"{where}: has {_some(matching.surplus)}, which a model of this config does not have")
    for capture, layer in _captured(matching):
        if layer >= counts.get(capture, layer + 1):
            counted: Expr = architecture.repeats.get(capture, architecture.blocks)
            evaluate(counted, config)  # which says what is wrong with a number that is none
            raise DamagedInput(
                f"{where}: has tensors of block {layer}, but says that it has {counts[capture]} blocks ({counted})"
            )
    return matching


def _captured(matching: Matching) -> list[tuple[str, int]]:
    """All numbers of blocks, by the captures that they stand for, in order."""
    return sorted({item for captures in {bound.captures for bound in matching.bound} for item in captures})


def converted(matching: Matching, tensors: Mapping[str, Array], config: Mapping[str, Any], side: Side) -> dict[str, Array]:
    """The arrays on the other side: `side` is where `tensors` are. DamagedInput names the tensors that do not fit."""
    arrays: dict[str, Array] = {}
    for bound in matching.bound:
        inputs = tuple([tensors[name] for name in bound.inputs])
        transform = bound.rule.transform
        try:
            outputs = transform.forward(inputs, config) if side == "hf" else transform.backward(inputs, config)
        except DamagedInput as error:
            raise _named(bound, error) from None
        arrays.update(zip(bound.outputs, outputs, strict=True))
    return arrays


def packed(matching: Matching) -> dict[str, Encoding]:
    """The Hugging Face tensors behind lines for packed tensors alone, with the encoding that they have there."""
    return {
        name: encoding
        for bound in matching.bound
        if bound.rule.stored and (encoding := in_safetensors(bound.rule.stored))
        for name in bound.outputs
    }


def as_if_stored(model: Model, wanted: Encoding) -> dict[str, Array]:
    """A model's tensors as Hugging Face names and shapes them in another encoding than the one they are packed in.

    Where a layout has lines for packed tensors and others for plain ones, a tensor goes through the one and comes back
    through the other.
    """
    layout = next((layout for layout in model.architecture.layouts.values() if layout.asks_encodings), None)
    tensors = dict(model.tensors)
    if layout is None:
        return tensors
    there = layout.match(tensors, "hf", {}, model.config, encodings(tensors))
    packed = [bound for bound in there.bound if bound.rule.stored and wanted.name not in bound.rule.stored]
    if not packed:
        return tensors
    targets = converted(replace(there, bound=tuple(packed)), tensors, model.config, "hf")
    back = layout.match(targets, "target", {}, model.config, dict.fromkeys(targets, wanted.name))
    for bound in packed:
        for name in bound.inputs:
            del tensors[name]
    return tensors | converted(back, targets, model.config, "target")


def omitted(matching: Matching, place: str) -> list[str]:
    """A sentence for each tensor that a format has no place for."""
    return [f"tensor {name} has no place in {place}" for name in matching.omitted]


def lost(matching: Matching) -> list[str]:
    """A sentence for each tensor of which something does not come back."""
    return [f"{', '.join(b.inputs[:3])}: {b.rule.transform.loss}" for b in matching.bound if b.rule.transform.loss]


def encodings(tensors: Mapping[str, Array]) -> dict[str, str]:
    """What each tensor is stored in; empty where an array is made of several."""
    own = {name: encodings_of(array) for name, array in tensors.items()}
    return {name: found.pop().name for name, found in own.items() if len(found) == 1}


def located(opened: OpenedCheckpoint, make: Callable[[], T]) -> T:
    """`make()`; its DamagedInput names the file at fault: the config for what is wrong there, else the checkpoint."""
    try:
        return make()
    except DamagedInput as error:
        if error.file is not None:
            raise
        config = opened.sidecars.get("config.json") if error.message.startswith("config: ") else None
        raise DamagedInput(error.message, file=config or opened.path, tensor=error.tensor) from None


def _several(where: str, names: tuple[str, ...], lack: str, because: str = "") -> str:
    some = _some(names)
    if because:
        return f"{where}: {lack} named {some}, {because}"
    return f"{where}: {lack} for {len(names)} tensor{'s' if len(names) > 1 else ''}: {some}"


def _some(names: tuple[str, ...]) -> str:
    some = ", ".join(name if len(name) <= _LONG else shown(name) for name in names[:3])
    return some + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _named(bound: Bound, error: DamagedInput) -> DamagedInput:
    """A fault about the shapes of a rule's tensors, naming them; one about the config stays as it is."""
    if error.message.startswith("config: "):
        return error
    return DamagedInput(f"{', '.join(bound.inputs)}: {error.message}", tensor=bound.inputs[0])
