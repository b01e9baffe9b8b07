"""A hub on this machine for tests: the mirror's routes, those that write, a second origin for large files, faults, a log.

    with HubServer() as hub:                                    # a thread; hub.endpoint, hub.cdn
        repo = hub.repo("org/name")
        commit = repo.commit({"config.json": b"{}", "model.safetensors": path})
        hub.fault(action="truncate", path="*/resolve/*", after=1000, times=1)
        ...
        assert not [request for request in hub.requests if request.origin == "cdn" and "authorization" in request.headers]

`HubProcess` is the same hub as a process of its own (`python tests/hubserver.py --port-file F --root DIR`), told what to do over
its routes under `/-/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as Call

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for a process of its own, which no conftest prepares

import uvicorn
from hubfaults import Fault, strike
from hubpush import push_routes, upload_route
from hubstore import Content, HubRepo, HubStore
from hubwire import Dropped
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubclient.cache.layout import FOLDERS
from hubclient.cache.mirror.app import mirror_app
from hubclient.cache.mirror.asked import Mirror
from hubclient.cache.mirror.storage import Storage, storage_app


@dataclass
class Request:
    """A request as it came, and what became of it. `path` is as it was sent, with its query; names of headers are lower-case."""

    method: str
    path: str
    origin: str
    headers: dict[str, str]
    status: int | None = None
    sent_bytes: int = 0
    fault: str | None = None


class HubServer:
    """The hub in a thread of this process. `cdn=False`: large files come from the hub itself. `root`: where bytes are kept.

    `page_size`: entries to an answer; `xet`: files have xet hashes; `seed`: of faults by chance.
    """

    def __init__(
        self, *, cdn: bool = True, root: Path | None = None, page_size: int = 1000, xet: bool = False, seed: int = 0
    ) -> None:
        self._temporary = None if root else tempfile.mkdtemp(prefix="hub-")
        self.store = HubStore(root or Path(str(self._temporary)), xet=xet)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.crashes: list[Exception] = []
        self._chance = random.Random(seed)
        self._sockets = [_listening() for _ in range(1 + cdn)]
        self.endpoint, self.cdn = [*(_address(socket) for socket in self._sockets), None][:2]
        assert self.endpoint
        storage = Storage(self.cdn) if self.cdn else None
        mirror = Mirror(self.store, page_size, storage)
        apps: list[tuple[str, ASGIApp]] = [("hub", mirror_app(mirror, [*push_routes(self.store), *self._controls()]))]
        if storage:
            apps.append(("cdn", storage_app(self.store, storage, [upload_route(self.store)])))
        self._servers = [_server(_Watched(app, origin, self)) for origin, app in apps]
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not all(server.started for server in self._servers):
            if not self._thread.is_alive():
                raise RuntimeError("the hub did not start")
            time.sleep(0.002)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = server.force_exit = True
        self._thread.join()
        if self._temporary:
            shutil.rmtree(self._temporary)
        if self.crashes:
            raise ExceptionGroup("the hub itself failed", self.crashes)

    def repo(self, name: str, *, type: str = "model", **fields: Any) -> HubRepo:  # noqa: A002
        """The repository of this name, made if it is new, with `fields` of HubRepo set (private, gated, labels, downloads, details)."""
        return self.store.repo(name, type=type, **fields)

    def rename(self, old: str, new: str, type: str = "model") -> HubRepo:  # noqa: A002
        """Another name for a repository; the old one redirects to it."""
        return self.store.rename(old, new, type)

    def token(self, user: str, role: str = "read", organisations: Iterable[str] = ()) -> str:
        """A new token of a user's."""
        return self.store.token(user, role, organisations)

    def fault(self, action: str, **rule: Any) -> Fault:
        """From now on something goes wrong; see hubfaults.Fault.

        The first rule that strikes a request is applied to it; later ones neither see nor count it.
        """
        self.faults.append(Fault(action, **rule))
        return self.faults[-1]

    def clear(self) -> None:
        """No faults, an empty log."""
        self.faults.clear()
        self.requests.clear()

    def asked(self, part: str = "", method: str | None = None, origin: str | None = None) -> list[Request]:
        """Requests so far with this in their path."""
        return [r for r in self.requests if part in r.path and method in (None, r.method) and origin in (None, r.origin)]

    def struck(self, method: str, path: str, origin: str) -> Fault | None:
        """The fault that befalls this request."""
        return next((fault for fault in [*self.faults] if fault.strikes(method, path, origin, self._chance)), None)

    def _run(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(server.serve([own]) for server, own in zip(self._servers, self._sockets, strict=True)))

        asyncio.run(both())

    def _controls(self) -> list[BaseRoute]:
        """The switchboard for those in another process: what the methods above do, in JSON."""

        async def faults(request: Asked) -> Response:
            if request.method == "DELETE":
                self.clear()
            else:
                sent = await request.json()
                for rule in sent if isinstance(sent, list) else [sent]:
                    self.fault(**rule)
            return JSONResponse([])

        async def requests(_request: Asked) -> Response:
            return JSONResponse([asdict(request) for request in self.requests])

        async def tokens(request: Asked) -> Response:
            return JSONResponse(self.token(**await request.json()))

        async def commits(request: Asked) -> Response:
            sent = await request.json()
            repo = self.repo(sent["name"], **sent.get("repo", {}))
            return JSONResponse(
                repo.commit({name: _unpacked(value) for name, value in sent["files"].items()}, **sent.get("commit", {}))
            )

        return [
            Route("/-/faults", faults, methods=["POST", "DELETE"]),
            Route("/-/requests", requests),
            Route("/-/tokens", tokens, methods=["POST"]),
            Route("/-/commits", commits, methods=["POST"]),
        ]


