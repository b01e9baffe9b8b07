"""What a search finds, and which fields of it are told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request

from hubclient.cache.mirror.asked import mirror_of, truthy
from hubclient.cache.mirror.payloads import labels, repository_info
from hubclient.cache.mirror.repositories import Repository, User

_ORDERS = {"downloads", "likes", "lastModified", "createdAt"}


def found(request: Request, repositories: Iterable[Repository], user: User | None) -> list[dict[str, Any]]:
    """The repositories that the request's `search`, `author` and `filter` leave, in the order of `sort`."""
    see = mirror_of(request).repositories.may_see
    told = [
        repository_info(repository, repository.head)
        for repository in repositories
        if see(repository, user) and _fits(request, repository)
    ]
    order = request.query_params.get("sort", "")
    if order in _ORDERS:
        told.sort(key=lambda item: item.get(order, ""), reverse=request.query_params.get("direction", "-1") == "-1")
    wanted = [only(request, item) for item in told]
    if truthy(request, "full") or wanted != told:
        return wanted
    return [{key: value for key, value in item.items() if key not in ("siblings", "usedStorage")} for item in told]


def only(request: Request, told: dict[str, Any]) -> dict[str, Any]:
    """The fields that `expand` names, all of them if it names none."""
    wanted = {*request.query_params.getlist("expand"), *request.query_params.getlist("expand[]")}
    return {key: value for key, value in told.items() if key in {"_id", "id", "modelId"} | wanted} if wanted else told


def _fits(request: Request, repository: Repository) -> bool:
    asked = request.query_params
    words = asked.get("search", "").lower().split()
    wanted = {part for value in asked.getlist("filter") for part in value.split(",") if part}
    return (
        all(word in repository.id.lower() for word in words)
        and asked.get("author", repository.author) == repository.author
        and wanted <= set(labels(repository, repository.head))
    )
