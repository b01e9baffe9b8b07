"""Where a checkpoint is: what is there under a name on this machine, else a repository of the Hub.

    org/name   org/name@revision   org/name:sub/model.gguf   org/name@revision:sub/model.gguf   org/name:Q4_K_M
    hf://org/name[@revision][/file]        https://<the endpoint's host>/org/name[/tree|blob|resolve/revision[/file]]

`locate` finds it: what the cache holds is opened there, and of anything else the headers are fetched (see `skeleton`), until
`completed` brings the rest into the cache. Importing this loads nothing of the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.asked import URI
from hubclient.cache.layout import FOLDERS, RepoId, RepoPaths, default_cache
from hubclient.errors import DamagedInput, HubclientError, NetworkFault, Offline, SourceMissing, UnsupportedFormat, UsageError
from hubclient.ground.names import safe_relative, shown

if TYPE_CHECKING:
    from hubclient.cache.asked import Asked
    from hubclient.formats.model import OpenedCheckpoint
    from hubclient.hub.net.session import Session
    from hubclient.hub.resolve import Resolved
    from hubclient.hub.source.needed import Wanted
    from hubclient.hub.source.skeleton import Skeleton

Progress = Callable[[int, int], None]

_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".dat", ".txt")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_EAGER = 256 << 10  # bytes up to which a small file comes before it is asked for: all but vocabularies
_LARGEST = 256 << 20  # of a file that is not weights; none is read that is larger
_SHOWN = 4


def parse(source: str | os.PathLike[str]) -> Path | Asked:
    """What a source names. What is there on this machine always comes first, and anything but a text is a path.

    SourceMissing for what looks like a path and is not there; UsageError for what is neither a path nor a repository's name.
    """
    path = Path(source)
    if not isinstance(source, str) or os.path.lexists(source):
        return path
    from hubclient.hub.naming import asked_of, is_address

    if is_address(source):
        return _checked(asked_of(source), source)
    head = re.split("[@:]", source, maxsplit=1)[0]
    if _is_path(source, head):
        raise SourceMissing(f"{source}: there is no such file or folder", path, hint=_nearly(source, head))
    return _checked(asked_of(source), source)


@dataclass(frozen=True)
class Located:
    """A source that was found: `path` is what to open. `hub` has the rest if it is a repository of the Hub's."""

    path: Path
    only: str | None = None
    hub: _OnHub | None = None

    @property
    def weightless(self) -> bool:
        """Whether it is a folder's small files alone that are wanted, whatever else is beside them."""
        return self.hub is not None and not self.hub.wanted.weights

    @property
    def headers_only(self) -> bool:
        """Whether the weights are not here."""
        return self.hub is not None and self.hub.skeleton is not None

    @property
    def missing(self) -> Mapping[str, int]:
        """Names and sizes of files that `completed` would fetch."""
        return self.hub.missing if self.hub is not None else {}

    @property
    def names(self) -> frozenset[str]:
        """Names of all files in the repository that `completed` sees to; none for a path."""
        return self.hub.wanted.names if self.hub is not None else frozenset()

    @property
    def cache(self) -> Path:
        """Where the repository's files stay."""
        return self.hub.cache if self.hub is not None else default_cache()

    @property
    def told(self) -> str:
        """The source as its user knows it: a path, or repository, revision and file."""
        return str(self.hub.asked) if self.hub is not None else str(self.path)

    def holding(self, opened: OpenedCheckpoint) -> OpenedCheckpoint:
        """What was opened at `path`, which keeps the path as long as it is there itself."""
        skeleton = self.hub.skeleton if self.hub is not None else None
        return opened if skeleton is None else skeleton.holding(opened)

    def completed(self, progress: Progress | None = None) -> Located:
        """The same with all its files in the cache. Raises what `hubclient.hub.pull.carry_out` raises."""
        if self.hub is None or self.hub.skeleton is None:
            return self
        hub = self.hub
        hub.bring(hub.wanted.names, noted=True, progress=progress)
        return replace(self, path=hub.snapshot / hub.wanted.at, hub=replace(hub, skeleton=None, missing={}))

    def said(self, text: str) -> str:
        """A text with a skeleton's files called what they are on the Hub."""
        if self.hub is None or self.hub.skeleton is None:
            return text
        folder = str(self.hub.skeleton.snapshot)
        return text.replace(f"{folder}{os.sep}", f"{self.hub.where}:").replace(folder, self.hub.where)


@dataclass(frozen=True)
class _OnHub:
    """A repository's revision, what of it is wanted, and how it comes here."""

    session: Session
    cache: Path
    asked: Asked
    resolved: Resolved
    wanted: Wanted
    missing: Mapping[str, int]
    skeleton: Skeleton | None = None

    @property
    def snapshot(self) -> Path:
        return self.resolved.paths(self.cache).snapshot(self.resolved.commit)

    @property
    def where(self) -> str:
        from hubclient.cache.asked import Asked

        return str(Asked(self.asked.repo, self.asked.revision))

    def bring(self, names: Iterable[str], *, noted: bool = False, progress: Progress | None = None) -> None:
        _bring(self.session, self.cache, self.resolved, names, noted=noted, progress=progress)


