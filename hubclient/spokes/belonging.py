"""Whether a config and the tensors beside it are of one model: asked where their names do not fit the architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubclient.architectures.language.patterns import template
from hubclient.errors import DamagedInput, UnmappedTensor
from hubclient.spokes.huggingface import canonical, stored_name

if TYPE_CHECKING:
    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.architectures.language.layouts import Layout
    from hubclient.model import Model
    from hubclient.plugins import Host

_ALIKE = 8  # names that differ in numbers alone, of which a model may have 90,000
_NAMED = 3


def explained(model: Model, error: UnmappedTensor, host: Host) -> DamagedInput | UnmappedTensor:
    """The error itself; or, where tensors are named as another architecture's alone, one that names both."""
    config, own = model.opened.sidecars.get("config.json"), model.architecture
    if config is None or not model.tensors:
        return error
    tensors = _some_of_each(model)
    if _fits(own, tensors):
        return error
    others = list(dict.fromkeys(item.name for item in host.all_architectures() if _fits(item, tensors)))
    if not others:
        return error
    named = " or ".join(others[:_NAMED])
    told = f"is of the architecture {own.name} ({model.hf_class}), but the tensors beside it are named as those of {named}"
    return DamagedInput(
        f"{told}: they do not belong together", file=config, hint="put back the config.json that came with the tensors"
    )


def _some_of_each(model: Model) -> dict[str, Array]:
    """The tensors as they are stored; of those whose names differ in numbers alone a few."""
    found: dict[str, dict[str, Array]] = {}
    for name, array in model.tensors.items():
        stored = stored_name(name, model.architecture, model.naming)
        alike = found.setdefault(template(stored)[0], {})
        if len(alike) < _ALIKE:
            alike[stored] = array
    return {name: array for alike in found.values() for name, array in alike.items()}


def _fits(architecture: Architecture, stored: dict[str, Array]) -> bool:
    """Whether an architecture has a rule for each of these tensors, and one of its layouts has none without tensors."""
    try:
        names, _ = canonical(architecture, stored)
    except DamagedInput:
        return False
    layouts, kinds = architecture.layouts.values(), {template(name)[0] for name in names}
    known = all(any(layout.knows(name, "hf") for layout in layouts) for name in names)
    return known and any(_needed(layout) <= kinds for layout in layouts)


def _needed(layout: Layout) -> set[str]:
    """What every model of a layout has, as templates of names."""
    always = (rule for rule in layout.rules if rule.required and not rule.choice and not rule.stored)
    return {pattern.template for rule in always for pattern in rule.hf}
