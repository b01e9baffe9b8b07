"""Looks at the disk just before something is removed, and small things done then."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hubclient.cache import notes
from hubclient.cache.inside import is_inside, names_inside
from hubclient.cache.layout import RepoPaths, is_commit
from hubclient.cache.model import CachedRepo
from hubclient.cache.retention.keeping import NOTHING, Writing
from hubclient.cache.trees import read_tree
from hubclient.errors import DamagedInput


def writing_in(paths: RepoPaths) -> Writing:
    """What running pulls write in a repository, by their notes and the lists of the commits' files."""
    commits = frozenset(filter(is_commit, notes.live(paths)))
    if not commits:
        return NOTHING
    blobs: set[str] = set()
    for commit in commits:
        try:
            tree = read_tree(paths.tree(commit))
        except (OSError, DamagedInput):
            tree = None
        if tree is None:
            return Writing(commits, None)
        blobs.update(entry.etag for entry in tree.values())
    return Writing(commits, frozenset(blobs))


def forget_dead(paths: RepoPaths) -> None:
    """Remove the notes of writers that are gone."""
    for path in notes.dead(paths):
        with suppress(OSError):
            os.unlink(path)


def dangling(repo: CachedRepo) -> set[str]:
    """Names of blobs that links in snapshots lead to, and that are not there."""
    found = set()
    for revision in repo.revisions:
        for file in revision.faults:
            with suppress(OSError):
                link = repo.paths.snapshot(revision.commit).joinpath(*file.name.split("/"))
                found.add(os.path.basename(os.readlink(link)))
    return found


def remove_empty(folder: Path) -> None:
    """Remove a folder's empty folders, and itself if it is one; a link is none."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        folders = [place for place, _, _ in os.walk(folder)]
        for place in reversed(folders):
            with suppress(OSError):
                os.rmdir(place)


def remove_empty_folders(paths: RepoPaths, *, fresh: bool) -> None:
    """Empty folders of a repository go; if they are `fresh`, not those that somebody may just have made."""
    folders = (paths.path / ".no_exist", paths.path / "trees") + (() if fresh else (paths.refs, paths.blobs))
    for folder in folders:
        if is_inside(folder, paths.cache):
            remove_empty(folder)


def remove_empty_repository(paths: RepoPaths, *, fresh: bool) -> None:
    """The last folders, if nothing is in them; of whoever begins to write just now there is a note in one."""
    if not is_inside(paths.notes / "trash", paths.cache):
        return
    for name in set(names_inside(paths.notes, paths.cache)) - {"trash"}:
        remove_empty(paths.notes / name)
    with suppress(OSError):
        if os.path.lexists(paths.notes / "trash"):  # other removals show themselves in it, by folders that are empty at first
            (paths.notes / "trash").rmdir()
        paths.notes.rmdir()
    if fresh:
        return
    with suppress(OSError):
        if os.listdir(paths.path) == ["snapshots"]:  # huggingface_hub takes a repository without the folder for a broken one
            paths.snapshots.rmdir()
        paths.path.rmdir()


def modified(path: Path) -> float | None:
    """When it was, seconds since 1970; None if it is not there."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def newest_folder(path: Path) -> float:
    """When entries were last made in a folder, or in those below."""
    return max((modified(Path(place)) or 0.0 for place, _, _ in os.walk(path)), default=0.0)
