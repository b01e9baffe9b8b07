"""What may go from a cache: plans of collecting by size, age and number, of pruning what is of no use, of removing what the user names.

Pure functions over what a look at the disk found; nothing is read or removed here (`removal.py` does that, and looks again).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from hubclient.cache.layout import RepoId
from hubclient.cache.lookup import find_repo, find_revision, likely
from hubclient.cache.model import CacheContents, CachedRepo
from hubclient.cache.retention.assembling import assemble, settled
from hubclient.cache.retention.keeping import GRACE, Choice, Live, View, ago
from hubclient.cache.retention.plans import Kept, RemovalPlan
from hubclient.errors import EnvironmentFault, UsageError
from hubclient.ground.names import shown

__all__ = ["GRACE", "Live", "Named", "Policy", "plan_gc", "plan_prune", "plan_rm", "plan_rm_all"]

_DETACHED = "no branch or tag names it"


@dataclass(frozen=True, slots=True)
class Policy:
    """What `plan_gc` keeps the cache to: `max_size` in bytes, `max_age` and `grace` in seconds, `keep_last` revisions of each repository.

    With `detached` a revision that no branch or tag names goes in any case, as `plan_prune` has it; else only like the others.
    """

    max_size: int | None = None
    max_age: float | None = None
    keep_last: int | None = None
    grace: float = GRACE
    detached: bool = False

    def __post_init__(self) -> None:
        for name in ("max_size", "max_age", "keep_last", "grace"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name.replace('_', '-')} is {getattr(self, name)}, which is less than nothing")


Rule = Callable[[Choice], str | None]  # why a revision goes; None if it may stay


def plan_gc(contents: CacheContents, policy: Policy, *, now: float, live: Live | None = None) -> RemovalPlan:
    """What goes to keep the cache within a policy: what no revision shows and unfinished writers left, then what was least recently used.

    Revisions not used for `max_age` go; then, until the cache takes no more than `max_size`, those whose last use is
    longest ago, except where nothing would be gained. `keep_last` revisions of each repository, the last used, are kept
    from all of that; given alone, all others go. Pins, running pulls and the grace stand above everything: where the limit
    cannot be met the plan says by how much (`short_by`), and what stands in the way (`kept`).
    """
    view = View(contents, now, policy.grace, live or {})
    sorted_out = _sort_out(view, _rule_of(policy, now), _recent(contents, policy.keep_last))
    plan = assemble(view, sorted_out.chosen, sorted_out.kept)
    if policy.max_size is None or plan.remaining <= policy.max_size:
        return plan
    chosen = sorted_out.chosen + _until_it_fits(view, sorted_out, plan.remaining - policy.max_size)
    plan = assemble(view, chosen, sorted_out.kept)
    short_by = max(0, plan.remaining - policy.max_size)
    return replace(plan, short_by=short_by, kept=(*plan.kept, *sorted_out.standing)) if short_by else plan


def plan_prune(contents: CacheContents, *, now: float, grace: float = GRACE, live: Live | None = None) -> RemovalPlan:
    """What is of no use: revisions that no branch or tag names, what unfinished writers left, blobs that no revision shows,
    refs to snapshots that are gone, entries of the shared store without links, empty repositories.

    What is pinned, written by a running pull, or was used or written within the grace stays; so do files of unknown kinds.
    """
    view = View(contents, now, grace, live or {})
    sorted_out = _sort_out(view, _rule_of(Policy(detached=True), now), {})
    return assemble(view, sorted_out.chosen, sorted_out.kept)


def plan_rm(
    contents: CacheContents, repo: RepoId, revision: str | None = None, file: str | None = None, *, live: Live | None = None
) -> RemovalPlan:
    """What goes when the user names it: a repository, a revision of it (a ref, a commit, or the start of one), or a file.

    A file goes from all revisions unless one is named. UsageError for what is not here or pinned, EnvironmentFault for what
    a running pull writes.
    """
    return plan_rm_all(contents, [Named(repo, revision, file)], live=live)


def plan_rm_all(contents: CacheContents, named: Iterable[Named], *, live: Live | None = None) -> RemovalPlan:
    """What goes when the user names all of that; see `plan_rm`. If something of it cannot go, nothing does."""
    view = View(contents, math.inf, 0.0, live or {}, named=True)
    chosen: dict[tuple[RepoId, str], Choice] = {}
    tidy = set()
    for one in named:
        found = find_repo(contents, one.repo)
        revisions = found.revisions if one.revision is None else (find_revision(found, one.revision),)
        choices = [Choice(found, revision, "it was named") for revision in revisions]
        if one.file is not None:
            choices = _with_file(found, choices, one.file)
        whole = one.revision is None and one.file is None
        _refuse_shielded(view, found, choices, whole)
        for choice in choices:
            chosen[choice.key] = choice.joined(chosen.get(choice.key))
        tidy |= {one.repo} if whole else set()
    return assemble(view, list(chosen.values()), [], tidy=tidy)


class Named(NamedTuple):
    """What the user names: a repository, a revision of it, a file or a folder of one or all."""

    repo: RepoId
    revision: str | None = None
    file: str | None = None


class _SortedOut(NamedTuple):
    """Revisions that a rule takes and nothing keeps; what is kept from a rule; what no rule takes: open to more, or standing."""

    chosen: list[Choice]
    kept: list[Kept]
    open: list[Choice]
    standing: list[Kept]


def _sort_out(view: View, rule: Rule, recent: Mapping[tuple[RepoId, str], str]) -> _SortedOut:
    found = _SortedOut([], [], [], [])
    for choice in _by_use(view.contents):
        why = rule(choice)
        stays = view.shield(choice) or recent.get(choice.key)
        if stays is None:
            (found.open if why is None else found.chosen).append(choice._replace(why=why or ""))
        else:
            (found.standing if why is None else found.kept).append(choice.kept(stays))
    return found


def _by_use(contents: CacheContents) -> list[Choice]:
    """All revisions, the least recently used first."""
    found = [Choice(repo, revision) for repo in contents.repos for revision in repo.revisions]
    return sorted(found, key=lambda choice: (choice.revision.used, choice.key))


def _recent(contents: CacheContents, count: int | None) -> dict[tuple[RepoId, str], str]:
    """The last used revisions of each repository, and what to say of them."""
    told = "is the last used of its repository" if count == 1 else f"is among the last {count} used of its repository"
    found = {}
    for repo in contents.repos:
        for revision in sorted(repo.revisions, key=lambda one: (-one.used, one.commit))[: count or 0]:
            found[repo.repo, revision.commit] = told
    return found


def _rule_of(policy: Policy, now: float) -> Rule:
    alone = policy.keep_last is not None and policy.max_age is None and policy.max_size is None

    def rule(choice: Choice) -> str | None:
        revision = choice.revision
        if policy.detached and not revision.refs and choice.repo.refs_are_known:
            return _DETACHED
        if policy.max_age is not None and now - revision.used > policy.max_age:
            return f"it was last used {ago(now - revision.used)}"
        return f"it is not among the last {policy.keep_last} used" if alone else None

    return rule


def _until_it_fits(view: View, sorted_out: _SortedOut, excess: int) -> list[Choice]:
    """The least recently used of the revisions that no rule takes, as many as it takes to gain `excess` bytes."""
    holdings = settled(view, sorted_out.chosen)
    enough = holdings.size - excess
    taken: list[Choice] = []
    for choice in sorted_out.open:
        if holdings.size <= enough:
            break
        choice.release(holdings)
        taken.append(choice)
    needless = set()
    for choice in reversed(taken):  # all that it shows is shown by others that stay: nothing is gained
        if holdings.restore(choice.repo, choice.revision) == 0:
            needless.add(choice.key)
        else:
            choice.release(holdings)
    return [choice._replace(why="the cache is too large") for choice in taken if choice.key not in needless]


def _with_file(repo: CachedRepo, chosen: list[Choice], name: str) -> list[Choice]:
    """The same choices for one file, or a folder's; a revision that holds no other goes as a whole."""
    fitting = [(choice, tuple(file.name for file in choice.revision.files if _is_named(file.name, name))) for choice in chosen]
    found = [choice.of_files(names) for choice, names in fitting if names]
    if not found:
        known = {file.name for choice in chosen for file in choice.revision.files}
        told = f"{repo.repo} has no file {shown(name)} in the cache{likely(name, sorted(known))}"
        raise UsageError(told, hint=f"`hubclient cache show {repo.repo}` lists its files")
    return found


