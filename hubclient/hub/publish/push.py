"""Push a file or a folder to a repository of the Hub, in one commit, with a model card.

What can be known before the first byte is sent is checked before it: the files, the token, the repository and who sees it.
The API and the upload are huggingface_hub's (see `sending.py`), what becomes of README.md stands in `readme.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.cache.asked import checked_revision
from hubclient.cache.layout import DEFAULT_REVISION, RepoId, default_cache
from hubclient.errors import AccessDenied, NetworkFault, SourceMissing, UsageError
from hubclient.ground.names import shown
from hubclient.ground.progress import Progress
from hubclient.hub.account import Account, whoami
from hubclient.hub.net.failures import About, translated
from hubclient.hub.publish.card import NAME
from hubclient.hub.publish.parcel import Parcel, gather, refuse_tokens
from hubclient.hub.publish.provenance import Contents, look
from hubclient.hub.publish.readme import Carded, Telling, carded, telling
from hubclient.hub.publish.sending import Overtaken, Sent, digests, send
from hubclient.hub.resolve import api_path

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

_ATTEMPTS = 5  # while others commit to the same branch


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: `url` is the commit's page, `pr_url` that of the pull request if one was opened.

    `files` are the names sent, `bytes` their size; of what was on the Hub already no byte was sent again. `created`: the
    repository is new. `left_out` says of files why they never go; `notes` are sentences on what one may not expect.
    """

    repo: str
    url: str
    commit: str
    pr_url: str | None
    files: tuple[str, ...]
    bytes: int
    private: bool
    created: bool
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    card: str | None = None  # what became of README.md: "added", "changed", or nothing


@dataclass(frozen=True, slots=True)
class Target:
    """Where it goes: `head` is the commit that `revision` is at, `names` are its files; None and none if there is none yet."""

    repo: RepoId
    revision: str
    exists: bool
    private: bool
    head: str | None = None
    names: frozenset[str] = frozenset()


def push(
    session: Session,
    path: str | os.PathLike[str],
    repo: RepoId | str,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    message: str | None = None,
    card: bool = True,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    progress: Progress | None = None,
    bars: bool = False,
    cache: Path | None = None,
) -> Pushed:
    """Send what is at `path` (see `parcel.gather`) to `repo`, which is made if it is new.

    `private` is how a new repository is made; one that is there and differs is refused. `create_pr` proposes the commit.
    `card` adds a model card where there is none, and a table of the files to one that is there. `progress` is called with bytes
    read and bytes in all while digests are made; `bars` lets huggingface_hub show its own on stderr while it sends.
    `cache` is asked what the files were made from. Raises UsageError, SourceMissing, DamagedInput, AccessDenied,
    NetworkFault, Offline, SourceChanged or another EnvironmentFault.
    """
    wanted = repo if isinstance(repo, RepoId) else RepoId.parse(repo)
    parcel = gather(Path(path), include, exclude)
    session.need_for("push")
    contents = look(parcel, default_cache() if cache is None else cache)
    refuse_tokens(parcel)
    account = whoami(session)
    target = before = _target(session, _full(wanted, account), checked_revision(revision or DEFAULT_REVISION))
    _check(target, account, private, create_pr)
    sha256 = digests(parcel, progress)
    if not target.exists:
        target = _create(session, target, private)
    if target.head is None and target.revision != DEFAULT_REVISION:
        target = _branch(session, target)
    told = telling(session, contents, target.private) if card else None
    with _bars(bars):
        sent, done, target = _send(session, parcel, contents, sha256, target, told, message, create_pr)
    return Pushed(
        target.repo.name,
        sent.url,
        sent.commit,
        sent.pr_url,
        done.names,
        done.parcel.size,
        target.private,
        not before.exists,
        parcel.left_out,
        (*done.notes, *_notes(before, target, parcel, sent)),
        None if done.card is None else "changed" if NAME in target.names else "added",
    )


def _full(repo: RepoId, account: Account) -> RepoId:
    """With a namespace: one's own, if none was named."""
    if repo.type != "model":
        raise UsageError(f"{repo} is no model, and models are what is pushed")
    return repo if "/" in repo.name else RepoId(f"{account.name}/{repo.name}")


