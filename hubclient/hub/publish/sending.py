"""The upload of a push: digests, one commit through huggingface_hub, and a look at what the Hub says it holds then."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hubclient.cache.digests import digest_file
from hubclient.errors import EnvironmentFault, HubclientError, NetworkFault, SourceChanged, UsageError
from hubclient.ground.names import shown
from hubclient.ground.progress import Progress
from hubclient.hub.net.connections import Stopped
from hubclient.hub.net.failures import translated
from hubclient.hub.publish.card import NAME
from hubclient.hub.publish.parcel import Item, Parcel
from hubclient.hub.transfer.crew import run_all

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session
    from hubclient.hub.publish.push import Target
    from hubclient.hub.publish.readme import Carded

_BATCH = 500  # paths that the Hub tells of at once


class Overtaken(NetworkFault):
    """Another commit came in between."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The commit's page, its id, and the pull request's page."""

    url: str
    commit: str
    pr_url: str | None


def digests(parcel: Parcel, progress: Progress | None = None) -> dict[str, str]:
    """The sha256 (hexadecimal) of each file, by name, on all cores. SourceChanged if one changes meanwhile; EnvironmentFault."""
    lock, done, over = threading.Lock(), [0], threading.Event()
    found: dict[str, str] = {}

    def count(nbytes: int) -> None:
        if over.is_set():
            raise Stopped("the push was stopped")
        with lock:
            done[0] += nbytes
            if progress is not None and done[0] < parcel.size:
                progress(done[0], parcel.size)

    def digest(item: Item) -> None:
        try:
            found[item.name] = digest_file(item.path, "sha256", count).hex
        except OSError as error:
            raise EnvironmentFault(f"{item.path}: cannot be read ({error.strerror})", item.path) from error
        _refuse_changed(item)

    jobs = [partial(digest, item) for item in parcel.items]
    run_all(jobs, os.cpu_count() or 1, over.set, lambda _fault: False)
    if progress is not None:
        progress(parcel.size, parcel.size)
    return found


def send(session: Session, carded: Carded, sha256: Mapping[str, str], target: Target, message: str, create_pr: bool) -> Sent:
    """Commit the files, and the card if there is one. Overtaken if `target.head` is no longer the branch's last commit."""
    items = carded.parcel.items
    with translated(session, target.repo, revision=None if create_pr else target.revision), _theirs(target), _silent():
        made = session.api.create_commit(
            target.repo.name,
            list(_operations(items, sha256, carded.card)),
            commit_message=message,
            revision=target.revision,
            create_pr=create_pr,
            parent_commit=target.head,
        )
    for item in items:
        _refuse_changed(item)
    _compare(session, target, made.oid, items, sha256)
    return Sent(made.commit_url, made.oid, made.pr_url)


def _operations(items: Sequence[Item], sha256: Mapping[str, str], card: bytes | None) -> Iterator[Any]:
    from huggingface_hub import CommitOperationAdd

    for item in items:
        operation = CommitOperationAdd(item.name, str(item.path.absolute()))
        operation.upload_info.sha256 = bytes.fromhex(sha256[item.name])  # else it would be read once more
        yield operation
    if card is not None:
        yield CommitOperationAdd(NAME, card)


@contextmanager
def _silent() -> Iterator[None]:
    """Without huggingface_hub's line on a commit that changes nothing, which the notes of a push say too."""
    import logging

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No files have been modified")

    logger = logging.getLogger("huggingface_hub.hf_api")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


_XET = "HF_HUB_DISABLE_XET=1 sends in the older way"


@contextmanager
def _theirs(target: Target) -> Iterator[None]:
    """What huggingface_hub raises of commits and uploads, beside what every request may raise."""
    try:
        yield
    except HubclientError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else None  # "Error while uploading" around the fault itself
        if (ours := _meaning(cause or error, target)) is not None:
            raise ours from error
        if cause is not None:
            raise cause from None
        raise


def _meaning(error: BaseException, target: Target) -> HubclientError | None:
    """A fault of the upload as ours; None for those of any request."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HubclientError):  # raised where huggingface_hub called us
        return error
    if isinstance(error, HfHubHTTPError):
        overtaken = error.response is not None and error.response.status_code == 412
        return Overtaken(f"{target.repo}: others commit to {target.revision} all the time; try again") if overtaken else None
    if isinstance(error, OSError) and error.filename:
        return EnvironmentFault(f"{error.filename}: {error.strerror}", error.filename)
    if isinstance(error, ValueError) and "README.md" in str(error):
        return UsageError(f"the Hub refuses the head of README.md: {_line(error)}", hint="mend it, or give --no-card")
    if isinstance(error, OSError | RuntimeError):  # what hf_xet raises
        return NetworkFault(f"{target.repo}: the upload failed: {_line(error)}", hint=_XET)
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _refuse_changed(item: Item) -> None:
    try:
        state = item.path.stat()
    except OSError as error:
        raise SourceChanged(f"{item.path}: went away while it was pushed ({error.strerror})", item.path) from error
    if (state.st_size, state.st_mtime_ns) != (item.size, item.modified_ns):
        raise SourceChanged(f"{item.path}: changed while it was pushed; push it again", item.path)


def _compare(session: Session, target: Target, commit: str, items: Sequence[Item], sha256: Mapping[str, str]) -> None:
    """Whether the commit holds what was sent. NetworkFault if it does not."""
    found: dict[str, Any] = {}
    names = [item.name for item in items]
    for start in range(0, len(names), _BATCH):
        with translated(session, target.repo, revision=commit):
            listed = session.api.get_paths_info(target.repo.name, names[start : start + _BATCH], revision=commit)
            found |= {entry.path: entry for entry in listed}
    for item in items:
        if item.name not in found:
            told = f"{target.repo}@{commit[:12]} lacks {shown(item.name)}, which was sent"
            raise NetworkFault(told, hint="a .gitignore in the repository leaves files out")
        if not _same(found[item.name], item, sha256[item.name]):
            raise NetworkFault(f"{target.repo}@{commit[:12]} holds other bytes of {shown(item.name)} than were sent")


def _same(entry: Any, item: Item, sha256: str) -> bool:
    large = getattr(entry, "lfs", None)
    return bool(large.sha256 == sha256 if large else entry.blob_id == digest_file(item.path, "git-sha1").hex)
