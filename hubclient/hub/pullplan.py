"""What a pull would do: which files, what of them is here, what would come over the network, and whether the disk holds it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked
from hubclient.cache.layout import DEFAULT_REVISION, RepoId, RepoPaths
from hubclient.cache.present import Present, present_of
from hubclient.cache.trees import TreeEntry
from hubclient.disk import allocated
from hubclient.errors import EnvironmentFault, HubclientError, NetworkFault, NotEnoughSpace, Offline, SourceMissing
from hubclient.ground.names import several, shown
from hubclient.ground.progress import Progress, Stage
from hubclient.hub.resolve import Resolved, resolve, resolve_offline
from hubclient.hub.selection import Choice, choose, unfit

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session
    from hubclient.hub.transfer.parts import Found

Select = Callable[[Resolved], Collection[str]]
_SHOWN = 5  # names in a sentence


@dataclass(frozen=True, slots=True)
class PullPlan:
    """`names` are the chosen files, `present` what of them is here; `unmatched` are patterns that fit no file.

    `brought` are files that have come already, with headers that were looked at for this plan.
    `transfer` counts the bytes that will come over the network, `kept` those that unfinished runs have left; `needs` are
    those that the disk must still have room for, `free` those it has.
    """

    cache: Path
    resolved: Resolved
    names: tuple[str, ...]
    present: Present
    transfer: int
    kept: int
    needs: int
    free: int
    unmatched: tuple[str, ...] = ()
    brought: tuple[str, ...] = ()

    @property
    def paths(self) -> RepoPaths:
        """The repository's places."""
        return self.resolved.paths(self.cache)

    @property
    def snapshot(self) -> Path:
        """The folder that shows the files."""
        return self.paths.snapshot(self.resolved.commit)

    @property
    def entries(self) -> dict[str, TreeEntry]:
        """What is known of the chosen files."""
        return {name: self.resolved.entries[name] for name in self.names}

    @property
    def reused(self) -> int:
        """Bytes that are here already."""
        return distinct_size(self.resolved, (*self.present.shown, *self.present.unshown))

    @property
    def brings_weights(self) -> bool:
        """Whether weights of a model are still to come."""
        return self.resolved.repo.type == "model" and any(
            name.endswith((".safetensors", ".gguf")) for name in self.present.missing
        )

    def as_json(self) -> dict[str, Any]:
        """For `pull --dry-run --json`."""
        fetch = frozenset(self.present.wanted)
        return {
            **named_json(self.resolved, self.snapshot),
            "files": [{**file, "fetch": file["name"] in fetch} for file in files_json(self.resolved, self.names)],
            "fetch_bytes": self.transfer,
            "kept_bytes": self.kept,
            "reused_bytes": self.reused,
            "free_bytes": self.free,
            "unmatched": list(self.unmatched),
        }


