"""The small files beside the weights that make a folder a Transformers checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from hubclient.formats.sourcefile import is_folder, listing, require_regular
from hubclient.ground.names import safe_relative

# What says what the model is and how its input is prepared.
MODEL_FILES = frozenset((
    "config.json", "generation_config.json", "params.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json",
    "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
))  # fmt: skip

# Chat templates beside the default one, and sentence-transformers' modules (1_Pooling, 2_Dense, ...).
_FOLDER = re.compile(r"additional_chat_templates|\d+_\w+")
_OTHER = re.compile(r"README\.md|LICENSE[\w.-]*|additional_chat_templates/[^/]+\.jinja|\d+_\w+/config\.json")


def sidecars(folder: Path) -> Mapping[str, Path]:
    """Relative POSIX name -> path of the known small files in `folder`, sorted by name.

    Links are followed and must lead to regular files: DamagedInput or SourceMissing otherwise.
    """
    found = {str(name): folder / name for name in _names(folder)}
    for path in found.values():
        require_regular(path)
    return MappingProxyType(found)


def is_sidecar(name: str) -> bool:
    """Whether a file of this relative POSIX name is one that `sidecars` finds."""
    return name in MODEL_FILES or _OTHER.fullmatch(name) is not None


def _names(folder: Path) -> Iterator[PurePosixPath]:
    taken: set[str] = set()
    for name in listing(folder):
        inside = _FOLDER.fullmatch(name) and is_folder(folder / name)
        found = [f"{name}/{inner}" for inner in listing(folder / name)] if inside else [name]
        for relative in filter(is_sidecar, found):
            if relative in MODEL_FILES or not is_folder(folder / relative):  # LICENSES may be a folder of texts
                yield safe_relative(relative, source=folder, taken=taken)
