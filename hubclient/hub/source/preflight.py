"""Before any weight byte moves: can it be converted, what would be fetched, how large does it become, and is there room.

From configs and headers alone, which are fetched for it (see `skeleton`): the plan of the conversion itself answers, so that
what passes here does not fail afterwards for a reason that could have been known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.cache.asked import Asked
from hubclient.errors import EnvironmentFault, HubclientError, NotEnoughSpace
from hubclient.ground.words import human
from hubclient.hub.source.locate import locate_resolved
from hubclient.hub.source.temporary import nowhere

if TYPE_CHECKING:
    from hubclient.checkpoint import Checkpoint
    from hubclient.hub.net.session import Session
    from hubclient.hub.resolve import Resolved
    from hubclient.plan import Plan

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a look at the headers tells. Sizes in bytes.

    `files` are the names and sizes of what a conversion to `target` reads and what comes along, `missing` those of them that
    are not here. `outputs` has the size of each file or folder that the conversion writes with the type "auto", by type.
    `fault` is why it cannot be converted; None if it can. `free` is what the cache's disk has room for.
    """

    asked: Asked
    commit: str
    target: str | None
    files: Mapping[str, int]
    missing: Mapping[str, int]
    free: int
    format: str = ""
    architecture: str = ""
    model_class: str = ""
    converts_to: tuple[str, ...] = ()
    outputs: Mapping[str, int] | None = None
    losses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fault: HubclientError | None = None

    @property
    def supported(self) -> bool:
        """Whether nothing stands against it."""
        return self.fault is None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def download(self) -> int:
        """Bytes of the missing ones."""
        return sum(self.missing.values())

    def refuse(self) -> None:
        """Raises what stands against it: Unsupported*, DamagedInput, UsageError, NotEnoughSpace."""
        if self.fault is not None:
            raise self.fault
        if self.download > self.free:
            told = f"{self.asked}: {human(self.download)} are to be downloaded, and {human(self.free)} are free"
            raise NotEnoughSpace(told, hint="`hubclient cache gc` makes room; HF_HUB_CACHE names another disk")

    @property
    def summary(self) -> str:
        """What it is, and what becomes of it: in one line, without what only a plan for a target finds out."""
        model = f"{self.architecture} ({self.model_class})" if self.architecture else "of no architecture that is known here"
        made = "".join(f"; becomes {self.target} {kind}: {human(size)}" for kind, size in (self.outputs or {}).items())
        return f"{self.asked} at {self.commit[:12]}: {self.format or 'weights'}, {model}{made}"

    def lines(self) -> tuple[str, ...]:
        """For people."""
        told = [self.summary]
        told += _listed("not carried over", self.losses)
        told += _listed("note", self.notes)
        return (*told, *([f"cannot be converted: {self.fault}"] if self.fault is not None else []))

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "repo": self.asked.repo.name,
            "revision": self.asked.revision,
            "file": self.asked.file,
            "commit": self.commit,
            "target": self.target,
            "supported": self.supported,
            **({"why": str(self.fault)} if self.fault is not None else {}),
            "format": self.format or None,
            "architecture": self.architecture or None,
            "class": self.model_class or None,
            "converts_to": list(self.converts_to),
            "files": dict(self.files),
            "bytes": self.size,
            "download_bytes": self.download,
            "free_bytes": self.free,
            "outputs": dict(self.outputs) if self.outputs is not None else None,
            "losses": list(self.losses),
            "notes": list(self.notes),
        }


