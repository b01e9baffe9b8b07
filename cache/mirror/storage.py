"""Where large files are fetched from: an origin of its own, which serves whoever shows a link that the mirror signed.

The Hub hands such files out by a content delivery network; the token must stay behind, since the signature is enough.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hubclient.cache.mirror.refusals import Refused, answer_refused
from hubclient.cache.mirror.repositories import Repositories, StoredFile
from hubclient.cache.mirror.transfer import FileResponse

PATH = "/storage/"


@dataclass(frozen=True, slots=True)
class Storage:
    """`origin` is scheme, host and port, as clients are to see them; `secret` signs links."""

    origin: str
    secret: bytes = field(default_factory=lambda: token_bytes(32), repr=False)

    def link(self, kind: str, name: str, commit: str, path: str) -> str:
        """Where a file of a commit can be fetched without a token."""
        sent = PATH + "/".join(quote(part, safe="") for part in (kind, name, commit, path))
        return f"{self.origin}{sent}?signature={self.sign(sent)}"

    def sign(self, sent: str) -> str:
        """The signature of a path as it is sent."""
        return hmac.new(self.secret, sent.encode(), hashlib.sha256).hexdigest()


def storage_app(repositories: Repositories, storage: Storage, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application that answers at `storage.origin`; `more` routes are asked first."""

    async def fetch(request: Request) -> Response:
        _check(request, storage)
        file = _find(repositories, request.scope["raw_path"].decode().removeprefix(PATH))
        return FileResponse(file.path, file.entry.size, request, {"ETag": f'"{file.entry.etag}"'})

    return Starlette(routes=[*more, Route(PATH + "{rest:path}", fetch)], exception_handlers={Refused: answer_refused})


def _check(request: Request, storage: Storage) -> None:
    shown = request.query_params.get("signature", "")
    if not hmac.compare_digest(shown.encode(), storage.sign(request.scope["raw_path"].decode()).encode()):
        raise Refused(403, "The signature does not fit the link")


def _find(repositories: Repositories, sent: str) -> StoredFile:
    kind, name, commit, path = (unquote(part) for part in sent.split("/"))
    repository = repositories.find(kind, name)
    found = repository.commits.get(commit) if repository else None
    if found is None or path not in found.files:
        raise Refused(404, "The file is no longer here")
    return found.files[path]
