"""SentencePiece models (tokenizer.model, spiece.model): our own reader and writer of the one message they hold.

Source: sentencepiece's src/sentencepiece_model.proto. Pieces are read in full; of the two specifications only what
tokenizing depends on is interpreted, the rest is kept as it is.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.model import BYTE, MAX_TOKEN_CHARS, MAX_TOKENS, NORMAL
from hubclient.formats.tokenizers.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    WireError,
    bytes_field,
    fields,
    float_field,
    float_of,
    varint_field,
    varint_of,
)

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # ModelProto
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 4, 35, 40, 41, 42, 43  # TrainerSpec
_UNK_PIECE, _BOS_PIECE, _EOS_PIECE, _PAD_PIECE = 45, 46, 47, 48
_NAME, _CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 1, 2, 3, 4  # NormalizerSpec

_TEXT_TAG, _SCORE_TAG, _TYPE_TAG = 1 << 3 | BYTES, 2 << 3 | FIXED32, 3 << 3 | VARINT  # the fields of SentencePiece

_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """A SentencePiece model: texts, scores (32-bit floats) and types of its pieces, and its specifications.

    `trainer` and `normalizer` are the messages as bytes, the normalizer's without the character map, which is
    `charsmap`. `rest` are the model's other fields.
    """

    texts: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    trainer: bytes
    normalizer: bytes
    charsmap: bytes = b""
    rest: bytes = b""

    @property
    def algorithm(self) -> int:
        """UNIGRAM, BPE, or another number of TrainerSpec.ModelType."""
        return _number(self.trainer, _MODEL_TYPE, UNIGRAM)

    @property
    def unk_id(self) -> int:
        """The unknown piece's index."""
        return _number(self.trainer, _UNK_ID, 0)

    def special_ids(self) -> dict[str, int]:
        """The ids of unk, bos, eos and pad, those that it has and that are pieces."""
        numbers = {"unk": (_UNK_ID, 0), "bos": (_BOS_ID, 1), "eos": (_EOS_ID, 2), "pad": (_PAD_ID, -1)}
        ids = {role: _number(self.trainer, number, default) for role, (number, default) in numbers.items()}
        return {role: index for role, index in ids.items() if 0 <= index < len(self.texts)}

    @property
    def add_dummy_prefix(self) -> bool:
        """Whether a space is put before the text."""
        return bool(_number(self.normalizer, _ADD_DUMMY_PREFIX, 1))

    @property
    def remove_extra_whitespaces(self) -> bool:
        """Whether leading, trailing and repeated spaces are dropped."""
        return bool(_number(self.normalizer, _REMOVE_EXTRA_WHITESPACES, 1))


def is_tiktoken(data: bytes) -> bool:
    """Whether a file called tokenizer.model is not SentencePiece's but a list of base64 tokens and ranks."""
    return _TIKTOKEN.match(data) is not None


def parse_model(data: bytes, name: Path | str) -> SentencePieceModel:
    """The model in `data`. Raises DamagedInput, with `name` as the file, if it is none or not whole."""
    try:
        return _parse(data)
    except WireError as error:
        raise DamagedInput(f"is not a whole SentencePiece model: it {error}", file=name, offset=error.offset) from None


def write_model(model: SentencePieceModel) -> bytes:
    """The file's bytes; those that SentencePiece itself writes, for a model that it wrote."""
    parts = [bytes_field(_PIECES, _piece(*row)) for row in zip(model.texts, model.scores, model.types, strict=True)]
    parts.append(bytes_field(_TRAINER, model.trainer))
    parts.append(bytes_field(_NORMALIZER, _with_charsmap(model)))
    return b"".join(parts) + model.rest


def trainer_spec(algorithm: int, size: int, byte_fallback: bool, special: dict[str, tuple[int, str]]) -> bytes:
    """A trainer's specification that says what tokenizing needs; `special` maps unk, bos, eos, pad to id and text."""
    parts = [varint_field(_MODEL_TYPE, algorithm), varint_field(_VOCAB_SIZE, size), varint_field(_BYTE_FALLBACK, byte_fallback)]
    numbers = {"unk": _UNK_ID, "bos": _BOS_ID, "eos": _EOS_ID, "pad": _PAD_ID}
    parts += [varint_field(number, special[role][0] if role in special else -1) for role, number in numbers.items()]
    texts = {"unk": _UNK_PIECE, "bos": _BOS_PIECE, "eos": _EOS_PIECE, "pad": _PAD_PIECE}
    parts += [bytes_field(number, special[role][1].encode()) for role, number in texts.items() if role in special]
    return b"".join(parts)


def normalizer_spec(name: str, add_dummy_prefix: bool, remove_extra_whitespaces: bool) -> bytes:
    """A normalizer's specification, without a character map."""
    return (
        bytes_field(_NAME, name.encode())
        + varint_field(_ADD_DUMMY_PREFIX, add_dummy_prefix)
        + varint_field(_REMOVE_EXTRA_WHITESPACES, remove_extra_whitespaces)
    )


