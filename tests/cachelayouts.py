"""Caches as each of the programs that share them leaves one, with what people put there, too; and all that is in a folder, to compare.

Everything is written by plain file operations and huggingface_hub's own functions (`cachemaking`), nothing by hubclient.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cachemaking import OTHER, etag, make, sha256, xet

from hubclient.cache.layout import RepoPaths

DAY = 86_400.0
PEER = "peers/model"  # what the layouts hold
FOLDER = "models--peers--model"
MISSING = "d" * 40  # a commit that no cache here has

Files = Mapping[str, bytes]


class Entry(NamedTuple):
    """Something in a folder. Of a link `content` is what it says, of a file its sha256; other times than a file's do not count."""

    kind: str
    mode: int
    modified_ns: int
    content: str


def listing(folder: Path, ignored: Callable[[str], bool] = lambda path: False) -> dict[str, Entry]:
    """All that is in a folder, by path from there, but for what is `ignored`; the times of access stay as they were."""
    found = {}
    for place, folders, names in os.walk(folder):
        for path in [Path(place, name) for name in (*folders, *names)]:
            told = path.relative_to(folder).as_posix()
            if not ignored(told):
                found[told] = _entry(path)
    return found


def _entry(path: Path) -> Entry:
    state = path.lstat()
    mode = stat.S_IMODE(state.st_mode)
    if stat.S_ISLNK(state.st_mode):
        return Entry("link", mode, 0, os.readlink(path))
    if not stat.S_ISREG(state.st_mode):
        return Entry("folder" if stat.S_ISDIR(state.st_mode) else "other", mode, 0, "")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return Entry("file", mode, state.st_mtime_ns, content)


def is_note(path: str) -> bool:
    """Whether a path in a cache is hubclient's own."""
    return ".hubclient" in path.split("/")


def age(folder: Path, days: float) -> None:
    """Let everything in a folder be that old, last read and last changed; but what is being downloaded."""
    then = time.time() - days * DAY
    for place, folders, names in os.walk(folder, topdown=False):
        for name in (*folders, *names):
            if not name.endswith((".incomplete", ".downloadInProgress", ".tmp", ".shared")):
                os.utime(Path(place, name), (then, then), follow_symlinks=False)


# The layouts


@dataclass(frozen=True, slots=True)
class Layout:
    """How somebody leaves a cache. `whole`: all files of `peers/model` are there at `main`. `intact`: nothing is wrong with it."""

    build: Callable[[Path, Files, str], None]  # the cache, the files, their commit
    whole: bool = True
    intact: bool = True


def _hub(cache: Path, files: Files, commit: str) -> None:
    """huggingface_hub with all that it keeps: a list of the files, locks, what the Hub has not, a tag for backups."""
    paths = make(cache, files, PEER, commit=commit)
    _locks(paths, files)
    _no_exist(paths, commit)
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# huggingface_hub's words\n")


def _hub_protected(cache: Path, files: Files, commit: str) -> None:
    """The same, read-only for everybody, with a group that may not even read."""
    paths = make(cache, files, PEER, commit=commit)
    for blob in paths.blobs.iterdir():
        blob.chmod(0o400)


def _store(cache: Path, files: Files, commit: str) -> None:
    """Two repositories whose large files are links to one entry of the shared store."""
    for name in (PEER, "peers/twin"):
        make(cache, files, name, commit=commit, style="shared")


def _store_unknown(cache: Path, files: Files, commit: str) -> None:
    """The shared store with an entry whose list of links is lost, and one that holds lines of no meaning."""
    _store(cache, files, commit)
    large = [xet(data) for data in files.values() if etag(data) == sha256(data)]
    (cache / "blobs" / large[0][:2] / f"{large[0]}.refs").unlink()
    for hashed in large[1:]:
        with (cache / "blobs" / hashed[:2] / f"{hashed}.refs").open("ab") as file:
            file.write(b"../../etc/passwd\nmodels--gone--repo/blobs/x\n\xff\n")


def _moved(cache: Path, files: Files, commit: str) -> None:
    """huggingface_hub where links are refused: what it downloads is moved into the snapshot."""
    make(cache, files, PEER, commit=commit, style="moved")


def _copies(cache: Path, files: Files, commit: str) -> None:
    """huggingface_hub where links were refused for a while: a revision of links, and one of copies."""
    make(cache, files, PEER, commit=OTHER, ref="linked")
    make(cache, files, PEER, commit=commit, style="copy")


def _hard(cache: Path, files: Files, commit: str) -> None:
    """Somebody's program that makes hard links."""
    make(cache, files, PEER, commit=commit, style="hardlink")


