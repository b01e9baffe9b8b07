"""The store that all repositories of a cache share: one copy of a file, however many repositories hold it.

    <cache>/blobs/.huggingface-shared-blobs      the line "1": this is such a store, and not somebody's folder
    <cache>/blobs/<2 hex>/<xet hash>             the bytes
                          <xet hash>.refs        a line for each repository's blob that is a link to it: models--org--name/blobs/<etag>
                          <xet hash>.lock        held while links are made and entries removed

huggingface_hub publishes here what xet verified. The list of links is a hint: each is looked at before it counts, and
where the list is missing or cannot be read the entry stays. We link to entries whose sha256 we have checked, and publish
none: the xet hash of what came over HTTP is the server's word. Source: huggingface_hub 2.4, `utils/_shared_blobs.py`.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hubclient.cache.digests import Digest, digest_file
from hubclient.cache.inside import is_inside, read_inside
from hubclient.cache.layout import FOLDERS, SHARED
from hubclient.cache.writing.locks import store_lock
from hubclient.cache.writing.placing import make_folder, seal
from hubclient.errors import EnvironmentFault
from hubclient.ground.faultpoints import reach

MARKER = ".huggingface-shared-blobs"
_VERSION = b"1\n"
_HASH = re.compile(r"[0-9a-f]{64}")
_REPO = re.compile(rf"(?:{'|'.join(FOLDERS.values())})--.+")  # any name: a link that somebody relies on must count
_MANIFEST_LIMIT = 16 << 20  # bytes; 100,000 links


def is_store(cache: Path) -> bool:
    """Whether the cache has a store of the version we know; a folder of the name without its marker is somebody else's."""
    folder = cache / SHARED
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or not stat.S_ISREG(os.lstat(folder / MARKER).st_mode):
            return False
        with open(folder / MARKER, "rb") as file:
            return file.read(len(_VERSION) + 1) == _VERSION
    except OSError:
        return False


def entry_path(cache: Path, xet_hash: str) -> Path:
    """Where the store keeps a file."""
    return cache / SHARED / xet_hash[:2] / xet_hash


