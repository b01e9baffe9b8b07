"""Checkpoints whose weights are packed with scales, made up in every known way; and what they stand for, by the definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
from checkpoints import WEIGHTS
from golden import Stored, tensors
from rawsafetensors import entry, put

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
Stock = dict[str, Stored]


def e4m3(byte: int) -> float:
    """What a byte of F8_E4M3 stands for, by the definition."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    size = (1 + mantissa / 8) * 2.0 ** (exponent - 7) if exponent else mantissa / 8 * 2.0**-6
    return float("nan") if byte & 127 == 127 else -size if byte > 127 else size


E4M3 = np.array([e4m3(byte) for byte in range(256)], np.float32)


def numbers(stored: Stored) -> np.ndarray:
    """Any of the encodings that weights and scales are in, as float32."""
    octets = np.frombuffer(stored.data, np.uint8)
    if stored.dtype == "F8_E4M3":
        return E4M3[octets].reshape(stored.shape)
    if stored.dtype in ("F8_E8M0", "U8"):
        return (2.0 ** (octets.astype(np.float64) - 127)).astype(np.float32).reshape(stored.shape)
    return octets.view(np.int8).astype(np.float32).reshape(stored.shape) if stored.dtype == "I8" else stored.values


def product(weight: Stored, scale: Stored, block: tuple[int, int] | None) -> np.ndarray:
    """Number times scale, in float32."""
    factors = numbers(scale)
    if block:
        factors = factors.repeat(block[0], 0).repeat(block[1], 1)[: weight.shape[0], : weight.shape[1]]
    return numbers(weight) * factors


def to_bf16(values: np.ndarray) -> bytes:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).tobytes()


def unpacked(source: Stock, suffix: str, block: tuple[int, int] | None) -> dict[str, np.ndarray]:
    """The products, by the names of the weights."""
    return {name: product(weight, source[name + suffix], block) for name, weight in source.items() if name + suffix in source}


@dataclass(frozen=True)
class Kind:
    """A way of packing: its settings, how weights and scales are stored, and what else lies beside them."""

    settings: Mapping[str, Any]
    suffix: str
    shape: Callable[[int, int], tuple[int, ...]]
    scales: str = "F32"
    weights: str = "F8_E4M3"
    block: tuple[int, int] | None = None
    aside: tuple[str, ...] = field(default=())


def compressed(strategy: str, **more: Any) -> dict[str, Any]:
    number = "int" if more.get("format") == "int-quantized" else "float"
    scheme = {"num_bits": 8, "type": number, "symmetric": True, "strategy": strategy, **more.pop("weights", {})}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": groups,
        "ignore": ["lm_head"],
        **more,
    }


def in_blocks(high: int, wide: int) -> tuple[int, ...]:
    return -(-high // 32), -(-wide // 48)


BLOCKS = {"quant_method": "fp8", "weight_block_size": [32, 48], "modules_to_not_convert": ["lm_head"]}
WHOLE = {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}
KINDS = {
    "blocks": Kind(BLOCKS, "_scale_inv", in_blocks, block=(32, 48)),
    "blocks and powers of two": Kind({**BLOCKS, "scale_fmt": "ue8m0"}, "_scale_inv", in_blocks, "U8", block=(32, 48)),
    "blocks and exponents": Kind(BLOCKS, "_scale_inv", in_blocks, "F8_E8M0", block=(32, 48)),
    "whole tensors": Kind(WHOLE, "_scale_inv", lambda _, __: (), "BF16", aside=("activation_scale",)),
    "rows": Kind({"quant_method": "fbgemm_fp8"}, "_scale", lambda high, _: (high, 1), aside=("input_scale_ub",)),
    "compressed tensors": Kind(compressed("tensor"), "_scale", lambda _, __: (1,), "BF16", aside=("input_scale",)),
    "compressed rows": Kind(compressed("channel"), "_scale", lambda high, _: (high, 1), "BF16"),
    "compressed blocks": Kind(
        compressed("block", weights={"block_structure": [32, 48]}), "_scale", in_blocks, "BF16", block=(32, 48)
    ),
    "compressed integers": Kind(compressed("channel", format="int-quantized"), "_scale", lambda high, _: (high, 1), weights="I8"),
}


def write(path: Path, stock: Stock) -> None:
    end = 0
    header = {name: entry(item.dtype, item.shape, end, end := end + len(item.data)) for name, item in stock.items()}
    put(path, header, b"".join(item.data for item in stock.values()))


def packed(folder: Path, kind: Kind, change: Callable[[Stock], object] = lambda _: None, **settings: Any) -> Path:
    """A Llama whose layers are packed in this way, after `change` to its tensors."""
    checkpoints.llama(folder, config={"quantization_config": {**kind.settings, **settings}})
    stock, rng = tensors(folder), np.random.default_rng(0)
    for name in [name for name in stock if name.endswith("proj.weight")]:
        high, wide = stock[name].shape
        shape = kind.shape(high, wide)
        octets = rng.integers(0, 255, (high, wide), np.uint8)  # NaN is among the products too
        scales = rng.uniform(0.001, 0.1, shape).astype(np.float32)
        raw = {"F32": scales.tobytes(), "BF16": to_bf16(scales)}.get(
            kind.scales, rng.integers(120, 130, shape, np.uint8).tobytes()
        )
        stock[name] = Stored(kind.weights, (high, wide), octets.tobytes())
        stock[name + kind.suffix] = Stored(kind.scales, shape, raw)
        for ending in kind.aside:
            stock[name.removesuffix("weight") + ending] = Stored("BF16", (), b"\x80\x3f")
    change(stock)
    write(folder / WEIGHTS, stock)
    return folder
