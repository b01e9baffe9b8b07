"""Plans carried out on real folders: only what nobody needs goes, exactly as much as was said, whatever happens in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from cachemaking import MAIN, OTHER, etag, make, state, xet
from filelock import FileLock
from huggingface_hub import scan_cache_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from soundness import bytes_on_disk, faults, leftovers, snapshot_bytes

from hubclient.cache import notes
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.retention import removal
from hubclient.cache.retention.keeping import Writing
from hubclient.cache.retention.plans import RemovalPlan, Removed
from hubclient.cache.retention.policy import Policy, plan_gc, plan_prune, plan_rm
from hubclient.cache.retention.removal import carry_out, live_pulls
from hubclient.cache.retention.trash import Trash
from hubclient.cache.scanning.scan import scan_cache
from hubclient.cache.sharedstore import entry_path
from hubclient.errors import EnvironmentFault, UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
NAME, SECOND = RepoId("org/name"), RepoId("org/second")
THIRD = "c" * 40
DAY = 86_400.0
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(250)), "a/b.txt": b"deep"}
MORE = {"config.json": b"{}", "model.safetensors": bytes(range(1, 251)), "new.txt": b"new"}
STYLES = ("symlink", "hardlink", "copy", "moved", "llama", "shared")
DRAWN = {"pinned", "live", "fresh"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "SETTLE", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def age(path: Path, seconds: float = 10 * DAY) -> None:
    """Make everything in a folder so much older than now."""
    then = time.time() - seconds
    for folder, names, files in os.walk(path, topdown=False):
        for name in [*names, *files, ""]:
            os.utime(os.path.join(folder, name) if name else folder, (then, then), follow_symlinks=False)


def prune(cache: Path, **more: float) -> tuple[RemovalPlan, Removed]:
    contents = scan_cache(cache)
    plan = plan_prune(contents, now=time.time(), live=live_pulls(contents), **more)
    return plan, carry_out(cache, plan)


def rm(cache: Path, repo: RepoId = NAME, revision: str | None = None, file: str | None = None) -> Removed:
    contents = scan_cache(cache)
    return carry_out(cache, plan_rm(contents, repo, revision, file, live=live_pulls(contents)))


def content(cache: Path) -> int:
    """Bytes of what a plan counts: blobs, snapshots, the store's entries, leftovers."""
    seen = {}
    for folder, _, names in os.walk(cache):
        for path in (os.path.join(folder, name) for name in names):
            lstat = os.lstat(path)
            counted = not path.endswith((".refs", ".lock")) and any(
                f"/{part}/" in path[len(str(cache)) :] for part in ("blobs", "snapshots")
            )
            if counted and not os.path.islink(path) and "shared-blobs" not in path:
                seen[lstat.st_ino] = lstat.st_size
    return sum(seen.values())


def warnings_of_huggingface_hub(cache: Path) -> list[str]:
    return [str(warning) for warning in scan_cache_dir(cache).warnings]


# revisions


@pytest.mark.parametrize("style", STYLES)
def test_a_removed_revision_takes_what_it_alone_shows_whatever_the_layout(cache: Path, style: str):
    make(cache, FILES, style=style)
    make(cache, MORE, style=style, commit=OTHER, ref="v2")
    before, rest = bytes_on_disk(cache), snapshot_bytes(cache, "org/name", OTHER)
    plan = plan_rm(scan_cache(cache), NAME, "main")
    done = carry_out(cache, plan)
    assert [removal.commit for removal in done.removals] == [MAIN] and not done.kept
    assert snapshot_bytes(cache, "org/name", OTHER) == rest and not faults(cache) and not leftovers(cache)
    paths = RepoPaths(cache, NAME)
    gone = [paths.snapshot(MAIN), paths.ref("main"), paths.tree(MAIN)]
    if style != "copy":  # nothing tells that a copy is one; prune takes the blob
        gone.append(paths.blob(etag(FILES["a/b.txt"])))
    assert not any(os.path.lexists(path) for path in gone)
    assert paths.tree(OTHER).exists() and not warnings_of_huggingface_hub(cache)
    if style != "shared":  # there, lists of links are shortened too
        assert done.freed == before - bytes_on_disk(cache)


@pytest.mark.parametrize("style", STYLES)
def test_a_repository_goes_as_a_whole_and_others_are_left_byte_for_byte(cache: Path, style: str):
    make(cache, FILES, "org/second", style=style)
    before, size = state(cache), bytes_on_disk(cache)
    make(cache, {**FILES, "own": b"o" * 300}, style=style)
    done = rm(cache)
    assert done.repos == (NAME,) and not (cache / NAME.folder).exists()
    after = state(cache)
    assert {path: after[path] for path in before if not path.endswith(".refs")} == {
        path: before[path] for path in before if not path.endswith(".refs")
    }
    assert set(after) - set(before) <= {".locks", *(name for name in after if name.endswith(".lock"))}
    assert bytes_on_disk(cache) == size and not warnings_of_huggingface_hub(cache) and not leftovers(cache)