def _is_named(file: str, name: str) -> bool:
    return file == name or file.startswith(name.rstrip("/") + "/")


def _refuse_shielded(view: View, repo: CachedRepo, chosen: list[Choice], whole: bool) -> None:
    """Raise for what is pinned or being pulled, though the user named it."""
    writing = view.writing(repo)
    pinned = next((choice for choice in chosen if repo.pin or choice.revision.pin), None)
    if pinned or (whole and repo.pin):
        told = f"{pinned.name} {view.shield(pinned)}" if pinned else f"{repo.repo} is pinned"
        raise UsageError(told, hint=f"`hubclient cache unpin {repo.repo}` lets it go")
    if whole and any(left.kind == "pin" for left in repo.leftovers):
        raise UsageError(
            f"{repo.repo} has a pin of a revision that is not here", hint=f"`hubclient cache unpin {repo.repo}@COMMIT` lets it go"
        )
    leaned_on = next((choice for choice in chosen if not whole and choice.revision.commit in repo.leaned_on), None)
    if leaned_on:
        raise UsageError(f"{leaned_on.name} {view.shield(leaned_on)}", hint="remove that one first, or the whole repository")
    if writing.commits if whole else any(choice.revision.commit in writing.commits for choice in chosen):
        name = str(repo.repo) if whole else chosen[0].name
        raise EnvironmentFault(f"{name} is being pulled right now", repo.paths.path, hint="remove it when the pull has ended")
