"""place: which module fits on which device, from headers alone.

Modules come in the order in which they run and fill one device after the other; the last device may be "cpu" or "disk".
A block of the model is cut in one case only: where a mixture of experts does not fit on what comes before "cpu" or "disk", the
experts of the last blocks go there, and all else stays. A token goes through few of the experts, so they lose least by it.
With a context length, each block brings its share of the key-value cache along.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
CPU, DISK = "cpu", "disk"


@dataclass(frozen=True, slots=True)
class Module:
    """A module that stays whole: its weights as stored, and its share of the cache, in bytes."""

    name: str
    weights: int
    cache: int = 0
    shares: str | None = None


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Where each module goes. `device_map` is what accelerate and Transformers take; unit of all sizes: bytes.

    `modules` lie on one device each and not within each other: a block is one of them, or each of its parts is.
    `homes` has the devices of `modules` as they were named to us. `override_tensor` are values of llama.cpp's option of that
    name, which puts the same experts on the CPU.
    """

    modules: tuple[Module, ...]
    device_map: Mapping[str, str | int]
    used: Mapping[str, int]
    sizes: Mapping[str, int]
    context: int | None
    override_tensor: tuple[str, ...] = ()
    homes: Mapping[str, str] = field(default_factory=dict)

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
            "override_tensor": list(self.override_tensor),
        }


def place(
    source: str | os.PathLike[str] | Checkpoint, devices: Mapping[str, int], *, context: int | None = None
) -> PlacementPlan:
    """Distribute a checkpoint's modules over `devices` (name -> bytes, in order of preference).

    Where not all fits on the devices before "cpu" or "disk", experts leave them first; without experts, what runs last does.
    `context` is a number of tokens; their keys and values are counted at two bytes per element. What fits nowhere is placed
    on "disk". Raises UsageError without devices, and what opening the checkpoint raises.
    """
    if not devices:
        raise UsageError("no device to place anything on; name one as cuda:0=24GiB or cpu=64GiB")
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.from_pretrained(source, headers_only=True)
    model = checkpoint.model
    modules, cuts = _modules(model, context)
    filling = _filled(modules, cuts, devices)
    listed = tuple(part for module in modules for part in _listed(module, cuts, filling.homes))
    spelled = {spelling: _accelerate(filling.homes[m.name]) for m in listed for spelling in _spellings(m.name, model)}
    homes = {module.name: filling.homes[module.name] for module in listed}
    return PlacementPlan(listed, spelled, filling.used, dict(devices), context, _overrides(model, cuts, filling.homes), homes)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The modules that a block with experts is cut into."""

    rest: tuple[Module, ...]
    experts: tuple[Module, ...]


@dataclass(frozen=True, slots=True)
class _Filling:
    """Devices by module, and the bytes in use by device."""

    homes: Mapping[str, str]
    used: Mapping[str, int]


def _filled(modules: Sequence[Module], cuts: Mapping[str, _Cut], devices: Mapping[str, int]) -> _Filling:
    whole, first = _fill(modules, devices), _first(devices)
    if not cuts or first.keys() >= set(whole.homes.values()):
        return whole
    apart = _offload(modules, cuts, devices, first)
    # Other gaps are left at the ends of devices: where all is so full that they matter, that all fits matters more.
    return whole if DISK in apart.homes.values() and DISK not in whole.homes.values() else apart


def _fill(modules: Sequence[Module], devices: Mapping[str, int], taken: Mapping[str, int] | None = None) -> _Filling:
    """Whole modules, in order, on the first device that has room and lies not before that of the module before."""
    names = list(devices)
    homes: dict[str, str] = {}
    used = dict(taken or dict.fromkeys(names, 0))
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
    return _Filling(homes, used)


def _first(devices: Mapping[str, int]) -> dict[str, int]:
    """The leading devices that are better than the CPU, or than the disk if the CPU leads."""
    names = list(devices)
    end = next((at for at, name in enumerate(names) if at and name in (CPU, DISK)), len(names))
    return {name: devices[name] for name in names[:end]}


def _offload(
    modules: Sequence[Module], cuts: Mapping[str, _Cut], devices: Mapping[str, int], first: Mapping[str, int]
) -> _Filling:
    """The experts of as few blocks as need be lie behind the first devices; all else comes first wherever there is room."""
    blocks = [module.name for module in modules if module.name in cuts]

    def remaining(whole: int) -> list[Module]:
        away = set(blocks[whole:])
        return [_joined(module.name, cuts[module.name].rest) if module.name in away else module for module in modules]

    def too_many(whole: int) -> bool:
        return DISK in _fill(remaining(whole), first).homes.values()

    whole = bisect_left(range(1, len(blocks) + 1), True, key=too_many)  # a module more never makes room for another
    near = _fill(remaining(whole), devices)
    behind = {name: size for name, size in devices.items() if name not in first}
    far = _fill([_joined(name, cuts[name].experts) for name in blocks[whole:]], behind, near.used)
    homes = dict(near.homes)
    for name, device in far.homes.items():
        if device != homes[name]:
            home = homes.pop(name)
            homes |= {part.name: home for part in cuts[name].rest} | {part.name: device for part in cuts[name].experts}
    return _Filling(homes, far.used)


def _joined(name: str, parts: Sequence[Module]) -> Module:
    return Module(name, sum(part.weights for part in parts), sum(part.cache for part in parts))


def _listed(module: Module, cuts: Mapping[str, _Cut], homes: Mapping[str, str]) -> tuple[Module, ...]:
    return (module,) if module.name in homes else (*cuts[module.name].rest, *cuts[module.name].experts)


def _spellings(name: str, model: Model) -> tuple[str, ...]:
    """A module as the checkpoint calls it and as other releases do; either passes over names that it does not know."""
    renamed = model.architecture.placement.renamed.items()
    return (name, *(name.replace(f".{old}.", f".{new}.") for old, new in renamed if f".{old}." in name))


def _overrides(model: Model, cuts: Mapping[str, _Cut], homes: Mapping[str, str]) -> tuple[str, ...]:
    """One regular expression per tensor of a block's experts, for the blocks that they alone lie on the CPU of."""
    away = [name for name, cut in cuts.items() if any(homes.get(part.name) == CPU for part in cut.experts)]
    layout = model.architecture.layouts.get("gguf")
    if not away or layout is None:
        return ()
    within = tuple(f"{name}." for name in _experts(model.architecture.placement))
    rules = (rule for rule in layout.rules if any(pattern.template.startswith(within) for pattern in rule.hf))
    names = sorted({pattern.text for rule in rules for pattern in rule.target})
    numbers = f"({'|'.join(template(name)[1][-1] for name in away)})"
    return tuple(
        r"\.".join(numbers if part.startswith("{") else re.escape(part) for part in n.split(".")) + "=CPU" for n in names
    )


