"""What a tokenizer is here: its Hugging Face files, parsed and checked, and nothing else.

Hugging Face's form is the hub: files are read into it (`hf`), GGUF keys are written from it (`gguf`) and it is rebuilt
from GGUF keys (`rebuild`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hubclient.formats.tokenizers.spm import SentencePieceModel

# Token types of GGUF (llama.h, enum llama_token_type); SentencePiece's piece types have the same numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

MAX_TOKENS = 1 << 21  # the largest published vocabulary (XLM-V) has 901,629
MAX_TOKEN_CHARS = 1 << 16
SPACE = "▁"  # U+2581, what SentencePiece writes for a space

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # Transformers' named special tokens, in its order


class AddedToken(NamedTuple):
    """A token that is matched in the text as it is, before the pipeline: tokenizer.json's `added_tokens`."""

    content: str
    special: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer as its Hugging Face files say it.

    document   tokenizer.json, with `merges` as a list of pairs; None if only a SentencePiece model is there
    pieces     the SentencePiece model beside it, None if there is none; `pieces_name` is its file's name
    config     tokenizer_config.json, None if there is none
    special    special_tokens_map.json, None if there is none
    added      added_tokens.json (token -> id), None if there is none
    templates  chat template files by relative name, as text
    files      relative names of the files that these came from
    ids        special token ids that the model's config names, by role ("bos"); not part of what is written
    spaced     whether tokenizer.json writes a merge as "a b" (before 2024) and not as ["a", "b"]
    source     what errors call it: a folder or a file
    """

    document: Mapping[str, Any] | None
    pieces: SentencePieceModel | None = None
    pieces_name: str = "tokenizer.model"
    config: Mapping[str, Any] | None = None
    special: Mapping[str, Any] | None = None
    added: Mapping[str, int] | None = None
    templates: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    files: tuple[str, ...] = ()
    ids: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    spaced: bool = False
    source: str = "tokenizer"

    @property
    def settings(self) -> Mapping[str, Any]:
        """tokenizer_config.json, empty if there is none."""
        return self.config or {}


def pad_token(index: int) -> str:
    """The text that llama.cpp's converter gives to a row of the embedding that no token has."""
    return f"[PAD{index}]"


def looks_special(text: str) -> bool:
    """Whether an added token is a control token by its look, although its files do not mark it as special.

    The rule is that of llama.cpp's converter (command-r, deepseek-coder and gemma leave such tokens unmarked).
    """
    return (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def token_text(value: Any) -> str | None:
    """The text of a special token in tokenizer_config.json, which is a string or an object with `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value else None
