"""The switchboard of faults: what goes wrong between a correct hub and its client, by rules that tests set.

A `Fault` says which requests (`path` glob, `method`, `origin`, the first `times`, only the `nth`, `probability`) and what
happens to them (`action`, one small function each, in ACTIONS). An action wraps the application: it may change the request, answer
itself, or change what the application sends.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import json
import random
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from hubwire import Body, change_headers, collected, drop, headers_of, send_all, sending, starting, with_range
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Names that a client must never write to. All of them can be committed to a HubRepo, and are then served like any other.
HOSTILE_NAMES = (
    "../escaped",
    "a/../../escaped",
    "/absolute",
    "C:\\drive",
    "C:drive",
    "\\\\host\\share\\file",
    "..\\escaped",
    "nul\0byte",
    "aux.json",
    "a" * 5000,
    "a/./b",
    "a//b",
    "trailing.",
    "line\nbreak",
    ".",
    "..",
)


@dataclass
class Fault:
    """A rule. `after` counts in the file for `flip` and `change`, whatever range is asked for; else in what is sent."""

    action: str
    path: str = "*"  # a part of the path as it is sent, or a pattern of all of it, with its query or without
    method: str | None = None
    origin: str | None = None  # "hub" or "cdn"
    times: int | None = None  # only the first of the requests that match
    nth: int | None = None  # only this one of them, from 1
    probability: float = 1.0
    after: int | None = None  # bytes that are right
    by: int = 0  # how much too much (or too little)
    seconds: float = 0.0
    status: int = 500
    headers: Mapping[str, str | None] = field(default_factory=dict)  # None takes one away
    location: str | None = None
    value: str = ""
    content: bytes | None = None  # in JSON: base64
    entries: Sequence[Mapping[str, Any]] = ()
    replace: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seen: int = 0  # requests that matched
    struck: int = 0  # requests that it was applied to

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"{self.action!r} is no action; there are {', '.join(ACTIONS)}")
        if isinstance(self.content, str):
            self.content = base64.b64decode(self.content)

    def strikes(self, method: str, path: str, origin: str, chance: random.Random) -> bool:
        """Whether this request is one of those; counts it."""
        fits = self.path in path or any(fnmatch.fnmatchcase(sent, self.path) for sent in (path, path.partition("?")[0]))
        if self.method not in (None, method) or self.origin not in (None, origin) or not fits:
            return False
        self.seen += 1
        if self.nth not in (None, self.seen) or (self.times is not None and self.struck >= self.times):
            return False
        hit = chance.random() < self.probability
        self.struck += hit
        return hit


Action = Callable[[Fault, ASGIApp, Scope, Receive, Send], Awaitable[None]]


async def strike(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request under a fault."""
    await ACTIONS[fault.action](fault, app, scope, receive, send)


# The actions


