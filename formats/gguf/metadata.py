"""The key-value section of a GGUF file, read into `Value`s."""

from __future__ import annotations

from hubclient.formats.gguf.constants import ARRAY, MAX_DEPTH, MAX_KEY, MAX_KEYS, MAX_NESTED, NUMBER_CODES, VALUE_TYPES
from hubclient.formats.gguf.cursor import Cursor
from hubclient.formats.gguf.values import NumberArray
from hubclient.formats.model import Value
from hubclient.ground.names import shown

_SMALLEST_PAIR = 8 + 1 + 4 + 1  # key length, one byte of key, type, one byte of value


def read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    """The next `count` pairs, in file order."""
    if count > MAX_KEYS or count * _SMALLEST_PAIR > cursor.size - cursor.pos:
        raise cursor.damaged(f"the header claims {count} metadata keys in a file of {cursor.size} bytes")
    reader = _ValueReader(cursor)
    metadata: dict[str, Value] = {}
    for index in range(count):
        cursor.at = f"metadata pair {index}"
        key = cursor.text(MAX_KEY)
        if key in metadata:
            raise cursor.damaged(f"the metadata key {shown(key)} occurs twice")
        cursor.at = f"the value of {shown(key)}"
        metadata[key] = reader.value()
    return metadata


class _ValueReader:
    """Reads values of any type, and counts nested arrays over the whole file."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.nested = 0

    def value(self) -> Value:
        code = self.cursor.u32()
        if code == ARRAY:
            return self._array(1)
        name = self._type(code)
        if name == "str":
            return Value(name, str(self.cursor.take(self.cursor.u64()), "utf-8", "surrogateescape"))
        number = self.cursor.number(NUMBER_CODES[name])
        return Value(name, self._boolean(int(number)) if name == "bool" else number)

    def _type(self, code: int) -> str:
        name = VALUE_TYPES.get(code)
        if name is None:
            raise self.cursor.damaged(f"{self.cursor.at} has the unknown type {code}")
        return name

    def _boolean(self, byte: int) -> bool:
        if byte > 1:
            raise self.cursor.damaged(f"{self.cursor.at} is a boolean stored as {byte}; only 0 and 1 are")
        return byte == 1

    def _array(self, depth: int) -> Value:
        code, count = self.cursor.u32(), self.cursor.u64()
        if code == ARRAY:
            return self._arrays(count, depth + 1)
        name = self._type(code)
        if name == "str":
            return Value("[str]", self.cursor.strings(count))
        width = self.cursor.width(NUMBER_CODES[name])
        data = self.cursor.take(count * width)
        if name == "bool" and data.translate(None, b"\0\1"):
            raise self.cursor.damaged(f"{self.cursor.at} has booleans that are neither 0 nor 1")
        return Value(f"[{name}]", NumberArray.unpack(name, data, self.cursor.byteorder))

    def _arrays(self, count: int, depth: int) -> Value:
        """An array of `count` arrays; ggml reads none, the specification allows them."""
        self.nested += count
        if depth > MAX_DEPTH or self.nested > MAX_NESTED:
            raise self.cursor.damaged(f"{self.cursor.at} nests arrays deeper than {MAX_DEPTH} or more than {MAX_NESTED} of them")
        inner = [self._array(depth) for _ in range(count)]
        if len({value.type for value in inner}) > 1:
            raise self.cursor.damaged(f"{self.cursor.at} mixes arrays of different types")
        # the file does not say what an empty array of arrays would hold
        return Value(f"[{inner[0].type if inner else '[u8]'}]", tuple(value.value for value in inner))
