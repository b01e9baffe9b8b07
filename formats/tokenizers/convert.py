"""Back from GGUF: the tokenizer of a file's keys, with or without what `residual` kept of the original files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.formats.tokenizers import difference
from hubclient.formats.tokenizers.gguf import MERGES, MODEL, SCORES, TOKENS, TYPES, to_gguf
from hubclient.formats.tokenizers.model import Tokenizer
from hubclient.formats.tokenizers.notes import FIELD, notes, tokenizer_keys
from hubclient.formats.tokenizers.rebuild import rebuild
from hubclient.formats.tokenizers.settings import with_class
from hubclient.formats.tokenizers.special import ID_KEYS
from hubclient.formats.tokenizers.style import Style, style_of
from hubclient.formats.tokenizers.write import files_of

_NONE = (Value("str", "none"), Value("str", "no_vocab"))  # what llama.cpp takes for a model without a vocabulary


def from_gguf(
    metadata: Mapping[str, Value],
    residual: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    source: Path | str = "the GGUF file",
) -> Tokenizer | None:
    """The tokenizer of a GGUF's `tokenizer.*` keys; None if they say that the model has none.

    `residual` is what `residual()` gave when the keys were written: with it the original files come back. Without it, or
    if the token table is no longer the one it was made for, the files are rebuilt from the keys; what no file can hold
    is noted in tokenizer_config.json (see `notes`). `options` are the family's, as for `to_gguf`. Raises DamagedInput for
    contradictions and UnknownTokenizer for kinds of tokenizers that Hugging Face files have no form for.
    """
    keys, source = tokenizer_keys(metadata), str(source)
    if keys.get(MODEL) in _NONE:
        return None
    if residual is not None:
        original = difference.load(residual, lambda: rebuild(keys, source), _checksum(keys), source)
        if original is not None:
            return replace(original, ids=_ids(keys))
    style = style_of(options)
    tokenizer = _with_class(rebuild(keys, source), style, keys)
    return replace(_noted(tokenizer, keys, options), ids=_ids(keys))


def residual(tokenizer: Tokenizer, keys: Mapping[str, Value]) -> str:
    """What `keys`, the tokenizer's own from `to_gguf`, do not say of it, as compact JSON."""
    keys = tokenizer_keys(keys)
    return difference.dump(tokenizer, rebuild(keys, tokenizer.source), _checksum(keys))


def to_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """All Hugging Face files by relative name: those that the tokenizer came from, and tokenizer.json in any case.

    Raises DamagedInput for text that is no UTF-8, which files of JSON cannot hold.
    """
    if tokenizer.document is None:
        whole = rebuild(tokenizer_keys(to_gguf(tokenizer)), tokenizer.source)
        tokenizer = replace(tokenizer, document=whole.document, config=tokenizer.config or whole.config)
    try:
        return files_of(tokenizer)
    except UnicodeEncodeError:
        raise DamagedInput("the tokenizer or its chat template holds text that is no UTF-8", file=tokenizer.source) from None


def _checksum(keys: Mapping[str, Value]) -> str:
    """Of the arrays that a difference is made against."""
    parts = [chr(0).join(keys[key].value) for key in (TOKENS, MERGES) if key in keys and keys[key].type == "[str]"]
    numbers = [",".join(map(str, keys[key].value)) for key in (TYPES, SCORES) if key in keys and keys[key].type.startswith("[")]
    return f"{zlib.crc32(chr(1).join([*parts, *numbers]).encode('utf-8', 'surrogatepass')):08x}"


def _ids(keys: Mapping[str, Value]) -> dict[str, int]:
    """The ids that the keys name, which the model's config may name as well."""
    return {role: keys[key].value for role, key in ID_KEYS.items() if key in keys and type(keys[key].value) is int}


def _with_class(tokenizer: Tokenizer, style: Style, keys: Mapping[str, Value]) -> Tokenizer:
    """With the class that the family declares for this pre-tokenizer."""
    pre = keys.get("tokenizer.ggml.pre")
    name = style.tokenizer_class.get(str(pre.value)) if pre is not None else None
    return tokenizer if name is None else replace(tokenizer, config=with_class(tokenizer.settings, name))


def _noted(tokenizer: Tokenizer, keys: Mapping[str, Value], options: Mapping[str, Any] | None) -> Tokenizer:
    """With notes of what converting the files back would not give."""
    derived = to_gguf(tokenizer, options=options)
    count, padded = len(keys[TOKENS].value), {}
    if len(derived[TOKENS].value) != count:
        derived, padded = to_gguf(tokenizer, vocab_size=count, options=options), {"vocab_size": count}
    section = {**padded, **(notes(keys, derived) or {})}
    return replace(tokenizer, config={**tokenizer.settings, FIELD: {"gguf": section}}) if section else tokenizer