def locate(source: str | os.PathLike[str], *, only: str | None = None, headers: bool = True) -> Located:
    """Find a source; of a repository whose weights are not all in the cache, fetch headers and configs.

    With `only` "tokenizer" or "config", and without `headers`, a folder's small files will do. Raises what `parse` and
    `wanted` raise, NetworkFault, AccessDenied, SourceMissing, Offline (with the missing files' names), and DamagedInput.
    """
    asked = parse(source)
    if isinstance(asked, Path):
        return Located(asked, only)
    from hubclient.hub.net.session import Session

    session, cache = Session.of(), default_cache()
    try:
        resolved = _resolved(session, cache, asked, str(source))
    except Offline as error:
        error.hint = f"`{_command(asked)}` fetches it"
        raise
    except NetworkFault as error:
        if here := _all_here(cache, asked, only, headers):
            error.hint = here
        raise
    return locate_resolved(session, cache, asked, resolved, only=only, headers=headers)


def locate_resolved(
    session: Session, cache: Path, asked: Asked, resolved: Resolved, *, only: str | None = None, headers: bool = True
) -> Located:
    """As `locate`, for a commit that is known already."""
    return _opened_up(_wanted(session, cache, asked, resolved, weightless=only in ("tokenizer", "config") and not headers), only)


def wanted_of(session: Session, cache: Path, asked: Asked, resolved: Resolved) -> Wanted:
    """What a source consists of, by the list of files and the index alone. Raises what `needed.wanted` raises."""
    return _wanted(session, cache, asked, resolved).wanted


def _all_here(cache: Path, asked: Asked, only: str | None, headers: bool) -> str | None:
    """What to say of a Hub that cannot be reached and is not needed; None if it is."""
    from hubclient.hub.net.session import Session
    from hubclient.hub.pullplan import told_here
    from hubclient.hub.resolve import resolve_offline

    try:
        resolved = resolve_offline(RepoPaths(cache, asked.repo), asked.revision)
        locate_resolved(Session.of(token=False, offline=True), cache, asked, resolved, only=only, headers=headers)
    except HubclientError:  # the fault that was met first counts
        return None
    return told_here(resolved)


def _command(asked: Asked, missing: Sequence[str] = ()) -> str:
    """What fetches a source: the files that are missing if they are few, else what a conversion reads."""
    from hubclient.cache.asked import Asked
    from hubclient.hub.pullplan import pull_command

    if len(missing) == 1:
        return pull_command(Asked(asked.repo, asked.given, missing[0]))
    if 0 < len(missing) <= _SHOWN:
        return pull_command(Asked(asked.repo, asked.given), [escape(name) for name in missing])
    return pull_command(asked, target=None if asked.file else "safetensors")


def _opened_up(hub: _OnHub, only: str | None) -> Located:
    """The snapshot if all that is read is here, else a skeleton; small files come at once in any case."""
    from hubclient.cache.present import present_of
    from hubclient.hub.pullplan import missing_offline

    entries, wanted = {name: hub.resolved.entries[name] for name in hub.wanted.names}, hub.wanted
    present = present_of(hub.resolved.paths(hub.cache), hub.resolved.commit, {name: entries[name] for name in wanted.read})
    if hub.session.offline and present.wanted:
        wanted = wanted.without(present.wanted)
        present = present_of(hub.resolved.paths(hub.cache), hub.resolved.commit, {name: entries[name] for name in wanted.read})
        if present.wanted:
            raise missing_offline(hub.resolved, present, _command(hub.asked, present.wanted))
        hub = replace(hub, wanted=wanted)
    late = {name for name in present.wanted if name in wanted.weights or entries[name].size > _EAGER}
    if not late:
        hub.bring(wanted.read, noted=True)
        return Located(hub.snapshot / wanted.at, only, hub)
    hub.bring(name for name in wanted.read if name not in late)
    beside = present_of(hub.resolved.paths(hub.cache), hub.resolved.commit, {name: entries[name] for name in wanted.beside})
    skeleton = _skeleton(hub, late)
    missing = {name: entries[name].size for name in sorted({*late, *beside.wanted})}
    return Located(skeleton.snapshot / wanted.at, only, replace(hub, missing=missing, skeleton=skeleton))


