"""GGUF's `tokenizer.*` keys from a tokenizer's Hugging Face files, as llama.cpp's converter writes them."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubclient.errors import DamagedInput, UnknownTokenizer
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import rows as tables
from hubclient.formats.tokenizers.document import components
from hubclient.formats.tokenizers.merges import to_strings
from hubclient.formats.tokenizers.model import CONTROL, SPACE, Tokenizer
from hubclient.formats.tokenizers.notes import apply_notes, noted_size
from hubclient.formats.tokenizers.pretokenizers import recognise, steps_of
from hubclient.formats.tokenizers.special import (
    ACCENTS_KEY,
    FLAG_KEYS,
    ID_KEYS,
    LOWERCASE_KEY,
    PREFIX,
    Special,
    chat_template_keys,
    ids_of,
    special_of,
)
from hubclient.formats.tokenizers.spm import BPE, UNIGRAM
from hubclient.formats.tokenizers.style import Style, style_of
from hubclient.ground.names import shown

MODEL, PRE = PREFIX + "model", PREFIX + "pre"
TOKENS, SCORES, TYPES, MERGES = PREFIX + "tokens", PREFIX + "scores", PREFIX + "token_type", PREFIX + "merges"
ADD_PREFIX, SQUEEZE, CHARSMAP = PREFIX + "add_space_prefix", PREFIX + "remove_extra_whitespaces", PREFIX + "precompiled_charsmap"

BERT_PRE = "jina-v2-en"  # what the converter finds for BERT's vocabularies; llama.cpp does not look at it
_HARMLESS = frozenset({"NFC", "NFKC", "NFD", "NFKD"})  # llama.cpp never normalises byte-level text


def to_gguf(
    tokenizer: Tokenizer, *, vocab_size: int | None = None, pre: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Value]:
    """All `tokenizer.*` keys of a model with `vocab_size` rows in its embedding (None: as many as there are tokens).

    `pre` names the pre-tokenizer instead of recognising it; `options` are the family's, see `style.Style`. Raises
    UnknownTokenizer for a structure that llama.cpp has nothing like, DamagedInput for contradictions.
    """
    style = style_of(options)
    vocab_size = noted_size(tokenizer.settings) if vocab_size is None else vocab_size
    kind = style.model or kind_of(tokenizer, style)
    keys = _WRITERS[kind](tokenizer, vocab_size, pre, style)
    keys.update(_special_keys(tokenizer, style, keys[TOKENS].value))
    return apply_notes(keys, tokenizer.settings)


def kind_of(tokenizer: Tokenizer, style: Style) -> str:
    """GGUF's name for the tokenizer's model, by its structure: gpt2, llama, t5, bert or whitespace."""
    by_pieces = {UNIGRAM: "t5", BPE: "llama"}.get(tokenizer.pieces.algorithm) if tokenizer.pieces else None
    if tokenizer.document is None or (by_pieces and style.prefer == "sentencepiece"):
        if by_pieces is None:
            raise UnknownTokenizer(f"{tokenizer.source}: {tokenizer.pieces_name} is neither Unigram nor BPE")
        return by_pieces
    model, pre = tokenizer.document["model"]["type"], tokenizer.document.get("pre_tokenizer")
    if model != "BPE":
        return {"WordPiece": "bert", "Unigram": "t5"}[str(model)]
    if _has(tokenizer.document, "ByteLevel"):
        return "gpt2"
    if isinstance(pre, Mapping) and pre.get("type") == "Whitespace":
        return "whitespace"
    if tokenizer.document["model"].get("byte_fallback") or _blocks_spaces(tokenizer.document):
        return "llama"
    raise _unknown(tokenizer)


def _has(document: Mapping[str, Any], kind: str) -> bool:
    parts = (document.get("pre_tokenizer"), document.get("decoder"))
    return any(node.get("type") == kind for part in parts for node in components(part))


def _blocks_spaces(document: Mapping[str, Any]) -> bool:
    """Whether spaces become U+2581 before BPE, as in SentencePiece."""
    nodes = [*components(document.get("normalizer")), *components(document.get("pre_tokenizer"))]
    return any(node.get("type") == "Metaspace" or node.get("content") == SPACE for node in nodes)


# One writer for each model name


def _byte_level(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, style: Style) -> dict[str, Value]:
    name = pre or recognised(tokenizer, style)
    return {**_table("gpt2", name, tables.vocabulary_rows(tokenizer, vocab_size, style), tokenizer), **_merges(tokenizer)}


def _whitespace(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, style: Style) -> dict[str, Value]:
    rows = tables.vocabulary_rows(tokenizer, vocab_size, style)
    return {**_table("whitespace", pre or "whitespace", rows, tokenizer), **_merges(tokenizer)}


def _word_piece(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, style: Style) -> dict[str, Value]:
    """BERT: GGUF marks the start of a word by U+2581, where vocab.txt marks what continues one by ##."""
    rows = tables.vocabulary_rows(tokenizer, vocab_size, style)
    rows.texts = [
        text if kind == CONTROL else text[2:] if text.startswith("##") else SPACE + text
        for text, kind in zip(rows.texts, rows.types, strict=True)
    ]
    return _table("bert", pre or BERT_PRE, rows, tokenizer)


