"""Strict JSON: what every config, index, header and tokenizer file is read with, and how we write it.

Untrusted text is bounded in size, depth and number of values before or right after parsing; UTF-8 only; no duplicate
keys. Each fault is a DamagedInput that names the file.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from hubclient.errors import DamagedInput
from hubclient.ground.names import shown

MAX_DEPTH = 128  # real files stay below 20
# `[[],[],...]` takes 25 times its size in memory, so the number of values is bounded as well as the size. The longest
# real files (tokenizer.json of 260 k tokens and 510 k merges, headers of 280 k tensors) have 2 million.
MAX_VALUES = 4_000_000
MAX_DIGITS = 4300  # the interpreter's own limit, which its user may have lifted; int() of text takes quadratic time

_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
_TOO_LONG = f"holds an integer of more than {MAX_DIGITS} digits"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Fault(Exception):
    """What is wrong, and at which byte if known; found where the file's name is not."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


def parse_json(
    data: bytes, name: Path | str, *, allow_nonfinite: bool = False, part: str = "", start: int = 0, most: int = MAX_VALUES
) -> Any:
    """The JSON value in `data`; `name` is what DamagedInput calls the file.

    If the JSON is one part of a file, `part` says which ("the header ") and `start` at which byte it begins. `most`: values.
    """
    try:
        return _parse(data, allow_nonfinite, most)
    except _Fault as fault:
        offset = None if fault.offset is None else start + fault.offset
        raise DamagedInput(f"{part}{fault}", file=name, offset=offset) from fault


def parse_object(
    data: bytes, name: Path | str, *, allow_nonfinite: bool = False, part: str = "", start: int = 0
) -> dict[str, Any]:
    """Like `parse_json`, for data whose top level must be an object."""
    value = parse_json(data, name, allow_nonfinite=allow_nonfinite, part=part, start=start)
    if not isinstance(value, dict):
        raise DamagedInput(f"{part}holds {_KINDS.get(type(value), 'a number')} where a JSON object was expected", file=name)
    return value


def write_json(value: Any) -> bytes:
    """`value` as Transformers writes its JSON files: two spaces, UTF-8 unescaped, a final newline, keys as they come."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


_KINDS = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}


def _parse(data: bytes, allow_nonfinite: bool, most: int) -> Any:
    try:
        _bound_values(data, most)
        value = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=None if 0 < sys.get_int_max_str_digits() <= MAX_DIGITS else _integer,
            parse_float=None if allow_nonfinite else _finite,
            parse_constant=None if allow_nonfinite else _refuse_constant,
        )
        _bound_depth(value)
        _check_text(data, value)
    except UnicodeDecodeError as error:
        raise _Fault(f"is not UTF-8: {error.reason} at byte {error.start}", error.start) from error
    except json.JSONDecodeError as error:
        raise _not_json(error) from error
    except RecursionError as error:
        raise _Fault(_TOO_DEEP) from error
    except ValueError as error:  # what int() says of too many digits
        raise _Fault(_TOO_LONG) from error
    return value


def _bound_values(data: bytes, most: int) -> None:
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise _Fault(f"holds more than {most:,} values")


def _bound_depth(value: Any) -> None:
    """A depth that does not vary with the interpreter's own limit, and that spares later readers."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer if type(outer) is list else ())
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise _Fault(_TOO_DEEP)


def _check_text(data: bytes, value: Any) -> None:
    """Half of a surrogate pair is no text: it could not be written again, nor shown."""
    if _SURROGATE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _Fault("holds half of a surrogate pair, which is not Unicode text") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Fault(f"has the key {shown(twice)} twice in one object")
    return keys


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Fault(_TOO_LONG)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Fault(f"holds the number {shown(digits)}, which no double can hold")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise _Fault(f"holds {name}, which is not a JSON number")


def _not_json(error: json.JSONDecodeError) -> _Fault:
    if not error.doc.strip():
        return _Fault("is empty where JSON was expected", 0)
    offset = len(error.doc[: error.pos].encode())
    return _Fault(f"is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}", offset)
