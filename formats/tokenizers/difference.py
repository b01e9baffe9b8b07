"""What GGUF keys cannot say of a tokenizer, as the difference between its files and what the keys alone would give.

A difference is JSON: {"=": value} puts a value, {"-": 1} takes it away, {".": {key: difference}} changes an object, and
{"#": length, "@": {index: difference}, "+": [...]} a list. It is made against the very tokenizer that `rebuild` gives, so
whatever GGUF says is not repeated, and a key that was edited in the file since (a chat template, an id) stays edited.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.document import checked
from hubclient.formats.tokenizers.merges import Pair, implied_by_id
from hubclient.formats.tokenizers.model import MAX_TOKENS, Tokenizer
from hubclient.formats.tokenizers.notes import fits
from hubclient.formats.tokenizers.spm import SentencePieceModel, parse_model, write_model
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_object

Difference = dict[str, Any]

_VERSION = 1
_FEW = 4  # a list of which less than a fourth differs is told by its differing elements
_LONG = 256  # vocabularies: here 1, 1.0 and True need not be told apart
_BY_ID = "by id"  # merges that Transformers' converter derived from the pieces


def dump(original: Tokenizer, rebuilt: Tokenizer, tokens: str) -> str:
    """What makes `original` of `rebuilt`; `tokens` is a checksum of the token table that they share."""
    before, after = _bundle(rebuilt), _bundle(original)
    by_id = _merges_by_id(before, after)
    if by_id:
        before["document"]["model"]["merges"] = after["document"]["model"]["merges"]
    content = {"version": _VERSION, "tokens": tokens, "change": difference(before, after)}
    if by_id:
        content["merges"] = _BY_ID
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def load(text: str, rebuild: Callable[[], Tokenizer], tokens: str, source: str) -> Tokenizer | None:
    """The original of what `rebuild` gives; None if the text was made for another token table.

    Raises DamagedInput for a text that is not of `dump`.
    """
    content = parse_object(text.encode("utf-8", "surrogatepass"), source, part="the kept difference of the tokenizer ")
    if content.get("version") != _VERSION:
        version = shown(content.get("version"))
        raise DamagedInput(f"keeps a tokenizer's difference in version {version}; known is {_VERSION}", file=source)
    if content.get("tokens") != tokens:
        return None
    rebuilt = rebuild()
    bundle = _bundle(rebuilt)
    try:
        if content.get("merges") == _BY_ID:
            bundle["document"]["model"]["merges"] = _pairs_by_id(bundle)
        return _unbundle(bundle, changed(bundle, content["change"]), rebuilt, source)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, DamagedInput):
            raise
        raise DamagedInput("keeps a difference of the tokenizer that does not fit its keys", file=source) from None


def difference(before: Any, after: Any) -> Difference | None:
    """What has to be done to `before` to get `after`; None for nothing."""
    if isinstance(before, dict | list) and len(before) > _LONG and before == after:
        return None
    if isinstance(before, dict) and isinstance(after, dict):
        return _object_difference(before, after)
    if isinstance(before, list) and isinstance(after, list):
        return _list_difference(before, after)
    return None if type(before) is type(after) and before == after else {"=": after}


def changed(value: Any, change: Difference | None) -> Any:
    """`value` after a difference. Raises KeyError, TypeError or ValueError for one that does not fit."""
    if change is None:
        return value
    if "=" in change:
        return change["="]
    if "." in change:
        result = dict(value)
        for key, inner in change["."].items():
            if "-" in inner:
                del result[key]
            else:
                result[key] = changed(result.get(key), inner)
        return result
    length = change["#"]
    if type(length) is not int or not 0 <= length <= 4 * MAX_TOKENS or not isinstance(value, list):
        raise ValueError("a list of that length is not possible")
    items = [*value[:length], *change.get("+", ())]
    if len(items) != length:
        raise ValueError("the list is not as long as it should be")
    for index, inner in change.get("@", {}).items():
        items[int(index)] = changed(items[int(index)], inner)
    return items


def _object_difference(before: dict[str, Any], after: dict[str, Any]) -> Difference | None:
    inner: Difference = {key: {"-": 1} for key in before if key not in after}
    for key, value in after.items():
        change = difference(before[key], value) if key in before else {"=": value}
        if change is not None:
            inner[key] = change
    return {".": inner} if inner else None


def _list_difference(before: list[Any], after: list[Any]) -> Difference | None:
    common = min(len(before), len(after))
    at = {}
    for index in range(common):
        if before[index] is not after[index] and (change := difference(before[index], after[index])) is not None:
            at[str(index)] = change
    if not at and len(before) == len(after):
        return None
    if len(at) * _FEW > common:
        return {"=": after}
    return {"#": len(after)} | ({"@": at} if at else {}) | ({"+": after[common:]} if len(after) > common else {})


def _bundle(tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything that is written to files, as JSON."""
    document = tokenizer.document
    return {
        "document": None if document is None else {**document, "model": dict(document["model"])},
        "pieces": None if tokenizer.pieces is None else _pieces_bundle(tokenizer.pieces),
        "pieces_name": tokenizer.pieces_name,
        "config": tokenizer.config,
        "special": tokenizer.special,
        "added": tokenizer.added,
        "templates": dict(tokenizer.templates),
        "files": list(tokenizer.files),
        "spaced": tokenizer.spaced,
    }