def plan_pull(
    session: Session,
    cache: Path,
    repo: RepoId,
    revision: str = DEFAULT_REVISION,
    *,
    file: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    select: Select | None = None,
    target: str | None = None,
    check: bool = False,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> PullPlan:
    """Ask what the revision holds, choose, and look at what is here; nothing is written and no file's bytes are asked for.

    `file` is one by its name; else `select` may choose (for the format `target`, which is only told), and `include` and
    `exclude` are patterns (see `selection`). With `check` what is here counts only if it has its digest. Raises what `resolve`
    raises, SourceMissing if nothing is chosen, Offline (with `missing`) if something would have to be fetched and may not be.
    """
    if stage is not None:
        stage(f"asking for {repo}")
    command = pull_command(Asked(repo, revision, file), include, exclude, target)

    def choose_from(resolved: Resolved, select: Select | None = select) -> Choice:
        return chosen(resolved, file, include, exclude, select)

    try:
        with session.patience.telling(stage):
            resolved = resolve(session, cache, repo, revision)
    except Offline as error:
        error.hint = f"`{command}` fetches it"
        raise
    except NetworkFault as error:
        offline = None if select is None else _selecting_offline(cache, Asked(repo, revision, file))
        if here := _all_here(cache, repo, revision, lambda resolved: choose_from(resolved, offline)):
            error.hint = here
        raise
    before = look_at(cache, resolved, Choice(tuple(resolved.entries))).missing if select is not None else ()
    choice = choose_from(resolved)
    present = look_at(cache, resolved, choice, check=check, progress=progress, stage=stage)
    if present.wanted and session.offline:
        raise missing_offline(resolved, present, command)
    return brought_since(plan_of(cache, resolved, choice, present), before)


def brought_since(plan: PullPlan, missing: Collection[str]) -> PullPlan:
    """The plan, with what was `missing` before headers were looked at, and is here now, as `brought`."""
    before = frozenset(missing)
    names = tuple(name for name in plan.names if name in before)
    absent = frozenset(look_at(plan.cache, plan.resolved, Choice(names)).missing)
    return replace(plan, brought=tuple(name for name in names if name not in absent))


def pull_command(
    asked: Asked, include: str | Sequence[str] = (), exclude: str | Sequence[str] = (), target: str | None = None
) -> str:
    """The command that asks for the same."""
    options = [
        *(["--for", target] if target else []),
        *(word for pattern in several(include) for word in ("--include", pattern)),
        *(word for pattern in several(exclude) for word in ("--exclude", pattern)),
    ]
    return shlex.join(["hubclient", "pull", str(asked), *options])


def told_here(resolved: Resolved) -> str:
    """The hint where the Hub cannot be reached and is not needed."""
    return f"all of {resolved.where} that was asked for is here: --offline uses it"


def _selecting_offline(cache: Path, asked: Asked) -> Select:
    """What a conversion needs, by what is here alone."""
    from hubclient.hub.net.session import Session
    from hubclient.hub.source.locate import wanted_of

    return lambda resolved: wanted_of(Session.of(token=False, offline=True), cache, asked, resolved).names


def _all_here(cache: Path, repo: RepoId, revision: str, choose_from: Callable[[Resolved], Choice]) -> str | None:
    """`told_here`, as far as the kept ref and list of files tell; None if something is missing."""
    try:
        resolved = resolve_offline(RepoPaths(cache, repo), revision)
        return None if look_at(cache, resolved, choose_from(resolved)).wanted else told_here(resolved)
    except HubclientError:  # the fault that was met first counts
        return None


def chosen(
    resolved: Resolved,
    file: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    select: Select | None = None,
) -> Choice:
    """The files of a revision that are wanted; see `plan_pull`. SourceMissing, Offline."""
    names = _wanted(resolved, file, select)
    choice = choose(names, include, exclude)
    if not choice.names and names:
        patterns = ", ".join(map(shown, several(include or exclude)))
        idle = [unfit(pattern, names) for pattern in choice.unmatched]
        likely = next((told for told in idle if "did you mean" in told), "patterns are shell wildcards over the whole path")
        raise SourceMissing(f"{patterns} leaves no file of {resolved.asked}", hint=likely)
    return choice


def look_at(
    cache: Path,
    resolved: Resolved,
    choice: Choice,
    *,
    check: bool = False,
    progress: Progress | None = None,
    stage: Stage | None = None,
) -> Present:
    """What of the chosen files is here, see `present_of`."""
    entries = {name: resolved.entries[name] for name in choice.names}
    if check and stage is not None:
        stage("checking what is here")
    return present_of(
        resolved.paths(cache), resolved.commit, entries, check=check, progress=_counted(entries, progress) if check else None
    )


def plan_of(cache: Path, resolved: Resolved, choice: Choice, present: Present) -> PullPlan:
    """The plan that follows."""
    sizes = {resolved.entries[name].etag: resolved.entries[name].size for name in present.wanted}
    kept, reserved = _kept(unfinished(resolved.paths(cache).blobs, sizes).values())
    size = sum(sizes.values())
    return PullPlan(cache, resolved, choice.names, present, size - kept, kept, size - reserved, _free(cache), choice.unmatched)


def anything_came(plan: PullPlan) -> bool:
    """Whether more is here than when the plan was made, or unfinished."""
    now = present_of(plan.paths, plan.resolved.commit, plan.entries)
    return len(now.wanted) < len(plan.present.wanted) or plan_of(plan.cache, plan.resolved, Choice(plan.names), now).kept > 0


def refuse_overfull(plan: PullPlan) -> None:
    """NotEnoughSpace if the disk cannot take what is to come."""
    if plan.needs > plan.free:
        told = f"{plan.cache}: {plan.needs:,} bytes are needed and {plan.free:,} are free"
        raise NotEnoughSpace(told, plan.cache, hint="`hubclient cache gc` makes room; --include fetches less")


def missing_offline(resolved: Resolved, present: Present, command: str) -> Offline:
    """What to say of files that are not here and cannot be fetched now; `command` fetches them."""
    missing, damaged = present.missing, present.damaged
    parts = [f"{_are(len(missing))} not here ({_some(missing)})"] if missing else []
    parts += [f"{_are(len(damaged))} damaged ({_some(damaged)})"] if damaged else []
    told = f"{resolved.repo}@{resolved.commit[:12]}: {' and '.join(parts)}, and offline was asked for"
    return Offline(told, present.wanted, hint=f"`{command}` fetches what is missing")


def _are(count: int) -> str:
    return "1 file is" if count == 1 else f"{count:,} files are"


def unfinished(blobs: Path, sizes: Mapping[str, int]) -> dict[str, list[Found]]:
    """What earlier or other runs have begun of blobs, by etag; `sizes` are the blobs' that are asked about."""
    from hubclient.hub.transfer.parts import LEDGER, parts_of

    try:
        begun = {name.partition(".")[0] for name in os.listdir(blobs) if name.endswith(LEDGER)}
    except OSError:
        return {}
    return {etag: list(parts_of(blobs, etag, sizes[etag])) for etag in sorted(begun & sizes.keys())}


def distinct_size(resolved: Resolved, names: Sequence[str]) -> int:
    """Bytes of files, the same content once."""
    return sum({resolved.entries[name].etag or name: resolved.entries[name].size for name in names}.values())


def named_json(resolved: Resolved, snapshot: Path) -> dict[str, Any]:
    """What both results of a pull begin with."""
    repo = resolved.repo
    asked = {"repo": repo.name, "type": repo.type, "revision": resolved.revision, "commit": resolved.commit}
    return asked | {"snapshot": str(snapshot)}


def files_json(resolved: Resolved, names: Sequence[str]) -> list[dict[str, Any]]:
    """Names, sizes and digests."""
    entries = ((name, resolved.entries[name]) for name in names)
    return [{"name": name, "size": entry.size, "digest": str(entry.digest) if entry.etag else None} for name, entry in entries]


def _wanted(resolved: Resolved, file: str | None, select: Select | None) -> Sequence[str]:
    """The names among which patterns choose."""
    if select is not None:
        selected = frozenset(select(resolved))
        return tuple(name for name in resolved.entries if name in selected)
    return tuple(resolved.entries) if file is None else _meant(resolved, file)


def _meant(resolved: Resolved, file: str) -> Sequence[str]:
    """A file, a folder, or the GGUF of a type (`org/name:Q4_K_M`)."""
    if file in resolved.entries:
        return (file,)
    if inside := [name for name in resolved.entries if name.startswith(file.rstrip("/") + "/")]:
        return inside
    if not resolved.complete:
        told = f"{file} of {resolved.asked} is not here, and offline was asked for"
        raise Offline(told, (file,), hint=f"`hubclient pull {resolved.asked}:{file}` fetches it")
    from hubclient.hub.source.needed import wanted

    return tuple(sorted(wanted(resolved.entries, Asked(resolved.repo, resolved.revision, file), lambda _: ()).names))


def _counted(entries: dict[str, TreeEntry], progress: Progress | None) -> Callable[[int], None] | None:
    """`progress` told of bytes read out of all that are to be read."""
    if progress is None:
        return None
    total, done = sum({entry.etag: entry.size for entry in entries.values()}.values()), 0

    def count(nbytes: int) -> None:
        nonlocal done
        done += nbytes  # of several threads at once, at worst a little less than it is
        progress(min(done, total), total)

    return count


def _kept(found: Iterable[Sequence[Found]]) -> tuple[int, int]:
    """Bytes that unfinished downloads have left, and bytes of disk that they hold and that the next one takes over."""
    from hubclient.hub.transfer.ranges import Ranges

    kept = reserved = 0
    for parts in found:
        kept += Ranges(span[:2] for part in parts for span in part.spans).total
        reserved += max((allocated(part.data) for part in parts if part.gone), default=0)
    return kept, reserved


def _free(cache: Path) -> int:
    """Bytes free where the cache is or will be."""
    place = next((path for path in (cache, *cache.parents) if path.exists()), cache)
    try:
        return shutil.disk_usage(place).free
    except OSError as error:
        raise EnvironmentFault(f"{place}: cannot be looked at ({error.strerror})", place) from error


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
