"""Which tokens are special and which are put around a text: what GGUF says of it, from the Hugging Face files.

The order of the sources, and what a post-processor's template means, follow llama.cpp's converter (SpecialVocab in
gguf-py/gguf/vocab.py), so that a folder gives the same keys here and there. Where the converter finds no id, the token
is looked up in the vocabulary, and then in the SentencePiece model's own specification.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_letters, digits
from typing import Any

from hubclient.formats.model import Value
from hubclient.formats.tokenizers.document import components, vocabulary
from hubclient.formats.tokenizers.hf import TEMPLATE_FOLDER
from hubclient.formats.tokenizers.model import ROLES, Tokenizer, token_text

PREFIX = "tokenizer.ggml."
# GGUF's keys; "cls" has none of its own
ID_KEYS: Mapping[str, str] = {
    "bos": PREFIX + "bos_token_id", "eos": PREFIX + "eos_token_id", "unk": PREFIX + "unknown_token_id",
    "sep": PREFIX + "seperator_token_id", "pad": PREFIX + "padding_token_id", "mask": PREFIX + "mask_token_id",
    "eot": PREFIX + "eot_token_id", "eom": PREFIX + "eom_token_id",
}  # fmt: skip
FLAG_KEYS: Mapping[str, str] = {role: f"{PREFIX}add_{role}_token" for role in ("bos", "eos", "sep")}
LOWERCASE_KEY, ACCENTS_KEY = PREFIX + "normalizer.lowercase", PREFIX + "normalizer.strip_accents"
TEMPLATE_KEY, TEMPLATES_KEY = "tokenizer.chat_template", "tokenizer.chat_templates"


@dataclass(slots=True)
class Special:
    """What the files say: token texts by role, flags by role, and the normalizer's two settings."""

    texts: dict[str, str] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    lowercase: bool | None = None
    strip_accents: bool | None = None


def special_of(tokenizer: Tokenizer) -> Special:
    """Gathers it from tokenizer.json and tokenizer_config.json."""
    config = tokenizer.settings
    texts = {role: text for role in ROLES if (text := token_text(config.get(f"{role}_token")))}
    found = Special(texts)
    if tokenizer.document is not None:
        for node in components(tokenizer.document.get("normalizer")):
            _normalizer(found, node)
        if "cls" in texts:
            texts.setdefault("bos", texts["cls"])
        if "sep" in texts:
            texts.setdefault("eos", texts["sep"])
        for node in components(tokenizer.document.get("post_processor")):
            _post_processor(found, node)
    for role in (*ROLES, "eot", "eom"):
        setting = config.get(f"add_{role}_token")
        if isinstance(setting, bool):
            found.flags.setdefault(role, setting)
    return found


def ids_of(tokenizer: Tokenizer, found: Special, count: int) -> dict[str, int]:
    """Ids under `count` by role."""
    added = {item["content"]: item["id"] for item in (tokenizer.document or {}).get("added_tokens") or []}
    ids = {role: added[text] for role, text in found.texts.items() if text in added}
    ids = {**tokenizer.ids, **ids}
    known: Mapping[str, int] = vocabulary(tokenizer.document) if tokenizer.document is not None else {}
    if tokenizer.pieces is not None and not known:
        known = {text: index for index, text in enumerate(tokenizer.pieces.texts)}
    mapped = {role: token_text((tokenizer.special or {}).get(f"{role}_token")) for role in ROLES}
    for role in ROLES:
        text = found.texts.get(role) or mapped[role]
        if text is not None and role not in ids and text in known:
            ids[role] = known[text]
    if tokenizer.pieces is not None and tokenizer.document is None:
        for role, index in tokenizer.pieces.special_ids().items():
            ids.setdefault(role, index)
    return {role: index for role, index in ids.items() if role in ID_KEYS and 0 <= index < count}


def chat_template_keys(tokenizer: Tokenizer) -> dict[str, Value]:
    """`tokenizer.chat_template` and, where there are several, one key for each and a list of their names."""
    template = _chat_template(tokenizer)
    if isinstance(template, str):
        return {TEMPLATE_KEY: Value("str", template)}
    keys: dict[str, Value] = {}
    names = []
    default = None
    for name, text in template:
        name = "".join(char if char in ascii_letters + digits else "_" for char in name)
        if name == "default":
            default = text
        elif name:
            names.append(name)
            keys[f"{TEMPLATE_KEY}.{name}"] = Value("str", text)
    if names:
        keys[TEMPLATES_KEY] = Value("[str]", sorted(set(names)))
    if default is not None:
        keys[TEMPLATE_KEY] = Value("str", default)
    return keys


