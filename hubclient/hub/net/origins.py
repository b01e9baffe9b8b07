"""Which host is which: origins of URLs, where a token may go, what redirects may lead to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any
from urllib.parse import urljoin, urlsplit

from hubclient.errors import NetworkFault
from hubclient.ground.names import shown

MAX_REDIRECTS = 10
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an http(s) URL; None if it is none, or holds a password."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port is None or not set(parts.netloc).isdisjoint("@ "):
        return None
    return parts.scheme, parts.hostname.rstrip("."), port


def same_origin(url: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port."""
    origin = origin_of(url)
    return origin is not None and origin == origin_of(other)


def host_of(url: str) -> str:
    """The host of a URL for a sentence, with its port if that is not the usual one."""
    origin = origin_of(url)
    if origin is None:
        return shown(url)
    scheme, host, port = origin
    return host if port == _PORTS[scheme] else f"{host}:{port}"


def joined(url: str, link: str) -> str:
    """Where a link on the page at `url` leads; nothing if it is none."""
    try:
        return urljoin(url, link)
    except ValueError:  # such as half an IPv6 address
        return ""


def next_url(url: str, location: str, seen: set[str]) -> str:
    """Where a redirect leads; `seen` holds the URLs so far. NetworkFault for loops, too many, and what nobody should follow."""
    target = joined(url, location).partition("#")[0]
    host, origin = host_of(url), origin_of(target)
    if origin is None or not target.isprintable():
        raise NetworkFault(f"{host} redirects to {shown(location)}, which is no place to go")
    if url.startswith("https:") and origin[0] != "https":
        raise NetworkFault(f"{host} redirects from https to http, to {host_of(target)}: that is not followed")
    if target in seen:
        raise NetworkFault(f"{host} redirects in a circle")
    if len(seen) > MAX_REDIRECTS:
        raise NetworkFault(f"{host} is the last of more than {MAX_REDIRECTS} redirects")
    seen.add(target)
    return target


_ENDPOINT: ContextVar[str | None] = ContextVar("hubclient_endpoint", default=None)
_HELD: dict[str, list[str]] = {}  # by what goes with a request as its Authorization: the endpoints it is for, once for each use
_HOLDING = Lock()


@contextmanager
def guarded(client: Any, endpoint: str, token: str | None) -> Iterator[None]:
    """While huggingface_hub's client is used for `endpoint`: no request of this thread takes a token elsewhere, or leaves https.

    It follows `Link: rel="next"` of a list to any host with all headers, redirects from https to http, and where it is told to
    confirm an upload. The threads that it uploads with know nothing of ours: their requests are known by the token.
    """
    hooks = client.event_hooks
    if _guard not in hooks["request"]:
        hooks["request"].append(_guard)
        client.event_hooks = hooks
    before = _ENDPOINT.set(endpoint)
    try:
        with _held(f"Bearer {token}", endpoint):
            yield
    finally:
        _ENDPOINT.reset(before)


@contextmanager
def _held(bearer: str, endpoint: str) -> Iterator[None]:
    with _HOLDING:
        _HELD.setdefault(bearer, []).append(endpoint)
    try:
        yield
    finally:
        with _HOLDING:
            _HELD[bearer].remove(endpoint)
            if not _HELD[bearer]:
                del _HELD[bearer]


def _guard(request: Any) -> None:
    own, url, bearer = _ENDPOINT.get(), str(request.url), request.headers.get("authorization")
    with _HOLDING:
        endpoints = [own] if own is not None else [*_HELD.get(bearer or "", ())]
    if not endpoints:
        return
    endpoint = endpoints[-1]
    if bearer is not None and not any(same_origin(url, allowed) for allowed in endpoints):
        raise NetworkFault(f"{host_of(endpoint)} sends us to {host_of(url)}, which the token is not for")
    if own is not None and own.startswith("https:") and not url.startswith("https:"):
        raise NetworkFault(f"{host_of(endpoint)} sends us from https to http, to {host_of(url)}: that is not followed")
