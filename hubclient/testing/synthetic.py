"""Models made up from declarations: small, random, whole. Everything about them follows from the declaration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as pairings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures import absent, all_of, given, present
from hubclient.architectures.language.expressions import evaluate
from hubclient.architectures.language.patterns import Pattern
from hubclient.errors import DamagedInput, HubclientError
from hubclient.spokes.projector import SPACE
from hubclient.spokes.rebuild import rebuild
from hubclient.testing.faults import refuse
from hubclient.testing.made_up import ASIDE, assign, implied_by, made_up
from hubclient.testing.shaping import Shape, Shaper
from hubclient.testing.sizes import keys_in, size_keys

if TYPE_CHECKING:
    from hubclient.architectures import Architecture, Fact
    from hubclient.architectures.language.tables import Rule

_OTHER = 2  # how many there are of what a capture counts that nothing says the number of


@dataclass(frozen=True)
class Synthetic:
    """A made-up model: its normalised config, and its tensors' shapes by full Hugging Face name.

    `stored` are the encodings of tensors that are not plain numbers. `spare` are names that only another alternative has:
    a model with both is wrong. `undeclared` are patterns whose shape the declaration does not say.
    """

    architecture: Architecture
    variant: str
    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    stored: Mapping[str, str]
    spare: tuple[str, ...]
    undeclared: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many blocks of each capture there are."""
        return self.architecture.counts(self.config)

    @property
    def hf_class(self) -> str:
        """The class in config.json: the usual one."""
        return self.architecture.hf[0]

    def file_name(self, name: str) -> str:
        """What a file of this class calls a tensor: bare models leave the prefix out."""
        return name.removeprefix(self.architecture.prefix) if self.architecture.headless(self.hf_class) else name

    @property
    def raw(self) -> dict[str, Any]:
        """config.json's content, in Transformers' spelling."""
        plain = {key: value for key, value in self.config.items() if key not in ASIDE}
        return rebuild(self.architecture, self.hf_class, plain, {}, self.shapes, "BF16")

    def names_in(self, space: str) -> list[str]:
        """Names of the tensors that a layout knows."""
        layout = self.architecture.layouts[space]
        return [name for name in self.shapes if layout.knows(name, "hf")]


