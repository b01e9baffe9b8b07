"""The benchmark of `verify` measures what it says, on caches that it makes and takes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cache_verify


def test_it_gives_its_figures_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_verify, "_SIZES", (3, 1))
    monkeypatch.setattr(cache_verify, "_SMALL", 5)
    monkeypatch.setenv("HUBCLIENT_CATALOG", "")
    figures = cache_verify.measure(tmp_path, 1)
    assert [figure.unit for figure in figures] == ["x", "x", "µs per file", "MiB"] and all(figure.value > 0 for figure in figures)
    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]
