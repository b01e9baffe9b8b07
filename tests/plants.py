"""Links that somebody planted in a cache, in every place where hubclient reads or writes: all of them lead to a folder outside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from cachelayouts import age
from cachemaking import LARGE, make, sha256, xet

from hubclient.cache.layout import RepoPaths
from hubclient.cache.owner import Owner

WEIGHTS = b"weights " * 500
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "sub/deep.txt": b"deep"}
NAME = "org/name"
BLOB = sha256(WEIGHTS)
NOTES = ("pins", "used", "digests", "outputs", "active", "trash")


class Ground:
    """A cache with a whole repository, a folder outside that is nobody's business here, and ways to plant things."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.cache, self.outside, self.commit = folder / "hub", folder / "outside", commit
        self.paths: RepoPaths = make(self.cache, FILES, NAME, commit=commit)
        make(self.cache, {"x.txt": b"x", "y.bin": b"y" * LARGE}, "org/beside")
        self.locks = self.cache / ".locks" / self.paths.repo.folder
        self.locks.mkdir(parents=True)
        age(self.cache, 3)
        self.outside.mkdir()
        (self.outside / "secret.txt").write_bytes(b"secret")
        (self.outside / "weights").write_bytes(WEIGHTS)
        (self.outside / "folder").mkdir()
        (self.outside / "folder" / "inner.txt").write_bytes(b"inner")
        age(self.outside, 3)

    def move_out(self, place: Path) -> None:
        """What lies at a place lies outside now, and a link leads there."""
        target = self.outside / "moved"
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            shutil.move(place, target)
        else:
            target.mkdir()
        place.symlink_to(target)

    def lead_out(self, place: Path, to: str = "secret.txt", *, relative: bool = False) -> None:
        """A link in a file's place."""
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        target = self.outside / to
        place.symlink_to(os.path.relpath(target, place.parent) if relative else target)


Plant = Callable[[Ground], None]


def _part(ground: Ground, *, ledger_leads_out: bool) -> None:
    """An unfinished download of a dead process's, whose file (or ledger) is a link."""
    ground.paths.blob(BLOB).unlink()
    head = {"etag": BLOB, "size": len(WEIGHTS), "host": "gone", "boot": "gone", "space": "", "pid": 1, "started": 1}
    line = f"0 {len(WEIGHTS)} 00000000\n"
    data = ground.paths.blobs / f"{BLOB}.0123abcd.incomplete"
    ledger = ground.paths.blobs / f"{BLOB}.0123abcd.ledger.incomplete"
    if ledger_leads_out:
        data.write_bytes(bytes(len(WEIGHTS)))
        ground.lead_out(ledger)
    else:
        ledger.write_text(json.dumps(head) + "\n" + line)
        ground.lead_out(data, "weights")


def _store(ground: Ground, what: str) -> None:
    """The shared store, of which a part leads out."""
    make(ground.cache, FILES, "org/sharing", style="shared", commit=ground.commit)
    entry = ground.cache / "blobs" / xet(WEIGHTS)[:2] / xet(WEIGHTS)
    if what in ("folder", "prefix"):
        ground.move_out(ground.cache / "blobs" if what == "folder" else entry.parent)
    elif what == "entry":
        ground.lead_out(entry, "weights")
    else:
        ground.lead_out(entry.with_name(f"{entry.name}.{what}"))


def _trash(ground: Ground, place: Path) -> None:
    """What a removal left that has ended: a link, and a folder with links in it."""
    place.mkdir(parents=True)
    for name in (f"999999.1.{'0' * 16}.01234567", "1.2.x"):
        (place / name).symlink_to(ground.outside / "folder")
    inside = place / f"999998.1.{'0' * 16}.01234567" / "blobs"
    inside.mkdir(parents=True)
    (inside / BLOB).symlink_to(ground.outside / "weights")
    (inside.parent / "snapshots").symlink_to(ground.outside)
    age(place, 3)


