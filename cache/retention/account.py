"""What has happened so far while a plan is carried out, in all repositories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hubclient.cache.layout import RepoId
from hubclient.cache.retention.plans import Kept, Removal
from hubclient.errors import DamagedInput


@dataclass
class Account:
    """`now` is the time that the grace is held against; `progress` is told each gain, in bytes."""

    now: float
    progress: Callable[[int], None] | None = None
    freed: int = 0
    blobs: int = 0
    debris: int = 0
    removals: list[Removal] = field(default_factory=list)
    repos: list[RepoId] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    swept: set[str] = field(default_factory=set)  # entries of the shared store that links to were removed
    linked: set[str] = field(default_factory=set)  # and those that links to stay

    def gained(self, count: int) -> None:
        """The disk has so many bytes more."""
        self.freed += count
        if self.progress is not None:
            self.progress(count)

    def keep(self, what: str, why: str) -> None:
        """Something stays after all."""
        self.kept.append(Kept(what, why))

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """The system's refusals, as reasons; what has gone meanwhile is gone."""
        try:
            yield
        except FileNotFoundError:
            return
        except DamagedInput as error:
            self.keep(what, f"cannot be removed: {error}")
        except OSError as error:
            self.keep(what, f"cannot be removed: {error.strerror or error}")
