"""tokenizer.json: checked once when it is read, so that everything after may take its shape for granted.

Source: the serialised form of Hugging Face's `tokenizers` library (tokenizers/src, serde implementations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from hubclient.errors import DamagedInput, UnknownTokenizer
from hubclient.formats.tokenizers.merges import Pair, check_merges
from hubclient.formats.tokenizers.model import MAX_TOKEN_CHARS, MAX_TOKENS, AddedToken
from hubclient.ground.names import shown

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MODELS = ("BPE", "Unigram", "WordPiece")


def checked(document: Mapping[str, Any], source: Path | str) -> tuple[dict[str, Any], bool]:
    """The content of a tokenizer.json with its model's type filled in and merges as pairs, and whether they were text.

    Raises DamagedInput for what the `tokenizers` library would not load, UnknownTokenizer for a model of another kind.
    """
    model = document.get("model")
    if not isinstance(model, Mapping):
        raise _fault(source, "has no model")
    kind = model.get("type") or _kind_by_shape(model)
    if kind not in MODELS:
        raise UnknownTokenizer(f"{source}: its model is of the kind {shown(kind)}; known are {', '.join(MODELS)}")
    for part in PARTS:
        if not (document.get(part) is None or isinstance(document[part], Mapping)):
            raise _fault(source, f"has a {part} that is not an object")
    _check_added(document.get("added_tokens") or [], source)
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(name), str | None):
            raise _fault(source, f"has a model whose {name} is not text")
    model = {**model, "type": kind}
    spaced = False
    if kind == "Unigram":
        _check_scored(model.get("vocab"), source)
    else:
        check_vocabulary(model.get("vocab"), source)
    _check_ids({**document, "model": model}, source)
    if kind == "BPE":
        model["merges"], spaced = _pairs(model.get("merges"), source)
        check_merges(model["merges"], model["vocab"], source, model.get("continuing_subword_prefix") or "")
    return {**document, "model": model}, spaced


def check_vocabulary(vocab: Any, source: Path | str) -> None:
    """Raises DamagedInput unless `vocab` maps texts to ids that are unique, not negative and not absurdly large."""
    if not isinstance(vocab, Mapping) or not vocab:
        raise _fault(source, "has no vocabulary")
    ids = vocab.values()
    if set(map(type, ids)) != {int}:
        odd = next(text for text, index in vocab.items() if type(index) is not int)
        raise _fault(source, f"gives the token {shown(odd)} the id {shown(vocab[odd])}, which is not a whole number")
    if min(ids) < 0 or max(ids) >= MAX_TOKENS:
        odd = next(text for text, index in vocab.items() if not 0 <= index < MAX_TOKENS)
        raise _fault(source, f"gives the token {shown(odd)} the id {shown(vocab[odd])}; ids go from 0 to {MAX_TOKENS - 1}")
    if len(set(ids)) != len(vocab):
        _refuse_shared(vocab, source)
    if max(map(len, vocab)) > MAX_TOKEN_CHARS:
        raise _fault(source, f"has a token of more than {MAX_TOKEN_CHARS} characters")


def vocabulary(document: Mapping[str, Any]) -> Mapping[str, int]:
    """The model's tokens and their ids; of a Unigram model, whose tokens may repeat, the first of each."""
    vocab = document["model"]["vocab"]
    if isinstance(vocab, Mapping):
        return vocab
    ids: dict[str, int] = {}
    for index, row in enumerate(vocab):
        ids.setdefault(row[0], index)
    return ids


def added_tokens(document: Mapping[str, Any]) -> dict[int, AddedToken]:
    """tokenizer.json's `added_tokens` by id; a token that the model has too has the model's id, as when it is loaded."""
    known = vocabulary(document)
    return {known.get(item["content"], item["id"]): added_token(item) for item in document.get("added_tokens") or []}


def added_token(item: Mapping[str, Any]) -> AddedToken:
    """One entry of `added_tokens` or `added_tokens_decoder`, with the library's defaults."""
    special = bool(item.get("special", False))
    return AddedToken(item["content"], special, bool(item.get("normalized", not special)))


