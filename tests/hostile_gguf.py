"""GGUF bytes written by hand, right or wrong; knows nothing of hubclient's writer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


@dataclass(frozen=True)
class Bytes:
    """Writes parts of a GGUF in one byte order."""

    order: str = "<"

    def pack(self, codes: str, *values: int | float) -> bytes:
        return struct.pack(self.order + codes, *values)

    def string(self, text: str | bytes, length: int | None = None) -> bytes:
        """`length` is what the file claims, if not the truth."""
        data = text.encode() if isinstance(text, str) else text
        return self.pack("Q", len(data) if length is None else length) + data

    def pair(self, key: str | bytes, kind: int, value: bytes, *, key_length: int | None = None) -> bytes:
        return self.string(key, key_length) + self.pack("I", kind) + value

    def array(self, key: str, kind: int, count: int, body: bytes) -> bytes:
        return self.pair(key, ARRAY, self.pack("IQ", kind, count) + body)

    def text(self, key: str, value: str | bytes) -> bytes:
        return self.pair(key, STRING, self.string(value))

    def tensor(self, name: str | bytes, dims: Sequence[int] = (4,), kind: int = 0, offset: int = 0) -> bytes:
        """An entry; `dims` fastest first; kind 0 is F32."""
        return self.string(name) + self.pack(f"I{len(dims)}Q", len(dims), *dims) + self.pack("IQ", kind, offset)

    def file(
        self,
        pairs: Sequence[bytes] = (),
        tensors: Sequence[bytes] = (),
        data: bytes = b"",
        *,
        magic: bytes = b"GGUF",
        version: int = 3,
        tensor_count: int | None = None,
        pair_count: int | None = None,
        alignment: int = 32,
    ) -> bytes:
        """A whole file; the counts are what the header claims, if not the truth."""
        counts = (len(tensors) if tensor_count is None else tensor_count, len(pairs) if pair_count is None else pair_count)
        head = magic + self.pack("IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
        return head + bytes(-len(head) % alignment) + data


LITTLE, BIG = Bytes("<"), Bytes(">")


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def ordinary(make: Bytes = LITTLE) -> bytes:
    """A small right file with every kind of value and two tensors."""
    pairs = [
        make.text("general.architecture", "llama"),
        make.pair("a.u8", U8, make.pack("B", 200)),
        make.pair("a.i8", I8, make.pack("b", -100)),
        make.pair("a.u16", U16, make.pack("H", 60000)),
        make.pair("a.i16", I16, make.pack("h", -30000)),
        make.pair("a.u32", U32, make.pack("I", 4_000_000_000)),
        make.pair("a.i32", I32, make.pack("i", -2_000_000_000)),
        make.pair("a.u64", U64, make.pack("Q", 2**64 - 1)),
        make.pair("a.i64", I64, make.pack("q", -(2**63))),
        make.pair("a.f32", F32, make.pack("f", 0.1)),
        make.pair("a.f64", F64, make.pack("d", 0.1)),
        make.pair("a.yes", BOOL, b"\1"),
        make.array("a.words", STRING, 3, make.string("one") + make.string("") + make.string("dreißig")),
        make.array("a.sections", I32, 4, make.pack("4i", 16, 24, -24, 0)),
        make.array("a.flags", BOOL, 3, b"\1\0\1"),
        make.array("a.none", F32, 0, b""),
    ]
    tensors = [make.tensor("first.weight", (3, 2)), make.tensor("second.weight", (32, 2), 8, 32)]
    return make.file(pairs, tensors, make.pack("6f", *range(6)) + bytes(8) + bytes(68) + bytes(28))
