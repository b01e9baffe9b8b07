"""Offline no command opens a connection: each works with what is here, or refuses in a sentence that says what is missing.

Every command runs in a process in which whatever leads to a connection is a trap that notes who walked into it. What commands
there are is asked of the plugin host, so that a new one fails here until it has a row in `CASES`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import checkpoints
import click
import pytest
from hubserver import HubServer
from running import environment

from hubclient.hub.client import Hub
from hubclient.plugins import get_host

TRAP = """
import os, socket, sys

def trap(name):
    def caught(*arguments, **options):
        with open(os.environ["TRAPPED"], "a") as file:
            file.write(f"{name} {arguments[-1]!r}\\n")
        raise OSError("a connection was about to be opened")
    return caught

class Trapped(socket.socket):
    connect, connect_ex, sendto = (trap(f"socket.{name}") for name in ("connect", "connect_ex", "sendto"))

socket.socket = socket.SocketType = Trapped
for name in ("create_connection", "getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
    setattr(socket, name, trap(f"socket.{name}"))

from hubclient.cli import main
main()
"""


@dataclass(frozen=True)
class Case:
    """A command line, how it ends, and what it says on either stream."""

    line: str
    code: int = 0
    says: tuple[str, ...] = ()


def works(line: str, *says: str) -> Case:
    return Case(line, 0, says)


def refuses(line: str, *says: str) -> Case:
    """With the exit code of what the surroundings do not allow, and a word on how it would go."""
    return Case(line, 5, (*says, "offline"))


MISSING = "hubclient pull org/part"
CASES: Mapping[str, tuple[Case, ...]] = {
    "convert": (
        works("convert org/llama out.gguf --to gguf", "out.gguf"),
        works("convert org/llama@{commit} --to mlx --dry-run", "would write"),
        works("convert org/part out --to safetensors --only tokenizer"),
        works("convert made out.gguf --to gguf"),
        refuses("convert org/part --to gguf", "model.safetensors", MISSING),
        refuses("convert org/nowhere --to gguf", "org/nowhere"),
    ),
    "inspect": (works("inspect org/llama", "LlamaForCausalLM"), refuses("inspect org/part", "model.safetensors", MISSING)),
    "verify": (
        works("verify org/llama --against made", "the same model"),
        refuses("verify org/llama --against org/part", "model.safetensors", MISSING),
        refuses("verify org/nowhere --against org/llama", "org/nowhere"),
    ),
    "place": (
        works("place org/llama --device cpu=1G", "model.layers.0"),
        refuses("place org/part --device cpu=1G", "model.safetensors", MISSING),
    ),
    "imatrix": (refuses("imatrix org/part --text text.txt", "model.safetensors", MISSING),),
    "pull": (
        works("pull org/llama", "{commit}"),
        works("pull org/llama --for gguf", "{commit}"),
        works("pull org/part --include *.json"),
        refuses("pull org/part", "model.safetensors", MISSING),
        refuses("pull org/part --for gguf", "model.safetensors", MISSING),
        refuses("pull org/nowhere", "org/nowhere"),
    ),
    "lock": (works("lock org/llama -o new.lock", "{short}"), refuses("lock org/nowhere", "org/nowhere")),
    "sync": (works("sync"), refuses("sync part.lock", "model.safetensors")),
    "push": (refuses("push made org/new"),),
    "search": (refuses("search llama"),),
    "info": (works("info org/llama", "{short}"), refuses("info org/nowhere")),
    "login": (refuses("login --token hf_none"),),
    "logout": (works("logout"),),
    "whoami": (refuses("whoami"),),
    "cache ls": (works("cache ls", "org/llama"),),
    "cache show": (works("cache show org/llama", "model.safetensors"),),
    "cache stats": (works("cache stats"),),
    "cache verify": (works("cache verify"),),
    "cache repair": (works("cache repair"),),
    "cache pin": (works("cache pin org/llama"),),
    "cache unpin": (works("cache unpin org/llama"),),
    "cache rm": (works("cache rm org/part --yes"),),
    "cache prune": (works("cache prune --yes"),),
    "cache gc": (works("cache gc --max-size 1 --dry-run"),),
    "recipes ls": (works("recipes ls", "Q4_K_M"),),
    "recipes show": (works("recipes show Q4_K_M"),),
    "plugins ls": (works("plugins ls", "gguf"),),
    "plugins show": (works("plugins show gguf", "gguf"),),
    "plugins doctor": (works("plugins doctor"),),
    "plugins test": (works("plugins test gpt2", "passed"),),
    "plugins enable": (works("plugins enable gpt2"),),
    "plugins disable": (works("plugins disable gpt2"),),
}


def commands(command: click.Command, name: str) -> Iterator[str]:
    """A command's name, or those of all below a group."""
    if not isinstance(command, click.Group):
        yield name
        return
    for below, inner in command.commands.items():
        yield from commands(inner, f"{name} {below}")


def all_commands() -> list[str]:
    host = get_host()
    found = ((name, host.command(name)) for name in host.command_names())
    return [leaf for name, command in found if command is not None for leaf in commands(command, name)]


@dataclass(frozen=True)
class World:
    """A folder to work in, with a cache that was filled when there was a Hub."""

    folder: Path
    commit: str

    def copy(self, folder: Path) -> World:
        shutil.copytree(self.folder, folder, symlinks=True)
        return World(folder, self.commit)

    def run(self, line: str, **more: str) -> tuple[subprocess.CompletedProcess[str], str]:
        """A command line after `hubclient`, and what it walked into."""
        kept = {name: text for name, text in environment().items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFF"))}
        own = {
            "HF_HOME": str(self.folder / "home"),
            "HF_ENDPOINT": "http://192.0.2.1:9",  # of no machine (RFC 5737), and without a name that could be looked up
            "HUBCLIENT_CONFIG_DIR": str(self.folder / "config"),
            "TRAPPED": str(self.folder / "trapped"),
        }
        words = line.format(commit=self.commit).split()
        done = subprocess.run(
            [sys.executable, "-c", TRAP, *words],
            cwd=self.folder, env={**kept, **own, **more}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        trapped = self.folder / "trapped"
        return done, trapped.read_text() if trapped.exists() else ""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> World:
    """org/llama is here as a whole, of org/part there are the small files."""
    folder = tmp_path_factory.mktemp("offline") / "world"
    made = checkpoints.llama(folder / "made")
    files = {path.name: path for path in made.iterdir()}
    (folder / "text.txt").write_text("some words\n" * 100)
    with pytest.MonkeyPatch.context() as patch, HubServer(root=tmp_path_factory.mktemp("served")) as server:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE"))]:
            patch.delenv(name)
        patch.setenv("HF_HOME", str(folder / "home"))
        patch.setenv("HF_ENDPOINT", server.endpoint)
        commit = server.repo("org/llama").commit(files)
        server.repo("org/part").commit(files)
        hub = Hub()
        hub.pull("org/llama")
        hub.pull("org/part", include=["*.json"])
        hub.lock(["org/llama"], folder / "hubclient.lock")
        hub.lock(["org/part"], folder / "part.lock")
    shutil.rmtree(folder / "home" / "hubclient", ignore_errors=True)
    return World(folder, commit)


def test_every_command_says_here_what_it_does_offline():
    assert sorted(all_commands()) == sorted(CASES)


@pytest.mark.parametrize("case", [case for name in CASES for case in CASES[name]], ids=lambda case: case.line)
def test_no_command_opens_a_connection(filled: World, tmp_path: Path, case: Case):
    world = filled.copy(tmp_path / "world")
    done, trapped = world.run(f"{case.line} --offline")
    assert trapped == ""
    said = done.stdout + done.stderr
    assert done.returncode == case.code, said
    for text in case.says:
        assert text.format(commit=world.commit, short=world.commit[:12]) in said
    assert "Traceback" not in said and "a fault of ours" not in said
    if case.code:
        assert done.stdout == "" and 1 <= len(done.stderr.splitlines()) <= 3, done.stderr


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("--offline pull org/part", {}),
        ("pull --offline org/part", {}),
        ("pull org/part", {"HF_HUB_OFFLINE": "1"}),
        ("pull org/part", {"HF_HUB_OFFLINE": "yes"}),
        ("pull org/part", {"TRANSFORMERS_OFFLINE": "1"}),
        ("--offline inspect org/part", {}),
        ("inspect --offline org/part", {}),
        ("inspect org/part", {"HF_HUB_OFFLINE": "ON"}),
    ],
)
def test_offline_is_asked_for_in_many_ways(filled: World, tmp_path: Path, line: str, more: dict[str, str]):
    done, trapped = filled.copy(tmp_path / "world").run(line, **more)
    assert (done.returncode, trapped) == (5, "") and "offline" in done.stderr


@pytest.mark.parametrize("line", ["inspect org/part", "search llama"])
def test_the_trap_works(filled: World, tmp_path: Path, line: str):
    done, trapped = filled.copy(tmp_path / "world").run(line, HF_TOKEN="hf_none", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode == 5 and "socket." in trapped
