"""Finds what installed distributions announce, by reading entry-point names and importing nothing.

Importing `importlib.metadata` and asking it for all entry points takes 25-90 ms, most of it for an e-mail parser; reading
the same `entry_points.txt` files takes about one, so that every run can afford to see third parties and their conflicts.
`importlib.metadata` reads what is not a folder (a wheel or zip on `sys.path`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

GROUPS = {"hubclient.architectures": "", "hubclient.formats": "format.", "hubclient.commands": "command."}
"""Entry-point groups, and what is put before their names to make a claim."""

UNIQUE = ("hf.", "format.", "command.")
"""Claims that one plugin alone can serve. A GGUF or MLX name may stand for look-alikes that only the file tells apart."""

_LIMIT = 1 << 20  # bytes; an entry_points.txt beyond this is not one


@dataclass(frozen=True, slots=True)
class Announcement:
    """One name that a distribution announces, and the module that brings it.

    `claim` is the name with its space: `hf.LlamaForCausalLM`, `gguf.llama`, `format.gguf`, `command.convert`.
    """

    claim: str
    module: str
    distribution: str
    version: str
    builtin: bool = False
    summary: str = ""


class Scan(NamedTuple):
    """What is installed, and sentences about distributions whose announcements cannot be read."""

    announcements: tuple[Announcement, ...]
    problems: tuple[str, ...]


def normal(name: str) -> str:
    """A distribution or plugin name as it is compared: case and the kind of separator do not matter (PEP 503)."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


def claim_of(group: str, name: str) -> str:
    """The claim that an entry point makes; ValueError, in a sentence, if it makes none."""
    if group not in GROUPS:
        raise ValueError(f"there is no entry-point group {group}, only {', '.join(GROUPS)}")
    space, dot, rest = name.partition(".")
    if not GROUPS[group] and (not dot or not space or not rest or f"{space}." in GROUPS.values()):
        raise ValueError(f"the name {name!r} in {group} must be of the kind hf.ClassName, gguf.name or mlx.name")
    return GROUPS[group] + name


def scan(paths: Sequence[str] | None = None) -> Scan:
    """Third parties' announcements in the folders of `paths` (default `sys.path`), sorted; the first folder wins."""
    announcements: list[Announcement] = []
    problems: list[str] = []
    for distribution, version, text in _distributions(sys.path if paths is None else paths):
        for group, line in _lines(text):
            try:
                claim, module = _entry_point(group, line)
            except ValueError as error:
                problems.append(f"{distribution} {version} announces a plugin that cannot be found: {error}")
            else:
                announcements.append(Announcement(claim, module, distribution, version))
    return Scan(tuple(sorted(announcements, key=lambda a: (normal(a.distribution), a.claim))), tuple(problems))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The lines of an entry_points.txt that belong to our groups, with their group."""
    group = ""
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line and line[0] not in "#;" and group.startswith("hubclient."):
            yield group, line


def _entry_point(group: str, line: str) -> tuple[str, str]:
    """Claim and module of `name = module`."""
    name, equals, module = (part.strip() for part in line.partition("="))
    if not equals or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{line[:80]!r} in {group} does not name a module")
    return claim_of(group, name), module


def _distributions(paths: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Name, version and entry points of every distribution that mentions our groups, the first of each name."""
    seen: set[str] = set()
    for path in dict.fromkeys(path for path in paths if isinstance(path, str)):  # what the import system heeds
        try:
            with os.scandir(path or ".") as entries:
                found = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
        except NotADirectoryError:
            yield from _zipped(path, seen)
            continue
        except OSError:  # not there, or not ours to read: the import system passes over it too
            continue
        for name in found:
            stem = normal(name.rpartition(".")[0].partition("-")[0])
            if stem not in seen:
                seen.add(stem)
                yield from _folder(Path(path or ".", name))


def _folder(info: Path) -> Iterator[tuple[str, str, str]]:
    """The distribution of one `*.dist-info` folder, if it mentions our groups."""
    try:
        with open(info / "entry_points.txt", "rb") as file:
            text = file.read(_LIMIT)
    except OSError:  # most distributions have none, and an old .egg-info may be a file
        return
    if b"[hubclient." in text:
        yield *_name_and_version(info), text.decode(errors="replace")


def _name_and_version(info: Path) -> tuple[str, str]:
    fields: dict[str, str] = {}
    for candidate in ("METADATA", "PKG-INFO"):
        try:
            with open(info / candidate, "rb") as file:
                head = file.read(_LIMIT).decode(errors="replace").partition("\n\n")[0]
        except OSError:
            continue
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in head.splitlines())}
        break
    stem, _, version = info.stem.partition("-")
    return fields.get("Name", stem), fields.get("Version", version)


def _zipped(path: str, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    from importlib.metadata import distributions

    for distribution in distributions(path=[path]):
        name = str(distribution.metadata["Name"])
        text = distribution.read_text("entry_points.txt") or ""
        if normal(name) not in seen and "[hubclient." in text:
            yield name, distribution.version, text
        seen.add(normal(name))
