"""The rules that recipes are made of: which tensors a rule speaks of, and the type that these become.

How rules are written down, and what each condition means: `hubclient.formats.gguf.ruletables`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
_ROLES = (  # in llama.cpp's order (tensor_get_category)
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"), ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"), ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)  # fmt: skip
ROLES = ("output", "embedding", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down", "other")


def role_of(name: str, tied: bool) -> str:
    """What a tensor of that name is for; `tied` says that the model has no output of its own."""
    if name == "output.weight" or (tied and name in _EMBEDDINGS):
        return "output"
    if name in _EMBEDDINGS:
        return "embedding"
    return next((role for part, role in _ROLES if part in name), "other")


class Position(NamedTuple):
    """The how-manieth of how many."""

    rank: int
    total: int


@dataclass(slots=True)
class Case:
    """A tensor that rules are asked about, and the type it would have by the rules so far."""

    name: str
    role: str
    position: Position | None
    counted: Position | None
    fits: bool
    stacked: bool
    was: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What rules know of a model: `gqa` is how many heads share one key, 0 without attention; `importance`: is there a matrix."""

    architecture: str
    blocks: int
    experts: int
    gqa: int
    tied: bool
    importance: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule. `of_model` ones are asked of a Setting, others of a Case; `words` say it to a reader."""

    key: str
    of_model: bool
    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What tensors become to which all `conditions` apply, and not all of `unless`; `type` is empty if they are kept."""

    type: str
    conditions: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()

    def within(self, setting: Setting) -> Rule | None:
        """What is left of the rule for one model, without conditions on models; None if it speaks of other models."""
        left = _left(self.conditions, setting)
        spared = _left(self.unless, setting)
        if left is None or (self.unless and spared == ()):
            return None
        return Rule(self.type, left, spared or ())

    def applies(self, case: Case) -> bool:
        """Whether it speaks of this tensor; for what `within` gave."""
        return all(condition.holds(case) for condition in self.conditions) and not (
            self.unless and all(condition.holds(case) for condition in self.unless)
        )

    @property
    def words(self) -> str:
        """The conditions as a phrase."""
        phrase = ", ".join(condition.words for condition in self.conditions if condition.words) or "every tensor"
        unless = " and ".join(condition.words for condition in self.unless)
        return f"{phrase}, unless {unless}" if unless else phrase


def _left(conditions: tuple[Condition, ...], setting: Setting) -> tuple[Condition, ...] | None:
    if not all(condition.holds(setting) for condition in conditions if condition.of_model):
        return None
    return tuple(condition for condition in conditions if not condition.of_model)
