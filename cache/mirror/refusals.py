"""How a request is turned down: the status codes and `X-Error-Code`s that clients of the Hub act upon."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hubclient.cache.mirror.repositories import User


class Refused(Exception):
    """An answer other than the one asked for; `code` goes into X-Error-Code, the message into X-Error-Message."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        said = ascii(message)[1:-1]  # names in it may hold what a header cannot
        self.headers = {"X-Error-Message": said, **({"X-Error-Code": code} if code else {}), **(headers or {})}


async def answer_refused(_request: Request, refused: Exception) -> Response:
    """The response, for starlette's table of exception handlers."""
    assert isinstance(refused, Refused)
    return JSONResponse({"error": refused.message}, refused.status, refused.headers)


def no_repository(user: User | None) -> Refused:
    """Not there, or not to be known of: to strangers the Hub does not tell which, and asks who they are."""
    if user is None:
        return Refused(
            401, "Invalid username or password.", "RepoNotFound", {"WWW-Authenticate": 'Bearer realm="Authentication required"'}
        )
    return Refused(404, "Repository not found", "RepoNotFound")


def no_revision(revision: str) -> Refused:
    """The repository has no such branch, tag or commit."""
    return Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(commit: str, path: str) -> Refused:
    """The commit has no such file; clients remember that by the commit."""
    return (
        Refused(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit}) if path else Refused(404, "Entry not found")
    )


def gated(kind: str, name: str, user: User | None) -> Refused:
    """The files need a licence to be accepted first."""
    if user is None:
        message = (
            f"Access to {kind} {name} is restricted. You must have access to it and be authenticated to access it. Please log in."
        )
        return Refused(401, message, "GatedRepo")
    return Refused(403, f"Access to {kind} {name} is restricted and you are not in the authorized list.", "GatedRepo")


def bad_token() -> Refused:
    """There is an Authorization header, and nobody has that token."""
    return Refused(401, "Invalid credentials in Authorization header")


def redirected(location: str) -> Refused:
    """Ask there instead, in the same way."""
    return Refused(307, "Temporary Redirect", None, {"Location": location})
