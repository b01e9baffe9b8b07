"""A tokenizer's Hugging Face form from GGUF keys alone: what any GGUF, whoever wrote it, says of its tokenizer.

The pipeline follows from the model's name and the pre-tokenizer's (the table in `pretokenizers`, read backwards), and where
a key is missing from what llama.cpp then assumes (llama_vocab::impl::load in src/llama-vocab.cpp).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubclient.errors import DamagedInput, UnknownTokenizer
from hubclient.formats.model import Value
from hubclient.formats.names import shown
from hubclient.formats.tokenizers import gguf
from hubclient.formats.tokenizers.merges import best_first, check_merges, from_strings, implied_merges
from hubclient.formats.tokenizers.model import (
    BYTE,
    CONTROL,
    MAX_TOKEN_CHARS,
    MAX_TOKENS,
    NORMAL,
    ROLES,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Tokenizer,
    pad_token,
)
from hubclient.formats.tokenizers.parts import (
    Parts,
    Placed,
    assemble,
    bert_parts,
    bpe_model,
    byte_level_parts,
    spm_parts,
    unigram_model,
    unigram_parts,
    word_model,
)
from hubclient.formats.tokenizers.pretokenizers import row_named
from hubclient.formats.tokenizers.rows import ADDED_SCORE
from hubclient.formats.tokenizers.special import ACCENTS_KEY, FLAG_KEYS, ID_KEYS, LOWERCASE_KEY, PREFIX, TEMPLATE_KEY
from hubclient.formats.tokenizers.spm import BPE, UNIGRAM, SentencePieceModel, normalizer_spec, trainer_spec

CLS_KEY = PREFIX + "cls_token_id"  # older files
_RAW_BPE = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe"})  # pre-tokenizers without the byte alphabet
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


def rebuild(metadata: Mapping[str, Value], source: str) -> Tokenizer:
    """The tokenizer that `metadata` describes. Raises DamagedInput for contradictions, UnknownTokenizer for other kinds."""
    table = read_table(metadata, source)
    builder = _BUILDERS.get(table.model)
    if builder is None:
        raise UnknownTokenizer(f"{source}: a tokenizer of the kind {shown(table.model)} has no form in Hugging Face files here")
    return builder(table)


# Reading and checking the keys


def read_table(metadata: Mapping[str, Value], source: str) -> Table:
    """The keys as a table. The padding at its end, rows that no token has, is left out."""
    model = _text(metadata, gguf.MODEL, source)
    if model is None:
        raise DamagedInput(f"has no {gguf.MODEL}", file=source)
    pre = _text(metadata, gguf.PRE, source)
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
    flags = {role: bool(metadata[key].value) for role, key in FLAG_KEYS.items() if key in metadata and metadata[key].type == "bool"}
    texts, types = _with_mask(texts[:count], types[:count], ids)
    return Table(model, pre, texts, types, scores[:count] if scores is not None else None, merges, ids, flags, metadata, source)


def _text(metadata: Mapping[str, Value], key: str, source: str) -> str | None:
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
        raise DamagedInput(f"has a token, number {odd}, that is not UTF-8, so no Hugging Face file can hold it", file=source) from None
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
    mask = ids.get("mask")
    if mask is not None and mask < len(texts) and types[mask] == UNUSED and texts[mask].startswith("[PAD") and "<mask>" not in texts:
        texts[mask], types[mask] = "<mask>", CONTROL
    return texts, types


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
    return _finished(table, bpe_model(*_vocab_and_merges(table), ignore_merges=bool(row.ignore_merges)), parts)


def _raw_bpe(table: Table) -> Tokenizer:
    """BPE with merges over whole texts, spaces as U+2581 and bytes as <0x00>."""
    vocab, merges = _vocab_and_merges(table)
    unk = table.placed("unk")
    model = bpe_model(vocab, merges, unk=unk[0] if unk else None, byte_fallback=BYTE in table.types)
    first = table.placed("bos") if table.flags.get("bos", True) else None
    return _finished(table, model, spm_parts(prefix=False, first=first, last=table.placed("eos") if table.flags.get("eos") else None))


def _whitespace(table: Table) -> Tokenizer:
    vocab, merges = _vocab_and_merges(table)
    unk = table.placed("unk")
    parts: Parts = {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    return _finished(table, bpe_model(vocab, merges, unk=unk[0] if unk else None), parts)


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
    return _finished(table, model, spm_parts(prefix=prefix, first=first, last=last), pieces)


def _unigram(table: Table) -> Tokenizer:
    if table.scores is None:
        raise DamagedInput(f"has no {gguf.SCORES}, which this kind of tokenizer needs", file=table.source)
    prefix, squeeze = table.setting(gguf.ADD_PREFIX, default=False), table.setting(gguf.SQUEEZE, default=False)
    charsmap = _charsmap(table)
    unk = table.ids.get("unk")
    model = unigram_model(list(zip(table.texts, table.scores, strict=True)), unk, BYTE in table.types)
    first = table.placed("bos", "cls") if table.flags.get("bos", False) else None
    last = table.placed("eos", "sep") if table.flags.get("eos", True) else None
    sep = table.placed("sep", "eos") if table.flags.get("sep") else None
    whole = any(kind == NORMAL and SPACE in text[1:] for text, kind in zip(table.texts, table.types, strict=True))
    parts = unigram_parts(prefix=prefix, squeeze=squeeze, charsmap=charsmap, whole=whole, first=first, last=last, sep=sep)
    pieces = _pieces(table, UNIGRAM, normalizer_spec("nmt_nfkc" if charsmap else "identity", prefix, squeeze), charsmap)
    return _finished(table, model, parts, pieces, "spiece.model")


def _word_piece(table: Table) -> Tokenizer:
    """BERT: U+2581 marks the start of a word there, ## what continues one here."""
    texts = [
        text if kind in (CONTROL, UNKNOWN) else text[1:] if text.startswith(SPACE) else "##" + text
        for text, kind in zip(table.texts, table.types, strict=True)
    ]
    if len(set(texts)) != len(texts):
        raise DamagedInput("has two tokens that are the same word", file=table.source)
    plain = Table(
        table.model, table.pre, texts, table.types, None, None, table.ids, table.flags, table.metadata, table.source
    )
    lowercase = table.setting(LOWERCASE_KEY, default=True)
    accents = table.setting(ACCENTS_KEY, default=False) if ACCENTS_KEY in table.metadata else None
    first, last = plain.placed("bos", "cls"), plain.placed("sep", "eos")
    unk = plain.placed("unk")
    model = word_model(dict(zip(texts, range(len(texts)), strict=True)), unk[0] if unk else "[UNK]")
    return _finished(plain, model, bert_parts(lowercase=lowercase, strip_accents=accents, first=first, last=last))


