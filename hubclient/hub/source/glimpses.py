"""Parts of files: bytes of one on the Hub, or of one that is here, without the rest of it."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol

from hubclient.errors import DamagedInput, EnvironmentFault, NetworkFault
from hubclient.hub.net.patience import patiently
from hubclient.hub.transfer.stream import RangesIgnored, Target, streaming

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session
    from hubclient.hub.resolve import Resolved


class Fetch(Protocol):
    """Gives the bytes [start, stop) of a file, all of them; `stopped` ends waits between tries."""

    def __call__(self, start: int, stop: int, /, stopped: Event | None = None) -> bytes:
        """The bytes."""


def of_hub(session: Session, resolved: Resolved, name: str) -> Fetch:
    """Of a file of a commit. No digest covers a part: good for a look, and for no more. NetworkFault, AccessDenied."""
    target = Target.of(session, resolved.repo, resolved.commit, name, resolved.entries[name])

    def fetch(start: int, stop: int, /, stopped: Event | None = None) -> bytes:
        def attempt() -> bytes:
            with streaming(session, target, (start, stop)) as pieces:
                return b"".join(pieces)

        try:
            return patiently(attempt, session.patience, stopped) if stop > start else b""
        except RangesIgnored:
            raise NetworkFault(
                f"{target.about}: {session.host} sends no parts of files, so headers cannot be looked at alone"
            ) from None

    return fetch


def of_file(path: Path) -> Fetch:
    """Of a file on this machine. DamagedInput if it is too short, EnvironmentFault."""

    def fetch(start: int, stop: int, /, stopped: Event | None = None) -> bytes:  # noqa: ARG001 - nothing to wait for
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
        if len(data) < stop - start:
            raise DamagedInput("is shorter than the Hub says", file=path)
        return data

    return fetch
