"""A GGUF's `tokenizer.*` keys as one checked table, with what llama.cpp assumes where a key is missing.

Source of the defaults: llama_vocab::impl::load in llama.cpp's src/llama-vocab.cpp.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import gguf
from hubclient.formats.tokenizers.model import (
    BYTE,
    CONTROL,
    MAX_TOKEN_CHARS,
    MAX_TOKENS,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    pad_token,
)
from hubclient.formats.tokenizers.parts import Placed
from hubclient.formats.tokenizers.special import FLAG_KEYS, ID_KEYS, PREFIX
from hubclient.ground.names import shown

CLS_KEY = PREFIX + "cls_token_id"  # older files
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {  # llama.cpp's, for keys that a file lacks
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103},
    "t5": {"eos": 1, "unk": 2, "pad": 0},
}


@dataclass(frozen=True, slots=True)
class Table:
    """A file's keys, checked: the token table without its padding, and what was said of the tokens."""

    model: str
    pre: str | None
    texts: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    ids: Mapping[str, int]
    flags: Mapping[str, bool]
    metadata: Mapping[str, Value]
    source: str

    def placed(self, role: str, *others: str) -> Placed | None:
        """The text and id of the first of these roles that has one."""
        index = next((self.ids[name] for name in (role, *others) if name in self.ids), None)
        return None if index is None else (self.texts[index], index)

    def setting(self, key: str, default: bool) -> bool:
        """A boolean key."""
        value = self.metadata.get(key)
        return bool(value.value) if value is not None and value.type == "bool" else default


def is_added(kind: int) -> bool:
    """Whether llama.cpp looks for a token of this type in raw text."""
    return kind in (CONTROL, UNKNOWN, USER_DEFINED)


def read_table(metadata: Mapping[str, Value], source: str) -> Table:
    """The keys as a table. The padding at its end, rows that no token has, is left out."""
    model = text_of(metadata, gguf.MODEL, source)
    if model is None:
        raise DamagedInput(f"has no {gguf.MODEL}", file=source)
    pre = text_of(metadata, gguf.PRE, source)
    texts = _texts(metadata, gguf.TOKENS, source)
    if not texts:
        raise DamagedInput(f"has no {gguf.TOKENS}", file=source)
    _check_texts(texts, source)
    types = _types(metadata, len(texts), source)
    scores = _scores(metadata, len(texts), source)
    merges = _texts(metadata, gguf.MERGES, source) if gguf.MERGES in metadata else None
    ids = _ids(metadata, model, len(texts))
    count = len(texts)
    while count > 1 and types[count - 1] == UNUSED and texts[count - 1] == pad_token(count - 1) and count - 1 not in ids.values():
        count -= 1
    flags = {role: bool(metadata[key].value) for role, key in FLAG_KEYS.items() if _is_bool(metadata.get(key))}
    texts, types = _with_mask(texts[:count], types[:count], ids)
    return Table(model, pre, texts, types, scores[:count] if scores is not None else None, merges, ids, flags, metadata, source)


def _is_bool(value: Value | None) -> bool:
    return value is not None and value.type == "bool"


def text_of(metadata: Mapping[str, Value], key: str, source: str) -> str | None:
    """The value of a key that must be text, None if the key is missing."""
    value = metadata.get(key)
    if value is None:
        return None
    if value.type != "str":
        raise DamagedInput(f"has a {key} of type {value.type}", file=source)
    return str(value.value)


def _texts(metadata: Mapping[str, Value], key: str, source: str) -> list[str]:
    value = metadata.get(key)
    if value is None:
        return []
    if value.type != "[str]":
        raise DamagedInput(f"has {key} of type {value.type}, where texts were expected", file=source)
    return list(value.value)


