"""Whatever programs and people leave in a cache is read and named; nothing raises, nothing is followed out of it, nothing needed is given up."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from cachemaking import LARGE, MAIN, OTHER, etag, make, state, xet

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.model import CacheContents, CachedFile, CachedRepo
from hubclient.cache.notes import Output, mark_used, record_output, write_pin
from hubclient.cache.scanning import leftovers
from hubclient.cache.scanning.scan import scan_cache, scan_repo

WEIGHTS = b"w" * (LARGE + 1)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "a/b/deep.txt": b"deep"}
NAME = RepoId("org/name")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def scanned(cache: Path) -> CachedRepo:
    (repo,) = scan_cache(cache).repos
    assert repo == scan_repo(cache, repo.repo)
    return repo


def faults(repo: CachedRepo) -> dict[str, str | None]:
    return {file.name: file.fault for revision in repo.revisions for file in revision.files}


def kinds(found: CachedRepo | CacheContents) -> dict[str, str]:
    return {left.path: left.kind for left in found.leftovers}


# what programs write


@pytest.mark.parametrize("style", ["symlink", "hardlink", "shared"])
def test_files_show_blobs(cache: Path, style: str):
    make(cache, FILES, style=style)
    repo = scanned(cache)
    (revision,) = repo.revisions
    assert (revision.commit, revision.refs, revision.expected) == (MAIN, ("main",), 3)
    assert revision.files == tuple(CachedFile(name, etag(data), len(data)) for name, data in sorted(FILES.items()))
    assert {name: blob.size for name, blob in repo.blobs.items()} == {etag(data): len(data) for data in FILES.values()}
    assert repo.size == revision.size == sum(map(len, FILES.values())) and repo.shown == set(repo.blobs)
    assert not repo.warnings and not repo.leftovers


@pytest.mark.parametrize("style", ["moved", "llama"])
def test_bytes_in_the_snapshot_itself_are_blobs_by_their_path(cache: Path, style: str):
    make(cache, FILES, style=style)
    repo = scanned(cache)
    assert all(file.blob is None and file.fault is None for file in repo.revisions[0].files)
    assert set(repo.blobs) == {f"snapshots/{MAIN}/{name}" for name in FILES} == set(repo.shown)
    assert [repo.bytes_of(MAIN, file) for file in repo.revisions[0].files] == [repo.blobs[key] for key in sorted(repo.blobs)]
    expected = {f"{NAME.folder}/blobs/{etag(data)}.etag": "etag" for data in FILES.values()} if style == "llama" else {}
    assert kinds(repo) == expected


def test_copies_beside_blobs_leave_the_blobs_unshown(cache: Path):
    make(cache, FILES, style="copy")
    repo = scanned(cache)
    assert set(repo.blobs) - repo.shown == {etag(data) for data in FILES.values()}
    assert repo.size == 2 * repo.revisions[0].size


def test_the_shared_store_counts_once(cache: Path):
    make(cache, FILES, style="shared")
    make(cache, FILES, "org/second", style="shared")
    found = scan_cache(cache)
    (entry,) = found.shared
    folders = ("models--org--name", "models--org--second")
    assert entry.links == tuple(f"{folder}/blobs/{etag(WEIGHTS)}" for folder in folders)
    assert [repo.blobs[etag(WEIGHTS)].shared for repo in found.repos] == [xet(WEIGHTS)] * 2
    assert found.size == len(WEIGHTS) + 2 * (found.repos[0].size - len(WEIGHTS))


def test_an_entry_whose_list_of_links_is_gone_has_unknown_links(cache: Path):
    make(cache, FILES, style="shared")
    (cache / "blobs" / xet(WEIGHTS)[:2] / f"{xet(WEIGHTS)}.refs").unlink()
    assert [entry.links for entry in scan_cache(cache).shared] == [None]


def test_a_link_into_the_store_that_lacks_the_entry_dangles(cache: Path):
    make(cache, FILES, style="shared")
    os.unlink(cache / "blobs" / xet(WEIGHTS)[:2] / xet(WEIGHTS))
    repo = scanned(cache)
    assert faults(repo) == {"config.json": None, "a/b/deep.txt": None, "model.safetensors": "dangling"}
    assert etag(WEIGHTS) not in repo.blobs


def test_repositories_of_all_types_are_told_apart(cache: Path):
    for folder in ("models--old", "datasets--org--name", "spaces--org--name", "kernels--org--name", "models--org--na-me_x.y"):
        (cache / folder / "snapshots").mkdir(parents=True)
    assert {str(repo.repo) for repo in scan_cache(cache).repos} == {
        "old", "datasets/org/name", "spaces/org/name", "kernels/org/name", "org/na-me_x.y",
    }  # fmt: skip


def test_links_may_be_absolute_and_through_another_name_of_the_cache(cache: Path, tmp_path: Path):
    paths = make(cache, FILES)
    (tmp_path / "alias").symlink_to(cache)
    for name, base in (("config.json", cache), ("model.safetensors", tmp_path / "alias")):
        pointer = paths.snapshot(MAIN) / name
        pointer.unlink()
        pointer.symlink_to(base / NAME.folder / "blobs" / etag(FILES[name]))
    for where in (cache, tmp_path / "alias"):
        found = scan_repo(where, NAME).revisions[0]
        names = {file.name: (file.blob, file.fault) for file in found.files}
        assert names["config.json"] == (etag(b"{}"), None)
        assert names["model.safetensors"] == ((etag(WEIGHTS), None) if where != cache else (None, "outside"))


def test_refs_may_be_nested_and_end_in_a_newline(cache: Path):
    paths = make(cache, FILES)
    (paths.refs / "refs" / "pr").mkdir(parents=True)
    (paths.refs / "refs" / "pr" / "1").write_text(f"  {MAIN}\r\n")
    repo = scanned(cache)
    assert repo.refs == {"main": MAIN, "refs/pr/1": MAIN} and repo.revisions[0].refs == ("main", "refs/pr/1")


def test_notes_are_read(cache: Path):
    paths = make(cache, FILES)
    make(cache, {"x": b"y"}, commit=OTHER, ref=None)
    pin = write_pin(paths, MAIN, "why")
    whole = write_pin(paths, None)
    output = Output("/out.gguf", "gguf", "Q8_0", MAIN, "2026-01-01T00:00:00Z")
    assert record_output(paths, output) and mark_used(paths, OTHER)
    os.utime(paths.notes / "used" / OTHER, (3e9, 3e9))
    repo = scanned(cache)
    assert [revision.pin for revision in repo.revisions] == [pin, None] and repo.pin == whole
    assert repo.outputs == (output,) and repo.revisions[1].used == 3e9 > repo.revisions[0].used


# what is left over


def test_leftovers_have_their_kinds(cache: Path):
    paths = make(cache, FILES)
    blob = etag(WEIGHTS)
    named = {
        f"blobs/{blob}.incomplete": "incomplete",
        f"blobs/{blob}.0123abcd.incomplete": "incomplete",
        f"blobs/{blob}.0123abcd.ledger.incomplete": "ledger",
        f"blobs/{blob}.downloadInProgress": "incomplete",
        f"blobs/{blob}.etag": "etag",
        f"blobs/{blob}.lock": "lock",
        f"blobs/.{blob}.0123abcd.shared": "temporary",
        f"blobs/.{blob}.0123abcd.new": "temporary",
        f"blobs/.{blob}.0123abcd.old": "temporary",
        "blobs/tmp_01234567-89ab-cdef-0123-456789abcdef": "temporary",
        "refs/main.0123abcd.tmp": "temporary",
        "trees/tmpab_1cdef.tmp": "temporary",
        f"snapshots/{MAIN}/.config.json.0123abcd.tmp": "temporary",
        f"snapshots/{MAIN}/copied.gguf.etag": "etag",
        f"snapshots/{MAIN}/copied.gguf.downloadInProgress": "incomplete",
        ".hubclient/trash/abc": "trash",
        "strange": "unknown",
    }
    (paths.path / ".hubclient" / "trash").mkdir(parents=True)
    for name in named:
        (paths.path / name).write_bytes(b"12345")
    (paths.snapshot(MAIN) / "copied.gguf").write_bytes(b"gguf")
    for ignored in (".DS_Store", "refs/.DS_Store", "blobs/Thumbs.db", "snapshots/desktop.ini"):
        (paths.path / ignored).write_bytes(b"")
    repo = scanned(cache)
    assert kinds(repo) == {f"{NAME.folder}/{name}": kind for name, kind in named.items()}
    assert {left.size for left in repo.leftovers} == {5}
    assert set(faults(repo)) == {*FILES, "copied.gguf"} and set(faults(repo).values()) == {None}
    assert set(repo.blobs) == {*map(etag, FILES.values()), f"snapshots/{MAIN}/copied.gguf"}
    assert repo.refs == {"main": MAIN}


def test_files_of_a_repository_may_be_called_as_leftovers_are(cache: Path):
    names = ("data.etag", "run.incomplete", "x.tmp", "tmp_file", ".gitattributes", "a.lock")
    make(cache, {name: name.encode() for name in names})
    assert set(faults(scanned(cache))) == set(names)


TEMPORARY = (".x.0123abcd.new", "runs/step.20240101.tmp", "tmp_01234567-89ab-cdef-0123-456789abcdef")


@pytest.mark.parametrize("style", ["symlink", "moved"])
@pytest.mark.parametrize("tree", [True, False])
def test_files_of_a_repository_may_be_called_as_temporary_ones_are(cache: Path, style: str, tree: bool):
    paths = make(cache, {name: name.encode() for name in TEMPORARY}, style=style, tree=tree)
    repo = scanned(cache)
    assert set(faults(repo)) == set(TEMPORARY) and not repo.leftovers and repo.shown == set(repo.blobs)
    (paths.snapshot(MAIN) / ".y.0123abcd.new").write_bytes(b"y")
    (paths.snapshot(MAIN) / ".z.0123abcd.new").symlink_to("../../blobs/" + "e" * 40)
    more = {".z.0123abcd.new"} if tree else {".z.0123abcd.new", ".y.0123abcd.new"}
    assert set(faults(scanned(cache))) == {*TEMPORARY, *more}, "a file that the list has not is none"


def test_what_lies_beside_repositories_is_known_or_left_alone(cache: Path):
    make(cache, FILES)
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (cache / "version.txt").write_text("1")
    for lock in (NAME.folder, "models--org--gone", ".hubclient-trash"):
        (cache / ".locks" / lock).mkdir(parents=True)
        (cache / ".locks" / lock / "x.lock").write_text("")
    (cache / "models--a--b--c").mkdir()
    (cache / "notes.txt").write_text("mine")
    (cache / "blobs").mkdir()
    (cache / "blobs" / "somebody's").write_text("own")
    before = state(cache)
    found = scan_cache(cache)
    assert kinds(found) == {
        ".locks/.hubclient-trash/x.lock": "trash", ".locks/models--org--gone": "lock",
        "models--a--b--c": "unknown", "notes.txt": "unknown",
    }  # fmt: skip
    assert [str(repo.repo) for repo in found.repos] == ["org/name"] and not found.shared
    assert sorted(warning.partition(":")[0] for warning in found.warnings) == ["blobs", "models--a--b--c", "notes.txt"]
    assert state(cache) == before


def test_a_cache_that_is_none_is_empty(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        found = scan_cache(path)
        assert not found.repos and not found.size and str(path) in found.warnings[0]
    assert scan_repo(tmp_path, NAME) == CachedRepo(RepoPaths(tmp_path, NAME), (), {}, {})


# what should not be there


def test_a_ref_to_a_snapshot_that_is_not_here_is_a_warning(cache: Path):
    paths = make(cache, FILES)
    (paths.refs / "gone").write_text(OTHER)
    repo = scanned(cache)
    assert repo.refs == {"main": MAIN, "gone": OTHER} and len(repo.revisions) == 1
    assert repo.warnings == (f"{NAME.folder}/refs/gone: names the commit {OTHER}, which is not here",)


@pytest.mark.parametrize(
    "content", [b"", b"main", b"\xff" * 40, b"a" * 5000, MAIN.upper().encode(), b"a" * 39 + b"\n\n", b"\0" * 40]
)
def test_a_ref_without_a_commit_is_a_warning(cache: Path, content: bytes):
    paths = make(cache, FILES)
    (paths.refs / "odd").write_bytes(content)
    repo = scanned(cache)
    assert repo.refs == {"main": MAIN} and repo.warnings == (f"{NAME.folder}/refs/odd: names no commit",)


def test_what_blocks_is_not_opened(cache: Path):
    paths = make(cache, FILES)
    for place in (paths.refs / "pipe", paths.blobs / "pipe", paths.snapshot(MAIN) / "pipe", paths.tree(OTHER)):
        os.mkfifo(place)
    make(cache, {"x": b"y"}, commit=OTHER, ref=None, tree=False)
    repo = scanned(cache)
    assert set(repo.refs) == {"main"} and "pipe" not in repo.blobs and repo.revisions[1].expected is None
    pipes = {"blobs/pipe": "unknown", f"snapshots/{MAIN}/pipe": "unknown", "refs/pipe": "ref"}
    assert kinds(repo) == {f"{NAME.folder}/{where}": kind for where, kind in pipes.items()}


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("../../blobs/absent", "dangling"),
        ("../../blobs/absent/deeper", "dangling"),
        ("../../blobs", "folder"),
        (".", "folder"),
        ("planted", "loop"),
        ("other", "loop"),
        ("../../../../outside", "outside"),
        ("/etc/hostname", "outside"),
        ("/", "outside"),
        ("../../../models--org--second/blobs/x", "outside"),
        ("../../../blobs/ab/absent", "dangling"),
        ("../../../blobs/ab/cd/ef", "dangling"),
        ("../../../../hub/models--org--name/blobs/x", "outside"),
        ("../../trees/" + MAIN + ".json", "outside"),
        ("x" * 300, "unreadable"),
        ("a/" * 2000, "dangling"),
    ],
)
def test_a_planted_link_is_told_and_not_followed(cache: Path, tmp_path: Path, target: str, fault: str):
    (tmp_path / "outside").write_bytes(b"secret")
    make(cache, {"x": b"second"}, "org/second")
    paths = make(cache, FILES)
    (paths.snapshot(MAIN) / "planted").symlink_to(target)
    (paths.snapshot(MAIN) / "other").symlink_to("planted")
    repo = scan_repo(cache, NAME)
    assert faults(repo)["planted"] == fault
    assert {file.name for file in repo.revisions[0].faults} >= {"planted", "other"}
    assert repo.size == sum(map(len, FILES.values())) and repo.shown == set(repo.blobs)


def test_an_unusual_way_to_a_blob_is_found(cache: Path):
    paths = make(cache, FILES)
    snapshot = paths.snapshot(MAIN)
    (snapshot / "one").symlink_to("./a/../config.json")
    (snapshot / "two").symlink_to("one")
    (snapshot / "copied").write_bytes(b"copied")
    (snapshot / "three").symlink_to("copied")
    (paths.blobs / "alias").symlink_to(etag(b"{}"))
    (snapshot / "four").symlink_to("../../blobs/alias")
    repo = scanned(cache)
    blobs = {file.name: file.blob for file in repo.revisions[0].files}
    assert [blobs[name] for name in ("one", "two", "four")] == [etag(b"{}")] * 3
    assert blobs["three"] == f"snapshots/{MAIN}/copied" and blobs["copied"] is None
    assert "alias" not in repo.blobs and kinds(repo) == {f"{NAME.folder}/blobs/alias": "unknown"}


@pytest.mark.parametrize("place", ["", "blobs", "refs", "snapshots", "trees", ".hubclient", f"snapshots/{MAIN}"])
def test_a_folder_that_is_a_link_is_not_entered(cache: Path, tmp_path: Path, place: str):
    paths = make(cache, FILES)
    write_pin(paths, MAIN)
    (paths.path / place).rename(tmp_path / "elsewhere")
    (paths.path / place).symlink_to(tmp_path / "elsewhere")
    found = scan_cache(cache)
    told = [*found.warnings, *(warning for repo in found.repos for warning in repo.warnings)]
    assert f"{NAME.folder}/{place}".rstrip("/") + ": is a link; it is not followed" in told
    if place == "blobs":
        assert set(faults(found.repos[0]).values()) == {"outside"}
    if place in ("snapshots", f"snapshots/{MAIN}"):
        assert not found.repos[0].revisions
    assert not place or set(kinds(found.repos[0]).values()) == {"unknown"}


def test_a_blob_that_leads_elsewhere_is_no_blob(cache: Path, tmp_path: Path):
    paths = make(cache, FILES)
    blob = paths.blob(etag(WEIGHTS))
    blob.rename(tmp_path / "big")
    blob.symlink_to(tmp_path / "big")
    repo = scanned(cache)
    assert etag(WEIGHTS) not in repo.blobs and faults(repo)["model.safetensors"] == "outside"
    assert kinds(repo) == {f"{NAME.folder}/blobs/{blob.name}": "unknown"}


def test_what_an_unknown_folder_among_the_snapshots_shows_is_held(cache: Path):
    paths = make(cache, FILES)
    paths.snapshot(MAIN).rename(paths.snapshots / "backup")
    (paths.snapshots / "backup" / "copied").write_bytes(b"copied")
    repo = scanned(cache)
    assert not repo.revisions and repo.held == set(repo.blobs) == repo.shown
    assert kinds(repo) == {f"{NAME.folder}/snapshots/backup": "unknown"}


def test_a_file_with_a_name_that_is_no_text_is_held_and_told(cache: Path):
    paths = make(cache, {"config.json": b"{}"})
    os.rename(paths.snapshot(MAIN) / "config.json", os.fsencode(paths.snapshot(MAIN)) + b"/\xff.json")
    os.mkdir(os.fsencode(cache) + b"/models--\xfe--x")
    for folder in (paths.blobs, paths.refs, paths.path, paths.snapshots):
        Path(os.fsdecode(os.fsencode(folder) + b"/\xfd")).write_bytes(b"")
    found = scan_cache(cache)
    (repo,) = found.repos
    assert not repo.revisions[0].files and repo.shown == {etag(b"{}")} == set(repo.blobs)
    assert len(repo.warnings) == 5 and all(warning.encode() for warning in (*repo.warnings, *found.warnings))
    assert not repo.leftovers and not found.leftovers and repo.refs == {"main": MAIN}


def test_names_that_no_terminal_shows_are_names(cache: Path):
    names = ("new\nline", "tab\t", "\x1b[31m", "\u202eabc", "👨‍👩‍👧.png", "con", "a:b", "back\\slash", " ", "x" * 255)
    make(cache, {name: name.encode() for name in names}, tree=False)
    assert set(faults(scanned(cache))) == set(names) and not scanned(cache).warnings


def test_a_folder_that_cannot_be_read_gives_up_no_blob(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    scandir = os.scandir

    def refusing(path: str) -> object:
        if os.fspath(path) == str(paths.snapshot(MAIN) / "a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    repo = scan_repo(cache, NAME)
    assert repo.warnings == (f"{NAME.folder}/snapshots/{MAIN}/a: cannot be read (Permission denied)",)
    assert set(faults(repo)) == {"config.json", "model.safetensors"} and repo.shown == set(repo.blobs) == repo.held


def test_notes_that_block_are_not_opened(cache: Path):
    paths = make(cache, FILES)
    for name in ("pins", "outputs"):
        (paths.notes / name).mkdir(parents=True)
        os.mkfifo(paths.notes / name / MAIN)
    repo = scanned(cache)
    assert repo.pin is not None and not repo.outputs and len(repo.warnings) == 2


@pytest.mark.parametrize("place", [".hubclient", ".hubclient/pins"])
def test_pins_that_cannot_be_read_keep_everything(cache: Path, place: str):
    paths = make(cache, FILES)
    write_pin(paths, MAIN)
    assert scanned(cache).pin is None
    (paths.path / place).rename(paths.path / "moved")
    (paths.path / place).write_text("")
    pin = scanned(cache).pin
    assert pin is not None and "cannot be read" in pin.why


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read everything")
def test_bytes_that_cannot_be_reached_do_not_count_as_gone(cache: Path):
    paths = make(cache, FILES)
    paths.blobs.chmod(0)
    try:
        assert set(faults(scanned(cache)).values()) == {"unreadable"}
    finally:
        paths.blobs.chmod(stat.S_IRWXU)


def test_folders_may_be_as_deep_as_the_system_lets_them(cache: Path):
    paths = make(cache, FILES)
    at = os.open(paths.snapshot(MAIN), os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 200, dir_fd=at)
        at, above = os.open("d" * 200, os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    repo = scanned(cache)
    assert len(repo.warnings) == 1 and "cannot be read (File name too long)" in repo.warnings[0]
    assert repo.shown == set(repo.blobs)


def test_what_vanishes_while_it_is_read_is_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    monkeypatch.setattr(os, "lstat", lambda path: (_ for _ in ()).throw(FileNotFoundError(2, "gone")))
    assert not list(leftovers.leftover(str(cache), "x", "unknown"))
    assert scan_repo(cache, NAME).revisions == ()


def test_a_blob_that_appears_after_the_blobs_were_read_is_found(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    late = paths.blob(etag(WEIGHTS))
    late.rename(cache / "late")
    listed = os.scandir

    def placing(path: str) -> object:
        if os.fspath(path) == str(paths.snapshots) and not late.exists():
            (cache / "late").rename(late)
        return listed(path)

    monkeypatch.setattr(os, "scandir", placing)
    repo = scan_repo(cache, NAME)
    assert set(faults(repo).values()) == {None} and etag(WEIGHTS) in repo.shown & set(repo.blobs)


def test_a_junction_is_a_link_on_every_python(monkeypatch: pytest.MonkeyPatch):
    class Entry:
        path = name = "x"

        def is_symlink(self) -> bool:
            return False

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return True

        def stat(self, *, follow_symlinks: bool) -> SimpleNamespace:
            return SimpleNamespace(st_reparse_tag=0xA0000003)

    monkeypatch.setattr(leftovers, "_WINDOWS", True)
    monkeypatch.delattr(os.path, "isjunction", raising=False)
    assert leftovers.kind_of(Entry()) == "link"  # type: ignore[arg-type]


def test_a_list_of_millions_of_files_takes_no_memory(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    data = b'"blob_id":"' * 300_000
    paths.tree(MAIN).write_bytes(data)
    tracemalloc.start()
    try:
        assert scanned(cache).revisions[0].expected == 300_000
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()
    monkeypatch.setattr("hubclient.cache.scanning.look._TREE_LENGTH", len(data) - 1)
    assert scanned(cache).revisions[0].expected is None
