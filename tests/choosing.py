"""A small model to choose types for, and the choices at a glance."""

from __future__ import annotations

from collections.abc import Mapping

from hubclient.formats.gguf.choices import Choice, ModelFacts, Tensor


def llama(
    blocks: int = 32, architecture: str = "llama", experts: int = 0, kv_heads: int = 8, columns: int = 256
) -> tuple[ModelFacts, list[Tensor]]:
    """Facts and tensors of a small model with many blocks."""
    shape = (columns, 8)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = [Tensor(f"{name}.weight", shape, "BF16") for name in ("token_embd", "output")]
    tensors += [Tensor(f"blk.{i}.{part}.weight", shape, "BF16") for i in range(blocks) for part in parts]
    tensors += [Tensor(f"blk.{i}.attn_norm.weight", (columns,), "F32") for i in range(blocks)]
    return ModelFacts(architecture, blocks, experts, 64, kv_heads), tensors


def types(choices: Mapping[str, Choice], part: str) -> list[str]:
    """The types of all tensors with `part` in their names, in order."""
    return [choice.type for name, choice in choices.items() if part in name]
