"""Bring a revision's files into the cache, or those of them that are wanted: only what is not here, each checked by its digest.

The order is what a reader, or a crash, may rely on: a file's bytes have their name only when complete and checked, the
snapshot shows a file only then, and a branch or tag names the commit only when all that was asked for is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.notes import mark_used
from hubclient.cache.present import present_of
from hubclient.cache.trees import write_tree
from hubclient.cache.writing.forsaking import forsake
from hubclient.cache.writing.gate import writer
from hubclient.cache.writing.placing import make_folder, prepare, read_ref, storing, write_ref
from hubclient.errors import DamagedInput, EnvironmentFault, NetworkFault
from hubclient.ground.faultpoints import reach
from hubclient.ground.progress import Progress, Stage
from hubclient.hub.pullplan import (
    PullPlan,
    anything_came,
    distinct_size,
    files_json,
    named_json,
    refuse_overfull,
    unfinished,
)
from hubclient.hub.resolve import Resolved
from hubclient.hub.selection import unfit
from hubclient.hub.transfer.crew import WORKERS
from hubclient.hub.transfer.transfers import Transfers

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

_ROUNDS = 3  # of transfers; the second is for what was removed meanwhile


@dataclass(frozen=True, slots=True)
class Pulled:
    """A snapshot with all of `names`; `fetched` came now, `reused` was here. `downloaded` counts the bytes off the network.

    `notes` are things that a user should know and that are no failure.
    """

    resolved: Resolved
    snapshot: Path
    names: tuple[str, ...]
    fetched: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    downloaded: int = 0
    reused_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """The commit that the snapshot is of."""
        return self.resolved.commit

    @property
    def files(self) -> dict[str, Path]:
        """Where each file is, by name."""
        return {name: self.snapshot / name for name in self.names}

    def as_json(self) -> dict[str, Any]:
        """For `pull --json`."""
        return {
            **named_json(self.resolved, self.snapshot),
            "files": files_json(self.resolved, self.names),
            "fetched": list(self.fetched),
            "downloaded_bytes": self.downloaded,
            "reused_bytes": self.reused_bytes,
            "notes": list(self.notes),
        }


def carry_out(
    session: Session, plan: PullPlan, *, workers: int = WORKERS, progress: Progress | None = None, stage: Stage | None = None
) -> Pulled:
    """See that the files of a plan are in the cache: fetch what is missing, `workers` files at a time.

    `progress` is called with the bytes that have come and all that are to come, `stage` with what takes time now. What a
    failing or interrupted run has fetched stays for the next. Raises NotEnoughSpace, EnvironmentFault, NetworkFault,
    AccessDenied, and DamagedInput for bytes that are others than the Hub says.
    """
    notes = [unfit(pattern, plan.resolved.entries) for pattern in plan.unmatched] + _facts(plan)
    if not plan.present.wanted and not plan.present.unshown:
        _tidy(plan)
        told = _nothing_to_do(plan)
        if told is not None:
            return _result(plan, (), 0, [*notes, *told])
    refuse_overfull(plan)
    paths, commit = plan.paths, plan.resolved.commit
    try:
        with writer(paths, commit, partial(stage, "waiting for another process that removes files") if stage else None):
            prepare(paths)
            mark_used(paths, commit)
            _keep_tree(plan)
            with _telling_what_stays(plan):
                rounds = _until_all_is_here(plan, lambda: Transfers(session, plan, workers, progress, stage))
            _write_ref(plan)
    except BaseException:
        forsake(paths, commit)
        raise
    _tidy(plan)
    came = frozenset(name for transfers in rounds for name in transfers.fetched)
    fetched = tuple(name for name in plan.names if name in came)
    return _result(plan, fetched, sum(transfers.downloaded for transfers in rounds), notes)


@contextmanager
def _telling_what_stays(plan: PullPlan) -> Iterator[None]:
    try:
        yield
    except NetworkFault as error:
        if anything_came(plan):
            error.hint = "; ".join(filter(None, ("what arrived is kept: the same command goes on", error.hint)))
        raise


def _until_all_is_here(plan: PullPlan, begin: Callable[[], Transfers]) -> list[Transfers]:
    """Transfer, and look: other programs know nothing of our notes, and may have removed what was here."""
    rounds = []
    for _ in range(_ROUNDS):
        rounds.append(begin())
        rounds[-1].show_what_is_here()
        rounds[-1].fetch_the_rest()
        if present_of(plan.paths, plan.resolved.commit, plan.entries).shown == plan.names:
            return rounds
    raise EnvironmentFault(f"{plan.snapshot}: files go as soon as they have come: another program removes them", plan.snapshot)


def _keep_tree(plan: PullPlan) -> None:
    path = plan.paths.tree(plan.resolved.commit)
    if plan.resolved.listed:
        with storing(path):
            make_folder(path.parent, plan.cache)
            write_tree(path, plan.resolved.entries)
        reach("pull.tree-written")


def _write_ref(plan: PullPlan) -> None:
    if plan.resolved.ref is not None:
        write_ref(plan.paths, plan.resolved.ref, plan.resolved.commit)
        reach("pull.ref-written")


def _is_named(plan: PullPlan) -> bool:
    """Whether the branch or tag that was asked for names the commit here already."""
    with suppress(DamagedInput):
        return plan.resolved.ref is None or read_ref(plan.paths, plan.resolved.ref) == plan.resolved.commit
    return False


def _tidy(plan: PullPlan) -> None:
    """What killed runs have left of blobs that are there now is of no use to anybody."""
    sizes = {entry.etag: entry.size for entry in plan.entries.values()}
    for parts in unfinished(plan.paths.blobs, sizes).values():
        for part in parts:
            if part.gone:
                for path in (part.data, part.ledger):
                    with suppress(OSError):
                        path.unlink()


def _nothing_to_do(plan: PullPlan) -> list[str] | None:
    """Everything is here; the notes about it are brought up to date, if the cache can be written. None if it was collected meanwhile."""
    paths, commit = plan.paths, plan.resolved.commit
    if plan.names and plan.snapshot.is_dir():
        mark_used(paths, commit)
    try:
        if not plan.resolved.listed and _is_named(plan):
            return []
        with writer(paths, commit):
            if plan.names and present_of(paths, commit, plan.entries).shown != plan.names:
                return None
            if plan.resolved.listed and not plan.names:
                prepare(paths)
                make_folder(plan.snapshot, plan.cache)  # of a commit without files
            _keep_tree(plan)
            _write_ref(plan)
    except EnvironmentFault as error:
        return [f"everything is here, but what {plan.resolved.asked} is now could not be noted: {error}"]
    return []


def _facts(plan: PullPlan) -> list[str]:
    """What else is worth a line."""
    resolved = plan.resolved
    notes = []
    if resolved.facts is not None and resolved.facts.name != resolved.repo.name:
        notes.append(f"{resolved.repo} is called {resolved.facts.name} now")
    if not resolved.complete:
        notes.append(f"whether that is all of {resolved.asked} cannot be told offline, because no list of its files was kept")
    return notes


def _result(plan: PullPlan, fetched: Sequence[str], downloaded: int, notes: Sequence[str]) -> Pulled:
    """The result; what had come already when headers were looked at came as well."""
    before = [name for name in plan.brought if name not in frozenset(fetched)]
    came = frozenset((*fetched, *before))
    all_fetched, reused = (tuple(name for name in plan.names if (name in came) is wanted) for wanted in (True, False))
    size = distinct_size(plan.resolved, reused)
    downloaded += distinct_size(plan.resolved, before)
    return Pulled(plan.resolved, plan.snapshot, plan.names, all_fetched, reused, downloaded, size, tuple(notes))