async def truncate(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The connection closes (with `value="reset"`: is reset) after the first `after` bytes that are sent; None: before any header."""
    if fault.after is None:
        raise drop(send, reset=fault.value == "reset")
    left = fault.after

    async def cut(piece: bytes, _place: int) -> bytes:
        nonlocal left
        assert left is not None
        if len(piece) < left:
            left -= len(piece)
            return piece
        await send({"type": "http.response.body", "body": piece[:left], "more_body": True})
        raise drop(send, reset=fault.value == "reset")

    await app(scope, receive, Body(send, cut) if scope["method"] != "HEAD" else send)


async def length(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Content-Length (and X-Linked-Size) are wrong by `by`; as many bytes are sent as were promised, or as there are."""
    promised: int | None = None

    async def lie(message: Message) -> None:
        nonlocal promised
        if message["type"] == "http.response.start":
            told = headers_of(message)
            names = [name for name in ("content-length", "x-linked-size") if name in told]
            change_headers(message, {name: str(max(0, int(told[name]) + fault.by)) for name in names})
            promised = int(headers_of(message).get("content-length", 0))
        elif scope["method"] != "HEAD":
            if promised is None:
                return  # all that was promised has gone
            piece = message.get("body", b"")[:promised]
            promised -= len(piece)
            message, over = {**message, "body": piece, "more_body": promised > 0}, not message.get("more_body")
            if over and promised:
                await send(message)
                raise drop(send, reset=False)
            promised = promised or None
        await send(message)

    await app(scope, receive, sending(lie, send))


async def flip(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The byte at `after` has one bit wrong."""
    at = fault.after or 0

    async def turn(piece: bytes, place: int) -> bytes:
        if not place <= at < place + len(piece):
            return piece
        return piece[: at - place] + bytes([piece[at - place] ^ 1]) + piece[at - place + 1 :]

    await app(scope, receive, Body(send, turn))


async def change(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """From `after` on the file is another one: `content` (as long as it lasts), else every bit turned."""
    after, turned = fault.after or 0, bytes(255 - number for number in range(256))

    async def other(piece: bytes, place: int) -> bytes:
        right = max(0, min(len(piece), after - place))
        wrong = piece[right:].translate(turned)
        if fault.content is not None:
            given = fault.content[place + right : place + len(piece)]
            wrong = given + wrong[len(given) :]
        return piece[:right] + wrong

    await app(scope, receive, Body(send, other))


async def headers(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Response headers are replaced by `headers`."""
    await app(scope, receive, starting(send, lambda message: change_headers(message, fault.headers)))


async def etag(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """ETag and X-Linked-Etag, where they are, say `value`."""

    def lie(message: Message) -> None:
        told = headers_of(message)
        change_headers(message, {name: f'"{fault.value}"' for name in ("etag", "x-linked-etag") if name in told})

    await app(scope, receive, starting(send, lie))


async def stall(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing comes for `seconds`: before the headers, or (with `after`) after that many bytes of the body."""
    if fault.after is None:
        await asyncio.sleep(fault.seconds)
        await app(scope, receive, send)
        return
    left: int | None = fault.after

    async def wait(piece: bytes, _place: int) -> bytes:
        nonlocal left
        if left is None or len(piece) < left:
            left = left and left - len(piece)
            return piece
        if left:
            await send({"type": "http.response.body", "body": piece[:left], "more_body": True})
        rest, left = piece[left:], None
        await asyncio.sleep(fault.seconds)
        return rest

    await app(scope, receive, Body(send, wait))


async def redirect(fault: Fault, _app: ASGIApp, scope: Scope, _receive: Receive, send: Send) -> None:
    """To `location`, else (a loop) to where the request went."""
    query = scope["query_string"].decode()
    here = scope["raw_path"].decode() + (f"?{query}" if query else "")
    await send_all(send, fault.status if 300 <= fault.status < 400 else 302, {"Location": fault.location or here})


async def status(fault: Fault, _app: ASGIApp, _scope: Scope, _receive: Receive, send: Send) -> None:
    """An answer of `status`, with `headers` (Retry-After, X-Error-Code, ...), and `value` as its message."""
    message = fault.value or HTTPStatus(fault.status).phrase
    told = {key: value for key, value in fault.headers.items() if value is not None}
    body = json.dumps({"error": message}).encode()
    await send_all(send, fault.status, {"Content-Type": "application/json", "X-Error-Message": message, **told}, body)


async def ignore_range(_fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The whole file comes, whatever range is asked for."""
    await app(with_range(scope, None), receive, send)


async def other_range(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """A range that begins `by` bytes later (or earlier) than the one asked for; `value="hidden"`: Content-Range denies it."""
    asked = dict(scope["headers"]).get(b"range", b"").decode()
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
    if match is None:
        await app(scope, receive, send)
        return
    end = str(int(match[2]) + fault.by) if match[2] else ""
    asked_for = (int(match[1]), match[2])

    def hide(message: Message) -> None:
        told = headers_of(message)
        if fault.value == "hidden" and "content-range" in told:
            size = told["content-range"].rpartition("/")[2]
            last = int(asked_for[0]) + int(told["content-length"]) - 1
            change_headers(message, {"Content-Range": f"bytes {asked_for[0]}-{last}/{size}"})

    shifted = with_range(scope, f"bytes={max(0, asked_for[0] + fault.by)}-{end}".encode())
    await app(shifted, receive, starting(send, hide))


async def multipart(_fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """A range comes as multipart/byteranges, which nobody asked for."""
    start, body = await collected(app, scope, receive, send)
    told = headers_of(start)
    part = (
        f"\r\n--edge\r\nContent-Range: {told.get('content-range', 'bytes 0-0/1')}\r\n\r\n".encode() + body + b"\r\n--edge--\r\n"
    )
    kept = {key: value for key, value in told.items() if key not in ("content-range", "content-length", "content-type")}
    await send_all(send, 206, {**kept, "Content-Type": "multipart/byteranges; boundary=edge"}, part)


async def gzip(_fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The body comes compressed, whatever Accept-Encoding says."""
    packer = zlib.compressobj(wbits=31)

    async def pack(piece: bytes, _place: int) -> bytes:
        return packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)

    def announce(message: Message) -> None:
        change_headers(message, {"Content-Encoding": "gzip", "Content-Length": None})

    inner = Body(send, pack, announce)

    async def finished(message: Message) -> None:
        over = message["type"] == "http.response.body" and not message.get("more_body")
        await inner({**message, "more_body": True} if over else message)
        if over:
            await send({"type": "http.response.body", "body": packer.flush()})

    await app(scope, receive, sending(finished, send))


async def listing(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """A list in JSON (a tree, or the siblings of an info) has `entries` more; fields of some (by path) are as `replace` says.

    `value="endless"`: there is always a next page.
    """
    start, body = await collected(app, scope, receive, send)
    told = json.loads(body)
    items = told["siblings"] if isinstance(told, dict) and "siblings" in told else told
    if isinstance(items, list):
        for item in items:
            item.update(fault.replace.get(item.get("path", item.get("rfilename")), {}))
        items.extend(_like(items is told, entry) for entry in fault.entries)
    fields = {key: value for key, value in headers_of(start).items() if key != "content-length"}
    if fault.value == "endless" and isinstance(told, list):
        host = dict(scope["headers"])[b"host"].decode()
        fields["link"] = f'<http://{host}{scope["raw_path"].decode()}?cursor=0&recursive=true&turn={fault.struck}>; rel="next"'
    await send_all(send, start["status"], fields, json.dumps(told).encode())


ACTIONS: dict[str, Action] = {
    function.__name__: function
    for function in (
        truncate,
        length,
        flip,
        change,
        headers,
        etag,
        stall,
        redirect,
        status,
        ignore_range,
        other_range,
        multipart,
        gzip,
        listing,
    )
}


def _like(tree: bool, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what it lacks filled in, as a tree or as siblings list it."""
    if not tree:
        return {"rfilename": entry["path"]}
    return {"type": "file", "oid": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "size": 0, **entry}
