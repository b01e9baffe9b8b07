"""`Hub`: what can be done with the Hub, from Python; each verb is one function of this package, with a session and a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked
from hubclient.cache.layout import default_cache
from hubclient.errors import DamagedInput, SourceMissing, Unsupported, UsageError
from hubclient.hub.crew import WORKERS

if TYPE_CHECKING:
    from hubclient.ground.progress import Progress, Stage
    from hubclient.hub.account import Account
    from hubclient.hub.locking import Locked, Synced
    from hubclient.hub.preflight import Preflight
    from hubclient.hub.pull import Pulled
    from hubclient.hub.pullplan import PullPlan, Select
    from hubclient.hub.push import Pushed
    from hubclient.hub.repair import Repaired
    from hubclient.hub.resolve import Resolved
    from hubclient.hub.search import Found, Info
    from hubclient.hub.session import Session

LOCK_NAME = "hubclient.lock"


class Hub:
    """A Hub and a cache. What is not given is as the environment says: HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE.

    Repositories are named as on the command line: "org/name", "org/name@revision", "datasets/org/name".

        pulled = Hub().pull("org/name@main", include=["*.json"])
        pulled.snapshot / "config.json"

    Making one opens no connection and imports no HTTP client. Errors are those of `hubclient.errors`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | bool | None = None,
        cache: Path | str | None = None,
        offline: bool | None = None,
    ) -> None:
        self._given = {"endpoint": endpoint, "token": token, "offline": offline}
        self.cache = Path(cache if cache is not None else default_cache()).absolute()

    @cached_property
    def session(self) -> Session:
        """The connection."""
        from hubclient.hub.session import Session

        return Session.of(**self._given)  # type: ignore[arg-type]

    def resolve(self, source: str | Asked) -> Resolved:
        """Which commit a revision is, and its files."""
        from hubclient.hub.resolve import resolve

        asked = _asked(source)
        return resolve(self.session, self.cache, asked.repo, asked.revision)

    def plan_pull(
        self,
        source: str | Asked,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        target: str | None = None,
        check: bool = False,
        told: Callable[[Preflight], None] | None = None,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> PullPlan:
        """What a pull would do; see `pull`. With a `target`, `told` is given what the headers tell before it is refused."""
        from hubclient.hub.pullplan import plan_pull

        asked = _asked(source)
        return plan_pull(
            self.session,
            self.cache,
            asked.repo,
            asked.revision,
            file=asked.file,
            include=include,
            exclude=exclude,
            select=self._select(target, asked.file, told),
            check=check,
            progress=progress,
            stage=stage,
        )

    def look_ahead(self, plan: PullPlan, file: str | None = None) -> Preflight | None:
        """What config and headers tell of a model whose weights are to come; None of anything else, and where they tell nothing."""
        from hubclient.hub.preflight import preflight

        if self.session.offline or not plan.brings_weights:
            return None
        try:
            return preflight(self.session, self.cache, plan.resolved, file=file)
        except (Unsupported, UsageError, DamagedInput, SourceMissing):  # several models, or none that we read
            return None

    def carry_out(
        self, plan: PullPlan, *, workers: int = WORKERS, progress: Progress | None = None, stage: Stage | None = None
    ) -> Pulled:
        """Do what `plan_pull` planned."""
        from hubclient.hub.pull import carry_out

        return carry_out(self.session, plan, workers=workers, progress=progress, stage=stage)

    def pull(
        self,
        source: str | Asked,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        target: str | None = None,
        check: bool = False,
        workers: int = WORKERS,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> Pulled:
        """See that a repository's files are in the cache, or those of them that are wanted; see `hubclient.hub.pull.pull`.

        `target` ("gguf", "safetensors", "mlx") takes what a conversion to it needs; what cannot be converted is refused from
        its headers, before any weights come.
        """
        plan = self.plan_pull(
            source, include=include, exclude=exclude, target=target, check=check, progress=progress, stage=stage
        )
        return self.carry_out(plan, workers=workers, progress=progress, stage=stage)

    def lock(
        self,
        sources: Sequence[str | Asked] = (),
        path: Path | str = LOCK_NAME,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        target: str | None = None,
        stage: Stage | None = None,
    ) -> Locked:
        """Note which commits repositories are at, with digests; see `hubclient.hub.locking.lock`."""
        from hubclient.hub.locking import lock

        asked = [_asked(source) for source in sources]
        return lock(self.session, self.cache, Path(path), asked, include=include, exclude=exclude, target=target, stage=stage)

    def sync(
        self,
        path: Path | str = LOCK_NAME,
        *,
        check: bool = False,
        workers: int = WORKERS,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> Synced:
        """See that the cache holds what a lock file names; see `hubclient.hub.locking.sync`."""
        from hubclient.hub.locking import sync

        return sync(self.session, self.cache, Path(path), check=check, workers=workers, progress=progress, stage=stage)

    def push(self, path: Path | str, repo: str, **options: Any) -> Pushed:
        """Send a file or folder; see `hubclient.hub.push.push`."""
        from hubclient.hub.push import push

        return push(self.session, Path(path), repo, cache=self.cache, **options)

    def search(
        self,
        text: str = "",
        *,
        limit: int = 20,
        filter: Sequence[str] = (),  # noqa: A002 - the word of the Hub
        author: str | None = None,
        sort: str = "downloads",
    ) -> tuple[Found, ...]:
        """Find repositories; see `hubclient.hub.search.search`."""
        from hubclient.hub.search import search

        return search(self.session, text, limit=limit, filter=filter, author=author, sort=sort)

    def info(self, source: str | Asked) -> Info:
        """What the Hub says of a repository, and what of it is here; see `hubclient.hub.search.info`."""
        from hubclient.hub.search import info

        asked = _asked(source)
        return info(self.session, self.cache, asked.repo, asked.revision)

    def login(self) -> Account:
        """Store the token that was given, for all programs of this user; see `hubclient.hub.account.login`."""
        from hubclient.hub.account import login

        return login(self.session)

    def whoami(self) -> Account:
        """Whose token it is."""
        from hubclient.hub.account import whoami

        return whoami(self.session)

    def repair(
        self,
        sources: Sequence[str | Asked] = (),
        *,
        jobs: int | None = None,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> Repaired:
        """Verify repositories of the cache, or all, and mend what is bad; see `hubclient.hub.repair.repair`."""
        from hubclient.cache.store import Cache
        from hubclient.hub.repair import repair

        if stage is not None:
            stage("verifying")
        findings = Cache(self.cache).verify(sources, jobs=jobs, progress=progress).findings
        return repair(self.session, self.cache, findings=findings, progress=progress, stage=stage)

    def _select(self, target: str | None, file: str | None, told: Callable[[Preflight], None] | None) -> Select | None:
        if target is None:
            return None

        def select(resolved: Resolved) -> Collection[str]:
            from hubclient.hub.preflight import preflight, select_for

            if self.session.offline:
                return select_for(self.session, self.cache, resolved, target, file)
            found = preflight(self.session, self.cache, resolved, target, file)
            if told is not None:
                told(found)
            found.refuse()
            return found.files

        return select


def _asked(source: str | Asked) -> Asked:
    return source if isinstance(source, Asked) else Asked.parse(source)
