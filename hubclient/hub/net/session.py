"""A connection to one Hub: endpoint, token, and huggingface_hub's HTTP client, with redirects followed by hand.

The environment is honoured as huggingface_hub does: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_OFFLINE,
HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT, HTTP(S)_PROXY, NO_PROXY, SSL_CERT_FILE. Offline
nothing of huggingface_hub is imported and no socket opens.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from hubclient.cache.layout import RepoId
from hubclient.errors import AccessDenied, DamagedInput, EnvironmentFault, HubclientError, NetworkFault, Offline, UsageError
from hubclient.ground.environment import switched_on
from hubclient.ground.names import shown
from hubclient.ground.strictjson import parse_json
from hubclient.hub.net.failures import About, Contradiction, Passing, failure, refused
from hubclient.hub.net.origins import host_of, joined, next_url, origin_of, same_origin
from hubclient.hub.net.patience import Patience, patiently
from hubclient.hub.net.unpacking import CODINGS, coding_of, unpacked

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

_DEFAULT = "https://huggingface.co"
_LIMIT = 32 << 20  # bytes of JSON, unpacked; a page of a list holds a thousand files
_MOST_VALUES = 1_000_000  # in it; a model that tells of 500,000 files
_DRAINED = 64 << 10  # bytes
_DOWNLOAD, _ETAG = "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"
_MAX_PAGES = 4096
_THEIRS = ("httpx2", "httpcore2", "huggingface_hub")
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Token:
    """A token's text, if there is one, and in words where it is from. The text is never shown."""

    text: str | None = field(repr=False)
    source: str
    variable: str | None = None  # of the environment, if it is from there


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body has not been read. `told` are the headers of the endpoint itself, whatever host sends the bytes;
    `took` the seconds from the last request to its headers.
    """

    response: httpx2.Response
    url: str
    told: Mapping[str, str]
    took: float

    @property
    def status(self) -> int:
        """The last response's status: 200 or 206."""
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The last response's headers."""
        return self.response.headers


