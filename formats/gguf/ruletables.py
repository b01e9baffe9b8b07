"""Reading rules from the tables of a TOML file.

A rule is a table with the key `type`, and conditions, all of which have to hold. What each condition means:

    role          what a tensor is for (`role_of`): output, embedding, attn_q, attn_k, attn_v, attn_output, ffn_up, ffn_gate,
                  ffn_down or other. attn_v is also what holds the values beside others: attn_qkv and attn_kv_b. Where a model
                  has no output of its own, its embedding is the output.
    tensors       regular expressions, one of which is found in the tensor's name
    where         places, one of which the tensor is in: "first 4", "first 1/8", "last 2", "last 1/8", "every 3",
                  "every 3 after 1/8", and "more bits", which is llama.cpp's first 1/8, last 1/8 and every third between.
                  attn_v and ffn_* are counted as they come, among all attn_v and among all blocks (not those that are kept
                  or that the user chose a type for); ffn_* of a mixture of experts, and all others, are where their block is.
    counted       true: ffn_* are counted as they come in a mixture of experts too
    architecture  general.architecture
    blocks, experts, gqa   counts (gqa: how many heads share one key): 8, ">=4", "<2", ...
    tied          whether the embedding is the output
    importance    whether there is an importance matrix
    fits          whether rows are whole blocks of the recipe's own type
    stacked       whether there are several matrices in one tensor (experts)
    was           the type that it would have without this rule
    unless        a table of conditions; where all of these hold, the rule does not apply

Every list may be a single value. What cannot be read is a UsageError that names file and key.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from hubclient.errors import UsageError
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.gguf.rules import ROLES, Case, Condition, Position, Rule
from hubclient.ground.names import meant, shown

# ggml's types that a file may have; Q8_1 and Q8_K are what activations become while a model runs
_INTERNAL = ("Q8_1", "Q8_K")
_BLOCKED = tuple(
    name for name, encoding in ENCODINGS.items() if encoding.ggml is not None and encoding.blocked and name not in _INTERNAL
)
TYPES = ("F32", "F16", "BF16", *_BLOCKED)

MAX_PATTERN = 200  # characters; the longest names have 63
_MAX_TEXTS = 100  # in one list


def parse_rule(table: Any, at: str, *, keep: bool = False) -> Rule:
    """The rule that a TOML table states; `at` says where it stands ("mix.toml: rule 3"). With `keep` it has no type."""
    entries = dict(_table(table, at))
    made = "" if keep else parse_type(_take(entries, "type", at), f"{at}: type")
    unless = _table(entries.pop("unless", {}), f"{at}: unless")
    return Rule(made, _conditions(entries, at), _conditions(unless, f"{at}: unless"))


def parse_type(value: Any, at: str) -> str:
    """The name of a ggml type that can be made, given in any case."""
    if isinstance(value, str) and value.upper() in TYPES:
        return value.upper()
    if isinstance(value, str) and value.upper() in ENCODINGS:
        raise UsageError(f"{at}: {value.upper()} cannot be made; known: {', '.join(TYPES)}")
    raise UsageError(f"{at}: {shown(value)} is no tensor type{meant(value, TYPES)}")


def parse_pattern(value: Any, at: str) -> re.Pattern[str]:
    """A regular expression, to be searched for in names whatever the case of its letters.

    One whose search may take for ever is refused.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PATTERN:
        raise UsageError(f"{at}: {shown(value)} is no pattern of 1 to {MAX_PATTERN} characters")
    if fault := _costly(value):
        raise UsageError(f"{at}: {shown(value)} {fault}, and searching for it may take for ever")
    try:
        return re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{at}: {shown(value)} is no regular expression: {error}") from error


_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[:=!<a-zA-Z]|[()|*+?]|\{\d*,?\d*\}|.", re.DOTALL)
_MAX_REPEATS = 4  # a name of 63 characters can be cut in five in 600,000 ways


def _costly(pattern: str) -> str | None:
    """What makes a search try too many ways: the engine goes back, so that repetitions multiply, and alternatives in groups."""
    groups, choices, closed, repeats, before = [False], [False], False, 0, ""
    for token in _TOKEN.findall(pattern):
        lazy = token in "?+" and (before in ("*", "+", "?") or before[:1] == "{")
        repeated = not lazy and (token in "*+?" or (token[0] == "{" and len(token) > 2))
        if repeated and closed:
            return "repeats a group that holds repetitions or alternatives"
        if token[0] == "(":
            groups.append(False)
            choices.append(False)
        elif token == "|" and len(groups) == 1:
            repeats = 0  # an alternative to all that went before
        elif repeated or token == "|":
            groups[-1], repeats = True, repeats + repeated
            choices[-1] |= token == "|"
        closed = token == ")" and len(groups) > 1 and groups.pop()
        if token == ")" and len(choices) > 1:
            repeats += choices.pop()
        groups[-1] |= closed
        before = token
        if repeats > _MAX_REPEATS:
            return f"has more than {_MAX_REPEATS} repetitions and groups of alternatives"
    return None


Parser: TypeAlias = Callable[[Any, str], tuple[Callable[[Any], bool], str]]


def _conditions(entries: Mapping[str, Any], at: str) -> tuple[Condition, ...]:
    for key in entries:
        if key not in _PARSERS and key != "counted":
            raise UsageError(f"{at}: {shown(key)} is no key of a rule{meant(key, (*_PARSERS, 'counted', 'unless', 'type'))}")
    counted = _flag(entries.get("counted", False), f"{at}: counted")
    if "counted" in entries and "where" not in entries:
        raise UsageError(f"{at}: counted says how `where` is meant, which is missing")
    made = []
    for key, value in entries.items():
        if key != "counted":
            parser, of_model = _PARSERS[key]
            holds, words = parser((value, counted) if key == "where" else value, f"{at}: {key}")
            made.append(Condition(key, of_model, holds, words))
    return tuple(made)


