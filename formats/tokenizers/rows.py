"""The rows of GGUF's token table: text, score and type of every id, from the Hugging Face files.

One function for each kind of vocabulary. Texts, scores and types are those that llama.cpp's converter writes
(conversion/base.py, bert.py, t5.py), except where it leaves information out that the files have.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.added import all_added, named_tokens
from hubclient.formats.tokenizers.bytelevel import decode_text
from hubclient.formats.tokenizers.document import added_tokens, components, listed_tokens, vocabulary
from hubclient.formats.tokenizers.merges import scores_of_merges
from hubclient.formats.tokenizers.model import (
    BYTE,
    CONTROL,
    MAX_TOKENS,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    AddedToken,
    Tokenizer,
    looks_special,
    pad_token,
    token_text,
)
from hubclient.formats.tokenizers.spm import SentencePieceModel
from hubclient.formats.tokenizers.style import Style
from hubclient.ground.names import shown

ADDED_SCORE = -1000.0  # what the converter gives to added tokens
PAD_SCORE = -10000.0  # and to rows without a token
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
FAIRSEQ_NAME = "sentencepiece.bpe.model"
FAIRSEQ_TEXTS = ("<s>", "<pad>", "</s>", "<unk>")


@dataclass(slots=True)
class Rows:
    """The table while it is filled: `count` rows that start as padding."""

    texts: list[str]
    scores: array[float]
    types: list[int]

    @classmethod
    def padding(cls, count: int) -> Rows:
        """`count` rows without a token."""
        return cls([pad_token(index) for index in range(count)], array("f", [PAD_SCORE]) * count, [UNUSED] * count)

    def put(self, index: int, text: str, score: float, kind: int) -> None:
        """Fill one row; one that the model has no row for is left out, as it could never be predicted."""
        if index < len(self.texts):
            self.texts[index], self.scores[index], self.types[index] = text, score, kind

    def check(self, source: str) -> None:
        """Raises DamagedInput if two rows have one text: llama.cpp refuses to load them."""
        if len(set(self.texts)) != len(self.texts):
            seen: dict[str, int] = {}
            for index, text in enumerate(self.texts):
                if text in seen:
                    raise DamagedInput(f"{source}: the tokens {seen[text]} and {index} are both {shown(text)}", file=source)
                seen[text] = index


def check_fits(tokenizer: Tokenizer, vocab_size: int) -> None:
    """DamagedInput if tokenizer.json has tokens for which a model of this size has no embedding."""
    if tokenizer.document is None:
        return
    highest = max([*vocabulary(tokenizer.document).values(), *added_tokens(tokenizer.document)])
    if highest >= vocab_size:
        fault = f"the tokenizer has a token {highest} but the model's vocab_size is {vocab_size}"
        raise DamagedInput(fault, file=tokenizer.source)


def vocabulary_rows(tokenizer: Tokenizer, vocab_size: int | None, style: Style) -> Rows:
    """Byte-level BPE and WordPiece: the tokens of tokenizer.json; scores have no meaning there."""
    assert tokenizer.document is not None
    if vocab_size is not None:
        check_fits(tokenizer, vocab_size)
    known = vocabulary(tokenizer.document)
    highest = max([*known.values(), *added_tokens(tokenizer.document)])
    added = all_added(tokenizer, vocab_size)
    rows = Rows.padding(_bounded(max([highest, *added]) + 1 if vocab_size is None else vocab_size, tokenizer))
    for text, index in known.items():
        rows.put(index, text, 0.0, UNUSED if text == rows.texts[index] else NORMAL)
    for index, token in added.items():
        rows.put(index, *_added_row(token, tokenizer, style))
    return rows


def piece_rows(tokenizer: Tokenizer, vocab_size: int | None, style: Style) -> Rows:
    """SentencePiece's BPE, from its model: texts, scores and types of the pieces, then the added tokens."""
    pieces = tokenizer.pieces
    assert pieces is not None
    configured = listed_tokens(tokenizer.settings)
    own = added_tokens(tokenizer.document) if tokenizer.document is not None else {}
    highest = max([len(pieces.texts) - 1, *configured, *own, *(tokenizer.added or {}).values()])
    rows = Rows.padding(_bounded(highest + 1 if vocab_size is None else vocab_size, tokenizer))
    _put_pieces(rows, pieces, _symbols(own) if configured or own else None)
    for text, index in (tokenizer.added or {}).items():
        rows.put(index, text, ADDED_SCORE, USER_DEFINED)
    marked = {index: AddedToken(item["content"], bool(item.get("special")), False) for index, item in configured.items()}
    unplaced = {index: token for index, token in own.items() if style.trust_special or _is_free(rows, index)}
    for index, token in {**marked, **unplaced}.items():
        text, _, kind = _added_row(token, None, style)
        rows.put(index, text, ADDED_SCORE, kind)
    return rows