def _sentencepiece(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, style: Style) -> dict[str, Value]:
    rows = (tables.piece_rows if tokenizer.pieces else tables.merged_rows)(tokenizer, vocab_size, style)
    keys = _table("llama", pre or "default", rows, tokenizer, scored=True)
    if not _puts_prefix(tokenizer):
        keys[ADD_PREFIX] = Value("bool", value=False)
    return keys


def _gemma4(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, style: Style) -> dict[str, Value]:
    """BPE over whole texts with merges: llama.cpp looks at no scores there, so they are the converter's."""
    if tokenizer.document is None:
        raise UnknownTokenizer(f"{tokenizer.source}: this family's tokenizer needs the merges of a tokenizer.json")
    rows = tables.merged_rows(tokenizer, vocab_size, style)
    rows.scores = array("f", [tables.ADDED_SCORE]) * len(rows.texts)
    return {**_table("gemma4", pre, rows, tokenizer, scored=True), **_merges(tokenizer), ADD_PREFIX: Value("bool", value=False)}


def _unigram(tokenizer: Tokenizer, vocab_size: int | None, pre: str | None, _style: Style) -> dict[str, Value]:
    rows = (tables.unigram_piece_rows if tokenizer.pieces else tables.unigram_rows)(tokenizer, vocab_size)
    keys = _table("t5", pre or "default", rows, tokenizer, scored=True)
    return {**keys, **_unigram_keys(tokenizer)}


_WRITERS: Mapping[str, Callable[[Tokenizer, int | None, str | None, Style], dict[str, Value]]] = {
    "gpt2": _byte_level, "whitespace": _whitespace, "bert": _word_piece, "llama": _sentencepiece, "gemma4": _gemma4,
    "t5": _unigram,
}  # fmt: skip


# What the writers share


def _table(model: str, pre: str | None, rows: tables.Rows, tokenizer: Tokenizer, *, scored: bool = False) -> dict[str, Value]:
    rows.check(tokenizer.source)
    keys = {MODEL: Value("str", model)}
    if pre is not None:
        keys[PRE] = Value("str", pre)
    keys[TOKENS] = Value("[str]", rows.texts)
    if scored:
        keys[SCORES] = Value("[f32]", rows.scores.tolist())
    keys[TYPES] = Value("[i32]", rows.types)
    return keys


def _merges(tokenizer: Tokenizer) -> dict[str, Value]:
    assert tokenizer.document is not None
    merges = to_strings(tokenizer.document["model"]["merges"])
    return {MERGES: Value("[str]", merges)} if merges else {}


def _special_keys(tokenizer: Tokenizer, style: Style, texts: Sequence[str]) -> dict[str, Value]:
    found = special_of(tokenizer)
    ids = ids_of(tokenizer, found, len(texts))
    wanted = frozenset(style.default_tokens.values())
    places = {text: index for index, text in enumerate(texts) if text in wanted} if wanted else {}
    by_text = {role: places[text] for role, text in style.default_tokens.items() if text in places}
    ids = {**style.default_ids, **by_text, **ids, **style.ids}
    keys = {ID_KEYS[role]: Value("u32", index) for role, index in ids.items() if index < len(texts)}
    flags = {**style.add_default, **found.flags, **style.add}
    keys.update((FLAG_KEYS[role], Value("bool", flag)) for role, flag in flags.items() if role in FLAG_KEYS)
    keys.update(chat_template_keys(tokenizer))
    keys.update(_normalizer_keys(found))
    prefix = style.add_space_prefix
    if prefix == "tokenizer_config":
        prefix = tokenizer.settings.get("add_prefix_space")
    if isinstance(prefix, bool):
        keys[ADD_PREFIX] = Value("bool", prefix)
    return keys


