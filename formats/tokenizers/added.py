"""The added tokens of a tokenizer, gathered from the several files that may name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hubclient.formats.tokenizers.document import added_token, added_tokens, listed_tokens, vocabulary
from hubclient.formats.tokenizers.model import ROLES, AddedToken, Tokenizer, token_text


def all_added(tokenizer: Tokenizer, limit: int | None) -> dict[int, AddedToken]:
    """Added tokens by id, as Transformers has them after loading the folder.

    tokenizer.json's come first; tokenizer_config.json (or, without `added_tokens_decoder`, added_tokens.json) may change
    their flags and append others; then come tokens that are only named special. Those appended get the next free ids;
    one that would not be under `limit` has no row in the model and is left out.
    """
    assert tokenizer.document is not None
    known = vocabulary(tokenizer.document)
    found = added_tokens(tokenizer.document)
    places = {token.content: index for index, token in found.items()}
    free = 1 + max([*known.values(), *found], default=-1)
    configured = list(_configured(tokenizer))
    for turn, token in enumerate([*configured, *named_tokens(tokenizer)]):
        index = places.get(token.content, known.get(token.content))
        if index is None and (limit is None or free < limit):
            index, free = free, free + 1
        if index is not None and (turn < len(configured) or token.content not in places):
            places[token.content] = index
            found[index] = token
    return found


def _configured(tokenizer: Tokenizer) -> Iterable[AddedToken]:
    if "added_tokens_decoder" in tokenizer.settings:
        yield from (added_token(item) for _, item in sorted(listed_tokens(tokenizer.settings).items()))
        return
    special = {token.content for token in named_tokens(tokenizer)}
    present = {token.content for token in added_tokens(tokenizer.document or {"model": {"vocab": {}}}).values()}
    for text, _ in sorted((tokenizer.added or {}).items(), key=lambda entry: entry[1]):
        if text not in present:
            yield AddedToken(text, text in special, text not in special)


def named_tokens(tokenizer: Tokenizer) -> Iterable[AddedToken]:
    """Tokens that tokenizer_config.json, or without its own table special_tokens_map.json, names for a purpose."""
    sources: list[Mapping[str, Any]] = [tokenizer.settings]
    if "added_tokens_decoder" not in tokenizer.settings and tokenizer.special:
        sources.append(tokenizer.special)
    for source in sources:
        roles = [f"{role}_token" for role in ROLES]
        others = [key for key in source if key.endswith("_token") and key not in roles]
        for key in (*roles, *others):
            if text := token_text(source.get(key)):
                yield AddedToken(text, True, False)
        for key in ("additional_special_tokens", "extra_special_tokens"):
            yield from (AddedToken(text, True, False) for item in _listed(source.get(key)) if (text := token_text(item)))


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()
