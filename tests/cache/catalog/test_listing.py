"""What is in the cache, for people: a line for each repository, all of one, and what takes the room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cachemaking import LARGE, MAIN, OTHER, etag, make, state
from hypothesis import given
from hypothesis import strategies as st

from hubclient.cache.catalog.catalog import Catalog, Mark
from hubclient.cache.catalog.filters import condition, ordered
from hubclient.cache.catalog.listing import ls, show, stats
from hubclient.cache.catalog.summary import RepoSummary, summarise
from hubclient.cache.catalog.tally import Share
from hubclient.cache.layout import RepoId
from hubclient.cache.notes import mark_used, write_pin
from hubclient.cache.scanning import stamps
from hubclient.cache.scanning.scan import scan_cache
from hubclient.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = b"w" * (LARGE + 1)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "a/b/deep.txt": b"deep"}
ROW = RepoSummary(RepoId("org/Llama"), 2_000_000, 3, 1, ("main", "V1"), 1000.0, 500.0, True, 0, 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


# ls


@pytest.mark.parametrize("style", ["symlink", "hardlink", "copy", "moved", "llama", "shared"])
def test_the_catalog_gives_the_lines_that_a_look_gives(cache: Path, style: str):
    make(cache, FILES, style=style)
    paths = make(cache, {"config.json": b"[]", "more": b"x" * 500}, commit=OTHER, ref="v1", style=style)
    make(cache, FILES, "org/second", style=style, ref=None)
    (paths.blobs / "part.incomplete").write_bytes(b"12345")
    (paths.snapshot(OTHER) / "broken").symlink_to("../../blobs/gone")
    write_pin(paths, OTHER)
    before = state(cache)
    rows = ls(cache)
    assert rows == ls(cache) == ls(cache, catalog=False) == tuple(map(summarise, scan_cache(cache).repos))
    assert [str(row.repo) for row in rows] == ["org/name", "org/second"]
    first = rows[0]
    assert (first.revisions, first.refs, first.pinned, first.faults, first.incomplete) == (2, ("main", "v1"), True, 1, 5)
    assert first.files == 5 and not rows[1].pinned and state(cache) == before


def test_uses_and_parts_are_told_as_they_are_now(cache: Path):
    paths = make(cache, FILES)
    part = paths.blobs / "part.incomplete"
    part.write_bytes(b"1")
    mark_used(paths, MAIN)
    ls(cache)
    with part.open("ab") as file:
        file.write(b"2345")
    os.utime(paths.blob(etag(WEIGHTS)), (4e9, paths.blob(etag(WEIGHTS)).stat().st_mtime))
    (row,) = ls(cache)
    assert (row.used, row.incomplete) == (4e9, 5)
    os.utime(paths.notes / "used" / MAIN, (5e9, 5e9))
    assert ls(cache)[0].used == 5e9


def test_nothing_of_single_files_is_read_when_nothing_changed(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    ls(cache)
    with Catalog.open(cache) as catalog:
        asked: list[str] = []
        catalog._file.set_trace_callback(asked.append)
        assert len(catalog.summaries()) == 1
    assert len(asked) == 1 and "files," in asked[0] and "FROM repositories" in asked[0]


def test_a_list_imports_nothing_heavy():
    code = "import sys, hubclient.cache.catalog.listing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hubclient.cache.catalog.catalog" in loaded
    assert not loaded & {
        "json",
        "socket",
        "rich",
        "click",
        "huggingface_hub",
        "hubclient.cache.scanning.look",
        "hubclient.cache.model",
        "filelock",
    }


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("size>1MB", True), ("size>1.9mb", True), ("size>2M", False), ("size = 2000000", True), ("size!=2MB", False), ("size<=1GiB", True),
        ("used>90d", False), ("used>8m", True), ("used<8m", False), ("accessed>500s", True), ("modified<1s", True), ("modified>=0", True),
        ("type=model", True), ("type==dataset", False), ("type!=model", False), ("refs=main", True), ("ref=v1", True), ("ref!=v2", True),
        ("name=llama", True), ("name=qwen", False), ("pinned=yes", True), ("pinned=no", False), (" size > 1 ", True),
    ],
)  # fmt: skip
def test_conditions(text: str, holds: bool):
    assert condition(text, now=1000.001)(ROW) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size",
        "size>",
        ">1",
        "size>1XB",
        "size>-1",
        "used>1M0",
        "colour=red",
        "type>model",
        "size~1",
        "size>1e9",
        "size>" + "9" * 5000,
    ],
)
def test_what_is_no_condition_is_said(text: str):
    with pytest.raises(UsageError) as caught:
        condition(text, now=0.0)
    assert caught.value.hint and len(str(caught.value)) < 500


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_a_usage_error(text: str):
    with suppress(UsageError):
        assert condition(text, now=0.0)(ROW) in (True, False)


def test_the_order_and_the_limit(cache: Path):
    for number, size in enumerate([5, 50, 20]):
        make(cache, {"x": b"x" * size}, f"org/{'cab'[number]}")
    assert [row.size for row in ls(cache)] == [50, 20, 5]
    assert [row.size for row in ls(cache, sort="size")] == [50, 20, 5]
    assert [row.size for row in ls(cache, sort="size:asc")] == [5, 20, 50]
    assert [row.repo.name for row in ls(cache, sort="name:desc")] == ["org/c", "org/b", "org/a"]
    assert [row.size for row in ls(cache, filters=["size>5", "type=model"], sort="size:asc", limit=1)] == [20]
    for sort in ("colour", "size:up", ""):
        with pytest.raises(UsageError, match="no order"):
            ls(cache, sort=sort)
    assert ordered([ROW], "accessed:asc") == [ROW]


# show


def test_one_repository_is_shown_whole_or_a_revision_of_it(cache: Path):
    make(cache, FILES)
    make(cache, {"x": b"y"}, commit=OTHER, ref="v1")
    assert show(cache, RepoId("org/name")) == scan_cache(cache).repos[0]
    for text in ("v1", OTHER, OTHER[:7]):
        assert [revision.commit for revision in show(cache, RepoId("org/name"), text).revisions] == [OTHER]
    for repo, revision in (("org/nam", None), ("org/name", "v2")):
        with pytest.raises(UsageError, match=r"did you mean|known"):
            show(cache, RepoId(repo), revision)


# stats


def test_what_takes_the_room(cache: Path):
    paths = make(cache, FILES)
    make(cache, {**FILES, "model.gguf": b"g" * 300}, "org/second", ref=None)
    make(cache, {"data.csv": b"1,2"}, "third", style="moved")
    (cache / "models--third").rename(cache / "datasets--third")
    (paths.blobs / "unshown").write_bytes(b"u" * 1000)
    (paths.blobs / "part.incomplete").write_bytes(b"12345")
    (paths.snapshot(MAIN) / "broken").symlink_to("../../blobs/gone")
    write_pin(paths, None)
    blob = scan_cache(cache).repos[1].blobs[etag(WEIGHTS)]
    with Catalog.open(cache) as catalog:
        good = Mark(paths.path.name, blob.name, blob.size, blob.modified_ns, blob.inode, blob.name)
        catalog.record_verified(catalog.start_run("all"), [good, good._replace(blob=etag(b"{}"))])
    found = stats(cache)
    own = sum(map(len, FILES.values()))
    assert (found.repositories, found.revisions, found.files, found.pinned, found.faults) == (3, 3, 9, 1, 1)
    assert found.size == found.blobs.size == 2 * own + 300 + 3 + 1000 and found.blobs.count == 9
    assert found.types == {"dataset": Share(1, 3), "model": Share(2, 2 * own + 1300)}
    assert found.formats["safetensors"] == Share(2, 2 * len(WEIGHTS)) and found.formats["unshown"] == Share(1, 1000)
    assert set(found.formats) == {"safetensors", "unshown", "gguf", "txt", "json", "csv"}
    assert found.duplicates == Share(3, own) and found.verified == Share(1, len(WEIGHTS))
    assert found.incomplete == Share(1, 5) and found.unreferenced == Share(1, own + 300)
    assert [str(row.repo) for row in found.largest] == ["org/name", "org/second", "datasets/third"] and len(found.oldest) == 3
    assert found.as_json()["formats"]["csv"] == {"count": 1, "size": 3} and found.as_json()["largest"][0]["repo"] == "org/name"


def test_hard_links_and_the_shared_store_are_no_duplicates(cache: Path):
    for name in ("org/one", "org/two"):
        make(cache, {"model.safetensors": WEIGHTS}, name, style="shared")
    first, second = make(cache, {"x": b"same"}, "org/three"), make(cache, {"x": b"same"}, "org/four")
    second.blob(etag(b"same")).unlink()
    os.link(first.blob(etag(b"same")), second.blob(etag(b"same")))
    found = stats(cache)
    assert found.duplicates == Share() and found.shared == Share(1, len(WEIGHTS)) and found.size == len(WEIGHTS) + 4


def test_an_empty_cache_has_nothing(tmp_path: Path, cache: Path):
    assert ls(cache) == () and stats(cache).size == 0
    assert ls(tmp_path / "nowhere") == () and stats(tmp_path / "nowhere").repositories == 0


def test_a_condition_on_use_counts_every_file(cache: Path, monkeypatch: pytest.MonkeyPatch):
    files = {f"{number}.bin": bytes([number]) * (LARGE + 10 * number) for number in range(6)} | {"config.json": b"{}"}
    paths = make(cache, files)
    for file in files:
        os.utime(paths.snapshot(MAIN) / file, (1e9, 1e9))
    monkeypatch.setattr(stamps, "RACY", 0)
    time.sleep(0.05)  # for the clock of the file system to move on
    ls(cache)
    os.utime(paths.blob(etag(b"{}")), (2e9, 1e9))
    for options in ({"filters": ["used>90d"]}, {"sort": "used"}, {"filters": ["accessed<1000y"]}):
        assert ls(cache, **options) == ls(cache, catalog=False, **options)  # type: ignore[arg-type]
