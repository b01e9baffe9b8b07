"""The files around a rebuilt tokenizer.json: tokenizer_config.json and special_tokens_map.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubclient.formats.tokenizers import gguf
from hubclient.formats.tokenizers.model import ROLES, USER_DEFINED, Tokenizer
from hubclient.formats.tokenizers.parts import Parts, assemble
from hubclient.formats.tokenizers.rows import ADDED_SCORE
from hubclient.formats.tokenizers.special import TEMPLATE_KEY
from hubclient.formats.tokenizers.spm import SentencePieceModel
from hubclient.formats.tokenizers.table import Table, is_added, text_of


def finished(
    table: Table,
    model: Mapping[str, Any],
    parts: Parts,
    pieces: SentencePieceModel | None = None,
    pieces_name: str = "tokenizer.model",
) -> Tokenizer:
    """The whole tokenizer, from its model and the parts of its pipeline."""
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
        if is_added(kind) and table.texts[index]:
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
    name, settings = _class_and_settings(table, parts)
    return with_class({**config, **settings}, name)


def _decoder(table: Table, added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Added tokens by id. Of a SentencePiece vocabulary those with the score that being listed here gives them."""
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    plain = {"normalized": False, "rstrip": False, "single_word": False}
    scores = table.scores if table.model == "llama" else None
    listed = [item for item in added if scores is None or scores[item["id"]] == ADDED_SCORE]
    return {str(item["id"]): {key: {**plain, **item}[key] for key in keys} for item in listed}


def _named(table: Table, parts: Parts) -> dict[str, str]:
    """`bos_token` and the like. BERT has no BOS and EOS; who puts tokens around texts as RoBERTa does has a CLS."""
    roles = [role for role in ROLES if role in table.ids]
    post = (parts.get("post_processor") or {}).get("type")
    if table.model == "bert":
        roles = [role for role in roles if role not in ("bos", "eos")]
    names = {f"{role}_token": table.texts[table.ids[role]] for role in roles}
    begins = post == "RobertaProcessing" or (table.model == "t5" and "sep" in table.ids)
    if begins and "bos" in table.ids and "cls_token" not in names:
        names["cls_token"] = table.texts[table.ids["bos"]]
    return names


def _templates(table: Table) -> dict[str, Any]:
    """The chat template, or several with their names."""
    main = text_of(table.metadata, TEMPLATE_KEY, table.source)
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


def with_class(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """tokenizer_config.json with this class; roles that the class would fill with tokens of its own are said to be empty."""
    filled = _FILLED.get(name, ("bos", "eos", "unk", "pad") if name != _GENERAL else ())
    return {**config, **{f"{role}_token": None for role in filled if f"{role}_token" not in config}, "tokenizer_class": name}


_GENERAL = "PreTrainedTokenizerFast"
_FILLED: Mapping[str, tuple[str, ...]] = {
    "BertTokenizer": ("unk", "sep", "pad", "cls", "mask"), "XLMRobertaTokenizer": ROLES, "LlamaTokenizer": ("bos", "eos", "unk"),
    "GemmaTokenizer": ("bos", "eos", "unk", "pad", "mask"),
}  # fmt: skip


def _class_and_settings(table: Table, parts: Parts) -> tuple[str, dict[str, Any]]:
    """The tokenizer class and its settings: Transformers' own where its fixed pipeline is the one described, else the
    general class, which does what tokenizer.json says.
    """
    prefix = table.setting(gguf.ADD_PREFIX, default=table.model == "llama")
    squeeze = table.setting(gguf.SQUEEZE, default=False)
    if table.model == "bert":
        normalizer = parts["normalizer"]
        accents = {"strip_accents": normalizer["strip_accents"], "do_lower_case": normalizer["lowercase"]}
        return "BertTokenizer", {**accents, "tokenize_chinese_chars": True}
    if table.model == "llama" and prefix:
        return "LlamaTokenizer", {"legacy": True}
    if table.model == "t5" and prefix and squeeze and table.ids.get("unk") == 2 and "bos" not in table.ids:
        extra = [text for text in table.texts if text.startswith("<extra_id_")]
        return "T5Tokenizer", {"extra_ids": len(extra), "additional_special_tokens": extra}
    if table.model == "t5" and prefix and squeeze and table.ids.get("unk") == 3 and table.flags.get("bos"):
        return "XLMRobertaTokenizer", {}
    return _GENERAL, {}