def _pieces_bundle(pieces: SentencePieceModel) -> dict[str, Any]:
    blobs = {name: base64.b64encode(getattr(pieces, name)).decode() for name in ("trainer", "normalizer", "charsmap", "rest")}
    return {"texts": list(pieces.texts), "scores": list(pieces.scores), "types": list(pieces.types), **blobs}


def _unbundle(before: dict[str, Any], bundle: dict[str, Any], rebuilt: Tokenizer, source: str) -> Tokenizer:
    document, pieces = bundle["document"], bundle["pieces"]
    templates, files = bundle["templates"], bundle["files"]
    if not all(isinstance(bundle[name], dict | None) for name in ("config", "special", "added")):
        raise TypeError("not an object")
    if not all(isinstance(text, str) for text in [*templates, *templates.values(), *files, bundle["pieces_name"]]):
        raise TypeError("not text")
    return Tokenizer(
        document=None if document is None else checked(document, source)[0],
        pieces=rebuilt.pieces if pieces is before["pieces"] else None if pieces is None else _checked_pieces(pieces, source),
        pieces_name=bundle["pieces_name"], config=bundle["config"], special=bundle["special"], added=bundle["added"],
        templates=templates, files=tuple(files), ids=rebuilt.ids, spaced=bool(bundle["spaced"]), source=source,
    )  # fmt: skip


def _checked_pieces(bundle: dict[str, Any], source: str) -> SentencePieceModel:
    """The model, through its own reader: what that refuses is refused here."""
    try:
        blobs = {name: base64.b64decode(bundle[name], validate=True) for name in ("trainer", "normalizer", "charsmap", "rest")}
    except binascii.Error as error:
        raise ValueError("not base64") from error
    rows = zip(bundle["texts"], bundle["scores"], bundle["types"], strict=True)
    if not all(fits("str", text) and fits("f32", score) and fits("u8", kind) for text, score, kind in rows):
        raise TypeError("not pieces")
    model = SentencePieceModel(bundle["texts"], bundle["scores"], bundle["types"], **blobs)
    return parse_model(write_model(model), source)


def _merges_by_id(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the merges differ, but are what Transformers' converter derives from the pieces."""
    if not before["document"] or not after["document"] or not before["pieces"]:
        return False
    wanted = after["document"]["model"].get("merges")
    return wanted is not None and wanted != before["document"]["model"].get("merges") and wanted == _pairs_by_id(before)


def _pairs_by_id(bundle: dict[str, Any]) -> list[Pair]:
    vocab, pieces = bundle["document"]["model"]["vocab"], bundle["pieces"]
    return implied_by_id(vocab, pieces["texts"], pieces["scores"], "the tokenizer")