def _skeleton(hub: _OnHub, missing: Collection[str]) -> Skeleton:
    from hubclient.hub.source.glimpses import of_file, of_hub
    from hubclient.hub.source.skeleton import Later, Skeleton, Weights

    entries, where = hub.resolved.entries, hub.where
    late = [name for name in hub.wanted.small if name in missing]

    def brought(name: str) -> Callable[[], Path]:
        def fetch() -> Path:
            hub.bring(other for other in late if entries[other].size <= _LARGEST)  # who reads one vocabulary reads the others
            return hub.snapshot / name

        return fetch

    here = {name: hub.snapshot / name for name in hub.wanted.small if name not in late}
    absent: dict[str, Weights | Later] = {name: Later(brought(name), f"{where}:{name}", entries[name].size) for name in late}
    for name in hub.wanted.weights:
        fetch = of_hub(hub.session, hub.resolved, name) if name in missing else of_file(hub.snapshot / name)
        absent[name] = Weights(fetch, f"{where}:{name}", entries[name].size)
    skeleton = Skeleton(hub.asked.repo, hub.resolved.commit, here, absent)
    skeleton.fetch_headers()
    return skeleton


def _wanted(session: Session, cache: Path, asked: Asked, resolved: Resolved, *, weightless: bool = False) -> _OnHub:
    """What the source consists of; an index is fetched, as it alone says which files have the weights."""
    from hubclient.formats.safetensors.index import INDEX_LIMIT, read_index
    from hubclient.hub.source.needed import listed, wanted

    def shards(name: str) -> Collection[str]:
        if resolved.entries[name].size > INDEX_LIMIT:
            raise DamagedInput(f"is {resolved.entries[name].size:,} bytes, more than any index has", file=f"{asked.repo}:{name}")
        _bring(session, cache, resolved, [name])
        path = resolved.paths(cache).pointer(resolved.commit, name)
        return listed(read_index(path).shards, name, resolved.entries)

    try:
        found = wanted(resolved.entries, asked, shards, weightless=weightless)
    except (UnsupportedFormat, SourceMissing, DamagedInput) as error:
        if resolved.complete:
            raise
        told = f"{asked}: the part of it that is in the cache will not do ({error.message}), and offline was asked for"
        raise Offline(told, (asked.file,) if asked.file else (), hint=f"`{_command(asked)}` fetches the rest") from error
    return _OnHub(session, cache, asked, resolved, found, {})


def _bring(
    session: Session,
    cache: Path,
    resolved: Resolved,
    names: Iterable[str],
    *,
    noted: bool = False,
    progress: Progress | None = None,
) -> None:
    """See that files are in the cache. `noted`: the branch or tag names the commit then; a glance at some files moves none."""
    from hubclient.hub.pull import carry_out
    from hubclient.hub.pullplan import look_at, missing_offline, plan_of
    from hubclient.hub.selection import Choice

    chosen = frozenset(names)
    if not chosen:
        return
    what = resolved if noted else replace(resolved, revision=resolved.commit)
    choice = Choice(tuple(name for name in resolved.entries if name in chosen))
    present = look_at(cache, resolved, choice)
    if session.offline and present.wanted:
        raise missing_offline(resolved, present, _command(resolved.asked, present.wanted))
    carry_out(session, plan_of(cache, what, choice, present), progress=progress)


def _resolved(session: Session, cache: Path, asked: Asked, source: str) -> Resolved:
    from hubclient.hub.resolve import resolve

    try:
        return resolve(session, cache, asked.repo, asked.revision)
    except SourceMissing as error:
        from hubclient.hub.naming import is_address

        if not is_address(source):
            error.message += f"; nor is there a file or folder {shown(source)} here"
        raise


def _is_path(source: str, head: str) -> bool:
    """Whether nobody would call a repository so."""
    parts = head.split("/")
    lengths = (2, 3) if parts[0] in FOLDERS.values() else (2,)
    odd = "\\" in source or _DRIVE.match(source) is not None or head[:1] in ("", ".", "/", "~")
    return odd or len(parts) not in lengths or not all(parts) or head.lower().endswith(_SUFFIXES)


def _nearly(source: str, head: str) -> str | None:
    """How to name the repository that may be meant."""
    parts = head.split("/")
    if RepoId(head).is_valid and "/" not in head:
        return f"a repository of the Hub is named org/name, and one of the oldest, which have no organisation, {URI}{source}"
    if RepoId(head).is_valid:
        return f"if it is a repository of the Hub: {URI}{source}"
    if len(parts) > 2 and RepoId("/".join(parts[:2])).is_valid:
        return f"if it is a file or folder of a repository of the Hub: {'/'.join(parts[:2])}:{'/'.join(parts[2:])}"
    return None


def _checked(asked: Asked, source: str) -> Asked:
    if asked.repo.type != "model":
        raise UsageError(f"{shown(source)}: is a {asked.repo.type}, and checkpoints are in models")
    if asked.file is not None:
        try:
            safe_relative(asked.file.rstrip("/"), source="the source")
        except DamagedInput as error:
            raise UsageError(f"{shown(source)}: {error.message}") from error
    return asked
