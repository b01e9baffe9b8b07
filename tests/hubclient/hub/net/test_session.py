"""What the environment says is honoured; a token goes to the endpoint and nowhere else; every fault is one sentence."""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time

import pytest
from hubserver import HubServer

from hubclient.cache.layout import RepoId
from hubclient.cache.trees import TreeEntry
from hubclient.errors import AccessDenied, NetworkFault, Offline, SourceMissing, UsageError
from hubclient.hub.net.failures import About, Contradiction, Passing, refused, translated, unreachable, wait_of
from hubclient.hub.net.origins import next_url, same_origin
from hubclient.hub.net.patience import Patience, patiently
from hubclient.hub.net.session import Session, Token
from hubclient.hub.transfer.stream import Target, streaming

HASTE = Patience(first=0.001, longest=0.002)
SECRET = "hf_SecretSecretSecret"
REPO = RepoId("org/name")
# A certificate for localhost that nobody signed; it expires in 2126.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPjRUD+GIP6JVBJNA
MeaIk28jtZ7bBC/9S1rtC8rGiLKhRANCAAQm23SsHgWVOpxYrPLlv48Ky9oquxLe
eN/IOD6GSz3hRYtT04Yw6kRTWYmkEFLY5vnHMoJ8NxKEZOFpnTuoc0ly
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUMUfJzLbRZsrKC4rWeX/ig5SufMswCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE3NTkyM1oYDzIxMjYxMDI4
MTc1OTIzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQm23SsHgWVOpxYrPLlv48Ky9oquxLeeN/IOD6GSz3hRYtT04Yw6kRT
WYmkEFLY5vnHMoJ8NxKEZOFpnTuoc0lyo28wbTAdBgNVHQ4EFgQUBBCGzU5VoDrM
RlHiE0KhFpgh49kwHwYDVR0jBBgwFoAUBBCGzU5VoDrMRlHiE0KhFpgh49kwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAKmEUM5Q4LbAfksYoLeKF7npvbkoOaH6At/Lb3qLGSyTAiEA
ymrEI31Oc7UPttOqu4lAL7qeFOzHRuNtPuHfdB3iwbM=
-----END CERTIFICATE-----
"""


class Site:
    """A web server that answers by a table (path -> status, headers, body) and keeps what it was asked. Also a proxy for http."""

    def __init__(self, tls: Path | None = None) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
                path = "/" + self.path.split("/", 3)[-1] if "://" in self.path else self.path
                known = site.answers.get(path) or site.answers.get(path.partition("?")[0])
                status, headers, body = known or (404, {}, b"nothing here")
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_CONNECT(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def tokens(self) -> list[str | None]:
        """The token that came with each request."""
        return [headers.get("authorization") for _, _, headers in self.asked]

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        """Answer `path` by sending elsewhere."""
        self.answers[path] = status, {"Location": to}, b""

    def json(self, path: str, value: object, **headers: str) -> None:
        """Answer `path` with JSON."""
        self.answers[path] = 200, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


@pytest.fixture
def site(cache: Path) -> Iterator[Callable[..., Site]]:
    """Starts sites; the HTTP client is a new one, which sees the test's environment."""
    from huggingface_hub import close_session

    sites: list[Site] = []

    def start(tls: Path | None = None) -> Site:
        sites.append(Site(tls))
        return sites[-1]

    close_session()
    yield start
    close_session()
    for one in sites:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def hub(site: Callable[..., Site]) -> Site:
    return site()


@pytest.fixture
def other(site: Callable[..., Site]) -> Site:
    return site()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "localhost.pem"
    path.write_text(CERTIFICATE)
    return path


def session(endpoint: str, token: str | bool | None = SECRET, **options: object) -> Session:
    return Session.of(endpoint, token, patience=HASTE, **options)  # type: ignore[arg-type]


def body(of: Session, path: str) -> bytes:
    with of.open(of.endpoint + path, About(REPO, "main", "a.bin")) as answer:
        return b"".join(answer.response.iter_raw())


def fault(call: Callable[[], object], kind: type[Exception] = NetworkFault) -> str:
    """The one sentence, and the hint, that a call fails with; the token is in neither."""
    with pytest.raises(kind) as caught:
        call()
    told = f"{caught.value} | {getattr(caught.value, 'hint', None)}"
    assert "\n" not in told and SECRET not in told and SECRET not in repr(caught.value.__cause__)
    return told


# The environment