def merged_rows(tokenizer: Tokenizer, vocab_size: int | None, style: Style) -> Rows:
    """SentencePiece's BPE, from tokenizer.json alone: scores that make llama.cpp join what the merges join, in their order.

    The converter gives every token -1000 instead, with which llama.cpp joins in the order of the text.
    """
    assert tokenizer.document is not None
    model = tokenizer.document["model"]
    rows = vocabulary_rows(tokenizer, vocab_size, style)
    named = {token.content for token in named_tokens(tokenizer)} if style.control == "named" else None
    for text, index in vocabulary(tokenizer.document).items():
        if rows.types[index] == USER_DEFINED and SPACE in text:
            rows.put(index, text, 0.0, NORMAL)  # raw text has no U+2581, so it is only ever a merge's result
        elif named is not None and rows.types[index] == CONTROL and text not in named and not looks_special(text):
            rows.types[index] = NORMAL
    scores = scores_of_merges(model["merges"])
    unmerged = -float(len(model["merges"]) + 1)
    unk = model.get("unk_token")
    for index, (text, kind) in enumerate(zip(rows.texts, rows.types, strict=True)):
        if kind == NORMAL and _BYTE_TOKEN.fullmatch(text):
            rows.types[index], rows.scores[index] = BYTE, 0.0
        elif kind == NORMAL:
            rows.types[index] = UNKNOWN if text == unk else NORMAL
            rows.scores[index] = scores.get(text, unmerged)
        elif kind != UNUSED:
            rows.scores[index] = ADDED_SCORE
    return rows


def unigram_piece_rows(tokenizer: Tokenizer, vocab_size: int | None) -> Rows:
    """SentencePiece's Unigram, from its model."""
    pieces = tokenizer.pieces
    assert pieces is not None
    if tokenizer.pieces_name == FAIRSEQ_NAME:
        return _fairseq_rows(pieces, vocab_size, tokenizer)
    added = tokenizer.added or {}
    count = max([len(pieces.texts), *(index + 1 for index in added.values())])
    own = added_tokens(tokenizer.document) if tokenizer.document is not None else {}
    count = max([count, *(index + 1 for index in own)])
    rows = Rows.padding(_bounded(count if vocab_size is None else vocab_size, tokenizer))
    _put_pieces(rows, pieces, _symbols(own) if own else None)
    for text, index in added.items():
        rows.put(index, text, ADDED_SCORE, USER_DEFINED)
    return rows


def unigram_rows(tokenizer: Tokenizer, vocab_size: int | None) -> Rows:
    """SentencePiece's Unigram, from tokenizer.json alone."""
    assert tokenizer.document is not None
    model = tokenizer.document["model"]
    vocab = model["vocab"]
    added = all_added(tokenizer, vocab_size)
    rows = Rows.padding(_bounded(max(len(vocab), *(index + 1 for index in added), vocab_size or 0), tokenizer))
    unk = _unknown_id(tokenizer, added)
    for index, (text, score) in enumerate(vocab):
        kind = BYTE if model.get("byte_fallback") and _BYTE_TOKEN.fullmatch(text) else NORMAL
        rows.put(index, text, float(score), kind)
    for index, token in added.items():
        score = rows.scores[index] if index < len(vocab) else 0.0
        rows.put(index, token.content, score, CONTROL if token.special else USER_DEFINED)
    if unk is not None:
        rows.types[unk] = UNKNOWN
    return rows