PLANTS: Mapping[str, Plant] = {
    "repository": lambda ground: ground.move_out(ground.paths.path),
    "blobs": lambda ground: ground.move_out(ground.paths.blobs),
    "snapshots": lambda ground: ground.move_out(ground.paths.snapshots),
    "revision": lambda ground: ground.move_out(ground.paths.snapshot(ground.commit)),
    "folder-in-revision": lambda ground: ground.move_out(ground.paths.snapshot(ground.commit) / "sub"),
    "refs": lambda ground: ground.move_out(ground.paths.refs),
    "trees": lambda ground: ground.move_out(ground.paths.path / "trees"),
    "no-exist": lambda ground: ground.move_out(ground.paths.path / ".no_exist"),
    "blob": lambda ground: ground.lead_out(ground.paths.blob(BLOB)),
    "blob-with-right-bytes": lambda ground: ground.lead_out(ground.paths.blob(BLOB), "weights"),
    "blob-relative": lambda ground: ground.lead_out(ground.paths.blob(BLOB), "weights", relative=True),
    "blob-folder": lambda ground: ground.lead_out(ground.paths.blob(BLOB), "folder"),
    "file": lambda ground: ground.lead_out(ground.paths.snapshot(ground.commit) / "model.safetensors"),
    "file-with-right-bytes": lambda ground: ground.lead_out(
        ground.paths.snapshot(ground.commit) / "model.safetensors", "weights"
    ),
    "file-relative": lambda ground: ground.lead_out(
        ground.paths.snapshot(ground.commit) / "model.safetensors", "weights", relative=True
    ),
    "file-folder": lambda ground: ground.lead_out(ground.paths.snapshot(ground.commit) / "model.safetensors", "folder"),
    "ref": lambda ground: ground.lead_out(ground.paths.refs / "main"),
    "tree": lambda ground: ground.lead_out(ground.paths.tree(ground.commit)),
    "part": lambda ground: _part(ground, ledger_leads_out=False),
    "ledger": lambda ground: _part(ground, ledger_leads_out=True),
    "notes": lambda ground: ground.move_out(ground.paths.notes),
    **{f"notes-{name}": lambda ground, name=name: ground.move_out(ground.paths.notes / name) for name in NOTES},  # type: ignore[misc]
    "pin": lambda ground: ground.lead_out(ground.paths.notes / "pins" / ground.commit),
    "use": lambda ground: ground.lead_out(ground.paths.notes / "used" / ground.commit),
    "active": lambda ground: ground.lead_out(ground.paths.notes / "active" / "0123456789abcdef"),
    "output": lambda ground: ground.lead_out(ground.paths.notes / "outputs" / "0123.json"),
    "trash": lambda ground: _trash(ground, ground.paths.notes / "trash"),
    "trash-of-repositories": lambda ground: _trash(ground, ground.cache / ".locks" / ".hubclient-trash"),
    "trash-leads-out": lambda ground: ground.move_out(ground.cache / ".locks" / ".hubclient-trash"),
    "locks": lambda ground: ground.move_out(ground.cache / ".locks"),
    "locks-of-repository": lambda ground: ground.move_out(ground.locks),
    "lock": lambda ground: ground.lead_out(ground.locks / f"{BLOB}.lock"),
    "tag": lambda ground: ground.lead_out(ground.cache / "CACHEDIR.TAG", "absent"),
    **{f"store-{name}": lambda ground, name=name: _store(ground, name) for name in ("folder", "prefix", "entry", "refs", "lock")},  # type: ignore[misc]
}


# Beside a download of a file that is fetched in parts

BIG = bytes(range(256)) * 12_000  # more than is taken in one piece, without part and lock
ETAG = sha256(BIG)


def _dead_part(ground: Ground, *, ledger: str | None, data: str | None) -> None:
    """What a dead process left of the download; `ledger` or `data` is a link to a file outside."""
    blobs = ground.cache / "models--org--big" / "blobs"
    blobs.mkdir(parents=True)
    head = {"etag": ETAG, "size": len(BIG), **asdict(replace(Owner.this(), pid=1 << 30))}
    paths = blobs / f"{ETAG}.0123abcd.incomplete", blobs / f"{ETAG}.0123abcd.ledger.incomplete"
    for path, link, content in zip(paths, (data, ledger), (bytes(len(BIG)), json.dumps(head).encode() + b"\n"), strict=True):
        if link is None:
            path.write_bytes(content)
        else:
            (ground.outside / link).write_bytes(content)
            path.symlink_to(ground.outside / link)


