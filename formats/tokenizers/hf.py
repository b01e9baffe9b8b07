"""Reading a tokenizer from the files of a Hugging Face folder.

A folder may hold the same vocabulary several times. tokenizer.json is what Transformers loads, so it comes first; a
SentencePiece model is read beside it because it alone has scores and types; the other files are used only where
neither is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubclient.errors import DamagedInput, UnknownTokenizer
from hubclient.formats.jsonfile import read_object
from hubclient.formats.sourcefile import read_source
from hubclient.formats.tokenizers.document import added_tokens, check_vocabulary, checked, listed_tokens
from hubclient.formats.tokenizers.model import MAX_TOKENS, ROLES, Tokenizer
from hubclient.formats.tokenizers.spm import SentencePieceModel, is_tiktoken, parse_model
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_object

TOKENIZER_LIMIT = 256 << 20  # bytes; tokenizer.json of Gemma 3 has 33 million
_TEXT_LIMIT = 64 << 20
TEMPLATE_FOLDER = "additional_chat_templates/"
SPM_NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
# mistral-common's names: tokenizer.model.v3, mistral_instruct_tokenizer_240323.model.v7m1, tekken_240911.json
_VERSIONED_SPM = re.compile(r"[\w.-]*\.model\.v\d+(?:m\d+)?")
_TEKKEN = re.compile(r"tekken(?:_\d+)?\.json")


def read_files(files: Mapping[str, Path]) -> Tokenizer | None:
    """The tokenizer in `files` (relative name -> path; others are ignored), None if there is none.

    Of config.json and generation_config.json only special token ids are taken. Raises DamagedInput for a file that is
    broken or contradicts another, UnknownTokenizer for one of a kind that nobody here knows.
    """
    document, spaced = None, False
    if "tokenizer.json" in files:
        document, spaced = checked(read_object(files["tokenizer.json"], limit=TOKENIZER_LIMIT), files["tokenizer.json"])
    pieces_name, pieces = _sentencepiece(files, required=document is None)
    config = _object(files, "tokenizer_config.json")
    special, added = _object(files, "special_tokens_map.json"), _added(files)
    if document is None and pieces is None:
        document, implied = _from_older_files(files, config or {}, added or {})
        if document is None:
            return None
        config = implied if config is None else config
    tokenizer = Tokenizer(
        document=document,
        pieces=pieces,
        pieces_name=pieces_name,
        config=config,
        special=special,
        added=added,
        templates=_templates(files),
        files=tuple(sorted(name for name in files if is_tokenizer_file(name))),
        ids=_special_ids(files),
        spaced=spaced,
        source=str(next((files[name].parent for name in files if "/" not in name), "tokenizer")),
    )
    _check_config(tokenizer, files)
    return tokenizer


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of that relative name belongs to the tokenizer."""
    return (
        name in _OWN_NAMES
        or name in SPM_NAMES
        or (name.startswith(TEMPLATE_FOLDER) and name.endswith(".jinja"))
        or _VERSIONED_SPM.fullmatch(name) is not None
        or _TEKKEN.fullmatch(name) is not None
    )


_OWN_NAMES = frozenset({
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "vocab.txt", "chat_template.jinja", "chat_template.json",
})  # fmt: skip


def _sentencepiece(files: Mapping[str, Path], *, required: bool) -> tuple[str, SentencePieceModel | None]:
    """The SentencePiece model and its file's name; of versioned files the newest.

    Some repositories call a tiktoken list tokenizer.model: it says nothing that tokenizer.json does not say better.
    """
    versions = sorted(name for name in files if _VERSIONED_SPM.fullmatch(name))
    if required and any(_TEKKEN.fullmatch(name) for name in files):
        versions = []  # mistral-common, whose names these are, prefers tekken
    for name in (*SPM_NAMES, *reversed(versions)):
        if name in files:
            data = read_source(files[name], TOKENIZER_LIMIT)[0]
            if not is_tiktoken(data):
                return name, parse_model(data, files[name])
            if required:
                raise UnknownTokenizer(
                    f"{files[name]}: is a tiktoken list, which says neither how text is cut nor which tokens are special",
                    hint="convert it to tokenizer.json with Transformers' TikTokenConverter and put that beside it",
                )
    return SPM_NAMES[0], None


