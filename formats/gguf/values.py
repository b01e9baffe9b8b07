"""Arrays of a GGUF file as Python sequences that stay packed until an element is asked for.

A vocabulary has hundreds of thousands of strings; finding where each ends is cheap, making a `str` of each is not.
Both kinds hold their bytes in the form that the writer needs, so copying an array decodes nothing.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

from hubclient.formats.gguf.constants import NUMBER_CODES

T = TypeVar("T")


class PackedArray(Sequence[T]):
    """An immutable sequence over the packed bytes of an array; equal to any sequence with equal elements."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have no hash either

    @property
    def packed(self) -> bytes:
        """The elements as GGUF v3 stores them in little-endian order, without the type and count before them."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self) and isinstance(other, PackedArray) and self.packed == other.packed:
            return True
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(repr(item) for item in self[:8])
        return f"[{shown}{', ...' if len(self) > 8 else ''}]"


class StringArray(PackedArray[str]):
    """Strings, decoded on access: `body` is each string's u64 length and bytes, `ends[i]` where string i ends in it.

    Bytes that are no UTF-8 become surrogates U+DC80..U+DCFF (Python's surrogateescape) and survive a round trip.
    """

    __slots__ = ("_body", "_ends")

    def __init__(self, body: bytes, ends: array[int]) -> None:
        self._body = body
        self._ends = ends

    @property
    def packed(self) -> bytes:
        """Length-prefixed strings, one after the other."""
        return self._body

    def raw(self, index: int) -> bytes:
        """The bytes of one string, `0 <= index < len(self)`."""
        start = self._ends[index - 1] if index else 0
        return self._body[start + 8 : self._ends[index]]

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        body, start = self._body, 8
        for end in self._ends:
            yield str(body[start:end], "utf-8", "surrogateescape")
            start = end + 8

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        place = range(len(self._ends))[index]
        if isinstance(place, range):
            return [self[i] for i in place]
        return str(self.raw(place), "utf-8", "surrogateescape")


class NumberArray(PackedArray[Any]):
    """Numbers of one GGUF type (`kind`: "u32", "f32", "bool", ...), plain Python values on access.

    `items` is the `array.array` beneath, in the machine's byte order: `numpy.frombuffer(a.items, ...)` shares it.
    """

    __slots__ = ("items", "kind")

    def __init__(self, kind: str, items: array[Any]) -> None:
        self.kind = kind
        self.items = items

    @classmethod
    def unpack(cls, kind: str, data: bytes, byteorder: str = "little") -> NumberArray:
        """From the bytes of an array in a file of that byte order."""
        items: array[Any] = array(NUMBER_CODES[kind], data)
        if byteorder != sys.byteorder:
            items.byteswap()
        return cls(kind, items)

    @property
    def packed(self) -> bytes:
        """The numbers in little-endian order."""
        items = self.items
        if sys.byteorder != "little":
            items = items[:]
            items.byteswap()
        return items.tobytes()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return map(bool, self.items) if self.kind == "bool" else iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self.items[index]
        if isinstance(found, array):
            return [bool(item) for item in found] if self.kind == "bool" else found.tolist()
        return bool(found) if self.kind == "bool" else found