def _llama(cache: Path, files: Files, commit: str) -> None:
    """llama.cpp: links, no list of files, what the server called a file beside its bytes."""
    paths = make(cache, files, PEER, commit=commit, tree=False)
    for data in files.values():
        paths.blob(f"{etag(data)}.etag").write_text(f'"{etag(data)}"')


def _llama_moved(cache: Path, files: Files, commit: str) -> None:
    """llama.cpp where links are refused: bytes moved in place of links, side files that stayed behind."""
    make(cache, files, PEER, commit=commit, style="llama", tree=False)


def _llama_loading(cache: Path, files: Files, commit: str) -> None:
    """llama.cpp in the middle of a download, or stopped there."""
    first, *rest = sorted(files)
    paths = make(cache, {first: files[first]}, PEER, commit=commit, tree=False)
    for name in rest:
        paths.blob(f"{etag(files[name])}.downloadInProgress").write_bytes(files[name][: len(files[name]) // 2])


def _hub_loading(cache: Path, files: Files, commit: str) -> None:
    """huggingface_hub in the middle of a download, or stopped there: it writes the list and the branch first."""
    first, *rest = sorted(files)
    paths = make(cache, files, PEER, commit=commit)
    for name in rest:
        (paths.snapshot(commit) / name).unlink()
        blob = paths.blob(etag(files[name]))
        blob.rename(blob.with_name(f"{blob.name}.0123abcd.incomplete"))
        os.truncate(blob.with_name(f"{blob.name}.0123abcd.incomplete"), len(files[name]) // 2)
    paths.blob(f".{etag(files[first])}.0123abcd.shared").symlink_to("../../blobs/ab/" + "ab" * 32)
    (paths.refs / "main.0123abcd.tmp").write_text(commit)
    _locks(paths, files)


def _detached(cache: Path, files: Files, commit: str) -> None:
    """A revision that a branch has left behind, and one that only its commit names."""
    make(cache, {**files, "old.txt": b"old"}, PEER, commit=OTHER, ref=None)
    make(cache, {"only.txt": b"only"}, PEER, commit="c" * 40, ref=None, tree=False)
    make(cache, files, PEER, commit=commit)


def _refs(cache: Path, files: Files, commit: str) -> None:
    """Pull requests, tags, branches with slashes, and a ref with a newline, as other programs write it."""
    paths = make(cache, files, PEER, commit=commit)
    make(cache, {**files, "proposed.txt": b"proposed"}, PEER, commit=OTHER, ref=None)
    for name, text in (("refs/pr/1", OTHER), ("feature/a/b", OTHER), ("v1.0", commit), ("spaced", f" {commit}\r\n")):
        path = paths.refs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _kinds(cache: Path, files: Files, commit: str) -> None:
    """Repositories of every type, one with a name of one part, one of a commit without files."""
    make(cache, files, PEER, commit=commit)
    model = cache / FOLDER
    for folder in ("datasets--peers--data", "spaces--peers--space", "kernels--peers--kernel", "models--gpt2"):
        other = make(cache, {"README.md": folder.encode()}, "peers/made", commit=commit).path
        other.rename(model.with_name(folder))
    empty = cache / "datasets--peers--empty"
    for place in (f"snapshots/{commit}", "blobs", "refs"):
        (empty / place).mkdir(parents=True)
    (empty / "refs" / "main").write_text(commit)


def _broken(cache: Path, files: Files, commit: str) -> None:
    """Repositories that huggingface_hub calls corrupt, each in its way; and one that is not."""
    make(cache, files, PEER, commit=commit)
    files = {"config.json": files["config.json"], "model.safetensors": files["model.safetensors"][:5000]}
    paths = make(cache, files, "peers/lost-blob")
    paths.blob(etag(files["config.json"])).unlink()
    (make(cache, files, "peers/lost-snapshot").refs / "gone").write_text(MISSING)
    (make(cache, files, "peers/file-among-snapshots").snapshots / "note.txt").write_text("a file")
    (make(cache, files, "peers/ref-of-nothing").refs / "empty").write_text("")
    (cache / "models--peers--no-snapshots" / "refs").mkdir(parents=True)
    (cache / "models--peers--no-snapshots" / "refs" / "main").write_text(MISSING)
    make(cache, files, "peers/refs-is-a-file", ref=None).refs.write_text(commit)
    (make(cache, files, "peers/broken-tree").tree("a" * 40)).write_text('{"format_version": 1, "files": ')
    (make(cache, files, "peers/odd-revision").snapshots / "main").mkdir()
    (cache / "models--peers--odd-revision" / "snapshots" / "main" / "x").symlink_to(f"../../blobs/{etag(files['config.json'])}")
    spoilt = make(cache, files, "peers/spoilt").blob(etag(files["model.safetensors"]))
    spoilt.write_bytes(spoilt.read_bytes()[::-1])


def _strangers(cache: Path, files: Files, commit: str) -> None:
    """Files of others at every level."""
    paths = make(cache, files, PEER, commit=commit)
    _locks(paths, files)
    _no_exist(paths, commit)
    places = [cache, cache / ".locks", cache / ".locks" / FOLDER, paths.path, paths.blobs, paths.snapshots, paths.refs]
    places += [
        paths.snapshot(commit),
        paths.tree(commit).parent,
        paths.path / ".no_exist",
        paths.no_exist(commit),
        cache / "mine",
    ]
    for place in places:
        place.mkdir(exist_ok=True)
        for name in ("notes of mine.txt", ".DS_Store", "über.txt", "-rf"):
            (place / name).write_text(f"{name} in {place.name}")
    (cache / "models--peers").mkdir()
    (cache / "models--peers" / "notes.txt").write_text("no repository's name")
    (cache / "link").symlink_to("mine")
    os.mkfifo(cache / "pipe")


def _unmarked(cache: Path, files: Files, commit: str) -> None:
    """A folder called as the shared store is that is none, and a store of a later version's links."""
    make(cache, files, PEER, commit=commit)
    hashed = "ab" * 32
    (cache / "blobs" / "ab").mkdir(parents=True)
    (cache / "blobs" / "ab" / hashed).write_bytes(b"somebody's")
    (cache / "blobs" / "ab" / f"{hashed}.refs").write_bytes(b"")


def _ancient(cache: Path, files: Files, commit: str) -> None:
    """What huggingface_hub had before 0.8, and marks of later moves."""
    make(cache, files, PEER, commit=commit, tree=False)
    for ending in ("", ".json", ".lock"):
        (cache / f"{'e' * 64}.{'f' * 64}{ending}").write_text(json.dumps({"url": "x", "etag": "y"}))
    (cache / "version.txt").write_text("1")
    (cache / "version_diffusers_cache.txt").write_text("1")
    (cache / FOLDER / "blobs" / f"{etag(files['config.json'])}.lock").write_text("")


LAYOUTS: Mapping[str, Layout] = {
    "hub": Layout(_hub),
    "hub-protected": Layout(_hub_protected),
    "hub-store": Layout(_store),
    "hub-store-unknown": Layout(_store_unknown),
    "hub-moved": Layout(_moved),
    "hub-copies": Layout(_copies),
    "hub-loading": Layout(_hub_loading, whole=False),
    "hub-detached": Layout(_detached),
    "hub-refs": Layout(_refs),
    "hub-kinds": Layout(_kinds),
    "hub-broken": Layout(_broken, intact=False),
    "hub-ancient": Layout(_ancient),
    "hard-links": Layout(_hard),
    "llama": Layout(_llama),
    "llama-moved": Layout(_llama_moved),
    "llama-loading": Layout(_llama_loading, whole=False),
    "strangers": Layout(_strangers),
    "unmarked-store": Layout(_unmarked),
}


def _locks(paths: RepoPaths, files: Files) -> None:
    folder = paths.cache / ".locks" / paths.repo.folder
    folder.mkdir(parents=True, exist_ok=True)
    for data in files.values():
        (folder / f"{etag(data)}.lock").touch()


def _no_exist(paths: RepoPaths, commit: str) -> None:
    folder = paths.no_exist(commit)
    folder.mkdir(parents=True)
    for name in ("adapter_config.json", "processor_config.json"):
        (folder / name).touch()


# What llama.cpp reads


def llama_cached_files(cache: Path, repo: str) -> dict[str, Path]:
    """The files that llama.cpp finds of a repository, by its rules (common/hf-cache.cpp, get_cached_files and get_cached_ref)."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    commit = _llama_ref(folder / "refs")
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        return {}
    found = {}
    for place, _, names in os.walk(snapshot):  # like its iterator, into no folder that is a link
        for path in (Path(place, name) for name in names):
            if path.is_file() or path.is_symlink():
                found[path.relative_to(snapshot).as_posix()] = path
    return found


def _llama_ref(refs: Path) -> str:
    """Of the files right in `refs`, the first line of main's, or else of any that is forty hexadecimal digits."""
    found = ""
    for path in sorted(refs.iterdir()) if refs.is_dir() else ():
        line = path.read_text().split("\n")[0] if path.is_file() else ""
        if len(line) == 40 and all(digit in "0123456789abcdefABCDEF" for digit in line):
            if path.name == "main":
                return line
            found = found or line
    return found
