"""From chosen revisions to a whole plan: blobs, shared entries, leftovers, stale refs and whole repositories that go with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from hubclient.cache.layout import RepoId
from hubclient.cache.model import CacheContents, CachedRepo, Leftover
from hubclient.cache.retention.holdings import Holdings, Name
from hubclient.cache.retention.keeping import Choice, View
from hubclient.cache.retention.plans import Debris, Kept, PlannedBlob, Removal, RemovalPlan, SharedRemoval, StaleRef
from hubclient.cache.unfinished import download_of

# Kinds of leftovers that go once they are older than the grace (trash and dead writers' notes at once), and those that go with what they lie beside.
_STALE = ("incomplete", "ledger", "list", "temporary", "trash", "writer")
_AT_ONCE = ("trash", "writer")
_PASSING = ("etag", "lock", "ref")

Tidy = Collection[RepoId] | None  # repositories in which all that is of no use goes; None: everywhere


def assemble(view: View, chosen: list[Choice], kept: Iterable[Kept], *, tidy: Tidy = None) -> RemovalPlan:
    """The plan that takes the chosen revisions, and all that is of no use in the repositories of `tidy`."""
    contents, holdings = view.contents, view.holdings()
    lying = sum(left.size for _, left in _leftovers(contents))
    size = holdings.size + lying
    orphans, idle = _clear(view, holdings, tidy)
    removals = tuple(_removal(choice, choice.release(holdings)) for choice in chosen)
    debris, young = _debris(view, holdings, chosen, tidy)
    whole = [repo for repo in contents.repos if _goes_whole(view, repo, holdings, chosen, debris, tidy)]
    paths = {part.path for part in debris}
    debris += [
        Debris(left.path, left.kind, left.size, one.repo) for one in whole for left in one.leftovers if left.path not in paths
    ]
    gone = sorted((repo, name) for repo, name in holdings.gone if "/" not in name)
    strangers = _strangers(contents, chosen)
    stays = [*strangers, *_kept_blobs(view, holdings, chosen, tidy), *_kept_entries(view, holdings, tidy), *young]
    return RemovalPlan(
        cache=contents.path,
        removals=removals,
        repos=tuple(repo.repo for repo in whole),
        blobs=tuple(PlannedBlob(*name, name in orphans, orphans.get(name, 0)) for name in gone),
        refs=tuple(_stale_refs(view, tidy)),
        shared=tuple(_shared(contents, holdings, idle)),
        debris=tuple(debris),
        kept=(*kept, *stays),
        size=size,
        freed=size - lying - holdings.size + sum(part.size for part in debris),
        grace=view.grace,
        named=view.named,
    )


def settled(view: View, chosen: Iterable[Choice]) -> Holdings:
    """Who holds what once the chosen revisions are gone, and all that is of no use."""
    holdings = view.holdings()
    _clear(view, holdings, None)
    for choice in chosen:
        choice.release(holdings)
    return holdings


def _clear(view: View, holdings: Holdings, tidy: Tidy) -> tuple[dict[Name, int], dict[str, int]]:
    """Take out blobs and shared entries that nobody shows; what the disk gains by each."""
    orphans: dict[Name, int] = {}
    for repo in view.contents.repos:
        if _tidied(repo.repo, tidy):
            names = [(repo.repo, name) for name in holdings.orphans(repo)]
            orphans |= {name: holdings.take(name) for name in names if name not in view.blobs}
    return orphans, holdings.take_idle() if tidy is None else {}


def _tidied(repo: RepoId | None, tidy: Tidy) -> bool:
    return tidy is None or repo in tidy


def _removal(choice: Choice, frees: int) -> Removal:
    revision = choice.revision
    size = revision.size if not choice.files else sum(file.size for file in revision.files if file.name in choice.files)
    refs = () if choice.files else tuple(sorted(revision.refs))
    return Removal(choice.repo.repo, revision.commit, choice.why, refs, revision.used, size, frees, choice.files)


def _leftovers(contents: CacheContents) -> Iterator[tuple[CachedRepo | None, Leftover]]:
    yield from ((None, left) for left in contents.leftovers)
    yield from ((repo, left) for repo in contents.repos for left in repo.leftovers)


def _debris(view: View, holdings: Holdings, chosen: Iterable[Choice], tidy: Tidy) -> tuple[list[Debris], list[Kept]]:
    """Leftovers that go, and those that are too young to."""
    gone = {f"{one.repo.repo.folder}/snapshots/{one.revision.commit}" for one in chosen if not one.files}
    debris: list[Debris] = []
    young: dict[str, Kept] = {}
    for repo, left in _leftovers(view.contents):
        owner = repo.repo if repo is not None else None
        folder, _, name = left.path.rpartition("/")
        beside = left.kind == "etag" and owner is not None and (owner, name.removesuffix(".etag")) in holdings.gone
        needed = repo is not None and view.writing(repo).needs_left(name, left.kind)
        if beside or "/".join(folder.split("/")[:3]) in gone:
            debris.append(Debris(left.path, left.kind, left.size, owner))
        elif not _tidied(owner, tidy) or not (left.kind in _STALE or (left.kind == "lock" and owner is None)):
            continue
        elif left.kind not in _AT_ONCE and (needed or view.is_fresh(left.modified)):
            why = "may be needed by a running pull" if needed else view.written(left.modified)
            young.setdefault(download_of(left.path), Kept(_called(left, owner), why, left.size))
        else:
            debris.append(Debris(left.path, left.kind, left.size, owner))
    return debris, list(young.values())


def _called(left: Leftover, owner: RepoId | None) -> str:
    """What to call a leftover that stays; of a download the part and its ledger are one."""
    return f"an unfinished download of {owner}" if owner is not None and left.kind in ("incomplete", "ledger") else left.path


def _goes_whole(
    view: View,
    repo: CachedRepo,
    holdings: Holdings,
    chosen: list[Choice],
    debris: Iterable[Debris],
    tidy: Tidy,
) -> bool:
    """Whether nothing of a repository remains that anybody may want."""
    going = {choice.revision.commit for choice in chosen if choice.repo is repo and not choice.files}
    if not (going or _tidied(repo.repo, tidy)) or repo.pin or view.writing(repo).commits:
        return False
    paths = {part.path for part in debris}
    return (
        all(revision.commit in going for revision in repo.revisions)
        and all("/" in name or (repo.repo, name) in holdings.gone for name in repo.blobs)
        and all(left.path in paths or left.kind in _PASSING for left in repo.leftovers)
    )


def _strangers(contents: CacheContents, chosen: list[Choice]) -> Iterator[Kept]:
    """What keeps the folder of a repository though all its revisions go."""
    going = {choice.key for choice in chosen if not choice.files}
    for repo in contents.repos:
        if repo.revisions and all((repo.repo, revision.commit) in going for revision in repo.revisions):
            yield from (Kept(left.path, "is left alone", left.size) for left in repo.leftovers if left.kind in ("unknown", "pin"))


def _stale_refs(view: View, tidy: Tidy) -> Iterator[StaleRef]:
    for repo in view.contents.repos:
        here = {revision.commit for revision in repo.revisions} | view.writing(repo).commits
        if _tidied(repo.repo, tidy):
            yield from (StaleRef(repo.repo, name, commit) for name, commit in sorted(repo.refs.items()) if commit not in here)


def _shared(contents: CacheContents, holdings: Holdings, idle: Mapping[str, int]) -> Iterator[SharedRemoval]:
    """Entries of the shared store that go: those that nobody linked to, and those whose last link goes."""
    linked = {repo.blobs[name].shared for repo in contents.repos for name in repo.blobs if (repo.repo, name) in holdings.gone}
    for entry in contents.shared:
        if entry.xet_hash in idle or (entry.xet_hash in linked and holdings.lets_go(entry.xet_hash)):
            yield SharedRemoval(entry.xet_hash, entry.size, idle.get(entry.xet_hash, 0))


def _kept_blobs(view: View, holdings: Holdings, chosen: list[Choice], tidy: Tidy) -> Iterator[Kept]:
    """Blobs that no revision shows, or none that stays, and that stay all the same."""
    concerned = {choice.repo.repo for choice in chosen}
    for repo in view.contents.repos:
        if _tidied(repo.repo, tidy) or repo.repo in concerned:
            for name in holdings.orphans(repo):
                if why := view.blobs.get((repo.repo, name)):
                    yield Kept(f"{repo.repo.folder}/blobs/{name}", why, repo.blobs[name].size)


def _kept_entries(view: View, holdings: Holdings, tidy: Tidy) -> Iterator[Kept]:
    """Entries of the shared store that nobody seems to link to, and that stay all the same."""
    contents = view.contents
    blobs = [(repo.repo, blob) for repo in contents.repos for blob in repo.blobs.values() if blob.shared is not None]
    staying = {blob.shared for repo, blob in blobs if (repo, blob.name) not in holdings.gone}
    leaving = {blob.shared for repo, blob in blobs if (repo, blob.name) in holdings.gone}
    for entry in contents.shared:
        if entry.xet_hash not in staying and (tidy is None or entry.xet_hash in leaving) and not view.may_go(entry):
            unknown = "has no readable list of its links, so nobody can tell who needs it"
            yield Kept(
                f"blobs/{entry.xet_hash[:2]}/{entry.xet_hash}",
                view.written(entry.modified_ns / 1e9) if entry.links == () else unknown,
                entry.size,
            )