def _modules(model: Model, context: int | None) -> tuple[tuple[Module, ...], dict[str, _Cut]]:
    """The modules that stay whole, in the order in which they run, and for blocks with experts what they may be cut into."""
    placement = model.architecture.placement
    block = Pattern.of(placement.block).template
    order, experts = _order(placement), _experts(placement)
    weights: dict[str, int] = {}
    parts: dict[str, dict[str, int]] = {}
    for name, array in model.tensors.items():
        module, size = _module_of(name, block, order), _nbytes(array)
        weights[module] = weights.get(module, 0) + size
        if experts and template(module)[0] == block:
            inside = parts.setdefault(module, {})
            part = _part_of(name, module, experts)
            inside[part] = inside.get(part, 0) + size
    tied = {name: other for name, other in placement.tied.items() if name not in weights and other in weights}
    headless = model.architecture.headless(model.hf_class)
    there = (name for name in tied if not headless or name not in placement.last)
    names = sorted([*weights, *there], key=lambda name: _rank(name, block, order))
    caches = _caches(model, context)
    found = tuple(Module(name, weights.get(name, 0), _cache(name, block, caches), tied.get(name)) for name in names)
    cuts = {m.name: _cut(m, parts[m.name], experts, model) for m in found if m.name in parts}
    spelled = {module.name: _spelled(module, model) for module in found}
    return tuple(spelled.values()), {spelled[name].name: cut for name, cut in cuts.items() if cut.rest and cut.experts}


def _cut(block: Module, parts: Mapping[str, int], experts: frozenset[str], model: Model) -> _Cut:
    """A block's modules. Its cache goes with the largest beside the one that holds the experts: attention, or what is in its place."""
    apart = {name: template(name)[0] in experts for name in parts}
    rest = sorted(name for name in parts if not apart[name])
    depth = block.name.count(".") + 1
    keeper = max(rest, key=lambda name: (name.count(".") == depth, parts[name]), default="")
    found = {name: _spelled(Module(name, parts[name], block.cache if name == keeper else 0), model) for name in sorted(parts)}
    return _Cut(tuple(found[name] for name in rest), tuple(part for name, part in found.items() if apart[name]))


def _experts(placement: Placement) -> frozenset[str]:
    """Names of experts' modules, from the model's root on, with numbers blanked."""
    inside = (text.removeprefix(f"{placement.block}.") for text in placement.experts)
    return frozenset(Pattern.of(f"{placement.block}.{text}").template for text in inside)


def _part_of(name: str, block: str, experts: frozenset[str]) -> str:
    """The experts' module that a tensor is in, or else the largest module without experts: at the least the tensor itself."""
    parts = name.split(".")
    for length in range(block.count(".") + 2, len(parts)):
        module = ".".join(parts[:length])
        blank = template(module)[0]
        if blank in experts or not any(expert.startswith(f"{blank}.") for expert in experts):
            return module
    return name


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
    if not model.architecture.headless(model.hf_class):
        return module
    prefix = model.architecture.prefix
    shares = module.shares.removeprefix(prefix) if module.shares else None
    return replace(module, name=module.name.removeprefix(prefix), shares=shares)


def _accelerate(device: str) -> str | int:
    """Accelerate counts accelerators: "cuda:1" is 1."""
    kind, _, index = device.partition(":")
    return int(index) if kind in ("cuda", "xpu", "npu") and index.isdecimal() else device