class HubProcess:
    """A hub in a process of its own, with the repositories that lie in `root` (`models/org/name/...`: one commit each)."""

    def __init__(self, root: Path, *, cdn: bool = True) -> None:
        self._ports = Path(tempfile.mkdtemp(prefix="hub-")) / "ports"
        command = [sys.executable, __file__, "--port-file", str(self._ports), "--root", str(root)]
        self._process = subprocess.Popen([*command, *([] if cdn else ["--no-cdn"])])
        self.endpoint, self.cdn = "", None

    def __enter__(self) -> Self:
        while not self._ports.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"the hub ended with status {self._process.returncode}")
            time.sleep(0.01)
        self.endpoint, self.cdn = json.loads(self._ports.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._ports.parent)

    def commit(self, name: str, files: Mapping[str, Content | None], repo: Mapping[str, Any] = {}, **commit: Any) -> str:
        """HubRepo.commit; `repo` holds arguments of HubServer.repo."""
        packed = {key: _packed(value) for key, value in files.items()}
        return str(self._call("POST", "/-/commits", {"name": name, "files": packed, "repo": dict(repo), "commit": commit}))

    def fault(self, action: str, **rule: Any) -> None:
        """HubServer.fault."""
        if isinstance(rule.get("content"), bytes):
            rule["content"] = b64encode(rule["content"]).decode()
        self._call("POST", "/-/faults", {"action": action, **rule})

    def token(self, user: str, role: str = "read", organisations: Iterable[str] = ()) -> str:
        """HubServer.token."""
        return str(self._call("POST", "/-/tokens", {"user": user, "role": role, "organisations": list(organisations)}))

    def clear(self) -> None:
        """HubServer.clear."""
        self._call("DELETE", "/-/faults")

    @property
    def requests(self) -> list[Request]:
        """HubServer.requests."""
        return [Request(**told) for told in self._call("GET", "/-/requests")]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with build_opener(ProxyHandler({})).open(Call(self.endpoint + path, data, method=method)) as answer:
            return json.load(answer)


class _Watched:
    """Logs each request and lets a fault befall it."""

    def __init__(self, app: ASGIApp, origin: str, hub: HubServer) -> None:
        self.app, self.origin, self.hub = app, origin, hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode()
        path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        if path.startswith("/-/"):
            return await self.app(scope, receive, send)  # about the hub, not of it
        told = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        request = Request(scope["method"], path, self.origin, told)
        self.hub.requests.append(request)
        fault = self.hub.struck(request.method, path, self.origin)
        out = _Counted(send, request)
        try:
            if fault is None:
                await self.app(scope, receive, out)
            else:
                request.fault = fault.action
                await strike(fault, self.app, scope, receive, out)
        except (Dropped, ClientDisconnect):
            pass  # on purpose, of ours or the client's
        except Exception as error:
            self.hub.crashes.append(error)
            raise


class _Counted:
    """`send`, counted; with uvicorn's transport at hand, which ASGI hides, for faults of the connection."""

    def __init__(self, send: Send, request: Request) -> None:
        self.send, self.request = send, request
        self.transport = send.__self__.transport  # type: ignore[attr-defined]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.request.status = message["status"]
        elif self.request.method != "HEAD":
            self.request.sent_bytes += len(message.get("body", b""))
        await self.send(message)


def _listening() -> socket.socket:
    own = socket.socket(proto=socket.IPPROTO_TCP)  # named, or asyncio does not set TCP_NODELAY: 40 ms for each small answer
    own.bind(("127.0.0.1", 0))
    own.listen(512)
    return own


def _address(own: socket.socket) -> str:
    return f"http://127.0.0.1:{own.getsockname()[1]}"


def _server(app: Any) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off", access_log=False, http="h11", ws="none")
    )


def _packed(content: Content | None) -> Any:
    if isinstance(content, Path):
        return {"path": str(content)}
    return (
        content if content is None else {"base64": b64encode(content.encode() if isinstance(content, str) else content).decode()}
    )


def _unpacked(told: dict[str, str] | None) -> Content | None:
    if told is None:
        return None
    return Path(told["path"]) if "path" in told else b64decode(told["base64"])


def load(hub: HubServer, root: Path) -> None:
    """One commit for each folder `root/<models, datasets, spaces>/<org>/<name>`; its files are served where they lie."""
    for kind, plural in FOLDERS.items():
        for folder in sorted(root.glob(f"{plural}/*/*")):
            files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
            hub.repo(f"{folder.parent.name}/{folder.name}", type=kind).commit(files)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--port-file", type=Path, required=True, help="where the two addresses are written, in JSON, once both answer"
    )
    parser.add_argument("--root", type=Path, required=True, help="repositories: models/org/name/...")
    parser.add_argument("--no-cdn", dest="cdn", action="store_false", help="large files come from the hub itself")
    arguments = parser.parse_args()
    with HubServer(cdn=arguments.cdn) as hub:
        load(hub, arguments.root)
        temporary: Path = arguments.port_file.with_suffix(".tmp")
        temporary.write_text(json.dumps([hub.endpoint, hub.cdn]))
        temporary.replace(arguments.port_file)
        hub._thread.join()


if __name__ == "__main__":
    main()
