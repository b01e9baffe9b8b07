"""The GGUF spoke: tensor names and shapes through the architecture's layout, config as metadata, the tokenizer as keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hubclient.architectures.arrays import Array
from hubclient.architectures.config import difference, forward, normalise, restore
from hubclient.architectures.layouts import Bound, Layout, Matching, Side
from hubclient.errors import DamagedInput, PluginConflict, UnmappedTensor, UnsupportedArchitecture, UnsupportedEncoding
from hubclient.formats import gguf
from hubclient.formats.codecs import can_encode
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.gguf.storage import FILE_TYPES, QUANTIZATION_VERSION, stored_type
from hubclient.formats.jsonfile import parse_json, write_json
from hubclient.formats.model import Encoding, OpenedCheckpoint, OutputSpec, TensorSpec, Value
from hubclient.formats.names import shown
from hubclient.model import Inline, Model, Naming, Request, Target, display_name, encodings_of, leaf
from hubclient.spokes import carried as own
from hubclient.spokes import rebuild
from hubclient.spokes.exact import narrowed

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.declaration import Architecture
    from hubclient.formats.tokenizers import Tokenizer
    from hubclient.plugins import Host

T = TypeVar("T")
_LONG = 100  # characters of a tensor's name in a message
_NO_RULE = "docs/add-an-architecture.md shows how a package of your own declares an architecture, with a rule for every tensor"
_NO_TENSOR = "the checkpoint is incomplete, or of another architecture or number of blocks than its config says"
_LARGEST_DERIVED = 1 << 16  # elements of a tensor that is derived from the config
_POOLED = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}


# Reading


def read(opened: OpenedCheckpoint, host: Host) -> Model:
    """The canonical view of a GGUF file."""
    carried = own.load(opened.metadata, opened.path)
    architecture = _recognise(opened, host, carried)
    layout = architecture.layouts["gguf"]
    config = _located(opened, lambda: rebuild.told(architecture, opened.metadata))
    matching = _match(architecture, opened.tensors, "target", _layers(architecture, config), str(opened.path))
    tensors = _located(opened, lambda: _backward(matching, opened, config))
    derived = {name: _floats(opened.tensors[name]) for name in layout.derive if name in opened.tensors}
    config, losses = _located(opened, lambda: rebuild.with_derived(architecture, config, derived))
    hf_class = carried.hf_class if carried else _usual_class(architecture, config)
    shapes = {name: array.shape for name, array in tensors.items()}
    _located(opened, lambda: rebuild.check_sizes(architecture, config, shapes))
    known = carried.all_dtypes(tensors) if carried else {}
    dtypes, fitting = narrowed(tensors, main_encoding(opened.tensors.values()), known)
    raw = _located(
        opened, lambda: rebuild.rebuild(architecture, hf_class, config, opened.metadata, shapes, _main_name(dtypes, tensors))
    )
    if carried:
        raw, losses = restore(raw, carried.config), []
    whole = _located(opened, lambda: normalise(raw, architecture.defaults))
    pooling = {"pooling_mode": config["pooling_mode"]} if "pooling_mode" in config else {}
    files = dict(carried.files) if carried else _located(opened, lambda: _rebuilt_files(opened.metadata, config, raw))
    naming = carried.naming if carried else Naming(not architecture.headless(hf_class))
    return Model(
        opened=opened, architecture=architecture, hf_class=hf_class,
        config={**whole, **pooling}, raw_config=raw, tensors=tensors, naming=naming,
        dtypes=dtypes, fitting=fitting, files=files, losses=tuple(losses), load_tokenizer=lambda: load_tokenizer(opened, architecture),
    )  # fmt: skip


def load_tokenizer(opened: OpenedCheckpoint, architecture: Architecture | None) -> Tokenizer | None:
    """The tokenizer of a file's keys, None if it has none; the architecture says how its family stores one."""
    from hubclient.formats.tokenizers import from_gguf

    if "tokenizer.ggml.model" not in opened.metadata:
        return None
    kept = opened.metadata.get(own.TOKENIZER_KEY)
    options = architecture.tokenizer if architecture else None
    elsewhere = {pair.full_key("") for pair in architecture.config} if architecture else set()  # BERT's token_type_count
    metadata = {key: value for key, value in opened.metadata.items() if key not in elsewhere}
    return from_gguf(metadata, str(kept.value) if kept else None, options=options, source=opened.path)


