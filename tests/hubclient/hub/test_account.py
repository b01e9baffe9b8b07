"""Tokens: checked, stored where others find them, taken away, never shown, and no folder closed to those who share it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hubserver import HubServer

from hubclient.errors import AccessDenied, EnvironmentFault, NetworkFault, Offline, UsageError
from hubclient.hub.account import checked_token, login, logout, store_token, stored_token, whoami
from hubclient.hub.net.session import Session


@pytest.fixture(autouse=True)
def home(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HF_HOME that others share."""
    from huggingface_hub import constants

    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(0o775)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(folder / "stored_tokens"))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_whose_token_it_is(server: HubServer) -> None:
    token = server.token("alice", "write", ["club"])
    account = whoami(Session.of(server.endpoint, token))
    assert (account.name, account.organisations, account.role, account.token_name) == ("alice", ("club",), "write", "token")
    assert account.origin == "the token that was given" and account.endpoint == server.endpoint and not account.shadowed
    assert token not in repr(account)


def test_nobody_somebody_unknown_and_offline(server: HubServer) -> None:
    with pytest.raises(AccessDenied, match="nobody is logged in"):
        whoami(Session.of(server.endpoint, False))
    with pytest.raises(AccessDenied, match="does not know the token that was given"):
        whoami(Session.of(server.endpoint, "hf_" + "x" * 34))
    server.clear()
    with pytest.raises(Offline):
        whoami(Session.of(server.endpoint, "hf_x", offline=True))
    assert not server.requests


def test_a_token_is_stored_for_all_programs(server: HubServer, home: Path) -> None:
    from huggingface_hub import get_token
    from huggingface_hub.utils._auth import get_stored_tokens

    token = server.token("alice", "write")
    account = login(Session.of(server.endpoint, token))
    assert account.name == "alice" and get_token() == token == stored_token() and get_stored_tokens() == {"token": token}
    assert mode(home / "token") == mode(home / "stored_tokens") == 0o600
    assert mode(home) == 0o775  # others go on using the cache in it
    assert whoami(Session.of(server.endpoint)).origin == f"the token stored in {home / 'token'}"


def test_a_token_that_is_wrong_is_not_stored(server: HubServer, home: Path) -> None:
    with pytest.raises(AccessDenied):
        login(Session.of(server.endpoint, "hf_" + "x" * 34))
    assert not list(home.iterdir())


def test_other_tokens_stay(home: Path) -> None:
    (home / "stored_tokens").write_text("[oauth-x]\nhf_token = old%1\nrefresh_token = r\nexpires_at = 5\n\n")
    store_token("new", "mine")
    from huggingface_hub.utils._auth import _read_stored_tokens_full

    tokens = _read_stored_tokens_full()
    assert tokens["oauth-x"] == {"hf_token": "old%1", "refresh_token": "r", "expires_at": "5"} and tokens["mine"] == {
        "hf_token": "new"
    }
    assert logout() and stored_token() is None and list(_read_stored_tokens_full()) == ["oauth-x"]
    assert not logout()


@pytest.mark.parametrize("name", ["a]b\n[c]", "DEFAULT", "", "é ü", "x" * 999])
def test_tokens_may_be_called_anything(name: str) -> None:
    from huggingface_hub.utils._auth import get_stored_tokens

    store_token("t", name)
    store_token("u", name)
    assert list(get_stored_tokens().values()) == ["u"]


def test_a_list_of_tokens_that_is_broken_is_not_written_over(home: Path) -> None:
    (home / "stored_tokens").write_text("no section\n")
    with pytest.raises(EnvironmentFault, match="is no list of tokens"):
        store_token("t", "mine")
    assert (home / "stored_tokens").read_text() == "no section\n" and not (home / "token").exists()


def test_links_to_the_files_stay(home: Path, tmp_path: Path) -> None:
    (home / "token").symlink_to(tmp_path / "elsewhere")
    store_token("t", "mine")
    assert (home / "token").is_symlink() and (tmp_path / "elsewhere").read_text() == "t" and mode(tmp_path / "elsewhere") == 0o600


def test_a_home_that_cannot_be_written(home: Path) -> None:
    home.rmdir()
    home.write_text("a file")
    with pytest.raises(EnvironmentFault, match="cannot be stored"):
        store_token("t", "mine")


def test_the_environments_token_counts_first(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = server.token("alice"), server.token("bob")
    login(Session.of(server.endpoint, mine))
    monkeypatch.setenv("HF_TOKEN", other)
    account = whoami(Session.of(server.endpoint))
    assert account.name == "bob" and account.shadowed and account.origin == "the token in HF_TOKEN"
    assert login(Session.of(server.endpoint, mine)).shadowed and not login(Session.of(server.endpoint, other)).shadowed
    assert not whoami(Session.of(server.endpoint)).shadowed


@pytest.mark.parametrize("text", ["", " \n", "hf_a b", "hf_a\nX: y", "hf_é", "api_org_x", "x" * 5000])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_token(text)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_line_ends_around_a_token_do_not_matter() -> None:
    assert checked_token(" hf_abc\r\n") == "hf_abc"


def test_a_hub_that_does_not_say_who(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.of(server.endpoint, server.token("alice"))
    answers: list[Any] = [[], {}, {"name": 3}, None]
    for answer in answers:
        monkeypatch.setattr(Session, "get_json", lambda *_a, answer=answer, **_k: answer)
        with pytest.raises(NetworkFault, match="does not say whose"):
            whoami(session)


def test_whose_token_it_is_takes_one_request(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._headers.detect_agent", lambda: pytest.fail("another request"))
    whoami(Session.of(server.endpoint, server.token("alice")))
    assert [request.path for request in server.requests] == ["/api/whoami-v2"]
