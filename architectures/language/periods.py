"""Blocks that are of a kind at regular distances, where GGUF stores the distance and config.json lists the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any

from hubclient.architectures.language.expressions import evaluate, lookup
from hubclient.architectures.language.pairs import full_key
from hubclient.architectures.language.typed import Typed
from hubclient.architectures.language.schedules import every, periodic
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class FirstOf:
    """The first block of each period is of `kind`, the rest of `other`; stored as the length of a period.

    `hf` is that length; a list of kinds under `listed` counts more where a config has one, and is stored as an array of
    booleans, true for `other`, if it is not regular.
    """

    hf: str
    listed: str
    kind: str
    other: str
    key: str
    blocks: str = "num_hidden_layers"

    def keys(self, name: str) -> tuple[str, ...]:
        """The one metadata key."""
        return (full_key(self.key, name),)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The length of a period, or the array."""
        kinds, blocks = lookup(config, self.listed), evaluate(self.blocks, config)
        period = evaluate(self.hf, config)
        if kinds is None:
            return {full_key(self.key, name): ("u32", period)}
        if not isinstance(kinds, Sequence) or len(kinds) != blocks or not all(kind in (self.kind, self.other) for kind in kinds):
            raise DamagedInput(
                f"config: {self.listed} is {shown(kinds)} where {blocks} of {self.kind} and {self.other} are needed"
            )
        there = tuple(kind == self.kind for kind in kinds)
        if there != every(period).of(config, blocks):
            found, offset = periodic([at for at, whole in enumerate(there) if whole], blocks)
            if found is None or offset != 0:
                return {full_key(self.key, name): ("[bool]", [not whole for whole in there])}
            period = found
        return {full_key(self.key, name): ("u32", period)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The length, or the list of kinds."""
        stored = metadata.get(full_key(self.key, name))
        if stored is None:
            return {}
        if isinstance(stored, int) and not isinstance(stored, bool) and stored > 0:
            return {self.hf: stored}
        blocks = evaluate(self.blocks, config)
        if isinstance(stored, Sequence) and len(stored) == blocks and all(value in (0, 1) for value in stored):
            return {self.listed: [self.other if value else self.kind for value in stored]}
        raise DamagedInput(f"metadata: {self.key} is {shown(stored)} where a number or {blocks} booleans are needed")
