"""Plugins made up for one test: modules on disk, distributions that announce them, and hosts that see only those."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from hubclient.plugins import Host, get_host
from hubclient.plugins.discovery import Announcement, Scan

ARCHITECTURE = """
class Declared:
    def __init__(self, name, *claims):
        self.name, self.hf, self._claims = name, tuple(c[3:] for c in claims if c.startswith("hf.")), frozenset(claims)
    def claims(self):
        return self._claims
"""

_serial = itertools.count()


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees, or changes, the settings of whoever runs it, nor leaves its host behind."""
    monkeypatch.setenv("HUBCLIENT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("HUBCLIENT_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("HUBCLIENT_NO_THIRD_PARTY", raising=False)
    get_host.cache_clear()
    yield
    get_host.cache_clear()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`module(source)` writes an importable module and gives its name; `Declared` is defined in it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made: list[str] = []

    def make(source: str) -> str:
        name = f"made_up_plugin_{next(_serial)}"
        (folder / f"{name}.py").write_text(ARCHITECTURE + dedent(source))
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


def announce(distribution: str, module: str, *claims: str, builtin: bool = False) -> list[Announcement]:
    return [Announcement(claim, module, distribution, "1.0", builtin=builtin) for claim in claims]


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    """`host(*lists of announcements)` is a host that knows nothing else."""

    def make(*announced: list[Announcement], environ: Mapping[str, str] | None = None) -> Host:
        rows = [row for rows in announced for row in rows]
        return Host(
            builtin=[row for row in rows if row.builtin],
            third_party=lambda: Scan(tuple(row for row in rows if not row.builtin), ()),
            environ={"HUBCLIENT_CONFIG_DIR": str(tmp_path / "config"), **(environ or {})},
        )

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`install("name", entry_points_text)` puts a distribution's metadata on sys.path, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, entry_points: str | bytes, version: str = "1.0", folder: Path = site) -> Path:
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not this one\n")
        text = entry_points if isinstance(entry_points, bytes) else dedent(entry_points).encode()
        (info / "entry_points.txt").write_bytes(text)
        return site

    return make


@pytest.fixture(name="announce")
def announce_() -> Callable[..., list[Announcement]]:
    return announce