def write_example(architecture: Architecture, folder: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> Path:
    """Write a small random model of an architecture as Transformers would save it; `config` as in `ArchitectureSuite`."""
    from hubclient.testing.folders import byte_level, write

    return write(synthetic(architecture, config or {}, "whole"), Path(folder), byte_level())


def synthetics(architecture: Architecture, config: Mapping[str, Any]) -> tuple[Synthetic, ...]:
    """A model with everything that it may have, one with what it must have, and one with packed tensors if there are any."""
    variants = ["whole", "bare"]
    if any(rule.stored for layout in architecture.layouts.values() for rule in layout.rules):
        variants.append("packed")
    return tuple(synthetic(architecture, config, variant) for variant in variants)


def synthetic(architecture: Architecture, wanted: Mapping[str, Any], variant: str) -> Synthetic:
    """One of them: "whole", "bare", "packed", or "kept", which is all that every format has room for."""
    try:
        config = made_up(architecture, wanted, every_key=variant != "bare")
        patterns = _patterns(architecture, variant)
        chosen, spare = _names(architecture, patterns, config, first=variant == "bare")
        for key, value in implied_by(architecture, dict.fromkeys(chosen, ())).items():
            if key not in wanted:
                assign(config, key, value)
        shaper = Shaper(architecture, config)
        shapes = {name: shaper.shape(pattern, patterns[pattern.text]) for name, pattern in chosen.items()}
    except HubclientError as error:
        keys = ", ".join(size_keys(architecture))
        return refuse(
            f"{architecture.name}: the kit cannot make up a model ({error}); say with `config` how large these are: {keys}"
        )
    stored = {name: rule.stored[0] for name, pattern in chosen.items() for rule in patterns[pattern.text] if rule.stored}
    return Synthetic(architecture, variant, config, shapes, stored, spare, tuple(sorted(shaper.undeclared)))


def _patterns(architecture: Architecture, variant: str) -> dict[str, list[Rule]]:
    """The Hugging Face patterns of a variant, with the rules of all layouts that take them."""
    found: dict[str, list[Rule]] = {}
    for layout in architecture.layouts.values():
        for rule in layout.rules:
            if bool(rule.stored) > (variant == "packed"):
                continue
            for pattern in rule.hf:
                found.setdefault(pattern.text, []).append(rule)
        for pattern in (*layout.drop, *layout.omit) if variant == "whole" else ():
            found.setdefault(pattern.text, [])
    if variant == "packed":
        packed = {text for text, rules in found.items() if any(rule.stored for rule in rules)}
        found = {text: [rule for rule in rules if rule.stored or text not in packed] for text, rules in found.items()}
        found = {text: rules for text, rules in found.items() if not _in_place_of(rules, found, packed)}
    if variant == "kept":
        left_out = {pattern.text for layout in architecture.layouts.values() for pattern in (*layout.drop, *layout.omit)}
        vision = architecture.layouts[SPACE].hf_names if SPACE in architecture.layouts else ()  # all of it or nothing
        found = {text: rules for text, rules in found.items() if text not in left_out or text in vision}
    if variant == "bare":
        telling = {Pattern.of(name).template for name in _present(architecture.when)}
        found = {
            text: rules
            for text, rules in found.items()
            if any(rule.required for rule in rules) or Pattern.of(text).template in telling
        }
    return found


def _present(fact: Fact | None) -> Iterator[str]:
    """The tensors that a model has by which a declaration is told from its look-alikes."""
    if isinstance(fact, all_of):
        for part in fact.facts:
            yield from _present(part)
    elif isinstance(fact, present):
        yield fact.name


def _in_place_of(rules: Sequence[Rule], found: Mapping[str, list[Rule]], packed: set[str]) -> bool:
    """Whether packed tensors lead to the targets of a plain line, which then has no place in the model."""
    taken = {pattern.text for text in packed for rule in found[text] for pattern in rule.target}
    return any(not rule.stored and taken & {pattern.text for pattern in rule.target} for rule in rules)


def _names(
    architecture: Architecture, patterns: Mapping[str, list[Rule]], config: Mapping[str, Any], *, first: bool
) -> tuple[dict[str, Pattern], tuple[str, ...]]:
    """Names and the patterns they come from; and those that would be there if blocks had chosen otherwise.

    Alternatives take turns, block by block; where the config tells which one a model has, all blocks have the `first` or
    the last.
    """
    chosen: dict[str, Pattern] = {}
    spare: list[str] = []
    told = _told(architecture, patterns)

    def turn(label: str, numbers: Mapping[str, int]) -> int:
        return (0 if first else -1) if label in told else numbers.get("i", next(iter(numbers.values()), 0))

    for text, rules in patterns.items():
        pattern = Pattern.of(text)
        choice = next((rule.choice for rule in rules if rule.choice), None)
        for numbers in _instances(architecture, pattern, rules, config):
            name = pattern.name(numbers)
            if choice is None or _chosen(patterns, choice[0], turn(choice[0], numbers)) == choice[1]:
                chosen[name] = pattern
            else:
                spare.append(name)
    return chosen, tuple(spare)


def _instances(
    architecture: Architecture, pattern: Pattern, rules: Sequence[Rule], config: Mapping[str, Any]
) -> Iterator[dict[str, int]]:
    """The numbers of every tensor that a pattern names."""
    counts: dict[str, int] = dict(architecture.counts(config))
    for rule in rules:
        if rule.transform.spread and pattern in rule.hf:
            capture, size = rule.transform.spread
            counts[capture] = evaluate(size, config)
    captures = sorted(pattern.captures)
    if any(counts.get(capture) == 0 for capture in captures):
        raise DamagedInput(f"config: nothing says how many blocks {pattern.text} stands for")
    for numbers in pairings(*(range(counts.get(capture, _OTHER)) for capture in captures)):
        yield dict(zip(captures, numbers, strict=True))


def _told(architecture: Architecture, patterns: Mapping[str, list[Rule]]) -> set[str]:
    """The choices that the whole model makes: a size, which the tensors imply, is there or not."""
    sizes = {key for shape in architecture.shapes.values() for size in shape for key in keys_in(size)}
    facts = (fact for key, fact in architecture.implied.items() if key in sizes)
    templates = {Pattern.of(fact.name).template for fact in facts if isinstance(fact, present | absent | given)}
    found = ((text, rule.choice) for text, rules in patterns.items() for rule in rules)
    return {choice[0] for text, choice in found if choice and Pattern.of(text).template in templates}


def _chosen(patterns: Mapping[str, list[Rule]], label: str, block: int) -> int:
    """Which alternative a block has: they take turns."""
    there = {rule.choice[1] for rules in patterns.values() for rule in rules if rule.choice and rule.choice[0] == label}
    return sorted(there)[block % len(there)]