def test_notes_of_a_revision_go_with_it_and_others_stay(cache: Path):
    paths = make(cache, FILES)
    make(cache, MORE, commit=OTHER, ref="v2")
    for commit in (MAIN, OTHER):
        notes.mark_used(paths, commit)
        notes.record_output(paths, notes.Output(f"/out/{commit}", "gguf", "Q4_K", commit, notes.now()))
        (paths.no_exist(commit) / "sub").mkdir(parents=True)
        (paths.no_exist(commit) / "sub" / "missing.txt").touch()
    rm(cache, revision="main")
    assert set(notes.last_used(paths)) == {OTHER} and [one.commit for one in notes.read_outputs(paths)] == [OTHER]
    assert not paths.no_exist(MAIN).exists() and paths.no_exist(OTHER).exists()


def test_a_file_goes_and_its_revision_stays(cache: Path):
    paths = make(cache, FILES)
    done = rm(cache, file="a/b.txt")
    assert done.freed == 4 and set(snapshot_bytes(cache, "org/name", MAIN)) == {"config.json", "model.safetensors"}
    assert not (paths.snapshot(MAIN) / "a").exists() and paths.ref("main").exists()
    assert not faults(cache) and not warnings_of_huggingface_hub(cache)


def test_nested_refs_go_with_their_folders(cache: Path):
    paths = make(cache, FILES, ref=None)
    (paths.refs / "refs" / "pr").mkdir(parents=True)
    (paths.refs / "refs" / "pr" / "1").write_text(MAIN)
    make(cache, MORE, commit=OTHER)
    rm(cache, revision="refs/pr/1")
    assert os.listdir(paths.refs) == ["main"] and not faults(cache)


def test_files_that_nobody_knows_stay_and_so_does_their_folder(cache: Path):
    paths = make(cache, FILES)
    (paths.path / "mine.txt").write_text("mine")
    (paths.blobs / "x.weird.thing").mkdir()
    (paths.blobs / "x.weird.thing" / "y").write_text("y")
    before = state(paths.path)
    done = rm(cache)
    assert len(done.removals) == 1 and not done.repos
    assert set(state(paths.path)) == {
        "mine.txt",
        "blobs",
        "blobs/x.weird.thing",
        "blobs/x.weird.thing/y",
        "snapshots",
    }
    assert all(state(paths.path)[name] == before[name] for name in ("mine.txt", "blobs/x.weird.thing/y"))
    assert not warnings_of_huggingface_hub(cache)


# prune


def test_what_is_of_no_use_goes_and_the_second_time_there_is_nothing(cache: Path):
    paths = make(cache, FILES)
    make(cache, MORE, commit=OTHER, ref=None)
    make(cache, {"only": b"detached"}, "org/second", ref=None)
    (paths.refs / "old").write_text(THIRD)
    (paths.blobs / f"{'d' * 40}.0123abcd.incomplete").write_bytes(b"part")
    (paths.blobs / f".{'d' * 40}.0123abcd.shared").symlink_to("nowhere")
    (paths.notes / "active").mkdir(parents=True)
    note = json.dumps({"commit": THIRD, "host": "h", "space": "s", "pid": 1, "started": 2})
    (paths.notes / "active" / "x").write_text(note)
    age(cache)
    before, size = content(cache), bytes_on_disk(cache)
    plan, done = prune(cache)
    assert plan.freed == before - content(cache) + len(note)
    assert done.freed >= plan.freed and done.freed == size - bytes_on_disk(cache)
    assert done.repos == (SECOND,) and not done.kept
    assert snapshot_bytes(cache, "org/name", MAIN) == FILES and not faults(cache) and not leftovers(cache)
    assert plan_prune(scan_cache(cache), now=time.time()).is_empty and not warnings_of_huggingface_hub(cache)


def test_a_cache_of_today_is_left_alone(cache: Path):
    make(cache, FILES, ref=None)
    before = state(cache)
    plan, done = prune(cache)
    assert plan.is_empty and not done.freed and state(cache) == before


