"""What a model is: one small, constant-only module per family, and the language they are written in.

A family module imports its words from here and is read top to bottom; nothing in this room imports numpy when imported.
"""

from hubclient.architectures.config import Fixed, Pair, Pairs, code, f32, labels, text, u32
from hubclient.architectures.declaration import Architecture, Fact, Placement, absent, columns_of, present, rows_of
from hubclient.architectures.expressions import Expr, by_value, product, ratio
from hubclient.architectures.layouts import Layout, block, optional
from hubclient.architectures.rope import ROPE, Llama3Factors
from hubclient.architectures.transforms import Transform, concat, identity, rope, shift, transpose

__all__ = [
    "ROPE",
    "Architecture",
    "Expr",
    "Fact",
    "Fixed",
    "Layout",
    "Llama3Factors",
    "Pair",
    "Pairs",
    "Placement",
    "Transform",
    "absent",
    "block",
    "by_value",
    "code",
    "columns_of",
    "concat",
    "f32",
    "identity",
    "labels",
    "optional",
    "present",
    "product",
    "ratio",
    "rope",
    "rows_of",
    "shift",
    "text",
    "transpose",
    "u32",
]
