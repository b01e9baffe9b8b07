"""What goes wrong between the Hub and us, as one sentence each: httpx2's and huggingface_hub's exceptions, and refusals by status.

`translated` is put around every call of huggingface_hub; `refused` tells what an answer's status means. No sentence holds a token.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any

from hubclient.cache.layout import DEFAULT_REVISION, RepoId, is_commit
from hubclient.errors import AccessDenied, HubclientError, NetworkFault, Offline, SourceMissing, UsageError
from hubclient.ground.names import shown
from hubclient.hub.net.origins import guarded, host_of, same_origin

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_DISABLED = "Access to this resource is disabled."
_UNKNOWN_TOKEN = "Invalid credentials in Authorization header"


class Passing(NetworkFault):
    """A fault that may pass: worth another try, `after` as many seconds as the server said, if it did."""

    def __init__(self, message: str, after: float | None = None, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class Contradiction(Passing):
    """An answer that contradicts what was asked for, or what the Hub said before; worth one more try, not five."""


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about, for the sentences."""

    repo: RepoId | None = None
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        at = (
            f"@{self.revision[:12] if is_commit(self.revision) else self.revision}"
            if self.revision not in (None, DEFAULT_REVISION)
            else ""
        )
        return f"{self.repo}{at}{':' + self.file if self.file else ''}" if self.repo else "the Hub"


@contextmanager
def translated(
    session: Session, repo: RepoId | None = None, *, revision: str | None = None, file: str | None = None
) -> Iterator[None]:
    """Around calls of huggingface_hub: its faults, and httpx2's, become ours; the token goes to the endpoint only.

    Raises NetworkFault, Offline, AccessDenied, SourceMissing, UsageError.
    """
    about = About(repo, revision, file)
    try:
        with guarded(session.client(), session.endpoint, session.token.text), _unannounced():
            yield
    except HubclientError:
        raise
    except Exception as error:
        ours = failure(error, session, about)
        if ours is None:
            raise
        raise ours from error


_USES = [0]
_USING = Lock()


@contextmanager
def _unannounced() -> Iterator[None]:
    """huggingface_hub's requests tell which program calls, and it fetches a list of programs for that, from whatever hub it thinks is the
    one; not while we use it.
    """
    from huggingface_hub import constants

    with _USING:
        _USES[0] += not constants.HF_HUB_DISABLE_TELEMETRY or _USES[0] > 0
        ours = _USES[0] > 0
        constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY or ours
    try:
        yield
    finally:
        with _USING:
            _USES[0] -= ours
            if ours and not _USES[0]:
                constants.HF_HUB_DISABLE_TELEMETRY = False


def failure(
    error: Exception, session: Session, about: About, url: str | None = None, patience: str | None = None
) -> HubclientError | None:
    """An exception of httpx2, httpcore2 or huggingface_hub, met at `url`, as ours; None if it is none of theirs.

    `patience` is the variable that says how long a silence may be.
    """
    import httpx2
    from huggingface_hub import errors as theirs

    response = getattr(error, "response", None)
    if isinstance(error, theirs.HfHubHTTPError) and response is not None:
        return refused(session, about, response.status_code, response.headers, str(response.url))
    if isinstance(error, httpx2.HTTPStatusError):
        return refused(session, about, error.response.status_code, error.response.headers, str(error.response.url))
    if isinstance(error, theirs.OfflineModeIsEnabled):
        return Offline(f"{about} is needed from {session.host}, and HF_HUB_OFFLINE is set")
    if isinstance(error, theirs.LocalTokenNotFoundError):
        return AccessDenied("a token is needed, and there is none", hint="`hubclient login` stores one; HF_TOKEN names one")
    if isinstance(error, theirs.OIDCError | theirs.DeviceCodeError):
        return AccessDenied(f"{session.host} gave no token ({_first_line(error)})")
    if isinstance(error, theirs.HFValidationError | theirs.HfUriError):
        return UsageError(_first_line(error))
    if type(error).__module__.partition(".")[0] in ("httpx2", "httpcore2"):
        return unreachable(error, session, url, patience)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) or _raised_in(error, "huggingface_hub"):
        return NetworkFault(f"{session.host} answers with something that is not what the Hub's API says ({type(error).__name__})")
    return None


