"""tokenizer.json for folders without one: from vocab.json and merges.txt, from vocab.txt, from Mistral's tekken.json.

What these files leave out is filled in as the tokenizer classes of Transformers do.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.bytelevel import encode_bytes
from hubclient.formats.tokenizers.document import listed_tokens
from hubclient.formats.tokenizers.merges import Pair, implied_by_id
from hubclient.formats.tokenizers.model import MAX_TOKENS, ROLES, token_text
from hubclient.formats.tokenizers.parts import assemble, bert_parts, bpe_model, byte_level_parts, word_model
from hubclient.formats.tokenizers.pretokenizers import Row, row_named
from hubclient.ground.names import shown

# tokenizer classes that cut text in another way than GPT-2's
_CLASSES = {"Qwen2Tokenizer": "qwen2", "Qwen3_5Tokenizer": "qwen35", "CohereTokenizer": "command-r", "GPTNeoXTokenizer": "olmo"}


def merges_text(text: str, source: Path | str) -> list[Pair]:
    """merges.txt: one merge a line, after a line that names the version."""
    lines = text.split("\n")
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise DamagedInput(f"has {shown(line)} in line {number}, which is not two parts separated by a space", file=source)
        pairs.append((left, right))
    return pairs


def from_vocab_and_merges(
    vocab: Mapping[str, int], merges: Iterable[Pair], config: Mapping[str, Any], added: Mapping[str, int]
) -> dict[str, Any]:
    """The byte-level BPE of GPT-2 and its kin."""
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    row = row_named(_CLASSES.get(name, "gpt-2"))
    assert row is not None
    named = {text for role in ROLES if (text := token_text(config.get(f"{role}_token")))}
    extra = {vocab[text]: {"content": text, "special": True} for text in named if text in vocab}
    extra |= {index: {"content": text, "special": text in named} for text, index in added.items() if text not in vocab}
    extra |= {index: dict(item) for index, item in listed_tokens(config).items()}
    entries = [{**item, "id": index} for index, item in sorted(extra.items())]
    return assemble(bpe_model(dict(vocab), list(merges)), byte_level_parts(row), entries)


def from_word_list(text: str, config: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    """BERT's WordPiece: vocab.txt has one token a line, its id is the line's number."""
    words = text.split("\n")
    if words and not words[-1]:
        words.pop()
    words = [word.rstrip("\r") for word in words]
    if len(set(words)) != len(words):
        seen: set[str] = set()
        twice = next(word for word in words if word in seen or seen.add(word))  # type: ignore[func-returns-value]
        raise DamagedInput(f"has the token {shown(twice)} twice", file=source)
    vocab = {word: index for index, word in enumerate(words)}
    roles = ("unk", "sep", "pad", "cls", "mask")
    special = {role: token_text(config.get(f"{role}_token", f"[{role.upper()}]")) for role in roles}
    added = [{"id": vocab[word], "content": word, "special": True} for word in special.values() if word in vocab]
    accents = config.get("strip_accents")
    parts = bert_parts(
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=accents if isinstance(accents, bool) else None,
        first=_placed(special["cls"], vocab),
        last=_placed(special["sep"], vocab),
        chinese=bool(config.get("tokenize_chinese_chars", True)),
    )
    return assemble(word_model(vocab, special["unk"] or "[UNK]"), parts, sorted(added, key=lambda item: item["id"]))


def _placed(text: str | None, vocab: Mapping[str, int]) -> tuple[str, int] | None:
    return (text, vocab[text]) if text is not None and text in vocab else None


def from_tekken(content: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    """Mistral's tekken.json: special tokens first, then the byte strings in the order of their rank.

    Source: mistral_common/tokens/tokenizers/tekken.py. Merges are all splits of a token, in the order of ranks, which is
    how tiktoken joins bytes; those of one token as llama.cpp's converter orders them.
    """
    config = content.get("config")
    if not isinstance(config, Mapping):
        raise DamagedInput("has no config", file=source)
    special_count, size = config.get("default_num_special_tokens"), config.get("default_vocab_size")
    if type(special_count) is not int or type(size) is not int or not 0 <= special_count < size <= MAX_TOKENS:
        raise DamagedInput(f"counts {shown(size)} tokens and {shown(special_count)} special ones", file=source)
    pattern = config.get("pattern")
    if not isinstance(pattern, str):
        raise DamagedInput("has no pattern", file=source)
    texts = _tekken_texts(content.get("vocab"), size - special_count, source)
    special = _tekken_special(content.get("special_tokens"), special_count, source)
    vocab = {text: index for index, text in enumerate(special)}
    vocab.update((text, special_count + rank) for rank, text in enumerate(texts))
    if len(vocab) != len(special) + len(texts):
        raise DamagedInput("has a token twice", file=source)
    known = {text: rank for rank, text in enumerate(texts)}
    merges = implied_by_id(known, texts, [-rank for rank in range(len(texts))], source)
    model = bpe_model(vocab, merges, ignore_merges=True)
    first = ("<s>", vocab["<s>"]) if "<s>" in vocab else None
    row = Row("tekken", (pattern, "bytes"), bos=True)
    added = [{"id": index, "content": text, "special": True} for index, text in enumerate(special)]
    return assemble(model, byte_level_parts(row, first=first), added)


def tekken_config(document: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json for a tekken.json: its special tokens have fixed texts, and it always begins with one."""
    present = {item["content"] for item in document["added_tokens"]}
    pad = "<pad>" if "<pad>" in present else "</s>"
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": pad}
    flags = {"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False}
    named = {key: text for key, text in named.items() if text in present}
    return {**flags, **named, "tokenizer_class": "PreTrainedTokenizerFast"}


_TEKKEN_SPECIAL = (  # mistral_common's table for files that list none
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
    "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip


def _tekken_special(items: Any, count: int, source: Path | str) -> list[str]:
    texts: dict[int, str] = {}
    if items is None:
        texts = dict(enumerate(_TEKKEN_SPECIAL[:count]))
    elif not isinstance(items, list):
        raise DamagedInput("has special tokens that are not a list", file=source)
    for item in items or []:
        rank, text = (item.get("rank"), item.get("token_str")) if isinstance(item, Mapping) else (None, None)
        if type(rank) is not int or not 0 <= rank < count or not isinstance(text, str) or not text:
            raise DamagedInput(f"has the special token {shown(item)}, which needs a text and a rank under {count}", file=source)
        texts[rank] = text
    return [texts.get(index, f"<SPECIAL_{index}>") for index in range(count)]


def _tekken_texts(items: Any, count: int, source: Path | str) -> list[str]:
    if not isinstance(items, list) or len(items) < count:
        raise DamagedInput(f"has fewer than the {count} tokens that its config counts", file=source)
    texts = []
    for rank, item in enumerate(items[:count]):
        encoded = item.get("token_bytes") if isinstance(item, Mapping) and item.get("rank") == rank else None
        try:
            texts.append(encode_bytes(base64.b64decode(encoded, validate=True)) if isinstance(encoded, str) else "")
        except (binascii.Error, ValueError):
            texts.append("")
        if not texts[-1]:
            raise DamagedInput(f"has {shown(item)} as token {rank}, which is not that rank with bytes in base64", file=source)
    return texts