def entries(cache: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The xet hash and state of all files in the store."""
    for folder in _folders(cache):
        with suppress(OSError), os.scandir(folder) as found:
            for entry in found:
                if _HASH.fullmatch(entry.name) and entry.name[:2] == os.path.basename(folder):
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(state.st_mode):
                        yield entry.name, state


def widows(cache: Path) -> Iterator[str]:
    """The xet hashes of lists in the store whose entry is gone: what a killed removal leaves."""
    for folder in _folders(cache):
        with suppress(OSError):
            names = set(os.listdir(folder))
            yield from sorted(
                name[:-5] for name in names if _HASH.fullmatch(name[:-5]) and name[-5:] == ".refs" and name[:-5] not in names
            )


def _folders(cache: Path) -> list[str]:
    if not is_store(cache):
        return []
    with os.scandir(cache / SHARED) as prefixes:
        return sorted(prefix.path for prefix in prefixes if len(prefix.name) == 2 and prefix.is_dir(follow_symlinks=False))


def hash_behind(blob: str, target: str, cache: str) -> str | None:
    """The xet hash if a repository's blob, a link that says `target`, leads to a place in the store; by text alone."""
    whole = os.path.normpath(os.path.join(os.path.dirname(blob), target))
    folder, name = os.path.split(whole)
    fits = _HASH.fullmatch(name) and folder == os.path.join(os.path.normpath(cache), SHARED, name[:2])
    return name if fits else None


def bytes_behind(path: Path | str, cache: Path) -> Path | None:
    """The file that holds the bytes at a place in the cache: itself, or the store's entry that a blob is a link to; None if it leads elsewhere. OSError."""
    place = Path(path)
    if place.is_symlink():
        xet_hash = hash_behind(os.fspath(path), os.readlink(path), os.fspath(cache))
        if xet_hash is None:
            return None
        place = entry_path(cache, xet_hash)
    whole = is_inside(place, cache) and os.path.lexists(place) and stat.S_ISREG(os.lstat(place).st_mode)
    return place if whole else None


def is_whole(blob: Path | str, size: int, cache: Path) -> bool:
    """Whether a repository's blob is there with its full size, as a file or as a link to the store's entry; its bytes are not looked at.

    EnvironmentFault if that cannot be told.
    """
    try:
        place = bytes_behind(blob, cache)
        return place is not None and os.lstat(place).st_size == size
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EnvironmentFault(f"{blob}: cannot be read ({error.strerror})", blob) from error


def references(cache: Path, xet_hash: str) -> tuple[str, ...] | None:
    """The repositories' blobs that are links to an entry, as paths in the cache; None if that cannot be told."""
    try:
        data = read_inside(_beside(cache, xet_hash, "refs"), cache, _MANIFEST_LIMIT + 1)
        if data is None or len(data) > _MANIFEST_LIMIT:
            return None
        lines = data.decode().splitlines()
        return tuple(sorted({line for line in lines if _refers(cache, line, xet_hash)}))
    except (OSError, UnicodeDecodeError):
        return None


def link_from_store(blob: Path, xet_hash: str, cache: Path, digest: Digest, size: int) -> bool:
    """Make a repository's blob a link to the store's entry, if that holds the right bytes; they are hashed first.

    False if there is no such entry, its bytes are others, or no link can be made or its lock be had; then nothing has changed.
    """
    entry = entry_path(cache, xet_hash)
    relative = os.path.relpath(blob, cache).replace(os.sep, "/")
    if not (_HASH.fullmatch(xet_hash) and is_store(cache) and is_inside(entry, cache) and _is_blob(relative)):
        return False
    if not _holds(entry, digest, size):
        return False
    temporary = blob.with_name(f".{blob.name[:200]}.{secrets.token_hex(4)}.shared")
    try:
        with store_lock(_beside(cache, xet_hash, "lock")) as held:
            if not held or not _same_size(entry, size):
                return False
            make_folder(blob.parent, cache)
            os.symlink(os.path.relpath(entry, blob.parent), temporary)
            _append(_beside(cache, xet_hash, "refs"), relative)
            reach("pull.shared-noted")
            os.replace(temporary, blob)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    return True


def sweep(cache: Path, xet_hash: str) -> int:
    """Remove an entry that no link leads to any more; returns the bytes freed.

    Where its list of links is missing or cannot be read, or its lock not be had, nothing is removed; lines that no longer hold
    are taken out of it. A list that has lost its entry goes, too.
    """
    entry, manifest = entry_path(cache, xet_hash), _beside(cache, xet_hash, "refs")
    if not _HASH.fullmatch(xet_hash) or not is_store(cache) or not is_inside(entry, cache):
        return 0
    with suppress(OSError), store_lock(_beside(cache, xet_hash, "lock")) as held:
        links = references(cache, xet_hash) if held else None
        if links == () and not os.path.lexists(entry):
            os.unlink(manifest)
            return 0
        if links is None or not stat.S_ISREG(os.lstat(entry).st_mode):
            return 0
        if links:
            _rewrite(manifest, links)
            return 0
        size = os.lstat(entry).st_size
        os.unlink(entry)
        reach("gc.shared-removed")
        os.unlink(manifest)
        return size
    return 0


def replace_entry(cache: Path, xet_hash: str, part: Path) -> bool:
    """Put checked bytes in place of an entry's, in one step, so that all links to it show them. OSError, DamagedInput.

    False if its lock cannot be had; then nothing has changed.
    """
    entry = entry_path(cache, xet_hash)
    make_folder(entry.parent, cache)
    with store_lock(_beside(cache, xet_hash, "lock")) as held:
        if not held:
            return False
        seal(part)
        with suppress(FileNotFoundError):
            os.chmod(part, stat.S_IMODE(os.lstat(entry).st_mode))  # who may read it is the cache's own rule
        reach("repair.shared")
        os.replace(part, entry)
    return True


def _beside(cache: Path, xet_hash: str, ending: str) -> Path:
    return entry_path(cache, xet_hash).with_name(f"{xet_hash}.{ending}")


def _is_blob(relative: str) -> bool:
    """Whether a path in the cache is a repository's blob's."""
    parts = relative.split("/")
    return len(parts) == 3 and parts[1] == "blobs" and parts[2] not in ("", ".", "..") and bool(_REPO.fullmatch(parts[0]))


def _refers(cache: Path, line: str, xet_hash: str) -> bool:
    """Whether a line of the list still holds. OSError if that cannot be told."""
    if not _is_blob(line):
        return False
    blob = os.path.join(cache, *line.split("/"))
    try:
        return hash_behind(blob, os.readlink(blob), str(cache)) == xet_hash
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        if stat.S_ISLNK(os.lstat(blob).st_mode):
            raise
        return False  # a file of the repository's own


def _same_size(entry: Path, size: int) -> bool:
    try:
        state = os.lstat(entry)
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


def _holds(entry: Path, digest: Digest, size: int) -> bool:
    try:
        return _same_size(entry, size) and digest_file(entry, digest.algorithm) == digest
    except OSError:
        return False


def _append(manifest: Path, line: str) -> None:
    """Add a line, on the disk before the link that it tells of is seen; through no link that somebody planted."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(manifest, flags, 0o666)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{manifest} is no file")
        _for_everybody(descriptor)
        os.lseek(descriptor, max(0, state.st_size - 1), os.SEEK_SET)
        torn = os.read(descriptor, 1) not in (b"", b"\n")  # by a writer that was killed: its line and ours must not become one
        os.write(descriptor, b"\n" * torn + f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rewrite(manifest: Path, links: tuple[str, ...]) -> None:
    from hubclient.ground.atomic import replace_file

    replace_file(manifest, "".join(f"{link}\n" for link in links).encode())
    _for_everybody(manifest)


def _for_everybody(manifest: Path | int) -> None:
    """Let all users of a shared cache write the list, as huggingface_hub does, whatever the umask."""
    with suppress(OSError):
        os.chmod(manifest, 0o666)
