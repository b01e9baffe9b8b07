"""How MLX packs a matrix: mode, bits, group size; as config.json says it, as an encoding, and as `--type` names it.

Facts from mlx.core.quantize, mlx/nn/layers/quantized.py and mlx_lm/utils.py (mlx 0.32, mlx-lm 0.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubclient.errors import DamagedInput, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import AFFINE_BITS, AFFINE_GROUPS, BF16, ENCODINGS, F16, F32, affine
from hubclient.formats.model import Encoding
from hubclient.ground.names import shown

DEFAULTS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"affine": (4, 64), "mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
)
"""Bits and group size of each mode where none are said; only affine has others."""


DTYPES = (F32, F16, BF16)
"""Of tensors that are not packed, and of an affine packing's scales."""


@dataclass(frozen=True, slots=True)
class Packing:
    """One way to pack: `bits` for each number, scales (and biases, in mode "affine") for each `group` of a row."""

    mode: str
    bits: int
    group: int

    def encoding(self, dtype: Encoding) -> Encoding:
        """With scales and biases of `dtype` (F32, F16, BF16); the other modes have scales of their own."""
        return affine(self.bits, self.group, dtype) if self.mode == "affine" else ENCODINGS[f"{self.mode.upper()}_PLANES"]

    @property
    def label(self) -> str:
        """As `--type` names it, which says no group size: "4bit", "mxfp4"."""
        return f"{self.bits}bit" if self.mode == "affine" else self.mode

    def told(self, mode: bool = True) -> dict[str, Any]:
        """As config.json has it, with or without the mode."""
        return {"group_size": self.group, "bits": self.bits, **({"mode": self.mode} if mode else {})}


_AFFINE = tuple(Packing("affine", bits, group) for bits in AFFINE_BITS for group in AFFINE_GROUPS)
_OTHERS = tuple(Packing(mode, *size) for mode, size in DEFAULTS.items() if mode != "affine")
PACKINGS: Mapping[str, tuple[Packing, Encoding | None]] = MappingProxyType(
    {packing.encoding(dtype).name: (packing, dtype) for packing in _AFFINE for dtype in DTYPES}
    | {packing.encoding(BF16).name: (packing, None) for packing in _OTHERS}
)
"""What an encoding's name means: the packing, and the dtype of its scales (None: bytes that are no plain numbers)."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """config.json's `quantization`: how modules are packed, and which ones in another way (None: not at all)."""

    default: Packing
    overrides: Mapping[str, Packing | None] = field(default_factory=dict)

    def of(self, module: str) -> Packing | None:
        """How the module of this path is packed, if it is."""
        return self.overrides.get(module, self.default)


def read_quantization(config: Mapping[str, Any], path: Path) -> Quantization | None:
    """What config.json (at `path`) says, None if nothing; DamagedInput for what MLX does not have, or contradictions.

    An override without a mode is affine whatever the default is, as mlx-lm reads it; `false` says that a module is not
    packed; other entries are passed over, as there.
    """
    stated = config.get("quantization")
    if stated is None:
        return None
    if not isinstance(stated, dict):
        raise DamagedInput(f"quantization is {shown(stated)} where an object is needed", file=path)
    _check_agreement(stated, config.get("quantization_config"), path)
    default = _packing(stated, "quantization", path)
    overrides: dict[str, Packing | None] = {}
    for name, value in stated.items():
        if isinstance(value, dict):
            overrides[name] = _packing(value, f"quantization of {shown(name)}", path)
        elif value is False:
            overrides[name] = None
    return Quantization(default, overrides)


def write_quantization(packings: Mapping[str, Packing], default: Packing, forced: Iterable[str]) -> dict[str, Any]:
    """`quantization` for modules packed like this, as mlx-lm writes it.

    `forced` are modules whose packing the model's class decides: mlx-lm records those always, and without the mode.
    """
    forced = frozenset(forced)
    own = {
        module: packing.told(mode=module not in forced)
        for module, packing in packings.items()
        if module in forced or packing != default
    }
    return {**default.told(), **own}


def named(name: str, group_size: int | None) -> Packing | None:
    """The packing that `--type` and `--group-size` mean: "4bit", "mxfp4"; None for other names (dtypes).

    Raises UnsupportedEncoding or UsageError for what MLX does not have.
    """
    asked = name.lower()
    if asked in DEFAULTS and asked != "affine":
        packing = Packing(asked, *DEFAULTS[asked])
        if group_size not in (None, packing.group):
            raise UsageError(f"{asked} has groups of {packing.group}, not of {group_size}")
        return packing
    if not (asked.endswith("bit") and asked[:-3].isdecimal()):
        return None
    packing = Packing("affine", int(asked[:-3]), DEFAULTS["affine"][1] if group_size is None else group_size)
    if packing.bits not in AFFINE_BITS:
        raise UnsupportedEncoding(f"MLX has no type {shown(name)}; made here are {', '.join(made())}")
    if packing not in _AFFINE:
        raise UsageError(f"MLX has groups of {_listed(AFFINE_GROUPS)}, not of {group_size}")
    return packing


def made() -> tuple[str, ...]:
    """The types that numbers can be turned into, as `--type` names them: dtypes and packings."""
    from hubclient.formats.codecs import can_encode

    packings = {packing.label: packing for packing in (Packing("affine", bits, DEFAULTS["affine"][1]) for bits in AFFINE_BITS)}
    packings |= {packing.label: packing for packing in _OTHERS}
    packed = (name for name, packing in packings.items() if can_encode(packing.encoding(BF16)))
    return (*(dtype.name.lower() for dtype in DTYPES), *packed)


def _check_agreement(stated: Mapping[str, Any], again: Any, path: Path) -> None:
    """mlx-lm writes everything twice, under `quantization_config` too."""
    if not isinstance(again, dict):
        return
    for key in sorted(stated.keys() & again.keys()):
        if stated[key] != again[key]:
            told = f"{shown(key)} is {shown(stated[key])} in quantization and {shown(again[key])} in quantization_config"
            raise DamagedInput(f"contradicts itself: {told}", file=path)


def _packing(stated: Mapping[str, Any], where: str, path: Path) -> Packing:
    mode = stated.get("mode", "affine")
    if not isinstance(mode, str) or mode not in DEFAULTS:
        raise DamagedInput(f"{where}: mode is {shown(mode)}, which MLX does not have (it has {', '.join(DEFAULTS)})", file=path)
    usual = dict(zip(("bits", "group_size"), DEFAULTS[mode], strict=True))
    found = {}
    for key, size in usual.items():
        value = stated.get(key)
        allowed = (size,) if mode != "affine" else AFFINE_BITS if key == "bits" else AFFINE_GROUPS
        if value is not None and (type(value) is not int or value not in allowed):
            has = f"which MLX does not have in mode {mode} (it has {_listed(allowed)})"
            raise DamagedInput(f"{where}: {key} is {shown(value)}, {has}", file=path)
        found[key] = size if value is None else value
    return Packing(mode, found["bits"], found["group_size"])


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