def main_encoding(stored: Iterable[Any]) -> Encoding | None:
    """The encoding that holds most bytes, of matrices if there are any."""
    sizes: dict[Encoding, int] = {}
    for item in stored:
        weight = item.nbytes if len(item.shape) > 1 else 0
        sizes[item.encoding] = sizes.get(item.encoding, 0) + weight
    return max(sizes, key=lambda encoding: sizes[encoding], default=None)


def _recognise(opened: OpenedCheckpoint, host: Host, carried: own.Carried | None) -> Architecture:
    stated = opened.metadata.get("general.architecture")
    if stated is None or stated.type != "str":
        fault = "missing" if stated is None else f"of type {stated.type}"
        raise DamagedInput(f"general.architecture is {fault}, so nothing says what model this is", file=opened.path)
    name = str(stated.value)
    candidates = host.architectures("gguf", name)
    if carried:
        named = [item for item in candidates if item.name == carried.architecture]
        if named:
            return named[0]
    told_apart = [item for item in candidates if item.when is not None and item.when.of(_names(item, opened))]
    usual = [item for item in candidates if item.when is None and item.look_alike is None]
    found = told_apart or usual
    if len(found) != 1:
        names = ", ".join(item.name for item in found) or "none"
        raise PluginConflict(
            f"{opened.path}: {name!r} may be any of several declarations ({names}) and nothing tells them apart", name
        )
    return found[0]


def _names(architecture: Architecture, opened: OpenedCheckpoint) -> dict[str, tuple[int, ...]]:
    matching = architecture.layouts["gguf"].match(opened.tensors, "target", 0)
    return {name: () for bound in matching.bound for name in bound.outputs}


def _backward(matching: Matching, opened: OpenedCheckpoint, config: Mapping[str, Any]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for bound in matching.bound:
        arrays = tuple(leaf(opened.tensors[name]) for name in bound.inputs)
        with _naming(bound):
            tensors.update(zip(bound.outputs, bound.rule.transform.backward(arrays, config), strict=True))
    return tensors


def _usual_class(architecture: Architecture, config: Mapping[str, Any]) -> str:
    headless = [name for name in architecture.hf if architecture.headless(name)]
    return headless[0] if headless and "pooling_mode" in config else architecture.hf[0]


def _main_name(dtypes: Mapping[str, Encoding], tensors: Mapping[str, Array]) -> str | None:
    sizes: dict[str, int] = {}
    for name, array in tensors.items():
        if name in dtypes and len(array.shape) > 1:
            sizes[dtypes[name].name] = sizes.get(dtypes[name].name, 0) + array.rows * array.columns
    return max(sizes, key=lambda kind: sizes[kind], default=None)


def _rebuilt_files(metadata: Mapping[str, Value], config: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, bytes]:
    files = {}
    if generation := rebuild.generation_config(metadata, raw):
        files["generation_config.json"] = write_json(generation)
    if pooling := config.get("pooling_mode"):
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        listed = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ]
        size = config.get("hidden_size")
        files["modules.json"] = write_json(listed)
        files["1_Pooling/config.json"] = write_json(
            {"word_embedding_dimension": size, **{key: mode == pooling for mode, key in _POOLED.items()}}
        )
    return files


# Writing


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