def test_orphans_of_the_shared_store_go_and_those_without_a_list_stay(cache: Path):
    for name in ("org/name", "org/second", "org/third"):
        make(cache, {"model": name.encode() * 50}, name, style="shared")
    entries = [entry_path(cache, xet(name.encode() * 50)) for name in ("org/name", "org/second", "org/third")]
    for folder in ("models--org--name", "models--org--second"):
        subprocess.run(["rm", "-r", str(cache / folder)], check=True)
    entries[1].with_name(f"{entries[1].name}.refs").unlink()
    age(cache)
    plan, done = prune(cache)
    assert done.freed == 400 == plan.freed and [entry.exists() for entry in entries] == [False, True, True]
    assert snapshot_bytes(cache, "org/third", MAIN)["model"]


def test_a_store_without_its_marker_is_not_touched(cache: Path):
    make(cache, FILES, style="shared")
    (cache / "blobs" / ".huggingface-shared-blobs").unlink()
    age(cache)
    before = state(cache / "blobs")
    rm(cache)
    assert state(cache / "blobs") == before


@pytest.mark.parametrize("whole", [True, False])
def test_the_shared_store_is_left_as_huggingface_hub_leaves_it(tmp_path: Path, whole: bool):
    caches = [tmp_path / "ours", tmp_path / "theirs"]
    for cache in caches:
        make(cache, {"same": b"s" * 300, "own": b"o" * 301}, style="shared")
        make(cache, {"same": b"s" * 300, "else": b"e" * 302}, "org/second", commit=OTHER, style="shared")
        if not whole:
            make(cache, {"more": b"m" * 303}, commit=THIRD, ref="v3", style="shared")
    rm(caches[0], revision=None if whole else "main")
    scan_cache_dir(caches[1]).delete_revisions(MAIN).execute()
    ours, theirs = ({path: value and value[:3] for path, value in state(cache / "blobs").items()} for cache in caches)
    assert ours == theirs and sum(path.endswith(".refs") for path in ours) == 3 - whole
    assert not warnings_of_huggingface_hub(caches[0])
    mine, other = ({path for path in state(cache) if "trees" not in path and ".locks" not in path} for cache in caches)
    assert mine == other


# what appears between the plan and its execution


def revision_plan(cache: Path) -> RemovalPlan:
    age(cache)
    plan = plan_gc(scan_cache(cache), Policy(max_age=DAY), now=time.time())
    assert plan.removals
    return plan


def test_a_pin_made_since_keeps_a_revision(cache: Path):
    paths = make(cache, FILES)
    plan = revision_plan(cache)
    notes.write_pin(paths, MAIN)
    before = state(cache)
    done = carry_out(cache, plan)
    assert state(cache) == before and not done.freed and any("is pinned" in kept.why for kept in done.kept)


def test_a_use_a_ref_or_a_pull_since_keeps_a_revision(cache: Path):
    for number, change in enumerate(("used", "ref", "file", "pull")):
        name = RepoId(f"org/{change}")
        paths = make(cache, FILES, name.name)
        make(cache, MORE, name.name, commit=OTHER, ref="v2")
        plan = revision_plan(cache)
        if change == "used":
            notes.mark_used(paths, MAIN)
        elif change == "ref":
            (paths.refs / "v1").write_text(MAIN)
        elif change == "file":
            (paths.snapshot(MAIN) / "again.json").symlink_to(f"../../blobs/{etag(FILES['config.json'])}")
        if change == "pull":
            with notes.active(paths, MAIN):
                done = carry_out(cache, plan)
        else:
            done = carry_out(cache, plan)
        assert paths.snapshot(MAIN).exists() and not paths.snapshot(OTHER).exists(), change
        assert not faults(cache) and any(kept.what.startswith(f"{name}@aaaa") for kept in done.kept), (number, done.kept)


