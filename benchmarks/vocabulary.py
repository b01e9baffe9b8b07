"""Vocabularies of any size that nobody trained: SentencePiece BPE with byte fallback, laid out as Llama's is.

Ids: <unk>, <s>, </s>, 256 bytes, the merged pieces in the order of their rank, the single characters. Every merged piece
is a letter or a known piece put to a known piece, so the merges are complete and the vocabulary encodes any text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase as letters
from typing import Any

SPACE = "▁"
CHARACTERS = (SPACE, *letters)
CONTROLS = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SMALLEST = len(CONTROLS) + len(BYTES) + len(CHARACTERS)

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # SentencePiece.Type in sentencepiece_model.proto


def write_tokenizer(folder: Path, size: int) -> None:
    """tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json of `size` tokens."""
    merged = list(islice(made_up_words(), size - SMALLEST))
    if len(merged) < size - SMALLEST:
        raise ValueError(f"a vocabulary of {size} tokens is larger than the words that are made up here")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(merged))
    special = dict(zip(("unk_token", "bos_token", "eos_token"), CONTROLS, strict=True))
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True, **special}
    _write_json(folder / "tokenizer.json", _tokenizer_json(merged))
    _write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": _added(), **settings})
    _write_json(folder / "special_tokens_map.json", special)


def sentencepiece_model(merged: list[str]) -> bytes:
    """A `ModelProto` (sentencepiece_model.proto): pieces, trainer_spec, normalizer_spec."""
    scores = range(0, -len(merged) - len(CHARACTERS), -1)
    pieces = [_piece(text, 0, kind) for text, kind in zip(CONTROLS, (_UNKNOWN, _CONTROL, _CONTROL), strict=True)]
    pieces += [_piece(text, 0, _BYTE) for text in BYTES]
    pieces += [_piece(text, score, _NORMAL) for text, score in zip((*merged, *CHARACTERS), scores, strict=True)]
    # model_type BPE, vocab_size, byte_fallback, unk_id, bos_id, eos_id, pad_id
    trainer = _numbers({3: 2, 4: len(pieces), 35: 1, 40: 0, 41: 1, 42: 2, 43: -1})
    normalizer = _field(1, b"identity") + _field(2, b"") + _numbers({3: 1, 4: 0, 5: 1})
    return b"".join(_field(1, piece) for piece in pieces) + _field(2, trainer) + _field(3, normalizer)


def made_up_words() -> Iterator[str]:
    """Made-up words, each a prefix or suffix more than some before it."""
    for length in range(1, 5):
        for word in map("".join, product(letters, repeat=length)):
            if length > 1:
                yield word
        yield from (SPACE + "".join(word) for word in product(letters, repeat=length))


def _piece(text: str, score: float, kind: int) -> bytes:
    typed = b"" if kind == _NORMAL else _numbers({3: kind})
    return _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + typed


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _numbers(fields: dict[int, int]) -> bytes:
    """Integer protobuf fields by number."""
    return b"".join(_varint(number << 3) + _varint(value) for number, value in fields.items())


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _added() -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(number): {"content": text, **flags} for number, text in enumerate(CONTROLS)}


def _tokenizer_json(merged: list[str]) -> dict[str, Any]:
    vocab = {token: number for number, token in enumerate((*CONTROLS, *BYTES, *merged, *CHARACTERS))}
    halves = ([word[:cut], word[cut:]] for word in merged for cut in range(1, len(word)))
    merges = [pair for pair in halves if vocab.keys() >= set(pair)]
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": int(number), **token} for number, token in _added().items()],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