def write(model: Model, request: Request) -> Target:
    """A GGUF file of this model, or of its tokenizer or config alone."""
    if request.only == "tokenizer":
        return _tokenizer_alone(model, request)
    label, wanted = choose(model, request.type)
    assert wanted is not None
    if "gguf" not in model.architecture.layouts:
        raise UnsupportedArchitecture(f"{model.architecture.name} has no GGUF layout", model.architecture.name)
    if (quantised := model.raw_config.get("quantization_config")) and model.opened.format != "gguf":
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UnsupportedEncoding(
            f"{model.opened.path}: the weights are packed by {method!r} (quantization_config), which cannot be read"
        )
    layout = model.architecture.layouts["gguf"]
    matching = _match(model.architecture, model.tensors, "hf", model.layers, str(model.opened.path))
    _located(model.opened, lambda: rebuild.check_sizes(model.architecture, model.config, model.shapes))
    _check_head(model)
    arrays = _located(model.opened, lambda: {**_derived(layout, model), **_forward(matching, model)})
    specs = tuple(TensorSpec(name, array.shape, stored_type(name, array.shape, wanted)) for name, array in arrays.items())
    metadata, losses = _described(model, wanted)
    losses += rebuild.assumption_losses(model.architecture, model.config)
    losses += [f"tensor {name} has no place in GGUF" for name in matching.omitted]
    if request.only != "config":
        metadata.update(_tokenizer_keys(model, request))
    extra, more = _carried(model, matching, metadata, request)
    metadata.update(extra)
    losses += more
    if request.only is not None:
        specs, arrays = (), {}
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


def _forward(matching: Matching, model: Model) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for bound in matching.bound:
        inputs = tuple(model.tensors[name] for name in bound.inputs)
        with _naming(bound):
            arrays.update(zip(bound.outputs, bound.rule.transform.forward(inputs, model.config), strict=True))
    return arrays


def _derived(layout: Layout, model: Model) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, derivation in layout.derive.items():
        values = derivation.forward(model.config)
        if values is not None:
            arrays[name] = leaf(Inline(name, values.shape, F32, values.tobytes()))
    return arrays


def _check_head(model: Model) -> None:
    """An untied head must be there."""
    facts, path = model.architecture.implied, model.opened.path
    untied = model.config.get("tie_word_embeddings") is False and not model.architecture.headless(model.hf_class)
    if untied and "tie_word_embeddings" in facts and facts["tie_word_embeddings"].of(model.shapes):
        raise UnmappedTensor(
            f"{path}: lm_head.weight is missing although config.json says that it is not tied to the embedding",
            ["lm_head.weight"],
        )


def _described(model: Model, wanted: Encoding) -> tuple[dict[str, Value], list[str]]:
    """The metadata of model and file, and what was given up, beginning with what reading gave up."""
    name, losses = model.architecture.name_in("gguf"), list(model.losses)
    metadata = {"general.architecture": Value("str", name), "general.type": Value("str", "model")}
    if "generation_config.json" in model.files:
        sampled, misfits = rebuild.sampling(_object(model, "generation_config.json"))
        metadata.update(sampled)
        losses += misfits
    metadata["general.name"] = Value("str", display_name(model.opened.path))
    pairs = _located(model.opened, lambda: forward(model.architecture.config, model.config, name))
    metadata.update((key, Value(*typed)) for key, typed in pairs.items())
    metadata["general.file_type"] = Value("u32", FILE_TYPES[wanted.name])
    metadata["general.quantization_version"] = Value("u32", QUANTIZATION_VERSION)
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
    keys = to_gguf(tokenizer, vocab_size=size, pre=request.pre, options=model.architecture.tokenizer)
    return {**keys, own.TOKENIZER_KEY: Value("str", residual(tokenizer, keys))}


