"""A cache that cannot be written, and one that several people share: what is there is of use, what is not is refused in a sentence.

Commands run in processes of their own that no privilege frees from the files' modes.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import checkpoints
import pytest
from cachelayouts import is_note, listing
from hubserver import HubServer
from running import environment
from soundness import faults

FILES = {"a.txt": b"a", "sub/b.bin": b"b" * 3000, "empty": b""}

# hubclient, once CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER are taken from what an exec gives root (prctl(2),
# PR_CAPBSET_DROP): then root is a user like others.
ORDINARY = """
import ctypes, os, sys
os.umask(int(sys.argv[1], 8))
if sys.argv[2]:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
for capability in (1, 2, 3):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "hubclient", *sys.argv[3:]])
"""
GROUP = 61_000

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="modes are held against by Linux's capabilities")


class User:
    """Somebody at a shell, held to modes.

    With a `number` it is one of several: what is theirs is this process's user's while a command of theirs runs, and only then.
    """

    def __init__(self, home: Path, cache: Path, endpoint: str, *, umask: int = 0o022, number: int | None = None) -> None:
        kept = environment(HF_HOME=str(home), HF_HUB_CACHE=str(cache), HF_ENDPOINT=endpoint)
        self._environment = {key: value for key, value in kept.items() if key not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
        self._umask, self._number, self._folder = f"{umask:o}", number, home.parent

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", ORDINARY, self._umask, "" if self._number is None else str(GROUP), *arguments]
        self._own(self._number, os.getuid())
        done = subprocess.run(line, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=120)
        self._own(os.getuid(), self._number)
        return done

    def _own(self, before: int | None, after: int | None) -> None:
        """Let what belongs to one user belong to another."""
        if before is not None and after is not None:
            for path in self._folder.parent.rglob("*"):
                if path.lstat().st_uid == before:
                    os.chown(path, after, -1, follow_symlinks=False)

    def does(self, *arguments: str) -> str:
        """What a command prints that must succeed."""
        done = self(*arguments)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (arguments, done)
        return done.stdout

    def is_refused(self, *arguments: str) -> str:
        """The sentence of a command that must be refused because of the system; what is planned may be told before."""
        done = self(*arguments)
        (first,) = [line for line in done.stderr.splitlines() if line.startswith("hubclient: ")]
        assert done.returncode == 5 and "Traceback" not in done.stderr and "fault of ours" not in first, (arguments, done)
        return first


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("served")) as running:
        folder = checkpoints.llama(tmp_path_factory.mktemp("made") / "llama")
        running.repo("org/model").commit({path.name: path for path in folder.iterdir()} | FILES)
        running.repo("org/other").commit(FILES)
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: HubServer) -> Iterator[Path]:
    """A folder with a home, in which modes are given back at the end."""
    server.clear()
    yield tmp_path
    for place, _, _ in os.walk(tmp_path):
        Path(place).chmod(0o755)


def protect(folder: Path) -> None:
    """Nobody may write anything in it."""
    for place, _, names in os.walk(folder, topdown=False):
        for path in [Path(place), *(Path(place, name) for name in names)]:
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


@pytest.mark.parametrize("home_too", [False, True])
def test_a_cache_that_cannot_be_written_is_of_use(folder: Path, server: HubServer, home_too: bool):
    cache = folder / "home" / "hub"
    user = User(folder / "home", cache, str(server.endpoint))
    snapshot = user.does("pull", "org/model").strip()
    user.does("lock", "org/model")
    if not home_too:
        user.does("cache", "ls")
    protect(folder / "home" if home_too else cache)
    before = listing(cache, is_note)
    server.clear()
    assert [row["repo"] for row in json.loads(user.does("cache", "ls", "--json"))["repositories"]] == ["org/model"]
    for command in (
        "show org/model",
        "stats",
        "verify",
        "repair",
        "gc --max-size 1 --grace 0 --dry-run",
        "prune --dry-run",
        "prune --yes",
    ):
        user.does("cache", *command.split())
    assert user.does("pull", "org/model").strip() == user.does("pull", "org/model", "--offline").strip() == snapshot
    assert "llama" in user.does("inspect", "org/model")
    user.does("convert", "org/model", "made.gguf", "--to", "gguf")
    user.does("sync", "--check")
    assert not server.asked("/resolve/")
    for command in ("pull org/other", "cache pin org/model", "cache rm org/model --yes", "cache gc --max-size 1 --grace 0 --yes"):
        assert "cannot be" in user.is_refused(*command.split()) and str(cache) in user.is_refused(*command.split())
    assert listing(cache, is_note) == before


def test_a_repository_that_cannot_be_written_keeps_nothing_else_back(folder: Path, server: HubServer):
    cache = folder / "hub"
    user = User(folder / "home", cache, str(server.endpoint))
    user.does("pull", "org/model")
    user.does("pull", "org/other")
    protect(cache / "models--org--model")
    before = listing(cache / "models--org--model")
    done = user("cache", "gc", "--max-size", "1", "--grace", "0", "--yes")
    assert done.returncode == 0 and "cannot be written" in done.stderr, done
    assert listing(cache / "models--org--model") == before and not (cache / "models--org--other").exists()


# Several people


@pytest.fixture
def shared(folder: Path) -> Path:
    """A cache of the first one, in a folder of several."""
    if os.getuid() != 0:
        pytest.skip("only root can run commands as several users")
    cache = folder / "hub"
    cache.mkdir()
    os.chown(cache, FIRST, GROUP)
    return cache


FIRST, SECOND = 60_001, 60_002


def somebody(cache: Path, number: int, server: HubServer, umask: int) -> User:
    home = cache.parent / str(number) / "huggingface"
    home.mkdir(parents=True)
    for place in (home, home.parent):
        os.chown(place, number, GROUP)
    return User(home, cache, str(server.endpoint), umask=umask, number=number)


def test_what_one_brought_others_use_and_do_not_write(shared: Path, server: HubServer):
    first, second = somebody(shared, FIRST, server, 0o022), somebody(shared, SECOND, server, 0o077)
    snapshot = first.does("pull", "org/model")
    before = listing(shared, is_note)
    server.clear()
    assert second.does("pull", "org/model") == snapshot == second.does("pull", "org/model", "--offline")
    for command in ("ls", "show org/model", "stats", "verify", "repair"):
        second.does("cache", *command.split())
    assert not server.asked("/resolve/")
    for command in ("pull org/other", "cache rm org/model --yes", "cache pin org/model"):
        assert "cannot be" in second.is_refused(*command.split())
    assert listing(shared, is_note) == before and not faults(shared)


def test_a_group_that_may_write_writes_together(shared: Path, server: HubServer):
    shared.chmod(0o2775)
    first, second = somebody(shared, FIRST, server, 0o002), somebody(shared, SECOND, server, 0o002)
    first.does("pull", "org/model", "--include", "a.txt")
    second.does("pull", "org/model")
    first.does("pull", "org/other")
    second.does("cache", "pin", "org/other")
    first.does("cache", "unpin", "org/other")
    second.does("cache", "rm", "org/other", "--yes")
    first.does("cache", "verify")
    first.does("cache", "rm", "org/model", "--yes")
    assert not faults(shared) and not list(shared.glob("models--*"))


def test_what_one_keeps_to_himself_is_refused_to_others_in_a_sentence(shared: Path, server: HubServer):
    shared.chmod(0o2775)
    first, second = somebody(shared, FIRST, server, 0o077), somebody(shared, SECOND, server, 0o022)
    first.does("pull", "org/model")
    for command in ("pull org/model", "pull org/model --offline"):
        assert "models--org--model" in second.is_refused(*command.split())
    second.does("pull", "org/other")
    assert {row["repo"] for row in json.loads(second.does("cache", "ls", "--json"))["repositories"]} >= {"org/other"}
    assert first.does("cache", "verify") == ""