def is_added(item: Any) -> bool:
    """Whether `item` has what an added token needs."""
    return isinstance(item, Mapping) and isinstance(item.get("content"), str) and 0 < len(item["content"]) <= MAX_TOKEN_CHARS


def listed_tokens(settings: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """tokenizer_config.json's `added_tokens_decoder` by id; what `hf` refuses in it is left out."""
    table = settings.get("added_tokens_decoder")
    entries = table.items() if isinstance(table, Mapping) else ()
    return {int(index): item for index, item in entries if _is_index(index) and is_added(item)}


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) < MAX_TOKENS


def components(node: Any) -> list[Mapping[str, Any]]:
    """A normalizer, pre-tokenizer, post-processor or decoder, with sequences of any depth laid out flat."""
    if not isinstance(node, Mapping):
        return []
    if node.get("type") != "Sequence":
        return [node]
    inner = [node.get(key) for key in ("normalizers", "pretokenizers", "processors", "decoders")]
    return [part for items in inner if isinstance(items, list) for item in items for part in components(item)]


def _kind_by_shape(model: Mapping[str, Any]) -> str | None:
    """The model's kind in files from before it was written down."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else None


def _check_added(items: Any, source: Path | str) -> None:
    if not isinstance(items, list):
        raise _fault(source, "has added tokens that are not a list")
    ids: dict[str, int] = {}
    for item in items:
        if not is_added(item) or type(item.get("id")) is not int or not 0 <= item["id"] < MAX_TOKENS:
            raise _fault(source, f"has the added token {shown(item)}, which needs a content and an id from 0 to {MAX_TOKENS - 1}")
        if ids.setdefault(item["content"], item["id"]) != item["id"]:
            raise _fault(source, f"adds the token {shown(item['content'])} twice")
    if len(set(ids.values())) != len(ids):
        _refuse_shared(ids, source)


def _check_ids(document: Mapping[str, Any], source: Path | str) -> None:
    """Raises DamagedInput if a token that is added takes the id of one that the model has."""
    known = vocabulary(document)
    taken = frozenset(known.values())
    for item in document.get("added_tokens") or []:
        if item["content"] not in known and item["id"] in taken:
            raise _fault(source, f"adds the token {shown(item['content'])} with the id {item['id']}, which another token has")


def _check_scored(vocab: Any, source: Path | str) -> None:
    if not isinstance(vocab, list) or not 0 < len(vocab) <= MAX_TOKENS:
        raise _fault(source, "has no vocabulary")
    for index, row in enumerate(vocab):
        fits = isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (float, int)
        if not fits or len(row[0]) > MAX_TOKEN_CHARS or not math.isfinite(row[1]) or abs(row[1]) > 3e38:
            raise _fault(source, f"has {shown(row)} as token {index}, where a text and a score were expected")


def _pairs(merges: Any, source: Path | str) -> tuple[list[Pair], bool]:
    """Merges as pairs, and whether they were written as text."""
    if not isinstance(merges, list):
        raise _fault(source, "has no merges")
    if not merges or not isinstance(merges[0], str):
        if not _are_pairs(merges):
            place, pair = next((place, pair) for place, pair in enumerate(merges) if not _are_pairs([pair]))
            raise _fault(source, f"has {shown(pair)} as merge {place}, where two texts were expected")
        return [(left, right) for left, right in merges], False
    pairs: list[Pair] = []
    for place, text in enumerate(merges):
        parts = text.split(" ") if isinstance(text, str) else []
        if len(parts) != 2:
            raise _fault(source, f"has {shown(text)} as merge {place}, where two parts separated by a space were expected")
        pairs.append((parts[0], parts[1]))
    return pairs, True


def _are_pairs(merges: list[Any]) -> bool:
    kinds = set(map(type, merges))
    return kinds <= {list, tuple} and set(map(len, merges)) <= {2} and set(map(type, chain.from_iterable(merges))) <= {str}


def _refuse_shared(ids: Mapping[str, int], source: Path | str) -> None:
    seen: dict[int, str] = {}
    for text, index in ids.items():
        if index in seen:
            raise _fault(source, f"gives the id {index} to both {shown(seen[index])} and {shown(text)}")
        seen[index] = text


def _fault(source: Path | str, fault: str) -> DamagedInput:
    return DamagedInput(fault, file=source)
