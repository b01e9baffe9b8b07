"""What GGUF has no key for and we carry under keys of our own, so that going back gives the same folder.

hubclient.checkpoint   JSON: architecture, class, spelling of names, config difference, dtypes, small files
hubclient.tokenizer    JSON, see hubclient.formats.tokenizers
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.model import Encoding, Value
from hubclient.formats.safetensors.sidecars import is_sidecar
from hubclient.formats.tokenizers import is_tokenizer_file
from hubclient.ground.names import safe_relative, shown
from hubclient.ground.strictjson import parse_json
from hubclient.model import Naming

CHECKPOINT_KEY = "hubclient.checkpoint"
TOKENIZER_KEY = "hubclient.tokenizer"
_FILE_LIMIT = 256 << 10


@dataclass(frozen=True, slots=True)
class Carried:
    """The content of `hubclient.checkpoint`.

    `dtype` is the commonest dtype of the Hugging Face tensors and `dtypes` lists those that have another; `config` is a
    difference (see hubclient.architectures.language.config); `pre` is the pre-tokenizer's name if it was given by hand.
    """

    architecture: str
    hf_class: str
    naming: Naming
    config: Mapping[str, Any]
    dtype: Encoding | None = None
    dtypes: Mapping[str, Encoding] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    pre: str | None = None

    @staticmethod
    def split_dtypes(dtypes: Mapping[str, Encoding]) -> tuple[Encoding | None, dict[str, Encoding]]:
        """The commonest dtype, and the names that have another."""
        if not dtypes:
            return None, {}
        common = ENCODINGS[Counter(encoding.name for encoding in dtypes.values()).most_common(1)[0][0]]
        return common, {name: encoding for name, encoding in dtypes.items() if encoding != common}

    def all_dtypes(self, names: Iterable[str]) -> dict[str, Encoding]:
        """The dtype of each of these tensors, as far as known."""
        known = {name: self.dtypes.get(name, self.dtype) for name in names}
        return {name: encoding for name, encoding in known.items() if encoding is not None}

    def store(self) -> Value:
        """As a metadata value; the same content gives the same bytes."""
        content = {
            "version": 1,
            "architecture": self.architecture,
            "class": self.hf_class,
            "prefixed": self.naming.prefixed,
            "older_names": list(self.naming.older),
            **({"begun": list(self.naming.begun)} if self.naming.begun else {}),
            "config": self.config,
            "dtype": self.dtype.name if self.dtype else None,
            "dtypes": {name: encoding.name for name, encoding in self.dtypes.items()},
            "files": {name: data.decode() for name, data in self.files.items()},
            **({"pre": self.pre} if self.pre else {}),
        }
        return Value("str", json.dumps(content, ensure_ascii=False, separators=(",", ":")))


def portable(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Which small files can be carried (text, not too long), and a sentence for each that cannot."""
    kept: dict[str, bytes] = {}
    losses = []
    for name in files:
        data = files[name]
        if len(data) > _FILE_LIMIT:
            losses.append(f"{name}: too long to be carried ({len(data)} bytes)")
            continue
        try:
            data.decode()
        except UnicodeDecodeError:
            losses.append(f"{name}: not text, so it cannot be carried")
            continue
        kept[name] = data
    return kept, losses


def load(metadata: Mapping[str, Value], path: Path) -> Carried | None:
    """The carried content of a file, None if it has none; DamagedInput if it is not what we write."""
    if CHECKPOINT_KEY not in metadata:
        return None
    content = parse_json(str(metadata[CHECKPOINT_KEY].value).encode("utf-8", "surrogateescape"), path, part=f"{CHECKPOINT_KEY} ")
    try:
        if content["version"] != 1:
            raise DamagedInput(f"{path}: {CHECKPOINT_KEY} has a version that is not known here", file=path)
        return Carried(
            str(content["architecture"]),
            str(content["class"]),
            Naming(bool(content["prefixed"]), tuple(map(str, content["older_names"])), tuple(map(str, content.get("begun", ())))),
            {"set": dict(content["config"]["set"]), "unset": list(map(str, content["config"]["unset"]))},
            ENCODINGS[content["dtype"]] if content["dtype"] else None,
            {name: ENCODINGS[kind] for name, kind in content["dtypes"].items()},
            {_small_file(name, path): text.encode() for name, text in content["files"].items()},
            content.get("pre"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DamagedInput):
            raise
        raise DamagedInput(f"{path}: {CHECKPOINT_KEY} is not what hubclient writes", file=path) from None


def _small_file(name: str, path: Path) -> str:
    """A carried file's name: one of those that are carried, lest a file brings its own config, weights or programs."""
    safe_relative(name, source=path)
    if not is_sidecar(name) or name == "config.json" or is_tokenizer_file(name):
        raise DamagedInput(f"{path}: {CHECKPOINT_KEY} holds a file {shown(name)}, which hubclient does not carry", file=path)
    return name
