"""`push`, `search`, `info`, `login`, `logout` and `whoami` as people and programs call them."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_gguf import LITTLE
from hubserver import HubServer

from hubclient.cli import main

GGUF = LITTLE.file([LITTLE.text("general.architecture", "llama")], [LITTLE.tensor("x", (4,))], bytes(16))

Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("served")) as started:
        yield started


@pytest.fixture
def hub(running: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Empty, and the environment's."""
    from huggingface_hub import constants

    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "home" / "stored_tokens"))
    for kept in (running.store.repos, running.store.names, running.store.tokens, running.store.bytes.known):
        kept.clear()
    running.clear()
    return running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command; what follows `stdin=` is typed into it."""

    def call(*arguments: str | Path, stdin: str = "") -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["hubclient", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err and "\x1b" not in captured.out + captured.err
        return caught.value.code, captured.out, captured.err

    return call


@pytest.fixture
def alice(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Her token, in the environment."""
    token = hub.token("alice", "write", ["club"])
    monkeypatch.setenv("HF_TOKEN", token)
    return token


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(GGUF)
    return path


def test_push_prints_the_commit_and_says_the_rest_aside(hub: HubServer, alice: str, run: Run, gguf: Path) -> None:
    code, out, err = run("push", gguf, "alice/tiny", "--private")
    repo = hub.repo("alice/tiny", private=True)
    assert code == 0 and out == f"{hub.endpoint}/alice/tiny/commit/{repo.refs['refs/heads/main']}\n"
    assert "made alice/tiny (private); 2 files" in err and repo.files()["tiny.gguf"] == GGUF


def test_push_a_folder_as_a_pull_request_in_json(hub: HubServer, alice: str, run: Run, gguf: Path) -> None:
    hub.repo("bob/tiny").commit({"a.txt": b"1"})
    (gguf.parent / ".env").write_text("A=1")
    code, out, _ = run(
        "push", gguf.parent, "bob/tiny", "--create-pr", "--no-card", "--message", "mine", "--include", "*.gguf", "--json"
    )
    told = json.loads(out)
    assert code == 0 and told["files"] == ["tiny.gguf"] and told["pr_url"].endswith("/discussions/1")
    assert told["left_out"] == {".env": "hidden"} or told["left_out"][".env"] == "hidden"
    commits = hub.repo("bob/tiny").commits
    assert commits[told["commit"]].title == "mine"


