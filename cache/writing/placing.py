"""How bytes and names get into the cache: complete and checked bytes under their final name, links, refs; each in one step.

A reader, or a crash, meets what was there before or what is there now. Nothing here follows a link that somebody may have
planted in the place of a folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hubclient.cache.inside import text_inside
from hubclient.cache.layout import RepoPaths, is_commit
from hubclient.errors import DamagedInput, EnvironmentFault, NotEnoughSpace
from hubclient.ground.atomic import replace_file, temporary_name
from hubclient.ground.environment import switched_on
from hubclient.ground.faultpoints import reach
from hubclient.ground.names import shown

_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of model files, which can be fetched again (https://bford.info/cachedir).\n"
_TRIES = 8
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def prepare(paths: RepoPaths) -> None:
    """Make a repository's folders, and the tag that tells backups to pass by. EnvironmentFault, DamagedInput."""
    with storing(paths.path):
        for folder in (paths.blobs, paths.snapshots, paths.refs):
            make_folder(folder, paths.cache)
        tag = paths.cache / "CACHEDIR.TAG"
        if not tag.exists():
            in_spite_of_removals(lambda: replace_file(tag, _TAG, durable=False))


def place_blob(part: Path, blob: Path, cache: Path) -> None:
    """Give complete and checked bytes their name: on the disk first, read-only, then in place of whatever is there.

    A blob that is a link into the shared store is replaced, not written through. EnvironmentFault, DamagedInput.
    """
    with storing(blob):
        make_folder(blob.parent, cache)
        seal(part)
        os.replace(part, blob)


def seal(path: Path) -> None:
    """Bytes that will not change: on the disk, and read-only for everybody. OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if os.name == "posix":  # elsewhere read-only files cannot be replaced or removed
            os.fchmod(descriptor, 0o444 & ~_umask())
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def show_file(blob: Path, pointer: Path, cache: Path) -> str:
    """Let a snapshot show a blob: "symlink", or where links are refused "hardlink", or "copy"; in place of what is there.

    What shows it already stays as it is. EnvironmentFault, DamagedInput.
    """
    with storing(pointer):
        make_folder(pointer.parent, cache)
        target = os.path.relpath(blob, pointer.parent)
        if _shows(pointer, target):
            return "symlink"
        temporary = blob.parent / temporary_name(pointer.name)  # in a snapshot others would take it for a file of it
        try:
            return _show(blob, target, pointer, temporary)
        finally:
            with suppress(OSError):
                os.unlink(temporary)


def write_ref(paths: RepoPaths, name: str, commit: str) -> None:
    """Let a branch or tag name a commit; nothing is written if it does already. EnvironmentFault, DamagedInput."""
    path = paths.ref(name)
    with storing(path):
        if text_inside(path, paths.cache) == commit:
            return
        _make_way(paths, name, commit)
        make_folder(path.parent, paths.cache)
        make_folder(paths.blobs, paths.cache)
        replace_file(path, commit.encode(), through=paths.blobs)  # in refs/ it would be a branch


def _make_way(paths: RepoPaths, name: str, commit: str) -> None:
    """Remove a ref whose name the folders of another one need: as in git there cannot be both, so the Hub has it no longer."""
    parts = name.split("/")
    for count in range(1, len(parts)):
        path = paths.refs.joinpath(*parts[:count])
        other = text_inside(path, paths.cache)
        if other == commit:
            told = f"is a branch or tag that names the commit of {shown(name)} too, and stands where that needs a folder"
            raise DamagedInput(told, file=path, hint="once the file is removed the same command goes through")
        if other is not None and is_commit(other):
            path.unlink()


def read_ref(paths: RepoPaths, name: str) -> str | None:
    """The commit that a branch or tag names; None if it is not here. DamagedInput if the file holds none."""
    path = paths.ref(name)
    try:
        text = text_inside(path, paths.cache)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read ({error.strerror})", path) from error
    if text is not None and not is_commit(text):
        raise DamagedInput(f"names no commit but {shown(text)}", file=path, hint="`hubclient pull` writes it anew")
    return text


def make_folder(folder: Path, cache: Path) -> None:
    """Make a folder in the cache, and those above. DamagedInput if one of them is a link or a file, which may lead anywhere; OSError."""
    parts = folder.relative_to(cache).parts
    with suppress(OSError):  # the usual case: all there
        if all(stat.S_ISDIR(os.lstat(cache.joinpath(*parts[: index + 1])).st_mode) for index in range(len(parts))):
            return
    cache.mkdir(parents=True, exist_ok=True)
    in_spite_of_removals(lambda: _make(parts, cache))


def in_spite_of_removals(work: Callable[[], None]) -> None:
    """Do it again where it failed because a removal has just cleared an empty folder, or a temporary file, away. OSError."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            return work()
    return work()


def _make(parts: Sequence[str], cache: Path) -> None:
    for index in range(len(parts)):
        path = cache.joinpath(*parts[: index + 1])
        with suppress(FileExistsError):
            os.mkdir(path)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise DamagedInput("is not the folder that the cache has there, but a link or a file", file=path)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """The system's refusals, while something is written at `path`, as errors of ours."""
    try:
        yield
    except EnvironmentFault:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughSpace(f"{path}: the disk is full", path, hint="`hubclient cache gc` makes room") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            told = f"{path}: the cache cannot be written here ({error.strerror})"
            raise EnvironmentFault(told, path, hint="HF_HUB_CACHE names another cache") from error
        raise EnvironmentFault(f"{path}: cannot be written ({error.strerror or error})", path) from error


def _show(blob: Path, target: str, pointer: Path, temporary: Path) -> str:
    if not switched_on("HF_HUB_DISABLE_SYMLINKS"):
        try:
            os.symlink(target, temporary)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LINKS and not getattr(error, "winerror", None):
                raise
        else:
            reach("pull.link-made")
            os.replace(temporary, pointer)
            return "symlink"
    source = os.path.realpath(blob)
    if os.path.exists(pointer) and os.path.samefile(source, pointer) and not os.path.islink(pointer):
        return "hardlink"  # to rename one of two names of a file to the other does nothing
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS and not getattr(error, "winerror", None):
            raise
        shutil.copyfile(source, temporary)
        seal(temporary)
        os.replace(temporary, pointer)
        return "copy"
    os.replace(temporary, pointer)
    return "hardlink"


def _shows(pointer: Path, target: str) -> bool:
    try:
        return os.readlink(pointer) == target
    except OSError:
        return False


def _umask() -> int:
    """The process's umask, which can only be asked for by setting it; Linux tells it (proc(5)) without that."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith(b"Umask:"))
    except (OSError, StopIteration, ValueError):
        return 0o022
