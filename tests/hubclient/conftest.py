"""The command line in this process, for tests of what it says when it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hubclient.cli import main

Failing = Callable[..., tuple[int, str]]


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