class Session:
    """See `of`. Safe to use from several threads."""

    def __init__(self, endpoint: str, token: str | bool | None, offline: bool, patience: Patience) -> None:
        self.endpoint = endpoint
        self.offline = offline
        self.patience = patience
        self._asked_token = token

    @classmethod
    def of(
        cls,
        endpoint: str | None = None,
        token: str | bool | None = None,
        offline: bool | None = None,
        *,
        patience: Patience | None = None,
    ) -> Session:
        """A session as the environment says, but for what is given. `token`: False uses none.

        Nothing is asked, read or connected before it is needed. UsageError for an endpoint that is no URL.
        """
        chosen = (endpoint or os.environ.get("HF_ENDPOINT") or _default_endpoint()).strip().rstrip("/")
        if origin_of(chosen) is None or not chosen.isprintable() or "?" in chosen or "#" in chosen:
            told = "the endpoint" if endpoint else "HF_ENDPOINT"
            raise UsageError(f"{told} is not a URL of the kind https://host, with no name or password in it")
        return cls(chosen, token, bool(offline) or offline_by_environment(), patience or Patience())

    @property
    def host(self) -> str:
        """The endpoint's host, for sentences."""
        return host_of(self.endpoint)

    @cached_property
    def token(self) -> Token:
        """The token that goes to the endpoint. AccessDenied if the one to use cannot be had, UsageError if it cannot be one."""
        token = _find_token(self._asked_token)
        if token.text is not None and not (token.text.isascii() and token.text.isprintable() and " " not in token.text):
            raise UsageError(f"{token.source} holds characters that no token has")
        return token

    @property
    def timeout(self) -> float:
        """Seconds without a byte, after which a download is tried again."""
        return seconds_of(_DOWNLOAD)

    @cached_property
    def api(self) -> HfApi:
        """huggingface_hub's API for this endpoint and token; to be called inside `failures.translated`. Offline."""
        self.go_online("the Hub's API")
        from huggingface_hub import HfApi

        from hubclient import __version__

        return HfApi(self.endpoint, token=self.token.text or False, library_name="hubclient", library_version=__version__)

    def need_for(self, command: str) -> None:
        """Raises Offline if offline was asked for, and the command is of no use then."""
        if self.offline:
            raise Offline(
                f"{command} needs the Hub, and offline was asked for",
                hint="run it without --offline (and without HF_HUB_OFFLINE)",
            )

    def go_online(self, what: str) -> None:
        """Raises Offline if offline was asked for."""
        if self.offline:
            hint = "without --offline (and without HF_HUB_OFFLINE) the same command fetches it"
            raise Offline(f"{what}: needed from {self.host}, and offline was asked for", hint=hint)

    def client(self) -> httpx2.Client:
        """huggingface_hub's HTTP client, which has the proxies and certificates. Offline; UsageError if the environment names none that works."""
        self.go_online("the Hub")
        from httpx2 import InvalidURL
        from huggingface_hub import get_session

        try:
            return get_session()
        except (ImportError, ValueError, InvalidURL) as error:
            names = "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            raise UsageError(f"the proxy that {names} name cannot be used ({type(error).__name__})") from error
        except OSError as error:
            raise EnvironmentFault(
                f"the certificates cannot be read ({error})", hint="look at SSL_CERT_FILE and SSL_CERT_DIR"
            ) from error

    def resolve_url(self, repo: RepoId, commit: str, name: str) -> str:
        """Where a file of a revision is fetched."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repo.name, name, repo_type=repo.type, revision=commit, endpoint=self.endpoint)

    @contextmanager
    def open(
        self, url: str, about: About | None = None, *, start: int | None = None, stop: int | None = None
    ) -> Iterator[Answer]:
        """GET, once: bytes [start, stop) if given, uncompressed; the answer is 200 or 206, with its body still to come.

        Redirects are followed to whatever host, the token goes to the endpoint's origin alone. Raises NetworkFault (Passing if
        another try may do), Offline, AccessDenied, SourceMissing.
        """
        headers = {"Accept-Encoding": "identity"}
        if start is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._get(url, headers, _DOWNLOAD, about or About()) as answer:
            yield answer

    def get_json(self, path: str, params: Mapping[str, Any] | None = None, about: About | None = None) -> Any:
        """What the API answers at `path` ("/api/models/org/name"), tried again while that may help. Errors as `open`."""
        return self._page(self._api_url(path, params), about or About())[0]

    def pages(self, path: str, params: Mapping[str, Any] | None = None, about: About | None = None) -> Iterator[list[Any]]:
        """The pages of a list of the API's. Errors as `open`."""
        url: str | None = self._api_url(path, params)
        seen: set[str] = set()
        while url:
            if url in seen or len(seen) == _MAX_PAGES:
                raise NetworkFault(f"{about or path}: the list of {self.host} has no end")
            seen.add(url)
            page, url = self._page(url, about or About())
            if not isinstance(page, list):
                raise NetworkFault(f"{about or path}: {self.host} answers with something that is no list")
            yield page

    def _api_url(self, path: str, params: Mapping[str, Any] | None) -> str:
        return f"{self.endpoint}{path}{'?' + urlencode(params, doseq=True) if params else ''}"

    def _page(self, url: str, about: About) -> tuple[Any, str | None]:
        """JSON, and where the next page is."""

        def attempt() -> tuple[Any, str | None]:
            with self._get(url, {"Accept-Encoding": "gzip"}, _ETAG, about) as answer:
                data = _whole(answer.response, self)
                return _parsed(data, self.host, url), self._next(answer)

        return patiently(attempt, self.patience)

    def _next(self, answer: Answer) -> str | None:
        """Where the list goes on. Mirrors pass on the Hub's own links: those are taken to the mirror, too."""
        link = answer.response.links.get("next", {}).get("url")
        if not link:
            return None
        target = joined(answer.url, link)
        if not same_origin(target, self.endpoint) and same_origin(target, _DEFAULT):
            target = f"{self.endpoint}/{target.removeprefix('https://').partition('/')[2]}"
        if not same_origin(target, self.endpoint):
            raise NetworkFault(f"{self.host} sends us to {host_of(target)} for the rest of its list, which the token is not for")
        return target

    @contextmanager
    def _get(self, url: str, headers: Mapping[str, str], patience: str, about: About) -> Iterator[Answer]:
        """`patience`: the variable that says how long a silence may be."""
        self.go_online(str(about))
        told: dict[str, str] = {}
        seen = {url}
        while True:
            response, took = self._send(url, headers, patience, about)
            try:
                if same_origin(url, self.endpoint):
                    told |= response.headers
                location = response.headers.get("location")
                if response.status_code in _REDIRECTS and location:
                    with suppress(NetworkFault), self._reading(url, about, patience):  # the body itself is of no use
                        _drain(response)
                    url = next_url(url, location, seen)
                    continue
                if response.status_code not in (200, 206):
                    raise refused(self, about, response.status_code, response.headers, url)
                with self._reading(url, about, patience):
                    yield Answer(response, url, told, took)
                return
            finally:
                response.close()

    def _send(self, url: str, headers: Mapping[str, str], patience: str, about: About) -> tuple[httpx2.Response, float]:
        """One request; its response's body is still to come."""
        sent = {"User-Agent": _user_agent(), **headers}
        if self.token.text is not None and same_origin(url, self.endpoint):
            sent["Authorization"] = f"Bearer {self.token.text}"
        client = self.client()
        with self._reading(url, about, patience):
            begun = time.monotonic()
            try:
                request = client.build_request("GET", url, headers=sent, timeout=seconds_of(patience))
                return client.send(request, stream=True, follow_redirects=False), time.monotonic() - begun
            except RuntimeError as error:
                if client.is_closed:  # huggingface_hub closes it after faults, and makes another
                    raise Passing(f"{host_of(url)}: the connection was closed here") from error
                raise

    @contextmanager
    def _reading(self, url: str, about: About, patience: str) -> Iterator[None]:
        """httpx2's faults, while a response comes, as ours."""
        try:
            yield
        except HubclientError:
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] in _THEIRS:
                ours = failure(error, self, about, url, patience)
                if ours is not None:
                    raise ours from error
            raise


