"""Make a lock file, and make the cache hold exactly what one says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoPaths
from hubclient.cache.writing.gate import writer
from hubclient.cache.writing.placing import read_ref, write_ref
from hubclient.errors import DamagedInput, EnvironmentFault, Offline, SourceMissing, UsageError
from hubclient.ground.faultpoints import reach
from hubclient.ground.names import several, shown
from hubclient.ground.progress import Progress, Stage
from hubclient.hub.lockfile import DEFAULT_NAME, Lock, LockEntry, read_lock, write_lock
from hubclient.hub.pull import Pulled, carry_out
from hubclient.hub.pullplan import PullPlan, chosen, look_at, missing_offline, plan_of
from hubclient.hub.resolve import Resolved, resolve
from hubclient.hub.selection import Choice, selecting, unfit
from hubclient.hub.transfer.crew import WORKERS

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock file that was written; `before` are the commits that entries had, None for new ones, in the order of `changed`,
    and `counts` their numbers of files then.
    """

    path: Path
    lock: Lock
    changed: tuple[LockEntry, ...]
    before: tuple[str | None, ...]
    counts: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `lock --json`."""
        changed = [
            {"repo": str(entry.asked.repo), "revision": entry.asked.revision, "from": before, "to": entry.commit}
            for entry, before in zip(self.changed, self.before, strict=True)
        ]
        entries = [
            {
                "repo": str(entry.asked.repo),
                "revision": entry.asked.revision,
                "commit": entry.commit,
                "files": len(entry.files),
                "bytes": entry.size,
            }
            for entry in self.lock.entries
        ]
        return {"path": str(self.path), "entries": entries, "changed": changed}


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` brought: one result for each entry of the lock file, in its order."""

    path: Path
    pulled: tuple[Pulled, ...]
    checked: bool

    def as_json(self) -> dict[str, Any]:
        """For `sync --json`."""
        return {"path": str(self.path), "checked": self.checked, "entries": [pulled.as_json() for pulled in self.pulled]}


def lock(
    session: Session,
    cache: Path,
    path: Path,
    asked: Sequence[Asked] = (),
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    target: str | None = None,
    stage: Stage | None = None,
) -> Locked:
    """Note in the lock file at `path` which commits `asked` are now, and their files' digests; others in it stay as they are.

    Without `asked` all entries of the file are looked up anew, chosen as they were. Nothing is downloaded. `target` ("gguf",
    ...) chooses what a conversion to that format needs. Raises what `resolve` raises, SourceMissing if nothing is chosen, and
    what `read_lock` raises; then the file is as it was.
    """
    old = read_lock(path) if not asked or path.exists() else Lock()
    if not asked and (include or exclude or target):
        raise UsageError("--include, --exclude and --for go with the repositories that they choose from")
    entries = []
    for entry in _unresolved(asked, several(include), several(exclude), target) or old.entries:
        if stage is not None:
            stage(f"asking for {entry.asked}")
        entries.append(_resolved(session, cache, entry))
    new = old.with_entries(tuple(entries))
    write_lock(path, new)
    before = {entry.key: entry for entry in old.entries}
    changed = tuple(entry for entry in new.entries if entry != before.get(entry.key))
    were = [before.get(entry.key) for entry in changed]
    commits = tuple(entry.commit if entry else None for entry in were)
    return Locked(path, new, changed, commits, tuple(len(entry.files) if entry else 0 for entry in were))


