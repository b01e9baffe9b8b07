"""The catalog tells what a look at the disk would, after any change; whatever happens to its file costs time, never an answer."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cachemaking import LARGE, MAIN, OTHER, etag, make, spoil
from hypothesis import given, settings
from hypothesis import strategies as st

from hubclient.cache.catalog import file as catalogfile
from hubclient.cache.catalog import rows as catalogrows
from hubclient.cache.catalog.catalog import Catalog, Mark
from hubclient.cache.catalog.file import catalog_path
from hubclient.cache.catalog.listing import ls
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import Output, mark_used, record_output, remove_pin, write_pin
from hubclient.cache.scanning import stamps
from hubclient.cache.scanning.scan import scan_cache
from hubclient.errors import DamagedInput

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = b"w" * (LARGE + 1)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "a/b/deep.txt": b"deep"}
NAMES = ("org/one", "org/two", "datasets/org/three")
REFRESH = "import sys; from pathlib import Path; from hubclient.cache.catalog.catalog import Catalog\nCatalog.open(Path(sys.argv[1])).refresh()"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def tick(folder: Path) -> None:
    """Wait until the clock of the file system has moved on."""
    probe = folder / "tick"
    probe.write_bytes(b"")
    first = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns == first:
        probe.write_bytes(b"")
    probe.unlink()


@contextmanager
def impatient() -> Iterator[None]:
    """What was changed before the clock's last tick counts as settled."""
    usual, stamps.RACY = stamps.RACY, 0
    try:
        yield
    finally:
        stamps.RACY = usual


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The repositories that are looked at from now on."""
    from hubclient.cache.scanning import look as module

    found: list[str] = []
    usual = module.look

    def look(cache: Path, repo: RepoId) -> object:
        found.append(str(repo))
        return usual(cache, repo)

    monkeypatch.setattr(module, "look", look)
    return found


# it tells what is there

Change = Callable[[Path, random.Random], None]


def paths_in(cache: Path, draw: random.Random) -> RepoPaths:
    return RepoPaths(cache, RepoId.parse(draw.choice(NAMES)))


def some(cache: Path, draw: random.Random, pattern: str) -> list[Path]:
    found = sorted(path for path in cache.glob(pattern) if path.is_symlink() or not path.is_dir())
    return draw.sample(found, min(len(found), 1))


def add(cache: Path, draw: random.Random) -> None:
    style = draw.choice(["symlink", "symlink", "hardlink", "copy", "moved", "llama", "shared"])
    commit, name = draw.choice([MAIN, OTHER]), draw.choice(NAMES[:2])
    if not RepoPaths(cache, RepoId(name)).snapshot(commit).exists():
        files = {name: data + bytes([draw.randrange(2)]) for name, data in FILES.items() if draw.random() < 0.8}
        make(cache, files, name, style=style, commit=commit, tree=draw.random() < 0.5, ref=draw.choice(["main", None]))


def remove_revision(cache: Path, draw: random.Random) -> None:
    shutil.rmtree(paths_in(cache, draw).snapshot(draw.choice([MAIN, OTHER])), ignore_errors=True)


def remove_repository(cache: Path, draw: random.Random) -> None:
    shutil.rmtree(paths_in(cache, draw).path, ignore_errors=True)


def write_ref(cache: Path, draw: random.Random) -> None:
    ref = paths_in(cache, draw).refs / draw.choice(["main", "refs/pr/1", "v1"])
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(draw.choice([MAIN, OTHER, "nothing", f"{MAIN}\n"]))


def remove_file(cache: Path, draw: random.Random) -> None:
    for path in some(cache, draw, draw.choice(["*/blobs/*", "*/snapshots/*/*", "*/refs/*", "*/trees/*", "blobs/*/*"])):
        path.unlink()


def change_bytes(cache: Path, draw: random.Random) -> None:
    for path in some(cache, draw, "*/blobs/*"):
        if path.is_file():
            spoil(path, draw.randbytes(draw.randrange(9)))


def read_bytes(cache: Path, draw: random.Random) -> None:
    for path in some(cache, draw, "*/blobs/*"):
        if path.is_file():
            os.utime(path, ns=(draw.randrange(1 << 60), path.stat().st_mtime_ns))


def leave(cache: Path, draw: random.Random) -> None:
    name = draw.choice(
        [
            "blobs/x.incomplete",
            "blobs/y.0123abcd.ledger.incomplete",
            "blobs/z.etag",
            ".hubclient/trash/t",
            "odd",
            "refs/r.0123abcd.tmp",
        ]
    )
    path = paths_in(cache, draw).path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"x" * draw.randrange(5))


def plant(cache: Path, draw: random.Random) -> None:
    place = paths_in(cache, draw).path / draw.choice(
        [
            "blobs",
            "refs",
            "snapshots",
            f"snapshots/{MAIN}",
            f"snapshots/{MAIN}/x",
            "blobs/b",
            "refs/l",
            ".hubclient",
            ".hubclient/used",
        ]
    )
    if not place.is_symlink() and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(
            draw.choice(
                [
                    str(cache.parent / "outside"),
                    "config.json",
                    "../blobs",
                    "../../blobs/gone",
                    ".",
                    str(cache / "models--org--one/blobs"),
                ]
            )
        )


def note(cache: Path, draw: random.Random) -> None:
    paths, commit = paths_in(cache, draw), draw.choice([MAIN, OTHER, None])
    if not paths.path.is_dir():
        return
    kind = draw.randrange(4)
    if kind == 0:
        write_pin(paths, commit, "why")
    elif kind == 1:
        remove_pin(paths, commit)
    elif kind == 2:
        mark_used(paths, commit or MAIN)
    else:
        record_output(paths, Output(f"/out{draw.randrange(2)}", "gguf", "F16", commit or MAIN, "2026-01-01T00:00:00Z"))


def lay_beside(cache: Path, draw: random.Random) -> None:
    path = cache / draw.choice(
        ["models--a--b--c/x", "notes.txt", ".locks/models--org--gone/x.lock", "blobs/mine", ".locks/.hubclient-trash/x"]
    )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


CHANGES: tuple[Change, ...] = (
    add, add, add, remove_revision, remove_repository, write_ref, remove_file, remove_file, change_bytes, read_bytes, leave, leave, plant, note,
    note, lay_beside,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(CHANGES), max_size=4), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_after_any_changes_it_tells_what_a_look_at_the_disk_does(steps: list[list[Change]], draw: random.Random):
    with tempfile.TemporaryDirectory() as folder, impatient():
        cache = Path(folder) / "hub"
        cache.mkdir()
        (cache.parent / "outside").write_bytes(b"outside")
        add(cache, draw)
        with Catalog(cache, Path(folder) / "catalog.sqlite3") as catalog:
            for step in steps:
                for change in step:
                    with suppress(OSError, AssertionError, DamagedInput):  # a link that was planted may be in the way
                        change(cache, draw)
                tick(cache.parent)
                catalog.refresh()
                assert catalog.contents() == scan_cache(cache)
                tick(cache.parent)
        with Catalog(cache, Path(folder) / "catalog.sqlite3") as catalog:
            assert catalog.contents() == scan_cache(cache)


def test_only_what_changed_is_looked_at(cache: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("org/one", "org/two", "org/three"):
        make(cache, FILES, name)
    tick(cache.parent)
    found = looked_at(monkeypatch)
    with impatient(), Catalog.open(cache) as catalog:
        catalog.refresh()
        assert sorted(found) == ["org/one", "org/three", "org/two"]
        tick(cache.parent)
        found.clear()
        catalog.refresh()
        assert not found
        make(cache, {"new": b"new"}, "org/two", commit=OTHER, ref=None)
        (RepoPaths(cache, RepoId("org/three")).refs / "main").write_text(OTHER)
        shutil.rmtree(cache / "models--org--one")
        tick(cache.parent)
        catalog.refresh()
        assert sorted(found) == ["org/three", "org/two"]
        assert [str(row.summary.repo) for row in catalog.summaries()] == ["org/three", "org/two"]


def test_what_changed_just_before_it_was_looked_at_is_looked_at_again(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    found = looked_at(monkeypatch)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        catalog.refresh()
        assert found == ["org/name"] * 2
        for folder, _, files in os.walk(cache):
            for name in (".", *files):
                os.utime(Path(folder, name), (1e9, 1e9), follow_symlinks=False)
        catalog.refresh()
        catalog.refresh()
        assert found == ["org/name"] * 4, "no program can set the time of a change back"


def test_bytes_that_changed_where_they_lie_are_told(cache: Path):
    paths = make(cache, FILES)
    tick(cache.parent)
    with impatient(), Catalog.open(cache) as catalog:
        catalog.refresh()
        tick(cache.parent)
        spoil(paths.blob(etag(WEIGHTS)), b"short")
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache)
        assert catalog.contents().repos[0].blobs[etag(WEIGHTS)].size == 5


def test_numbers_that_sqlite_cannot_hold_are_held(cache: Path):
    paths = make(cache, FILES)
    for name, data in FILES.items():
        os.utime(paths.blob(etag(data)), ns=(1, {"config.json": 9_000_000_000 * 10**9}.get(name, -(10**9))))
    for number in range(3):
        with (paths.blobs / f"sparse{number}").open("wb") as file:
            file.truncate(1 << 43)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache)
        mark = Mark("models--org--name", "x", 1, 2, (1 << 64) - 1, "d")
        run = catalog.start_run("all")
        catalog.record_verified(run, [mark])
        assert catalog.verified(run) == [mark]


# verification's marks


def test_an_interrupted_run_goes_on_and_a_finished_one_does_not(cache: Path):
    first, second = Mark("models--org--name", "x", 1, 2, 3, "d"), Mark("models--org--name", "y", 1, 2, 3, "e", ok=False)
    with Catalog.open(cache) as catalog:
        run = catalog.start_run("all")
        catalog.record_verified(run, [first])
    with Catalog.open(cache) as catalog:
        assert catalog.start_run("other") != run == catalog.start_run("all")
        catalog.record_verified(run, [second])
        assert catalog.verified(run) == catalog.verified() == [first, second]
        anew = catalog.start_run("all", again=True)
        assert anew != run and not catalog.verified(anew)
        catalog.finish_run(anew)
        assert catalog.start_run("all") not in (run, anew) and len(catalog.verified()) == 2


def test_marks_go_with_their_bytes(cache: Path):
    paths = make(cache, FILES)
    blobs = [etag(data) for data in FILES.values()]
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        catalog.record_verified(catalog.start_run("all"), [Mark(paths.path.name, blob, 1, 2, 3, blob) for blob in blobs])
        paths.blob(blobs[0]).unlink()
        catalog.refresh()
        assert {mark.blob for mark in catalog.verified()} == set(blobs[1:])
        shutil.rmtree(paths.path)
        catalog.refresh()
        assert not catalog.verified()


# its file


def spoilt(path: Path, how: str) -> None:
    """Make the file of a catalog one that cannot be used."""
    path.parent.mkdir(exist_ok=True)
    if how == "garbage":
        path.write_bytes(random.Random(1).randbytes(20_000))
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "holed":
        data = path.read_bytes()
        path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        with sqlite3.connect(path) as file:
            file.execute(
                {"newer": "PRAGMA user_version=99", "foreign": "PRAGMA application_id=7", "torn": "DROP TABLE files"}[how]
            )
        file.close()


@pytest.mark.parametrize("how", ["garbage", "truncated", "holed", "empty", "folder", "newer", "foreign", "torn"])
def test_a_file_that_cannot_be_used_costs_a_look(cache: Path, how: str):
    make(cache, FILES)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
    for ending in ("-wal", "-shm"):
        catalog_path(cache).with_name(catalog_path(cache).name + ending).unlink(missing_ok=True)
    spoilt(catalog_path(cache), how)
    for _ in range(2):
        with Catalog.open(cache) as catalog:
            catalog.refresh()
            assert catalog.contents() == scan_cache(cache)
    assert how == "folder" or ls(cache)[0].files == 3
    if how != "folder":
        with sqlite3.connect(catalog_path(cache)) as file:
            assert file.execute("SELECT count(*) FROM files").fetchone() == (3,)
        file.close()


@pytest.mark.parametrize("method", ["summaries", "contents", "refresh", "verified"])
def test_a_file_that_is_spoilt_while_it_is_open_costs_a_look(cache: Path, method: str):
    make(cache, FILES)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        path = catalog_path(cache)
        other = sqlite3.connect(path)
        other.executescript("DROP TABLE stamps; DROP TABLE files; DROP TABLE verified; DROP TABLE repositories;")
        other.close()
        getattr(catalog, method)()
        assert catalog.contents() == scan_cache(cache) and len(catalog.summaries()) == 1


def test_a_place_where_nothing_can_be_kept_costs_a_look(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    monkeypatch.setenv("HUBCLIENT_CATALOG", "/proc/nowhere")
    assert ls(cache) == ls(cache, catalog=False)
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(cache / "models--org--name" / "refs" / "main"))
    assert ls(cache) == ls(cache, catalog=False)


def test_a_full_disk_costs_a_look(cache: Path):
    make(cache, FILES)
    with Catalog.open(cache) as catalog:
        catalog._file.execute("PRAGMA max_page_count=1")
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache)


def test_a_writer_that_does_not_end_is_waited_for_and_then_done_without(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogfile, "PATIENCE", 0.05)
    make(cache, FILES)
    with Catalog.open(cache):
        pass
    other = sqlite3.connect(catalog_path(cache), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache)
        run = catalog.start_run("all")
        catalog.record_verified(run, [Mark("f", "b", 1, 2, 3, "d")])
        assert len(catalog.verified(run)) == 1
    other.close()


def test_a_network_file_system_gets_a_journal_that_works_there(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogfile, "_on_network", lambda path: True)
    make(cache, FILES)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        assert catalog._file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert ls(cache) == ls(cache, catalog=False)


def test_each_cache_has_a_file_of_its_own_by_its_real_path(cache: Path, tmp_path: Path):
    (tmp_path / "alias").symlink_to(cache)
    assert catalog_path(cache) == catalog_path(tmp_path / "alias") != catalog_path(tmp_path)
    assert catalog_path(cache).parent == tmp_path / "catalog"
    assert catalog_path(cache, {"HF_HOME": str(tmp_path / "home")}).parent == tmp_path / "home" / "hubclient"


def test_it_can_be_made_anew(cache: Path):
    make(cache, FILES)
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        catalog.record_verified(1, [Mark("f", "b", 1, 2, 3, "d")])
        catalog.rebuild()
        assert catalog.contents() == scan_cache(cache) and not catalog.verified()


# other processes


@pytest.mark.parametrize("point", ["catalog.begun", "catalog.rows-written", "catalog.committed", "catalog.rebuilt"])
def test_a_process_that_is_killed_leaves_a_catalog_that_works(cache: Path, point: str):
    make(cache, FILES)
    make(cache, FILES, "org/second")
    if point == "catalog.rebuilt":
        spoilt(catalog_path(cache), "garbage")
    env = {**os.environ, "HUBCLIENT_FAULTPOINT": point}
    assert subprocess.run([sys.executable, "-c", REFRESH, cache], cwd=ROOT, env=env, check=False).returncode == -signal.SIGKILL
    before = catalog_path(cache).read_bytes()
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache) and before
        assert catalog._file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_processes_that_are_killed_at_any_time_leave_a_catalog_that_works(cache: Path):
    for number in range(30):
        make(cache, FILES, f"org/name{number}")
    forever = f"{REFRESH.replace('.refresh()', '')}\nc = Catalog.open(Path(sys.argv[1]))\nprint(flush=True)\nwhile True: c.rebuild() if sys.argv[2] == '0' else c.refresh()"
    draw = random.Random(0)
    for number in range(20):
        process = subprocess.Popen([sys.executable, "-c", forever, cache, str(number % 3)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.random() * 0.05)
        process.kill()
        process.communicate()
        with Catalog.open(cache) as catalog:
            catalog.refresh()
            assert catalog.contents() == scan_cache(cache)


def test_many_processes_may_use_it_at_once(cache: Path):
    for number in range(20):
        make(cache, FILES, f"org/name{number}")
    processes = [subprocess.Popen([sys.executable, "-c", REFRESH, cache], cwd=ROOT) for _ in range(6)]
    make(cache, {"late": b"late"}, "org/late")
    assert [process.wait() for process in processes] == [0] * 6
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        assert catalog.contents() == scan_cache(cache) and len(catalog.summaries()) == 21
        assert catalog._file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_run_of_long_ago_is_not_gone_on_with(cache: Path):
    with Catalog.open(cache) as catalog:
        run = catalog.start_run("all")
        catalog._file.execute("UPDATE runs SET started = started - 90000")
        assert catalog.start_run("all") != run


def test_a_blob_that_grows_while_the_catalog_is_made_is_looked_at_again(cache: Path):
    paths = make(cache, FILES)
    for folder, _, _ in os.walk(cache):
        os.utime(folder, (1e9, 1e9))
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        with pytest.MonkeyPatch.context() as patched:  # as if all folders had been as they are for long
            patched.setattr(catalogrows, "written", _with_settled_folders)
            catalog.rebuild()
        spoil(paths.blob(etag(WEIGHTS)), WEIGHTS * 2)
        catalog.refresh()
        assert catalog.summaries()[0].summary.size == scan_cache(cache).repos[0].size


def _with_settled_folders(seen: dict[str, stamps.Stamp], began: int) -> tuple[bytes, str]:
    lines = [stamps.written({path: state}, began if "/blobs/" in path else 1 << 63)[1] for path, state in seen.items()]
    return stamps.written(seen, began)[0], "\n".join(lines)


def test_a_cache_that_cannot_be_read_for_a_while_is_not_forgotten(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    usual = os.scandir
    with Catalog.open(cache) as catalog:
        catalog.refresh()
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", lambda path: _refused() if os.fspath(path) == str(cache) else usual(path))
            catalog.refresh()
        assert len(catalog.summaries()) == 1
        shutil.rmtree(cache)
        catalog.refresh()
        assert not catalog.summaries()


def _refused() -> None:
    raise PermissionError(13, "Permission denied")


def test_versions_have_files_of_their_own(cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = catalogfile.catalog_path(cache)
    monkeypatch.setattr(catalogfile, "VERSION", catalogfile.VERSION + 1)
    assert catalogfile.catalog_path(cache) != first