def unreachable(error: Exception, session: Session, url: str | None = None, patience: str | None = None) -> HubclientError:
    """A fault of the connection: which host, what happened, and whether it may pass."""
    kind = type(error).__name__
    host = host_of(url or _url_of(error) or session.endpoint)
    cause = _cause(error, ssl.SSLError)
    if isinstance(cause, ssl.SSLError) and ("CERTIFICATE" in str(cause) or "VERSION" in str(cause)):
        told = getattr(cause, "verify_message", "") or cause.reason or "no common protocol"
        hint = "SSL_CERT_FILE names the certificates to trust, such as those of a company's proxy"
        return NetworkFault(f"{host}: the secure connection is refused here: {told}", hint=hint)
    if kind == "ProxyError":
        return Passing(f"the proxy does not let {host} through ({_first_line(error)})", hint=_PROXY)
    if kind in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
        return NetworkFault(
            f"{host}: no request can be made ({kind})", hint="HF_ENDPOINT, and what the server redirects to, must be URLs"
        )
    if kind == "TooManyRedirects":
        return NetworkFault(f"{host} redirects without an end")
    if kind == "DecodingError":
        return Contradiction(f"{host} sends bytes that cannot be unpacked")
    if kind in ("ReadTimeout", "WriteTimeout"):
        return Passing(f"{host} sent nothing{_for(' for ', patience)}", hint=f"{patience}=60 waits longer" if patience else None)
    if kind == "ConnectTimeout":
        return Passing(f"{host} does not answer{_for(', for ', patience)}", hint=_PROXY)
    if kind in ("ConnectError", "PoolTimeout"):
        return Passing(f"{host} cannot be reached ({_why(error)})", hint=_PROXY)
    return Passing(f"{host}: the connection was closed before the end")


def _why(error: Exception) -> str:
    """Why there is no connection, in our words where the system's are obscure."""
    if isinstance(error, OSError) or not (cause := _cause(error, OSError)):
        cause = error
    if isinstance(cause, socket.gaierror):
        return "its name is not known"
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there"
    return (cause.strerror if isinstance(cause, OSError) else "") or "no connection could be made"


def _for(words: str, patience: str | None) -> str:
    """How long it was waited for; nothing if others than we said how long."""
    from hubclient.hub.net.session import seconds_of

    return f"{words}{seconds_of(patience):g} s" if patience else " for too long"


_PROXY = "look at the connection, HF_ENDPOINT, and the proxy (HTTPS_PROXY, NO_PROXY)"


def refused(session: Session, about: About, status: int, headers: Mapping[str, str], url: str) -> HubclientError:
    """What an answer of 400 and above means. `url` is what was asked, which may be another host's after a redirect."""
    code, said = headers.get("x-error-code", ""), headers.get("x-error-message", "")
    if status in _PASSING or status >= 500:
        return _busy(status, headers, host_of(url), said)
    if status == 416:
        return Contradiction(f"{about}: {host_of(url)} answers 416: its file is shorter than the one that is listed")
    if not same_origin(url, session.endpoint):  # a link that was made for us, for a while: the next one may do
        return Passing(f"{host_of(url)}, where {session.host} sends us for {about}, answers {status}")
    if status in (401, 403) and code == "GatedRepo":
        return _gated(session, about)
    if said == _DISABLED:
        return AccessDenied(f"{about}: {session.host} has disabled it")
    if status == 401:
        return _unauthorized(session, about, said)
    if status == 403:
        told = f": {shown(said)}" if said else ""
        return AccessDenied(f"{about}: {session.host} does not allow this with {session.token.source}{told}", hint=_SCOPE)
    if status == 404 or code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        return _missing(session, about, code)
    told = f": {shown(said)}" if said else ""
    return NetworkFault(f"{about}: {host_of(url)} answers {status}{told}")


_SCOPE = "a token's permissions are listed at its name in the Hub's settings, under Access Tokens"


