"""Checks of names: layouts are invertible and complete, and tell what is missing or too much by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.architectures.language.expressions import lookup
from hubclient.testing.bench import Subject
from hubclient.testing.faults import require
from hubclient.testing.made_up import implied_by

if TYPE_CHECKING:
    from hubclient.architectures.language.layouts import Matching
    from hubclient.architectures.language.tables import Side
    from hubclient.testing.synthetic import Synthetic


def shapes_are_found(subject: Subject, folder: Path) -> None:  # noqa: ARG001 - all checks take a folder
    """A model can be made up: every size has a number, every tensor a shape that its transform takes and `implied` agrees with."""
    for model in subject.models:
        require(bool(model.shapes), f"a {model.variant} model has no tensors")
        for key, told in implied_by(subject.architecture, model.shapes).items():
            said = lookup(model.config, key)
            require(
                None in (told, said) or told == said,
                f"implied: of a {model.variant} model the tensors tell {key} = {told}, its config says {said}",
            )


def come_back(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Every Hugging Face name goes to names of its own in the target, and they come back to it."""
    for model in subject.models:
        there = matched(subject, model, model.names_in(subject.space), "hf")
        _clean(there, f"of the tensors of a {model.variant} model")
        targets = [name for bound in there.bound for name in bound.outputs]
        require(len(set(targets)) == len(targets), f"two tensors become {_some(_twice(targets))}")
        back = matched(subject, model, targets, "target")
        _clean(back, f"of what a {model.variant} model becomes")
        require(
            {(bound.inputs, bound.outputs) for bound in back.bound} == {(bound.outputs, bound.inputs) for bound in there.bound},
            "the way back does not lead to the names that the way there began with",
        )
    for name in subject.architecture.layouts[subject.space].derive:
        found = matched(subject, subject.models[0], [name], "target")
        require(found.dropped == (name,), f"{name} is derived from the config, and on the way back nothing knows it")


def missing_is_named(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """Of each tensor that a model must have it is said that it is missing, on either side; of others it is not."""
    model = subject.models[-1]
    there = matched(subject, model, names := model.names_in(subject.space), "hf")
    _each_missing(subject, model, names, there, "hf")
    targets = [name for bound in there.bound for name in bound.outputs]
    _each_missing(subject, model, targets, matched(subject, model, targets, "target"), "target")


def surplus_is_named(subject: Subject, folder: Path) -> None:  # noqa: ARG001
    """An expert more or less than the config counts, and two alternatives in one block, are noticed by name."""
    for model in subject.models:
        names = model.names_in(subject.space)
        for bound in matched(subject, model, names, "hf").bound:
            if spread := bound.rule.transform.spread:
                beyond = bound.rule.hf[0].name({**dict(bound.captures), spread[0]: len(bound.inputs)})
                found = matched(subject, model, [*names, beyond], "hf")
                require(found.surplus == (beyond,), f"{beyond}, one more than the config counts, goes unnoticed")
        spare = [name for name in model.spare if subject.architecture.layouts[subject.space].knows(name, "hf")]
        for name in spare:
            found = matched(subject, model, [*names, name], "hf")
            require(
                bool({*found.surplus, *found.missing}), f"{name}, of an alternative that its block has not chosen, goes unnoticed"
            )


def matched(subject: Subject, model: Synthetic, names: Iterable[str], side: Side) -> Matching:
    """What the layout under test makes of names of a made-up model."""
    layout = subject.architecture.layouts[subject.space]
    stored = {**model.stored, **_stored_targets(subject, model)} if layout.asks_encodings else None
    return layout.match(names, side, model.counts, model.config, stored)


def _stored_targets(subject: Subject, model: Synthetic) -> dict[str, str]:
    """The encodings of what packed tensors become: the same."""
    layout = subject.architecture.layouts[subject.space]
    bound = layout.match(model.names_in(subject.space), "hf", model.counts, model.config, dict(model.stored)).bound
    return {name: model.stored[one.inputs[0]] for one in bound if one.inputs[0] in model.stored for name in one.outputs}


def _each_missing(subject: Subject, model: Synthetic, names: Sequence[str], whole: Matching, side: Side) -> None:
    for bound in whole.bound:
        for name in bound.inputs:
            found = matched(subject, model, [other for other in names if other != name], side)
            if bound.rule.choice and not (found.missing or found.surplus or found.unmatched):
                continue  # what is left is a block of another alternative
            needed = bound.rule.required or len(bound.inputs) > 1
            require(
                found.missing == ((name,) if needed else ()) or bool(bound.rule.choice and name in found.missing),
                f"{name} is {'needed' if needed else 'optional'}, and without it "
                + (f"{_some(found.missing)} is said to be missing" if found.missing else "nothing is said to be missing"),
            )


def _clean(matching: Matching, where: str) -> None:
    for names, fault in (
        (matching.unmatched, "no line of the layout covers"),
        (matching.missing, "the layout misses"),
        (matching.surplus, "the layout has no room for"),
    ):
        require(not names, f"{where} {fault} {_some(names)}")


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
