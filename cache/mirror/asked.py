"""From a request to what it is about: who asks, which repository, which commit.

Revisions and paths come with their slashes percent-encoded, so routes match the path as it was sent (`Undecoded`) and
each part is decoded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from hubclient.cache.mirror.refusals import bad_token, gated, no_repository, no_revision, redirected
from hubclient.cache.mirror.repositories import Commit, Repositories, Repository, User
from hubclient.cache.mirror.storage import Storage


@dataclass(frozen=True, slots=True)
class Mirror:
    """What the routes serve: `page_size` entries to an answer; large files from `storage`, if there is one."""

    repositories: Repositories
    page_size: int = 1000
    storage: Storage | None = None


class _Text(Convertor[str]):
    """A part of a path as it was sent."""

    def __init__(self, regex: str) -> None:
        self.regex = regex  # type: ignore[misc]  # the class variable is where starlette looks

    def convert(self, value: str) -> str:
        """Decoding is for later: a redirect needs it as it was."""
        return value

    def to_string(self, value: str) -> str:
        """The inverse."""
        return value


register_url_convertor("repo", _Text(r"[^/]+(?:/[^/]+)?"))
register_url_convertor("revision", _Text(r"refs/(?:pr|convert|heads|tags)/[^/]+|[^/]+"))
register_url_convertor("plural", _Text("models|datasets|spaces"))
register_url_convertor("prefix", _Text("datasets|spaces"))


class Undecoded:
    """Gives the routes the path as it was sent, so that an encoded slash is no separator."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}
        await self.app(scope, receive, send)


def mirror_of(request: Request) -> Mirror:
    """What this application serves."""
    mirror: Mirror = request.app.state.mirror
    return mirror


def user_of(request: Request) -> User | None:
    """Who asks; None for a stranger. A token that nobody has is refused, even where none is needed, as the Hub does."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    user = mirror_of(request).repositories.user(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise bad_token()
    return user


def kind_of(request: Request) -> str:
    """What kind of repository the path is about ("model", "dataset", "space"), in the API or on the pages."""
    plural: str = request.path_params.get("plural") or request.path_params.get("prefix") or "models"
    return plural.removesuffix("s")


def repository_of(request: Request, *, to_read: bool = False) -> Repository:
    """The repository, if the one who asks may see it (and `to_read`, fetch its files). Raises Refused."""
    repositories, user, kind = mirror_of(request).repositories, user_of(request), kind_of(request)
    sent: str = request.path_params["repo"]
    repository = repositories.find(kind, unquote(sent))
    if repository is None and (name := repositories.moved(kind, unquote(sent))):
        raise redirected(_renamed(request, sent, name))
    if repository is None or not repositories.may_see(repository, user):
        raise no_repository(user)
    if to_read and not repositories.may_read(repository, user):
        raise gated(kind, repository.id, user)
    return repository


def commit_of(request: Request, repository: Repository) -> Commit:
    """The commit that the path names, else the head of the default branch. Raises Refused."""
    revision = unquote(request.path_params.get("revision", "main"))
    commit = repository.commit(revision)
    if commit is None:
        raise no_revision(revision)
    return commit


def path_of(request: Request) -> str:
    """The path in the repository that the request names, "" for all of it."""
    return unquote(request.path_params.get("path", "")).removesuffix("/")


def truthy(request: Request, name: str) -> bool:
    """Whether a parameter is set, however the client spells it."""
    return bool(re.fullmatch(r"1|true|yes", request.query_params.get(name, ""), re.IGNORECASE))


def _renamed(request: Request, sent: str, name: str) -> str:
    path: str = request.scope["path"]
    query = request.url.query
    return path.replace(f"/{sent}", f"/{quote(name)}", 1) + (f"?{query}" if query else "")
