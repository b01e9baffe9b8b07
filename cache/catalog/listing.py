"""What is in the cache, for people: `ls` a line for each repository, `show` all of one, `stats` what takes the room.

`ls` is quick because it reads the catalog's sums and asks the disk only whether folders have changed, when the largest
blobs were last read, and how far downloads are. Where its use decides which repositories are told, every blob is asked, so
that it says what `gc` would.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.catalog.catalog import Catalog, Row
from hubclient.cache.catalog.filters import concerns_use, condition, ordered
from hubclient.cache.catalog.summary import RepoSummary
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.unfinished import arrived
from hubclient.ground.names import several

if TYPE_CHECKING:
    from hubclient.cache.catalog.tally import Stats
    from hubclient.cache.model import CachedRepo

_NOTED = "/.hubclient/used/"


def ls(
    cache: Path, *, catalog: bool = True, filters: str | Sequence[str] = (), sort: str = "name", limit: int | None = None
) -> tuple[RepoSummary, ...]:
    """A line for each repository that meets all of `filters`, in the order `sort`, at most `limit`; see `filters.py`.

    Without the catalog everything is looked at. UsageError for a condition or an order that there is none of.
    """
    tests = [condition(text, time.time()) for text in several(filters)]
    ordered([], sort)
    exact = _exact if concerns_use(filters, sort) else _catalogued
    rows = exact(cache) if catalog else _scanned(cache)
    return tuple(ordered([row for row in rows if all(test(row) for test in tests)], sort)[:limit])


def show(cache: Path, repo: RepoId, revision: str | None = None) -> CachedRepo:
    """All of one repository, or with only one revision: a branch, a tag, a commit or the start of one.

    UsageError, with what may have been meant, for what is not in the cache; DamagedInput for a link in its place.
    """
    from hubclient.cache.lookup import find_repo, find_revision, refuse_linked
    from hubclient.cache.model import CacheContents, CachedRepo
    from hubclient.cache.scanning.scan import look_around, scan_repo

    refuse_linked(cache, repo)
    known = (CachedRepo(RepoPaths(cache, one), (), {}, {}) for one in look_around(cache).repos)
    find_repo(CacheContents(cache, tuple(known)), repo)
    found = scan_repo(cache, repo)
    return found if revision is None else replace(found, revisions=(find_revision(found, revision),))


def stats(cache: Path, *, catalog: bool = True) -> Stats:
    """What takes the room, and what could be had back. Without the catalog everything is looked at, and nothing known to be verified."""
    from hubclient.cache.catalog.tally import tally

    if not catalog:
        from hubclient.cache.scanning.scan import scan_cache

        return tally(scan_cache(cache), (), time.time())
    with Catalog.open(cache) as opened:
        opened.refresh()
        return tally(opened.contents(), opened.verified(), time.time())


def _scanned(cache: Path) -> Iterator[RepoSummary]:
    from hubclient.cache.catalog.summary import summarise
    from hubclient.cache.scanning.scan import look_around, scan_repo

    for repo in look_around(cache).repos:
        yield summarise(scan_repo(cache, repo))


def _catalogued(cache: Path) -> Iterator[RepoSummary]:
    root = os.fspath(cache)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        for row in catalog.summaries():
            yield _brought_up(root, row)


def _exact(cache: Path) -> Iterator[RepoSummary]:
    from hubclient.cache.catalog.summary import summarise

    with Catalog.open(cache) as catalog:
        catalog.refresh()
        yield from map(summarise, catalog.contents().repos)


def _brought_up(root: str, row: Row) -> RepoSummary:
    """The sums with what changes though no folder does: uses, and the lengths of parts."""
    used = row.summary.used
    for path in row.recent:
        with suppress(OSError):
            state = os.lstat(f"{root}/{path}")
            used = max(used, state.st_mtime if _NOTED in path else state.st_atime)
    if not row.parts and used == row.summary.used:
        return row.summary
    come = sum(arrived(Path(root), path, _length(f"{root}/{path}")) for path in row.parts)
    return replace(row.summary, used=used, incomplete=come)


def _length(path: str) -> int:
    with suppress(OSError):
        return os.lstat(path).st_size
    return 0
