"""The MLX spoke: a folder as mlx-lm has it; names through the architecture's layout, matrices packed or not.

Which dtype a tensor gets, which matrices are packed and what config.json says are as in `mlx_lm.convert` (mlx_lm/convert.py
and mlx_lm/utils.py, mlx-lm 0.32). This is the way out; the way in is `mlx_in`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.config import difference, spell
from hubclient.architectures.language.declaration import absent
from hubclient.architectures.language.layouts import Layout, Matching
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.errors import UnmappedTensor, UnsupportedEncoding, UsageError
from hubclient.formats import mlx
from hubclient.formats.codecs import can_encode, can_repack
from hubclient.formats.encodings import BF16, ENCODINGS, F32
from hubclient.formats.mlx.packing import DTYPES, PACKINGS, Packing, made, named, write_quantization
from hubclient.formats.mlx.planes import WEIGHT
from hubclient.formats.mlx.writer import write_json
from hubclient.formats.model import Encoding, OutputSpec, TensorSpec, Value
from hubclient.formats.tokenizers import check_fits
from hubclient.ground.strictjson import parse_object
from hubclient.model import Model, Request, Target, encodings_of
from hubclient.spokes import carried as own
from hubclient.spokes import huggingface
from hubclient.spokes.gguf import check_head
from hubclient.spokes.matching import converted, located, lost, match, omitted
from hubclient.spokes.mlx_in import QUANTIZATION, check_sizes, layout_of, read
from hubclient.spokes.packed import refuse_unread, without_settings

__all__ = ["GROUPS", "parts", "read", "write"]

GROUPS = True
"""Outputs can be packed in groups of a size that is asked for."""

_TORCH_DTYPES = {huggingface.TORCH_DTYPES[dtype.name]: dtype for dtype in DTYPES}
_MICROSCALED = tuple(ENCODINGS[name] for name, (_, dtype) in PACKINGS.items() if dtype is None)
_REMOVED = ("_name_or_path", "vision_config")  # as save_config does


def choose(model: Model, name: str) -> tuple[str, Encoding | None]:
    """`--type` for MLX: "auto" is each tensor's own dtype, or that of `torch_dtype`; what is packed stays packed.

    The group size is not said here: an encoding with groups stands for those of any size.
    """
    if name.lower() == "auto":
        return _label([_natural(model, array, [key]) for key, array in model.tensors.items()]), None
    encoding = mlx.FORMAT.encoding(name)
    if not can_encode(encoding):
        raise UnsupportedEncoding(
            f"{name} is a type of MLX that is read, and kept by auto, but not made here; {', '.join(made())} are"
        )
    return _label([encoding]), encoding


parts = huggingface.parts  # one folder holds all that MLX has a place for


def write(model: Model, request: Request) -> Target:
    """An MLX folder of this model, or its config or tokenizer alone."""
    if request.only == "tokenizer":
        return huggingface.write(model, replace(request, type="auto"))
    label, wanted = choose(model, request.type)
    layout = layout_of(model.architecture)
    refuse_unread(model)
    where, head = str(model.opened.path), _tied_head(model)
    tensors = {name: array for name, array in model.tensors.items() if name != head}
    matching = located(model.opened, lambda: match(model.architecture, "mlx", tensors, "hf", model.config, where))
    if request.only is None and not matching.bound:
        raise UnmappedTensor(f"{model.opened.path}: holds no tensors", hint="--only tokenizer and --only config need none")
    check_sizes(model.opened, model.architecture, model.config, model.tensors)
    check_head(model)
    arrays = located(model.opened, lambda: converted(matching, tensors, model.config, "hf"))
    choice = _Choice(model, layout, named(request.type, request.group_size), wanted)
    if choice.packing is None and request.group_size is not None:
        raise UsageError(f"--group-size goes with a type such as 4bit; {request.type} has no groups")
    sources = {name: bound.inputs for bound in matching.bound for name in bound.outputs}
    specs = tuple(TensorSpec(name, array.shape, choice.encoding(name, array, sources[name])) for name, array in arrays.items())
    config = _config(model, specs, choice)
    sidecars, losses = _sidecars(model, request)
    losses += omitted(matching, "MLX") + lost(matching)
    losses += [f"tensor {head} has no place in MLX, where a tied head is the embedding"] if head else []
    metadata, more = _metadata(model, matching, config)
    if request.only == "config":
        specs, arrays, metadata, label = (), {}, {}, "config"
    spec = OutputSpec("model", specs, metadata, {"config.json": write_json(config), **sidecars}, request.max_shard_size)
    return Target(spec, tuple(arrays.values()), label, losses=(*losses, *more), dropped=matching.dropped)


def _tied_head(model: Model) -> str | None:
    """The head of a model whose config says that it is tied, if it is stored all the same: mlx-lm takes the embedding, and
    does not load folders in which such a head is packed.
    """
    fact = model.architecture.implied.get("tie_word_embeddings")
    if model.config.get("tie_word_embeddings") is not True or not isinstance(fact, absent):
        return None
    return fact.name if fact.name in model.tensors else None


class _Choice:
    """Which encoding each tensor gets: a packing is asked for, or a dtype (`wanted`), or neither."""

    def __init__(self, model: Model, layout: Layout, packing: Packing | None, wanted: Encoding | None) -> None:
        self._model, self.packing, self.wanted = model, packing, wanted
        self._keep, self._wide = _Names(layout.keep), _Names(layout.wide)
        # blocks of another format say no dtype, and float32 beside packed matrices would only make MLX slow
        self.dtype = BF16 if packing is not None and any(map(_unpacked, model.tensors.values())) else wanted
        self._forced = [(_Names((Pattern.of(text),)), Packing("affine", *size)) for text, size in layout.bits.items()]

    def encoding(self, name: str, array: Array, sources: Iterable[str]) -> Encoding:
        """For the tensor of this name, made of these Hugging Face tensors."""
        natural = _natural(self._model, array, sources, cast=name not in self._wide)
        if natural.planes and (self.wanted is None or (self.packing is not None and PACKINGS[natural.name][1] is None)):
            return natural  # what is packed stays so, but of affine matrices others may be made
        dtype = _plain(natural)
        if dtype not in DTYPES or name in self._wide:
            return dtype
        if self.packing is None:
            return self.wanted or dtype
        dtype = self.dtype if self.dtype == BF16 and dtype == F32 else dtype
        packing = self._packing(name, array.shape)
        return packing.encoding(dtype) if packing else dtype

    def forced(self, name: str) -> Packing | None:
        """The packing that the model's class decides for a tensor."""
        return next((packing for names, packing in self._forced if name in names), None)

    def _packing(self, name: str, shape: tuple[int, ...]) -> Packing | None:
        """How a matrix is packed; None for what mlx-lm leaves alone."""
        assert self.packing is not None
        if not name.endswith(WEIGHT) or len(shape) < 2 or shape[-1] % self.packing.group or name in self._keep:
            return None
        packing = self.forced(name) or self.packing
        return packing if shape[-1] % packing.group == 0 else None


