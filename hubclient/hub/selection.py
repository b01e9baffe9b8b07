"""Which of a commit's files are asked for: by patterns, by name, or by what a conversion needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from hubclient.errors import SourceMissing
from hubclient.ground.names import meant, several, shown

if TYPE_CHECKING:
    from hubclient.hub.net.session import Session
    from hubclient.hub.resolve import Resolved
    from hubclient.hub.source.preflight import Preflight


@dataclass(frozen=True, slots=True)
class Choice:
    """The `names` that were chosen, in the order given; `unmatched` are the patterns that fit no file at all."""

    names: tuple[str, ...]
    unmatched: tuple[str, ...] = ()


def choose(names: Iterable[str], include: str | Sequence[str] = (), exclude: str | Sequence[str] = ()) -> Choice:
    """The names that fit one of `include` (all, if there is none) and none of `exclude`; a text alone is one pattern.

    Patterns are those of huggingface_hub's `filter_repo_objects`: shell wildcards over the whole path, in which `*` crosses
    slashes; a pattern that ends in a slash is a folder.
    """
    include, exclude = several(include), several(exclude)
    wanted, unwanted = [_pattern(text) for text in include], [_pattern(text) for text in exclude]
    fitted: set[str] = set()
    chosen = []
    for name in names:
        taken = _fit(name, wanted, fitted) or not wanted
        refused = _fit(name, unwanted, fitted)
        if taken and not refused:
            chosen.append(name)
    return Choice(tuple(chosen), tuple(text for text in (*include, *exclude) if _pattern(text) not in fitted))


def unfit(pattern: str, names: Iterable[str]) -> str:
    """What to say of a pattern that fits no file: that, and the pattern that may have been meant."""
    folder = pattern.replace("\\", "/").rstrip("/") + "/"
    found = any(name.startswith(folder) or f"/{folder}" in name for name in names)
    return f"no file fits {pattern}" + (f"; did you mean {folder!r}?" if found and folder != pattern else "")


def named(name: str, names: Collection[str], where: str) -> str:
    """A file that was asked for by its name; SourceMissing, with what may have been meant, if there is none."""
    if name not in names:
        raise SourceMissing(f"{where} has no file {shown(name)}{_likely(name, names)}", name)
    return name


def selecting(
    session: Session,
    cache: Path,
    target: str | None,
    file: str | None = None,
    told: Callable[[Preflight], None] | None = None,
) -> Callable[[Resolved], Collection[str]] | None:
    """What chooses a commit's files that a conversion to `target` needs, see `preflight.select_for`; None without a target."""
    if target is None:
        return None

    def select(resolved: Resolved) -> Collection[str]:
        from hubclient.hub.source.preflight import select_for

        return select_for(session, cache, resolved, target, file, told)

    return select


def _likely(name: str, names: Collection[str]) -> str:
    likely = meant(name, names)
    return likely if "did you mean" in likely else ""


def _pattern(text: str) -> str:
    text = text.replace("\\", "/")
    return text + "*" if text.endswith("/") else text


def _fit(name: str, patterns: Iterable[str], fitted: set[str]) -> bool:
    """Whether any pattern fits; all that do are noted."""
    fitting = {pattern for pattern in patterns if fnmatchcase(name, pattern)}
    fitted |= fitting
    return bool(fitting)