def _carried(
    model: Model, matching: Matching, metadata: Mapping[str, Value], request: Request
) -> tuple[dict[str, Value], list[str]]:
    """Our own key: what a reader of this file alone would get wrong about the Hugging Face folder."""
    architecture, shapes = model.architecture, model.shapes
    kept = {name: shapes[name] for bound in matching.bound for name in bound.inputs}
    arrays = _derived(architecture.layouts["gguf"], model)
    derived = {name: _inline_floats(array) for name, array in arrays.items()}
    config, _ = rebuild.with_derived(architecture, rebuild.told(architecture, metadata), derived)
    dtypes = {name: encoding for name, encoding in model.dtypes.items() if name in kept}
    main = _main_name(dtypes, {name: model.tensors[name] for name in kept})
    rebuilt = rebuild.rebuild(architecture, model.hf_class, config, metadata, kept, main)
    files, losses = own.portable(model.files)
    common, others = own.Carried.split_dtypes(dtypes)
    content = own.Carried(
        architecture.name, model.hf_class, model.naming, difference(model.raw_config, rebuilt), common, others, files, request.pre
    )
    return {own.CHECKPOINT_KEY: content.store()}, losses


# Both


def _match(architecture: Architecture, names: Iterable[str], side: Side, layers: int, where: str) -> Matching:
    matching = architecture.layouts["gguf"].match(names, side, layers)
    if matching.unmatched:
        told = _several(where, matching.unmatched, f"no rule in the architecture {architecture.name}")
        raise UnmappedTensor(told, matching.unmatched, hint=_NO_RULE)
    if matching.missing:
        told = _several(where, matching.missing, "no tensor", f"which the architecture {architecture.name} needs")
        raise UnmappedTensor(told, matching.missing, hint=_NO_TENSOR)
    surplus = {layer for bound in matching.bound for capture, layer in bound.captures if capture == "i" and layer >= layers}
    if surplus:
        raise DamagedInput(
            f"{where}: has tensors of block {min(surplus)}, but says that it has {layers} blocks ({architecture.blocks})"
        )
    return matching


def _several(where: str, names: tuple[str, ...], lack: str, because: str = "") -> str:
    some = ", ".join(name if len(name) <= _LONG else shown(name) for name in names[:3])
    some += f" and {len(names) - 3} more" if len(names) > 3 else ""
    if because:
        return f"{where}: {lack} named {some}, {because}"
    return f"{where}: {lack} for {len(names)} tensor{'s' if len(names) > 1 else ''}: {some}"


def _layers(architecture: Architecture, config: Mapping[str, Any]) -> int:
    value = config.get(architecture.blocks)
    return value if isinstance(value, int) else 0


def _located(opened: OpenedCheckpoint, make: Callable[[], T]) -> T:
    """`make()`; its DamagedInput names the file at fault: the config for what is wrong there, else the checkpoint."""
    try:
        return make()
    except DamagedInput as error:
        if error.file is not None:
            raise
        config = opened.sidecars.get("config.json") if error.message.startswith("config: ") else None
        raise DamagedInput(error.message, file=config or opened.path, tensor=error.tensor) from None


@contextmanager
def _naming(bound: Bound) -> Iterator[None]:
    """A DamagedInput about the shapes of a rule's tensors names them."""
    try:
        yield
    except DamagedInput as error:
        if error.message.startswith("config: "):
            raise
        raise DamagedInput(f"{', '.join(bound.inputs)}: {error.message}", tensor=bound.inputs[0]) from None


def _floats(ref: Any) -> Callable[[], np.ndarray[Any, Any]]:
    def read_all() -> np.ndarray[Any, Any]:
        from hubclient.rows import FilePool, Reader

        array = leaf(ref)
        if array.rows > _LARGEST_DERIVED:
            raise DamagedInput(f"tensor {ref.name} has {array.rows} elements; no model needs that many", tensor=ref.name)
        with FilePool() as pool:
            return array.read(0, array.rows, Reader(pool).floats).reshape(ref.shape)

    return read_all


def _inline_floats(array: Array) -> Callable[[], np.ndarray[Any, Any]]:
    return _floats(next(array.leaves()).ref)
