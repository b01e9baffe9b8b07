"""The bytes of a file of a repository as they come, after the answer's headers have been held against what is known of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId
from hubclient.cache.trees import TreeEntry
from hubclient.ground.names import shown
from hubclient.hub.net.failures import About, Contradiction, Passing
from hubclient.hub.net.origins import host_of, same_origin
from hubclient.hub.net.session import Answer, Session
from hubclient.hub.net.unpacking import CODINGS, coding_of, unpacked
from hubclient.hub.transfer.ranges import Range, parse_content_range

_READ = 1 << 20  # bytes at most of a piece; more than sockets hold
# httpx2 takes 64 KiB at a time through four copies. Past it a connection cannot be used again, which costs about as much
# time as an answer took to come: a good bargain near by, where that is what limits a transfer.
_NEAR = 0.02  # seconds
_LARGE = 1 << 22  # bytes


@dataclass(frozen=True, slots=True)
class Target:
    """A file of a revision: where it is fetched, and what the Hub's list says of it."""

    repo: RepoId
    commit: str
    name: str
    entry: TreeEntry
    url: str

    @classmethod
    def of(cls, session: Session, repo: RepoId, commit: str, name: str, entry: TreeEntry) -> Target:
        """The file `name`."""
        return cls(repo, commit, name, entry, session.resolve_url(repo, commit, name))

    @property
    def about(self) -> About:
        """For sentences."""
        return About(self.repo, self.commit, self.name)


class RangesIgnored(Exception):
    """A part of the file was asked for, and the whole comes."""


@contextmanager
def streaming(session: Session, target: Target, part: Range) -> Iterator[Iterator[bytes]]:
    """The bytes [start, stop) of the file, in pieces, never more than that.

    Fewer than asked for, a refusal, a contradiction: NetworkFault, Passing where another try may do. RangesIgnored.
    """
    size, (start, stop) = target.entry.size, part
    whole = part == (0, size)
    asked = {} if whole else {"start": start, "stop": stop}
    with session.open(target.url, target.about, **asked) as answer:
        _check_identity(session, target, answer)
        if answer.status == 200 and not whole:
            raise RangesIgnored
        if coding_of(answer.headers.get("content-encoding", "")):
            yield _exactly(_unpacked(target, answer, whole), target, answer, stop - start)
            return
        _check_lengths(target, answer, part)
        yield _exactly(_pieces(session, answer, stop - start), target, answer, stop - start)


def _check_identity(session: Session, target: Target, answer: Answer) -> None:
    """The commit, digest and size that the endpoint itself tells, whatever host sends the bytes."""
    told = answer.told
    commit = told.get("x-repo-commit")
    if commit is not None and commit != target.commit:
        raise Contradiction(f"{target.about}: {session.host} answers with revision {shown(commit)}")
    etag = (told.get("x-linked-etag") or _own_etag(session, answer)).strip().removeprefix("W/").strip('"')
    if Digest.of_name(etag) is not None and etag != target.entry.etag:  # mirrors have etags of their own making, too
        raise Contradiction(f"{target.about}: {session.host} lists it with the digest {target.entry.etag}, and sends {etag}")
    size = told.get("x-linked-size")
    if size is not None and size.strip() != str(target.entry.size):
        raise Contradiction(
            f"{target.about}: {session.host} lists it with {target.entry.size:,} bytes, and says now {shown(size)}"
        )


def _own_etag(session: Session, answer: Answer) -> str:
    """The etag of the endpoint's own last answer; another host's tells something else."""
    return answer.told.get("etag", "") if same_origin(answer.url, session.endpoint) else ""


def _check_lengths(target: Target, answer: Answer, part: Range) -> None:
    size, (start, stop) = target.entry.size, part
    host = host_of(answer.url)
    if answer.status == 206:
        told = parse_content_range(answer.headers.get("content-range", ""))
        if told is None or told[:2] != part or told[2] not in (size, None):
            given = shown(answer.headers.get("content-range", "")) if told else "none that can be read"
            raise Contradiction(
                f"{target.about}: asked for bytes {start}-{stop - 1} of {size}, {host} sends another range: {given}"
            )
    length = answer.headers.get("content-length")
    if length is not None and length.strip() != str(stop - start):
        raise Contradiction(f"{target.about}: {host} announces {shown(length)} bytes instead of {stop - start:,}")


def _exactly(pieces: Iterator[bytes], target: Target, answer: Answer, count: int) -> Iterator[bytes]:
    """The pieces, if they are `count` bytes together."""
    left = count
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise Contradiction(f"{target.about}: {host_of(answer.url)} sends more than the {count:,} bytes that were due")
        yield piece
    if left:
        raise Passing(f"{target.about}: {host_of(answer.url)} stopped {left:,} bytes before the end")


def _pieces(session: Session, answer: Answer, count: int) -> Iterator[bytes]:
    """The body as it comes."""
    pieces = answer.response.iter_raw()
    wire = answer.response.extensions.get("network_stream")
    near = count >= _LARGE and answer.took < _NEAR and answer.response.http_version == "HTTP/1.1"
    if wire is None or not near or answer.headers.get("content-length") is None or "transfer-encoding" in answer.headers:
        yield from pieces
        return
    first = next(pieces, b"")  # all that came with the headers; the rest is still the socket's
    yield first
    yield from _from_wire(wire, count - len(first), session.timeout)


def _from_wire(wire: Any, left: int, timeout: float) -> Iterator[bytes]:
    """What remains of a body of known length, read from the connection itself, which is closed afterwards."""
    while left > 0:
        piece: bytes = wire.read(min(_READ, left), timeout)
        if not piece:
            return
        left -= len(piece)
        yield piece


def _unpacked(target: Target, answer: Answer, whole: bool) -> Iterator[bytes]:
    """A body that comes compressed though that was ruled out, as caches on the way do; pieces of bounded size."""
    coding = coding_of(answer.headers["content-encoding"])
    if not whole or answer.status != 200 or coding not in CODINGS:
        raise Contradiction(f"{target.about}: {host_of(answer.url)} sends it packed ({shown(coding)}), though that was ruled out")
    try:
        yield from unpacked(answer.response.iter_raw())
    except zlib.error as error:
        raise Contradiction(f"{target.about}: {host_of(answer.url)} sends bytes that cannot be unpacked") from error
