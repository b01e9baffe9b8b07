"""Attention with the arithmetic of llama.cpp on a CPU, and what only attention knows of latent keys and values.

Keys and values are kept in float16 there, and where fewer than 64 tokens of a sequence are worked on at once, queries and the
sums over values are float16 as well, key by key. That matters where experts are chosen: a token that two experts have nearly the
same claim to goes to the other one, and the largest of an expert's sums move by a few percent. Source: `flash_attn_ext` in
ggml-cpu/ops.cpp (`GGML_FA_TILE_Q`), and llama-imatrix's batches of 2048 tokens, cut into parts of 512.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from hubclient.imatrix.watch import Watch

_NAME = "hubclient"
_TILE, _PART = 64, 512  # queries that ggml takes together; tokens that llama.cpp computes at once


class Latent(NamedTuple):
    """What llama.cpp multiplies by the two halves of a projection of latent keys and values, where Transformers multiplies the
    latents by the whole: sums of squares, float64 (heads, inputs), of the queries that are not rotated, and of the latents that
    attention has summed; and the number of tokens.
    """

    queries: torch.Tensor
    values: torch.Tensor
    tokens: int


class Attention:
    """What Transformers calls for the attention of a model whose projections of latents have these names; `latents` by them."""

    def __init__(self, watch: Watch, names: Mapping[int, str]) -> None:
        self.latents: dict[str, Latent] = {}
        self._watch = watch
        self._names = names  # by the identity of the module that attends

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **others: Any,  # noqa: ARG002 - dropout, windows (which the mask has as well), and what models add
    ) -> tuple[torch.Tensor, None]:
        """From (batch, heads, tokens, size) to (batch, tokens, heads, size)."""
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        if id(module) in self._names:
            result = self._latent(self._names[id(module)], module.qk_nope_head_dim, query, key, attention_mask, scale)
        else:
            groups = query.shape[1] // key.shape[1]
            key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
            result = _attended(query, key, value, attention_mask, scale, softcap, s_aux)
        return result.transpose(1, 2).contiguous(), None

    def _latent(
        self, name: str, size: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """Attention among latents, of which each is its own value; `size` is how much of a head's query is not rotated."""
        batch, heads, tokens, _ = query.shape
        latents = self._watch.take(name).reshape(batch, 1, tokens, -1)
        for_keys, for_values = self._watch.weight(name).unflatten(0, (heads, -1)).tensor_split((size,), 1)
        still, turned = query.split((size, query.shape[-1] - size), -1)
        asked = torch.cat((self._watch.rounded(name, still) @ for_keys, turned), -1)
        shared = torch.cat((latents, key[:, :1, :, size:]), -1)
        summed = _attended(asked, shared, latents, mask, scale, None, None)
        self._count(name, still, summed)
        return self._watch.rounded(name, summed) @ for_values.transpose(-1, -2)

    def _count(self, name: str, queries: torch.Tensor, values: torch.Tensor) -> None:
        asked, given = (part.square().sum((0, 2), dtype=torch.float64).cpu() for part in (queries, values))
        tokens, before = queries.shape[0] * queries.shape[2], self.latents.get(name)
        if before is not None:
            asked, given, tokens = asked + before.queries, given + before.values, tokens + before.tokens
        self.latents[name] = Latent(asked, given, tokens)


def attend(module: Any, watch: Watch) -> Attention:
    """Make a model of Transformers attend so, if it lets its attention be exchanged."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    named = module.named_modules()
    names = {id(part): f"{path}.kv_b_proj.weight" for path, part in named if hasattr(part, "kv_b_proj")}
    attention = Attention(watch, names)
    if module._supports_attention_backend:
        AttentionInterface.register(_NAME, attention)
        AttentionMaskInterface.register(_NAME, eager_mask)
        module.set_attn_implementation(_NAME)
        watch.keep(names.values())
    return attention


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Values summed by what queries and keys have in common, (batch, heads, tokens, size)."""
    in_order = min(query.shape[2], _PART // len(query)) < _TILE
    scores = (_half(query) if in_order else query) @ _half(key).transpose(-1, -2) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores + (_causal(scores) if mask is None else mask)
    beside = None if sinks is None else sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    if in_order:
        return _summed(scores, _half(value), beside)
    shares = (scores if beside is None else torch.cat((scores, beside), -1)).softmax(-1)
    return shares[..., : key.shape[2]] @ _half(value)


def _half(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.half().float()


def _causal(scores: torch.Tensor) -> torch.Tensor:
    return torch.full(scores.shape[-2:], float("-inf"), device=scores.device).triu(1)


def _summed(scores: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Values weighed by the exponentials of scores, key after key, in float16 after each; divided by their sum at the end, in
    which a head's sink has its share for nothing.
    """
    largest = torch.full_like(scores[..., :1], float("-inf"))
    total, result = torch.zeros_like(largest), torch.zeros(*scores.shape[:-1], value.shape[-1], device=value.device)
    for at in range(scores.shape[-1]):
        score = scores[..., at : at + 1]
        grows = score > largest
        shrink = torch.where(grows, torch.exp(largest - score), 1.0)
        share = torch.where(grows, 1.0, torch.exp(score - largest).nan_to_num())  # both are -inf where nothing is seen yet
        result = _half(_half(result * shrink) + value[..., at : at + 1, :] * share)
        total = total * shrink + share
        largest = torch.maximum(largest, score)
    return result / (total if sinks is None else total + torch.exp(sinks - largest))
