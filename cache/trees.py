"""`trees/<commit>.json`: what the Hub says is in a commit, kept beside the snapshot by huggingface_hub and by us.

A commit never changes, so the list never does; with it a snapshot is checked without the Hub. The format is
huggingface_hub's (`_tree_cache.py`, version 1); what is read may come from anybody and is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubclient.cache.digests import Digest
from hubclient.cache.inside import read_inside
from hubclient.errors import DamagedInput
from hubclient.ground.atomic import replace_file
from hubclient.ground.names import MAX_NAME_BYTES, safe_relative, shown
from hubclient.ground.strictjson import parse_object

_VERSION = 1
_LIMIT = 256 << 20  # bytes; a listing of a million files


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file of a commit: `size` in bytes, git's sha1 of what git keeps, and for large files the sha256 of the bytes."""

    size: int
    blob_id: str
    lfs_sha256: str | None = None
    xet_hash: str | None = None

    @property
    def etag(self) -> str:
        """What the Hub's ETag is, and so the blob's name in the cache."""
        return self.lfs_sha256 or self.blob_id

    @property
    def digest(self) -> Digest:
        """What its bytes must hash to."""
        return Digest("sha256", self.lfs_sha256) if self.lfs_sha256 else Digest("git-sha1", self.blob_id)


def checked_entry(name: str, entry: TreeEntry, source: str, taken: set[str] | None = None) -> TreeEntry:
    """The entry, if its name and numbers are sane. DamagedInput names `source` (a file or URL) and the fault."""
    safe_relative(name, source=source, taken=taken)
    return _checked_values(name, entry, source)


def _checked_values(name: str, entry: TreeEntry, source: str) -> TreeEntry:
    digest = Digest.of_name(entry.etag)
    if digest is None or digest != entry.digest:
        raise DamagedInput(f"{shown(name)} has the digest {shown(entry.etag)}, which is none", file=source)
    if type(entry.size) is not int or not 0 <= entry.size < 1 << 62:
        raise DamagedInput(f"{shown(name)} has the size {shown(entry.size)}", file=source)
    if entry.xet_hash is not None and getattr(Digest.of_name(entry.xet_hash), "algorithm", "") != "sha256":
        raise DamagedInput(f"{shown(name)} has the xet hash {shown(entry.xet_hash)}, which is none", file=source)
    return entry


def read_tree(path: Path, *, portable: bool = True) -> dict[str, TreeEntry] | None:
    """The list in a file, None if there is no such file (a link is none) or it is of another version. DamagedInput if it is broken; OSError.

    With `portable` names that some system would not take, or would take for one another, make it broken. Without, names are to
    be compared with those that are here, and never to become paths.
    """
    data = read_inside(path, path.parents[2], _LIMIT + 1)  # <cache>/<repository>/trees/<commit>.json
    if data is None:
        return None
    if len(data) > _LIMIT:
        raise DamagedInput(f"is larger than {_LIMIT:,} bytes", file=path)
    content = parse_object(data, path)
    if content.get("format_version") != _VERSION:
        return None
    files = content.get("files")
    if not isinstance(files, dict):
        raise DamagedInput('has no "files"', file=path)
    taken: set[str] = set()
    source = str(path)
    if portable:
        return {name: checked_entry(name, _entry(name, info, path), source, taken) for name, info in files.items()}
    return {_possible(name, source): _checked_values(name, _entry(name, info, path), source) for name, info in files.items()}


def write_tree(path: Path, entries: Mapping[str, TreeEntry]) -> None:
    """Keep a list, as huggingface_hub does. Raises OSError."""
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format_version": _VERSION, "files": {name: _told(entries[name]) for name in sorted(entries)}}
    replace_file(path, json.dumps(content, indent=1).encode())


def _possible(name: str, source: str) -> str:
    """The name, if a file inside a folder can have it on some system."""
    try:
        fits = "\0" not in name and len(name.encode()) <= MAX_NAME_BYTES and not {"", ".", ".."}.intersection(name.split("/"))
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise DamagedInput(f"no file can have the name {shown(name)}", file=source)
    return name


def _entry(name: str, info: Any, path: Path) -> TreeEntry:
    if not isinstance(info, dict):
        raise DamagedInput(f"{shown(name)} is not described by an object", file=path)
    blob, lfs, xet = info.get("blob_id"), info.get("lfs_sha256"), info.get("xet_hash")
    if not isinstance(blob, str) or not all(value is None or isinstance(value, str) for value in (lfs, xet)):
        raise DamagedInput(f"{shown(name)} has a digest that is no text", file=path)
    size = info.get("lfs_size") if lfs else info.get("size")
    return TreeEntry(size if isinstance(size, int) else -1, blob, lfs, xet)


def _told(entry: TreeEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"size": entry.size, "blob_id": entry.blob_id}
    if entry.lfs_sha256 is not None:
        told |= {"lfs_sha256": entry.lfs_sha256, "lfs_size": entry.size}
    return told | ({"xet_hash": entry.xet_hash} if entry.xet_hash is not None else {})