BESIDE_A_DOWNLOAD: Mapping[str, Plant] = {
    "locks": PLANTS["locks"],
    "locks-of-repository": lambda ground: ground.move_out(ground.cache / ".locks" / "models--org--big"),
    "lock": lambda ground: ground.lead_out(ground.cache / ".locks" / "models--org--big" / f"{ETAG}.lock"),
    "lock-to-nothing": lambda ground: ground.lead_out(ground.cache / ".locks" / "models--org--big" / f"{ETAG}.lock", "absent"),
    "part": lambda ground: _dead_part(ground, ledger=None, data="part"),
    "ledger": lambda ground: _dead_part(ground, ledger="ledger", data=None),
    "part-and-ledger": lambda ground: _dead_part(ground, ledger="ledger", data="part"),
    "hard-part": lambda ground: _hard_part(ground),
    "tag": PLANTS["tag"],
    "repository": lambda ground: ground.move_out(ground.cache / "models--org--big"),
    "blobs": lambda ground: ground.move_out(ground.cache / "models--org--big" / "blobs"),
    "snapshots": lambda ground: ground.move_out(ground.cache / "models--org--big" / "snapshots"),
    "refs": lambda ground: ground.move_out(ground.cache / "models--org--big" / "refs"),
    "trees": lambda ground: ground.move_out(ground.cache / "models--org--big" / "trees"),
    "notes": lambda ground: ground.move_out(ground.cache / "models--org--big" / ".hubclient"),
    "active": lambda ground: ground.move_out(ground.cache / "models--org--big" / ".hubclient" / "active"),
    "other-repository": lambda ground: _copy_outside(ground),
    "store": lambda ground: _store_outside(ground),
}


def _hard_part(ground: Ground) -> None:
    """A part that is another name of a file outside."""
    _dead_part(ground, ledger=None, data=None)
    os.link(ground.cache / "models--org--big" / "blobs" / f"{ETAG}.0123abcd.incomplete", ground.outside / "hard")


def _copy_outside(ground: Ground) -> None:
    """Another repository that seems to have the bytes already."""
    (ground.outside / ETAG).write_bytes(BIG)
    (ground.outside / ETAG).chmod(0o444)
    ground.paths.blob(ETAG).symlink_to(ground.outside / ETAG)
    second = ground.cache / "models--org--second"
    second.mkdir()
    (second / "blobs").symlink_to(ground.outside)


def _store_outside(ground: Ground) -> None:
    """A store for all repositories whose folder of the file leads out, where the bytes are."""
    xet_hash = sha256(b"xet" + bytes.fromhex(ETAG))
    make(ground.cache, FILES, "org/sharing", style="shared")
    (ground.cache / "blobs" / xet_hash[:2]).symlink_to(ground.outside)
    (ground.outside / xet_hash).write_bytes(BIG)
    (ground.outside / f"{xet_hash}.refs").write_bytes(b"")


# Branches that cannot be read


def _no_folder(ground: Ground) -> None:
    shutil.rmtree(ground.paths.refs)
    ground.paths.refs.write_text(ground.commit)


def _say(ground: Ground, text: str) -> None:
    (ground.paths.refs / "main").write_text(text)


def _pipe(ground: Ground) -> None:
    (ground.paths.refs / "main").unlink()
    os.mkfifo(ground.paths.refs / "main")


UNREADABLE: Mapping[str, Plant] = {
    "refs-lead-out": PLANTS["refs"],
    "ref-leads-out": PLANTS["ref"],
    "refs-is-a-file": _no_folder,
    "empty": lambda ground: _say(ground, ""),  # huggingface_hub, killed while it wrote
    "torn": lambda ground: _say(ground, ground.commit[:20]),
    "pipe": lambda ground: _pipe(ground),
}
