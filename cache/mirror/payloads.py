"""The JSON of the Hub's answers, field by field as `huggingface_hub` and llama.cpp read them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from hubclient.cache.mirror.repositories import BRANCHES, CONVERTS, PULLS, TAGS, Commit, Repository, StoredFile, User
from hubclient.cache.trees import TreeEntry
from hubclient.errors import DamagedInput
from hubclient.ground.strictjson import parse_object

_CONFIG_LIMIT = 1 << 20  # bytes of a config.json that is looked into
_LIBRARIES = {".safetensors": "safetensors", ".gguf": "gguf", ".onnx": "onnx"}


def repository_info(repository: Repository, commit: Commit | None, *, sizes: bool = False) -> dict[str, Any]:
    """What `/api/models/{id}` says, as of a commit; `sizes` adds sizes and digests to the list of files."""
    files = commit.files if commit else {}
    config = _config(commit) if commit else {}
    return {
        "_id": hashlib.sha1(f"{repository.kind}/{repository.id}".encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repository.id,
        **({"modelId": repository.id} if repository.kind == "model" else {}),
        "author": repository.author,
        "sha": commit.id if commit else None,
        "lastModified": stamp(commit.date if commit else repository.created),
        "createdAt": stamp(repository.created),
        "private": repository.private,
        "gated": repository.gated or False,
        "disabled": False,
        "downloads": repository.downloads,
        "likes": repository.likes,
        "tags": labels(repository, commit),
        "siblings": [sibling(name, file.entry, sizes) for name, file in sorted(files.items())],
        "usedStorage": sum(file.entry.size for file in files.values()),
        **({"config": config} if config else {}),
        **({"library_name": "transformers"} if config else {}),
        **repository.details,
    }


def labels(repository: Repository, commit: Commit | None) -> list[str]:
    """The tags that a search filters by: those given, and what the files tell."""
    names = commit.files if commit else {}
    told = {library for name in names for suffix, library in _LIBRARIES.items() if name.endswith(suffix)}
    if "config.json" in names:
        told.add("transformers")
    return [*repository.labels, *sorted(told - set(repository.labels))]


def sibling(name: str, entry: TreeEntry, sizes: bool) -> dict[str, Any]:
    """A file in the answer about a repository."""
    if not sizes:
        return {"rfilename": name}
    told: dict[str, Any] = {"rfilename": name, "size": entry.size, "blobId": entry.blob_id}
    if entry.lfs_sha256:
        told["lfs"] = {"sha256": entry.lfs_sha256, "size": entry.size, "pointerSize": len(pointer(entry.lfs_sha256, entry.size))}
    return told


def tree_names(commit: Commit, path: str, *, recursive: bool) -> list[str] | None:
    """Files and folders under a path, in order; None if there is no such folder."""
    below = f"{path}/" if path else ""
    folders = _folders(commit)
    if path and path not in folders:
        return None
    names = {*commit.files, *folders}
    return sorted(name for name in names if name.startswith(below) and (recursive or "/" not in name[len(below) :]))


def described(commit: Commit, name: str, *, expand: bool = False) -> dict[str, Any] | None:
    """A file or a folder as the tree lists it; None if the commit has neither. `expand` adds the commit."""
    told: dict[str, Any]
    if file := commit.files.get(name):
        told = _file(name, file)
    elif name in _folders(commit):
        told = {"type": "directory", "oid": _folders(commit)[name], "size": 0, "path": name}
    else:
        return None
    if expand:
        told["lastCommit"] = {"id": commit.id, "title": commit.title, "date": stamp(commit.date)}
    return told


def refs(repository: Repository, *, pulls: bool) -> dict[str, Any]:
    """What `/api/models/{id}/refs` says."""

    def under(prefix: str) -> list[dict[str, str]]:
        found = ((name, commit) for name, commit in repository.refs.items() if name.startswith(prefix))
        return [{"name": name.removeprefix(prefix), "ref": name, "targetCommit": commit} for name, commit in found]

    lists = {"tags": under(TAGS), "branches": under(BRANCHES), "converts": under(CONVERTS)}
    return {**lists, "pullRequests": under(PULLS)} if pulls else lists


def history(repository: Repository, commit: Commit) -> Iterable[dict[str, Any]]:
    """The commit and those before it."""
    here: Commit | None = commit
    while here is not None:
        authors = [{"user": author} for author in here.authors]
        yield {"id": here.id, "title": here.title, "message": here.message, "authors": authors, "date": stamp(here.date)}
        here = repository.commits.get(here.parent) if here.parent else None


def whoami(user: User) -> dict[str, Any]:
    """What `/api/whoami-v2` says."""
    return {
        "type": "user",
        "id": hashlib.sha1(user.name.encode(), usedforsecurity=False).hexdigest()[:24],
        "name": user.name,
        "fullname": user.name,
        "email": None,
        "isPro": False,
        "orgs": [{"type": "org", "name": name, "fullname": name, "roleInOrg": "write"} for name in user.organisations],
        "auth": {"type": "access_token", "accessToken": {"displayName": "token", "role": user.role}},
    }


def pointer(sha256: str, size: int) -> bytes:
    """What git keeps in place of a large file (git-lfs, docs/spec.md); the file's blob id is of this."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def stamp(date: datetime) -> str:
    """A time as the Hub writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}Z"


def _file(name: str, file: StoredFile) -> dict[str, Any]:
    entry = file.entry
    told: dict[str, Any] = {"type": "file", "oid": entry.blob_id, "size": entry.size, "path": name}
    if entry.lfs_sha256:
        told["lfs"] = {"oid": entry.lfs_sha256, "size": entry.size, "pointerSize": len(pointer(entry.lfs_sha256, entry.size))}
    if entry.xet_hash:
        told["xetHash"] = entry.xet_hash
    return told


@lru_cache(maxsize=64)
def _folders(commit: Commit) -> Mapping[str, str]:
    """Each folder of a commit and the id that git gives it (git's tree object: "mode name NUL digest", in order)."""
    inside: dict[str, set[str]] = {"": set()}
    for name in commit.files:
        here = name
        while here:
            folder = here.rpartition("/")[0]
            inside.setdefault(folder, set()).add(here)
            here = folder
    found: dict[str, str] = {}
    for folder in sorted(inside, key=lambda name: name.count("/") + bool(name), reverse=True):
        found[folder] = _tree_id(commit, inside[folder], found)
    del found[""]
    return found


def _tree_id(commit: Commit, names: Iterable[str], folders: Mapping[str, str]) -> str:
    lines = {}
    for name in names:
        last, file = name.rpartition("/")[2].encode("utf-8", "surrogateescape"), commit.files.get(name)
        if file:
            lines[last] = b"100644 " + last + b"\0" + bytes.fromhex(file.entry.blob_id)
        else:
            lines[last + b"/"] = b"40000 " + last + b"\0" + bytes.fromhex(folders[name])
    body = b"".join(lines[key] for key in sorted(lines))
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


@lru_cache(maxsize=256)
def _config(commit: Commit) -> dict[str, Any]:
    """The few keys of config.json that the Hub shows; none if there is no readable one."""
    file = commit.files.get("config.json")
    if file is None or file.entry.size > _CONFIG_LIMIT:
        return {}
    try:
        config = parse_object(file.path.read_bytes(), file.path)
    except (DamagedInput, OSError):
        return {}  # the file is served as it is; only this summary of it is left out
    return {key: config[key] for key in ("architectures", "model_type") if key in config}