class _Names:
    """The names that some patterns cover."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns: dict[str, list[Pattern]] = {}
        for pattern in patterns:
            self._patterns.setdefault(pattern.template, []).append(pattern)

    def __contains__(self, name: str) -> bool:
        if not self._patterns:
            return False
        key, digits = template(name)
        return any(pattern.match(digits) is not None for pattern in self._patterns.get(key, ()))


def _natural(model: Model, array: Array, sources: Iterable[str], *, cast: bool = True) -> Encoding:
    """The encoding of a tensor if nothing is asked for: packed as it is, or its dtype after mlx-lm's cast."""
    packed = encodings_of(array)
    if len(packed) == 1 and array.moves_rows and len(array.shape) > 1 and (stored := _as_planes(packed.pop())):
        return stored
    dtypes = {_plain(huggingface.restored(model, array, source)) for source in sources}
    dtype = dtypes.pop() if len(dtypes) == 1 else F32
    return (_cast_to(model.raw_config) or dtype) if cast and dtype in DTYPES else dtype


def _unpacked(array: Array) -> bool:
    """Whether an array is unpacked from blocks that MLX does not have."""
    return any(encoding.blocked and _as_planes(encoding) is None for encoding in encodings_of(array))


def _as_planes(encoding: Encoding) -> Encoding | None:
    """What packed rows are in MLX without being unpacked; None if they, or plain ones, are nothing there."""
    if encoding.name in PACKINGS:
        return encoding
    return next((planes for planes in _MICROSCALED if can_repack(encoding, planes)), None)


def _cast_to(raw: Mapping[str, Any]) -> Encoding | None:
    """The dtype that mlx-lm casts to: `torch_dtype`, else `text_config.dtype`; a `dtype` at the top is not looked at."""
    text = raw.get("text_config")
    stated = raw.get("torch_dtype")
    if stated is None and isinstance(text, dict):
        stated = text.get("dtype")
    return _TORCH_DTYPES.get(stated) if isinstance(stated, str) else None


