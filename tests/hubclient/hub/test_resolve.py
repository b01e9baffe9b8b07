"""Which commit a revision is and what it holds: asked of the Hub, kept, and offline of what is here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hubfaults import HOSTILE_NAMES
from hubserver import HubServer

from hubclient.cache.layout import RepoId
from hubclient.errors import AccessDenied, DamagedInput, NetworkFault, Offline, SourceMissing, UsageError
from hubclient.hub.client import Hub
from hubclient.hub.resolve import RepoFacts

FILES = {"config.json": b"{}", "sub/model.safetensors": b"w" * 100}


@pytest.fixture
def offline(hub: Hub, server: HubServer) -> Hub:
    """The same cache without a network."""
    return Hub(server.endpoint, cache=hub.cache, offline=True)


def test_a_branch_a_tag_and_a_commit_are_the_same(hub: Hub, server: HubServer):
    repo = server.repo("org/name")
    commit = repo.commit(FILES)
    repo.tag("v1")
    repo.branch("feature/x")
    for revision in ("main", "v1", "feature/x", commit, commit[:10]):
        resolved = hub.resolve(f"org/name@{revision}")
        assert (resolved.commit, dict(resolved.entries)) == (commit, repo.entries())
    assert hub.resolve("org/name@v1").ref == "v1"
    assert hub.resolve(f"org/name@{commit[:10]}").ref is None
    assert hub.resolve("org/name").facts == RepoFacts("org/name", modified="2026-01-01T00:00:00.000Z")
    assert not hub.cache.exists()


def test_datasets_are_asked_for_as_such(hub: Hub, server: HubServer):
    commit = server.repo("org/name", type="dataset").commit({"train.csv": b"1"})
    assert hub.resolve("datasets/org/name").commit == commit
    with pytest.raises(AccessDenied):
        hub.resolve("org/name")


def test_a_full_commit_with_a_kept_list_takes_no_request(hub: Hub, server: HubServer):
    commit = server.repo("org/name").commit(FILES)
    hub.pull("org/name", include=["config.json"])
    server.clear()
    assert set(hub.resolve(f"org/name@{commit}").entries) == set(FILES)
    assert not server.requests
    hub.resolve("org/name")
    assert len(server.requests) == 1


def test_a_broken_list_is_asked_for_again_and_offline_refused(hub: Hub, server: HubServer, offline: Hub):
    commit = server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    tree = pulled.snapshot.parent.parent / "trees" / f"{commit}.json"
    tree.write_text("{broken")
    with pytest.raises(DamagedInput, match=str(tree)):
        offline.resolve("org/name")
    assert hub.resolve("org/name").listed
    hub.pull("org/name")
    assert offline.resolve("org/name").complete


def test_many_pages_are_one_list(cache: Path, tmp_path: Path):
    with HubServer(root=tmp_path / "paged", page_size=7) as server:
        server.repo("org/name").commit({f"f{number}": str(number) for number in range(30)})
        assert len(Hub(server.endpoint, cache=cache).resolve("org/name").entries) == 30
        assert len(server.asked("/tree/")) == 5


def test_what_is_not_there_is_told(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    with pytest.raises(SourceMissing, match="org/name has no revision 'nope'"):
        hub.resolve("org/name@nope")
    with pytest.raises(AccessDenied, match="org/none"):
        hub.resolve("org/none")


def test_a_renamed_repository_is_found_and_its_name_told(hub: Hub, server: HubServer):
    server.repo("org/old").commit(FILES)
    server.rename("org/old", "org/new")
    pulled = hub.pull("org/old")
    assert pulled.resolved.facts is not None and pulled.resolved.facts.name == "org/new"
    assert pulled.notes == ("org/old is called org/new now",)
    assert (hub.cache / "models--org--old").is_dir()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_hostile_name_is_taken(hub: Hub, server: HubServer, name: str):
    server.repo("org/name").commit({"config.json": b"{}", name: b"x"})
    with pytest.raises(DamagedInput, match="org/name"):
        hub.pull("org/name")
    assert not hub.cache.exists()


@pytest.mark.parametrize(
    "names", [("a.txt", "A.txt"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("sub/x", "Sub/X"), ("A", "a/b")]
)
def test_names_that_a_disk_would_confuse_are_refused(hub: Hub, server: HubServer, names: tuple[str, str]):
    server.repo("org/name").commit(dict.fromkeys(names, b"x"))
    with pytest.raises(DamagedInput, match="org/name"):
        hub.pull("org/name")
    assert not hub.cache.exists()


FILE = {"type": "file", "path": "x", "oid": "a" * 40, "size": 1}


@pytest.mark.parametrize(
    "entry",
    [
        FILE | {"size": -1},
        FILE | {"size": 1 << 63},
        FILE | {"size": "1"},
        FILE | {"size": True},
        FILE | {"oid": "../" + "a" * 37},
        FILE | {"oid": "A" * 40},
        FILE | {"oid": None},
        FILE | {"path": None},
        FILE | {"lfs": {"oid": "a" * 40, "size": 1}},
        FILE | {"lfs": {"oid": "b" * 63, "size": 1}},
        FILE | {"lfs": "x"},
        FILE | {"lfs": {"oid": 5, "size": 1}},
        FILE | {"xetHash": "/etc"},
        FILE | {"xetHash": 1},
    ],
)
def test_no_number_or_digest_that_cannot_be_is_taken(hub: Hub, server: HubServer, entry: dict[str, object]):
    server.repo("org/name").commit(FILES)
    server.fault("listing", path="*/tree/*", entries=[entry])
    with pytest.raises(DamagedInput, match="org/name@"):
        hub.resolve("org/name")


def test_an_answer_without_a_commit_is_refused(hub: Hub, server: HubServer):
    server.repo("org/empty")
    with pytest.raises((NetworkFault, SourceMissing)):
        hub.resolve("org/empty")


def test_offline_what_was_pulled_is_known(hub: Hub, server: HubServer, offline: Hub):
    repo = server.repo("org/name")
    commit = repo.commit(FILES)
    repo.branch("feature/x")
    hub.pull("org/name")
    hub.pull("org/name@feature/x")
    server.clear()
    for revision in ("main", "feature/x", commit, commit[:9]):
        assert offline.resolve(f"org/name@{revision}").commit == commit
    assert not server.requests


def test_offline_what_is_not_here_is_told_with_the_command(hub: Hub, server: HubServer, offline: Hub):
    server.repo("org/name").commit(FILES)
    with pytest.raises(Offline, match="org/name is not in the cache") as caught:
        offline.resolve("org/name")
    assert caught.value.hint == "`hubclient pull org/name` fetches it"
    hub.pull("org/name")
    with pytest.raises(Offline, match=r"org/name@v2 is not in the cache .*; of org/name there are 'main'"):
        offline.resolve("org/name@v2")


def test_offline_two_commits_that_begin_alike_are_not_guessed(hub: Hub, server: HubServer, offline: Hub):
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    (pulled.snapshot.parent / (pulled.commit[:12] + "0" * 28)).mkdir()
    with pytest.raises(UsageError, match="begins 2 commits"):
        offline.resolve(f"org/name@{pulled.commit[:8]}")


def test_offline_without_a_list_the_snapshot_tells(hub: Hub, server: HubServer, offline: Hub):
    repo = server.repo("org/name")
    commit = repo.commit(FILES)
    pulled = hub.pull("org/name")
    (pulled.snapshot.parent.parent / "trees" / f"{commit}.json").unlink()
    (pulled.snapshot / "dangling").symlink_to("../../blobs/" + "0" * 40)
    resolved = offline.resolve("org/name")
    assert not resolved.complete and set(resolved.entries) == set(FILES)
    assert {name: (e.size, e.digest) for name, e in resolved.entries.items()} == {
        name: (e.size, e.digest) for name, e in repo.entries().items()
    }
    again = offline.pull("org/name")
    assert again.snapshot == pulled.snapshot and "cannot be told offline" in again.notes[0]
    with pytest.raises(Offline, match="nothere"):
        offline.pull("org/name:nothere")


@pytest.mark.parametrize("revision", ["../x", "/x", "a\0b", "con", "a//b"])
def test_no_revision_is_a_way_out(hub: Hub, revision: str):
    from hubclient.hub.resolve import resolve

    with pytest.raises(UsageError):
        resolve(hub.session, hub.cache, RepoId("org/name"), revision)