def test_the_environments_endpoint_and_offline_are_taken(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert Session.of().endpoint == "https://huggingface.co" and not Session.of().offline
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert Session.of().endpoint == "https://mirror.example/hf"
    assert Session.of("https://other.example").endpoint == "https://other.example"
    for name, value, offline in (
        ("HF_HUB_OFFLINE", "1", True),
        ("HF_HUB_OFFLINE", "0", False),
        ("HF_HUB_OFFLINE", "yes", True),
        ("TRANSFORMERS_OFFLINE", "ON", True),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert Session.of().offline is offline
            assert Session.of(offline=True).offline


@pytest.mark.parametrize(
    "text", ["mirror", "ftp://mirror", "http://", "https://user:word@mirror", "https://a b", "http://a:b", "http://a?x"]
)
def test_an_endpoint_that_is_none_is_refused_without_showing_its_password(
    cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    assert "word@" not in fault(lambda: Session.of(text), UsageError)
    monkeypatch.setenv("HF_ENDPOINT", text)
    assert "HF_ENDPOINT" in fault(Session.of, UsageError)


def test_where_the_token_is_from_is_told_and_its_text_is_not(cache: Path, monkeypatch: pytest.MonkeyPatch):
    assert session("http://h").token.source == "the token that was given"
    assert session("http://h", False).token.text is None
    monkeypatch.setenv("HF_TOKEN", f" {SECRET}\n")
    assert session("http://h", None).token.text == SECRET
    assert session("http://h", None).token.source == "the token in HF_TOKEN"
    assert SECRET not in repr(session("http://h", None).token)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert session("http://h", None).token.text is None
    assert session("http://h", True).token.text == SECRET


def test_the_stored_token_is_found(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    path = tmp_path / "token"
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
    assert session("http://h", None).token.text is None
    assert "there is none" in fault(lambda: session("http://h", True).token, AccessDenied)
    path.write_text(SECRET)
    assert session("http://h", None).token.text == SECRET
    assert session("http://h", None).token.source == f"the token stored in {path}"
    path.write_bytes(b"\xff\xfe")
    assert str(path) in fault(lambda: session("http://h", None).token, AccessDenied)


@pytest.mark.parametrize("token", ["two words", "tök", "line\nbreak\n", "nul\0"])
def test_a_token_that_cannot_be_one_is_refused(token: str):
    assert token not in fault(lambda: session("http://h", token).token, UsageError)


def test_a_mirror_below_a_path_is_asked_there(hub: Site):
    hub.json("/api/hf/api/models/org/name", {"id": "org/name"})
    of = session(f"{hub.url}/api/hf")
    assert of.get_json("/api/models/org/name") == {"id": "org/name"}
    assert of.resolve_url(REPO, "main", "a b/ü#?.bin") == f"{hub.url}/api/hf/org/name/resolve/main/a%20b/%C3%BC%23%3F.bin"
    assert of.resolve_url(RepoId("org/name", "dataset"), "refs/pr/1", "x").endswith("/datasets/org/name/resolve/refs%2Fpr%2F1/x")


def test_an_http_proxy_is_used_and_no_proxy_is_honoured(hub: Site, other: Site, monkeypatch: pytest.MonkeyPatch):
    for site in (hub, other):
        site.json("/api/models/org/name", {"from": site.url})
    monkeypatch.setenv("HTTP_PROXY", other.url)
    of = session("http://hub.example")
    assert of.get_json("/api/models/org/name") == {"from": other.url}
    assert other.asked[0][1] == "http://hub.example/api/models/org/name"
    from huggingface_hub import close_session

    close_session()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert session(hub.url).get_json("/api/models/org/name") == {"from": hub.url}


def test_an_https_proxy_is_asked_for_a_tunnel_and_never_sees_the_token(other: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", other.url)
    told = fault(lambda: session("https://hub.example").get_json("/api/models/org/name"))
    assert "proxy" in told and "hub.example" in told
    assert {(method, path) for method, path, _ in other.asked} == {("CONNECT", "hub.example:443")}
    assert set(other.tokens) == {None}


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:1", "nonsense://user:word@h", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_told(site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, proxy: str):
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert "word" not in fault(lambda: session("http://hub.example").get_json("/x"), UsageError)


# Redirects, and where the token goes


def test_the_token_goes_to_the_endpoint_alone(hub: Site, other: Site):
    hub.redirect("/a", "/b", 307)
    hub.redirect("/b", f"{other.url}/c")
    other.redirect("/c", f"{hub.url}/d")
    hub.answers["/d"] = 200, {}, b"done"
    assert body(session(hub.url), "/a") == b"done"
    assert hub.tokens == [f"Bearer {SECRET}"] * 3 and other.tokens == [None]


def test_another_port_or_name_is_another_place(hub: Site):
    port = hub.url.rpartition(":")[2]
    hub.redirect("/a", f"http://localhost:{port}/b")
    hub.answers["/b"] = 200, {}, b"done"
    assert body(session(hub.url), "/a") == b"done"
    assert hub.tokens == [f"Bearer {SECRET}", None]
    assert same_origin("https://Hub.example/a", "https://hub.example:443/b") and not same_origin("https://h", "http://h")


def test_the_lists_own_links_take_the_token_nowhere_else(hub: Site, other: Site):
    hub.json("/list", [1], Link=f'<{hub.url}/more>; rel="next"')
    hub.json("/more", [2], Link=f'<{other.url}/rest>; rel="next"')
    other.json("/rest", [3])
    pages = session(hub.url).pages("/list")
    assert next(pages) == [1]
    assert "which the token is not for" in fault(lambda: next(pages))
    assert not other.asked


def test_a_mirror_that_passes_on_the_hubs_links_is_asked_itself(hub: Site):
    hub.json("/list", [1], Link='<https://huggingface.co/more?cursor=x>; rel="next"')
    hub.json("/more?cursor=x", [2])
    assert list(session(hub.url).pages("/list")) == [[1], [2]]


def test_a_list_without_an_end_is_refused(hub: Site):
    hub.json("/list", [1], Link=f'<{hub.url}/list>; rel="next"')
    assert "has no end" in fault(lambda: list(session(hub.url).pages("/list")))


def test_huggingface_hubs_own_calls_take_the_token_nowhere_else(hub: Site, other: Site):
    of = session(hub.url)
    hub.json("/api/models", [], Link=f'<{other.url}/api/models>; rel="next"')
    hub.redirect("/api/whoami-v2", f"{other.url}/whoami")

    def models() -> None:
        with translated(of):
            list(of.api.list_models(limit=5))

    assert "which the token is not for" in fault(models)
    with pytest.raises(NetworkFault), translated(of):
        of.api.whoami()
    assert not any(other.tokens)


@pytest.mark.parametrize("number", [9, 10, 11])
def test_ten_redirects_are_followed_and_no_more(hub: Site, number: int):
    for step in range(number):
        hub.redirect(f"/{step}", f"/{step + 1}")
    hub.answers[f"/{number}"] = 200, {}, b"done"
    if number <= 10:
        assert body(session(hub.url), "/0") == b"done"
    else:
        assert "more than 10 redirects" in fault(lambda: body(session(hub.url), "/0"))


def test_a_circle_is_refused(hub: Site):
    hub.redirect("/a", "/b")
    hub.redirect("/b", "/a")
    assert "circle" in fault(lambda: body(session(hub.url), "/a"))
    assert len(hub.asked) == 2


@pytest.mark.parametrize(
    "location", ["ftp://h/x", "http://", "file:///etc/passwd", "http://user:pass@h/x", "//", "http://h:99999/x"]
)
def test_places_that_are_none_are_not_gone_to(hub: Site, location: str):
    hub.redirect("/a", location)
    fault(lambda: body(session(hub.url), "/a"))


def test_https_is_never_left():
    with pytest.raises(NetworkFault, match="from https to http"):
        next_url("https://hub.example/a", "http://hub.example/a", {"https://hub.example/a"})
    assert next_url("http://hub.example/a", "https://hub.example/a", set()) == "https://hub.example/a"


def test_https_is_never_left_on_the_wire(site: Callable[..., Site], certificate: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure, plain = site(certificate), site()
    secure.redirect("/a", f"{plain.url}/a")
    secure.redirect("/api/whoami-v2", f"{plain.url}/whoami")
    of = session(secure.url)
    assert "from https to http" in fault(lambda: body(of, "/a"))

    def whoami() -> None:
        with translated(of):
            of.api.whoami()

    assert "from https to http" in fault(whoami)
    assert secure.tokens == [f"Bearer {SECRET}"] * 2 and not plain.asked


@pytest.mark.parametrize("proxied", [False, True])
def test_large_bodies_come_right_over_tls_and_through_a_proxy(
    site: Callable[..., Site], certificate: Path, monkeypatch: pytest.MonkeyPatch, proxied: bool
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    content = os.urandom(6_000_000)
    hub = site(None if proxied else certificate)
    hub.answers["/a"] = 200, {}, content
    if proxied:
        monkeypatch.setenv("HTTP_PROXY", hub.url)
    of = session("http://hub.example" if proxied else hub.url)
    target = Target(REPO, "main", "a", TreeEntry(len(content), "0" * 40), f"{of.endpoint}/a")
    for _ in range(2):
        with streaming(of, target, (0, len(content))) as pieces:
            assert b"".join(pieces) == content


def test_a_certificate_that_nobody_signed_is_refused_at_once(site: Callable[..., Site], certificate: Path):
    told = fault(lambda: session(site(certificate).url).get_json("/x"))
    assert "127.0.0.1" in told and "certificate" in told and "SSL_CERT_FILE" in told and "tried" not in told


# Faults


def test_nobody_there_is_told_with_the_host_and_how_often(cache: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    told = fault(lambda: session(f"http://127.0.0.1:{port}").get_json("/x"))
    assert f"127.0.0.1:{port} cannot be reached" in told and "tried 5 times" in told and "HTTPS_PROXY" in told


def test_offline_no_socket_opens_and_nothing_is_imported(cache: Path):
    import subprocess
    import sys

    code = """
import socket, sys
def refuse(*_): raise SystemExit("a socket")
socket.socket.connect = socket.getaddrinfo = refuse
from hubclient.errors import Offline
from hubclient.hub.net.session import Session
from hubclient.hub.transfer.stream import Target, streaming
from hubclient.hub.transfer import fetch as transfer
for call in (lambda s: s.get_json("/x"), lambda s: list(s.pages("/x")), lambda s: s.api, lambda s: s.client(), lambda s: s.open("http://h/").__enter__()):
    try: call(Session.of("http://h", offline=True))
    except Offline: continue
    raise SystemExit("not refused")
print(any(name.startswith(("huggingface_hub", "httpx")) for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_environments_offline_is_told_as_such(hub: Site, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read when it was imported
    assert "HF_HUB_OFFLINE" in fault(lambda: session(hub.url).get_json("/x"), Offline)
    assert not hub.asked


@pytest.mark.parametrize(
    ("status", "headers", "token", "kind", "words"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, False, AccessDenied, ["licence", "no token", "/org/name", "hubclient login"]),
        (403, {"X-Error-Code": "GatedRepo"}, SECRET, AccessDenied, ["licence", "the token that was given", "/org/name"]),
        (
            401,
            {"X-Error-Code": "RepoNotFound"},
            False,
            AccessDenied,
            ["org/name was not found", "looks the same without a token", "datasets/org/name", "hubclient login"],
        ),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            SECRET,
            AccessDenied,
            ["does not know the token that was given"],
        ),
        (401, {}, SECRET, AccessDenied, ["the token that was given may not see it"]),
        (403, {"X-Error-Message": "not you\u0301"}, SECRET, AccessDenied, ["does not allow", "the token that was given"]),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, SECRET, AccessDenied, ["disabled"]),
        (404, {"X-Error-Code": "RepoNotFound"}, SECRET, SourceMissing, ["there is no org/name", "the token that was given"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, SECRET, SourceMissing, ["has no revision 'v1'"]),
        (404, {"X-Error-Code": "EntryNotFound"}, SECRET, SourceMissing, ["has no file 'a.bin'"]),
        (404, {}, SECRET, SourceMissing, ["has no file 'a.bin'"]),
        (416, {}, SECRET, NetworkFault, ["416"]),
        (429, {"Retry-After": "9999"}, SECRET, NetworkFault, ["limits", "9999 s"]),
        (500, {"X-Error-Message": "oops"}, SECRET, NetworkFault, ["500", "'oops'", "tried 5 times"]),
    ],
)
def test_refusals_name_the_cause_and_the_token_by_its_origin(
    hub: Site, status: int, headers: dict[str, str], token: str | bool, kind: type[Exception], words: list[str]
):
    hub.answers["/x"] = status, {key: value.encode().decode("latin-1") for key, value in headers.items()}, b"{}"
    told = fault(lambda: session(hub.url, token).get_json("/x", about=About(REPO, "v1", "a.bin")), kind)
    assert all(word in told for word in words), told


def test_huggingface_hubs_own_faults_are_told_alike(server: HubServer, cache: Path):
    server.repo("org/gated", gated="manual").commit({"a.bin": b"1"})
    server.repo("org/open").commit({"a.bin": b"1"})
    of = session(server.endpoint, server.token("alice"))

    def ask(call: Callable[[], object], repo: str, kind: type[Exception], **about: str) -> str:
        def within() -> None:
            with translated(of, RepoId(repo), **about):  # type: ignore[arg-type]
                call()

        return fault(within, kind)

    assert "org/none" in ask(lambda: of.api.model_info("org/none"), "org/none", SourceMissing)
    assert "'v9'" in ask(lambda: of.api.model_info("org/open", revision="v9"), "org/open", SourceMissing, revision="v9")
    with pytest.raises(KeyError), translated(of):
        json.loads('{"a": 1}')["a fault of ours"]
    assert "org/open" in ask(lambda: of.api.create_repo("org/open"), "org/open", AccessDenied)
    assert "not a name" in ask(lambda: of.api.model_info("not a name"), "org/open", UsageError)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1, 2", b'{"a": NaN}', b"\xff", b"[" * 10_000])
def test_an_answer_that_is_no_json_is_refused(hub: Site, content: bytes):
    hub.answers["/x"] = 200, {}, content
    assert "127.0.0.1" in fault(lambda: session(hub.url).get_json("/x"), Contradiction)


def test_a_list_that_is_none_is_refused(hub: Site):
    hub.json("/x", {"a": 1})
    assert "no list" in fault(lambda: list(session(hub.url).pages("/x")))


def test_silence_has_an_end(hub: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        of = Session.of(f"http://127.0.0.1:{silent.getsockname()[1]}", False, patience=Patience(tries=1))
        assert "sent nothing" in fault(lambda: of.get_json("/x"))


def test_how_long_a_server_asks_to_wait():
    assert wait_of({"retry-after": "7"}) == 7
    assert 50 < (wait_of({"retry-after": formatdate(time() + 60, usegmt=True)}) or 0) <= 60
    assert wait_of({"retry-after": formatdate(time() - 60, usegmt=True)}) == 0
    assert wait_of({"ratelimit": '"api";r=0;t=55'}) == 55
    assert wait_of({"ratelimit": '"api";r=3;t=55'}) is None
    assert wait_of({"retry-after": "soon"}) is None and wait_of({}) is None


def test_waits_double_have_a_limit_and_heed_the_server():
    patience = Patience(tries=6, first=1, longest=4, asked=100)
    waits = [patience.pause(Passing("x"), failed) for failed in range(1, 6)]
    assert all(wish / 2 <= wait <= wish for wait, wish in zip(waits, [1, 2, 4, 4, 4], strict=True))
    assert 50 <= patience.pause(Passing("x", 50), 1) <= 55
    for raised in (
        lambda: patience.pause(Passing("x", 101), 1),
        lambda: patience.pause(Passing("x"), 6),
        lambda: patience.pause(Contradiction("x"), 2),
    ):
        with pytest.raises(Passing):
            raised()


def test_what_passes_is_tried_again_and_what_does_not_is_not():
    faults: list[Exception] = [Passing("1"), Passing("2"), AccessDenied("3")]

    def attempt() -> None:
        raise faults.pop(0)

    with pytest.raises(AccessDenied, match="3"):
        patiently(attempt, HASTE)
    assert not faults


def test_the_token_is_known_in_threads_that_know_nothing_of_us(hub: Site, other: Site):
    of = session(hub.url)
    faults: list[Exception] = []

    def ask(url: str) -> None:
        try:
            of.client().get(url, headers={"Authorization": f"Bearer {SECRET}"})
        except NetworkFault as error:
            faults.append(error)

    def in_thread(url: str) -> None:
        thread = threading.Thread(target=ask, args=(url,))
        thread.start()
        thread.join()

    with translated(of), translated(session(hub.url)):
        in_thread(f"{other.url}/a")
        in_thread(f"{hub.url}/a")
    assert len(faults) == 1 and not other.asked and len(hub.asked) == 1
    in_thread(f"{other.url}/a")  # what others do with the token is not ours to say
    assert len(other.asked) == 1


def test_a_redirect_does_not_cost_a_connection(hub: Site, monkeypatch: pytest.MonkeyPatch):
    opened: list[object] = []
    accept = hub.server.get_request

    def counted() -> tuple[socket.socket, object]:
        opened.append(None)
        return accept()

    monkeypatch.setattr(hub.server, "get_request", counted)
    for number in range(5):
        hub.answers[f"/{number}"] = 302, {"Location": f"/{number + 1}"}, b"moved" * 100
    hub.answers["/5"] = 200, {}, b"done"
    assert body(session(hub.url), "/0") == b"done" and len(opened) == 1
    hub.answers["/3"] = 302, {"Location": "/4"}, bytes(100_000)
    assert body(session(hub.url), "/0") == b"done" and len(opened) == 2


def test_silence_is_told_with_the_variable_that_allows_more(monkeypatch: pytest.MonkeyPatch, cache: Path):
    import httpx2

    of = session("http://h")
    for variable, seconds in (("HF_HUB_ETAG_TIMEOUT", "3"), ("HF_HUB_DOWNLOAD_TIMEOUT", "7")):
        monkeypatch.setenv(variable, seconds)
        found = unreachable(httpx2.ReadTimeout(""), of, None, variable)
        assert f"{seconds} s" in str(found) and str(found.hint).startswith(f"{variable}=")
    assert unreachable(httpx2.ReadTimeout(""), of).hint is None  # the upload's, which no variable changes


@pytest.mark.parametrize("content", [b"[" + b"[]," * 1_000_001 + b"[]]", b'"' + b"a" * (40 << 20) + b'"'])
def test_a_small_answer_that_unpacks_to_much_is_refused(hub: Site, content: bytes):
    hub.answers["/x"] = 200, {"Content-Encoding": "gzip"}, gzip.compress(content, 1)
    tracemalloc.start()
    told = fault(lambda: session(hub.url).get_json("/x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than" in told and peak < 100 << 20


def test_packed_answers_are_read(hub: Site):
    for coding, packed in (("gzip", gzip.compress(b"[1]")), ("deflate", zlib.compress(b"[1]")), ("identity", b"[1]")):
        hub.answers["/x"] = 200, {"Content-Encoding": coding}, packed
        assert session(hub.url).get_json("/x") == [1]
    hub.answers["/x"] = 200, {"Content-Encoding": "br"}, b"[1]"
    assert "packed" in fault(lambda: session(hub.url).get_json("/x"))
    hub.answers["/x"] = 200, {"Content-Encoding": "gzip"}, b"[1]"
    assert "unpacked" in fault(lambda: session(hub.url).get_json("/x"))


def test_who_is_stopped_while_waiting_does_not_try_again():
    tries: list[None] = []
    stopped = threading.Event()

    def attempt() -> None:
        tries.append(None)
        stopped.set()
        raise Passing("no", 300)

    with pytest.raises(Passing, match="no"):
        patiently(attempt, Patience(), stopped)
    assert len(tries) == 1


def test_long_waits_that_a_server_asks_for_are_told():
    told: list[str] = []
    patience = Patience()
    with patience.telling(told.append), patience.telling(None):
        patience.pause(Passing("busy", 300), 1)
        patience.pause(Passing("busy"), 1)
    patience.pause(Passing("busy", 300), 1)
    assert told == ["the Hub asks to wait 300 s"]


@pytest.mark.parametrize(
    ("token", "advice"),
    [
        (Token("hf_x", "the token in HF_TOKEN", "HF_TOKEN"), "unset HF_TOKEN, or put a valid token there"),
        (Token("hf_x", "the token that was given"), "make one at http://h/settings/tokens"),
        (Token("hf_x", "the token stored in /home/token"), "`hubclient login` stores another one"),
    ],
)
def test_advice_about_a_token_is_about_where_it_is_from(token: Token, advice: str):
    of = session("http://h")
    of.__dict__["token"] = token
    told = refused(of, About(), 401, {"x-error-message": "Invalid credentials in Authorization header"}, "http://h/api/whoami-v2")
    assert str(told.hint).startswith(advice)


def test_faults_of_the_connection_are_told_in_our_words():
    import socket

    import httpx2

    unknown = httpx2.ConnectError("[Errno -2] Name or service not known")
    unknown.__cause__ = socket.gaierror(-2, "Name or service not known")
    cut = httpx2.RemoteProtocolError(
        "peer closed connection without sending complete message body (received 3 bytes, expected 9)"
    )
    assert str(unreachable(unknown, session("http://h"))) == "h cannot be reached (its name is not known)"
    assert str(unreachable(cut, session("http://h"))) == "h: the connection was closed before the end"
