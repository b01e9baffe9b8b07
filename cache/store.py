"""`Cache`: what can be done with the models on this machine, from Python; no method opens a connection."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoId, RepoPaths, default_cache
from hubclient.errors import EnvironmentFault, SourceMissing

if TYPE_CHECKING:
    from hubclient.cache.catalog.summary import RepoSummary
    from hubclient.cache.catalog.tally import Stats
    from hubclient.cache.integrity.findings import Verification
    from hubclient.cache.model import CacheContents, CachedRepo
    from hubclient.cache.notes import Pin
    from hubclient.cache.retention.plans import RemovalPlan, Removed
    from hubclient.cache.retention.policy import Policy
    from hubclient.ground.progress import Progress


class Cache:
    """A cache, by default the one that the environment names (HF_HUB_CACHE, HF_HOME).

    Repositories are named as on the command line: "org/name", "org/name@revision", "datasets/org/name". What would be removed
    can be looked at first. What `verify` finds is mended by `Hub.repair`, which may have to fetch it.

        cache = Cache()
        print(cache.plan_gc(Policy(max_size=200 << 30)).freed)
        cache.gc(Policy(max_size=200 << 30))

    Errors are those of `hubclient.errors`: UsageError for what is not in the cache, EnvironmentFault for what the system refuses.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(os.path.abspath(path if path is not None else default_cache()))

    @property
    def exists(self) -> bool:
        """Whether it has been begun; without one there is nothing in it, which is no error unless something is named."""
        try:
            return bool(self._there())
        except SourceMissing:
            return False

    def ls(self, filters: str | Sequence[str] = (), *, sort: str = "name", limit: int | None = None) -> tuple[RepoSummary, ...]:
        """A line for each repository; `filters` such as "size>1GB" and `sort` as in `hubclient.cache.catalog.filters`."""
        from hubclient.cache.catalog.listing import ls

        return ls(self._there(), filters=filters, sort=sort, limit=limit) if self.exists else ()

    def show(self, source: str | Asked) -> CachedRepo:
        """All that is known of a repository, or of one revision of it."""
        from hubclient.cache.catalog.listing import show

        asked = _asked(source)
        return show(self._there(), asked.repo, asked.given)

    def stats(self) -> Stats:
        """What takes the room, and what could be had back."""
        from hubclient.cache.catalog.listing import stats

        return stats(self.path, catalog=self.exists)

    def contents(self) -> CacheContents:
        """Everything, looked at now."""
        from hubclient.cache.model import CacheContents
        from hubclient.cache.scanning.scan import scan_cache

        return scan_cache(self._there()) if self.exists else CacheContents(self.path, ())

    def verify(
        self,
        sources: Sequence[str | Asked] = (),
        *,
        jobs: int | None = None,
        again: bool = False,
        progress: Progress | None = None,
    ) -> Verification:
        """Hash what is here, and hold it against what it should be; see `hubclient.cache.integrity.verify.verify`.

        Of several sources each may have a revision; without any it is the whole cache.
        """
        from hubclient.cache.integrity.findings import together
        from hubclient.cache.integrity.verify import verify

        if not sources and not self.exists:
            return together(())
        asked = [_asked(source) for source in sources]
        whole = [one.repo for one in asked if one.given is None]
        options = {"jobs": jobs, "again": again, "progress": progress}
        found = [verify(self._there(), [one.repo], one.given, **options) for one in asked if one.given is not None]  # type: ignore[arg-type]
        if whole or not asked:
            found.append(verify(self._there(), whole or None, **options))  # type: ignore[arg-type]
        return together(found)

    def pin(self, source: str | Asked, why: str = "") -> Pin:
        """Keep a repository, or one revision of it, from being collected."""
        from hubclient.cache.notes import write_pin

        paths, commit = self._place(source)
        return write_pin(paths, commit, why)

    def unpin(self, source: str | Asked) -> bool:
        """Take a pin away; False if there was none."""
        from hubclient.cache.notes import remove_pin

        return remove_pin(*self._place(source))

    def plan_gc(self, policy: Policy) -> RemovalPlan:
        """What goes to keep the cache within bounds; see `hubclient.cache.retention.policy.plan_gc`."""
        from hubclient.cache.retention.policy import plan_gc
        from hubclient.cache.retention.removal import live_pulls

        found = self.contents()
        return plan_gc(found, policy, now=time.time(), live=live_pulls(found))

    def plan_prune(self, *, grace: float | None = None) -> RemovalPlan:
        """What is of no use to anybody; see `hubclient.cache.retention.policy.plan_prune`."""
        from hubclient.cache.retention.policy import GRACE, plan_prune
        from hubclient.cache.retention.removal import live_pulls

        found = self.contents()
        return plan_prune(found, now=time.time(), grace=GRACE if grace is None else grace, live=live_pulls(found))

    def plan_rm(self, *sources: str | Asked) -> RemovalPlan:
        """What goes with repositories, revisions, files or folders of them."""
        from hubclient.cache.retention.policy import Named, plan_rm_all
        from hubclient.cache.retention.removal import live_pulls

        named = [Named(asked.repo, asked.given, asked.file) for asked in map(_asked, sources)]
        self._there()
        found = self.contents()
        return plan_rm_all(found, named, live=live_pulls(found))

    def gc(self, policy: Policy) -> Removed:
        """Keep the cache within bounds: `plan_gc`, carried out."""
        return self.carry_out(self.plan_gc(policy))

    def prune(self, *, grace: float | None = None) -> Removed:
        """Remove what is of no use to anybody: `plan_prune`, carried out."""
        return self.carry_out(self.plan_prune(grace=grace))

    def rm(self, *sources: str | Asked) -> Removed:
        """Remove repositories, revisions, files or folders of them: `plan_rm`, carried out."""
        return self.carry_out(self.plan_rm(*sources))

    def carry_out(self, plan: RemovalPlan, *, progress: Callable[[int], None] | None = None) -> Removed:
        """Remove what a plan says, as far as the disk still allows it."""
        from hubclient.cache.retention.removal import carry_out

        return carry_out(self.path, plan, progress=progress)

    def _place(self, source: str | Asked) -> tuple[RepoPaths, str | None]:
        """A repository's places, and the commit that was named, if one was."""
        asked = _asked(source)
        found = self.show(asked)
        return found.paths, found.revisions[0].commit if asked.given else None

    def _there(self) -> Path:
        try:
            os.scandir(self.path).close()
        except FileNotFoundError as error:
            hint = "`hubclient pull org/name` begins one; HF_HUB_CACHE names another"
            raise SourceMissing(f"{self.path}: there is no cache here", self.path, hint=hint) from error
        except NotADirectoryError as error:
            raise EnvironmentFault(f"{self.path}: is no folder, and so no cache", self.path) from error
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: the cache cannot be read ({error.strerror})", self.path) from error
        return self.path


def _asked(source: str | Asked | RepoId) -> Asked:
    if isinstance(source, RepoId):
        return Asked(source)
    return source if isinstance(source, Asked) else Asked.parse(source)