def _normalizer_keys(found: Special) -> dict[str, Value]:
    settings = {LOWERCASE_KEY: found.lowercase, ACCENTS_KEY: found.strip_accents}
    return {key: Value("bool", setting) for key, setting in settings.items() if setting is not None}


def _unigram_keys(tokenizer: Tokenizer) -> dict[str, Value]:
    if tokenizer.pieces is not None:
        squeeze, charsmap = tokenizer.pieces.remove_extra_whitespaces, tokenizer.pieces.charsmap
    else:
        assert tokenizer.document is not None
        nodes = [*components(tokenizer.document.get("normalizer")), *components(tokenizer.document.get("pre_tokenizer"))]
        squeeze = any(node.get("type") == "WhitespaceSplit" or node.get("pattern") == {"Regex": " {2,}"} for node in nodes)
        charsmap = next((_charsmap(node, tokenizer) for node in nodes if node.get("type") == "Precompiled"), b"")
    keys = {ADD_PREFIX: Value("bool", _puts_prefix(tokenizer)), SQUEEZE: Value("bool", squeeze)}
    return keys | ({CHARSMAP: Value("[u8]", list(charsmap))} if charsmap else {})


def _charsmap(node: Mapping[str, Any], tokenizer: Tokenizer) -> bytes:
    try:
        return base64.b64decode(node["precompiled_charsmap"], validate=True)
    except (KeyError, TypeError, ValueError):
        raise DamagedInput("has a precompiled_charsmap that is not base64", file=tokenizer.source) from None


def _puts_prefix(tokenizer: Tokenizer) -> bool:
    """Whether a space is put before a text: as tokenizer.json has it, or failing that the SentencePiece model."""
    if tokenizer.document is None:
        return tokenizer.pieces is not None and tokenizer.pieces.add_dummy_prefix
    nodes = [*components(tokenizer.document.get("normalizer")), *components(tokenizer.document.get("pre_tokenizer"))]
    return any(node.get("type") == "Prepend" or (node.get("type") == "Metaspace" and _prepends(node)) for node in nodes)


def _prepends(metaspace: Mapping[str, Any]) -> bool:
    """Metaspace, as it is written now or was before 2024."""
    if "prepend_scheme" in metaspace:
        return str(metaspace["prepend_scheme"]) != "never"
    return bool(metaspace.get("add_prefix_space", True))


def recognised(tokenizer: Tokenizer, style: Style) -> str:
    """The name of the pre-tokenizer that tokenizer.json describes. Raises UnknownTokenizer, saying what is unknown."""
    assert tokenizer.document is not None
    model, normalizers = tokenizer.document["model"], components(tokenizer.document.get("normalizer"))
    steps = steps_of(tokenizer.document.get("pre_tokenizer"))
    odd = [node for node in normalizers if node.get("type") not in _HARMLESS]
    if steps is None or odd or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _unknown(tokenizer)
    names = recognise(
        steps,
        nfc=any(node.get("type") == "NFC" for node in normalizers),
        ignore_merges=bool(model.get("ignore_merges")),
        roberta=any(node.get("type") == "RobertaProcessing" for node in components(tokenizer.document.get("post_processor"))),
    )
    if not names:
        raise _unknown(tokenizer)
    return next((name for name in style.pre if name in names), names[0])


def _unknown(tokenizer: Tokenizer) -> UnknownTokenizer:
    """What about a tokenizer.json has no counterpart in llama.cpp, in one sentence."""
    assert tokenizer.document is not None
    model = tokenizer.document["model"]
    nodes = components(tokenizer.document.get("pre_tokenizer"))
    regexes = [node["pattern"].get("Regex") for node in nodes if isinstance(node.get("pattern"), Mapping)]
    normalizers = [node.get("type") for node in components(tokenizer.document.get("normalizer"))]
    odd = next((kind for kind in normalizers if kind not in _HARMLESS), None)
    if odd:
        what = f"its normalizer {shown(odd)}"
    elif model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        what = "a BPE that marks the parts of words"
    elif regexes:
        what = f"a pre-tokenizer with the expression {shown(regexes[0])}"
    else:
        what = f"its pre-tokenizer ({', '.join(str(node.get('type')) for node in nodes) or 'none'})"
    return UnknownTokenizer(
        f"{tokenizer.source}: llama.cpp has nothing that works like {what}",
        hint="--pre NAME writes the name of a pre-tokenizer that llama.cpp knows, if one cuts text well enough",
    )
