"""The wire format of protocol buffers, as much of it as SentencePiece models use, with every length checked.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")
_U64 = (1 << 64) - 1


class WireError(ValueError):
    """What is wrong, and at which byte; the caller knows the file's name."""

    def __init__(self, fault: str, offset: int) -> None:
        super().__init__(fault)
        self.offset = offset


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The unsigned number at `position` and where it ends; at most 10 bytes, as the format has it."""
    value = shift = 0
    for place in range(position, min(end, position + 10)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64, place + 1
        shift += 7
    if end - position >= 10:
        raise WireError("has a number of more than 10 bytes", position)
    raise WireError("ends inside a number", position)


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message in `data[start:end]`: number, wire type, and where the value starts and ends."""
    position, end = start, len(data) if end is None else end
    while position < end:
        at = position
        tag, position = read_varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise WireError(f"has a field numbered {number}", at)
        if wire == VARINT:
            first = position
            position = read_varint(data, position, end)[1]
        elif wire in (FIXED32, FIXED64):
            first, position = position, position + (4 if wire == FIXED32 else 8)
        elif wire == BYTES:
            length, first = read_varint(data, position, end)
            position = first + length
        else:
            raise WireError(f"has a field of wire type {wire}", at)
        if position > end:
            raise WireError(f"ends inside field {number}", at)
        yield number, wire, first, position


def varint_of(data: bytes, start: int, end: int) -> int:
    """A signed 64-bit number."""
    value = read_varint(data, start, end)[0]
    return value - (1 << 64) if value >> 63 else value


def float_of(data: bytes, start: int) -> float:
    """A 32-bit float."""
    return float(_FLOAT.unpack_from(data, start)[0])


def varint(value: int) -> bytes:
    """`value` (negative ones as 64-bit two's complement) as a varint."""
    value &= _U64
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def varint_field(number: int, value: int) -> bytes:
    """A field that holds a number, a boolean or an enumeration."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds bytes, text or a message."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def float_field(number: int, value: float) -> bytes:
    """A field that holds a 32-bit float."""
    return varint(number << 3 | FIXED32) + _FLOAT.pack(value)
