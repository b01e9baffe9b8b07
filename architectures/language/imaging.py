"""Lines of pair tables that only vision parts need. See `pairs.Entry`; the keys are those of llama.cpp's `clip-impl.h`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from reprlib import repr as shown
from typing import Any

from hubclient.architectures.language.expressions import Expr, evaluate, lookup
from hubclient.architectures.language.pairs import OneKey, numbers, u32
from hubclient.architectures.language.typed import Typed
from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class Also(OneKey):
    """A config value that the key of another line tells as well. Writes nothing itself."""

    hf: str
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:  # noqa: ARG002
        """Nothing."""
        return {}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The stored number."""
        return u32(self.hf, self.key).backward(metadata, name, config)


@dataclass(frozen=True, slots=True)
class FeatureLayers(OneKey):
    """Which hidden states of a tower of `blocks` blocks the projector takes, one or several.

    The config counts from the embeddings (0) or back from the last block's output (-1); the file counts from the embeddings.
    Without the key readers take the last state but one, of towers that some converters have cut by a block and some have
    not, so it is always written.
    """

    hf: str
    blocks: Expr
    key: str

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The numbers of the states."""
        value, blocks = lookup(config, self.hf), evaluate(self.blocks, config)
        if value is None:
            return {}
        layers = value if isinstance(value, list) else [value]
        if not layers or any(type(layer) is not int or not -blocks - 1 <= layer <= blocks for layer in layers):
            raise DamagedInput(f"config: {self.hf} is {shown(value)}, which the {blocks} blocks of the tower do not have")
        return {self.full(name): ("[i32]", [layer if layer >= 0 else blocks + 1 + layer for layer in layers])}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """One number, or the list of several, counted back from the end as configs usually do."""
        told = numbers(self.hf, self.key).backward(metadata, name, config)
        if not told:
            return {}
        layers = [layer - evaluate(self.blocks, config) - 1 for layer in told[self.hf]]
        return {self.hf: layers[0] if len(layers) == 1 else layers}


@dataclass(frozen=True, slots=True)
class PooledTokens(OneKey):
    """How many vectors an image becomes, stored as the side of the squares of patches that are averaged.

    `size` and `patch` are the sides of an image and of a patch in pixels. Readers take squares of `usual` without the key.
    """

    hf: str
    size: Expr
    patch: Expr
    key: str
    usual: int = 4

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Typed]:
        """The side of a square in patches, unless it is the usual one."""
        patches, tokens = self._patches(config), evaluate(self.hf, config)
        side = patches // isqrt(tokens)
        if side * isqrt(tokens) != patches or isqrt(tokens) ** 2 != tokens:
            raise DamagedInput(f"config: {self.hf} is {tokens}, which {patches} x {patches} patches cannot be averaged to")
        return {} if side == self.usual else {self.full(name): ("u32", side)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The number of vectors, if sizes that earlier lines told give one."""
        told = u32(self.hf, self.key).backward(metadata, name, config)
        side, patches = told.get(self.hf, self.usual), self._patches(config)
        if not 0 < side <= patches:
            raise DamagedInput(f"metadata: {self.key} is {shown(side)}, which does not go with {patches} x {patches} patches")
        return {self.hf: (patches // side) ** 2}

    def _patches(self, config: Mapping[str, Any]) -> int:
        return evaluate(self.size, config) // evaluate(self.patch, config)
