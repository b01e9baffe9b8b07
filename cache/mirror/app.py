"""The routes: what a client of the Hub may ask of a read-only one. `mirror_app` is the application."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hubclient.cache.mirror.asked import Mirror, Undecoded, commit_of, kind_of, mirror_of, path_of, repository_of, truthy, user_of
from hubclient.cache.mirror.payloads import described, history, refs, repository_info, tree_names, whoami
from hubclient.cache.mirror.refusals import Refused, answer_refused, bad_token, no_entry
from hubclient.cache.mirror.search import found, only
from hubclient.cache.mirror.transfer import FileResponse
from hubclient.errors import DamagedInput
from hubclient.ground.strictjson import parse_object

T = TypeVar("T")
_BODY_LIMIT = 16 << 20  # bytes: the paths of 100,000 files
_NUMBER = re.compile(r"[0-9]{1,9}")


def mirror_app(mirror: Mirror, more: Sequence[BaseRoute] = ()) -> Starlette:
    """A Hub over `mirror.repositories`; `more` routes are asked first."""
    app = Starlette(routes=[*more, *ROUTES], middleware=[Middleware(Undecoded)], exception_handlers={Refused: answer_refused})
    app.state.mirror = mirror
    return app


async def info(request: Request) -> Response:
    """A repository, as of a revision."""
    repository = repository_of(request)
    asked_for = "revision" in request.path_params
    commit = commit_of(request, repository) if asked_for else repository.head
    told = repository_info(repository, commit, sizes=truthy(request, "blobs"))
    return JSONResponse(only(request, told))


async def tree(request: Request) -> Response:
    """Files and folders under a path, page by page."""
    commit = commit_of(request, repository_of(request))
    names = tree_names(commit, path_of(request), recursive=truthy(request, "recursive"))
    if names is None:
        raise no_entry(commit.id, path_of(request))
    expand = truthy(request, "expand")
    return _page(request, names, lambda name: described(commit, name, expand=expand))


async def paths_info(request: Request) -> Response:
    """Those of the paths in the form (or the JSON) sent that the commit has."""
    commit = commit_of(request, repository_of(request))
    paths, expand = _asked_paths(request, await _body(request))
    told = (described(commit, path.strip("/"), expand=expand) for path in paths)
    return JSONResponse([item for item in told if item])


async def list_refs(request: Request) -> Response:
    """Branches, tags, and pull requests if they are asked for."""
    return JSONResponse(refs(repository_of(request), pulls=truthy(request, "include_prs")))


async def commits(request: Request) -> Response:
    """The commits up to a revision, the last one first."""
    repository = repository_of(request)
    return _page(request, list(history(repository, commit_of(request, repository))))


async def search(request: Request) -> Response:
    """Repositories that fit the words and filters sent."""
    return _page(request, found(request, mirror_of(request).repositories.every(kind_of(request)), user_of(request)))


async def who(request: Request) -> Response:
    """Whose token it is."""
    user = user_of(request)
    if user is None:
        raise bad_token()
    return JSONResponse(whoami(user))


async def auth_check(request: Request) -> Response:
    """Nothing, if the files may be fetched."""
    repository_of(request, to_read=True)
    return JSONResponse({})


async def resolve(request: Request) -> Response:
    """A file: its bytes, or for a large one the way to the storage that has them."""
    repository = repository_of(request, to_read=True)
    commit, path = commit_of(request, repository), path_of(request)
    file = commit.files.get(path)
    if file is None:
        raise no_entry(commit.id, path)
    entry, storage = file.entry, mirror_of(request).storage
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{entry.etag}"'}
    if entry.lfs_sha256:
        headers |= {"X-Linked-Etag": f'"{entry.lfs_sha256}"', "X-Linked-Size": str(entry.size)}
    if entry.xet_hash:
        route = f"/api/{repository.kind}s/{repository.id}/xet-read-token/{commit.id}"
        headers |= {"X-Xet-Hash": entry.xet_hash, "X-Xet-Refresh-Route": route}
    if entry.lfs_sha256 and storage is not None:
        location = storage.link(repository.kind, repository.id, commit.id, path)
        return Response(status_code=302, headers={**headers, "Accept-Ranges": "bytes", "Location": location})
    return FileResponse(file.path, entry.size, request, headers)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_LIMIT:
            raise Refused(413, f"A request may hold {_BODY_LIMIT} bytes at most")
    return bytes(body)


def _asked_paths(request: Request, body: bytes) -> tuple[list[str], bool]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        form = parse_qs(body.decode("utf-8", "replace"))
        return form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    try:
        sent = parse_object(body, "the request")
    except DamagedInput as error:
        raise Refused(400, str(error)) from error
    paths = sent.get("paths", [])
    if not isinstance(paths, list):
        raise Refused(400, "paths must be a list")
    return [str(path) for path in paths], sent.get("expand") is True


def _page(request: Request, items: Sequence[T], show: Callable[[T], Any] = lambda item: item) -> Response:
    """One page of a list, with the way to the next (RFC 8288)."""
    most = mirror_of(request).page_size
    asked, start = request.query_params.get("limit", ""), request.query_params.get("cursor", "0")
    if not _NUMBER.fullmatch(start) or (asked and not _NUMBER.fullmatch(asked)):
        raise Refused(400, "limit and cursor must be numbers")
    size = min(int(asked), most) if asked else most
    end = int(start) + size
    headers = {}
    if end < len(items) and size:
        kept = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        address = str(request.url.replace(path=request.scope["path"], query=urlencode([*kept, ("cursor", end)])))
        headers["Link"] = f'<{address}>; rel="next"'
    return JSONResponse([show(item) for item in items[int(start) : end]], headers=headers)


# The longer paths come first: `{repo}` may be one part or two, and takes what it can get.
_API = "/api/{plural:plural}/{repo:repo}"
ROUTES: tuple[BaseRoute, ...] = (
    Route("/api/whoami-v2", who),
    Route("/api/{plural:plural}", search),
    Route(_API + "/tree/{revision:revision}/{path:path}", tree),
    Route(_API + "/tree/{revision:revision}", tree),
    Route(_API + "/paths-info/{revision:revision}", paths_info, methods=["POST"]),
    Route(_API + "/commits/{revision:revision}", commits),
    Route(_API + "/revision/{revision:revision}", info),
    Route(_API + "/refs", list_refs),
    Route(_API + "/auth-check", auth_check),
    Route(_API, info),
    Route("/{prefix:prefix}/{repo:repo}/resolve/{revision:revision}/{path:path}", resolve),
    Route("/{repo:repo}/resolve/{revision:revision}/{path:path}", resolve),
)
