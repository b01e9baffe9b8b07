"""The routes of a hub that is written to: repositories made, files uploaded, commits and pull requests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from typing import Any
from urllib.parse import unquote

from hubstore import HubRepo, HubStore, is_large
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hubclient.cache.mirror.asked import commit_of, repository_of, truthy, user_of
from hubclient.cache.mirror.refusals import Refused, bad_token, no_entry, no_repository, no_revision
from hubclient.cache.mirror.repositories import BRANCHES, PULLS, User

UPLOAD = "/lfs/upload/"
_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.gguf filter=lfs diff=lfs merge=lfs -text\n"
_PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def store_of(request: Request) -> HubStore:
    """The repositories."""
    store: HubStore = request.app.state.mirror.repositories
    return store


def writer_of(request: Request, name: str) -> User:
    """Who asks, if they may write to repositories of this name's namespace."""
    user = user_of(request)
    if user is None:
        raise bad_token()
    if user.role != "write" or not user.owns(name):
        raise Refused(
            403, f"You don't have the rights to write to {name.split('/')[0]}: a write token of the namespace is needed"
        )
    return user


def repo_of(request: Request) -> HubRepo:
    """The repository, to write to."""
    shown = repository_of(request)
    return store_of(request).repos[shown.kind, shown.id]


async def create(request: Request) -> Response:
    """A new repository, with the commit that the Hub begins one with."""
    sent = await request.json()
    user = user_of(request)
    if user is None:
        raise bad_token()
    name = f"{sent.get('organization') or user.name}/{sent['name']}"
    writer_of(request, name)
    kind, store = sent.get("type") or "model", store_of(request)
    url = f"{str(request.base_url).rstrip('/')}/{_PREFIXES[kind]}{name}"
    if (kind, name) in store.repos:
        return JSONResponse({"error": f"You already created this {kind} repo", "url": url}, 409)
    private = sent.get("visibility") == "private" or bool(sent.get("private"))
    store.repo(name, private=private, type=kind).commit({".gitattributes": _ATTRIBUTES}, title="initial commit")
    return JSONResponse({"url": url, "name": name, "id": name, "private": private})


async def delete(request: Request) -> Response:
    """A repository taken away."""
    sent = await request.json()
    name, kind = f"{sent.get('organization') or ''}/{sent['name']}".lstrip("/"), sent.get("type") or "model"
    user = writer_of(request, name)
    if store_of(request).repos.pop((kind, name), None) is None:
        raise no_repository(user)
    return Response()


async def preupload(request: Request) -> Response:
    """How each file is to be sent."""
    commit = commit_of(request, repository_of(request))

    def told(file: dict[str, Any]) -> dict[str, Any]:
        there = commit.files.get(file["path"])
        mode = "lfs" if is_large(file["path"], file["size"]) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": there.entry.etag if there else None}

    return JSONResponse({"files": [told(file) for file in (await request.json())["files"]], "commitOid": commit.id})


