"""Checks of placement: the modules it names are there, hold every tensor once, and all bytes find a place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient import Checkpoint, place
from hubclient.architectures.patterns import Pattern, template
from hubclient.testing import folders
from hubclient.testing.bench import Subject, require

if TYPE_CHECKING:
    from hubclient.architectures import Architecture

_CONTEXT = 16  # tokens


def modules_hold_all(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """The modules that `placement` names are modules of the model, and there are as many blocks as the config counts."""
    placement, model = subject.architecture.placement, subject.models[0]
    names = [name for other in subject.models for name in other.shapes] + _further(subject.architecture)
    for module in (*placement.first, *placement.last, *placement.tied.values()):
        there = any(template(name)[0].startswith(f"{template(module)[0]}.") for name in names) or module in placement.tied
        require(there, f"placement: the model has no module {module}")
    block, depth = Pattern.of(placement.block), placement.block.count(".") + 1
    found = {".".join(name.split(".")[:depth]) for name in model.shapes if _fits(name, block, depth)}
    count = model.counts.get("i" if "i" in block.captures else next(iter(block.captures), ""), 0)
    require(len(found) >= count, f"placement: {placement.block} is met {len(found)} times in a model of {count} blocks")
    for expert in placement.experts:
        wanted = Pattern.of(f"{placement.block}.{expert}" if not expert.startswith(placement.block) else expert).template
        there = any(f"{template(name)[0]}.".startswith(f"{wanted}.") for name in names)
        require(there, f"placement: the model has no module {expert}")


def all_is_placed(subject: Subject, folder: Path) -> None:
    """`place` gives every byte of a model to one module, and every module a device."""
    model = subject.models[0]
    source = folders.write(model, folder / "model")
    checkpoint = Checkpoint.from_pretrained(source, host=subject.host)
    plan = place(checkpoint, {"cpu": 1 << 60}, context=_CONTEXT)
    stored = sum(ref.nbytes for ref in checkpoint.opened.tensors.values())
    placed = sum(module.weights for module in plan.modules)
    require(placed == stored, f"{placed} bytes are placed of {stored}")
    require({module.name for module in plan.modules} == set(plan.device_map), "a module has no device")
    names = sorted(f"{module.name}." for module in plan.modules)
    within = [(one, two) for one, two in pairwise(names) if two.startswith(one)]
    require(not within, f"modules lie within each other: {within[:1]}")
    if subject.architecture.placement.kv_elements is not None:
        require(any(module.cache for module in plan.modules), "placement: kv_elements is said, and no block has a cache")


def _further(architecture: Architecture) -> list[str]:
    """What a model may have that has no place anywhere: dropped and omitted tensors."""
    return [pattern.text for layout in architecture.layouts.values() for pattern in (*layout.drop, *layout.omit)]


def _fits(name: str, block: Pattern, depth: int) -> bool:
    return template(".".join(name.split(".")[:depth]))[0] == block.template
