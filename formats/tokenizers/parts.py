"""The parts that a tokenizer.json is made of, for tokenizers that we write ourselves.

Each `*_parts` gives normalizer, pre_tokenizer, post_processor and decoder as the family's published files have them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubclient.formats.tokenizers.merges import Pair
from hubclient.formats.tokenizers.model import SPACE
from hubclient.formats.tokenizers.pretokenizers import Row, cut

Placed = tuple[str, int]  # a token's text and id
Parts = dict[str, Any]

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPACE_TO_BLOCK = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def assemble(model: Mapping[str, Any], parts: Parts, added: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A whole tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(item) for item in added],
        **{part: parts.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")},
        "model": dict(model),
    }


def _added(item: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": item["id"], "content": item["content"], **flags, **item}


def bpe_model(
    vocab: Mapping[str, int],
    merges: Sequence[Pair],
    *,
    ignore_merges: bool = False,
    unk: str | None = None,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    """A BPE model; with `unk` one of SentencePiece's kind, which joins neighbouring unknown characters."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unk,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": unk is not None,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": merges,
    }


def word_model(vocab: Mapping[str, int], unk: str) -> dict[str, Any]:
    """BERT's WordPiece."""
    marks = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return {"type": "WordPiece", "unk_token": unk, **marks, "vocab": vocab}


def unigram_model(vocab: Sequence[Sequence[str | float]], unk_id: int | None, byte_fallback: bool) -> dict[str, Any]:
    """SentencePiece's Unigram."""
    return {"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": byte_fallback}


def byte_level_parts(row: Row, *, first: Placed | None = None, last: Placed | None = None, sep: Placed | None = None) -> Parts:
    """Byte-level BPE; `first` and `last` are put around a text, `sep` (RoBERTa) between two."""
    return {
        "normalizer": {"type": "NFC"} if row.nfc else None,
        "pre_tokenizer": cut(row),
        "post_processor": _byte_level_post(first, last, sep),
        "decoder": dict(_BYTES, add_prefix_space=True),
    }


def _byte_level_post(first: Placed | None, last: Placed | None, sep: Placed | None) -> dict[str, Any]:
    if first and last and sep:
        ends = {"sep": list(sep), "cls": list(first)}
        return {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}
    plain = dict(_BYTES, add_prefix_space=True, trim_offsets=False)
    template = around(first, last)
    return plain if template is None else {"type": "Sequence", "processors": [plain, template]}


def spm_parts(*, prefix: bool, first: Placed | None, last: Placed | None) -> Parts:
    """SentencePiece's BPE as Llama 2 has it; `prefix` puts a space before each text."""
    block = dict(_SPACE_TO_BLOCK)
    unblock = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders: list[dict[str, Any]] = [unblock, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, block]} if prefix else block,
        "pre_tokenizer": None,
        "post_processor": around(first, last),
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def unigram_parts(
    *, prefix: bool, squeeze: bool, charsmap: bytes, whole: bool, first: Placed | None, last: Placed | None, sep: Placed | None
) -> Parts:
    """SentencePiece's Unigram as T5 and XLM-RoBERTa have it.

    `squeeze` drops leading, trailing and repeated spaces; `whole` says that pieces may span words.
    """
    steps: list[dict[str, Any]] = []
    if charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()})
    if squeeze:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})  # Strip would take tabs too
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        scheme = "always" if prefix else "never"
        pre: dict[str, Any] | None = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": not whole}
    else:  # Metaspace would put no space before a text that begins with one
        steps += [{"type": "Prepend", "prepend": SPACE}] if prefix else []
        steps.append(dict(_SPACE_TO_BLOCK))
        pre = None
    scheme = "always" if prefix else "never"
    return {
        "normalizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": pre,
        "post_processor": around(first, last, sep),
        "decoder": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": not whole},
    }


def bert_parts(
    *, lowercase: bool, strip_accents: bool | None, first: Placed | None, last: Placed | None, chinese: bool = True
) -> Parts:
    """BERT: `first` and `last` are its CLS and SEP."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    template = around(first, last, second_type=1) if first and last else None
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }


def around(
    first: Placed | None, last: Placed | None, sep: Placed | None = None, *, second_type: int | None = None
) -> dict[str, Any] | None:
    """A post-processor that puts tokens around a text; None if there are none to put.

    Of two texts the second gets its own `first` where there is no `last` (Llama), and only a `last` otherwise (BERT,
    T5), after an extra `sep` if that is given (XLM-RoBERTa).
    """
    if first is None and last is None:
        return None
    type_id = second_type if second_type is not None else (0 if last else 1)
    single = [*_special(first, 0), _sequence("A", 0), *_special(last, 0)]
    before = _special(first if last is None else None, type_id) + _special(sep, type_id)
    second = [*before, _sequence("B", type_id), *_special(last, type_id)]
    tokens = {placed[0]: {"id": placed[0], "ids": [placed[1]], "tokens": [placed[0]]} for placed in (first, last, sep) if placed}
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *second], "special_tokens": tokens}


def _special(placed: Placed | None, type_id: int) -> list[dict[str, Any]]:
    return [{"SpecialToken": {"id": placed[0], "type_id": type_id}}] if placed else []


def _sequence(name: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}
