"""What the user names in a cache, found: a repository, a revision by branch, tag, commit or the start of one."""

from __future__ import annotations

from collections.abc import Iterable

from hubclient.cache.layout import RepoId
from hubclient.cache.model import CacheContents, CachedRepo, CachedRevision
from hubclient.errors import UsageError
from hubclient.ground.names import meant, shown

_SHORTEST = 4  # digits that tell a commit, as git has it
_FEW = 12  # names that a sentence may list


def find_repo(contents: CacheContents, repo: RepoId) -> CachedRepo:
    """A repository of the cache; UsageError with what may have been meant if it is not here."""
    by_id = {one.repo: one for one in contents.repos}
    if repo not in by_id:
        told = f"{repo} is not in the cache at {contents.path}{likely(str(repo), map(str, by_id))}"
        raise UsageError(told, hint="`hubclient cache ls` lists what is")
    return by_id[repo]


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


def likely(value: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what may have been meant; all there is only where that is little."""
    names = list(known)
    told = meant(value, names) if names else ""
    return told if len(names) <= _FEW or "did you mean" in told else ""