def _plain(encoding: Encoding) -> Encoding:
    """A packed tensor's dtype once it is unpacked; F32 for what MLX has no type for."""
    if encoding.name in PACKINGS:
        return PACKINGS[encoding.name][1] or BF16
    return F32 if encoding.name == "F64" or not encoding.safetensors else encoding


def _label(encodings: Iterable[Encoding]) -> str:
    """The commonest encoding as `--type` names it, for a file name; of those that are packed, if there are any."""
    name = huggingface.main_type(encodings)
    return PACKINGS[name][0].label if name in PACKINGS else name


def _config(model: Model, specs: Iterable[TensorSpec], choice: _Choice) -> dict[str, Any]:
    """config.json as mlx-lm writes it: without what it does not need, with `quantization`, keys sorted."""
    dtype = choice.dtype if choice.packing is None or choice.dtype == BF16 else None
    config = without_settings(huggingface.written_config(model, list(specs), dtype))
    config = {key: value for key, value in config.items() if key not in (*_REMOVED, *QUANTIZATION)}
    config.update(_explicit(model))
    if eos := _generation(model).get("eos_token_id"):
        config["eos_token_id"] = eos
    if quantization := _quantization(specs, choice):
        config.update(dict.fromkeys(QUANTIZATION, quantization))
    return dict(sorted(config.items()))


def _explicit(model: Model) -> dict[str, Any]:
    """What config.json leaves to Transformers' defaults, or says as Transformers 5 does: mlx-lm has defaults of its own."""
    raw, config = model.raw_config, model.config
    if isinstance(raw.get("text_config"), dict):
        return {}
    known = (*model.architecture.defaults, "rope_parameters")
    spelled = spell({key: config[key] for key in known if config.get(key) is not None})
    headless = model.architecture.headless(model.hf_class) and "tie_word_embeddings" in model.architecture.implied
    tied = {"tie_word_embeddings": True} if headless else {}  # mlx-lm's way to say that there is no head
    return {key: value for key, value in spelled.items() if key not in raw} | tied


def _quantization(specs: Iterable[TensorSpec], choice: _Choice) -> dict[str, Any]:
    """`quantization`; empty if nothing is packed and nothing was to be. What the source had packed comes first, as in mlx-lm."""
    packed = {spec.name: PACKINGS[spec.encoding.name][0] for spec in specs if spec.encoding.name in PACKINGS}
    microscaled = [packing for packing in packed.values() if packing.mode != "affine"]
    default = _commonest(microscaled) or choice.packing or _commonest(packed.values())
    if default is None:
        return {}
    modules = {name.removesuffix(WEIGHT): packing for name, packing in packed.items()}
    return write_quantization(modules, default, (name.removesuffix(WEIGHT) for name in packed if choice.forced(name)))


def _commonest(packings: Iterable[Packing]) -> Packing | None:
    return next((packing for packing, _ in Counter(packings).most_common(1)), None)


def _generation(model: Model) -> dict[str, Any]:
    """generation_config.json, whose end-of-text tokens mlx-lm takes for the model's."""
    name = "generation_config.json"
    return parse_object(model.files[name], f"{model.opened.path}/{name}") if name in model.files else {}


def _sidecars(model: Model, request: Request) -> tuple[dict[str, bytes], list[str]]:
    """The small files beside config.json, and what was given up until here."""
    losses = [*model.losses, *model.lacking, *model.packed.losses]
    if request.only is not None:
        return {}, losses
    tokens = huggingface.tokenizer_files(model)
    size = model.config.get("vocab_size")
    if (tokenizer := model.tokenizer) is not None and isinstance(size, int):
        check_fits(tokenizer, size)
    return {**tokens, **model.files}, losses + ([] if tokens else ["tokenizer: the source has none"])


def _metadata(model: Model, matching: Matching, config: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    """What goes into the header: our own key, with what a reader of this folder alone would get wrong."""
    if model.opened.format == "gguf":
        kept, losses = {}, [f"metadata {key} has no place in MLX" for key in model.metadata if key != "general.name"]
    else:
        kept, losses = dict(model.metadata), []
    written = {key: value for key, value in config.items() if key not in QUANTIZATION}
    names = [name for bound in matching.bound for name in bound.inputs]
    common, others = own.Carried.split_dtypes({name: model.dtypes[name] for name in names if name in model.dtypes})
    content = own.Carried(
        model.architecture.name, model.hf_class, model.naming, difference(model.raw_config, written), common, others
    )
    return {**kept, own.CHECKPOINT_KEY: content.store()}, losses