def _from_older_files(
    files: Mapping[str, Path], config: Mapping[str, Any], added: Mapping[str, int]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A tokenizer.json for a folder without one, and the tokenizer_config.json that its files imply, if any."""
    from hubclient.formats.tokenizers import older

    tekken = sorted(name for name in files if _TEKKEN.fullmatch(name))
    if tekken:
        path = files[tekken[-1]]
        document = older.from_tekken(read_object(path, limit=TOKENIZER_LIMIT), path)
        return checked(document, path)[0], older.tekken_config(document)
    if "vocab.json" in files and "merges.txt" in files:
        path = files["vocab.json"]
        vocab = read_object(path, limit=_TEXT_LIMIT)
        check_vocabulary(vocab, path)
        merges = older.merges_text(_text(files["merges.txt"]), files["merges.txt"])
        return checked(older.from_vocab_and_merges(vocab, merges, config, added), path)[0], None
    if "vocab.txt" in files:
        return checked(older.from_word_list(_text(files["vocab.txt"]), config, files["vocab.txt"]), files["vocab.txt"])[0], None
    return None, None


def _object(files: Mapping[str, Path], name: str) -> dict[str, Any] | None:
    return read_object(files[name], allow_nonfinite=True) if name in files else None


def _added(files: Mapping[str, Path]) -> dict[str, int] | None:
    """added_tokens.json; some repositories hold an empty one."""
    added = _object(files, "added_tokens.json")
    if added:
        check_vocabulary(added, files["added_tokens.json"])
    return added


def _text(path: Path) -> str:
    data = read_source(path, _TEXT_LIMIT)[0]
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DamagedInput(f"is not UTF-8: {error.reason} at byte {error.start}", file=path, offset=error.start) from None


def _templates(files: Mapping[str, Path]) -> dict[str, str]:
    names = [name for name in files if name in ("chat_template.jinja", "chat_template.json") or name.startswith(TEMPLATE_FOLDER)]
    templates = {name: _text(files[name]) for name in sorted(names) if name.endswith((".jinja", ".json"))}
    if "chat_template.json" in templates:
        parse_object(templates["chat_template.json"].encode(), files["chat_template.json"])
    return templates


def _special_ids(files: Mapping[str, Path]) -> dict[str, int]:
    """Special token ids by role: from config.json, at its top or in `text_config`, then from generation_config.json.

    -1 and lists stand for none: GGUF has room for one id.
    """
    config = _object(files, "config.json") or {}
    inner = config.get("text_config")
    sources = [config, inner if isinstance(inner, Mapping) else {}, _object(files, "generation_config.json") or {}]
    ids: dict[str, int] = {}
    for role in (*ROLES, "eot", "eom"):
        value = next((source[key] for source in sources if source.get(key := f"{role}_token_id") is not None), None)
        if type(value) is int and 0 <= value < MAX_TOKENS:
            ids[role] = value
    return ids


def _check_config(tokenizer: Tokenizer, files: Mapping[str, Path]) -> None:
    """Raises DamagedInput if tokenizer_config.json's own list of added tokens is not one, or contradicts tokenizer.json."""
    table = tokenizer.settings.get("added_tokens_decoder")
    if table is None:
        return
    path = files["tokenizer_config.json"]
    if not isinstance(table, Mapping):
        raise DamagedInput("has an added_tokens_decoder that is not an object", file=path)
    listed = listed_tokens(tokenizer.settings)
    if len(listed) != len(table):
        odd = next(index for index in table if not listed_tokens({"added_tokens_decoder": {index: table[index]}}))
        raise DamagedInput(f"has the added token {shown(odd)}: {shown(table[odd])}, which needs an id and a content", file=path)
    known = added_tokens(tokenizer.document) if tokenizer.document else {}
    places = {token.content: index for index, token in known.items()}
    for index, item in listed.items():
        place = places.get(item["content"], index)
        if place != index:
            text = shown(item["content"])
            raise DamagedInput(f"gives the added token {text} the id {index}, but tokenizer.json gives it {place}", file=path)
