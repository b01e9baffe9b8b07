"""A hub that means harm: names of files, revisions and repositories, indexes, redirects and lock files that lead elsewhere.

Each is refused in one sentence with its exit code, before anything is written; nothing outside the cache is touched.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from cachelayouts import listing
from hubfaults import HOSTILE_NAMES
from hubserver import HubServer
from inprocess import hubclient
from running import command
from soundness import faults
from watching import watching

CONFIG = b'{"model_type": "llama"}'
NAMES = (
    *HOSTILE_NAMES,
    "a/..",
    "//host/share",
    "~/../x",
    "COM1",
    "con.txt",
    "a/NUL",
    "lpt¹",
    "CONIN$",
    "a:b",
    "a|b",
    "a*",
    "<a>",
    "a /b",
    "a./b",
    " ",
    "tab\tbed",
    "bell\x07",
    "del\x7f",
    "\u202etxt.exe",
    "zero\u200bwidth",
    "line\u2028",
    "a/" * 600 + "b",
    "é" * 128,
    "",
)
CROSSING: tuple[tuple[str, ...], ...] = (
    ("README.md", "readme.MD"),
    ("caf\u00e9.txt", "cafe\u0301.txt"),
    ("stra\u00dfe", "STRASSE"),
    ("a/b", "A/b"),
    ("a", "a/b"),
    ("A", "a/b"),
    ("a/b", "a/b/c/d"),
)
ASKING = (
    ("pull", "org/name"),
    ("pull", "org/name", "--include", "config.json"),
    ("pull", "org/name:config.json"),
    ("pull", "org/name", "--for", "gguf"),
    ("lock", "org/name"),
    ("inspect", "org/name"),
    ("convert", "org/name", "out.gguf", "--to", "gguf"),
)


@pytest.fixture
def home(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with the cache and the home deep inside, so that a name with a few `..` is still in this folder."""
    place = tmp_path / "1" / "2" / "3" / "4" / "5"
    place.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in (("HF_HOME", place / "home"), ("HF_HUB_CACHE", place / "hub"), ("HF_ENDPOINT", server.endpoint)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(place)
    return place


def files_in(folder: Path) -> set[str]:
    """Whatever is in a folder but folders and what an HTTP client or a catalog keeps in the home."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return {path for path in found if "/home/" not in path}


# Names of files


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_of_a_file_is_refused_before_anything_is_written(home: Path, server: HubServer, tmp_path: Path, name: str):
    server.repo("org/name").commit({"config.json": CONFIG, "model.safetensors": b"w" * 100, name: b"evil"})
    for arguments in ASKING:
        said = hubclient(*arguments)
        assert said.code == 4 and "org/name" in said.sentence, (arguments, said)
    assert not files_in(tmp_path) and not Path("/absolute").exists()
    assert not server.asked("/resolve/")


@pytest.mark.parametrize("names", CROSSING, ids=lambda names: names[0] if isinstance(names, str) else " ".join(names))
def test_names_that_a_disk_would_confuse_are_refused(home: Path, server: HubServer, tmp_path: Path, names: tuple[str, ...]):
    server.repo("org/name").commit({"config.json": CONFIG} | {name: name.encode() for name in names})
    for arguments in ASKING[:3]:
        said = hubclient(*arguments)
        assert said.code == 4 and "org/name" in said.sentence, said
    assert not files_in(tmp_path)


def test_a_user_meets_one_sentence(home: Path, server: HubServer):
    server.repo("org/name").commit({"config.json": CONFIG, "../../../../escaped\x1b[31m": b"evil"})
    done = command("pull", "org/name", cwd=home)
    first, *hint = done.stderr.splitlines()
    assert done.returncode == 4 and not done.stdout and len(hint) <= 1 and first.isprintable(), done
    assert first.startswith("hubclient: org/name@") and "escaped" in first


# Entries of the list that lie


@pytest.mark.parametrize(
    "entry",
    [
        {"oid": "../../x"},
        {"oid": "A" * 40},
        {"oid": "a" * 39},
        {"oid": None},
        {"size": -1},
        {"size": "1"},
        {"size": 1 << 70},
        {"size": 1.5},
        {"size": True},
        {"lfs": {"oid": "/etc/passwd", "size": 1}},
        {"lfs": {"oid": "a" * 64, "size": -5}},
        {"lfs": {"oid": "a" * 64}},
        {"lfs": "sha256"},
        {"lfs": {"oid": "a" * 64, "size": 1}, "xetHash": "../x"},
        {"path": 5},
        {"path": None},
        {"path": "\ud800"},
    ],
)
def test_an_entry_that_cannot_be_is_refused(home: Path, server: HubServer, tmp_path: Path, entry: dict[str, Any]):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.fault("listing", path="/tree/", entries=[{"path": "other.bin", **entry}])
    said = hubclient("pull", "org/name")
    assert said.code in (4, 5) and "org/name" in said.sentence, said
    assert not files_in(tmp_path)


def test_a_list_without_an_end_ends(home: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.fault("listing", path="/tree/", value="endless")
    assert hubclient("pull", "org/name").code in (4, 5) and len(server.requests) < 50


@pytest.mark.parametrize(
    "link", ["http://[::1", "file:///etc/passwd", "https://huggingface.co", "http://example.com/x", "//", "\\\\x"]
)
def test_a_list_that_goes_on_elsewhere_is_refused(home: Path, server: HubServer, tmp_path: Path, link: str):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.fault("headers", path="/tree/", headers={"Link": f'<{link}>; rel="next"'})
    said = hubclient("pull", "org/name")
    assert said.code in (4, 5) and said.sentence, said
    assert not files_in(tmp_path)


@pytest.mark.parametrize("sha", ["../../../../x", "", "main", None, 5, "g" * 40, "A" * 40, "a" * 41, ["a" * 40]])
def test_a_commit_that_is_none_is_refused(home: Path, server: HubServer, tmp_path: Path, sha: object):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.repo("org/name").details = {"sha": sha}
    said = hubclient("pull", "org/name")
    assert said.code in (4, 5) and "org/name" in said.sentence, said
    assert not files_in(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "org/../x", "/etc", "org/name/more", "", "a\x1b[0m", "x" * 500])
def test_the_name_that_a_repository_is_said_to_have_now_is_no_path(home: Path, server: HubServer, tmp_path: Path, name: str):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.repo("org/name").details = {"id": name, "modelId": name}
    assert hubclient("pull", "org/name").code == 0
    assert {path.name for path in (home / "hub").iterdir()} <= {"models--org--name", "CACHEDIR.TAG", ".locks"} and not faults(
        home / "hub"
    )


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://x/y",
        "//",
        "http://",
        "gopher://x",
        "javascript:x",
        "http://[::1",
        "\\\\x\\y",
    ],
)
def test_a_redirect_to_anything_else_is_refused(home: Path, server: HubServer, tmp_path: Path, location: str):
    server.repo("org/name").commit({"config.json": CONFIG})
    server.fault("redirect", path="/resolve/", location=location)
    said = hubclient("pull", "org/name")
    assert said.code in (4, 5) and said.sentence, said
    assert not [name for name in files_in(home / "hub") if "/snapshots/" in name or "/refs/" in name]


# Names of revisions and repositories


@pytest.mark.parametrize(
    "revision",
    ["../../x", "/abs", "a/../b", "..", ".", "a//b", "a\0b", "aux", "x.", "\\x", "a" * 2000, "refs/../../../x", "\u202e"],
)
def test_a_hostile_revision_is_wrong_usage(home: Path, server: HubServer, tmp_path: Path, revision: str):
    server.repo("org/name").commit({"config.json": CONFIG})
    for words in (["pull"], ["lock"], ["cache", "rm", "--yes"], ["cache", "show"], ["cache", "pin"], ["inspect"]):
        said = hubclient(*words, f"org/name@{revision}")
        assert said.code in (2, 5) and said.sentence, said
    assert not files_in(tmp_path) and not server.requests


@pytest.mark.parametrize(
    "name",
    [
        "../name",
        "org/../x",
        "a/b/c",
        "/etc/passwd",
        "org/.git",
        "-x/y",
        "a..b",
        "org/na me",
        "org/x\0y",
        "models--a--b",
        "x" * 200,
    ],
)
def test_a_hostile_repository_is_refused(home: Path, server: HubServer, tmp_path: Path, name: str):
    for words in (
        ["pull", "--"],
        ["lock", "--"],
        ["cache", "rm", "--yes", "--"],
        ["cache", "show", "--"],
        ["cache", "pin", "--"],
    ):
        said = hubclient(*words, name)
        assert said.code in (2, 5) and said.sentence, said
    assert not files_in(tmp_path) and not server.requests


# Index files


@pytest.mark.parametrize(
    "shard",
    ["../../../../../secret.safetensors", "/secret.safetensors", "C:\\x.safetensors", "..\\x.safetensors", "a\0b", "", "nul"],
)
def test_an_index_that_points_outside_is_refused_and_nothing_outside_is_read(
    home: Path, server: HubServer, tmp_path: Path, shard: str
):
    folder = checkpoints.llama(tmp_path / "llama")
    outside = tmp_path / "outside"
    outside.mkdir()
    weights = (folder / "model.safetensors").read_bytes()
    (outside / "secret.safetensors").write_bytes(weights)
    shard = str(outside / "secret.safetensors") if shard.startswith("/") else shard
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": shard}}
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "model.safetensors"}
    server.repo("org/name").commit(files | {"model.safetensors.index.json": json.dumps(index).encode()})
    before = listing(outside)
    with watching(outside) as seen:
        for arguments in ASKING[3:4] + ASKING[5:]:
            said = hubclient(*arguments)
            assert said.code == 4 and "model.safetensors.index.json" in said.sentence, said
        assert hubclient("pull", "org/name").code == 0, "as a set of files it is harmless"
        for arguments in ASKING[5:]:
            assert hubclient(*arguments, "--offline").code == 4
    assert not seen and listing(outside) == before and not (home / "out.gguf").exists()


# Lock files


@pytest.mark.parametrize("name", ["../escaped", "/abs", "C:\\x", "a\0b", "nul", "a" * 5000, "", "a/../../b", "x."])
def test_a_lock_file_with_a_hostile_name_is_refused(home: Path, server: HubServer, tmp_path: Path, name: str):
    server.repo("org/name").commit({"config.json": CONFIG})
    assert hubclient("lock", "org/name").code == 0
    path = home / "hubclient.lock"
    told = json.loads(path.read_text())
    (entry,) = next(value for value in told.values() if isinstance(value, list))
    entry["files"][name] = entry["files"]["config.json"]
    path.write_text(json.dumps(told))
    server.clear()
    for arguments in (["sync"], ["sync", "--offline"], ["lock"]):
        said = hubclient(*arguments)
        assert said.code == 4 and "hubclient.lock" in said.sentence, said
    assert files_in(tmp_path) == {"1/2/3/4/5/hubclient.lock"} and not server.requests


@pytest.mark.parametrize("key", ["repo", "type", "revision", "commit"])
@pytest.mark.parametrize("value", ["../../x", "/abs", "", "a\0b", 5, None, ["x"], "x" * 5000])
def test_a_lock_file_that_names_elsewhere_is_refused(home: Path, server: HubServer, tmp_path: Path, key: str, value: object):
    server.repo("org/name").commit({"config.json": CONFIG})
    assert hubclient("lock", "org/name").code == 0
    path = home / "hubclient.lock"
    told = json.loads(path.read_text())
    (entry,) = next(found for found in told.values() if isinstance(found, list))
    assert key in entry
    entry[key] = value
    path.write_text(json.dumps(told))
    server.clear()
    said = hubclient("sync")
    assert said.code == 4 and "hubclient.lock" in said.sentence, said
    assert files_in(tmp_path) == {"1/2/3/4/5/hubclient.lock"} and not server.requests


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b'"x"',
        b"{",
        b'{"a":' * 100_000,
        b"\xff\xfe{}",
        b'{"version": 99}',
        b"1" * 10_000,
        b'{"version": 1e999}',
    ],
)
def test_a_lock_file_of_nonsense_is_refused(home: Path, server: HubServer, content: bytes):
    (home / "hubclient.lock").write_bytes(content)
    for arguments in (["sync"], ["lock"], ["lock", "org/name"], ["sync", "--offline"]):
        said = hubclient(*arguments)
        assert said.code in (3, 4) and "hubclient.lock" in said.sentence, said
    assert (home / "hubclient.lock").read_bytes() == content and not server.requests
