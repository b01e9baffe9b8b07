"""Weights that a Hugging Face folder has packed into several tensors each, as config.json's `quantization_config` says.

`METHODS` is the one list of what can be unpacked, by `quant_method`. What it cannot make sense of stays as it is stored,
which is enough for a copy, with the reason why (`Packed.unread`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.errors import DamagedInput, UnsupportedEncoding
from hubclient.formats.encodings import BF16, ENCODINGS, F16, F32
from hubclient.formats.model import Encoding, OpenedCheckpoint
from hubclient.ground.names import shown
from hubclient.model import Model, Packed, leaf
from hubclient.spokes.scales import Scales

if TYPE_CHECKING:
    from hubclient.spokes.scales import Block

Settings = Mapping[str, Any]
_KEY = "quantization_config"
_FLOAT8, _INT8 = ENCODINGS["F8_E4M3"], ENCODINGS["I8"]
_DTYPES = {"float32": F32, "float16": F16, "bfloat16": BF16}
_COMPRESSED = {"float-quantized": ("float", _FLOAT8), "int-quantized": ("int", _INT8)}


class Unpacker(Protocol):
    """One way of packing, with its settings."""

    def pair(self, stored: Mapping[str, Leaf]) -> tuple[dict[str, Array], Packed]:
        """The tensors that are meant, under the names that they would have alone, and what they are made of."""
        ...


class AsStored:
    """What needs no pairing: blocks are one tensor already when a file is opened (see formats.safetensors.planes)."""

    def pair(self, stored: Mapping[str, Leaf]) -> tuple[dict[str, Array], Packed]:
        """The tensors themselves."""
        return dict(stored), Packed()


def unpack(opened: OpenedCheckpoint, raw: Mapping[str, Any]) -> tuple[dict[str, Array], Packed]:
    """The folder's tensors under their stored names, packed ones unpacked; `raw` is config.json's content.

    DamagedInput for settings or tensors that contradict each other.
    """
    stored = {name: leaf(ref) for name, ref in opened.tensors.items()}
    settings = _settings(raw)
    if not settings:
        return dict(stored), Packed()
    try:
        return _unpacker(settings).pair(stored)
    except UnsupportedEncoding as error:
        return dict(stored), Packed(unread=error.message)
    except DamagedInput as error:
        raise DamagedInput(error.message, file=error.file or opened.sidecars["config.json"], tensor=error.tensor) from None


def refuse_unread(model: Model) -> None:
    """UnsupportedEncoding for a model whose weights can only be copied as they are."""
    if model.packed.unread:
        raise UnsupportedEncoding(f"{model.opened.path}: {model.packed.unread}")


def plain_dtype(raw: Mapping[str, Any]) -> Encoding:
    """The dtype of unpacked weights: the one that config.json names, else bfloat16, as in Transformers."""
    text = raw.get("text_config")
    places = (raw, text if isinstance(text, Mapping) else {})
    named = [place.get(key) for place in places for key in ("dtype", "torch_dtype")]
    return next((_DTYPES[name] for name in named if isinstance(name, str) and name in _DTYPES), BF16)


def without_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """config.json's content for weights that are packed no more."""
    plain = {key: value for key, value in raw.items() if key != _KEY}
    if isinstance(text := plain.get("text_config"), Mapping):
        plain["text_config"] = {key: value for key, value in text.items() if key != _KEY}
    return plain


def _settings(raw: Mapping[str, Any]) -> Any:
    text = raw.get("text_config")
    return raw.get(_KEY) or (text.get(_KEY) if isinstance(text, Mapping) else None)


def _unpacker(settings: Any) -> Unpacker:
    method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
    if not isinstance(settings, Mapping) or not isinstance(method, str) or method not in METHODS:
        raise _unknown(shown(method))
    return METHODS[method](settings)


def _unknown(what: str) -> UnsupportedEncoding:
    return UnsupportedEncoding(f"the weights are packed by {what} ({_KEY}), which cannot be read")


