"""A hub of its own for each test, a cache of its own, and an environment that names nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hubserver import HubServer

from hubclient.hub.client import Hub

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which is also the environment's."""
    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes that a test starts
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A client of it."""
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    return Hub(server.endpoint, cache=cache, token=False)
