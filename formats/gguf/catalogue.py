"""Recipes for a reader: a table of all, and what one of them does, in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from hubclient.errors import UsageError
from hubclient.formats.ggml import NEEDS_IMPORTANCE
from hubclient.formats.gguf.choices import ModelFacts, Tensor, bits_per_weight, choose
from hubclient.formats.gguf.recipes import RECIPES, Recipe

EXAMPLE = "Llama 3.1 8B"
"""The model that sizes are given for unless another is named; `example` has its tensors."""


class Row(NamedTuple):
    """A recipe in a table. `bits` are those per weight of one model; `needs_importance` holds for that model too."""

    name: str
    bits: float
    needs_importance: bool
    description: str


def rows(facts: ModelFacts | None = None, tensors: Sequence[Tensor] = ()) -> tuple[Row, ...]:
    """All recipes, the largest first, by what they make of a model; of `EXAMPLE` if none is given.

    A recipe that a model's rows do not fit is left out.
    """
    if facts is None:
        facts, tensors = example()
    made = [row(recipe, facts, tensors) for recipe in RECIPES.values()]
    return tuple(sorted((row for row in made if row), key=lambda row: -row.bits))


def row(recipe: Recipe, facts: ModelFacts, tensors: Sequence[Tensor]) -> Row | None:
    """What a recipe makes of a model, with an importance matrix if it needs one; None if it cannot be applied."""
    try:
        choices = choose(recipe, facts, tensors)
        needs = any(choice.needs_importance for choice in choices.values())
        choices = choose(recipe, facts, tensors, importance=True) if needs else choices
    except UsageError:
        return None
    return Row(recipe.name, bits_per_weight(choices, tensors), needs, recipe.description)


def as_json(recipe: Recipe) -> dict[str, Any]:
    """All there is to a recipe; rules in order, of which the last one that applies counts."""
    estimate = row(recipe, *example())
    return {
        "name": recipe.name,
        "description": recipe.description,
        "file_type": recipe.number,
        "type": recipe.type,
        "bits_per_weight": {EXAMPLE: round(estimate.bits, 3)} if estimate else {},
        "rules": [{"type": rule.type, "where": rule.words} for rule in recipe.rules],
        "keep": [rule.words for rule in recipe.keep],
        "needs_importance": sorted(recipe.needs_importance),
        "fallback": dict(recipe.fallback),
    }


def in_words(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe does, in lines."""
    estimate = row(recipe, *example())
    sized = f"about {estimate.bits:.2f} bits per weight ({EXAMPLE})" if estimate else f"cannot be applied to {EXAMPLE}"
    exceptions = ", but for these, of which the last that applies counts:" if recipe.rules else ""
    return (
        f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
        f"{sized}; general.file_type {recipe.number}",
        f"every matrix becomes {recipe.type}{exceptions}",
        *(f"  {rule.type:<8}{rule.words}" for rule in recipe.rules),
        "stored as the source has them: vectors, and what is no weight, and",
        *(f"  {rule.words}" for rule in recipe.keep),
        f"refused without an importance matrix: {', '.join(sorted(NEEDS_IMPORTANCE))}; and, but for embedding and output, "
        + ", ".join(sorted(recipe.needs_importance - NEEDS_IMPORTANCE)),
        f"where rows are not whole blocks: {_stand_ins(recipe)}; F16 where that does not fit either",
    )


def _stand_ins(recipe: Recipe) -> str:
    by_other: dict[str, list[str]] = {}
    for wanted, other in recipe.fallback.items():
        by_other.setdefault(other, []).append(wanted)
    return "; ".join(f"{other} for {', '.join(wanted)}" for other, wanted in by_other.items())


@cache
def example() -> tuple[ModelFacts, tuple[Tensor, ...]]:
    """Facts and matrices of a model that most have met: Llama 3.1 8B, in bfloat16."""
    wide, narrow, hidden, words, blocks = 4096, 1024, 14336, 128256, 32
    block = {
        "attn_q": (wide, wide), "attn_k": (wide, narrow), "attn_v": (wide, narrow), "attn_output": (wide, wide),
        "ffn_gate": (wide, hidden), "ffn_up": (wide, hidden), "ffn_down": (hidden, wide),
    }  # fmt: skip
    tensors = [Tensor(f"{name}.weight", (wide, words), "BF16") for name in ("token_embd", "output")]
    tensors += [Tensor(f"blk.{i}.{name}.weight", ne, "BF16") for i in range(blocks) for name, ne in block.items()]
    return ModelFacts("llama", blocks, heads=32, kv_heads=8), tuple(tensors)
