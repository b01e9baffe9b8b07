"""What faults are made of: ASGI's `send` with headers edited, bodies replaced, connections closed under it."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Edit = Callable[[Message], None]


class Dropped(Exception):
    """The connection was closed on purpose."""


def headers_of(message: Message) -> dict[str, str]:
    """A response's headers, by lower-case name."""
    return {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in message["headers"]}


def change_headers(message: Message, changes: Mapping[str, str | None]) -> None:
    """Set headers of a response, or (None) take them away."""
    kept = {**headers_of(message), **{key.lower(): value for key, value in changes.items()}}
    message["headers"] = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in kept.items() if value is not None]


def drop(send: Send, *, reset: bool) -> Dropped:
    """Close the connection, with a reset or (as if the response were over) without; what to raise then."""
    transport = transport_of(send)
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    return Dropped()


def transport_of(send: Send) -> Any:
    """uvicorn's transport under an ASGI `send`; `Logged` keeps it at hand."""
    return send.transport  # type: ignore[attr-defined]


class Body:
    """`send` for the bytes of a body: `edit` gets each piece with its position in the file, and gives what is sent instead."""

    def __init__(self, send: Send, edit: Callable[[bytes, int], Awaitable[bytes]], start: Edit | None = None) -> None:
        self.send, self.edit, self.start, self.place = send, edit, start, 0
        self.transport = transport_of(send)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            match = re.match(r"bytes (\d+)-", headers_of(message).get("content-range", ""))
            self.place = int(match[1]) if match else 0
            if self.start:
                self.start(message)
        else:
            piece = message.get("body", b"")
            message = {**message, "body": await self.edit(piece, self.place)}
            self.place += len(piece)
        await self.send(message)


async def send_all(send: Send, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
    """A whole response."""
    fields = {"content-length": str(len(body)), **headers}
    raw = [(key.lower().encode(), value.encode("latin-1")) for key, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def with_range(scope: Scope, value: bytes | None) -> Scope:
    """The request, asking for another range or (None) for the whole."""
    kept = [(key, text) for key, text in scope["headers"] if key != b"range"]
    return {**scope, "headers": kept + ([(b"range", value)] if value else [])}


def starting(send: Send, edit: Edit) -> Send:
    """`send`, with the start of the response edited."""

    async def same(piece: bytes, _place: int) -> bytes:
        return piece

    return Body(send, same, edit)


def sending(function: Send, send: Send) -> Send:
    """The function as a `send` in the place of another."""
    function.transport = transport_of(send)  # type: ignore[attr-defined]
    return function


async def collected(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> tuple[Message, bytes]:
    """The whole response of the application."""
    messages: list[Message] = []

    async def collect(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, sending(collect, send))
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])