def offline_by_environment(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether HF_HUB_OFFLINE, else TRANSFORMERS_OFFLINE, asks for no network."""
    return switched_on("HF_HUB_OFFLINE" if environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE", environ)


def _default_endpoint() -> str:
    if not switched_on("HUGGINGFACE_CO_STAGING"):
        return _DEFAULT
    from huggingface_hub import constants

    return constants.ENDPOINT


def seconds_of(variable: str) -> float:
    """Seconds of silence that a variable allows."""
    text = os.environ.get(variable, "").strip()
    return float(text) if text.isascii() and text.isdigit() and int(text[:9]) > 0 else 10.0


def _user_agent() -> str:
    """As huggingface_hub tells it; but its own function also fetches a list of programs from the Hub, to tell which one calls."""
    from huggingface_hub import __version__ as theirs

    from hubclient import __version__

    return f"hubclient/{__version__}; hf_hub/{theirs}"


def _find_token(asked: str | bool | None) -> Token:
    if isinstance(asked, str):
        return Token(asked, "the token that was given") if asked else Token(None, "no token")
    if asked is False or (asked is None and switched_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return Token(None, "no token")
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import DeviceCodeError, OIDCError

    try:
        text = get_token()
    except (OIDCError, DeviceCodeError) as error:
        raise AccessDenied(f"no token could be had ({str(error).partition('. ')[0]})", hint="look at HF_OIDC_RESOURCE") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AccessDenied(f"{constants.HF_TOKEN_PATH}: the stored token cannot be read") from error
    if text is None:
        if asked is True:
            raise AccessDenied("a token is needed, and there is none", hint="`hubclient login` stores one; HF_TOKEN names one")
        return Token(None, "no token")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip() == text:
            return Token(text, f"the token in {name}", name)
    return Token(text, f"the token stored in {constants.HF_TOKEN_PATH}")


def _drain(response: httpx2.Response) -> None:
    """Take a short body, after which the connection serves again; of a long one there is more than another connection costs."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:9]) <= _DRAINED:
        for _ in response.iter_raw():
            pass


def _whole(response: httpx2.Response, session: Session) -> bytes:
    """A body, unpacked, of bounded size."""
    data = bytearray()
    coding = coding_of(response.headers.get("content-encoding", ""))
    if coding and coding not in CODINGS:
        raise Contradiction(f"{session.host} sends JSON packed ({shown(coding)}), though that was ruled out")
    try:
        for piece in unpacked(response.iter_raw()) if coding else response.iter_raw():
            data += piece
            if len(data) > _LIMIT:
                raise NetworkFault(f"{session.host} answers with more than {_LIMIT:,} bytes of JSON")
    except zlib.error as error:
        raise Contradiction(f"{session.host} sends bytes that cannot be unpacked") from error
    return bytes(data)


def _parsed(data: bytes, host: str, url: str) -> Any:
    try:
        return parse_json(data, url, most=_MOST_VALUES)
    except DamagedInput as error:
        told = str(error).removeprefix(f"{url}: ")
        raise Contradiction(f"{host}: the answer to {shown(url.partition('?')[0])} is no use: {told}") from error
