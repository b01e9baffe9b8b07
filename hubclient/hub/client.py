"""`Hub`: what can be done with the Hub, from Python; each verb is one function of this package, with a session and a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked
from hubclient.cache.layout import default_cache
from hubclient.errors import DamagedInput, EnvironmentFault, Unsupported, UsageError
from hubclient.hub.lockfile import DEFAULT_NAME
from hubclient.hub.selection import selecting
from hubclient.hub.transfer.crew import WORKERS

if TYPE_CHECKING:
    from hubclient.ground.progress import Progress, Stage
    from hubclient.hub.account import Account
    from hubclient.hub.locking import Locked, Synced
    from hubclient.hub.net.session import Session
    from hubclient.hub.publish.push import Pushed
    from hubclient.hub.pull import Pulled
    from hubclient.hub.pullplan import PullPlan
    from hubclient.hub.repair import Repaired
    from hubclient.hub.resolve import Resolved
    from hubclient.hub.search import Found, Info
    from hubclient.hub.source.preflight import Preflight


class Hub:
    """A Hub and a cache. What is not given is as the environment says: HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE.

    Repositories are named as on the command line: "org/name", "org/name@revision", "datasets/org/name", "hf://org/name".

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
        from hubclient.hub.net.session import Session

        return Session.of(**self._given)  # type: ignore[arg-type]

    def asked(self, source: str | Asked) -> Asked:
        """What a name means, in any of its spellings, addresses of this Hub's pages among them. UsageError."""
        from hubclient.hub.naming import asked_of

        return source if isinstance(source, Asked) else asked_of(source, lambda: self.session.endpoint)

    def resolve(self, source: str | Asked) -> Resolved:
        """Which commit a revision is, and its files."""
        from hubclient.hub.resolve import resolve

        asked = self.asked(source)
        return resolve(self.session, self.cache, asked.repo, asked.revision)

    def plan_pull(
        self,
        source: str | Asked,
        *,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        target: str | None = None,
        check: bool = False,
        told: Callable[[Preflight], None] | None = None,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> PullPlan:
        """What a pull would do; see `pull`.

        `told` is given what the headers tell: of a conversion to `target` before it is refused, else, where nothing was chosen,
        of any model. For that configs and tokenizers are fetched; without `target` and `told` nothing is.
        """
        from hubclient.hub.pullplan import brought_since, plan_pull

        asked = self.asked(source)
        plan = plan_pull(
            self.session,
            self.cache,
            asked.repo,
            asked.revision,
            file=asked.file,
            include=include,
            exclude=exclude,
            select=selecting(self.session, self.cache, target, asked.file, told),
            target=target,
            check=check,
            progress=progress,
            stage=stage,
        )
        if told is None or target is not None or include or exclude:
            return plan
        found = self._look_ahead(plan, asked.file)
        if found is not None:
            told(found)
        return brought_since(plan, plan.present.missing)

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
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        target: str | None = None,
        check: bool = False,
        workers: int = WORKERS,
        progress: Progress | None = None,
        stage: Stage | None = None,
    ) -> Pulled:
        """See that a repository's files are in the cache, or those of them that are wanted; see
        `hubclient.hub.pullplan.plan_pull` and `hubclient.hub.pull.carry_out`.

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
        path: Path | str = DEFAULT_NAME,
        *,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        target: str | None = None,
        stage: Stage | None = None,
    ) -> Locked:
        """Note which commits repositories are at, with digests; see `hubclient.hub.locking.lock`."""
        from hubclient.hub.locking import lock

        asked = [self.asked(source) for source in sources]
        return lock(self.session, self.cache, Path(path), asked, include=include, exclude=exclude, target=target, stage=stage)

    def sync(
        self,
        path: Path | str = DEFAULT_NAME,
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
        """Send a file or folder; see `hubclient.hub.publish.push.push`."""
        from hubclient.hub.publish.push import push

        return push(self.session, Path(path), repo, cache=self.cache, **options)

    def search(
        self,
        text: str = "",
        *,
        limit: int = 20,
        filter: str | Sequence[str] = (),  # noqa: A002 - the word of the Hub
        author: str | None = None,
        sort: str = "downloads",
    ) -> tuple[Found, ...]:
        """Find repositories; see `hubclient.hub.search.search`."""
        from hubclient.hub.search import search

        return search(self.session, text, limit=limit, filter=filter, author=author, sort=sort)

    def info(self, source: str | Asked) -> Info:
        """What the Hub says of a repository, and what of it is here; see `hubclient.hub.search.info`."""
        from hubclient.hub.search import info

        asked = self.asked(source)
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

    def _look_ahead(self, plan: PullPlan, file: str | None) -> Preflight | None:
        """What config and headers tell of a model whose weights are to come; None of anything else, and where they tell nothing."""
        from hubclient.hub.source.preflight import preflight

        if self.session.offline or not plan.brings_weights:
            return None
        try:
            return preflight(self.session, self.cache, plan.resolved, file=file)
        except (Unsupported, UsageError, DamagedInput, EnvironmentFault):  # a courtesy: if need be, the pull itself says it
            return None