def test_pushed_and_pulled_is_the_same(hub: HubServer, alice: str, run: Run, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(gguf.parent / "cache"))
    run("push", gguf, "club/tiny", "--private")
    code, out, _ = run("pull", "club/tiny")
    assert code == 0 and (Path(out.strip()) / "tiny.gguf").read_bytes() == GGUF


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["push", "none.gguf", "alice/tiny"], 5, "no such file"),
        (["push", ".", "not a name"], 2, "no repository's name"),
        (["push", ".", "datasets/alice/x"], 2, "is no model"),
        (["info", "alice/none"], 5, "alice/none"),
        (["info", "alice/none:file"], 2, "not about one file"),
        (["search", "x", "--offline"], 5, "offline was asked for"),
        (["whoami"], 0, ""),
        (["login", "--token", "a b"], 2, "given as the token"),
        (["login"], 2, "no terminal"),
    ],
)
def test_refusals_are_one_sentence(
    hub: HubServer, alice: str, run: Run, gguf: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(gguf.parent)
    found, out, err = run(*arguments)
    assert found == code and said in err and (code == 0 or (out == "" and len(err.splitlines()) <= 2)), err


def test_offline_no_command_asks(hub: HubServer, alice: str, run: Run, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in (["push", gguf, "alice/tiny"], ["search", "x"], ["info", "a/b"], ["login", "--token", "hf_x"], ["whoami"]):
        code, out, err = run(*arguments)
        assert code == 5 and out == "" and "offline" in err, arguments
    assert not hub.requests


def test_search_shows_a_table_or_json(hub: HubServer, run: Run) -> None:
    hub.repo("org/llama", downloads=1234, gated=True).commit({"model.safetensors": b"x"})
    code, out, _ = run("search", "llama", "--filter", "safetensors", "--sort", "likes")
    assert code == 0 and "org/llama" in out and "1,234" in out and "gated" in out and "safetensors" in out
    _, out, _ = run("search", "llama", "--json")
    assert json.loads(out)["found"][0]["name"] == "org/llama"
    assert run("search", "none")[1:] == ("", "nothing was found\n")


def test_on_a_narrow_screen_names_are_whole(hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from hubclient.cli import search

    name = "organisation/a-model-with-a-rather-long-name-of-its-own"
    hub.repo(name, downloads=1234, gated=True, labels=("license:apache-2.0",)).commit({"model.safetensors": b"x"})
    for width, there, gone in ((76, ["1,234", "gated"], ["apache"]), (58, [], ["apache", "1,234"]), (20, [], ["1,234"])):
        monkeypatch.setattr(search, "console", lambda: Console(width=width))
        out = run("search", "model")[1]
        assert name in out and all(text in out for text in there) and not any(text in out for text in gone), out


def test_a_push_that_changes_nothing_says_so_once(
    hub: HubServer, alice: str, run: Run, gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "2 files (README.md added), " in run("push", gguf, "alice/tiny")[2]
    code, _, err = run("push", gguf, "alice/tiny")
    assert code == 0 and "1 file, " in err and "no new commit" in err
    assert "No files have been modified" not in err + caplog.text


def test_nothing_from_the_hub_reaches_the_terminal_raw(hub: HubServer, run: Run) -> None:
    hub.repo("org/evil", labels=("license:\x1b[2J",), details={"library_name": "\x1b]0;x\x07"}).commit({"a\x1b[31m.txt": b"x"})
    assert "\\x1b" in run("search", "evil")[1]
    assert "a\\x1b[31m.txt" in run("info", "org/evil", "--files")[1]


def test_info_shows_what_is_known(hub: HubServer, run: Run, tmp_path: Path) -> None:
    commit = hub.repo("org/gated", gated="manual", labels=("license:mit",)).commit(
        {"model.safetensors": b"x" * 2000, "a.gguf": b"y"}
    )
    code, out, _ = run("info", "org/gated", "--files")
    assert code == 0
    for said in (
        commit,
        "public, gated (manual)",
        f"{hub.endpoint}/org/gated",
        "mit",
        "gguf 1 B, safetensors 2.0 kB",
        "0 (0 B)",
        "a.gguf",
    ):
        assert said in out, said
    told = json.loads(run("info", "org/gated", "--json")[1])
    assert told["sizes"] == {"gguf": 1, "safetensors": 2000} and told["cached"] == 0


def test_login_whoami_logout(hub: HubServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = hub.token("alice", "write", ["club"])
    code, out, err = run("login", "--token", "-", stdin=f"{token}\n")
    assert code == 0 and "as alice" in out and "role write" in out and token not in out + err
    assert (tmp_path / "home" / "token").read_text() == token
    code, out, err = run("whoami")
    assert code == 0 and "alice" in out and "club" in out and str(tmp_path / "home" / "token") in out and token not in out + err
    told = json.loads(run("whoami", "--json")[1])
    assert told["name"] == "alice" and token not in json.dumps(told)
    assert run("logout")[1] == "the stored token is forgotten\n" and run("logout")[1] == "no token is stored\n"
    code, _, err = run("whoami")
    assert code == 5 and "nobody is logged in" in err and "hubclient login" in err


def test_a_stored_token_that_does_not_count_is_spoken_of(hub: HubServer, run: Run, alice: str) -> None:
    other = hub.token("bob")
    _, _, err = run("login", "--token", other)
    assert "counts before" in err
    _, out, err = run("whoami")
    assert "alice" in out and "HF_TOKEN" in out and "counts before the stored token" in err


def test_a_wrong_token_is_not_stored(hub: HubServer, run: Run, tmp_path: Path) -> None:
    code, out, err = run("login", "--token", "hf_" + "x" * 34)
    assert code == 5 and out == "" and "xxx" not in err and not (tmp_path / "home" / "token").exists()
