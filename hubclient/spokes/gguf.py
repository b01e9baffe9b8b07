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
from hubclient.errors import DamagedInput, UnmappedTensor, UnsupportedArchitecture, UnsupportedEncoding
from hubclient.formats import gguf
from hubclient.formats.codecs import can_encode
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.gguf.storage import FILE_TYPES, QUANTIZATION_VERSION, file_type, stored_type
from hubclient.formats.jsonfile import parse_json
from hubclient.formats.model import Encoding, OutputSpec, TensorSpec, Value
from hubclient.model import Inline, Model, Request, Target, display_name, encodings_of, leaf
from hubclient.spokes import carried as own
from hubclient.spokes import projector, rebuild
from hubclient.spokes.exact import main_dtype, values_of
from hubclient.spokes.gguf_in import read
from hubclient.spokes.matching import converted, located, lost, match, omitted
from hubclient.spokes.packed import refuse_unread

__all__ = ["choose", "parts", "read", "write"]


def choose(model: Model, name: str) -> tuple[str, Encoding | None]:
    """`--type` for GGUF: "auto" is the first of bf16 and f16 among the matrices, else f16, as llama.cpp's converter has it."""
    if name.lower() != "auto":
        encoding = gguf.FORMAT.encoding(name)
        if encoding.name not in FILE_TYPES or not can_encode(encoding):
            known = [kind for kind in FILE_TYPES if kind in ENCODINGS and can_encode(ENCODINGS[kind])]
            raise UnsupportedEncoding(
                f"{encoding} is a type of GGUF tensors, but files cannot be written in it; known: {', '.join(known)}"
            )
        return encoding.name, encoding
    for array in model.tensors.values():
        if len(array.shape) > 1:
            for encoding in encodings_of(array):
                if encoding in (BF16, F16):
                    return encoding.name, encoding
    return F16.name, F16


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
    label, wanted = choose(model, request.type)
    assert wanted is not None
    if "gguf" not in model.architecture.layouts:
        raise UnsupportedArchitecture(f"{model.architecture.name} has no GGUF layout", model.architecture.name)
    refuse_unread(model)
    if request.only == "projector":
        return projector.write(model, request, label, wanted)
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
    specs = tuple(TensorSpec(name, array.shape, _stored(name, array, wanted)) for name, array in arrays.items())
    metadata, losses = _described(model, file_type(wanted, {spec.encoding for spec in specs}))
    if model.opened.format != "gguf" or own.CHECKPOINT_KEY in model.opened.metadata:  # else it never said more than it can
        losses += rebuild.assumption_losses(model.architecture.assumed, model.config)
    losses += omitted(matching, "GGUF")
    losses += lost(matching)
    if request.only != "config":
        metadata.update(_tokenizer_keys(model, request))
    extra, more = _carried(model, matching, metadata, request)
    metadata.update(extra)
    losses += more
    if request.only == "config":
        label, specs, arrays = request.only, (), {}
    name = display_name(model.opened.path)
    spec = OutputSpec(name, specs, metadata, {}, request.max_shard_size)
    return Target(spec, tuple(arrays.values()), label, losses=tuple(losses), dropped=matching.dropped)


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


def _stored(name: str, array: Array, wanted: Encoding) -> Encoding:
    """The encoding of a tensor, by its name and what it is made of."""
    sources = encodings_of(array)
    return stored_type(name, array.shape, wanted, sources.pop() if len(sources) == 1 and array.moves_rows else None)


def _described(model: Model, kind: int) -> tuple[dict[str, Value], list[str]]:
    """The metadata of model and file, and what was given up, beginning with what reading gave up."""
    name, losses = model.architecture.name_in("gguf"), [*model.losses, *model.packed.losses]
    metadata = {"general.architecture": Value("str", name), "general.type": Value("str", "model")}
    if "generation_config.json" in model.files:
        sampled, misfits = rebuild.sampling(_object(model, "generation_config.json"))
        metadata.update(sampled)
        losses += misfits
    metadata["general.name"] = Value("str", display_name(model.opened.path))
    pairs = located(model.opened, lambda: forward(model.architecture.config, model.config, name))
    metadata.update((key, Value(*typed)) for key, typed in pairs.items())
    if not model.architecture.layouts["gguf"].untyped:
        metadata["general.file_type"] = Value("u32", kind)
    metadata["general.quantization_version"] = Value("u32", QUANTIZATION_VERSION)
    if model.opened.format == "gguf":
        metadata.update(model.metadata)
    else:
        losses += [f"metadata {key} has no place in GGUF" for key in model.metadata]
    return metadata, losses


def _object(model: Model, name: str) -> dict[str, Any]:
    content = parse_json(model.files[name], f"{model.opened.path}/{name}")
    if not isinstance(content, dict):
        raise DamagedInput(f"{model.opened.path}/{name}: is not a JSON object")
    return content


def _tokenizer_keys(model: Model, request: Request) -> dict[str, Value]:
    from hubclient.formats.tokenizers import residual, to_gguf

    tokenizer = model.tokenizer
    if tokenizer is None:
        raise DamagedInput(f"{model.opened.path}: there is no tokenizer beside the weights; GGUF needs one")
    size = model.config.get("vocab_size")
    keys = to_gguf(tokenizer, vocab_size=size, pre=request.pre or model.pre, options=model.architecture.tokenizer)
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