def test_a_link_that_appears_while_blobs_are_in_the_trash_gets_its_bytes_back(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    plan = revision_plan(cache)
    plan = plan_rm(scan_cache(cache), NAME, MAIN)
    (paths.path / "stranger").touch()  # so that the parts go one by one

    def link_now(_: float) -> None:
        make_link = paths.snapshot(THIRD)
        make_link.mkdir(parents=True)
        (make_link / "weights").symlink_to(f"../../blobs/{etag(FILES['model.safetensors'])}")

    monkeypatch.setattr(time, "sleep", link_now)
    done = carry_out(cache, plan)
    assert snapshot_bytes(cache, "org/name", THIRD) == {"weights": FILES["model.safetensors"]}
    assert not faults(cache) and any(kept.why == "is needed after all" for kept in done.kept)
    assert not paths.blob(etag(FILES["a/b.txt"])).exists() and not leftovers(cache)


def test_a_pull_that_starts_while_blobs_are_in_the_trash_gets_those_it_may_need_back(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = make(cache, FILES)
    make(cache, {"config.json": FILES["config.json"]}, commit=OTHER, ref="v2")
    make(cache, {"b.txt": FILES["a/b.txt"]}, commit=THIRD, ref=None)
    subprocess.run(["rm", "-r", str(paths.snapshot(THIRD))], check=True)
    with notes.active(paths, THIRD):  # its note, as of before the plan, taken away for a moment
        (marker,) = (paths.notes / "active").iterdir()
        text = marker.read_text()
        marker.unlink()
        plan = plan_rm(scan_cache(cache), NAME, MAIN)
        monkeypatch.setattr(time, "sleep", lambda _: (marker.parent.mkdir(parents=True, exist_ok=True), marker.write_text(text)))
        done = carry_out(cache, plan)
    assert paths.blob(etag(FILES["a/b.txt"])).exists() and not paths.blob(etag(FILES["model.safetensors"])).exists()
    assert [kept.why for kept in done.kept] == ["is needed after all"]


def test_a_blob_whose_lock_is_held_stays(cache: Path):
    paths = make(cache, FILES)
    make(cache, {"other": b"other"}, commit=OTHER, ref="v2")
    lock = paths.lock(etag(FILES["a/b.txt"]))
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        done = rm(cache, revision="main")
    assert paths.blob(etag(FILES["a/b.txt"])).exists() and "another program" in done.kept[0].why and len(done.kept) == 1
    age(cache)
    assert prune(cache)[1].freed == 4


def test_a_repository_that_another_program_downloads_into_is_not_moved_away(cache: Path):
    paths = make(cache, FILES)
    plan = plan_rm(scan_cache(cache), NAME)
    (paths.blobs / f"{'d' * 40}.0123abcd.incomplete").write_bytes(b"part")
    lock = paths.lock("d" * 40)
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        done = carry_out(cache, plan)
    assert (
        not done.repos
        and len(done.removals) == 1
        and [path.name for path in paths.blobs.iterdir()] == [f"{'d' * 40}.0123abcd.incomplete"]
    )


def late(look: Callable[[RepoPaths], frozenset[str]]) -> Callable[[RepoPaths], frozenset[str]]:
    """A look at the running pulls that sees them from the second time on."""
    times = iter(range(100))
    return lambda paths: look(paths) if next(times) else frozenset()


def test_a_pull_that_starts_as_the_repository_vanishes_brings_it_back(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    plan = plan_rm(scan_cache(cache), NAME)
    before = state(cache)
    with notes.active(paths, MAIN):
        monkeypatch.setattr(notes, "live", late(notes.live))
        done = carry_out(cache, plan)
    after = {path: value for path, value in state(cache).items() if not path.startswith(".locks")}
    assert after == before and not done.repos and not done.removals and "being pulled" in done.kept[-1].why


def test_a_snapshot_that_a_pull_wants_as_it_vanishes_comes_back_with_its_refs(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    make(cache, MORE, commit=OTHER, ref="v2")
    plan = plan_rm(scan_cache(cache), NAME, MAIN)
    with notes.active(paths, MAIN):
        monkeypatch.setattr(notes, "live", late(notes.live))
        done = carry_out(cache, plan)
    assert snapshot_bytes(cache, "org/name", MAIN) == FILES and paths.ref("main").read_text() == MAIN
    assert not faults(cache) and not done.removals and done.freed <= len(MAIN), "the ref went and came back"


def swapped(place: Path, victim: Path) -> None:
    """A folder becomes a link to a copy of it elsewhere, where each file says whose it is."""
    place.rename(victim)
    place.symlink_to(victim)


@pytest.mark.parametrize("place", ["blobs", "snapshots", ".hubclient", ".hubclient/trash", f"snapshots/{MAIN}/a"])
@pytest.mark.parametrize("what", ["prune", "file", "revision"])
def test_folders_that_become_links_after_the_plan_was_made_are_not_followed(cache: Path, tmp_path: Path, place: str, what: str):
    paths = make(cache, FILES)
    make(cache, MORE, commit=OTHER, ref=None)
    old = paths.notes / "trash" / "1.2.0123456789abcdef.01234567"
    (old / "blobs").mkdir(parents=True)
    (old / "blobs" / ("d" * 40)).write_bytes(b"d")
    (paths.blobs / f"{'e' * 40}.0123abcd.incomplete").write_bytes(b"part")
    age(cache)
    contents = scan_cache(cache)
    arguments = {"file": (None, "a/b.txt"), "revision": ("main", None)}
    plan = plan_prune(contents, now=time.time()) if what == "prune" else plan_rm(contents, NAME, *arguments[what])
    swapped(paths.path / place, tmp_path / "victim")
    before = state(tmp_path / "victim")
    carry_out(cache, plan)
    assert state(tmp_path / "victim") == before and (what != "prune" or before)


def test_a_trash_of_repositories_that_becomes_a_link_is_not_followed(cache: Path, tmp_path: Path):
    make(cache, FILES)
    old = cache / ".locks" / ".hubclient-trash" / "1.2.0123456789abcdef.01234567"
    old.mkdir(parents=True)
    (old / "x").write_bytes(b"x")
    age(cache)
    plan = plan_prune(scan_cache(cache), now=time.time())
    assert plan.debris
    swapped(old.parent, tmp_path / "victim")
    done = carry_out(cache, plan)
    assert (tmp_path / "victim" / old.name / "x").exists() and "reached by a link" in done.kept[-1].why


def test_blobs_that_cannot_be_put_back_stay_in_the_trash_until_they_can(cache: Path, monkeypatch: pytest.MonkeyPatch):
    paths = make(cache, FILES)
    plan = plan_rm(scan_cache(cache), NAME, MAIN)
    (paths.path / "stranger").touch()  # so that the parts go one by one

    def link_now(_: float) -> None:
        paths.snapshot(THIRD).mkdir(parents=True)
        for name, data in FILES.items():
            (paths.snapshot(THIRD) / Path(name).name).symlink_to(f"../../blobs/{etag(data)}")

    real = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == paths.blob(etag(FILES["a/b.txt"])):
            raise PermissionError(13, "Permission denied", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", link_now)
        patch.setattr(os, "rename", refuse)
        done = carry_out(cache, plan)
    assert any("Permission denied" in kept.why for kept in done.kept)
    assert len(snapshot_bytes(cache, "org/name", THIRD)) == 2, "the others are back already"
    age(cache)
    (paths.refs / "main").parent.mkdir(exist_ok=True)
    (paths.refs / "main").write_text(THIRD)
    prune(cache)
    assert snapshot_bytes(cache, "org/name", THIRD) == {Path(name).name: data for name, data in FILES.items()}
    assert not leftovers(cache) and not faults(cache)


def leaning(cache: Path) -> RepoPaths:
    """Two revisions; a file of the second is a link to one of the first, which is another name of a blob."""
    paths = make(cache, {"f": b"bytes" * 40}, style="hardlink", ref=None)
    paths.snapshot(OTHER).mkdir()
    (paths.snapshot(OTHER) / "f").symlink_to(f"../{MAIN}/f")
    (paths.refs).mkdir()
    (paths.refs / "v2").write_text(OTHER)
    return paths


def test_a_revision_stays_that_another_ones_links_lead_through(cache: Path):
    paths = leaning(cache)
    age(cache)
    plan, done = prune(cache)
    assert (paths.snapshot(OTHER) / "f").read_bytes() == b"bytes" * 40 and not faults(cache)
    assert plan.size == 200 == scan_cache(cache).size and not done.freed
    assert rm(cache).repos == (NAME,) and bytes_on_disk(cache) == 0


def test_when_the_repository_cannot_go_as_a_whole_no_revision_goes_that_one_that_stays_leans_on(cache: Path):
    paths = leaning(cache)
    plan = plan_rm(scan_cache(cache), NAME)
    notes.write_pin(paths, OTHER)
    done = carry_out(cache, plan)
    assert (paths.snapshot(OTHER) / "f").read_bytes() == b"bytes" * 40 and not faults(cache) and not done.removals


def test_when_the_repository_cannot_go_as_a_whole_both_of_two_revisions_go(cache: Path):
    paths = leaning(cache)
    plan = plan_rm(scan_cache(cache), NAME)
    (paths.path / "stranger").touch()
    done = carry_out(cache, plan)
    assert len(done.removals) == 2 and not paths.blobs.exists() and not leftovers(cache)


def test_a_pin_that_is_set_while_other_repositories_go_keeps_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    second = make(cache, MORE, "org/second")
    plan = revision_plan(cache)
    real = Trash.take

    def take(self: Trash, path: Path, *under: str) -> Path:
        notes.write_pin(second, MAIN)
        return real(self, path, *under)

    monkeypatch.setattr(Trash, "take", take)
    done = carry_out(cache, plan)
    assert done.repos == (NAME,) and snapshot_bytes(cache, "org/second", MAIN) == MORE and notes.read_pins(second)


@pytest.mark.parametrize("whole", [True, False])
def test_a_pin_that_is_set_as_something_vanishes_brings_it_back(cache: Path, monkeypatch: pytest.MonkeyPatch, whole: bool):
    paths = make(cache, FILES)
    plan = revision_plan(cache)
    if not whole:
        (paths.path / "stranger").touch()
    real = Trash.take

    def take(self: Trash, path: Path, *under: str) -> Path:
        if path in (paths.path, paths.snapshot(MAIN)):
            notes.write_pin(paths, MAIN)
        return real(self, path, *under)

    monkeypatch.setattr(Trash, "take", take)
    done = carry_out(cache, plan)
    assert not done.removals and not done.repos and any(kept.why == "is pinned" for kept in done.kept)
    assert snapshot_bytes(cache, "org/name", MAIN) == FILES and paths.ref("main").read_text() == MAIN


def test_a_pin_of_a_revision_that_is_not_here_holds_its_repository(cache: Path):
    paths = make(cache, FILES, ref=None)
    notes.write_pin(paths, THIRD, "to be pulled")
    age(cache)
    plan, done = prune(cache)
    assert [removal.commit for removal in done.removals] == [MAIN] and not plan.repos and not done.repos
    assert notes.read_pins(paths)[THIRD].why == "to be pulled" and prune(cache)[0].is_empty
    with pytest.raises(UsageError, match="has a pin of a revision that is not here"):
        plan_rm(scan_cache(cache), NAME)
    assert notes.remove_pin(paths, THIRD) and rm(cache).repos == (NAME,)


def test_folders_deeper_than_a_path_may_be_long_go(cache: Path):
    paths = make(cache, FILES)
    descriptor = os.open(paths.snapshot(MAIN), os.O_RDONLY)
    for number in range(30):
        name = f"{number:0200}"
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    rm(cache)
    assert not os.path.lexists(paths.snapshot(MAIN)) and not leftovers(cache)
    rm(cache)  # the first kept blobs that the revision might have shown where nobody could look
    assert not paths.path.exists() and not leftovers(cache)


# what the system refuses


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_done(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    make(cache, FILES, "org/second")
    plan = revision_plan(cache)
    before = state(cache)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "models--" not in str(path) and real(path, mode))
    with pytest.raises(EnvironmentFault, match="the cache cannot be written here, so nothing is removed"):
        carry_out(cache, plan)
    assert state(cache) == before
    plan = revision_plan(cache)
    monkeypatch.setattr(os, "access", lambda path, mode: "second" not in str(path) and real(path, mode))
    done = carry_out(cache, plan)
    assert done.repos == (NAME,) and [kept.what for kept in done.kept] == [SECOND.folder]


def test_what_the_system_refuses_stays_with_the_reason(cache: Path, monkeypatch: pytest.MonkeyPatch):
    make(cache, FILES)
    make(cache, MORE, commit=OTHER, ref="v2")
    real = Trash.take

    def refuse(self: Trash, path: Path, *under: str) -> Path:
        if path.name == MAIN:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, path, *under)

    monkeypatch.setattr(Trash, "take", refuse)
    done = rm(cache, revision="main")
    assert done.kept[0].why == "cannot be removed: Permission denied" and not done.removals
    assert snapshot_bytes(cache, "org/name", MAIN) == FILES


def test_a_folder_of_locks_that_is_a_link_is_not_followed(cache: Path, tmp_path: Path):
    make(cache, FILES)
    (tmp_path / "elsewhere").mkdir()
    (cache / ".locks").symlink_to(tmp_path / "elsewhere")
    done = rm(cache)
    assert not (cache / NAME.folder).exists() and len(done.removals) == 1 and not list((tmp_path / "elsewhere").iterdir())


def test_read_only_blobs_and_folders_go(cache: Path):
    paths = make(cache, FILES)
    for path in paths.path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o444)
    (paths.snapshot(MAIN) / "a").chmod(0o555)
    rm(cache)
    assert not paths.path.exists() and not leftovers(cache)


def test_a_removal_tells_its_progress(cache: Path):
    make(cache, FILES)
    told: list[int] = []
    done = carry_out(cache, plan_rm(scan_cache(cache), NAME), progress=told.append)
    assert sum(told) == done.freed > 0


# killed

KILLED = """
import sys, time
from pathlib import Path
from hubclient.cache.retention import removal
from hubclient.cache.layout import RepoId
from hubclient.cache.retention.policy import Policy, plan_gc
from hubclient.cache.scanning.scan import scan_cache
removal.SETTLE = 0.0
cache = Path(sys.argv[1])
removal.carry_out(cache, plan_gc(scan_cache(cache), Policy(max_age=5 * 86400.0), now=time.time()))
"""
POINTS = (
    "gc.ref-removed",
    "gc.snapshot-trashed",
    "gc.blob-trashed",
    "gc.blob-removed",
    "gc.trash-emptied",
    "gc.repo-trashed",
    "gc.shared-removed",
)


@pytest.mark.parametrize("point", [f"{point}:{turn}" for point in POINTS for turn in (1, 2)])
def test_a_removal_killed_anywhere_leaves_whole_snapshots_and_the_next_one_finishes_it(cache: Path, point: str):
    for name in ("org/name", "org/second"):
        make(cache, {**FILES, "large": name.encode() * 40}, name, style="shared")
        make(cache, {**MORE, "own": name.encode() * 50}, name, commit=OTHER, ref="v2", style="shared")
    make(cache, MORE, "org/whole", style="shared")
    make(cache, {"more": b"m" * 500}, "org/also", style="shared")
    age(cache)
    for repo in (NAME, SECOND):
        notes.mark_used(RepoPaths(cache, repo), MAIN)
    done = subprocess.run([sys.executable, "-c", KILLED, str(cache)], cwd=ROOT, env={**os.environ, "HUBCLIENT_FAULTPOINT": point})
    assert done.returncode == -signal.SIGKILL
    assert not faults(cache) and not warnings_of_huggingface_hub(cache)
    for name in ("org/name", "org/second"):
        assert snapshot_bytes(cache, name, MAIN) == {**FILES, "large": name.encode() * 40}
    age(cache)  # what was read just now counts as used
    for repo in (NAME, SECOND):
        notes.mark_used(RepoPaths(cache, repo), MAIN)
    carry_out(cache, plan_gc(scan_cache(cache), Policy(max_age=5 * DAY), now=time.time()))
    left = scan_cache(cache)
    assert [(repo.repo, [revision.commit for revision in repo.revisions]) for repo in left.repos] == [
        (NAME, [MAIN]),
        (SECOND, [MAIN]),
    ]
    assert plan_gc(left, Policy(max_age=5 * DAY), now=time.time()).is_empty
    own = [*FILES.values(), b"org/name" * 40, b"org/second" * 40]
    small = sum(len(data) for data in FILES.values() if len(data) < 200)
    assert content(cache) == sum(map(len, own)) + small, "small files once in each repository, large ones once"
    assert not faults(cache) and not leftovers(cache) and not warnings_of_huggingface_hub(cache)


def test_a_file_removal_that_is_killed_leaves_a_blob_that_prune_takes(cache: Path):
    paths = make(cache, FILES)
    code = KILLED.replace(
        "plan_gc(scan_cache(cache), Policy(max_age=5 * 86400.0), now=time.time())",
        'plan_rm(scan_cache(cache), RepoId("org/name"), None, "a/b.txt")',
    )
    code = code.replace("Policy, plan_gc", "plan_rm")
    done = subprocess.run(
        [sys.executable, "-c", code, str(cache)], cwd=ROOT, env={**os.environ, "HUBCLIENT_FAULTPOINT": "gc.file-removed"}
    )
    assert done.returncode == -signal.SIGKILL and not faults(cache) and paths.blob(etag(FILES["a/b.txt"])).exists()
    age(cache)
    assert prune(cache)[1].freed == 4


def test_what_a_running_pull_may_need_is_told_by_its_commits_tree_or_is_everything(cache: Path):
    paths = make(cache, FILES)
    known = frozenset(map(etag, FILES.values()))
    for commit, tree, needed in ((MAIN, None, known), (OTHER, None, None), (THIRD, "{", None)):
        if tree is not None:
            paths.tree(commit).write_text(tree)
        with notes.active(paths, commit):
            assert live_pulls(scan_cache(cache)) == {NAME: Writing(frozenset([commit]), needed)}
    assert not live_pulls(scan_cache(cache))


def test_a_blob_in_the_trash_of_a_killed_removal_comes_back_if_a_snapshot_shows_it(cache: Path):
    paths = make(cache, FILES)
    blob = paths.blob(etag(FILES["a/b.txt"]))
    folder = paths.notes / "trash" / "1.2.0123456789abcdef.01234567" / "blobs"
    folder.mkdir(parents=True)
    os.rename(blob, folder / blob.name)
    age(cache)
    plan, _ = prune(cache)
    assert snapshot_bytes(cache, "org/name", MAIN) == FILES and not leftovers(cache)
    assert [debris.kind for debris in plan.debris] == ["trash"]


def test_the_trash_of_a_removal_that_runs_is_not_touched(cache: Path):
    paths = make(cache, FILES)
    trash = Trash(paths.notes / "trash", cache)
    trash.take(paths.blob(etag(FILES["a/b.txt"])), "blobs")
    assert prune(cache)[1].kept[-1].why == "belongs to a removal that still runs"
    assert trash.path.exists()
    trash.close()
    prune(cache)
    assert not trash.path.exists() and not faults(cache)


# any cache, any policy

BYTES = tuple(bytes([number]) * (3 + 61 * number) for number in range(8))
REPOS = ("org/a", "org/b", "org/c")
COMMITS = (MAIN, OTHER, THIRD)


@st.composite
def caches(draw: st.DrawFn) -> dict[tuple[str, str], dict[str, object]]:
    keys = draw(st.lists(st.tuples(st.sampled_from(REPOS), st.sampled_from(COMMITS)), unique=True, max_size=7))
    revision = st.fixed_dictionaries(
        {
            "files": st.dictionaries(st.sampled_from(["x", "y", "d/z"]), st.sampled_from(BYTES), max_size=3),
            "days": st.integers(1, 30),
            "ref": st.booleans(),
            "mark": st.sampled_from(["", "", "", "pinned", "live", "fresh"]),
        }
    )
    styles = {name: draw(st.sampled_from(STYLES)) for name in REPOS}
    return {key: {**draw(revision), "style": styles[key[0]]} for key in keys}


policies = st.builds(
    Policy,
    max_size=st.none() | st.integers(0, 1500),
    max_age=st.none() | st.integers(0, 30).map(lambda days: days * DAY + DAY / 2),
    keep_last=st.none() | st.integers(0, 3),
    detached=st.booleans(),
)


def build(cache: Path, made: Mapping[tuple[str, str], Mapping[str, object]]) -> dict[tuple[str, str], dict[str, bytes]]:
    """The revisions on the disk; what each shows."""
    cache.mkdir()
    for (name, commit), one in made.items():
        files = one["files"]
        assert isinstance(files, dict)
        paths = make(cache, files, name, style=str(one["style"]), commit=commit, ref=commit[:3] if one["ref"] else None)
        paths.snapshot(commit).mkdir(parents=True, exist_ok=True)
        assert notes.mark_used(paths, commit)
        if one["mark"] == "pinned":
            notes.write_pin(paths, commit)
    shows = {key: snapshot_bytes(cache, *key) for key in made}
    age(cache, 40 * DAY)
    for (name, commit), one in made.items():
        days = 0.0 if one["mark"] == "fresh" else one["days"]
        assert isinstance(days, float | int)
        then = time.time() - days * DAY
        os.utime(RepoPaths(cache, RepoId(name)).notes / "used" / commit, (then, then))
    return shows


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=caches(), policy=policies)
def test_any_policy_on_any_cache_takes_what_it_says_and_nothing_that_is_shielded(tmp_path_factory, made, policy):
    cache = tmp_path_factory.mktemp("any") / "hub"
    shows = build(cache, made)
    with ExitStack() as pulls:
        for (name, commit), one in made.items():
            if one["mark"] == "live":
                pulls.enter_context(notes.active(RepoPaths(cache, RepoId(name)), commit))
        contents = scan_cache(cache)
        plan = plan_gc(contents, policy, now=time.time(), live=live_pulls(contents))
        before, disk = content(cache), bytes_on_disk(cache)
        assert plan.size == before == contents.size + sum(left.size for repo in contents.repos for left in repo.leftovers)
        done = carry_out(cache, plan)
        remaining = scan_cache(cache)  # before anything is read: that counts as a use
        assert plan_gc(remaining, policy, now=time.time(), live=live_pulls(remaining)).is_empty
    assert not faults(cache) and not done.kept and plan.freed == before - content(cache)
    assert disk - bytes_on_disk(cache) >= plan.freed
    taken = {(one.repo.name, one.commit) for one in plan.removals}
    assert not {key for key in taken if made[key]["mark"]}
    for key in made:
        if key in taken:
            assert not RepoPaths(cache, RepoId(key[0])).snapshot(key[1]).exists()
        else:
            assert snapshot_bytes(cache, *key) == shows[key]
            aged = policy.max_age is not None and made[key]["days"] * DAY > policy.max_age
            if aged and not made[key]["mark"] and not policy.keep_last:
                raise AssertionError(f"{key} is too old")
    if policy.max_size is not None:
        assert plan.short_by == max(0, content(cache) - policy.max_size)
        if plan.short_by and not policy.keep_last:
            shielded = {data for key, one in made.items() if one["mark"] for data in shows[key].values()}
            gainless = (set(shows[key].values()) <= shielded for key, one in made.items() if key not in taken and not one["mark"])
            assert all(gainless), "what is left and not shielded would free nothing"
