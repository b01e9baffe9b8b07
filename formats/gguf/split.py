"""Split GGUFs: `NAME-00001-of-00003.gguf` and its sisters, told apart and held together by the split.* keys.

As llama.cpp's gguf-split and converter write them: all metadata in the first part, only split keys in the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.errors import DamagedInput, UsageError
from hubclient.formats.gguf.constants import ALIGNMENT_KEY, MAX_SPLITS, SPLIT_COUNT, SPLIT_KEYS, SPLIT_NO, SPLIT_TENSORS
from hubclient.formats.model import TensorRef, TensorSpec, Value

if TYPE_CHECKING:
    from hubclient.formats.gguf.reader import Header

_PART_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def part_name(stem: str, number: int, count: int) -> str:
    """The file name of part `number` (from 0) of `count`; llama.cpp finds the other parts by it."""
    return f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"


def sisters(name: str) -> tuple[str, ...]:
    """The names of all parts of the set that a file called `name` is one of, by its name alone; just itself if it is none."""
    match = _PART_NAME.fullmatch(name)
    count = int(match["count"]) if match else 0
    return tuple(part_name(match["stem"], i, count) for i in range(count)) if match and 0 < count <= MAX_SPLITS else (name,)


def part_paths(header: Header) -> list[Path]:
    """Where all parts of the set lie that this file belongs to, in order; just the file itself if it is whole."""
    path = header.file.path
    count = _split_number(header, SPLIT_COUNT, default=0)
    if count <= 1:
        return [path]
    number = _split_number(header, SPLIT_NO)
    match = _PART_NAME.fullmatch(path.name)
    if match is None or (int(match["number"]), int(match["count"])) != (number + 1, count):
        raise DamagedInput(f"the file says that it is part {number + 1} of {count}, but its name does not", file=path)
    paths = [path.with_name(part_name(match["stem"], i, count)) for i in range(count)]
    missing = [part.name for part in paths if not os.path.exists(part)]  # noqa: PTH110  Path.exists may raise
    if missing:
        raise DamagedInput(f"{len(missing)} of {count} parts of this split are missing, the first is {missing[0]!r}", file=path)
    return paths


def join_parts(parts: Sequence[Header]) -> tuple[dict[str, Value], dict[str, TensorRef]]:
    """Metadata and tensors of a whole set, its parts in order. Raises DamagedInput where parts do not belong together."""
    metadata: dict[str, Value] = {key: value for key, value in parts[0].metadata.items() if key not in SPLIT_KEYS}
    tensors = dict(parts[0].tensors)
    for number, part in enumerate(parts[1:], 1):
        _check_belongs(part, number, parts[0])
        _merge_metadata(metadata, part)
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise DamagedInput(f"the tensor {min(twice)!r} is in an earlier part of this split too", file=part.file.path)
        tensors |= part.tensors
    if len(parts) > 1:
        _check_total(parts[0], len(tensors))
    return metadata, tensors


def group_by_size(tensors: Sequence[TensorSpec], limit: int | None) -> list[list[int]]:
    """Indices of the tensors of each part: a part is closed when the next tensor would carry it beyond `limit` bytes.

    Counts tensor bytes only, as the converter's --split-max-size does; a tensor larger than the limit gets its own part.
    """
    if limit is not None and limit <= 0:
        raise UsageError(f"a part of at most {limit} bytes cannot hold anything")
    groups: list[list[int]] = [[]]
    filled = 0
    for index, tensor in enumerate(tensors):
        if limit is not None and groups[-1] and filled + tensor.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += tensor.nbytes
    if len(groups) > MAX_SPLITS:
        raise UsageError(f"parts of {limit} bytes would make {len(groups)} files; a GGUF can be split into {MAX_SPLITS}")
    return groups


def group_by_part(parts: Sequence[int]) -> list[list[int]]:
    """Indices of the tensors of each part, by the number of the part of each; the first part of a split may have none."""
    groups: list[list[int]] = [[] for _ in range(max(parts, default=0) + 1)]
    for index, part in enumerate(parts):
        groups[part].append(index)
    return groups


def split_metadata(number: int, count: int, tensors: int) -> dict[str, Value]:
    """The keys by which part `number` (from 0) of `count` is known; `tensors` counts those of all parts."""
    return {SPLIT_NO: Value("u16", number), SPLIT_COUNT: Value("u16", count), SPLIT_TENSORS: Value("i32", tensors)}


def _split_number(header: Header, key: str, default: int | None = None) -> int:
    value = header.metadata.get(key)
    if value is None and default is not None:
        return default
    number = value.value if value is not None else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 0x7FFFFFFF:
        raise DamagedInput(f"the file is one part of a split, but its {key} is {number!r}", file=header.file.path)
    if key != SPLIT_TENSORS and number > MAX_SPLITS:
        raise DamagedInput(f"{key} is {number}; there are at most {MAX_SPLITS} parts", file=header.file.path)
    return number


def _check_belongs(part: Header, number: int, first: Header) -> None:
    for key, expected in (
        (SPLIT_COUNT, _split_number(first, SPLIT_COUNT)),
        (SPLIT_NO, number),
        (SPLIT_TENSORS, _split_number(first, SPLIT_TENSORS)),
    ):
        found = _split_number(part, key)
        if found != expected:
            raise DamagedInput(f"not a part of this split: its {key} is {found} where {expected} belongs", file=part.file.path)


def _merge_metadata(metadata: dict[str, Value], part: Header) -> None:
    """Add what only a later part says; each part has an alignment of its own."""
    for key, value in part.metadata.items():
        if key in SPLIT_KEYS or key == ALIGNMENT_KEY:
            continue
        if metadata.setdefault(key, value) != value:
            raise DamagedInput(f"not a part of this split: its {key} differs from that of an earlier part", file=part.file.path)


def _check_total(first: Header, found: int) -> None:
    claimed = _split_number(first, SPLIT_TENSORS)
    if claimed != found:
        raise DamagedInput(f"the split claims {claimed} tensors, its parts hold {found}", file=first.file.path)
