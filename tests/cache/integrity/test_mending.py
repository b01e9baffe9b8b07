"""What is damaged here and intact there is mended from there; nothing that is intact, or of which nothing better is here, is touched."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cachemaking import MAIN, OTHER, git_sha1, make, sha256, spoil, state, xet
from huggingface_hub.utils import _shared_blobs

from hubclient.cache.integrity.findings import Finding
from hubclient.cache.integrity.mending import repair_locally
from hubclient.cache.integrity.verify import verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.sharedstore import entry_path
from hubclient.errors import DamagedInput

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = random.Random(5).randbytes(300)
BAD = WEIGHTS[::-1]
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
STYLES = ("symlink", "hardlink", "copy", "moved", "shared")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUBCLIENT_CATALOG", str(tmp_path / "catalog"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def shown(paths: RepoPaths, commit: str = MAIN) -> bytes:
    return (paths.snapshot(commit) / "model.safetensors").read_bytes()


def repaired(cache: Path) -> list[bool]:
    return [repair_locally(cache, finding) for finding in verify(cache).failures]


@pytest.mark.parametrize("bad", STYLES)
@pytest.mark.parametrize("good", STYLES)
def test_bytes_come_from_another_repository_however_it_is_laid_out(cache: Path, bad: str, good: str):
    paths = make(cache, FILES, style=bad)
    if bad == good == "shared":
        good = "copy"  # two links to one entry are both bad
    spoil(paths.snapshot(MAIN) / "model.safetensors", BAD)
    if bad == "copy":
        paths.blob(sha256(WEIGHTS)).unlink()
    other = make(cache, FILES, "org/other", style=good if good != "shared" else "symlink")
    assert repaired(cache) and all(repaired(cache)), "twice is as good as once"
    assert verify(cache).ok and shown(paths) == WEIGHTS == shown(other)
    assert not list(cache.rglob("*.incomplete"))


def test_a_mended_blob_is_read_only_and_a_file_of_its_own(cache: Path):
    paths, other = make(cache, FILES), make(cache, FILES, "org/other")
    spoil(paths.blob(sha256(WEIGHTS)), BAD)
    assert repaired(cache) == [True]
    blob = paths.blob(sha256(WEIGHTS))
    assert not stat.S_IMODE(blob.stat().st_mode) & 0o222
    assert blob.stat().st_ino != other.blob(sha256(WEIGHTS)).stat().st_ino


def test_damaged_copies_are_no_source(cache: Path):
    paths, other = make(cache, FILES), make(cache, FILES, "org/other")
    for damaged in (paths, other):
        spoil(damaged.blob(sha256(WEIGHTS)), BAD)
    before = state(cache)
    assert repaired(cache) == [False, False]
    assert state(cache) == before


def test_a_copy_in_a_snapshot_mends_a_blob_and_the_other_way_round(cache: Path):
    paths = make(cache, FILES, style="copy")
    make(cache, FILES, commit=OTHER, style="symlink", ref=None)
    spoil(paths.blob(sha256(WEIGHTS)), BAD)
    assert repaired(cache) == [True] and shown(paths, OTHER) == WEIGHTS
    spoil(paths.snapshot(MAIN) / "model.safetensors", BAD)
    assert repaired(cache) == [True] and shown(paths) == WEIGHTS and verify(cache).ok


@pytest.mark.parametrize("broken", ["dangling", "swapped", "loop", "outside", "folder"])
@pytest.mark.parametrize("here", [True, False])
def test_links_are_made_anew_from_the_tree(cache: Path, broken: str, here: bool):
    paths = make(cache, FILES)
    pointer, blob = paths.snapshot(MAIN) / "model.safetensors", paths.blob(sha256(WEIGHTS))
    if not here:
        make(cache, FILES, "org/other")
        blob.unlink()
    targets = {
        "dangling": "../../blobs/" + "0" * 64,
        "swapped": f"../../blobs/{git_sha1(b'{}')}",
        "loop": "model.safetensors",
        "outside": "/etc/hostname",
        "folder": "../..",
    }
    pointer.unlink()
    pointer.symlink_to(targets[broken])
    assert repaired(cache) == [True]
    assert os.readlink(pointer) == f"../../blobs/{sha256(WEIGHTS)}" and verify(cache).ok


def test_without_a_tree_a_link_to_nothing_still_names_the_bytes(cache: Path):
    paths = make(cache, FILES, tree=False)
    make(cache, FILES, "org/other")
    paths.blob(sha256(WEIGHTS)).unlink()
    assert repaired(cache) == [True] and shown(paths) == WEIGHTS


def test_a_bad_entry_of_the_shared_store_is_replaced_so_that_all_links_are_mended(cache: Path):
    first, second = make(cache, FILES, style="shared"), make(cache, FILES, "org/second", style="shared")
    make(cache, FILES, "org/third")
    entry = entry_path(cache, xet(WEIGHTS))
    mode = entry.stat().st_mode
    spoil(entry, BAD)
    before = entry.with_name(f"{entry.name}.refs").read_text()
    assert repaired(cache) == [True, True]
    assert shown(first) == WEIGHTS == shown(second) and first.blob(sha256(WEIGHTS)).is_symlink()
    assert entry.stat().st_mode == mode and entry.with_name(f"{entry.name}.refs").read_text() == before
    assert _shared_blobs._read_valid_manifest_references(entry, cache) == {
        paths.blob(sha256(WEIGHTS)) for paths in (first, second)
    }


def test_the_shared_store_is_a_source_by_the_xet_hash_that_the_tree_tells(cache: Path):
    paths = make(cache, FILES)
    second = make(cache, FILES, "org/second", style="shared")
    second.blob(sha256(WEIGHTS)).unlink()  # the entry stays; no repository's name leads there
    (second.snapshot(MAIN) / "model.safetensors").unlink()
    spoil(paths.blob(sha256(WEIGHTS)), BAD)
    assert repaired(cache) == [True] and shown(paths) == WEIGHTS


def test_what_was_mended_meanwhile_is_left_alone(cache: Path):
    paths = make(cache, FILES)
    make(cache, FILES, "org/other")
    spoil(paths.blob(sha256(WEIGHTS)), BAD)
    (finding,) = verify(cache).failures
    spoil(paths.blob(sha256(WEIGHTS)), WEIGHTS)
    before = state(cache)
    assert repair_locally(cache, finding) and state(cache) == before


def test_a_file_that_was_removed_meanwhile_stays_removed(cache: Path):
    paths = make(cache, FILES)
    make(cache, FILES, "org/other")
    paths.blob(sha256(WEIGHTS)).unlink()
    (finding,) = verify(cache).failures
    (paths.snapshot(MAIN) / "model.safetensors").unlink()
    repair_locally(cache, finding)
    assert not os.path.lexists(paths.snapshot(MAIN) / "model.safetensors")


def test_a_folder_that_is_a_planted_link_is_refused(cache: Path, tmp_path: Path):
    paths = make(cache, FILES)
    make(cache, FILES, "org/other")
    spoil(paths.blob(sha256(WEIGHTS)), BAD)
    (finding,) = verify(cache).failures
    paths.blobs.rename(tmp_path / "elsewhere")
    paths.blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedInput, match="blobs"):
        repair_locally(cache, finding)
    assert sorted(os.listdir(tmp_path / "elsewhere")) == sorted([sha256(WEIGHTS), git_sha1(b"{}")])


def test_findings_that_no_bytes_can_mend_are_left(cache: Path):
    paths = make(cache, FILES)
    (paths.refs / "v1").write_text("c" * 40)
    paths.tree(MAIN).write_text("{")
    assert repaired(cache) == [False, False]
    assert not repair_locally(cache, Finding("damaged", RepoId("org/name"), "odd-name"))


KILLED = """
import sys
from pathlib import Path
from hubclient.cache.integrity.verify import verify
from hubclient.cache.integrity.mending import repair_locally
for finding in verify(Path(sys.argv[1])).failures:
    repair_locally(Path(sys.argv[1]), finding)
"""


@pytest.mark.parametrize("style", ["symlink", "hardlink", "shared"])
@pytest.mark.parametrize("point", ["repair.copied", "repair.placed", "repair.shown", "repair.shared"])
def test_a_killed_repair_shows_old_bytes_or_good_ones_and_the_next_one_completes(cache: Path, style: str, point: str):
    paths, second = make(cache, FILES, style=style), make(cache, FILES, "org/second", style=style)
    make(cache, FILES, "org/third")
    for damaged in {(other.snapshot(MAIN) / "model.safetensors").resolve() for other in (paths, second)}:
        spoil(damaged, BAD)
    for _ in range(2):
        env = {**os.environ, "HUBCLIENT_FAULTPOINT": point}
        done = subprocess.run([sys.executable, "-c", KILLED, str(cache)], env=env, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        assert {shown(paths), shown(second)} <= {WEIGHTS, BAD}
    assert all(repaired(cache)) and verify(cache).ok
    assert shown(paths) == WEIGHTS == shown(second)