_BUILDERS: Mapping[str, Callable[[Table], Tokenizer]] = {
    "gpt2": _byte_level, "whitespace": _whitespace, "llama": _sentencepiece, "gemma4": _raw_bpe, "t5": _unigram, "bert": _word_piece,
}  # fmt: skip


# What the builders share


def _is_added(kind: int) -> bool:
    """Whether llama.cpp looks for a token of this type in raw text."""
    return kind in (CONTROL, UNKNOWN, USER_DEFINED)


def _base_vocab(table: Table) -> dict[str, int]:
    """The model's vocabulary: all tokens but the added ones at the end, as published files have it."""
    count = len(table.texts)
    while count and _is_added(table.types[count - 1]):
        count -= 1
    return dict(zip(table.texts[:count], range(count), strict=True))


def _vocab_and_merges(table: Table) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = _base_vocab(table)
    merges = from_strings(table.merges or (), table.source)
    check_merges(merges, vocab, table.source)
    return vocab, merges


def _charsmap(table: Table) -> bytes:
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


def _finished(
    table: Table, model: Mapping[str, Any], parts: Parts, pieces: SentencePieceModel | None = None, pieces_name: str = "tokenizer.model"
) -> Tokenizer:
    added = list(_added_entries(table))
    config = _config(table, parts, added)
    special = {key: value for key, value in config.items() if key.removesuffix("_token") in ROLES and isinstance(value, str)}
    names = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] + ([pieces_name] if pieces else [])
    return Tokenizer(
        document=assemble(model, parts, added), pieces=pieces, pieces_name=pieces_name, config=config, special=special,
        files=tuple(sorted(names)), source=table.source,
    )  # fmt: skip


