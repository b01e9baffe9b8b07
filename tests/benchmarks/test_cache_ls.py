"""The cache that `cache ls` is timed over is one that both programs understand alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from benchmarks import cache_ls
from hubclient.cache.catalog.listing import ls


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(cache_ls, "REPOSITORIES", 3)
    monkeypatch.setattr(cache_ls, "SETTLE", 0)
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(tmp_path / "catalog"))
    return tmp_path


def test_both_see_the_same(small: Path):
    cache = cache_ls.built(small / "hub")
    ours = {str(row.repo): (row.size, row.files, row.revisions, row.faults) for row in ls(cache)}
    theirs = scan_cache_dir(cache)
    assert not theirs.warnings
    assert ours == {repo.repo_id: (repo.size_on_disk, repo.nb_files, len(repo.revisions), 0) for repo in theirs.repos}
    assert sum(len(revision.files) for repo in theirs.repos for revision in repo.revisions) == 3 * 2 * 20


def test_it_measures(small: Path):
    figures = cache_ls.measure(small, 1)
    assert [figure.unit for figure in figures] == ["x", "x"] and all(figure.value > 0 for figure in figures)
