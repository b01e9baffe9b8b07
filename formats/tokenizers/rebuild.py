"""A tokenizer's Hugging Face form from GGUF keys alone: what any GGUF, whoever wrote it, says of its tokenizer.

The pipeline follows from the model's name and the pre-tokenizer's: the table in `pretokenizers`, read backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hubclient.errors import DamagedInput, UnknownTokenizer
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import gguf
from hubclient.formats.tokenizers.merges import best_first, check_merges, from_strings, implied_merges
from hubclient.formats.tokenizers.model import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, Tokenizer
from hubclient.formats.tokenizers.parts import (
    Parts,
    bert_parts,
    bpe_model,
    byte_level_parts,
    spm_parts,
    unigram_model,
    unigram_parts,
    word_model,
)
from hubclient.formats.tokenizers.pretokenizers import row_named
from hubclient.formats.tokenizers.rows import FAIRSEQ_NAME, FAIRSEQ_TEXTS
from hubclient.formats.tokenizers.settings import finished
from hubclient.formats.tokenizers.special import ACCENTS_KEY, LOWERCASE_KEY
from hubclient.formats.tokenizers.spm import BPE, UNIGRAM, SentencePieceModel, normalizer_spec, trainer_spec
from hubclient.formats.tokenizers.table import Table, charsmap_of, is_added, read_table
from hubclient.ground.names import shown

_RAW_BPE = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe"})  # pre-tokenizers without the byte alphabet


def rebuild(metadata: Mapping[str, Value], source: str) -> Tokenizer:
    """The tokenizer that `metadata` describes. Raises DamagedInput for contradictions, UnknownTokenizer for other kinds."""
    table = read_table(metadata, source)
    builder = _BUILDERS.get(table.model)
    if builder is None:
        raise UnknownTokenizer(f"{source}: a tokenizer of the kind {shown(table.model)} has no form in Hugging Face files here")
    return builder(table)


# One builder for each model name


def _byte_level(table: Table) -> Tokenizer:
    if table.pre in _RAW_BPE:
        return _raw_bpe(table)
    row = row_named(table.pre or "default")
    if row is None:
        raise UnknownTokenizer(f"{table.source}: llama.cpp has no pre-tokenizer called {shown(table.pre)}")
    bos, eos = table.flags.get("bos", row.bos), table.flags.get("eos", False)
    said = bool(table.flags) or row.bos or row.sep
    first, last = table.placed("bos") if bos else None, table.placed("eos") if eos else None
    sep = table.placed("sep", "eos") if table.flags.get("sep", row.sep) else None
    parts = byte_level_parts(row, first=first, last=last, sep=sep if first and last else None)
    if not said:
        parts["post_processor"] = None
    return finished(table, bpe_model(*_vocab_and_merges(table), ignore_merges=bool(row.ignore_merges)), parts)


def _raw_bpe(table: Table) -> Tokenizer:
    """BPE with merges over whole texts, spaces as U+2581 and bytes as <0x00>."""
    vocab, merges = _vocab_and_merges(table)
    unk = table.placed("unk")
    model = bpe_model(vocab, merges, unk=unk[0] if unk else None, byte_fallback=BYTE in table.types)
    first = table.placed("bos") if table.flags.get("bos", True) else None
    last = table.placed("eos") if table.flags.get("eos") else None
    return finished(table, model, spm_parts(prefix=False, first=first, last=last))


def _whitespace(table: Table) -> Tokenizer:
    vocab, merges = _vocab_and_merges(table)
    unk = table.placed("unk")
    parts: Parts = {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    return finished(table, bpe_model(vocab, merges, unk=unk[0] if unk else None), parts)


def _sentencepiece(table: Table) -> Tokenizer:
    if table.scores is None:
        raise DamagedInput(f"has no {gguf.SCORES}, which this kind of tokenizer needs", file=table.source)
    vocab = _base_vocab(table)
    joined = best_first(table.texts, table.scores, table.types, (NORMAL, UNUSED))
    known = {text: index for text, index in vocab.items() if table.types[index] in (NORMAL, UNUSED)}
    merges = implied_merges(joined, known, table.source)
    prefix = table.setting(gguf.ADD_PREFIX, default=True)
    unk = table.placed("unk")
    model = bpe_model(vocab, merges, unk=unk[0] if unk else None, byte_fallback=BYTE in table.types)
    first = table.placed("bos") if table.flags.get("bos", True) else None
    last = table.placed("eos") if table.flags.get("eos") else None
    pieces = _pieces(table, BPE, normalizer_spec("identity", prefix, remove_extra_whitespaces=False), b"")
    return finished(table, model, spm_parts(prefix=prefix, first=first, last=last), pieces)


def _unigram(table: Table) -> Tokenizer:
    if table.scores is None:
        raise DamagedInput(f"has no {gguf.SCORES}, which this kind of tokenizer needs", file=table.source)
    prefix, squeeze = table.setting(gguf.ADD_PREFIX, default=False), table.setting(gguf.SQUEEZE, default=False)
    charsmap = charsmap_of(table)
    unk = table.ids.get("unk")
    vocab: list[list[str | float]] = [[text, score] for text, score in zip(table.texts, table.scores, strict=True)]
    model = unigram_model(vocab, unk, BYTE in table.types)
    first = table.placed("bos", "cls") if table.flags.get("bos", False) else None
    last = table.placed("eos", "sep") if table.flags.get("eos", True) else None
    sep = table.placed("sep", "eos") if table.flags.get("sep") else None
    whole = any(kind == NORMAL and SPACE in text[1:] for text, kind in zip(table.texts, table.types, strict=True))
    parts = unigram_parts(prefix=prefix, squeeze=squeeze, charsmap=charsmap, whole=whole, first=first, last=last, sep=sep)
    normalizer = normalizer_spec("nmt_nfkc" if charsmap else "identity", prefix, squeeze)
    if tuple(table.texts[:4]) == FAIRSEQ_TEXTS:
        return finished(table, model, parts, _pieces(_before_fairseq(table), UNIGRAM, normalizer, charsmap), FAIRSEQ_NAME)
    return finished(table, model, parts, _pieces(table, UNIGRAM, normalizer, charsmap), "spiece.model")


def _before_fairseq(table: Table) -> Table:
    """The table as SentencePiece counts: three tokens of its own, then what XLM-RoBERTa has after its four."""
    assert table.scores is not None
    end = len(table.texts) - (table.texts[-1] == "<mask>")
    texts = ["<unk>", "<s>", "</s>", *table.texts[4:end]]
    types = [UNKNOWN, CONTROL, CONTROL, *table.types[4:end]]
    return replace(
        table, texts=texts, types=types, scores=[0.0] * 3 + list(table.scores[4:end]), ids={"unk": 0, "bos": 1, "eos": 2}
    )


def _word_piece(table: Table) -> Tokenizer:
    """BERT: U+2581 marks the start of a word there, ## what continues one here."""
    texts = [
        text if kind in (CONTROL, UNKNOWN) else text[1:] if text.startswith(SPACE) else "##" + text
        for text, kind in zip(table.texts, table.types, strict=True)
    ]
    if len(set(texts)) != len(texts):
        raise DamagedInput("has two tokens that are the same word", file=table.source)
    plain = replace(table, texts=texts)
    lowercase = table.setting(LOWERCASE_KEY, default=True)
    accents = table.setting(ACCENTS_KEY, default=False) if ACCENTS_KEY in table.metadata else None
    first, last = plain.placed("bos", "cls"), plain.placed("sep", "eos")
    unk = plain.placed("unk")
    model = word_model(dict(zip(texts, range(len(texts)), strict=True)), unk[0] if unk else "[UNK]")
    return finished(plain, model, bert_parts(lowercase=lowercase, strip_accents=accents, first=first, last=last))


