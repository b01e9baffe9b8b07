"""The vision part of a model in GGUF: a file of its own beside that of the text part, as llama.cpp reads it (mmproj)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Slice, reshaped
from hubclient.architectures.language.config import normalise
from hubclient.architectures.language.entries import Fixed
from hubclient.architectures.language.expressions import lookup
from hubclient.architectures.language.pairs import backward, forward
from hubclient.errors import DamagedInput, UnmappedTensor, UsageError
from hubclient.formats.gguf import PROJECTOR
from hubclient.formats.gguf.storage import FILE_TYPES, QUANTIZATION_VERSION, stored_type
from hubclient.formats.model import OpenedCheckpoint, OutputSpec, TensorSpec, Value
from hubclient.formats.tokenizers.added import all_added
from hubclient.model import Model, Request, Target, display_name, leaf
from hubclient.spokes import rebuild
from hubclient.spokes.matching import converted, located, lost, match, omitted
from hubclient.spokes.storage import converted_type

if TYPE_CHECKING:
    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.declaration import Architecture

SPACE = "mmproj"
_TYPE = "projector_type"
_APART = "--only text leaves it out, as does another name than mmproj- and the text part's"
_PREPARED = ("image_mean", "image_std")


def split(model: Model) -> tuple[dict[str, Array], dict[str, Array]]:
    """A model's tensors: those of the text part, those of the vision part."""
    if SPACE not in model.architecture.layouts:
        return dict(model.tensors), {}
    vision = {name: array for name, array in model.tensors.items() if belongs(model.architecture, name)}
    return {name: array for name, array in model.tensors.items() if name not in vision}, vision


def belongs(architecture: Architecture, name: str) -> bool:
    """Whether a Hugging Face tensor is of the vision part, and not of the text part in the file beside it."""
    return architecture.knows(SPACE, name) and not architecture.knows("gguf", name)


def refuse_without(model: Model) -> None:
    """UnmappedTensor for a folder whose config.json tells of a vision part that it does not hold."""
    stated = model.raw_config.get("vision_config")
    if SPACE in model.architecture.layouts and model.opened.format == "safetensors" and isinstance(stated, Mapping):
        raise UnmappedTensor(
            f"{model.opened.path}: holds no tensor of the vision part that config.json tells of (vision_config)",
            hint="--only text converts the text part alone",
        )


def write(model: Model, request: Request) -> Target:
    """The file of the vision part; UnmappedTensor if the model has none. No recipe speaks of it: it stays in 16 bits then."""
    architecture, path = model.architecture, model.opened.path
    label, wanted = converted_type(model, request.type)
    _, tensors = split(model)
    if not tensors:
        raise UnmappedTensor(f"{path}: holds no tensor of a vision part, so there is no projector to write")
    _check_config(model)
    matching = located(model.opened, lambda: match(architecture, SPACE, tensors, "hf", model.config, str(path)))
    shapes = {name: array.shape for name, array in tensors.items()}
    located(model.opened, lambda: rebuild.check_shapes(architecture, model.config, shapes, complete=True))
    arrays = located(model.opened, lambda: {**converted(matching, tensors, model.config, "hf"), **_rows(model)})
    specs = tuple(TensorSpec(name, array.shape, stored_type(name, array.shape, wanted)) for name, array in arrays.items())
    name = architecture.name_in(SPACE)
    metadata = {"general.architecture": Value("str", name), "general.type": Value("str", SPACE)}
    metadata["general.name"] = Value("str", display_name(path))
    pairs = located(model.opened, lambda: forward(architecture.projector, model.config, name))
    metadata.update((key, Value(*typed)) for key, typed in pairs.items())
    metadata["general.file_type"] = Value("u32", FILE_TYPES[wanted.name])
    metadata["general.quantization_version"] = Value("u32", QUANTIZATION_VERSION)
    losses = rebuild.assumption_losses(architecture.projector_assumed, model.config)
    losses += omitted(matching, "GGUF") + lost(matching)
    spec = OutputSpec(display_name(path), specs, metadata, {}, request.max_shard_size)
    return Target(spec, tuple(arrays.values()), label, losses=tuple(losses), dropped=matching.dropped, before=PROJECTOR)


def _check_config(model: Model) -> None:
    """What a reader of the file cannot do without must be there."""
    path = model.opened.path
    if not isinstance(model.raw_config.get("vision_config"), Mapping):
        config = model.opened.sidecars.get("config.json", path)
        raise DamagedInput(f"{config}: has no vision_config, though there are tensors of a vision part", file=config)
    lacking = [key for key in _PREPARED if lookup(model.config, f"preprocessor.{key}") is None]
    if lacking:
        fault = "lacks" if "preprocessor" in model.config else "is missing; it should have"
        told = f"preprocessor_config.json {fault} {' and '.join(lacking)}, without which no image can be prepared"
        raise DamagedInput(
            f"{path}: {told}", hint="copy it from the model's repository; --only text converts the text part alone"
        )