def _added_entries(table: Table) -> Iterable[dict[str, Any]]:
    """tokenizer.json's added tokens. RoBERTa's and XLM-RoBERTa's <mask> takes the space before it along."""
    mask = table.ids.get("mask")
    for index, kind in enumerate(table.types):
        if _is_added(kind) and table.texts[index]:
            strip = index == mask and table.texts[index] == "<mask>" and table.model in ("gpt2", "t5")
            yield {"id": index, "content": table.texts[index], "lstrip": strip, "special": kind != USER_DEFINED}


def _config(table: Table, parts: Parts, added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """tokenizer_config.json: what Transformers needs, and what converting back needs."""
    config: dict[str, Any] = {"added_tokens_decoder": _decoder(table, added)}
    if gguf.ADD_PREFIX in table.metadata and table.model != "t5":
        config["add_prefix_space"] = table.setting(gguf.ADD_PREFIX, default=True)
    for role in ("bos", "eos"):
        if role in table.flags:
            config[f"add_{role}_token"] = table.flags[role]
    config["clean_up_tokenization_spaces"] = False
    config.update(_named(table, parts))
    config.update(_templates(table))
    config.update(_class(table, parts))
    return config


def _decoder(table: Table, added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Added tokens by id. Of a SentencePiece vocabulary those with the score that being listed here gives them."""
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    plain = {"normalized": False, "rstrip": False, "single_word": False}
    listed = [item for item in added if table.model != "llama" or (table.scores is not None and table.scores[item["id"]] == ADDED_SCORE)]
    return {str(item["id"]): {key: {**plain, **item}[key] for key in keys} for item in listed}


def _named(table: Table, parts: Parts) -> dict[str, str]:
    """`bos_token` and the like. BERT has no BOS and EOS; who puts tokens around texts as RoBERTa does has a CLS."""
    roles = [role for role in ROLES if role in table.ids]
    post = (parts.get("post_processor") or {}).get("type")
    if table.model == "bert":
        roles = [role for role in roles if role not in ("bos", "eos")]
    names = {f"{role}_token": table.texts[table.ids[role]] for role in roles}
    if "cls_token" not in names and "bos" in table.ids and (post == "RobertaProcessing" or (table.model == "t5" and "sep" in table.ids)):
        names["cls_token"] = table.texts[table.ids["bos"]]
    return names


def _templates(table: Table) -> dict[str, Any]:
    """The chat template, or several with their names."""
    main = _text(table.metadata, TEMPLATE_KEY, table.source)
    named = {
        key.removeprefix(TEMPLATE_KEY + "."): str(value.value)
        for key, value in table.metadata.items()
        if key.startswith(TEMPLATE_KEY + ".") and value.type == "str"
    }
    if not named:
        return {} if main is None else {"chat_template": main}
    if main is not None:
        named = {"default": main, **named}
    return {"chat_template": [{"name": name, "template": text} for name, text in named.items()]}


def _class(table: Table, parts: Parts) -> dict[str, Any]:
    """The tokenizer class: Transformers' own where its fixed pipeline is the one described, else the general one."""
    prefix = table.setting(gguf.ADD_PREFIX, default=table.model == "llama")
    squeeze = table.setting(gguf.SQUEEZE, default=False)
    if table.model == "bert":
        normalizer = parts["normalizer"]
        accents = {"strip_accents": normalizer["strip_accents"], "do_lower_case": normalizer["lowercase"]}
        return {**accents, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer"}
    if table.model == "llama" and prefix:
        return {"legacy": True, "tokenizer_class": "LlamaTokenizer"}
    if table.model == "t5" and prefix and squeeze and table.ids.get("unk") == 2 and "bos" not in table.ids:
        extra = [text for text in table.texts if text.startswith("<extra_id_")]
        return {"extra_ids": len(extra), "additional_special_tokens": extra, "tokenizer_class": "T5Tokenizer"}
    if table.model == "t5" and prefix and squeeze and table.ids.get("unk") == 3 and table.flags.get("bos"):
        return {"tokenizer_class": "XLMRobertaTokenizer"}
    return {"tokenizer_class": "PreTrainedTokenizerFast"}
