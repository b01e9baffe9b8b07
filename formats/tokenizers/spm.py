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

_PIECE_TAG = _PIECES << 3 | BYTES
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
    raw: list[bytes] = []
    scores, types = array("f"), array("b")
    specs: dict[int, bytes] = {}
    rest = []
    for number, wire, start, end in fields(data, _usual_pieces(data, raw, scores, types)):
        if number == _PIECES and wire == BYTES:
            _read_piece(data, start, end, raw, scores, types)
        elif number in (_TRAINER, _NORMALIZER) and wire == BYTES:
            specs[number] = specs.get(number, b"") + data[start:end]  # a repeated message is merged
        elif wire == BYTES:
            rest.append(bytes_field(number, data[start:end]))
    texts = _checked_pieces(raw, scores, types, len(data))
    missing = [word for number, word in ((_TRAINER, "trainer"), (_NORMALIZER, "normalizer")) if number not in specs]
    if missing:
        raise WireError(f"has no {missing[0]} specification", len(data))
    normalizer, charsmap = _without_charsmap(specs[_NORMALIZER])
    _number(specs[_TRAINER], _MODEL_TYPE, UNIGRAM)
    return SentencePieceModel(texts, scores, types, specs[_TRAINER], normalizer, charsmap, b"".join(rest))


def _usual_pieces(data: bytes, raw: list[bytes], scores: array[float], types: array[int]) -> int:
    """Reads the pieces that a file begins with as long as they are written as SentencePiece writes short ones: text,
    score, and the type unless it is NORMAL. Returns where the first other field starts.
    """
    position, last = 0, len(data) - 4
    while position < last and data[position] == _PIECE_TAG and data[position + 2] == _TEXT_TAG:
        start = position + 4
        end, tail = position + 2 + data[position + 1], start + data[position + 3]
        if data[position + 1] > 0x7F or tail + 5 > end or end > len(data) or data[tail] != _SCORE_TAG:
            break
        kind = NORMAL
        if end != tail + 5:
            if end != tail + 7 or data[tail + 5] != _TYPE_TAG or data[tail + 6] > 0x7F:
                break
            kind = data[tail + 6]
        raw.append(data[start:tail])
        scores.append(float_of(data, tail + 1))
        types.append(kind)
        position = end
    return position


def _read_piece(data: bytes, start: int, end: int, raw: list[bytes], scores: array[float], types: array[int]) -> None:
    """Any other piece."""
    text, score, kind = b"", 0.0, NORMAL
    for number, wire, first, last in fields(data, start, end):
        if number == 1 and wire == BYTES:
            text = data[first:last]
        elif number == 2 and wire == FIXED32:
            score = float_of(data, first)
        elif number == 3 and wire == VARINT:
            kind = varint_of(data, first, last)
    raw.append(text)
    scores.append(score)
    types.append(kind if 0 <= kind < 128 else 0)


def _checked_pieces(raw: list[bytes], scores: array[float], types: array[int], size: int) -> list[str]:
    """The texts, once everything about the pieces is found to be as it should."""
    if not 0 < len(raw) <= MAX_TOKENS:
        raise WireError(f"has {len(raw)} pieces", size)
    if min(types) < NORMAL or max(types) > BYTE:
        raise WireError("has a piece of a type that there is none of", size)
    if not all(map(math.isfinite, scores)):
        raise WireError("has a piece whose score is not a number", size)
    if not all(raw) or max(map(len, raw)) > MAX_TOKEN_CHARS:
        raise WireError(f"has a piece that is empty or longer than {MAX_TOKEN_CHARS} bytes", size)
    try:
        texts = [text.decode() for text in raw]
    except UnicodeDecodeError as error:
        raise WireError(f"has a piece that is not UTF-8: {error.object[:40]!r}", size) from None
    if len(set(texts)) != len(texts):
        seen: set[str] = set()
        twice = next(text for text in texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise WireError(f"has the piece {twice[:60]!r} twice", size)
    return texts


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