def preflight(session: Session, cache: Path, resolved: Resolved, target: str | None = None, file: str | None = None) -> Preflight:
    """Look at a commit's headers: what it is, and with a `target` format whether and to what it converts.

    What a model cannot be converted for is `fault`. Raises what finding the weights raises: UsageError where there are several
    choices, UnsupportedFormat where there are no weights that can be read, SourceMissing, DamagedInput, NetworkFault,
    AccessDenied, Offline if headers are not here.
    """
    from hubclient.checkpoint import Checkpoint

    asked = Asked(resolved.repo, resolved.revision, file)
    located = locate_resolved(session, cache, asked, resolved)
    sizes = {name: resolved.entries[name].size for name in sorted(located.names)}
    found: dict[str, Any] = {}
    plan = None
    try:
        checkpoint = Checkpoint.at(located)
        found["format"] = checkpoint.format
        found |= _model(checkpoint)
        plan = _planned(checkpoint, target) if target is not None else None
    except HubclientError as error:
        if isinstance(error, EnvironmentFault):
            raise
        found["fault"] = error
    if plan is not None:
        outputs: dict[str, int] = {}
        for output in plan.outputs:
            kind = f"{output.type} (vision part)" if output.type in outputs else output.type
            outputs[kind] = outputs.get(kind, 0) + output.size
        found |= {"outputs": outputs, "losses": plan.losses, "notes": plan.notes}
    return Preflight(asked, resolved.commit, target, sizes, located.missing, _free(cache), **found)


def select_for(
    session: Session,
    cache: Path,
    resolved: Resolved,
    target: str | None,
    file: str | None = None,
    told: Callable[[Preflight], None] | None = None,
) -> frozenset[str]:
    """The names of the files that a conversion to `target` reads, with card and licences: what `pull --for` brings.

    `told` is given what the headers tell. Raises what `preflight` raises and what stands against the conversion. Offline, what is not here is not looked into.
    """
    asked = Asked(resolved.repo, resolved.revision, file)
    if session.offline:
        from hubclient.hub.source.locate import wanted_of

        return wanted_of(session, cache, asked, resolved).names
    found = preflight(session, cache, resolved, target, file)
    if told is not None:
        told(found)
    found.refuse()
    return frozenset(found.files)


def refuse_early(checkpoint: Checkpoint, plan: Plan, *, strict: bool = False, force: bool = False) -> None:
    """Raises what carrying out the plan would raise once the weights are here: Lossy, OutputExists, and NotEnoughSpace if the
    download and what is made of it do not both fit on their disks.
    """
    from hubclient.outputs import refuse_taken
    from hubclient.plan import refuse_losses

    if strict:
        refuse_losses(plan)
    if not force:
        refuse_taken(plan.outputs)
    wishes = [(origin.cache, sum(origin.missing.values())) for origin in checkpoint.origins if origin.missing]
    _refuse_overfull([*wishes, *((output.path.parent, output.size) for output in plan.outputs)])


def _refuse_overfull(wishes: Iterable[tuple[Path, int]]) -> None:
    needed: dict[int, tuple[int, list[Path]]] = {}
    for wish, size in wishes:
        folder = _existing(wish)
        total, folders = needed.get(folder.stat().st_dev, (0, []))
        needed[folder.stat().st_dev] = (total + size, [*folders, folder])
    for total, folders in needed.values():
        free = shutil.disk_usage(folders[0]).free
        if total > free:
            what = "the download and what is made of it need" if len(set(folders)) > 1 else "are needed:"
            told = f"{folders[0]}: {what} {total:,} bytes, {free:,} are free"
            raise NotEnoughSpace(told, folders[0], hint="HF_HUB_CACHE puts the download on another disk")


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    from hubclient.spokes.reach import targets

    model = checkpoint.model
    return {"architecture": model.architecture.name, "model_class": model.hf_class, "converts_to": targets(model)}


def _planned(checkpoint: Checkpoint, target: str) -> Plan:
    """The plan of a conversion to nowhere."""
    return checkpoint.plan(nowhere() / "{name}-{type}", format=target)


def _listed(heading: str, lines: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    more = [f"{heading}: and {len(lines) - _SHOWN:,} more, which --json lists"] if len(lines) > _SHOWN else []
    return [*(f"{heading}: {line}" for line in lines[:_SHOWN]), *more]


def _free(cache: Path) -> int:
    return shutil.disk_usage(_existing(cache)).free


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
