"""Search, and what is known of a repository on the Hub and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hubserver import HubServer

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.errors import AccessDenied, NetworkFault, Offline, SourceMissing, UsageError
from hubclient.hub.net.patience import Patience
from hubclient.hub.net.session import Session
from hubclient.hub.search import Info, info, search

CONFIG = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'


@pytest.fixture
def stranger(server: HubServer, cache: Path) -> Session:
    return session(server, False)


def session(server: HubServer, token: str | bool, **options: bool) -> Session:
    return Session.of(server.endpoint, token, patience=Patience(tries=2, first=0.001, longest=0.001), **options)


def fill(server: HubServer) -> None:
    server.repo("org/llama-gguf", downloads=5, labels=("license:mit",)).commit({"a.gguf": b"x"})
    server.repo("org/llama", downloads=9).commit({"model.safetensors": b"x", "config.json": CONFIG})
    server.repo("other/qwen", downloads=7, gated="manual").commit({"model.safetensors": b"x"})
    server.repo("org/llama-secret", private=True).commit({"model.safetensors": b"x"})


def test_found_by_words_in_the_order_asked_for(server: HubServer, stranger: Session) -> None:
    fill(server)
    found = search(stranger, "LLAMA")
    assert [item.name for item in found] == ["org/llama", "org/llama-gguf"]
    assert found[0].downloads == 9 and found[0].formats == ("safetensors",) and found[0].updated and not found[0].private
    assert found[1].licence == "mit" and found[1].formats == ("gguf",)


def test_filters_authors_and_limits(server: HubServer, stranger: Session) -> None:
    fill(server)
    assert [item.name for item in search(stranger, filter="gguf")] == ["org/llama-gguf"]
    assert [item.name for item in search(stranger, filter=["safetensors"], author="other")] == ["other/qwen"]
    assert [item.name for item in search(stranger, limit=1)] == ["org/llama"]
    assert search(stranger, "qwen")[0].gated == "manual" and search(stranger, "none") == ()


def test_many_pages(server: HubServer, stranger: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubclient.hub.search._PAGE", 2)
    fill(server)
    assert len(search(stranger, limit=3)) == 3 and len(server.asked("/api/models?")) == 2


def test_ones_own_private_ones_are_found(server: HubServer, cache: Path) -> None:
    fill(server)
    found = search(session(server, server.token("org")), "secret")
    assert [(item.name, item.private) for item in found] == [("org/llama-secret", True)]


def test_searches_that_cannot_be(server: HubServer, stranger: Session) -> None:
    with pytest.raises(UsageError, match="is no order"):
        search(stranger, sort="size")
    with pytest.raises(UsageError, match="limit"):
        search(stranger, limit=0)
    with pytest.raises(Offline, match="search needs the Hub"):
        search(session(server, False, offline=True), "llama")
    assert not server.requests


def test_what_the_hub_says_and_what_is_here(server: HubServer, stranger: Session, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    repo = server.repo("org/llama", labels=("license:mit",), downloads=3)
    commit = repo.commit(
        {"config.json": CONFIG, "model.safetensors": b"x" * 100, "pytorch_model.bin": b"y" * 50, "README.md": b"hi"}
    )
    repo.tag("v1")
    hf_hub_download("org/llama", "model.safetensors", endpoint=server.endpoint, cache_dir=cache)
    found = info(stranger, cache, RepoId("org/llama"))
    assert (found.commit, found.private, found.gated, found.licence, found.downloads) == (commit, False, None, "mit", 3)
    assert found.refs == {"main": commit, "v1": commit} and not found.offline
    assert found.sizes == {"other": len(CONFIG) + 2, "pytorch": 50, "safetensors": 100} and found.size == 152 + len(CONFIG)
    assert [file.name for file in found.files if file.cached] == ["model.safetensors"] and found.cached == 100
    assert (found.architecture, found.supported) == ("LlamaForCausalLM", True)


def test_an_architecture_that_nobody_knows(server: HubServer, stranger: Session, cache: Path) -> None:
    server.repo("org/odd").commit({"config.json": b'{"architectures": ["OddForCausalLM"]}'})
    server.repo("org/gguf", details={"gguf": {"architecture": "llama"}}).commit({"a.gguf": b"x"})
    server.repo("org/none").commit({"a.txt": b"x"})
    odd, gguf, none = (info(stranger, cache, RepoId(f"org/{name}")) for name in ("odd", "gguf", "none"))
    assert (odd.architecture, odd.supported) == ("OddForCausalLM", False)
    assert (gguf.architecture, gguf.supported) == ("llama", True)
    assert (none.architecture, none.supported) == (None, None)


def test_a_gate_names_the_page_of_its_licence(server: HubServer, stranger: Session, cache: Path) -> None:
    server.repo("org/gated", gated=True).commit({"model.safetensors": b"x"})
    found = info(stranger, cache, RepoId("org/gated"))
    assert found.gated == "auto" and found.licence_page == f"{server.endpoint}/org/gated" and found.size == 1


def test_what_is_not_there(server: HubServer, stranger: Session, cache: Path) -> None:
    fill(server)
    with pytest.raises(AccessDenied, match="org/llama-secret"):
        info(stranger, cache, RepoId("org/llama-secret"))
    mine = session(server, server.token("org"))
    assert info(mine, cache, RepoId("org/llama-secret")).private
    with pytest.raises(SourceMissing, match="org/none"):
        info(mine, cache, RepoId("org/none"))
    with pytest.raises(SourceMissing, match="no revision 'v9'"):
        info(mine, cache, RepoId("org/llama"), "v9")


def test_offline_the_cache_tells(server: HubServer, cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    commit = server.repo("org/llama").commit({"config.json": CONFIG, "model.safetensors": b"x" * 100})
    for name in ("config.json", "model.safetensors"):
        hf_hub_download("org/llama", name, endpoint=server.endpoint, cache_dir=cache)
    server.clear()
    away = session(server, False, offline=True)
    found = info(away, cache, RepoId("org/llama"))
    assert found.offline and found.commit == commit and found.refs == {"main": commit} and found.private is None
    assert found.cached == 100 + len(CONFIG) and (found.architecture, found.supported) == ("LlamaForCausalLM", True)
    with pytest.raises(Offline, match="org/none"):
        info(away, cache, RepoId("org/none"))
    assert not server.requests


def test_hostile_names_are_shown_and_nothing_else(server: HubServer, stranger: Session, cache: Path) -> None:
    server.repo("org/bad").commit({"../../etc/passwd": b"x", "a\x1b[2J.txt": b"y"})
    found = info(stranger, cache, RepoId("org/bad"))
    assert {file.name for file in found.files} == {"../../etc/passwd", "a\x1b[2J.txt"} and found.cached == 0
    assert not RepoPaths(cache, RepoId("org/bad")).path.exists()


@pytest.mark.parametrize("answer", ["[]", "{}", '{"sha": 1}', '{"sha": "x"}', "null", "not json"])
def test_answers_that_are_no_use(stranger: Session, cache: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    from hubclient.hub.net import session as module

    monkeypatch.setattr(module, "_whole", lambda *_: answer.encode())
    monkeypatch.setattr(module.Session, "_get", _answered)
    with pytest.raises(NetworkFault):
        info(stranger, cache, RepoId("org/llama"))


def _answered(*_arguments: object, **_options: object) -> object:
    from contextlib import nullcontext
    from types import SimpleNamespace

    return nullcontext(SimpleNamespace(response=SimpleNamespace(links={}), url=""))


def test_odd_fields_are_nothing(server: HubServer, stranger: Session, cache: Path) -> None:
    odd: dict[str, Any] = {
        "downloads": "many",
        "likes": None,
        "gated": 7,
        "cardData": [1],
        "config": "x",
        "gguf": [],
        "pipeline_tag": {},
    }
    server.repo("org/odd", details=odd).commit({"a.txt": b"x"})
    found = info(stranger, cache, RepoId("org/odd"))
    assert isinstance(found, Info) and (found.downloads, found.likes, found.gated, found.task) == (None, None, None, None)
    assert search(stranger, "odd")[0].downloads is None
