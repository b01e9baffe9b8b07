"""The vision part of a model in GGUF: a file of its own beside that of the text part, as llama.cpp reads it (mmproj)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hubclient.architectures.config import normalise
from hubclient.architectures.pairs import Fixed, backward, forward
from hubclient.errors import DamagedInput, UnmappedTensor, UsageError
from hubclient.formats.gguf import PROJECTOR
from hubclient.formats.gguf.storage import FILE_TYPES, QUANTIZATION_VERSION, stored_type
from hubclient.formats.model import Encoding, OpenedCheckpoint, OutputSpec, TensorSpec, Value
from hubclient.model import Model, Request, Target, display_name, leaf
from hubclient.spokes.matching import converted, located, lost, match

if TYPE_CHECKING:
    from hubclient.architectures.arrays import Array
    from hubclient.architectures.declaration import Architecture

SPACE = "mmproj"
_TYPE = "projector_type"


def split(model: Model) -> tuple[dict[str, Array], dict[str, Array]]:
    """A model's tensors: those of the text part, those of the vision part."""
    layouts = model.architecture.layouts
    if SPACE not in layouts:
        return dict(model.tensors), {}
    vision = {
        name: array
        for name, array in model.tensors.items()
        if layouts[SPACE].knows(name, "hf") and not layouts["gguf"].knows(name, "hf")
    }
    return {name: array for name, array in model.tensors.items() if name not in vision}, vision


def write(model: Model, request: Request, label: str, wanted: Encoding) -> Target:
    """The file of the vision part; UnmappedTensor if the model has none."""
    architecture, path = model.architecture, model.opened.path
    _, tensors = split(model)
    if not tensors:
        raise UnmappedTensor(f"{path}: has no vision part, so there is no projector to write", hint="--only text leaves it out")
    matching = located(model.opened, lambda: match(architecture, SPACE, tensors, "hf", model.config, str(path)))
    arrays = located(model.opened, lambda: converted(matching, tensors, model.config, "hf"))
    specs = tuple(TensorSpec(name, array.shape, stored_type(name, array.shape, wanted)) for name, array in arrays.items())
    name = architecture.name_in(SPACE)
    metadata = {"general.architecture": Value("str", name), "general.type": Value("str", SPACE)}
    metadata["general.name"] = Value("str", display_name(path))
    pairs = located(model.opened, lambda: forward(architecture.projector, model.config, name))
    metadata.update((key, Value(*typed)) for key, typed in pairs.items())
    metadata["general.file_type"] = Value("u32", FILE_TYPES[wanted.name])
    metadata["general.quantization_version"] = Value("u32", QUANTIZATION_VERSION)
    losses = [f"tensor {name} has no place in GGUF" for name in matching.omitted] + lost(matching)
    spec = OutputSpec(display_name(path), specs, metadata, {}, request.max_shard_size)
    return Target(spec, tuple(arrays.values()), label, losses=tuple(losses), dropped=matching.dropped, before=PROJECTOR)


def refuse_alone(opened: OpenedCheckpoint) -> None:
    """UsageError for a file that holds a vision part and is to be read as a model."""
    kind = opened.metadata.get("general.type")
    if kind is not None and kind.value == SPACE:
        raise UsageError(
            f"{opened.path}: is the vision part of a model without its text part",
            hint=f"name the file of the text part, and this one with --projector {opened.path}",
        )


def told(architecture: Architecture, companion: OpenedCheckpoint | None) -> dict[str, Any]:
    """What the vision part's metadata tells of the config; sizes of the tower that it has no key for are the usual ones."""
    if companion is None:
        return {}
    found = located(companion, lambda: backward(architecture.projector, companion.metadata, architecture.name_in(SPACE)))
    usual = {key: value for key, value in architecture.defaults.items() if key.startswith("vision_config.")}
    found = normalise(found, usual)
    return {key: value for key, value in found.items() if value is not None}


def read(architecture: Architecture, companion: OpenedCheckpoint | None, config: Mapping[str, Any]) -> dict[str, Array]:
    """The vision part's tensors under Hugging Face names; DamagedInput if the two files are not of one model."""
    if companion is None:
        return {}
    if SPACE not in architecture.layouts or _type_of(companion) not in types_of([architecture]):
        raise DamagedInput(f"{companion.path}: is no vision part for the architecture {architecture.name}", file=companion.path)
    stored = {name: leaf(ref) for name, ref in companion.tensors.items()}
    matching = located(companion, lambda: match(architecture, SPACE, stored, "target", config, str(companion.path)))
    return located(companion, lambda: converted(matching, stored, config, "target"))


def fitting(candidates: Iterable[Architecture], companion: OpenedCheckpoint) -> list[Architecture]:
    """Those of several declarations whose vision part is of the companion's type."""
    return [item for item in candidates if _type_of(companion) in types_of([item])]


def types_of(architectures: Iterable[Architecture]) -> set[str]:
    """The projector types that declarations write."""
    entries = (entry for item in architectures for entry in item.projector)
    return {entry.value for entry in entries if isinstance(entry, Fixed) and entry.key == _TYPE}


def _type_of(companion: OpenedCheckpoint) -> Any:
    for key in ("clip.projector_type", "clip.vision.projector_type"):
        if key in companion.metadata:
            return companion.metadata[key].value
    return None
