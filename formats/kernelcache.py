"""Where compiled kernels are kept: a folder of the user's own, in which nobody else can write.

    hubclient in $NUMBA_CACHE_DIR, or $XDG_CACHE_HOME/hubclient/kernels, or ~/.cache/hubclient/kernels, or a folder of the user's in the
    system's temporary one, where the home cannot be written

What lies there is loaded as code, so the folder is made for its owner alone, and one that belongs to somebody else or that
others can write in is not used. Without any folder kernels are compiled anew by each process. An entry holds for one content
of all sources of `hubclient.formats`, constants included, so that installations of different versions share a folder; one that
cannot be loaded counts as missing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.sigutils import normalize_signature

_NAME = "hubclient"


@cache
def folder() -> Path | None:
    """The first of the folders above that exists or can be made, belongs to this user, and can be written; else None."""
    return next((path for path in _candidates() if _is_usable(path)), None)


class KernelCache(NullCache):  # type: ignore[misc]
    """Numba's cache of one function, in `folder`; it is looked for when the function is first called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._found: FunctionCache | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for these types of arguments, None if there is none that can be loaded."""
        try:
            found = self._cache.load_overload(sig, target_context) if folder() else None
        except Exception:  # unpickling damaged data may raise anything, and compiling anew always helps
            return None
        # two processes that add to one index at once may have given their files the same name
        return found if found is not None and found.signature.args == normalize_signature(sig)[0] else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if there is a place for it."""
        try:
            if folder():
                self._cache.save_overload(sig, data)
        except OSError:  # a full disk, or a folder that has gone: it is compiled again next time
            return
        except Exception:  # the index that it is to be added to is damaged
            with suppress(OSError):
                self._cache.flush()
                self._cache.save_overload(sig, data)

    @property
    def _cache(self) -> FunctionCache:
        if self._found is None:
            self._found = _Cache(self._function)
        return self._found


class _Place:
    """Numba's locator of a function's cache."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno
        self._stamp = _digest()

    @classmethod
    def from_function(cls, function: Callable[..., Any], _file: str) -> _Place:
        """The only one there is."""
        return cls(function)

    def get_cache_path(self) -> str:
        return str(folder())

    def ensure_cache_path(self) -> None:
        """It is there."""

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        """Part of the file's name: kernels of one name may be of different versions."""
        return f"{self._line}-{self._stamp[:12]}"


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Place]  # noqa: RUF012  as Numba has it


class _Cache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Impl


def _candidates() -> Iterator[Path]:
    if stated := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(stated) / _NAME
        return
    home = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # there is no home
        yield (Path(home) if home else Path.home() / ".cache") / _NAME / "kernels"
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    yield Path(tempfile.gettempdir()) / f"{_NAME}-kernels-{user}"


def _is_usable(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return False
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022):
            return False
        return os.access(path, os.W_OK | os.X_OK)
    except OSError:
        return False


@cache
def _digest() -> str:
    """sha256 over all sources from which kernels and the constants in them may come."""
    digest, formats = hashlib.sha256(), Path(__file__).parent
    for path in sorted(formats.rglob("*.py")):
        digest.update(path.relative_to(formats).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
