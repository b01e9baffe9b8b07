"""Whether a config and the tensors beside it are of one model: asked where their names do not fit the architecture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hubclient.errors import DamagedInput, UnmappedTensor
from hubclient.spokes.huggingface import canonical, stored_name

if TYPE_CHECKING:
    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.declaration import Architecture
    from hubclient.model import Model
    from hubclient.plugins import Host

_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_NAMED = 3


def explained(model: Model, error: UnmappedTensor, host: Host) -> DamagedInput | UnmappedTensor:
    """The error itself; or, where tensors are named as another architecture's alone, one that names both."""
    config, own = model.opened.sidecars.get("config.json"), model.architecture
    if config is None or not model.tensors:
        return error
    tensors = _one_of_each(model)
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


def _one_of_each(model: Model) -> dict[str, Array]:
    """The tensors as they are stored, of those that differ in numbers alone only one, numbered 0."""
    stored = ((stored_name(name, model.architecture, model.naming), array) for name, array in model.tensors.items())
    return {_NUMBER.sub(".0", name): array for name, array in stored}


def _fits(architecture: Architecture, stored: dict[str, Array]) -> bool:
    """Whether an architecture has a rule for each of these tensors, and tensors for all the rules of one of its layouts."""
    try:
        names, _ = canonical(architecture, stored)
    except DamagedInput:
        return False
    layouts = architecture.layouts.values()
    return all(any(layout.knows(name, "hf") for layout in layouts) for name in names) and any(
        _complete((rule.hf for rule in layout.rules if rule.required and not rule.choice), names) for layout in layouts
    )
