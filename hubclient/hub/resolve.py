"""Which commit a revision is, and what the commit holds: asked of the Hub, or offline of what is here.

A commit never changes, so a list of its files that was kept (`trees/<commit>.json`) is not asked for again, and a full
commit with a kept list takes no request at all. Whatever tells the list, no name or number of it is used unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked, checked_revision
from hubclient.cache.digests import Digest
from hubclient.cache.inside import is_inside, names_inside
from hubclient.cache.layout import DEFAULT_REVISION, FOLDERS, RepoId, RepoPaths, is_commit
from hubclient.cache.lookup import refuse_linked
from hubclient.cache.trees import TreeEntry, checked_entry, read_tree
from hubclient.errors import DamagedInput, EnvironmentFault, NetworkFault, Offline, UsageError
from hubclient.ground.names import shown
from hubclient.hub.net.failures import About

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

MAX_FILES = 1_000_000
WEIGHTS = (".safetensors", ".gguf")
_SHORT = 7  # digits of an abbreviated commit, as git shows it; a branch may be called "a" or "fee"


@dataclass(frozen=True, slots=True)
class RepoFacts:
    """What the Hub says of a repository: its present name, and whether and how it is closed to strangers."""

    name: str
    private: bool = False
    gated: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit and its files, `entries` by name.

    `complete`: the list is the Hub's; else (offline, and no list was kept) it is what the snapshot shows, where an entry
    without a digest is a file whose digest nothing tells. `facts` are there if the Hub was asked.
    """

    repo: RepoId
    revision: str
    commit: str
    entries: Mapping[str, TreeEntry]
    complete: bool = True
    listed: bool = False  # whether the Hub told the list just now
    facts: RepoFacts | None = None

    @property
    def asked(self) -> Asked:
        """As a user writes it."""
        return Asked(self.repo, self.revision)

    @property
    def where(self) -> str:
        """For sentences: the repository and its commit."""
        return f"{self.repo}@{self.commit[:12]}"

    @property
    def ref(self) -> str | None:
        """The branch or tag that was asked for; None if it was a commit, abbreviated or not."""
        abbreviated = len(self.revision) >= _SHORT and self.commit.startswith(self.revision)
        return None if abbreviated else self.revision

    def paths(self, cache: Path) -> RepoPaths:
        """Its places in a cache."""
        return RepoPaths(cache, self.repo)


def resolve(session: Session, cache: Path, repo: RepoId, revision: str = DEFAULT_REVISION) -> Resolved:
    """The commit that `revision` (a branch, a tag, a commit) is now, and its files. Nothing is written.

    Raises what `Session` raises (NetworkFault, AccessDenied, SourceMissing), Offline if it would have to be asked and may
    not be, and DamagedInput if the list holds a name or number that cannot be right.
    """
    checked_revision(revision)
    _refuse_file(cache)
    paths = RepoPaths(cache, repo)
    if session.offline:
        return resolve_offline(paths, revision)
    facts = None
    commit = revision if is_commit(revision) else ""
    if not commit:
        commit, facts = _ask(session, repo, revision)
    with suppress(DamagedInput):  # asked for anew
        if (entries := kept_tree(paths, commit)) is not None:
            return Resolved(repo, revision, commit, entries, facts=facts)
    return Resolved(repo, revision, commit, listed(session, repo, commit), listed=True, facts=facts)


def _refuse_file(cache: Path) -> None:
    if cache.exists() and not cache.is_dir():
        raise EnvironmentFault(f"{cache}: is no folder, and so no cache", cache, hint="HF_HUB_CACHE and HF_HOME name it")


def resolve_offline(paths: RepoPaths, revision: str = DEFAULT_REVISION) -> Resolved:
    """The same from what is here; Offline, with the command that fetches it, if the revision is not here; DamagedInput."""
    refuse_linked(paths.cache, paths.repo)
    commit = _commit_here(paths, revision)
    entries = kept_tree(paths, commit)
    if entries is not None:
        return Resolved(paths.repo, revision, commit, entries)
    return Resolved(paths.repo, revision, commit, _snapshot(paths, commit, revision), complete=False)


def kept_tree(paths: RepoPaths, commit: str) -> dict[str, TreeEntry] | None:
    """The kept list of a commit's files, checked; None if there is none, or one of a version that is not known here."""
    path = paths.tree(commit)
    try:
        entries = read_tree(path)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
    if entries is not None:
        _refuse_crossing(entries, str(path))
    return entries


def listed(session: Session, repo: RepoId, commit: str) -> dict[str, TreeEntry]:
    """The Hub's list of a commit's files, checked. Raises what `Session` raises, and DamagedInput."""
    source = f"{repo}@{commit[:12]}"
    entries: dict[str, TreeEntry] = {}
    taken: set[str] = set()
    pages = session.pages(api_path(repo, "tree", commit), {"recursive": "true", "expand": "false"}, About(repo, commit))
    for item in chain.from_iterable(pages):
        if not isinstance(item, dict):
            raise DamagedInput("the Hub's list of files is no list of objects", file=source)
        if item.get("type") == "directory":
            continue  # told by its files
        name, entry = _entry(item, source)
        entries[name] = checked_entry(name, entry, source, taken)
        if len(entries) > MAX_FILES:
            raise DamagedInput(f"lists more than {MAX_FILES:,} files", file=source)
    _refuse_crossing(entries, source)
    return entries