def _fp8(settings: Settings) -> Scales:
    """Blocks of a matrix, or the whole of it, with scales called `_scale_inv`, which they are not the inverse of.

    Source: Transformers `FineGrainedFP8Config` and its defaults.
    """
    for key, known in (("fmt", "e4m3"), ("expert_dtype", "fp8")):
        if settings.get(key, known) != known:
            raise _unknown(f"'fp8' with {key} {shown(settings[key])}")
    ignored = _names(settings, "modules_to_not_convert") or _names(settings, "ignored_layers")
    block = _block(settings, "weight_block_size", [128, 128])
    return Scales(
        _FLOAT8, "_scale_inv", ("",), block, ignored, ("activation_scale",), exponents=settings.get("scale_fmt") == "ue8m0"
    )


def _fbgemm(settings: Settings) -> Scales:
    """A scale for each row, or for each column of Llama 4's experts. Source: Transformers `integrations/fbgemm_fp8.py`."""
    ignored = _names(settings, "modules_to_not_convert")
    return Scales(_FLOAT8, "_scale", ("weight", "proj"), None, ignored, ("input_scale_ub",))


def _compressed_tensors(settings: Settings) -> Scales:
    """8-bit floats or integers with scales for tensors, rows or blocks. Source: Transformers' page on compressed-tensors."""
    kind, sparsity = settings.get("format"), settings.get("sparsity_config") or {"format": "dense"}
    if not isinstance(kind, str) or kind not in _COMPRESSED:
        raise _unknown(f"'compressed-tensors' as {shown(kind)}")
    if not isinstance(sparsity, Mapping) or sparsity.get("format") != "dense":
        raise _unknown("'compressed-tensors' as sparse matrices")
    number, stored = _COMPRESSED[kind]
    blocks = {_scheme(scheme, number) for scheme in _schemes(settings)}
    if len(blocks) > 1:
        raise _unknown("'compressed-tensors' in blocks of several sizes")
    aside = ("input_scale", "output_scale", "k_scale", "v_scale", "q_scale")
    return Scales(stored, "_scale", ("weight",), blocks.pop(), _names(settings, "ignore"), aside)


def _schemes(settings: Settings) -> list[Settings]:
    """How each group of modules has its weights packed; at least one."""
    groups = settings.get("config_groups")
    values = list(groups.values()) if isinstance(groups, Mapping) else []
    schemes = [group.get("weights") if isinstance(group, Mapping) else None for group in values]
    if not schemes or not all(isinstance(scheme, Mapping) for scheme in schemes):
        raise DamagedInput(f"config: {_KEY} has {shown(groups)} for config_groups, where groups with weights are needed")
    return [scheme for scheme in schemes if scheme is not None]


def _scheme(scheme: Settings, number: str) -> Block | None:
    """The block of one group's weights; None for scales that are for rows or tensors."""
    found = {key: scheme.get(key, usual) for key, usual in (("type", "int"), ("num_bits", 8), ("symmetric", True))}
    strategy = scheme.get("strategy")
    if found != {"type": number, "num_bits": 8, "symmetric": True} or strategy not in ("tensor", "channel", "block"):
        told = ", ".join(f"{key} {shown(value)}" for key, value in {**found, "strategy": strategy}.items())
        raise _unknown(f"'compressed-tensors' with {told}")
    return _block(scheme, "block_structure", None) if strategy == "block" else None


def _block(settings: Settings, key: str, usual: Any) -> Block | None:
    """Rows and columns of a block; None for none."""
    value = settings.get(key, usual)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or any(type(size) is not int or size < 1 for size in value):
        raise DamagedInput(f"config: {_KEY} has {shown(value)} for {key}, where rows and columns of a block are needed")
    return value[0], value[1]


def _names(settings: Settings, key: str) -> frozenset[str]:
    """The names of modules in a list that may be missing."""
    value = settings.get(key)
    if value is not None and (not isinstance(value, list) or not all(isinstance(name, str) for name in value)):
        raise DamagedInput(f"config: {_KEY} has {shown(value)} for {key}, where a list of modules is needed")
    return frozenset(value or ())


METHODS: Mapping[str, Callable[[Settings], Unpacker]] = MappingProxyType(
    {"fp8": _fp8, "fbgemm_fp8": _fbgemm, "compressed-tensors": _compressed_tensors, "mxfp4": lambda _: AsStored()}
)
