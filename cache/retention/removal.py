"""A plan carried out: everything is looked at again before it goes, and goes so that nobody meets half of it.

Refs first; then a snapshot is renamed into the trash and vanishes at once; then the blobs that no snapshot shows any more,
renamed too; a moment later all snapshots are looked at again, and a blob that is needed after all is put back; only then is
the trash emptied. A killed removal leaves whole snapshots, and things in the trash for the next one.

A running pull: ours notes its commit, waits for removals that may not have seen that, and only then looks which blobs are
here (`gate.py`); each look above honours such notes. So it cannot even for a moment show a link to nothing. huggingface_hub looks whether a blob is here, takes its lock, and links: we pass over
blobs whose lock is held, and look again after `SETTLE` seconds, so that only a process that was stopped for longer between
its look and its link can be left with a link to nothing (it fetches the file at its next try).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hubclient.cache.inside import check_inside, is_inside
from hubclient.cache.layout import LOCKS, RepoId, RepoPaths
from hubclient.cache.model import CacheContents
from hubclient.cache.retention.account import Account
from hubclient.cache.retention.clearing import Clearing
from hubclient.cache.retention.keeping import Writing
from hubclient.cache.retention.lastlook import forget_dead, writing_in
from hubclient.cache.retention.plans import RemovalPlan, Removed
from hubclient.cache.retention.trash import abandoned, erase
from hubclient.cache.scanning.scan import TRASH, look_around
from hubclient.cache.sharedstore import entry_path, references, sweep
from hubclient.errors import EnvironmentFault

SETTLE = 0.25  # seconds; a process that waits for a lock asks for it every 0.05


def live_pulls(contents: CacheContents) -> Mapping[RepoId, Writing]:
    """What running pulls write in the repositories of a cache, for the plans."""
    found = {repo.repo: writing_in(repo.paths) for repo in contents.repos}
    return {repo: writing for repo, writing in found.items() if writing.commits}


def carry_out(
    cache: Path, plan: RemovalPlan, *, progress: Callable[[int], None] | None = None, now: float | None = None
) -> Removed:
    """Remove what a plan says, as far as the disk still allows it; `progress` is told what the disk gains, in bytes.

    `now` is what the grace is held against (seconds since 1970). EnvironmentFault, before anything is done, if the cache
    cannot be written.
    """
    plan = replace(plan, cache=cache)
    account = Account(time.time() if now is None else now, progress)
    clearings: list[Clearing] = []
    try:
        for repo in _writable(plan, account):
            clearings.append(Clearing(plan, repo, account))  # which looks, so it must be right before
            clearings[-1].hide()
        if any(clearing.hidden for clearing in clearings):
            time.sleep(SETTLE)
        for clearing in clearings:
            clearing.finish()
    finally:
        for clearing in clearings:
            clearing.close()
    _sweep(plan, account)
    _remove_debris(plan, account)
    done = tuple(account.removals), tuple(account.repos), account.blobs, account.debris, tuple(account.kept)
    return Removed(account.freed, *done)


def _writable(plan: RemovalPlan, account: Account) -> list[RepoId]:
    """The repositories that something goes from, and that can be written. EnvironmentFault if none of them can."""
    here = [repo for repo in plan.concerned if os.path.lexists(plan.cache / repo.folder)]
    places = [plan.cache / repo.folder for repo in here] or ([] if plan.is_empty else [plan.cache])
    blocked = [place for place in places if not os.access(place, os.W_OK | os.X_OK)]
    if blocked and len(blocked) == len(places):
        told = f"{blocked[0] if len(places) == 1 else plan.cache}: the cache cannot be written here, so nothing is removed"
        raise EnvironmentFault(told, plan.cache, hint="whoever owns it can, or HF_HUB_CACHE names another one")
    for place in blocked:
        account.keep(place.name, "cannot be written by this user")
    return [repo for repo in here if plan.cache / repo.folder not in blocked]


def _sweep(plan: RemovalPlan, account: Account) -> None:
    """Remove entries of the shared store that nobody links to any more, and bring the lists of the others up to date."""
    planned = {entry.xet_hash for entry in plan.shared}
    for xet_hash in sorted(planned | account.swept):
        entry = entry_path(plan.cache, xet_hash)
        with account.attempt(f"blobs/{xet_hash[:2]}/{xet_hash}"):
            state = os.lstat(entry)
            goes = xet_hash in planned and xet_hash not in account.linked
            if (goes or references(plan.cache, xet_hash)) and sweep(plan.cache, xet_hash):
                account.gained(state.st_size if state.st_nlink <= 1 else 0)
            elif goes:
                account.keep(f"blobs/{xet_hash[:2]}/{xet_hash}", "is linked to, or cannot be removed")


def _remove_debris(plan: RemovalPlan, account: Account) -> None:
    """Remove what lies in the cache beside its repositories: what a killed removal left, locks of repositories that are gone."""
    for debris in plan.debris:
        path = plan.cache.joinpath(*debris.path.split("/"))
        with account.attempt(debris.path):
            check_inside(path, plan.cache)
            if debris.repo is not None or (debris.kind == "lock" and os.path.lexists(plan.cache / path.name)):
                continue
            if debris.kind == "trash" and not abandoned(path):
                account.keep(debris.path, "belongs to a removal that still runs")
                continue
            if debris.kind == "list":
                sweep(plan.cache, path.stem)
            else:
                erase(path, account.gained)
            account.debris += 1
    with suppress(OSError):
        if is_inside(plan.cache / LOCKS / TRASH, plan.cache):
            os.rmdir(plan.cache / LOCKS / TRASH)
    if not plan.named and not plan.is_empty:
        for repo in look_around(plan.cache).repos:
            forget_dead(RepoPaths(plan.cache, repo))
