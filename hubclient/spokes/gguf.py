"""The GGUF spoke: tensor names and shapes through the architecture's layout, config as metadata, the tokenizer as keys.

This is the way out; the way in is `gguf_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.config import difference
from hubclient.architectures.language.layouts import Layout, Matching
from hubclient.architectures.language.pairs import forward
from hubclient.errors import DamagedInput, UnmappedTensor, UnsupportedArchitecture
from hubclient.formats.encodings import F32
from hubclient.formats.gguf.storage import QUANTIZATION_VERSION
from hubclient.formats.model import OutputSpec, TensorRef, TensorSpec, Value
from hubclient.ground.strictjson import parse_json
from hubclient.model import Inline, Model, Request, Target, display_name, leaf
from hubclient.spokes import carried as own
from hubclient.spokes import projector, rebuild
from hubclient.spokes.exact import main_dtype, values_of
from hubclient.spokes.gguf_in import read
from hubclient.spokes.matching import converted, located, lost, match, omitted
from hubclient.spokes.packed import refuse_unread
from hubclient.spokes.storage import RECORDED, Storage, store

RECIPES = True  # a type may be a recipe, and tensors may be chosen types

_SIZE = "general.size_label"

__all__ = ["parts", "read", "write"]


def parts(model: Model, request: Request) -> tuple[Request, ...]:
    """The text part, and the vision part where a model has one: two files."""
    if request.only is not None:
        return (request,)
    if projector.split(model)[1]:
        return replace(request, only="text"), replace(request, only="projector")
    projector.refuse_without(model)
    return (request,)


def write(model: Model, request: Request) -> Target:
    """A GGUF file of this model's text part, or of its vision part, its tokenizer or its config alone."""
    if request.only == "tokenizer":
        return _tokenizer_alone(model, request)
    if "gguf" not in model.architecture.layouts:
        raise UnsupportedArchitecture(f"{model.architecture.name} has no GGUF layout", model.architecture.name)
    refuse_unread(model)
    if request.only == "projector":
        return projector.write(model, request)
    layout, (tensors, _) = model.architecture.layouts["gguf"], projector.split(model)
    matching = located(
        model.opened, lambda: match(model.architecture, "gguf", tensors, "hf", model.config, str(model.opened.path))
    )
    if not tensors and request.only != "config":
        part = " of a text part" if request.only == "text" else ""
        raise UnmappedTensor(f"{model.opened.path}: holds no tensors{part}", hint="--only tokenizer and --only config need none")
    shapes = {name: array.shape for name, array in tensors.items()}
    located(model.opened, lambda: rebuild.check_sizes(model.architecture, model.config, shapes))
    located(model.opened, lambda: rebuild.check_shapes(model.architecture, model.config, shapes, complete=True))
    check_head(model)
    arrays = located(model.opened, lambda: {**_derived(layout, model), **converted(matching, tensors, model.config, "hf")})
    keys = _config_keys(model)
    stored = store(model, request, arrays, keys)
    specs = tuple(TensorSpec(name, array.shape, stored.encodings[name]) for name, array in arrays.items())
    metadata, losses = _described(model, keys, stored)
    if model.opened.format != "gguf" or own.CHECKPOINT_KEY in model.opened.metadata:  # else it never said more than it can
        losses += rebuild.assumption_losses(model.architecture.assumed, model.config)
    losses += omitted(matching, "GGUF")
    losses += lost(matching)
    if request.only != "config":
        metadata.update(_tokenizer_keys(model, request))
    extra, more = _carried(model, matching, metadata, request)
    metadata.update(extra)
    losses += more
    label = stored.label
    if request.only == "config":
        label, specs, arrays = request.only, (), {}
    name = display_name(model.opened.path)
    spec = OutputSpec(name, specs, metadata, {}, request.max_shard_size, _parts_of(model, arrays))
    return Target(
        spec, tuple(arrays.values()), label, losses=tuple(losses), dropped=matching.dropped,
        importance=stored.importance, notes=stored.notes,
    )  # fmt: skip


def _parts_of(model: Model, arrays: Mapping[str, Array]) -> tuple[int, ...]:
    """Which part of a split each tensor belongs to, if the source is one: as there; what has no file goes to the first."""
    numbers = {file.path: number for number, file in enumerate(model.opened.files)}
    if model.opened.format != "gguf" or len(numbers) < 2:
        return ()
    first = (next(iter(array.leaves())).ref for array in arrays.values())
    return tuple(numbers[ref.file] if isinstance(ref, TensorRef) else 0 for ref in first)


def _tokenizer_alone(model: Model, request: Request) -> Target:
    """The tokenizer's keys, and the architecture's name if it is known; needs no other knowledge of the architecture."""
    known = "gguf" in model.architecture.layouts
    stated = model.opened.metadata.get("general.architecture")
    name = Value("str", model.architecture.name_in("gguf")) if known else stated
    metadata = {"general.architecture": name} if name is not None else {}
    metadata.update(_tokenizer_keys(model, request))
    return Target(OutputSpec(display_name(model.opened.path), (), metadata), (), "tokenizer")


