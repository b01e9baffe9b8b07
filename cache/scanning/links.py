"""Where a link in the cache leads, found step by step: nothing outside the cache is looked at, no loop is run twice."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from hubclient.cache.layout import SHARED

MAX_HOPS = 40  # links in a row; Linux stops there, too


class Place(NamedTuple):
    """What a link leads to: `path`, relative to the cache, of a file with `state`; or why it is none, see `CachedFile.fault`.

    `blob` is the last of the repository's blobs on the way, which may itself be the file.
    """

    path: str
    fault: str | None = None
    state: os.stat_result | None = None
    blob: str | None = None


class Resolver:
    """Follows links within one repository's folder, and into the store that all share; `seen` is told of every place on the way."""

    def __init__(self, cache: str, folder: str, seen: Callable[[str, os.stat_result | None], None]) -> None:
        self._cache, self._folder, self._seen = cache, folder, seen
        self._roots: tuple[str, ...] | None = None

    def resolve(self, path: str) -> Place:
        """Where `path`, relative to the cache and in the repository's folder, leads."""
        left = path.split("/")[::-1]
        at: list[str] = []
        blob = None
        hops = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == ".." and not at:
                return Place(path, "outside")
            if part == "..":
                at.pop()
                continue
            at.append(part)
            if not self._allowed(at):
                return Place(path, "outside")
            where = "/".join(at)
            state = self._look(where)
            if isinstance(state, str):
                return Place(path, state)
            if len(at) == 3 and at[:2] == [self._folder, "blobs"]:
                blob = part
            if stat.S_ISLNK(state.st_mode):
                hops += 1
                steps = self.steps(self._cache + "/" + where)
                if steps is None or hops > MAX_HOPS:
                    return Place(path, "outside" if steps is None else "loop")
                at = [] if steps.absolute else at[:-1]
                left.extend(steps.parts[::-1])
            elif not left:
                return self._end(at, state, blob)
            elif not stat.S_ISDIR(state.st_mode):
                return Place(path, "dangling")
        return Place(path, "folder")

    def steps(self, link: str) -> _Steps | None:
        """What a link says, as steps from its folder or from the cache; None if it leads elsewhere. OSError."""
        try:
            target = plain_target(link)
        except OSError:
            return _Steps((), False)
        if not os.path.isabs(target):
            return _Steps(tuple(target.split("/")), False)
        inner = self.inside(target)
        return None if inner is None else _Steps(tuple(inner.split("/")), True)

    def inside(self, target: str) -> str | None:
        """An absolute path, relative to the cache; None if it is not in it."""
        if self._roots is None:
            self._roots = tuple({plain(os.path.abspath(self._cache)), plain(os.path.realpath(self._cache))})
        return next((target[len(root) + 1 :] for root in self._roots if target.startswith(root + "/")), None)

    def _allowed(self, at: list[str]) -> bool:
        return at[0] == self._folder or (at[0] == SHARED and len(at) <= 3)

    def _look(self, where: str) -> os.stat_result | str:
        try:
            state = os.lstat(f"{self._cache}/{where}")
        except (FileNotFoundError, NotADirectoryError):
            self._seen(where, None)
            return "dangling"
        except (OSError, ValueError):  # not permitted; longer than a path may be; NUL
            return "unreadable"
        self._seen(where, state)
        return state

    def _end(self, at: list[str], state: os.stat_result, blob: str | None) -> Place:
        where = "/".join(at)
        if at[0] == SHARED and len(at) < 3:
            return Place(where, "outside")
        if stat.S_ISREG(state.st_mode):
            return Place(where, None, state, blob)
        return Place(where, "folder" if stat.S_ISDIR(state.st_mode) else "unreadable")


class _Steps(NamedTuple):
    parts: tuple[str, ...]
    absolute: bool


def plain_target(link: str) -> str:
    """What a link says, with slashes. Raises OSError."""
    return plain(os.readlink(link))


def plain(path: str) -> str:
    """A path with slashes, and without the mark that Windows puts before long ones."""
    if os.sep == "/":
        return path
    return path.removeprefix("\\\\?\\").replace("\\", "/")
