"""What `cache ls` is asked to show: conditions such as size>1GB, used>90d, type=dataset, and an order."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from hubclient.cache.catalog.summary import RepoSummary
from hubclient.errors import UsageError
from hubclient.ground.names import shown

_CONDITION = re.compile(r"\s*([a-z]+)\s*(==|!=|>=|<=|=|>|<)\s*(\S.*?)\s*", re.IGNORECASE)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType({
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
})  # fmt: skip
_EQUALITY = ("=", "==", "!=")
_AMOUNT = re.compile(r"(\d{1,18}(?:\.\d{0,9})?)\s*([a-z]*)", re.IGNORECASE)
_SIZES = {"": 1, "b": 1, **{letter: 1 << 10 * power for power, letter in enumerate("kmgt", 1)}}
_SIZES |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
_SIZES |= {f"{letter}ib": 1 << 10 * power for power, letter in enumerate("kmgt", 1)}
_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "mo": 2_592_000, "y": 31_536_000}
_SAME = {"accessed": "used", "refs": "ref"}  # what huggingface_hub calls them
_HINT = "conditions are such as size>1GB, used>90d, modified<2w, type=model, ref=main, name=llama, pinned=yes"
_SORTS: Mapping[str, Callable[[RepoSummary], tuple[float, str] | tuple[str, str]]] = MappingProxyType({
    "name": lambda row: (row.repo.name.lower(), row.repo.type),
    "size": lambda row: (-row.size, str(row.repo)),
    "used": lambda row: (-row.used, str(row.repo)),
    "modified": lambda row: (-row.modified, str(row.repo)),
})  # fmt: skip

Test = Callable[[RepoSummary], bool]


def condition(text: str, now: float) -> Test:
    """A test of a summary. UsageError with what conditions there are.

    `used>90d` and `modified>90d` are ages: longer ago than that. `name=` finds a part of the name, in any case.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"{shown(text)} is no condition", hint=_HINT)
    key, sign, value = match[1].lower(), match[2], match[3]
    key = _SAME.get(key, key)
    if key == "size":
        return _compared(lambda row: row.size, sign, _amount(text, value, _SIZES))
    if key in ("used", "modified"):
        return _compared(lambda row: now - getattr(row, key), sign, _amount(text, value, _AGES))
    if key not in _WORDS or sign not in _EQUALITY:
        raise UsageError(f"{shown(text)}: there is no condition on {shown(key)} with {sign}", hint=_HINT)
    holds = _WORDS[key]
    return lambda row: holds(row, value.lower()) == (sign != "!=")


def ordered(rows: list[RepoSummary], sort: str) -> list[RepoSummary]:
    """By "name", or by "size", "used" or "modified" with the largest or latest first; ":asc" or ":desc" says otherwise."""
    key, _, direction = sort.lower().partition(":")
    key = _SAME.get(key, key)
    if key not in _SORTS or direction not in ("", "asc", "desc"):
        raise UsageError(f"there is no order {shown(sort)}", hint=f"orders: {', '.join(_SORTS)}, each with :asc or :desc")
    usual = "asc" if key == "name" else "desc"
    return sorted(rows, key=_SORTS[key], reverse=(direction or usual) != usual)


def concerns_use(filters: Sequence[str], sort: str) -> bool:
    """Whether conditions or an order, which were found good, ask when repositories were last used."""
    keys = [match[1] for text in filters if (match := _CONDITION.fullmatch(text))]
    return any(_SAME.get(key.lower(), key.lower()) == "used" for key in (*keys, sort.partition(":")[0]))


def age(text: str) -> float | None:
    """A time span such as 90d in seconds, a bare number being days; None if it is none."""
    match = _AMOUNT.fullmatch(text.strip())
    unit = _AGES.get(match[2].lower() or "d") if match else None
    return float(match[1]) * unit if match and unit else None


def _compared(value: Callable[[RepoSummary], float], sign: str, bound: float) -> Test:
    compare = _OPERATORS[sign]
    return lambda row: compare(value(row), bound)


def _amount(text: str, value: str, units: Mapping[str, int]) -> float:
    match = _AMOUNT.fullmatch(value)
    unit = units.get(match[2].lower(), math.nan) if match else math.nan
    if match is None or math.isnan(unit):
        raise UsageError(f"{shown(text)}: {shown(value)} has none of the units {', '.join(filter(None, units))}", hint=_HINT)
    return float(match[1]) * unit


_WORDS: Mapping[str, Callable[[RepoSummary, str], bool]] = MappingProxyType({
    "type": lambda row, value: row.repo.type == value,
    "ref": lambda row, value: value in (ref.lower() for ref in row.refs),
    "name": lambda row, value: value in row.repo.name.lower(),
    "pinned": lambda row, value: row.pinned == (value in ("yes", "true", "1")),
})  # fmt: skip