def _unknown_id(tokenizer: Tokenizer, added: Mapping[int, AddedToken]) -> int | None:
    assert tokenizer.document is not None
    named = token_text(tokenizer.settings.get("unk_token"))
    for index, token in added.items():
        if token.content == named:
            return index
    index = tokenizer.document["model"].get("unk_id")
    return index if type(index) is int and 0 <= index < len(tokenizer.document["model"]["vocab"]) else None


def _fairseq_rows(pieces: SentencePieceModel, vocab_size: int | None, tokenizer: Tokenizer) -> Rows:
    """XLM-RoBERTa counts fairseq's own four tokens first and SentencePiece's pieces one place later.

    The converter lets the last place, which is <mask>'s, fall to padding; so it is here, for equal files.
    """
    count = _bounded(max(len(pieces.texts), vocab_size or 0), tokenizer)
    rows = Rows.padding(count)
    _put_pieces(rows, pieces, frozenset())
    scores = array("f", [0.0] * 4) + rows.scores[3:-1]
    return Rows([*FAIRSEQ_TEXTS, *rows.texts[3:-1]], scores, [CONTROL, CONTROL, CONTROL, UNKNOWN, *rows.types[3:-1]])


def _symbols(added: Mapping[int, AddedToken]) -> frozenset[int]:
    return frozenset(index for index, token in added.items() if not token.special)


def _put_pieces(rows: Rows, pieces: SentencePieceModel, symbols: frozenset[int] | None) -> None:
    """The pieces' rows. User-defined pieces are such if they are among `symbols`, which is what another file adds to the
    vocabulary, and plain ones otherwise; without any other file (None) all are.
    """
    count = min(len(rows.texts), len(pieces.texts))
    rows.texts[:count] = pieces.texts[:count]
    rows.scores[:count] = array("f", pieces.scores[:count])
    kinds = list(pieces.types[:count])
    for index, kind in enumerate(kinds):
        if kind == USER_DEFINED and (symbols is None or index in symbols):
            rows.texts[index] = rows.texts[index].replace(SPACE, " ")
        elif kind == USER_DEFINED:
            kinds[index] = NORMAL
    rows.types[:count] = kinds


def _is_free(rows: Rows, index: int) -> bool:
    return index < len(rows.types) and rows.types[index] == UNUSED and rows.texts[index] == pad_token(index)


def _added_row(token: AddedToken, tokenizer: Tokenizer | None, style: Style) -> tuple[str, float, int]:
    """Text, score and type of an added token.

    llama.cpp looks for these texts in raw text, so they are written as they appear there: out of the byte alphabet
    where the decoder would turn them so (tokens that are not normalised), and with plain spaces.
    """
    text = token.content
    if tokenizer is not None and not token.normalized:
        text = _decoded(text, tokenizer)
    if token.special or (looks_special(text) and not style.trust_special):
        return text, 0.0, USER_DEFINED if text in style.user_defined else CONTROL
    return text if style.trust_special else text.replace(SPACE, " "), 0.0, USER_DEFINED


def _decoded(text: str, tokenizer: Tokenizer) -> str:
    assert tokenizer.document is not None
    decoders = components(tokenizer.document.get("decoder"))
    return decode_text(text) if any(node.get("type") == "ByteLevel" for node in decoders) else text


def _bounded(count: int, tokenizer: Tokenizer) -> int:
    if not 0 < count <= MAX_TOKENS:
        raise DamagedInput(f"a vocabulary of {count} tokens is not possible; {MAX_TOKENS} are the most", file=tokenizer.source)
    return count