def _derived(layout: Layout, model: Model) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, derivation in layout.derive.items():
        values = derivation.forward(model.config)
        if values is not None:
            arrays[name] = leaf(Inline(name, values.shape, F32, values.tobytes()))
    return arrays


def check_head(model: Model) -> None:
    """An untied head must be there."""
    facts, path = model.architecture.implied, model.opened.path
    untied = model.config.get("tie_word_embeddings") is False and not model.architecture.headless(model.hf_class)
    if untied and "tie_word_embeddings" in facts and facts["tie_word_embeddings"].of(model.shapes):
        raise UnmappedTensor(
            f"{path}: lm_head.weight is missing although config.json says that it is not tied to the embedding",
            ["lm_head.weight"],
        )


def _config_keys(model: Model) -> dict[str, Value]:
    """The config as keys, after the architecture's name."""
    name = model.architecture.name_in("gguf")
    pairs = located(model.opened, lambda: forward(model.architecture.config, model.config, name))
    return {"general.architecture": Value("str", name), **{key: Value(*typed) for key, typed in pairs.items()}}


def _described(model: Model, keys: Mapping[str, Value], stored: Storage) -> tuple[dict[str, Value], list[str]]:
    """The metadata of model and file, and what was given up, beginning with what reading gave up."""
    losses = [*model.losses, *model.packed.losses]
    metadata = {"general.architecture": keys["general.architecture"], "general.type": Value("str", "model")}
    if "generation_config.json" in model.files:
        sampled, misfits = rebuild.sampling(_object(model, "generation_config.json"))
        metadata.update(sampled)
        losses += misfits
    metadata["general.name"] = Value("str", display_name(model.opened.path))
    metadata.update(keys)
    if not model.architecture.layouts["gguf"].untyped:
        metadata["general.file_type"] = Value("u32", stored.number)
    metadata["general.quantization_version"] = Value("u32", QUANTIZATION_VERSION)
    if model.opened.format == "gguf":
        anew = bool(stored.recorded)
        metadata.update((key, value) for key, value in model.metadata.items() if not (anew and key.startswith(RECORDED)))
        metadata.update(stored.recorded)
        if _SIZE in model.opened.metadata:  # what the number of weights is called; it does not change
            metadata[_SIZE] = model.opened.metadata[_SIZE]
    else:
        metadata.update(stored.recorded)
        losses += [f"metadata {key} has no place in GGUF" for key in model.metadata]
    return metadata, losses


def _object(model: Model, name: str) -> dict[str, Any]:
    content = parse_json(model.files[name], f"{model.opened.path}/{name}")
    if not isinstance(content, dict):
        raise DamagedInput(f"{model.opened.path}/{name}: is not a JSON object")
    return content


def _tokenizer_keys(model: Model, request: Request) -> Mapping[str, Value]:
    pre = request.pre or model.pre
    if pre not in model.tokenizer_keys:
        model.tokenizer_keys[pre] = _made_keys(model, pre)
    return model.tokenizer_keys[pre]


def _made_keys(model: Model, pre: str | None) -> dict[str, Value]:
    from hubclient.formats.tokenizers import residual, to_gguf

    tokenizer = model.tokenizer
    if tokenizer is None:
        raise DamagedInput(f"{model.opened.path}: there is no tokenizer beside the weights; GGUF needs one")
    size = model.config.get("vocab_size")
    keys = to_gguf(tokenizer, vocab_size=size, pre=pre, options=model.architecture.tokenizer)
    return {**keys, own.TOKENIZER_KEY: Value("str", residual(tokenizer, keys))}


def _carried(
    model: Model, matching: Matching, metadata: Mapping[str, Value], request: Request
) -> tuple[dict[str, Value], list[str]]:
    """Our own key: what a reader of this file alone would get wrong about the Hugging Face folder."""
    architecture, shapes = model.architecture, model.shapes
    kept = {name: shapes[name] for bound in matching.bound for name in bound.inputs}
    arrays = _derived(architecture.layouts["gguf"], model)
    derived = {name: values_of(array) for name, array in arrays.items()}
    config, _ = rebuild.with_derived(architecture, rebuild.told(architecture, metadata), derived)
    vision = projector.split(model)[1]
    dtypes = {name: encoding for name, encoding in model.dtypes.items() if name in kept or name in vision}
    main = main_dtype({name: dtypes[name] for name in kept if name in dtypes}, {name: model.tensors[name] for name in kept})
    rebuilt = rebuild.rebuild(architecture, model.hf_class, config, metadata, kept, main)
    files, losses = own.portable(model.files)
    common, others = own.Carried.split_dtypes(dtypes)
    content = own.Carried(
        architecture.name, model.hf_class, model.naming, difference(model.raw_config, rebuilt), common, others, files,
        request.pre or model.pre,
    )  # fmt: skip
    return {own.CHECKPOINT_KEY: content.store()}, losses
