"""What there is on the Hub: search by words and tags, and what is known of one repository, here and there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked, checked_revision
from hubclient.cache.digests import Digest
from hubclient.cache.layout import DEFAULT_REVISION, RepoId, RepoPaths, is_commit
from hubclient.errors import DamagedInput, HubclientError, NetworkFault, UnsupportedArchitecture, UsageError
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_object
from hubclient.hub.net.failures import About
from hubclient.hub.resolve import api_path, resolve_offline

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

SORTS: Mapping[str, str] = MappingProxyType({
    "downloads": "downloads", "likes": "likes", "updated": "lastModified", "created": "createdAt", "trending": "trendingScore",
})  # fmt: skip
FORMATS = ("safetensors", "gguf", "mlx", "pytorch", "onnx", "openvino", "tflite")  # as the Hub's tags call them
_FIELDS = ("downloads", "likes", "lastModified", "gated", "private", "tags", "pipeline_tag")
_PAGE = 1000  # the Hub's most to a page
_KINDS = {".safetensors": "safetensors", ".gguf": "gguf", ".bin": "pytorch", ".pt": "pytorch", ".pth": "pytorch", ".onnx": "onnx"}
_CONFIG_LIMIT = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A repository that a search found. `downloads` are those of the last month, `updated` is ISO 8601; `gated` is "auto" (who asks
    gets in) or "manual"; `formats` are guessed from the tags. None: the Hub does not say.
    """

    name: str
    downloads: int | None
    likes: int | None
    updated: str | None
    gated: str | None
    private: bool
    formats: tuple[str, ...]
    licence: str | None
    task: str | None


@dataclass(frozen=True, slots=True)
class InfoFile:
    """A file of a revision: its `size` in bytes, what `kind` it is, and whether its bytes are in the cache here."""

    name: str
    size: int | None
    kind: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a revision of a repository. `offline`: from the cache alone, and what only the Hub knows is None.

    `refs` are branches and tags with their commits. `architecture` is the class or name that its config gives, `supported`
    whether this installation knows it; None if nothing tells. `licence_page` is where a gate's licence is accepted.
    """

    repo: str
    revision: str
    commit: str
    offline: bool
    refs: Mapping[str, str]
    files: tuple[InfoFile, ...]
    architecture: str | None
    supported: bool | None
    private: bool | None = None
    gated: str | None = None
    licence: str | None = None
    licence_page: str | None = None
    library: str | None = None
    task: str | None = None
    downloads: int | None = None
    likes: int | None = None
    updated: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by kind of file."""
        return {
            kind: sum(file.size or 0 for file in self.files if file.kind == kind)
            for kind in sorted({file.kind for file in self.files})
        }

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size or 0 for file in self.files)

    @property
    def cached(self) -> int:
        """Bytes that are here."""
        return sum(file.size or 0 for file in self.files if file.cached)


def search(
    session: Session,
    text: str = "",
    *,
    limit: int = 20,
    filter: str | Sequence[str] = (),  # noqa: A002 - the word of the Hub
    author: str | None = None,
    sort: str = "downloads",
) -> tuple[Found, ...]:
    """Models whose names hold the words of `text`, at most `limit`, in the order of `sort` (a key of SORTS).

    `filter` are tags that all must have: "gguf", "safetensors", "mlx", or any other. Raises UsageError, Offline,
    NetworkFault, AccessDenied.
    """
    if sort not in SORTS:
        raise UsageError(f"{shown(sort)} is no order; orders are {', '.join(SORTS)}")
    if limit < 1:
        raise UsageError(f"a limit of {limit} finds nothing")
    session.need_for("search")
    tags = [filter] if isinstance(filter, str) else list(filter)
    asked = {
        "search": text,
        "author": author,
        "filter": tags,
        "sort": SORTS[sort],
        "limit": min(limit, _PAGE),
        "expand": list(_FIELDS),
    }
    pages = session.pages("/api/models", {key: value for key, value in asked.items() if value})
    return tuple(_found(item, session) for item in islice(chain.from_iterable(pages), limit))


