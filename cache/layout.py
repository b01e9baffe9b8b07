"""Where the Hugging Face cache keeps what: pure names and paths, nothing is read or written.

    <cache>/models--org--name/blobs/<etag>                the bytes; named by their digest
                              snapshots/<commit>/<file>   relative links to blobs (or files, where links are refused)
                              refs/<branch or tag>        text: the commit
                              trees/<commit>.json         what the Hub says is in the commit (huggingface_hub >= 2)
                              .no_exist/<commit>/<file>   empty: the Hub has no such file
                              .hubclient/                 notes of ours, see `notes.py`; other tools pass over it
            blobs/<2 hex>/<xet hash>[.refs]               one copy for all repositories (see `sharedstore.py`)
            .locks/models--org--name/<etag>.lock          who is downloading
            CACHEDIR.TAG                                  tells backup programs to pass by

Source: huggingface_hub 2.4, `file_download.py`, `_tree_cache.py`, `utils/_cache_manager.py`, `utils/_shared_blobs.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hubclient.errors import UsageError
from hubclient.ground.names import safe_relative, shown

FOLDERS: Mapping[str, str] = MappingProxyType({"model": "models", "dataset": "datasets", "space": "spaces", "kernel": "kernels"})
DEFAULT_REVISION = "main"
LOCKS = ".locks"
SHARED = "blobs"
_TYPES = {plural: singular for singular, plural in FOLDERS.items()}
_COMMIT = re.compile(r"[0-9a-f]{40}")
# huggingface_hub's validate_repo_id: letters, digits and -_. , no two dots or dashes in a row, none of them at an end
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_]|\.(?!\.)|-(?!-))*(?<![.-])")
_MAX_NAME = 96  # characters of each part


def hf_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of everything Hugging Face's: HF_HOME, else `huggingface` in XDG_CACHE_HOME, else in ~/.cache."""
    named = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(os.path.expanduser(named)))


def default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """The cache in use: HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else `hub` in `hf_home`."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(named))) if named else hf_home(environ) / "hub"


def is_commit(text: str) -> bool:
    """Whether it is a full commit hash."""
    return _COMMIT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class RepoId:
    """A repository of the Hub: `name` is "org/name" (or "name" alone, of the oldest), `type` a key of FOLDERS."""

    name: str
    type: str = "model"

    @classmethod
    def parse(cls, text: str) -> RepoId:
        """From "org/name", "models/org/name", "datasets/org/name", ...; UsageError if it is none."""
        first, _, rest = text.partition("/")
        kind = _TYPES.get(first) or (first if first in FOLDERS else None)
        repo = cls(rest, kind) if kind and rest else cls(text)
        if not repo.is_valid:
            told = "letters, digits, '-', '_' and '.', at most one slash, 96 characters a part"
            raise UsageError(f"{shown(text)} is no repository's name, which has {told}", hint="such as org/name")
        return repo

    @classmethod
    def of_folder(cls, folder: str) -> RepoId | None:
        """From a folder's name in the cache ("models--org--name"); None if it is no repository's."""
        plural, _, rest = folder.partition("--")
        repo = cls(rest.replace("--", "/"), _TYPES.get(plural, ""))
        return repo if repo.type and repo.is_valid else None

    @property
    def is_valid(self) -> bool:
        """Whether the Hub would take such a name; one that holds is safe as a folder's name, too."""
        parts = self.name.split("/")
        fits = all(len(part) <= _MAX_NAME and _PART.fullmatch(part) for part in parts)
        return fits and len(parts) <= 2 and not self.name.endswith(".git")

    @property
    def folder(self) -> str:
        """Its folder's name in the cache."""
        return "--".join([FOLDERS[self.type], *self.name.split("/")])

    def __str__(self) -> str:
        return self.name if self.type == "model" else f"{FOLDERS[self.type]}/{self.name}"


@dataclass(frozen=True, slots=True)
class RepoPaths:
    """The places of one repository in the cache at `cache`."""

    cache: Path
    repo: RepoId

    @property
    def path(self) -> Path:
        """The repository's folder."""
        return self.cache / self.repo.folder

    @property
    def blobs(self) -> Path:
        """The folder of its files' bytes."""
        return self.path / "blobs"

    @property
    def snapshots(self) -> Path:
        """The folder of its revisions, one folder each."""
        return self.path / "snapshots"

    @property
    def refs(self) -> Path:
        """The folder of branches and tags."""
        return self.path / "refs"

    @property
    def notes(self) -> Path:
        """The folder of our own notes."""
        return self.path / ".hubclient"

    def blob(self, etag: str) -> Path:
        """A blob; UsageError unless the name is a plain one."""
        return self.blobs / _plain(etag)

    def snapshot(self, commit: str) -> Path:
        """A revision's folder."""
        return self.snapshots / _plain(commit)

    def pointer(self, commit: str, name: str) -> Path:
        """A file of a revision; DamagedInput for a name that would lead elsewhere, see `safe_relative`."""
        return self.snapshot(commit) / safe_relative(name, source=str(self.repo))

    def ref(self, name: str) -> Path:
        """A branch's or tag's file; DamagedInput for a name that would lead elsewhere."""
        return self.refs / safe_relative(name, source=str(self.repo))

    def tree(self, commit: str) -> Path:
        """The Hub's list of a commit's files."""
        return self.path / "trees" / f"{_plain(commit)}.json"

    def no_exist(self, commit: str) -> Path:
        """The folder of files that the Hub said a commit lacks."""
        return self.path / ".no_exist" / _plain(commit)

    def lock(self, etag: str) -> Path:
        """The lock of whoever downloads a blob, huggingface_hub included."""
        return self.cache / LOCKS / self.repo.folder / f"{_plain(etag)}.lock"


def _plain(name: str) -> str:
    """A blob's or commit's name: one part of a path, no way out of its folder."""
    if len(safe_relative(name, source="the cache").parts) != 1:
        raise UsageError(f"{shown(name)} is no name of a blob or commit")
    return name
