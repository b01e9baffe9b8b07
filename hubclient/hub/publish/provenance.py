"""What the files of a push are: formats, types, and which model they were made from, as headers, configs and the cache's notes tell."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import read_outputs
from hubclient.errors import Unsupported
from hubclient.hub.publish.parcel import Parcel, read
from hubclient.traces import snapshot_of

if TYPE_CHECKING:
    from hubclient.formats.model import OpenedCheckpoint

_WEIGHTS = (".safetensors", ".gguf")
_LICENCE = {"license": "general.license", "license_name": "general.license.name", "license_link": "general.license.link"}
_BASES = 16  # of general.base_model.*, more than anybody merges
_SIMPLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)")
_CONFIG_LIMIT = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """The repository, and the commit if it is known, that something was made from; `type` is how the note calls the output's."""

    repo: RepoId
    commit: str | None = None
    type: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """`kinds` are format and type by file name, of weights alone; `origins` by file name are what the cache's notes say.

    `stated` are the repositories that headers or the config name as the source, likeliest first; nobody has checked them.
    `licence` holds fields of a card, as the headers have them.
    """

    kinds: Mapping[str, tuple[str, str]]
    origins: Mapping[str, Origin]
    stated: tuple[RepoId, ...] = ()
    architecture: str = ""
    transformers: bool = False
    licence: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def formats(self) -> tuple[str, ...]:
        """Each once, in the order of the files."""
        return tuple(dict.fromkeys(kind for kind, _ in self.kinds.values()))


def look(parcel: Parcel, cache: Path) -> Contents:
    """Read the headers of all weights that go as a whole. DamagedInput if they are broken; `cache` is asked for its notes."""
    opened = tuple(_opened(parcel))
    names = {os.path.realpath(item.path): item.name for item in parcel.items}
    kinds = {
        item.name: (item.name.rpartition(".")[2].lower(), "") for item in parcel.items if item.name.lower().endswith(_WEIGHTS)
    }
    for checkpoint in opened:
        told = checkpoint.format, type_of(checkpoint)
        kinds |= {name: told for file in checkpoint.files if (name := names.get(os.path.realpath(file.path)))}
    config = _config(parcel)
    metadata: Mapping[str, Any] = opened[0].metadata if opened else {}
    model_type = config.get("model_type") or _text(metadata, "general.architecture")
    return Contents(
        kinds,
        dict(_origins(parcel, cache)),
        tuple(dict.fromkeys(_stated(metadata, config))),
        model_type if isinstance(model_type, str) and _SIMPLE.fullmatch(model_type) else "",
        bool(config),
        {key: text for key, name in _LICENCE.items() if (text := _text(metadata, name))},
    )


def type_of(opened: OpenedCheckpoint) -> str:
    """The type of a checkpoint as people name it: Q4_K_M, BF16, 4bit."""
    from hubclient.formats.gguf.storage import FILE_TYPES
    from hubclient.formats.mlx.packing import PACKINGS
    from hubclient.mix import mix

    stated = opened.metadata.get("general.file_type") if opened.format == "gguf" else None
    for name, number in FILE_TYPES.items():
        if stated is not None and stated.value == number:
            return name
    shares = mix((ref.encoding.name, math.prod(ref.shape), ref.nbytes) for ref in opened.tensors.values())
    largest = next(iter(shares), "")
    return PACKINGS[largest][0].label if largest in PACKINGS else largest


def _opened(parcel: Parcel) -> Iterator[OpenedCheckpoint]:
    """Checkpoints whose files all go; what nobody here can read is not looked into."""
    sent = {item.path for item in parcel.items}
    done: set[Path] = set()
    for path in _units(parcel):
        found = _open(path) if path not in done else None
        if found is not None:
            files = {file.path for file in found.files}
            done |= files
            if files <= sent:
                yield found


def _open(path: Path) -> OpenedCheckpoint | None:
    from hubclient.plugins import get_host

    for format_ in get_host().formats():
        if format_.detect(path):
            try:
                return format_.open(path)
            except Unsupported:
                return None
    return None


def _units(parcel: Parcel) -> Iterator[Path]:
    """What may be a checkpoint: folders with safetensors of which none is left behind, and GGUFs."""
    weights = [item.path for item in parcel.items if item.name.lower().endswith(_WEIGHTS)]
    if not parcel.path.is_dir():
        yield from weights
        return
    for folder in sorted({path.parent for path in weights if path.name.endswith(".safetensors")}):
        if set(weights).issuperset(folder / name for name in os.listdir(folder) if name.endswith(".safetensors")):
            yield folder
    yield from (path for path in weights if path.suffix.lower() == ".gguf")


def _config(parcel: Parcel) -> Mapping[str, Any]:
    """config.json, if one goes along that can be read."""
    from hubclient.ground.strictjson import parse_object

    for item in parcel.items:
        if item.name == "config.json" and item.size <= _CONFIG_LIMIT:
            return parse_object(read(item), item.path, allow_nonfinite=True)
    return {}


def _origins(parcel: Parcel, cache: Path) -> Iterator[tuple[str, Origin]]:
    outputs = _outputs(cache)
    snapshot = snapshot_of(parcel.path)
    whole = outputs.get(os.path.realpath(parcel.path)) or (Origin(snapshot[0].repo, snapshot[1]) if snapshot else None)
    for item in parcel.items:
        own = (outputs.get(os.path.realpath(path)) for path in (item.path, _unsplit(item.path)))
        if found := next(filter(None, own), whole):
            yield item.name, found


def _unsplit(path: Path) -> Path:
    """What a part's output was called before it was split."""
    return path.with_name(re.sub(r"-\d{5}-of-\d{5}(?=\.gguf\Z)", "", path.name))


def _outputs(cache: Path) -> dict[str, Origin]:
    """What was made from repositories in the cache, by path. A cache that cannot be read has no notes."""
    try:
        folders = sorted(os.listdir(cache))
    except OSError:
        return {}
    repos = [repo for folder in folders if (repo := RepoId.of_folder(folder))]
    return {note.path: Origin(repo, note.commit, note.type) for repo in repos for note in read_outputs(RepoPaths(cache, repo))}


def _stated(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[RepoId]:
    """Repositories that GGUF's `general.*` (ggml's docs/gguf.md) and config.json name."""
    bases = (f"general.base_model.{number}" for number in range(_BASES))
    for key in ("general.source", *bases):
        yield from _repos(_text(metadata, f"{key}.{field}") for field in ("huggingface.repository", "repo_url", "url"))
    name = config.get("_name_or_path")
    if isinstance(name, str) and not os.path.exists(name):  # noqa: PTH110  Path.exists may raise
        yield from _repos([name])


def _repos(texts: Iterable[str]) -> Iterator[RepoId]:
    """The first that is "org/name", or its page on the Hub."""
    for text in texts:
        page = _PAGE.match(text)
        repo = RepoId(page[1] if page else text)
        if "/" in repo.name and repo.is_valid:
            yield repo
            return


def _text(metadata: Mapping[str, Any], key: str) -> str:
    value = getattr(metadata.get(key), "value", None)
    return value if isinstance(value, str) and len(value) <= 256 and value.isprintable() else ""