def _parse(data: bytes) -> SentencePieceModel:
    texts: list[str] = []
    scores, types = array("f"), array("b")
    specs: dict[int, bytes] = {}
    rest = []
    for number, wire, start, end in fields(data):
        if number == _PIECES and wire == BYTES:
            if len(texts) >= MAX_TOKENS:
                raise WireError(f"has more than {MAX_TOKENS:,} pieces", start)
            _read_piece(data, start, end, texts, scores, types)
        elif number in (_TRAINER, _NORMALIZER) and wire == BYTES:
            specs[number] = specs.get(number, b"") + data[start:end]  # a repeated message is merged
        elif wire == BYTES:
            rest.append(bytes_field(number, data[start:end]))
    _check(texts, specs, len(data))
    normalizer, charsmap = _without_charsmap(specs[_NORMALIZER])
    _number(specs[_TRAINER], _MODEL_TYPE, UNIGRAM)
    return SentencePieceModel(texts, scores, types, specs[_TRAINER], normalizer, charsmap, b"".join(rest))


def _check(texts: list[str], specs: dict[int, bytes], size: int) -> None:
    if not texts:
        raise WireError("has no pieces", size)
    missing = [word for number, word in ((_TRAINER, "trainer"), (_NORMALIZER, "normalizer")) if number not in specs]
    if missing:
        raise WireError(f"has no {missing[0]} specification", size)
    if len(set(texts)) != len(texts):
        seen: set[str] = set()
        twice = next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise WireError(f"has the piece {twice[:60]!r} twice", size)


def _read_piece(data: bytes, start: int, end: int, texts: list[str], scores: array[float], types: array[int]) -> None:
    text, score, kind = _usual_piece(data, start, end) or _any_piece(data, start, end)
    if not NORMAL <= kind <= BYTE:
        raise WireError(f"has a piece of type {kind}", start)
    if not math.isfinite(score):
        raise WireError(f"has a piece with the score {score}", start)
    if not text or len(text) > MAX_TOKEN_CHARS:
        raise WireError(f"has a piece of {len(text)} bytes", start)
    try:
        texts.append(text.decode())
    except UnicodeDecodeError:
        raise WireError(f"has a piece that is not UTF-8: {text[:40]!r}", start) from None
    scores.append(score)
    types.append(kind)


def _usual_piece(data: bytes, start: int, end: int) -> tuple[bytes, float, int] | None:
    """A piece as SentencePiece itself writes it (short text, score, and the type unless it is NORMAL); None if it is not."""
    if end - start < 2 or data[start] != _TEXT_TAG or data[start + 1] > 0x7F:
        return None
    tail = start + 2 + data[start + 1]
    if end == tail + 5 and data[tail] == _SCORE_TAG:
        return data[start + 2 : tail], float_of(data, tail + 1), NORMAL
    if end == tail + 7 and data[tail] == _SCORE_TAG and data[tail + 5] == _TYPE_TAG:
        return data[start + 2 : tail], float_of(data, tail + 1), data[tail + 6]
    return None


def _any_piece(data: bytes, start: int, end: int) -> tuple[bytes, float, int]:
    text, score, kind = b"", 0.0, NORMAL
    for number, wire, first, last in fields(data, start, end):
        if number == 1 and wire == BYTES:
            text = data[first:last]
        elif number == 2 and wire == FIXED32:
            score = float_of(data, first)
        elif number == 3 and wire == VARINT:
            kind = varint_of(data, first, last)
    return text, score, kind


def _piece(text: str, score: float, kind: int) -> bytes:
    head = bytes_field(1, text.encode()) + float_field(2, score)
    return head if kind == NORMAL else head + varint_field(3, kind)


def _number(message: bytes, number: int, default: int) -> int:
    """A number of a specification; the last one counts, as in any protocol buffer."""
    for found, wire, start, end in fields(message):
        if found == number and wire == VARINT:
            default = varint_of(message, start, end)
    return default


def _without_charsmap(message: bytes) -> tuple[bytes, bytes]:
    kept, charsmap, at = [], b"", 0
    for number, wire, start, end in fields(message):
        if number == _CHARSMAP and wire == BYTES and end > start:
            charsmap = message[start:end]
        else:
            kept.append(message[at:end])
        at = end
    return b"".join(kept), charsmap


def _with_charsmap(model: SentencePieceModel) -> bytes:
    """The normalizer's message with the character map where its field number puts it."""
    if not model.charsmap:
        return model.normalizer
    at = 0
    for number, _, _, end in fields(model.normalizer):
        if number < _CHARSMAP:
            at = end
    return model.normalizer[:at] + bytes_field(_CHARSMAP, model.charsmap) + model.normalizer[at:]