def _rows(model: Model) -> dict[str, Array]:
    """The vectors that repeat a token's row of an embedding."""
    return {name: _row(model, *source) for name, source in model.architecture.token_rows.items()}


def _row(model: Model, embedding: str, token: str) -> Array:
    tokenizer, path = model.tokenizer, model.opened.path
    added = all_added(tokenizer, None) if tokenizer is not None and tokenizer.document is not None else {}
    index = next((index for index, item in added.items() if item.content == token), None)
    if index is None:
        raise DamagedInput(f"{path}: its tokenizer has no token {token}, whose embedding belongs into the projector")
    array = model.tensors.get(embedding)
    if array is None or len(array.shape) != 2 or index >= array.shape[0]:
        raise UnmappedTensor(
            f"{path}: {embedding} has no row for the token {token}, which belongs into the projector", [embedding]
        )
    return reshaped(Slice(array, index, (1, array.shape[1])), (array.shape[1],))


def is_one(opened: OpenedCheckpoint) -> bool:
    """Whether a file holds the vision part of a model."""
    kind = opened.metadata.get("general.type")
    return kind is not None and kind.value == SPACE


def joined(text: OpenedCheckpoint, vision: OpenedCheckpoint) -> OpenedCheckpoint:
    """The two files of a model as one checkpoint. UsageError if they are not one of each kind."""
    if text.format != "gguf":
        raise UsageError(
            f"{text.path}: is of the format {text.format}, which has no projectors of their own; --projector is for GGUF"
        )
    refuse_alone(text)
    if not is_one(vision):
        raise UsageError(f"{vision.path}: is no projector (general.type is not {SPACE}), so it cannot follow --projector")
    return text.with_companion(vision)


def refuse_alone(opened: OpenedCheckpoint) -> None:
    """UsageError for a file that holds a vision part and is to be read as a model."""
    if is_one(opened):
        raise UsageError(
            f"{opened.path}: is the vision part of a model without its text part",
            hint=f"name the file of the text part, and this one with --projector {opened.path}",
        )


def told(architecture: Architecture, companion: OpenedCheckpoint | None) -> dict[str, Any]:
    """What the vision part's metadata tells of the config; sizes of the tower that it has no key for are the usual ones."""
    if companion is None or SPACE not in architecture.layouts:
        return {}
    found = located(companion, lambda: backward(architecture.projector, companion.metadata, architecture.name_in(SPACE)))
    usual = {key: value for key, value in architecture.defaults.items() if key.startswith("vision_config.")}
    found = normalise(found, usual)
    return {key: value for key, value in found.items() if value is not None}


def read(
    architecture: Architecture, companion: OpenedCheckpoint | None, config: Mapping[str, Any], vision: Mapping[str, Any]
) -> dict[str, Array]:
    """The vision part's tensors under Hugging Face names; DamagedInput if the two files are not of one model.

    `config` is what the text part told, `vision` what the vision part did (see `told`).
    """
    if companion is None:
        return {}
    path = companion.path
    if SPACE not in architecture.layouts or _type_of(companion) not in types_of([architecture]):
        raise DamagedInput(f"{path}: is no vision part for the architecture {architecture.name}; {_APART}", file=path)
    for key in vision.keys() & config.keys():
        if vision[key] != config[key]:
            fault = f"belongs to a text part with {key} {shown(vision[key])}, while this one has {shown(config[key])}"
            raise DamagedInput(f"{path}: {fault}; {_APART}", file=path)
    whole = {**config, **vision}
    stored = {name: leaf(ref) for name, ref in companion.tensors.items()}
    matching = located(companion, lambda: match(architecture, SPACE, stored, "target", whole, str(path)))
    tensors = located(companion, lambda: converted(matching, stored, whole, "target"))
    check_shapes(architecture, companion, whole, tensors)
    return tensors


def check_shapes(
    architecture: Architecture, companion: OpenedCheckpoint, config: Mapping[str, Any], tensors: Mapping[str, Array]
) -> None:
    """DamagedInput if the vision part's tensors contradict the config."""
    shapes = {name: array.shape for name, array in tensors.items()}
    located(companion, lambda: rebuild.check_shapes(architecture, config, shapes, complete=False))


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