_BUILDERS: Mapping[str, Callable[[Table], Tokenizer]] = {
    "gpt2": _byte_level, "whitespace": _whitespace, "llama": _sentencepiece, "gemma4": _raw_bpe, "t5": _unigram,
    "bert": _word_piece,
}  # fmt: skip


# What the builders share


def _base_vocab(table: Table) -> dict[str, int]:
    """The model's vocabulary: all tokens but the added ones at the end, as published files have it."""
    count = len(table.texts)
    while count and is_added(table.types[count - 1]):
        count -= 1
    return dict(zip(table.texts[:count], range(count), strict=True))


def _vocab_and_merges(table: Table) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = _base_vocab(table)
    merges = from_strings(table.merges or (), table.source)
    check_merges(merges, vocab, table.source)
    return vocab, merges


def _pieces(table: Table, algorithm: int, normalizer: bytes, charsmap: bytes) -> SentencePieceModel | None:
    """The SentencePiece model that says the same; None if there is no unknown token, without which it cannot be."""
    unk = table.ids.get("unk")
    if unk is None or table.scores is None:
        return None
    taken = frozenset(table.texts)
    texts, types = list(table.texts), list(table.types)
    for index, kind in enumerate(types):
        blocked = texts[index].replace(" ", SPACE)
        if kind == USER_DEFINED and blocked not in taken:
            texts[index] = blocked
        elif kind == UNKNOWN or (kind == BYTE and not _is_byte(texts[index])):
            types[index] = UNUSED
    types[unk] = UNKNOWN
    special = {role: placed for role in ("unk", "bos", "eos", "pad") if (placed := table.placed(role)) is not None}
    trainer = trainer_spec(algorithm, len(texts), BYTE in types, {role: (index, text) for role, (text, index) in special.items()})
    return SentencePieceModel(texts, table.scores, types, trainer, normalizer, charsmap)


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
