"""Metadata values as the bytes of a GGUF v3 file, little-endian: the inverse of `metadata`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubclient.errors import DamagedInput, Unsupported
from hubclient.formats.gguf.constants import ARRAY, MAX_KEY, NUMBER_CODES, VALUE_CODES
from hubclient.formats.gguf.values import NumberArray, PackedArray
from hubclient.formats.model import Value
from hubclient.ground.names import shown

_LENGTH = struct.Struct("<Q").pack


def pack_metadata(metadata: Mapping[str, Value]) -> bytes:
    """All pairs in the given order. Raises DamagedInput naming the key whose value its type cannot hold."""
    return b"".join(_pack_pair(key, value) for key, value in metadata.items())


def pack_name(name: str, limit: int) -> bytes:
    """A metadata key or tensor name with its length. Raises Unsupported for what no GGUF may hold."""
    try:
        data = name.encode("utf-8")
    except UnicodeEncodeError:
        raise Unsupported(f"GGUF cannot hold the name {shown(name)}: a lone surrogate is no text in UTF-8") from None
    if not 0 < len(data) <= limit or b"\0" in data:
        raise Unsupported(f"GGUF cannot hold the name {shown(name)} of {len(data)} bytes; 1 to {limit} are allowed, no NUL")
    return _LENGTH(len(data)) + data


def _pack_pair(key: str, value: Value) -> bytes:
    try:
        return pack_name(key, MAX_KEY) + _pack_value(*value)
    except UnicodeEncodeError:
        raise DamagedInput(f"the value of the key {shown(key)} has a lone surrogate, which is no text in UTF-8") from None
    except (struct.error, OverflowError, TypeError, AttributeError) as error:
        raise DamagedInput(f"the value of the key {shown(key)} does not fit its type {value.type}: {error}") from None


def _pack_text(text: str) -> bytes:
    """A string with its length; surrogates U+DC80..U+DCFF become the bytes that they stand for."""
    data = text.encode("utf-8", "surrogateescape")
    return _LENGTH(len(data)) + data


def _pack_value(kind: str, value: Any) -> bytes:
    if kind.startswith("["):
        return struct.pack("<I", ARRAY) + _pack_array(kind[1:-1], value)
    code = _code(kind)
    return code + (_pack_text(value) if kind == "str" else _pack_numbers(kind, (value,)))


def _pack_array(inner: str, items: Sequence[Any]) -> bytes:
    """The type of the elements, their number, and the elements."""
    count = _LENGTH(len(items))
    if inner.startswith("["):
        return struct.pack("<I", ARRAY) + count + b"".join(_pack_array(inner[1:-1], item) for item in items)
    return _code(inner) + count + _pack_items(inner, items)


def _pack_items(inner: str, items: Sequence[Any]) -> bytes:
    if isinstance(items, PackedArray) and inner == (items.kind if isinstance(items, NumberArray) else "str"):
        return items.packed
    if inner == "str":
        return b"".join(map(_pack_text, items))
    return _pack_numbers(inner, items)


def _pack_numbers(kind: str, numbers: Sequence[Any]) -> bytes:
    if kind == "bool":
        _require_booleans(numbers)
    return struct.pack(f"<{len(numbers)}{NUMBER_CODES[kind]}", *numbers)


def _require_booleans(items: Iterable[Any]) -> None:
    for item in items:
        if item not in (True, False):
            raise TypeError(f"{item!r} is no boolean")


def _code(kind: str) -> bytes:
    if kind not in VALUE_CODES:
        raise TypeError("GGUF has no such type")
    return struct.pack("<I", VALUE_CODES[kind])