def _target(session: Session, repo: RepoId, revision: str) -> Target:
    try:
        told = session.get_json(api_path(repo), about=About(repo))
    except SourceMissing:
        return Target(repo, revision, exists=False, private=False)
    if not isinstance(told, dict) or not isinstance(told.get("private"), bool):
        raise NetworkFault(f"{session.host} does not say whether {repo} is private, but {shown(told)}")
    name = told.get("id")
    present = RepoId(name) if isinstance(name, str) and RepoId(name).is_valid else repo  # it may have moved
    found = Target(present, revision, exists=True, private=told["private"])
    if revision != DEFAULT_REVISION:
        try:
            told = session.get_json(api_path(present, "revision", revision), about=About(present, revision))
        except SourceMissing:
            return found
    listed = told.get("siblings") or ()
    names = frozenset(item["rfilename"] for item in listed if isinstance(item, dict) and isinstance(item.get("rfilename"), str))
    head = told.get("sha")
    return replace(found, head=head if isinstance(head, str) else None, names=names)


def _check(target: Target, account: Account, private: bool | None, create_pr: bool) -> None:
    """What nothing needs to be sent for to be refused."""
    if account.role == "read":
        hint = f"make a token with the role Write at {account.endpoint}/settings/tokens, then `hubclient login`"
        raise AccessDenied(f"{account.origin} may read and not write", hint=hint)
    if target.exists:
        _check_visibility(target, private)
        if create_pr and target.head is None:
            raise SourceMissing(f"{target.repo} has no branch {shown(target.revision)} that a pull request could be for")
    elif create_pr:
        raise SourceMissing(f"there is no {target.repo} that a pull request could be for, or {account.origin} may not see it")
    elif target.repo.name.partition("/")[0] not in account.namespaces:
        told = f"{account.origin} is {account.name}'s, who may not make {target.repo}"
        raise AccessDenied(told, hint=f"repositories of yours begin with {', '.join(f'{name}/' for name in account.namespaces)}")


def _check_visibility(target: Target, private: bool | None) -> None:
    if private is not None and private != target.private:
        now, asked = ("private", "public") if target.private else ("public", "private")
        told = f"{target.repo} is {now} already, and {asked} was asked for; nothing was sent"
        raise UsageError(told, hint="its settings on the Hub change that, or name another repository")


def _create(session: Session, target: Target, private: bool | None) -> Target:
    """The repository, made; looked at again, so that what must not be seen is never sent to where it is."""
    with translated(session, target.repo):
        session.api.create_repo(target.repo.name, private=private)
    made = _target(session, target.repo, target.revision)
    _check_visibility(made, private)
    return made


def _branch(session: Session, target: Target) -> Target:
    with translated(session, target.repo, revision=target.revision):
        session.api.create_branch(target.repo.name, branch=target.revision)
    return _target(session, target.repo, target.revision)


def _send(
    session: Session,
    parcel: Parcel,
    contents: Contents,
    sha256: Mapping[str, str],
    target: Target,
    told: Telling | None,
    message: str | None,
    create_pr: bool,
) -> tuple[Sent, Carded, Target]:
    """One commit; made anew, with the card that is there then, if another one came in between."""
    for attempt in range(_ATTEMPTS):
        done = carded(session, parcel, contents, sha256, target.repo, target.head, target.names, told)
        try:
            return send(session, done, sha256, target, message or _message(done.parcel), create_pr), done, target
        except Overtaken:
            if attempt == _ATTEMPTS - 1:
                raise
            target = _target(session, target.repo, target.revision)
    raise AssertionError


def _message(parcel: Parcel) -> str:
    names = [item.name for item in parcel.items]
    return f"Add {names[0]}" if len(names) == 1 else f"Add {len(names)} files" if names else "Update README.md"


def _notes(before: Target, target: Target, parcel: Parcel, sent: Sent) -> tuple[str, ...]:
    said = []
    if before.exists and before.head is None:
        said.append(f"the branch {target.revision} is new")
    if sent.commit == target.head:
        said.append("all of it was there already, so there is no new commit")
    said += [f"{path} was not sent; a model that sees needs it: hubclient push {path} {target.repo}" for path in parcel.beside]
    return tuple(said)


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """huggingface_hub's progress bars, which it shows whatever stderr is, unless it is told not to."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
