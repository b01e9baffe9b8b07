"""A tiny checkpoint to work on, and the command line in this process, for tests of what it says when it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import checkpoints
import pytest
from hubserver import HubServer
from running import Failing

from hubclient import Checkpoint
from hubclient.cli import main


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def f16(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What it is as a GGUF of type F16."""
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(
        tmp_path_factory.mktemp("f16") / "a.gguf", format="gguf", type="f16"
    )
    return path.read_bytes()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Failing:
    """Run a command that fails; returns its exit code and what it says, which is never a traceback and never on stdout."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hubclient", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert captured.out == "" and "Traceback" not in captured.err
        assert isinstance(caught.value.code, int) and caught.value.code != 0, captured.out
        return caught.value.code, captured.err

    return run


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub on this machine."""
    with HubServer(root=tmp_path_factory.mktemp("served")) as started:
        yield started


@pytest.fixture
def server(running: HubServer) -> HubServer:
    """The hub, with nothing in it and no faults."""
    for kept in (running.store.repos, running.store.names, running.store.tokens):
        kept.clear()
    running.clear()
    return running