def sync(
    session: Session,
    cache: Path,
    path: Path,
    *,
    check: bool = False,
    workers: int = WORKERS,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> Synced:
    """See that the cache holds exactly the bytes that a lock file names; what is here already takes no request.

    With `check` what is here is hashed as well. Raises DamagedInput if the Hub names other bytes for a commit than the lock
    file does, Offline (with `missing`) if something would have to be fetched and may not be, and what `pull` raises. Entries
    that were done stay done.
    """
    pulled = []
    for entry in read_lock(path).entries:
        if stage is not None:
            stage(f"looking at {entry.asked.repo}")
        plan = _planned(session, cache, path, entry, check, progress, stage)
        done = carry_out(session, plan, workers=workers, progress=progress, stage=stage)
        pulled.append(replace(done, notes=(*done.notes, *_named(cache, entry))))
        reach("sync.entry-done")
    return Synced(path, tuple(pulled), check)


def _unresolved(asked: Sequence[Asked], include: Sequence[str], exclude: Sequence[str], target: str | None) -> list[LockEntry]:
    """An entry for each repository and revision; files that are named are its patterns."""
    files: dict[Asked, list[str]] = {}
    for each in asked:
        named = files.setdefault(Asked(each.repo, each.revision), [])
        if each.file is not None and include:
            raise UsageError(f"{each} names a file, and --include would choose among others")
        named.extend([escape(each.file)] if each.file is not None else ["*"])
    return [
        LockEntry(each, "", {}, tuple(include) if "*" in named else tuple(dict.fromkeys(named)), tuple(exclude), target)
        for each, named in files.items()
    ]


def _resolved(session: Session, cache: Path, entry: LockEntry) -> LockEntry:
    resolved = resolve(session, cache, entry.asked.repo, entry.asked.revision)
    if not resolved.complete:
        told = f"what {entry.asked} holds cannot be told offline, because no list of its files was kept"
        raise Offline(told, hint="without --offline (and without HF_HUB_OFFLINE) the same command asks the Hub")
    choice = chosen(resolved, None, entry.include, entry.exclude, selecting(session, cache, entry.target))
    if choice.unmatched:
        raise SourceMissing(f"{entry.asked}: {unfit(choice.unmatched[0], resolved.entries)}")
    files = {name: resolved.entries[name] for name in sorted(choice.names)}
    return LockEntry(entry.asked, resolved.commit, files, entry.include, entry.exclude, entry.target)


def _planned(
    session: Session, cache: Path, path: Path, entry: LockEntry, check: bool, progress: Progress | None, stage: Stage | None
) -> PullPlan:
    """What is to be done for an entry. The Hub is asked only if something is missing, and must say what the lock file says."""
    commit, choice = entry.commit, Choice(tuple(entry.files))
    resolved = Resolved(entry.asked.repo, commit, commit, entry.files)
    present = look_at(cache, resolved, choice, check=check, progress=progress, stage=stage)
    if present.wanted:
        if session.offline:
            raise missing_offline(resolved, present, _sync_command(path))
        resolved = resolve(session, cache, entry.asked.repo, commit)
        _refuse_others(resolved, entry, path)
    return plan_of(cache, resolved, choice, present)


def _sync_command(path: Path) -> str:
    return shlex.join(["hubclient", "sync", *([] if str(path) == DEFAULT_NAME else [str(path)])])


def _refuse_others(resolved: Resolved, entry: LockEntry, path: Path) -> None:
    for name, locked in entry.files.items():
        told = resolved.entries.get(name)
        if told is None:
            raise DamagedInput(f"{resolved.where} has no file {shown(name)}, which the lock file names", file=path)
        if (told.digest, told.size) != (locked.digest, locked.size):
            fault = f"{resolved.where} is said to have {shown(name)} as {told.digest} ({told.size:,} bytes)"
            raise DamagedInput(f"{fault}, and is locked as {locked.digest} ({locked.size:,} bytes)", file=path)


def _named(cache: Path, entry: LockEntry) -> list[str]:
    """Let the branch or tag name the commit if it names none here: programs that load it offline find the locked one."""
    paths, revision = RepoPaths(cache, entry.asked.repo), entry.asked.revision
    if Resolved(entry.asked.repo, revision, entry.commit, entry.files).ref is None:
        return []
    try:
        here = read_ref(paths, revision)
        if here is None:
            with writer(paths, entry.commit):
                if paths.snapshot(entry.commit).is_dir():  # else it has been collected already
                    write_ref(paths, revision, entry.commit)
    except EnvironmentFault as error:
        return [f"{entry.asked} could not be noted here: {error}"]
    if here in (None, entry.commit):
        return []
    return [f"{entry.asked} is {here[:12]} here, and {entry.commit[:12]} in the lock file: load it by revision={entry.commit}"]
