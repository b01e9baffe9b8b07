"""Several files that are one checkpoint: the index beside them, and the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hubclient.errors import DamagedInput
from hubclient.formats.model import SourceFile
from hubclient.formats.safetensors.header import Header
from hubclient.formats.sourcefile import read_source, source_file
from hubclient.ground.names import safe_relative, shown
from hubclient.ground.strictjson import parse_object

INDEX_SUFFIX = ".safetensors.index.json"
INDEX_LIMIT = 100_000_000  # as for a header: it lists as many tensors

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})\.safetensors", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Index:
    """Which file (relative to the index's folder) holds which tensors."""

    source: SourceFile
    shards: Mapping[str, frozenset[str]]


def read_index(path: Path) -> Index:
    """The checked index at `path`: a `weight_map` of tensor names to safe file names, in a complete set.

    `metadata.total_size` is not held against the files: published checkpoints state it wrongly (tied weights, rounded
    to a float) and nothing depends on it.
    """
    data, state = read_source(path, INDEX_LIMIT)
    weight_map = parse_object(data, path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedInput("has no weight_map of tensor names to file names", file=path)
    shards: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if type(name) is not str:
            raise DamagedInput(f"maps tensor {shown(tensor)} to {shown(name)}, not to a file name", file=path, tensor=tensor)
        shards.setdefault(name, set()).add(tensor)
    taken: set[str] = set()
    for name in sorted(shards):
        safe_relative(name, source=path, taken=taken)
    check_numbers(shards, path)
    return Index(source_file(path, state, data), MappingProxyType({name: frozenset(shards[name]) for name in sorted(shards)}))


def check_index(index: Index, headers: Mapping[str, Header]) -> None:
    """Raises DamagedInput unless each shard holds the tensors that the index says, and no others."""
    for name, expected in index.shards.items():
        held = headers[name].tensors.keys()
        if absent := sorted(expected - held):
            fault = f"says that tensor {shown(absent[0])}{_more(absent)} is in {name}, which does not hold it"
            raise DamagedInput(fault, file=index.source.path, tensor=absent[0])
        if extra := sorted(held - expected):
            fault = f"does not say that tensor {shown(extra[0])}{_more(extra)} is in {name}, which holds it"
            raise DamagedInput(fault, file=index.source.path, tensor=extra[0])


def check_numbers(names: Iterable[str], source: Path) -> None:
    """Raises DamagedInput if names like `model-00001-of-00004.safetensors` are no complete set (from 0 or 1)."""
    sets: dict[str, tuple[set[int], set[int]]] = {}
    for match in filter(None, map(_NUMBERED.fullmatch, names)):
        numbers, totals = sets.setdefault(match["stem"], (set(), set()))
        numbers.add(int(match["number"]))
        totals.add(int(match["total"]))
    for stem, (numbers, totals) in sets.items():
        total = max(totals)
        if len(totals) > 1:
            raise DamagedInput(f"mixes shards of {shown(stem)} from sets of {min(totals)} and of {total}", file=source)
        if max(numbers) > total:
            raise DamagedInput(f"has shard {max(numbers)} of {shown(stem)}, a set of {total}", file=source)
        if len(numbers) < total:
            gap = next(number for number in range(1, total + 1) if number not in numbers)
            raise DamagedInput(f"has {len(numbers)} of the {total} shards of {shown(stem)}; {gap} is missing", file=source)


def shard_stem(name: str) -> str | None:
    """What precedes the number in a shard's name; None if it has none."""
    match = _NUMBERED.fullmatch(name)
    return match["stem"] if match else None


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
