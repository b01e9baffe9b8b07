"""What the user names in a cache, found: a repository, a revision by branch, tag, commit or the start of one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.model import CacheContents, CachedRepo, CachedRevision
from hubclient.errors import DamagedInput, UsageError
from hubclient.ground.names import meant, shown

_SHORTEST = 4  # digits that tell a commit, as git has it
_FEW = 12  # names that a sentence may list
_CLOSE = 0.66  # of difflib's measure, for names of repositories


def find_repo(contents: CacheContents, repo: RepoId) -> CachedRepo:
    """A repository of the cache; UsageError with what may have been meant if it is not here."""
    by_id = {one.repo: one for one in contents.repos}
    if repo not in by_id:
        told = f"{repo} is not in the cache at {contents.path}{_likely_repo(repo, by_id)}"
        raise UsageError(told, hint="`hubclient cache ls` lists what is")
    return by_id[repo]


def refuse_linked(cache: Path, repo: RepoId) -> None:
    """DamagedInput if a repository's folder is a link, whose target is in no cache that anybody looks after."""
    path = RepoPaths(cache, repo).path
    if path.is_symlink():
        raise DamagedInput("is a link, and linked repositories are not followed", file=path)


def find_revision(repo: CachedRepo, text: str) -> CachedRevision:
    """A revision by branch or tag, commit, or the start of a commit; UsageError if it is none of them, or several."""
    by_commit = {revision.commit: revision for revision in repo.revisions}
    named = repo.refs.get(text, text)
    if named in by_commit:
        return by_commit[named]
    near = sorted(commit for commit in by_commit if len(text) >= _SHORTEST and commit.startswith(text.lower()))
    if len(near) == 1:
        return by_commit[near[0]]
    if near:
        raise UsageError(f"{shown(text)} may be any of {len(near)} revisions of {repo.repo}: {', '.join(near[:_FEW])}")
    told = f"{shown(text)} is no revision of {repo.repo} in the cache{likely(text, [*repo.refs, *by_commit])}"
    raise UsageError(told, hint=f"`hubclient cache show {repo.repo}` lists them")


def _likely_repo(repo: RepoId, known: Iterable[RepoId]) -> str:
    """The end of a sentence about an unknown repository: what has nearly its name, whoever it is of."""
    from difflib import get_close_matches

    by_name: dict[str, list[str]] = {}
    for one in known:
        by_name.setdefault(_own_name(one), []).append(str(one))
    near = [one for name in get_close_matches(_own_name(repo), by_name, n=3, cutoff=_CLOSE) for one in by_name[name]][:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _own_name(repo: RepoId) -> str:
    return repo.name.rpartition("/")[2].lower()


def likely(value: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what may have been meant; all there is only where that is little."""
    names = list(known)
    told = meant(value, names) if names else ""
    return told if len(names) <= _FEW or "did you mean" in told else ""
