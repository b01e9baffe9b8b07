"""How repositories are named to whoever asks the Hub: as `Asked.parse` has it, or by the address of one of the Hub's pages.

    https://<the endpoint's host>/org/name[/tree|blob|resolve/revision[/file]]

Importing this loads nothing of the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hubclient.cache.asked import URI, Asked, checked_revision, revision_and_file
from hubclient.cache.layout import FOLDERS, RepoId
from hubclient.errors import UsageError
from hubclient.ground.names import shown

_URL = re.compile(r"https?://", re.IGNORECASE)
_ROUTES = frozenset(("tree", "blob", "resolve", "raw", "blame"))  # of the Hub's pages, that lead to a folder or file
_HOME = "huggingface.co"
_ALIASES = ("hf.co", f"www.{_HOME}")


def is_address(text: str) -> bool:
    """Whether it can mean a repository of the Hub alone, and no path."""
    return text.startswith(URI) or _URL.match(text) is not None


def _endpoint() -> str:
    from hubclient.hub.net.session import Session

    return Session.of().endpoint


def asked_of(source: str, endpoint: Callable[[], str] = _endpoint) -> Asked:
    """What a text names; `endpoint` tells of which Hub addresses may be (that of the environment). UsageError."""
    return _of_url(source, endpoint()) if _URL.match(source) else Asked.parse(source)


def _of_url(source: str, endpoint: str) -> Asked:
    from urllib.parse import unquote, urlsplit

    hub = urlsplit(endpoint)
    try:
        url = urlsplit(source)
    except ValueError as error:
        raise UsageError(f"{shown(source)} is no URL") from error
    base = hub.path.rstrip("/") + "/"
    ours = {hub.netloc.lower(), *(_ALIASES if hub.netloc.lower() == _HOME else ())}
    if url.netloc.lower() not in ours or not url.path.startswith(base):
        told = f"{shown(url.hostname or '')} is not the Hub in use, which is {endpoint}"  # the URL may hold a password
        raise UsageError(told, hint="HF_ENDPOINT names another; files from elsewhere have to be downloaded first")
    segments = url.path.removeprefix(base).strip("/").split("/")
    first = int(segments[0] in FOLDERS.values())
    at = next((index for index in (first + 1, first + 2) if index < len(segments) and segments[index] in _ROUTES), len(segments))
    if at == len(segments) and len(segments) > first + 2:
        raise UsageError(f"{shown(source)}: is a page of the Hub, but that of no repository, folder or file")
    revision, file = map(unquote, revision_and_file("/".join(segments[at + 1 :])))
    return Asked(RepoId.parse(unquote("/".join(segments[:at]))), checked_revision(revision) if revision else None, file or None)