async def batch(request: Request) -> Response:
    """Where large files are to be put (git-lfs, docs/api/batch.md)."""
    repository_of(request)
    store, hub = store_of(request), str(request.base_url).rstrip("/")
    storage = request.app.state.mirror.storage

    def told(wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in store.bytes.known:
            return wanted
        sent = f"{UPLOAD}{wanted['oid']}/{wanted['size']}"
        target = f"{storage.origin}{sent}?signature={storage.sign(sent)}" if storage else f"{hub}{sent}"
        actions = {"upload": {"href": target, "header": {}}, "verify": {"href": f"{hub}/lfs/verify", "header": {}}}
        return {**wanted, "authenticated": True, "actions": actions}

    return JSONResponse({"transfer": "basic", "objects": [told(item) for item in (await request.json())["objects"]]})


def upload_route(store: HubStore) -> Route:
    """Where large files are put, at whichever origin."""

    async def upload(request: Request) -> Response:
        oid, size = request.path_params["oid"], int(request.path_params["size"])
        temporary = store.bytes.folder / f"upload-{secrets.token_hex(8)}"
        hasher, count = hashlib.sha256(), 0
        with open(temporary, "wb") as file:
            async for piece in request.stream():
                hasher.update(piece)
                count += file.write(piece)
        if hasher.hexdigest() != oid or count != size:
            temporary.unlink()
            raise Refused(400, "The bytes are not those that were announced")
        os.replace(temporary, store.bytes.folder / oid)
        store.bytes.known[oid] = store.bytes.folder / oid
        return Response(headers={"ETag": f'"{oid}"'})

    return Route(UPLOAD + "{oid}/{size}", upload, methods=["PUT"])


async def verify(request: Request) -> Response:
    """Whether a large file has come."""
    sent = await request.json()
    path = store_of(request).bytes.known.get(sent["oid"])
    if path is None or path.stat().st_size != sent["size"]:
        raise Refused(404, "The object is not here")
    return Response()


async def commit(request: Request) -> Response:
    """A commit on a branch, or (`create_pr`) on a new pull request."""
    repo, base = repo_of(request), commit_of(request, repository_of(request))
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    header = lines[0]["value"]
    user = user_of(request) if truthy(request, "create_pr") else writer_of(request, repo.id)
    if user is None:
        raise bad_token()
    if header.get("parentCommit") not in (None, base.id):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    ref = _target(request, repo)
    files: dict[str, Any] = {}
    for line in lines[1:]:
        files.update(_operation(repo, line["key"], line["value"], base.files, base.id))
    pull = repo.open_pull(ref) if truthy(request, "create_pr") else None
    oid = repo.commit(files, pull or ref, title=header["summary"], message=header.get("description", ""), author=user.name)
    url = f"{str(request.base_url).rstrip('/')}/{_PREFIXES[repo.kind]}{repo.id}"
    told = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""}
    return JSONResponse(told | ({"pullRequestUrl": f"{url}/discussions/{pull.removeprefix(PULLS)}"} if pull else {}))


async def branch(request: Request) -> Response:
    """A new branch."""
    repo, name = repo_of(request), _part(request, "name")
    writer_of(request, repo.id)
    start = (await request.json()).get("startingPoint", "main") if await request.body() else "main"
    _name(repo, BRANCHES + name, start)
    return Response()


async def tag(request: Request) -> Response:
    """A new tag."""
    repo = repo_of(request)
    writer_of(request, repo.id)
    _name(repo, f"refs/tags/{(await request.json())['tag']}", commit_of(request, repository_of(request)).id)
    return Response()


async def validate_yaml(_request: Request) -> Response:
    """The Hub looks at the head of a README here; this one finds every head good."""
    return JSONResponse({"errors": [], "warnings": []})


def _operation(repo: HubRepo, key: str, value: dict[str, Any], there: Any, head: str) -> dict[str, Any]:
    path = value["path"]
    if key == "file":
        return {path: repo.store.store(base64.b64decode(value["content"]), path, lambda _name, _size: False)}
    if key == "lfsFile":
        if value["oid"] not in repo.store.known:
            raise Refused(400, f"The object {value['oid']} of {path} was never uploaded")
        return {path: repo.store.large(value["oid"], repo.store.known[value["oid"]].stat().st_size)}
    names = [name for name in there if name == path or (key == "deletedFolder" and name.startswith(path.rstrip("/") + "/"))]
    if not names:
        raise no_entry(head, path)
    return dict.fromkeys(names)


def _target(request: Request, repo: HubRepo) -> str:
    name = _part(request, "revision")
    ref = name if name.startswith("refs/") else BRANCHES + name
    if ref not in repo.refs:
        raise no_revision(name)
    return ref


def _name(repo: HubRepo, ref: str, start: str) -> None:
    found = repo.shown().commit(start)
    if ref in repo.refs:
        raise Refused(409, f"Reference {ref} exists already")
    if found is None:
        raise no_revision(start)
    repo.refs[ref] = found.id


def _part(request: Request, name: str) -> str:
    return unquote(request.path_params[name])


_API = "/api/{plural:plural}/{repo:repo}"


def push_routes(store: HubStore) -> list[BaseRoute]:
    """The routes, for `mirror_app`."""
    posts = [
        ("/api/repos/create", create),
        ("/api/validate-yaml", validate_yaml),
        (_API + "/preupload/{revision:revision}", preupload),
        (_API + "/commit/{revision:revision}", commit),
        (_API + "/branch/{name}", branch),
        (_API + "/tag/{revision:revision}", tag),
        ("/{prefix:prefix}/{repo:repo}.git/info/lfs/objects/batch", batch),
        ("/{repo:repo}.git/info/lfs/objects/batch", batch),
        ("/lfs/verify", verify),
    ]
    routes: list[BaseRoute] = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts]
    return [*routes, Route("/api/repos/delete", delete, methods=["DELETE"]), upload_route(store)]
