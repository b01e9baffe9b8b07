"""What differs between families in how GGUF stores a tokenizer: small data that an architecture declares.

Architectures give it as a plain mapping (they do not know this package); every field has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hubclient.errors import UsageError


@dataclass(frozen=True, slots=True)
class Style:
    """How a family's tokenizer is stored. Ids and flags are by role: bos, eos, unk, sep, pad, mask, eot, eom.

    prefer             "sentencepiece": a SentencePiece model counts more than a tokenizer.json of another kind, which
                       counts more otherwise
    model              `tokenizer.ggml.model`, where the tokenizer's structure does not tell it ("gemma4")
    pre                names of pre-tokenizers to choose first among those that mean the same to llama.cpp
    add_space_prefix   the key's value; "tokenizer_config": what `add_prefix_space` there says, if it says anything
    add                flags that hold whatever the files say: {"bos": True}
    add_default        flags that hold where the files say nothing
    ids                ids that hold whatever the files say: {"pad": 0}
    default_ids        ids where the files name none: {"eot": 107}
    default_tokens     the same by text: {"eot": "<|user|>"}
    trust_special      an added token is a control token only if marked special, whatever it looks like
    control            "named": of a SentencePiece vocabulary without its model, only tokens that tokenizer_config.json
                       names for a purpose, or that look it, are control tokens, not all that are marked special (gemma4)
    user_defined       texts of special tokens that are to be shown in output all the same
    tokenizer_class    the class for tokenizer_config.json by pre-tokenizer name, when rebuilding: {"qwen2": "Qwen2Tokenizer"}
    """

    prefer: str | None = None
    model: str | None = None
    pre: tuple[str, ...] = ()
    add_space_prefix: bool | str | None = None
    add: Mapping[str, bool] = field(default_factory=dict)
    add_default: Mapping[str, bool] = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)
    default_ids: Mapping[str, int] = field(default_factory=dict)
    default_tokens: Mapping[str, str] = field(default_factory=dict)
    trust_special: bool = False
    control: str | None = None
    user_defined: tuple[str, ...] = ()
    tokenizer_class: Mapping[str, str] = field(default_factory=dict)


_NAMES = frozenset(item.name for item in fields(Style))


def style_of(options: Mapping[str, Any] | None) -> Style:
    """The style that plain options give. Raises UsageError for an option that does not exist."""
    unknown = sorted(set(options or {}) - _NAMES)
    if unknown:
        raise UsageError(f"a tokenizer has no option {unknown[0]!r}; there are {', '.join(sorted(_NAMES))}")
    return Style(**(options or {}))
