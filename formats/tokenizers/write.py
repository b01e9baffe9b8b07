"""Writing a tokenizer's Hugging Face files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hubclient.formats.tokenizers.document import vocabulary
from hubclient.formats.tokenizers.model import Tokenizer
from hubclient.formats.tokenizers.spm import write_model
from hubclient.ground.strictjson import write_json


def files_of(tokenizer: Tokenizer) -> dict[str, bytes]:
    """All files by relative name: those that the tokenizer came from, and tokenizer.json in any case."""
    assert tokenizer.document is not None
    document = tokenizer.document
    files = {"tokenizer.json": _document(document, tokenizer.spaced)}
    if tokenizer.pieces is not None:
        files[tokenizer.pieces_name] = write_model(tokenizer.pieces)
    jsons: dict[str, Mapping[str, Any] | None] = {
        "tokenizer_config.json": tokenizer.config,
        "special_tokens_map.json": tokenizer.special,
        "added_tokens.json": tokenizer.added,
    }
    files.update((name, write_json(content)) for name, content in jsons.items() if content is not None)
    files.update((name, text.encode()) for name, text in tokenizer.templates.items())
    files.update((name, write(document)) for name, write in _OLDER.items() if name in tokenizer.files)
    return dict(sorted(files.items()))


def _document(document: Mapping[str, Any], spaced: bool) -> bytes:
    """tokenizer.json on one line for each of the parts, and the model's long lists on one line each."""
    model = dict(document["model"])
    if spaced:
        model["merges"] = [f"{left} {right}" for left, right in model["merges"]]
    lines = [f"    {_json(key)}: {_json(value)}" for key, value in model.items()]
    parts = [f"  {_json(key)}: {_json(value)}" for key, value in document.items() if key != "model"]
    inner = ",\n".join(lines)
    parts.append(f'  "model": {{\n{inner}\n  }}')
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _vocab_json(document: Mapping[str, Any]) -> bytes:
    return _json(dict(vocabulary(document))).encode()


def _merges_txt(document: Mapping[str, Any]) -> bytes:
    return ("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in document["model"].get("merges", ()))).encode()


def _vocab_txt(document: Mapping[str, Any]) -> bytes:
    return "".join(f"{text}\n" for text in sorted(vocabulary(document), key=vocabulary(document).__getitem__)).encode()


_OLDER: Mapping[str, Callable[[Mapping[str, Any]], bytes]] = {
    "vocab.json": _vocab_json, "merges.txt": _merges_txt, "vocab.txt": _vocab_txt,
}  # fmt: skip