def info(session: Session, cache: Path, repo: RepoId, revision: str = DEFAULT_REVISION) -> Info:
    """What the Hub says of a revision and what of it is in the cache; offline the latter alone. No file is fetched.

    Raises SourceMissing, AccessDenied, NetworkFault, and Offline if nothing of it is here either.
    """
    checked_revision(revision)
    paths = RepoPaths(cache, repo)
    if session.offline:
        return _info_here(paths, revision)
    about = About(repo, None if revision == DEFAULT_REVISION else revision)
    told = session.get_json(api_path(repo, "revision", revision), {"blobs": "true"}, about)
    refs = session.get_json(api_path(repo, "refs"), about=About(repo))
    commit = told.get("sha") if isinstance(told, dict) else None
    if not isinstance(commit, str) or not is_commit(commit):
        raise NetworkFault(f"{session.host} names no commit for {Asked(repo, revision)} but {shown(commit)}")
    config, gguf, head = (_mapping(told.get(key)) for key in ("config", "gguf", "cardData"))
    architecture, supported = _architecture(config, _text(gguf.get("architecture")))
    gated = _text(told.get("gated"))
    return Info(
        str(repo),
        revision,
        commit,
        offline=False,
        refs=dict(_refs(refs)),
        files=tuple(_files(told.get("siblings"), paths, commit)),
        architecture=architecture,
        supported=supported,
        private=told.get("private") is True,
        gated=gated,
        licence=_licence(told) or _text(head.get("license")),
        licence_page=f"{session.endpoint}/{repo}" if gated else None,
        library=_text(told.get("library_name")),
        task=_text(told.get("pipeline_tag")),
        downloads=_number(told.get("downloads")),
        likes=_number(told.get("likes")),
        updated=_text(told.get("lastModified")),
    )


def _info_here(paths: RepoPaths, revision: str) -> Info:
    found = resolve_offline(paths, revision)
    files = tuple(
        InfoFile(name, entry.size, _kind(name), _is_here(paths, found.commit, name, entry.etag, entry.size))
        for name, entry in sorted(found.entries.items())
    )
    from hubclient.cache.writing.placing import read_ref

    names = (path.relative_to(paths.refs).as_posix() for path in sorted(paths.refs.rglob("*")) if path.is_file())
    refs = {name: commit for name in names if (commit := read_ref(paths, name))}
    architecture, supported = _architecture(_config_here(paths, found.commit), None)
    return Info(str(paths.repo), revision, found.commit, True, refs, files, architecture, supported)


def _config_here(paths: RepoPaths, commit: str) -> Mapping[str, Any]:
    path = paths.pointer(commit, "config.json")
    try:
        with path.open("rb") as file:
            return parse_object(file.read(_CONFIG_LIMIT), path, allow_nonfinite=True)
    except (OSError, DamagedInput):
        return {}  # info shows what can be known


def _architecture(config: Mapping[str, Any], gguf: str | None) -> tuple[str | None, bool | None]:
    """What the config calls it, and whether somebody here knows it."""
    from hubclient.plugins import get_host

    listed = config.get("architectures")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    name, space = (names[0], "hf") if names else (gguf, "gguf")
    if name is None:
        return None, None
    try:
        return name, bool(get_host().architectures(space, name))
    except UnsupportedArchitecture:
        return name, False
    except HubclientError:  # a plugin that is broken, or two of them
        return name, None


def _found(item: Any, session: Session) -> Found:
    told = _mapping(item)
    name = told.get("id")
    if not isinstance(name, str):
        raise NetworkFault(f"{session.host} finds something that has no name: {shown(item)}")
    tags = _tags(told)
    return Found(
        name,
        _number(told.get("downloads")),
        _number(told.get("likes")),
        _text(told.get("lastModified")),
        _text(told.get("gated")),
        told.get("private") is True,
        tuple(format_ for format_ in FORMATS if format_ in tags),
        _licence(told),
        _text(told.get("pipeline_tag")),
    )


def _refs(told: Any) -> Iterator[tuple[str, str]]:
    for kind in ("branches", "tags"):
        for ref in _list(_mapping(told).get(kind)):
            name, commit = _mapping(ref).get("name"), _mapping(ref).get("targetCommit")
            if isinstance(name, str) and isinstance(commit, str):
                yield name, commit


def _files(told: Any, paths: RepoPaths, commit: str) -> Iterator[InfoFile]:
    for item in map(_mapping, _list(told)):
        name, size = item.get("rfilename"), _number(item.get("size"))
        if isinstance(name, str):
            etag = _text(_mapping(item.get("lfs")).get("sha256")) or _text(item.get("blobId")) or ""
            yield InfoFile(name, size, _kind(name), _is_here(paths, commit, name, etag, size))


def _is_here(paths: RepoPaths, commit: str, name: str, etag: str, size: int | None) -> bool:
    """Whether the bytes are in the cache, under their digest or in the snapshot, as far as their size tells."""
    try:
        places = [*([paths.blob(etag)] if Digest.of_name(etag) else []), paths.pointer(commit, name)]
    except DamagedInput:  # a name that no cache may hold
        return False
    return any(_has_size(place, size) for place in places)


def _has_size(path: Path, size: int | None) -> bool:
    try:
        return path.is_file() and size in (None, path.stat().st_size)
    except OSError:
        return False


def _kind(name: str) -> str:
    return next((kind for suffix, kind in _KINDS.items() if name.lower().endswith(suffix)), "other")


def _licence(told: Mapping[str, Any]) -> str | None:
    return next((tag.removeprefix("license:") for tag in _tags(told) if tag.startswith("license:")), None)


def _tags(told: Mapping[str, Any]) -> list[str]:
    return [tag for tag in _list(told.get("tags")) if isinstance(tag, str)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