def api_path(repo: RepoId, *more: str) -> str:
    """The path of a request about a repository; the parts of `more` are quoted, slashes included."""
    from urllib.parse import quote

    return "/".join(["/api", FOLDERS[repo.type], repo.name, *(quote(part, safe="") for part in more)])


def _ask(session: Session, repo: RepoId, revision: str) -> tuple[str, RepoFacts]:
    answer = session.get_json(api_path(repo, "revision", revision), about=About(repo, revision))
    told = answer if isinstance(answer, dict) else {}
    commit = told.get("sha")
    if not isinstance(commit, str) or not is_commit(commit):
        raise NetworkFault(f"{session.endpoint} names no commit for {Asked(repo, revision)} but {shown(commit)}")
    gated, modified, name = told.get("gated"), told.get("lastModified"), told.get("id")
    facts = RepoFacts(
        name if isinstance(name, str) and RepoId(name).is_valid else repo.name,
        told.get("private") is True,
        gated if isinstance(gated, str) else None,
        modified if isinstance(modified, str) else None,
    )
    return commit, facts


def _entry(item: Mapping[str, Any], source: str) -> tuple[str, TreeEntry]:
    name, blob, lfs, xet = item.get("path"), item.get("oid"), item.get("lfs"), item.get("xetHash")
    if not isinstance(name, str) or not isinstance(blob, str) or not (lfs is None or isinstance(lfs, dict)):
        raise DamagedInput(f"lists a file that has not a name and a digest: {shown(dict(item))}", file=source)
    large = lfs.get("oid") if lfs else None
    size = lfs.get("size") if lfs else item.get("size")
    if not all(value is None or isinstance(value, str) for value in (large, xet)):
        raise DamagedInput(f"{shown(name)} has a digest that is no text", file=source)
    return name, TreeEntry(size if type(size) is int else -1, blob, large, xet)


def _refuse_crossing(entries: Mapping[str, TreeEntry], source: str) -> None:
    """What no disk could hold: a file that is the folder of another, and one digest of two sizes."""
    folded = {name.casefold() for name in entries}
    sizes: dict[str, int] = {}
    for name, entry in entries.items():
        parent = name.casefold()
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in folded:
                raise DamagedInput(f"lists {shown(name)} although {shown(parent)} is a file", file=source)
        if sizes.setdefault(entry.etag, entry.size) != entry.size:
            raise DamagedInput(f"gives {shown(name)} another size than a file of the same digest", file=source)


def _commit_here(paths: RepoPaths, revision: str) -> str:
    from hubclient.cache.writing.placing import read_ref

    if is_commit(revision):
        return revision
    if (commit := read_ref(paths, revision)) is not None:
        return commit
    meant = (
        [name for name in names_inside(paths.snapshots, paths.cache) if is_commit(name) and name.startswith(revision)]
        if len(revision) >= _SHORT
        else []
    )
    if not meant:
        raise _not_here(paths, revision)
    if len(meant) > 1:
        raise UsageError(f"{shown(revision)} begins {len(meant)} commits of {paths.repo} that are here", hint=", ".join(meant))
    return meant[0]


def _snapshot(paths: RepoPaths, commit: str, revision: str) -> dict[str, TreeEntry]:
    """What the snapshot shows and can be used."""
    from hubclient.cache.scanning.scan import scan_repo

    revisions = scan_repo(paths.cache, paths.repo).revisions if paths.snapshot(commit).is_dir() else ()
    files = next((found.files for found in revisions if found.commit == commit), None)
    if files is None:
        raise _not_here(paths, revision)
    return {file.name: _known(file.size, file.blob) for file in files if not file.fault}


def _known(size: int, blob: str | None) -> TreeEntry:
    digest = Digest.of_name(blob or "")
    if digest is None:
        return TreeEntry(size, "")
    return TreeEntry(size, "", digest.hex) if digest.algorithm == "sha256" else TreeEntry(size, digest.hex)


def _not_here(paths: RepoPaths, revision: str) -> Offline:
    asked = Asked(paths.repo, revision)
    found = sorted(paths.refs.rglob("*")) if is_inside(paths.refs / "any", paths.cache) else []
    here = [path.relative_to(paths.refs).as_posix() for path in found if path.is_file()]
    told = f"; of {paths.repo} there are {', '.join(map(shown, here[:5]))}" if here else ""
    if not here and (looked := [name for name in names_inside(paths.snapshots, paths.cache) if is_commit(name)]):
        whole = any(name.endswith(WEIGHTS) for commit in looked for name in names_inside(paths.snapshot(commit), paths.cache))
        what = f"{', '.join(looked[:5])} of {paths.repo}" if whole else f"only headers and configs of {paths.repo}"
        verb = "is" if whole and len(looked) == 1 else "are"
        return Offline(f"{what} {verb} here, and offline was asked for", hint=f"`hubclient pull {asked}` fetches the rest")
    return Offline(
        f"{asked} is not in the cache at {paths.cache}, and offline was asked for{told}",
        hint=f"`hubclient pull {asked}` fetches it",
    )
