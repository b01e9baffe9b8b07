"""Checks of placement: the modules it names are there, hold every tensor once, and all bytes find a place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hubclient import Checkpoint, place
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.testing.bench import Subject
from hubclient.testing.faults import require

_CONTEXT = 16  # tokens


def modules_hold_all(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """The modules that `placement` names are modules of the model, and there are as many blocks as the config counts."""
    placement, model = subject.architecture.placement, subject.models[0]
    names = _patterns(subject)
    for module in (*placement.first, *placement.last, *placement.tied.values()):
        beginning = Pattern.of(module).template + "."
        there = any(name.startswith(beginning) for name in names) or module in placement.tied
        require(there, f"placement: the model has no module {module}")
    block, depth = Pattern.of(placement.block), placement.block.count(".") + 1
    found = {".".join(name.split(".")[:depth]) for name in model.shapes if _fits(name, block, depth)}
    count = model.counts.get("i" if "i" in block.captures else next(iter(block.captures), ""), 0)
    require(len(found) >= count, f"placement: {placement.block} is met {len(found)} times in a model of {count} blocks")
    for expert in placement.experts:
        wanted = Pattern.of(f"{placement.block}.{expert}" if not expert.startswith(placement.block) else expert).template
        there = any(f"{name}.".startswith(f"{wanted}.") for name in names)
        require(there, f"placement: the model has no module {expert}")


def all_is_placed(subject: Subject, folder: Path) -> None:
    """`place` gives every byte of a model to one module, and every module a device."""
    model = subject.models[0]
    source = subject.write(model, folder / "model")
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


def _patterns(subject: Subject) -> set[str]:
    """Blanked names of all tensors that models of this placement may have, also where they have no place in a format.

    A placement may be shared: by a classifier and the model it stands on.
    """
    found: set[str] = set()
    for item in (subject.architecture, *subject.host.all_architectures()):
        if item.placement.block == subject.architecture.placement.block:
            for layout in item.layouts.values():
                found |= {Pattern.of(text).template for text in layout.hf_names} | {pattern.template for pattern in layout.drop}
    return found


def _fits(name: str, block: Pattern, depth: int) -> bool:
    return template(".".join(name.split(".")[:depth]))[0] == block.template
