"""One repository's part of a plan, carried out: what `removal.py` promises is kept here."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from hubclient.cache import notes
from hubclient.cache.inside import check_inside, is_inside, text_inside
from hubclient.cache.layout import LOCKS, RepoId, RepoPaths, is_commit
from hubclient.cache.model import CachedRevision
from hubclient.cache.retention.account import Account
from hubclient.cache.retention.keeping import ago, shield
from hubclient.cache.retention.lastlook import (
    dangling,
    forget_dead,
    modified,
    newest_folder,
    remove_empty_folders,
    remove_empty_repository,
    writing_in,
)
from hubclient.cache.retention.plans import Debris, Removal, RemovalPlan, StaleRef
from hubclient.cache.retention.trash import Trash, abandoned, erase, unlink
from hubclient.cache.scanning.scan import TRASH, scan_repo
from hubclient.cache.sharedstore import hash_behind
from hubclient.cache.writing.locks import courtesy_lock
from hubclient.cache.writing.placing import make_folder, write_ref
from hubclient.errors import DamagedInput
from hubclient.ground.faultpoints import reach
from hubclient.ground.names import shown

_PASSING = frozenset(
    ["incomplete", "ledger", "temporary", "etag", "lock", "trash", "writer", "ref"]
)  # leftovers that go with their repository


class Clearing:
    """A repository, while its part of a plan is carried out: `hide` puts things into the trash, `finish` empties it."""

    def __init__(self, plan: RemovalPlan, repo: RepoId, account: Account) -> None:
        self.paths = RepoPaths(plan.cache, repo)
        self.hidden: dict[str, Path] = {}  # blobs in the trash, by name
        self._plan, self._repo, self._account = plan, repo, account
        places = (self.paths.path, self.paths.blobs, self.paths.snapshots, self.paths.refs)
        self._changed = max(filter(None, map(modified, places)), default=0.0)
        self._trash = Trash(self.paths.notes / "trash", plan.cache)
        self._whole: Trash | None = None
        with suppress(OSError, DamagedInput):  # where it cannot be shown nothing can be removed
            self._trash.show()
        self._found = scan_repo(plan.cache, repo)
        self._writing = writing_in(self.paths)
        self._removals = [removal for removal in plan.removals if removal.repo == repo]

    def hide(self) -> None:
        """Take everything out of sight that still may go."""
        if self._repo in self._plan.repos and self._hide_whole():
            return
        for removal in sorted(self._removals, key=lambda one: one.commit in self._found.leaned_on):
            with self._account.attempt(str(removal)):
                self._hide_revision(removal)
        for ref in self._plan.refs:
            if ref.repo == self._repo:
                with self._account.attempt(f"{ref.repo} {ref.name}"):
                    self._remove_stale(ref)
        self._hide_blobs([blob.name for blob in self._plan.blobs if blob.repo == self._repo])
        for debris in self._plan.debris:
            if debris.repo == self._repo:
                with self._account.attempt(debris.path):
                    self._remove_debris(debris)

    def finish(self) -> None:
        """Put back what is needed after all, remove the rest, and what was noted of it."""
        account = self._account
        if self._whole is not None:
            with account.attempt(str(self._repo)):
                self._whole.empty(account.gained)
                reach("gc.trash-emptied")
            locks = self._plan.cache / LOCKS / self._repo.folder
            with suppress(OSError):
                if is_inside(locks, self._plan.cache):
                    erase(locks, account.gained)
            return
        known = False
        with account.attempt(str(self._repo)):
            for name in self._put_back_blobs(self._trash.path / "blobs"):
                self.hidden.pop(name, None)
            known = True
        if not known:  # what is needed may be in the trash still: the next removal looks again
            return
        with account.attempt(str(self._repo)):
            self._forget(self._trash.path)
        for name, path in self.hidden.items():
            with account.attempt(self._called(name)):
                account.gained(unlink(path))
                account.blobs += 1
                reach("gc.blob-removed")
        if not notes.live(self.paths):
            remove_empty_folders(self.paths, fresh=self._is_fresh(self._changed))
        with account.attempt(str(self._repo)):
            self._trash.empty(account.gained)
            reach("gc.trash-emptied")
        forget_dead(self.paths)
        remove_empty_repository(self.paths, fresh=self._is_fresh(self._changed))

    def close(self) -> None:
        """Leave what is left to the next removal."""
        for trash in filter(None, (self._trash, self._whole)):
            trash.close()

    # the repository as a whole

    def _hide_whole(self) -> bool:
        """Whether the repository's folder has gone into the trash; else its parts must go one by one."""
        why = self._why_it_stands()
        if why is not None:
            self._account.keep(str(self._repo), why)
            return False
        trash = self._whole = Trash(self._plan.cache / LOCKS / TRASH, self._plan.cache)
        try:
            folder = trash.take(self.paths.path)
        except (OSError, DamagedInput):  # the folder of locks is a link, or on another disk
            trash.close()
            self._whole = None
            return False
        reach("gc.repo-trashed")
        moved = RepoPaths(folder.parent, self._repo)
        wanted = "is being pulled right now" if notes.live(moved) else "is pinned" if notes.read_pins(moved) else None
        if wanted is not None:
            with suppress(OSError):  # it has been begun anew already
                os.rename(folder, self.paths.path)
                trash.close()
                self._whole = None
                self._account.keep(str(self._repo), wanted)
                return True
        account = self._account
        account.repos.append(self._repo)
        account.removals += self._removals
        account.blobs += sum("/" not in name for name in self._found.blobs)
        account.swept.update(blob.shared for blob in self._found.blobs.values() if blob.shared)
        return True

    def _why_it_stands(self) -> str | None:
        """What has appeared since the plan was made that keeps the repository's folder."""
        found = self._found
        stranger = next((left.path for left in found.leftovers if left.kind not in _PASSING), None)
        if stranger is not None:
            return f"holds {shown(stranger)}, which is left alone"
        if self._writing.commits or any(self._is_busy(left.path) for left in found.leftovers if left.kind == "incomplete"):
            return "is being pulled right now"
        if notes.read_pins(self.paths) or found.pin:
            return "is pinned"
        planned = {removal.commit for removal in self._removals if not removal.files}
        if any(revision.commit not in planned for revision in found.revisions):
            return "has a revision that it had not when the plan was made"
        changed = max([self._changed, *(left.modified for left in found.leftovers if left.kind == "incomplete")])
        if self._is_fresh(changed):
            return f"was changed {ago(self._account.now - changed)}"
        return next(filter(None, (self._why_kept(removal, whole=True) for removal in self._removals)), None)

    # revisions

    def _why_kept(self, removal: Removal, *, whole: bool = False) -> str | None:
        """What keeps a revision now; None if nothing does, or it has gone already. In the `whole` repository none leans on another."""
        revision = self._revision(removal.commit)
        if revision is None:
            return None
        now = math.inf if self._plan.named else self._account.now
        leaning = replace(self._found, revisions=(revision,)) if whole else self._found
        why = shield(leaning, revision, self._writing, now, self._plan.grace)
        if why is not None or self._plan.named:
            return why
        new = sorted({*revision.refs} - {*removal.refs})
        if new:
            return f"is named by {new[0]} now"
        touched = newest_folder(self.paths.snapshot(removal.commit))
        return f"was changed {ago(now - touched)}" if self._is_fresh(touched) else None

    def _hide_revision(self, removal: Removal) -> None:
        revision = self._revision(removal.commit)
        why = self._why_kept(removal)
        if why is not None:
            self._account.keep(str(removal), why)
        elif revision is not None and removal.files:
            self._remove_files(removal)
            self._account.removals.append(removal)
        elif revision is not None:
            for name in revision.refs:
                self._remove_ref(name, revision.commit)
            hidden = self._trash.take(self.paths.snapshot(revision.commit), "snapshots")
            reach("gc.snapshot-trashed")
            wanted = self._why_wanted(revision.commit)
            if wanted is not None and not os.path.lexists(self.paths.snapshot(revision.commit)):
                os.rename(hidden, self.paths.snapshot(revision.commit))
                for name in revision.refs:
                    write_ref(self.paths, name, revision.commit)
                self._account.keep(str(removal), wanted)
                return
            self._account.removals.append(removal)
            staying = tuple(one for one in self._found.revisions if one is not revision)
            self._found = replace(self._found, revisions=staying)

    def _why_wanted(self, commit: str) -> str | None:
        """What somebody has said since the last look at everything that keeps a revision."""
        if commit in notes.live(self.paths):
            return "is being pulled right now"
        return "is pinned" if notes.read_pins(self.paths).keys() & {commit, notes.ALL} else None

    def _remove_files(self, removal: Removal) -> None:
        """Take single files out of a revision, and folders in it that are empty then."""
        snapshot = self.paths.snapshot(removal.commit)
        for name in removal.files:
            pointer = snapshot.joinpath(*name.split("/"))
            check_inside(pointer, self._plan.cache)
            self._account.gained(unlink(pointer))
            reach("gc.file-removed")
            with suppress(OSError):
                for folder in list(pointer.parents)[: name.count("/")]:
                    folder.rmdir()

    def _remove_ref(self, name: str, commit: str) -> None:
        path = self.paths.refs.joinpath(*name.split("/"))
        if text_inside(path, self._plan.cache) != commit:
            return
        hidden = self._trash.take(path, "refs", *name.split("/")[:-1])
        if text_inside(hidden, self._plan.cache) != commit and not os.path.lexists(path):  # written anew in that moment
            make_folder(path.parent, self._plan.cache)
            os.rename(hidden, path)
            return
        reach("gc.ref-removed")
        with suppress(OSError):
            for folder in list(path.parents)[: name.count("/")]:
                folder.rmdir()

    def _remove_stale(self, ref: StaleRef) -> None:
        path = self.paths.refs.joinpath(*ref.name.split("/"))
        if os.path.lexists(self.paths.snapshots / ref.commit) or ref.commit in self._writing.commits:
            return
        if self._is_fresh(modified(path) or 0.0):
            self._account.keep(f"{ref.repo} {ref.name}", "was written a short while ago")
        else:
            self._remove_ref(ref.name, ref.commit)

    def _forget(self, trash: Path) -> None:
        """Remove what was kept beside the revisions and blobs in the trash: before those go, so that a killed removal is completed."""
        for name in _names(trash / "blobs", self._plan.cache):
            if not os.path.lexists(self.paths.blobs / name):
                notes.forget_digest(self.paths, name)
        for commit in filter(is_commit, _names(trash / "snapshots", self._plan.cache)):
            if os.path.lexists(self.paths.snapshot(commit)) or commit in notes.live(self.paths):
                continue
            for path in (self.paths.tree(commit), self.paths.no_exist(commit)):
                with suppress(FileNotFoundError):
                    if is_inside(path, self._plan.cache):
                        erase(path, self._account.gained)
            for folder, _, names in os.walk(trash / "snapshots" / commit):
                for path in (Path(folder, name) for name in names if not os.path.islink(os.path.join(folder, name))):
                    notes.forget_digest(self.paths, path.relative_to(trash).as_posix())
            notes.forget_revision(self.paths, commit)

    # blobs

    def _hide_blobs(self, names: list[str]) -> None:
        if not names:
            return
        self._found, self._writing = scan_repo(self._plan.cache, self._repo), writing_in(self.paths)
        for name in names:
            with self._account.attempt(self._called(name)):
                shared = self._target(name)
                why = self._why_blob_stays(name) or self._hide_blob(name)
                if why is not None:
                    self._account.keep(self._called(name), why)
                (self._account.linked if why else self._account.swept).update(filter(None, [shared]))

    def _why_blob_stays(self, name: str) -> str | None:
        if name not in self._found.blobs:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if name in self._found.shown:
            return "is shown by a revision"
        if self._writing.needs(name):
            return "may be needed by a running pull"
        modified = os.lstat(self.paths.blobs / name).st_mtime
        return f"was written {ago(self._account.now - modified)}" if self._is_fresh(modified) else None

    def _hide_blob(self, name: str) -> str | None:
        with self._lock(name) as held:
            if not held:
                return "is being downloaded by another program"
            self.hidden[name] = self._trash.take(self.paths.blobs / name, "blobs")
        reach("gc.blob-trashed")
        return None

    def _put_back_blobs(self, folder: Path) -> list[str]:
        """Put blobs back from the trash that a snapshot shows by now, or a running pull may be about to show; their names."""
        names = _names(folder, self._plan.cache)
        if not names:
            return []
        found, writing = scan_repo(self._plan.cache, self._repo), writing_in(self.paths)
        wanted = dangling(found)
        back = [name for name in names if name in wanted or writing.needs(name)]
        faults = []
        for name in back:
            try:
                self._put_back(folder / name)
            except (OSError, DamagedInput) as fault:  # the others are needed too
                faults.append(fault)
        if faults:
            raise faults[0]
        return back

    def _put_back(self, hidden: Path) -> None:
        name = hidden.name
        if not os.path.lexists(self.paths.blobs / name):
            make_folder(self.paths.blobs, self._plan.cache)
            os.rename(hidden, self.paths.blobs / name)
            self._account.keep(self._called(name), "is needed after all")
            self._account.linked.update(filter(None, [self._target(name)]))

    # the rest

    def _remove_debris(self, debris: Debris) -> None:
        path = self._plan.cache.joinpath(*debris.path.split("/"))
        check_inside(path, self._plan.cache)
        if debris.kind == "trash":
            self._finish_other(path)
        elif debris.kind == "writer":
            if path in notes.dead(self.paths):
                self._account.gained(unlink(path))
                self._account.debris += 1
        elif debris.kind == "etag" and os.path.lexists(path.with_suffix("")):
            return
        elif debris.kind != "etag" and self._is_fresh(os.lstat(path).st_mtime):
            self._account.keep(debris.path, "was written a short while ago")
        elif self._writing.needs_left(path.name, debris.kind) or self._is_busy(debris.path):
            self._account.keep(debris.path, "may be needed by a running pull")
        else:
            self._account.gained(unlink(path))
            self._account.debris += 1

    def _finish_other(self, folder: Path) -> None:
        """Finish what a removal began that was killed."""
        if not abandoned(folder):
            self._account.keep(f"{self._repo.folder}/.hubclient/trash", "belongs to a removal that still runs")
            return
        self._put_back_blobs(folder / "blobs")
        self._forget(folder)
        erase(folder, self._account.gained)
        self._account.debris += 1

    def _revision(self, commit: str) -> CachedRevision | None:
        return next((revision for revision in self._found.revisions if revision.commit == commit), None)

    def _is_fresh(self, moment: float) -> bool:
        return not self._plan.named and self._account.now - moment < self._plan.grace

    def _called(self, blob: str) -> str:
        return f"{self._repo.folder}/blobs/{blob}"

    def _target(self, name: str) -> str | None:
        """The hash of the shared store's entry that a blob is a link to."""
        path = os.fspath(self.paths.blobs / name)
        return hash_behind(path, os.readlink(path), os.fspath(self._plan.cache)) if os.path.islink(path) else None

    @contextmanager
    def _lock(self, etag: str) -> Iterator[bool]:
        """Hold the lock of whoever downloads a blob, if anybody ever took it."""
        path = self._plan.cache / LOCKS / self._repo.folder / f"{etag}.lock"
        if not path.exists():
            yield True
            return
        with courtesy_lock(path, wait=False) as held:
            yield held

    def _is_busy(self, path: str) -> bool:
        """Whether somebody holds the lock of the blob that a leftover is a part of."""
        with self._lock(path.rpartition("/")[2].partition(".")[0]) as held:
            return not held


def _names(folder: Path, cache: Path) -> list[str]:
    """What is in a folder, in the trash or not; nothing if it is not there, or reached by a link."""
    try:
        return sorted(os.listdir(folder)) if is_inside(folder / "any", cache) else []
    except (FileNotFoundError, NotADirectoryError):
        return []
