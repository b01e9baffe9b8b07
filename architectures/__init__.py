"""What a model is: one small, constant-only module per family, and the language they are written in.

A family module imports its words from here and is read top to bottom; nothing in this room imports numpy when imported.
"""

from hubclient.architectures.language.declaration import (
    NULL,
    Architecture,
    Fact,
    Placement,
    absent,
    all_of,
    columns_of,
    given,
    present,
    rows_of,
    rows_per_column,
    says,
)
from hubclient.architectures.language.entries import Fixed, Flags, Following, Multiple, Share
from hubclient.architectures.language.expressions import Expr, by_value, less, product, ratio, rounded_up, total
from hubclient.architectures.language.layouts import Layout
from hubclient.architectures.language.longrope import LongRopeFactors, LongRopeScale
from hubclient.architectures.language.pairs import Entry, Pair, Pairs, boolean, code, f32, labels, numbers, text, u32
from hubclient.architectures.language.primitives import (
    concat,
    misread,
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
from hubclient.architectures.language.rotary import ROPE, Llama3Factors, Sections, rope_settings
from hubclient.architectures.language.schedules import Alternating, Kinds, every, listed, offset_of, others, period_of
from hubclient.architectures.language.sizes import alike, with_biases
from hubclient.architectures.language.tables import biased, block, either, optional, stored_as
from hubclient.architectures.language.transforms import Transform, each, identity

__all__ = [
    "NULL",
    "ROPE",
    "Alternating",
    "Architecture",
    "Entry",
    "Expr",
    "Fact",
    "Fixed",
    "Flags",
    "Following",
    "Kinds",
    "Layout",
    "Llama3Factors",
    "LongRopeFactors",
    "LongRopeScale",
    "Multiple",
    "Pair",
    "Pairs",
    "Placement",
    "Sections",
    "Share",
    "Transform",
    "absent",
    "alike",
    "all_of",
    "biased",
    "block",
    "boolean",
    "by_value",
    "code",
    "columns_of",
    "concat",
    "each",
    "either",
    "every",
    "f32",
    "given",
    "identity",
    "labels",
    "less",
    "listed",
    "misread",
    "negative_exp",
    "numbers",
    "offset_of",
    "optional",
    "others",
    "period_of",
    "present",
    "product",
    "ratio",
    "reshape",
    "rope",
    "rope_settings",
    "rounded_up",
    "rows_of",
    "rows_per_column",
    "says",
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
    "with_biases",
]