def _check_texts(texts: Sequence[str], source: str) -> None:
    if len(texts) > MAX_TOKENS:
        raise DamagedInput(f"has {len(texts)} tokens; {MAX_TOKENS} are the most", file=source)
    if max(map(len, texts)) > MAX_TOKEN_CHARS:
        raise DamagedInput(f"has a token of more than {MAX_TOKEN_CHARS} characters", file=source)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        odd = next(index for index, text in enumerate(texts) if any("\ud800" <= char <= "\udfff" for char in text))
        raise DamagedInput(f"has the token {odd}, which is not UTF-8; no Hugging Face file can hold it", file=source) from None
    if len(set(texts)) != len(texts):
        seen: dict[str, int] = {}
        for index, text in enumerate(texts):
            if seen.setdefault(text, index) != index:
                raise DamagedInput(f"has {shown(text)} both as token {seen[text]} and as token {index}", file=source)


def _types(metadata: Mapping[str, Value], count: int, source: str) -> list[int]:
    value = metadata.get(gguf.TYPES)
    if value is None:
        return [NORMAL] * count
    types = _numbers(value, gguf.TYPES, count, source)
    return [int(kind) if NORMAL <= kind <= BYTE else NORMAL for kind in types]


def _scores(metadata: Mapping[str, Value], count: int, source: str) -> Sequence[float] | None:
    value = metadata.get(gguf.SCORES)
    if value is None:
        return None
    scores = array("f", [_single(score, source) for score in _numbers(value, gguf.SCORES, count, source)])
    if not all(map(math.isfinite, scores)):
        index = next(index for index, score in enumerate(scores) if not math.isfinite(score))
        raise DamagedInput(f"gives token {index} the score {scores[index]}", file=source)
    return scores


def _single(score: float, source: str) -> float:
    if abs(score) > 3.4e38 and math.isfinite(score):
        raise DamagedInput(f"has the score {score}, which is no 32-bit float", file=source)
    return score


def _numbers(value: Value, key: str, count: int, source: str) -> list[Any]:
    if not value.type.startswith("[") or value.type in ("[str]", "[bool]") or value.type.startswith("[["):
        raise DamagedInput(f"has {key} of type {value.type}, where numbers were expected", file=source)
    numbers = list(value.value)
    if len(numbers) < count:
        raise DamagedInput(f"has {count} tokens but only {len(numbers)} values in {key}", file=source)
    return numbers[:count]


def _ids(metadata: Mapping[str, Value], model: str, count: int) -> dict[str, int]:
    """Special ids by role; like llama.cpp, an id that is no token's counts as none."""
    ids = dict(_DEFAULT_IDS.get(model, {}))
    for role, key in {**ID_KEYS, "cls": CLS_KEY}.items():
        value = metadata.get(key)
        if value is not None and type(value.value) is int:
            ids[role] = value.value
    if model == "bert":
        ids.setdefault("cls", ids["bos"])
    return {role: index for role, index in ids.items() if 0 <= index < count}


def _with_mask(texts: list[str], types: list[int], ids: Mapping[str, int]) -> tuple[list[str], list[int]]:
    """XLM-RoBERTa's <mask> back in the row that the converter leaves to padding."""
    mask = ids.get("mask", len(texts))
    if mask < len(texts) and types[mask] == UNUSED and texts[mask].startswith("[PAD") and "<mask>" not in texts:
        texts[mask], types[mask] = "<mask>", CONTROL
    return texts, types


def charsmap_of(table: Table) -> bytes:
    """The character map of a Unigram vocabulary, empty if there is none."""
    value = table.metadata.get(gguf.CHARSMAP)
    if value is None:
        return b""
    numbers = _numbers(value, gguf.CHARSMAP, 0, table.source) if value.type not in ("[u8]", "[i8]") else list(value.value)
    try:
        data = bytes(number & 0xFF for number in numbers)
    except TypeError:
        data = b""
    if len(data) < 4 or 4 + int.from_bytes(data[:4], "little") > len(data):
        raise DamagedInput(f"has a {gguf.CHARSMAP} of {len(data)} bytes that is not a whole character map", file=table.source)
    return data