def _roles(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
    roles = _texts(value, at)
    for role in roles:
        if role not in ROLES:
            raise UsageError(f"{at}: {shown(role)} is no role{meant(role, ROLES)}")
    return (lambda case: case.role in roles), " or ".join(roles)


def _tensors(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
    texts = _texts(value, at)
    patterns = [parse_pattern(text, at) for text in texts]
    return (lambda case: any(pattern.search(case.name) for pattern in patterns)), f"names with {' or '.join(texts)}"


def _architectures(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
    names = _texts(value, at)
    return (lambda setting: setting.architecture in names), f"in {' or '.join(names)} models"


def _types(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
    types = [parse_type(text, at) for text in _texts(value, at)]
    return (lambda case: case.was in types), f"of type {' or '.join(types)} so far"


def _where(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
    texts = _texts(value[0], at)
    places = [place for text in texts for place in _places(text, at)]

    def holds(case: Case) -> bool:
        position = case.counted if value[1] else case.position
        return position is not None and any(place(position) for place in places)

    return holds, _said([part for text in texts for part in (_MORE_BITS if text == "more bits" else (text,))])


def _said(places: list[str]) -> str:
    return "in " + " or ".join(place if place.startswith("every") else f"the {place}" for place in places)


_MORE_BITS = ("first 1/8", "last 1/8", "every 3 after 1/8")  # use_more_bits in llama-quant.cpp
_PLACE = re.compile(r"(first|last|every) ([1-9]\d{0,5})(?:/([1-9]\d{0,5}))?(?: after (\d{1,6})/([1-9]\d{0,5}))?")


def _places(text: str, at: str) -> list[Callable[[Position], bool]]:
    """One place, or several ("more bits"); shares are rounded down, as llama.cpp has them."""
    if text == "more bits":
        return [place for part in _MORE_BITS for place in _places(part, at)]
    found = _PLACE.fullmatch(text)
    word, *numbers = found.groups() if found else ("",)
    a, b, c, d = (int(number) if number else 0 for number in numbers or ("",) * 4)
    share, after = bool(b), bool(d)
    if not found or (share and (a > b or word == "every")) or (after and (c > d or word != "every")):
        raise UsageError(f'{at}: {shown(text)} is no place such as "first 1/8", "last 2", "every 3 after 1/8" or "more bits"')
    if word == "first":
        return [lambda at: at.rank < (a * at.total // b if share else a)]
    if word == "last":
        return [lambda at: at.rank >= ((b - a) * at.total // b if share else at.total - a)]

    def every(at: Position) -> bool:
        past = at.rank - (c * at.total // d if after else 0)
        return past >= 0 and past % a == a - 1

    return [every]


_COMPARISONS = {
    ">=": (operator.ge, "at least "), "<=": (operator.le, "at most "), ">": (operator.gt, "more than "),
    "<": (operator.lt, "fewer than "), "=": (operator.eq, ""), "": (operator.eq, ""),
}  # fmt: skip
_COUNT = re.compile(r"(>=|<=|>|<|=|)\s*(\d{1,9})")


def _count(key: str, noun: str) -> Parser:
    def parse(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
        found = _COUNT.fullmatch(str(value)) if isinstance(value, int | str) and not isinstance(value, bool) else None
        if found is None:
            raise UsageError(f'{at}: {shown(value)} is no count such as 8 or ">=4"')
        (compare, said), number = _COMPARISONS[found[1]], int(found[2])
        return (lambda setting: bool(compare(getattr(setting, key), number))), f"with {said}{number} {noun}"

    return parse


def _whether(key: str, yes: str, no: str) -> Parser:
    def parse(value: Any, at: str) -> tuple[Callable[[Any], bool], str]:
        wanted = _flag(value, at)
        return (lambda subject: getattr(subject, key) == wanted), yes if wanted else no

    return parse


_PARSERS: Mapping[str, tuple[Parser, bool]] = MappingProxyType({  # the second member: is it about the model
    "role": (_roles, False),
    "tensors": (_tensors, False),
    "where": (_where, False),
    "stacked": (_whether("stacked", "several matrices in one", "a single matrix"), False),
    "fits": (_whether("fits", "where rows are whole blocks", "where rows are not whole blocks"), False),
    "was": (_types, False),
    "architecture": (_architectures, True),
    "blocks": (_count("blocks", "blocks"), True),
    "experts": (_count("experts", "experts"), True),
    "gqa": (_count("gqa", "heads to a key"), True),
    "tied": (_whether("tied", "where the embedding is the output", "where there is an output"), True),
    "importance": (_whether("importance", "with an importance matrix", "without importance matrix"), True),
})  # fmt: skip


def _table(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{at}: {shown(value)} is no table")
    return value


def _take(entries: dict[str, Any], key: str, at: str) -> Any:
    if key not in entries:
        raise UsageError(f"{at}: {key} is missing")
    return entries.pop(key)


def _texts(value: Any, at: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not 0 < len(texts) <= _MAX_TEXTS or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{at}: {shown(value)} is neither a text nor a list of 1 to {_MAX_TEXTS} texts")
    return tuple(texts)


def _flag(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{at}: {shown(value)} is neither true nor false")
    return value
