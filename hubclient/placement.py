"""place: which module fits on which device, from headers alone.

Modules come in the order in which they run and fill one device after the other; the last device may be "cpu" or "disk".
A block of the model is never cut. With a context length, each block brings its share of the key-value cache along.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.expressions import evaluate, lookup
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.checkpoint import Checkpoint
from hubclient.errors import UsageError

if TYPE_CHECKING:
    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.declaration import Placement
    from hubclient.architectures.language.schedules import Schedule
    from hubclient.model import Model

_KV_BYTES = 2  # caches are half precision unless a runtime is told otherwise
_STATE_BYTES = 4  # llama.cpp keeps recurrent states in float32
DISK = "disk"


@dataclass(frozen=True, slots=True)
class Module:
    """A module that stays whole: its weights as stored, and its share of the cache, in bytes."""

    name: str
    weights: int
    cache: int = 0
    shares: str | None = None


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Where each module goes. `device_map` is what accelerate and Transformers take; unit of all sizes: bytes."""

    modules: tuple[Module, ...]
    device_map: Mapping[str, str | int]
    used: Mapping[str, int]
    sizes: Mapping[str, int]
    context: int | None

    @property
    def fits(self) -> bool:
        """True if nothing had to be left to the disk."""
        return DISK not in self.device_map.values()

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "fits": self.fits,
            "context": self.context,
            "device_map": dict(self.device_map),
            "devices": {device: {"size": size, "used": self.used.get(device, 0)} for device, size in self.sizes.items()},
            "modules": [{"name": m.name, "weights": m.weights, "cache": m.cache} for m in self.modules],
        }


def place(
    source: str | os.PathLike[str] | Checkpoint, devices: Mapping[str, int], *, context: int | None = None
) -> PlacementPlan:
    """Distribute a checkpoint's modules over `devices` (name -> bytes, in order of preference).

    `context` is a number of tokens; their keys and values are counted at two bytes per element. What fits nowhere is
    placed on "disk". Raises UsageError without devices, and what opening the checkpoint raises.
    """
    if not devices:
        raise UsageError("no device to place anything on; name one as cuda:0=24GiB or cpu=64GiB")
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.from_pretrained(source)
    modules = _modules(checkpoint.model, context)
    homes, used = _fill(modules, devices)
    return PlacementPlan(modules, {m.name: _accelerate(homes[m.name]) for m in modules}, used, dict(devices), context)


def _fill(modules: Sequence[Module], devices: Mapping[str, int]) -> tuple[dict[str, str], dict[str, int]]:
    names = list(devices)
    homes: dict[str, str] = {}
    used = dict.fromkeys(names, 0)
    at = 0
    for module in modules:
        if module.shares in homes:
            homes[module.name] = homes[module.shares]  # one weight, two names: it cannot be in two places
            continue
        need = module.weights + module.cache
        while at < len(names) and used[names[at]] + need > devices[names[at]]:
            at += 1
        device = names[at] if at < len(names) else DISK
        homes[module.name] = device
        used[device] = used.get(device, 0) + need
    return homes, used


def _modules(model: Model, context: int | None) -> tuple[Module, ...]:
    placement = model.architecture.placement
    block = Pattern.of(placement.block).template
    order = _order(placement)
    weights: dict[str, int] = {}
    for name, array in model.tensors.items():
        module = _module_of(name, block, order)
        weights[module] = weights.get(module, 0) + _nbytes(array)
    tied = {name: other for name, other in placement.tied.items() if name not in weights and other in weights}
    headless = model.architecture.headless(model.hf_class)
    there = (name for name in tied if not headless or name not in placement.last)
    names = sorted([*weights, *there], key=lambda name: _rank(name, block, order))
    caches = _caches(model, context)
    found = tuple(Module(name, weights.get(name, 0), _cache(name, block, caches), tied.get(name)) for name in names)
    return tuple(_spelled(module, model) for module in found)


def _order(placement: Placement) -> dict[str, int]:
    """The order in which modules run, by name with its numbers blanked: those around the blocks, and the blocks."""
    names = (*placement.first, placement.block, *placement.last)
    return {Pattern.of(name).template: index for index, name in enumerate(names)}


def _module_of(name: str, block: str, order: Mapping[str, int]) -> str:
    parts = name.split(".")
    depth = block.count(".") + 1
    if template(".".join(parts[:depth]))[0] == block:
        return ".".join(parts[:depth])
    for length in range(len(parts) - 1, 0, -1):
        if template(".".join(parts[:length]))[0] in order:
            return ".".join(parts[:length])
    return ".".join(parts[:-1])


def _rank(name: str, block: str, order: Mapping[str, int]) -> tuple[int, int, str]:
    blank, digits = template(name)
    return order.get(blank, order[block] + 1), int(digits[-1]) if blank in order and digits else 0, name


def _cache(name: str, block: str, caches: Sequence[int]) -> int:
    blank, digits = template(name)
    number = int(digits[-1]) if blank == block else len(caches)
    return caches[number] if number < len(caches) else 0


def _caches(model: Model, context: int | None) -> list[int]:
    """What each block keeps besides its weights for so many tokens, in bytes; without a context nothing is counted."""
    placement, config, counts = model.architecture.placement, model.config, model.architecture.counts(model.config)
    blocks = counts.get(next(iter(Pattern.of(placement.block).captures)), 0)
    if context is None:
        return []

    def among(schedule: Schedule | None) -> tuple[bool, ...]:
        return schedule.of(config, blocks) if schedule else (True,) * min(blocks, len(model.tensors))

    window = lookup(config, placement.window) if placement.window else None
    limit = min(context, window) if isinstance(window, int) and not isinstance(window, bool) else context
    kv = evaluate(placement.kv_elements, config) * _KV_BYTES if placement.kv_elements is not None else 0
    state = evaluate(placement.state_elements, config) * _STATE_BYTES if placement.state_elements is not None else 0
    kinds = zip(among(placement.kv_in), among(placement.window_in), among(placement.state_in), strict=False)
    return [attends * kv * (limit if windowed else context) + recurs * state for attends, windowed, recurs in kinds]


def _nbytes(array: Array) -> int:
    """Stored bytes: those of the leaves, shared out by elements where several arrays come from one leaf."""
    total = 0.0
    for leaf in array.leaves():
        elements = leaf.rows * leaf.columns
        own = array.rows * array.columns if sum(1 for _ in array.leaves()) == 1 else elements
        total += leaf.ref.encoding.nbytes(leaf.shape) * own / elements if elements else 0
    return round(total)


def _spelled(module: Module, model: Model) -> Module:
    from dataclasses import replace

    if not model.architecture.headless(model.hf_class):
        return module
    prefix = model.architecture.prefix
    shares = module.shares.removeprefix(prefix) if module.shares else None
    return replace(module, name=module.name.removeprefix(prefix), shares=shares)


def _accelerate(device: str) -> str | int:
    """Accelerate counts accelerators: "cuda:1" is 1."""
    kind, _, index = device.partition(":")
    return int(index) if kind in ("cuda", "xpu", "npu") and index.isdecimal() else device
