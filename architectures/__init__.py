"""What a model is: one small, constant-only module per family, and the language they are written in.

A family module imports its words from here and is read top to bottom; nothing in this room imports numpy when imported.
"""

from hubclient.architectures.declaration import Architecture, Fact, Placement, absent, columns_of, given, present, rows_of
from hubclient.architectures.expressions import Expr, by_value, product, ratio, total
from hubclient.architectures.layouts import Layout
from hubclient.architectures.pairs import (
    Entry,
    Fixed,
    Flags,
    Following,
    Pair,
    Pairs,
    Share,
    boolean,
    code,
    f32,
    labels,
    numbers,
    text,
    u32,
)
from hubclient.architectures.primitives import (
    concat,
    negative_exp,
    reshape,
    rope,
    shift,
    skip,
    squeeze,
    stack,
    transpose,
    ungroup,
)
from hubclient.architectures.rotary import ROPE, Llama3Factors, Sections
from hubclient.architectures.tables import block, either, optional, stored_as
from hubclient.architectures.transforms import Transform, each, identity

__all__ = [
    "ROPE",
    "Architecture",
    "Entry",
    "Expr",
    "Fact",
    "Fixed",
    "Flags",
    "Following",
    "Layout",
    "Llama3Factors",
    "Pair",
    "Pairs",
    "Placement",
    "Sections",
    "Share",
    "Transform",
    "absent",
    "block",
    "boolean",
    "by_value",
    "code",
    "columns_of",
    "concat",
    "each",
    "either",
    "f32",
    "given",
    "identity",
    "labels",
    "negative_exp",
    "numbers",
    "optional",
    "present",
    "product",
    "ratio",
    "reshape",
    "rope",
    "rows_of",
    "shift",
    "skip",
    "squeeze",
    "stack",
    "stored_as",
    "text",
    "total",
    "transpose",
    "u32",
    "ungroup",
]
