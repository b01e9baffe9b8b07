"""Tables that mixtures of experts share: routers, stacked experts, experts that see every token, their counts and sizes."""

from __future__ import annotations

from hubclient.architectures.language.expressions import Expr, product
from hubclient.architectures.language.pairs import Pairs, u32
from hubclient.architectures.language.primitives import concat, reshape, stack, transpose, ungroup
from hubclient.architectures.language.tables import Names, block, either, stored_as
from hubclient.architectures.language.transforms import Arrow, identity

MXFP4 = ("MXFP4", "MXFP4_PLANES")
PARTS = ("gate", "up", "down")
ROUTER = {"mlp.gate.weight": "ffn_gate_inp.weight"}
SIZE: Pairs = (u32("moe_intermediate_size", "expert_feed_forward_length"),)


def counts(experts: str) -> Pairs:
    """How many experts there are, by the config key that says so, and how many of them a token goes through."""
    return u32(experts, "expert_count"), u32("num_experts_per_tok", "expert_used_count")


def stacked(experts: str) -> dict[str, Arrow]:
    """A block's experts in GGUF: three matrices with a first axis of experts."""
    return {f"mlp.experts.{{e}}.{part}_proj.weight": stack("e", experts) >> f"ffn_{part}_exps.weight" for part in PARTS}


def shared(module: str) -> dict[str, str]:
    """The experts that every token goes through: Transformers keeps them in a module of this name."""
    return {f"mlp.{module}.{part}_proj.weight": f"ffn_{part}_shexp.weight" for part in PARTS}


def switched(experts: str) -> dict[Names, Arrow]:
    """All blocks' experts in MLX, where `switch_mlp` holds the same three matrices as in GGUF."""
    names = {
        f"mlp.experts.{{e}}.{part}_proj.weight": stack("e", experts) >> f"mlp.switch_mlp.{part}_proj.weight" for part in PARTS
    }
    return block("model.layers.{i}", "model.layers.{i}", names)


def interleaved(experts: str, feed: str, gate: str, up: str, down: str) -> dict[Names, Arrow]:
    """Stacked experts of which rows of gate and up alternate, as GPT-OSS has them, to three matrices and their biases.

    Transformers keeps them with columns first, or in blocks of MXFP4 along the columns, whose rows are sorted as they are.
    """
    both, pairs, halves = product(2, feed), product(experts, feed), (product(2, experts), feed)
    rows, split = ungroup(pairs, 1, 1), ~concat(experts, experts)
    flat = (product(experts, both),)
    matrix = rows >> reshape((experts, both, None), (*halves, None)) >> split
    vector = reshape((experts, both), flat) >> rows >> reshape(flat, halves) >> split
    gate_up, name = (f"{gate}.weight", f"{up}.weight"), "mlp.experts.gate_up_proj"
    blocks = {f"{name}_blocks": matrix >> gate_up}, {"mlp.experts.down_proj_blocks": f"{down}.weight"}
    plain = {name: transpose >> matrix >> gate_up}, {"mlp.experts.down_proj": transpose >> f"{down}.weight"}
    return {
        **either(stored_as(MXFP4, blocks[0]), plain[0]),
        **either(stored_as(MXFP4, blocks[1]), plain[1]),
        f"{name}_bias": vector >> (f"{gate}.bias", f"{up}.bias"),
        "mlp.experts.down_proj_bias": identity >> f"{down}.bias",
    }


def shapes(experts: str, module: str = "", wide: Expr = "", inner: Expr = "moe_intermediate_size") -> dict[str, tuple[Expr, ...]]:
    """Sizes of router and experts of `inner` width; `wide` is that of the experts in `module` that every token goes through."""
    found: dict[str, tuple[Expr, ...]] = {"model.layers.{i}.mlp.gate.weight": (experts, "hidden_size")}
    widths = {"experts.{e}": inner, **({module: wide} if module else {})}
    for name, width in widths.items():
        found |= {f"model.layers.{{i}}.mlp.{name}.{part}_proj.weight": (width, "hidden_size") for part in PARTS[:2]}
        found[f"model.layers.{{i}}.mlp.{name}.down_proj.weight"] = ("hidden_size", width)
    return found