def _busy(status: int, headers: Mapping[str, str], host: str, said: str) -> Passing:
    after = wait_of(headers)
    told = f", and asks to wait {after:.0f} s" if after else ""
    if status == 429:
        return Passing(
            f"{host} limits how much may be asked of it{told}", after, hint="with a token (HF_TOKEN) the limits are higher"
        )
    return Passing(f"{host} answers {status}{': ' + shown(said) if said else ''}{told}", after)


def wait_of(headers: Mapping[str, str]) -> float | None:
    """How many seconds an answer asks to wait: Retry-After (RFC 9110, seconds or a date), else `t` of RateLimit; None if it does not."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        pass
    fields = dict(part.strip().partition("=")[::2] for part in headers.get("ratelimit", "").split(";"))
    spent, wait = fields.get("r"), fields.get("t", "")
    return float(wait[:9]) if spent == "0" and wait.isascii() and wait.isdigit() else None


def _gated(session: Session, about: About) -> AccessDenied:
    page = f"{session.endpoint}/{about.repo}" if about.repo else session.endpoint
    if session.token.text is None:
        told = f"{about.repo} is for those who accepted its licence, and no token says who asks"
        return AccessDenied(told, hint=f"accept the licence at {page}, then `hubclient login` or set HF_TOKEN")
    told = f"{about.repo} is for those who accepted its licence, and the owner of {session.token.source} has not, or is not let in yet"
    return AccessDenied(told, hint=f"accept the licence at {page}")


def _unauthorized(session: Session, about: About, said: str) -> AccessDenied:
    if session.token.text is None:
        told = f"{about.repo or about} was not found at {session.host}; a private repository looks the same without a token"
        return AccessDenied(
            told, hint=f"look at the name ({_PREFIXES}); for private repositories `hubclient login`, or set HF_TOKEN"
        )
    if said == _UNKNOWN_TOKEN or about.repo is None:
        told = f"{session.host} does not know {session.token.source}: it may have expired"
        return AccessDenied(told, hint=_other_token(session))
    told = f"{about}: there is no such thing at {session.host}, or {session.token.source} may not see it"
    return AccessDenied(told, hint="look at the name; `hubclient whoami` says whose token it is")


_PREFIXES = "models are org/name, others datasets/org/name, spaces/org/name"


def _other_token(session: Session) -> str:
    """Where a token that counts comes from: one in the environment counts before a stored one."""
    page, variable = f"{session.endpoint}/settings/tokens", session.token.variable
    if variable:
        return f"unset {variable}, or put a valid token there; {page} makes one"
    stored = session.token.source.startswith("the token stored")
    return f"`hubclient login` stores another one; {page} makes one" if stored else f"make one at {page}"


def _missing(session: Session, about: About, code: str) -> SourceMissing:
    if code == "EntryNotFound" or (about.file and not code):
        return SourceMissing(f"{About(about.repo, about.revision)} has no file {shown(about.file)} at {session.host}")
    if code == "RevisionNotFound" or (about.revision and not code):
        hint = f"`hubclient info {about.repo}` lists its branches and tags" if about.repo else None
        return SourceMissing(f"{about.repo} has no revision {shown(about.revision)} at {session.host}", hint=hint)
    hint = f"`hubclient search` finds names; {_PREFIXES}"
    if session.token.text is None and about.repo:
        told = f"{about.repo} was not found at {session.host}; a private repository looks the same without a token"
        return SourceMissing(told, hint=hint)
    seen = "and no token was used" if session.token.text is None else f"or {session.token.source} may not see it"
    return SourceMissing(f"there is no {about.repo or 'such thing'} at {session.host}, {seen}", hint=hint)


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    seen = 0
    current: BaseException | None = error
    while current is not None and not isinstance(current, kind) and seen < 16:
        current, seen = current.__cause__ or current.__context__, seen + 1
    return current if isinstance(current, kind) else None


def _url_of(error: Exception) -> str | None:
    try:
        return str(error.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return None


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _raised_in(error: Exception, package: str) -> bool:
    """Whether a fault of the kind that malformed answers cause was raised inside a package's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return (
        isinstance(error, KeyError | TypeError | ValueError | AttributeError | IndexError) and module.partition(".")[0] == package
    )