def _chat_template(tokenizer: Tokenizer) -> str | list[tuple[str, str]]:
    """One template, or several with their names: tokenizer_config.json's before those in files of their own."""
    template = tokenizer.settings.get("chat_template")
    if template is None:
        template = _template_files(tokenizer.templates)
    if isinstance(template, Mapping):
        template = [{"name": name, "template": text} for name, text in template.items()]
    if isinstance(template, list):
        named = [(item.get("name"), item.get("template")) for item in template if isinstance(item, Mapping)]
        return [(name, text) for name, text in named if isinstance(name, str) and isinstance(text, str)]
    return template if isinstance(template, str) else []


def _template_files(templates: Mapping[str, str]) -> Any:
    if "chat_template.jinja" in templates:
        main = templates["chat_template.jinja"]
        others = {name: text for name, text in templates.items() if name.startswith(TEMPLATE_FOLDER)}
        if not others:
            return main
        stems = {name.removeprefix(TEMPLATE_FOLDER).removesuffix(".jinja"): text for name, text in others.items()}
        return {"default": main, **stems}
    if "chat_template.json" in templates:
        return json.loads(templates["chat_template.json"]).get("chat_template")
    return None


def _normalizer(found: Special, node: Mapping[str, Any]) -> None:
    kind = node.get("type")
    if kind == "Lowercase":
        found.lowercase = True
    elif kind == "StripAccents":
        found.strip_accents = True
    elif kind == "BertNormalizer":
        lowercase, accents = node.get("lowercase"), node.get("strip_accents")
        found.lowercase = lowercase if isinstance(lowercase, bool) else found.lowercase
        found.strip_accents = accents if isinstance(accents, bool) else found.strip_accents


def _post_processor(found: Special, node: Mapping[str, Any]) -> None:
    match node.get("type"):
        case "ByteLevel":
            found.flags.setdefault("bos", False)
            found.flags.setdefault("eos", False)
        case "RobertaProcessing":
            found.flags.update(bos=True, eos=True, sep=True)
            for role in ("cls", "sep"):
                named = node.get(role)
                if isinstance(named, list) and named and isinstance(named[0], str):
                    found.texts.setdefault(role, named[0])
        case "TemplateProcessing":
            _template(found, node)


def _template(found: Special, node: Mapping[str, Any]) -> None:
    """A template [first] A [last], and of pairs [first] A [separators] B [last]."""
    single, pair = _items(node.get("single")), _items(node.get("pair"))
    first, last = (_special_text(single[0]), _special_text(single[-1])) if len(single) > 1 else (None, None)
    if first:
        if first not in (found.texts.get("bos"), found.texts.get("cls")):
            for role in ("bos", "cls"):
                found.texts.setdefault(role, first)
        found.flags["bos"] = first in (found.texts.get("bos"), found.texts.get("cls"))
    if last:
        _last_of_template(found, last)
    start = 1 if first and pair and _special_text(pair[0]) == first else 0
    stop = len(pair) - 1 if last and pair and _special_text(pair[-1]) == last else len(pair)
    _separators(found, pair[start:stop], closed=bool(last))


def _last_of_template(found: Special, last: str) -> None:
    """What ends a text is its EOS; another token that the config calls EOS then ends a turn, or a message."""
    other = found.texts.get("eos")
    if other not in (None, last):
        role = next((role for role in ("eot", "eom") if role not in found.texts), None)
        if role is not None:
            found.texts[role] = str(other)
    found.texts["eos"] = last
    found.flags["eos"] = True


def _separators(found: Special, inner: list[Mapping[str, Any]], *, closed: bool) -> None:
    """From A, separators, B: whether a separator is added besides the token that closes the first text."""
    if len(inner) < 3 or _sequence_name(inner[0]) != "A" or _sequence_name(inner[-1]) != "B":
        return
    between = [_special_text(item) for item in inner[1:-1]]
    known = (found.texts.get("sep"), found.texts.get("eos"))
    added = between[0] is not None and between[0] in known and not closed
    if len(between) == 2 and between[1] is not None and between[1] in known:
        added = True
    found.flags["sep"] = added
    if added and "eos" in found.texts:
        found.texts.setdefault("sep", found.texts["eos"])


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _special_text(item: Mapping[str, Any]) -> str | None:
    return _inner_id(item, "SpecialToken")


def _sequence_name(item: Mapping[str, Any]) -> str | None:
    return _inner_id(item, "Sequence")


def _inner_id(item: Mapping[str, Any], key: str) -> str | None:
    inner = item.get(key)
    found = inner.get("id") if isinstance(inner, Mapping) else None
    return found if isinstance(found, str) and found else None
