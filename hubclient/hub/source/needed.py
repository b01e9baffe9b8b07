"""Which files of a repository a checkpoint consists of, by the list of the repository's files alone.

What `Format.open` would take of a folder that holds everything: the usual single file, else the shards of the index, else
weights that are unambiguous, and the known small files beside them; or one GGUF with all its parts and its vision part.
`original/*.pth`, ONNX, OpenVINO, TensorFlow and Flax files, and `.bin` beside safetensors, are none of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from hubclient.cache.asked import Asked
from hubclient.cache.trees import TreeEntry
from hubclient.errors import DamagedInput, UnsupportedFormat, UsageError
from hubclient.formats.gguf import PROJECTOR, projector_of
from hubclient.formats.gguf.split import sisters
from hubclient.formats.safetensors.index import INDEX_SUFFIX, shard_stem
from hubclient.formats.safetensors.reader import INDEX, SINGLE, SUFFIX
from hubclient.formats.safetensors.sidecars import MODEL_FILES, is_sidecar
from hubclient.ground.names import shown
from hubclient.ground.words import human
from hubclient.hub.selection import named

GGUF = ".gguf"
_PICKLED = re.compile(r".*\.(?:bin|pt|pth|ckpt)")
_LISTED = 12  # choices that a sentence names
_OLDER = frozenset(("vocab.json", "merges.txt", "vocab.txt", "tekken.json"))  # read only where there is no tokenizer.json
_PAPERS = re.compile(r"README\.md|LICENSE[\w.-]*")

Shards = Callable[[str], Collection[str]]  # the files that the index of this name lists, relative to its folder


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a source consists of. `at` is what to open, relative to the snapshot ("" is the snapshot itself); `weights` the files
    with tensors, `small` the others; `beside` comes along with a download although nothing reads it: card, licence, projector.
    """

    at: str
    weights: tuple[str, ...]
    small: tuple[str, ...]
    beside: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """What is read when it is converted."""
        return (*self.weights, *self.small)

    @property
    def names(self) -> frozenset[str]:
        """What a download brings."""
        return frozenset((*self.read, *self.beside))

    def without(self, missing: Collection[str]) -> Wanted:
        """The same less what is missing and not needed: papers, and a vocabulary's older forms beside a tokenizer.json that is here."""
        here = frozenset(self.small).difference(missing)
        spare = {
            name
            for name in missing
            if _PAPERS.fullmatch(PurePosixPath(name).name)
            or (PurePosixPath(name).name in _OLDER and f"{_base(name)}tokenizer.json" in here)
        }
        return replace(self, small=tuple(name for name in self.small if name not in spare))


def wanted(entries: Mapping[str, TreeEntry], asked: Asked, shards: Shards, *, weightless: bool = False) -> Wanted:
    """What of a commit's files `asked` means. `weightless`: a folder's small files will do, and are all that is taken.

    UsageError where there are several choices, with their spellings; UnsupportedFormat where there are no weights that
    can be read; SourceMissing for a file that is not there.
    """
    if asked.file is None:
        return _folder(entries, "", asked, shards, weightless)
    name = asked.file.rstrip("/")
    if any(other.startswith(f"{name}/") for other in entries):
        return _folder(entries, f"{name}/", asked, shards, weightless)
    if name not in entries and (meant := _of_type(entries, name)):
        return _gguf(entries, _one(entries, meant, asked))
    named(name, entries, str(Asked(asked.repo, asked.revision)))
    if name.endswith(GGUF):
        return _gguf(entries, name)
    if not name.endswith((SUFFIX, INDEX_SUFFIX)):
        raise UnsupportedFormat(f"{asked}: is no file with weights that can be read: *{SUFFIX}, *{INDEX_SUFFIX} and *{GGUF} can")
    base = _base(name)
    indexed = name.endswith(INDEX_SUFFIX)
    weights = [base + shard for shard in sorted(shards(name))] if indexed else [name]
    small = _small(entries, base)
    return Wanted(name, tuple(weights), (*small, name) if indexed else small)


def ggufs(entries: Iterable[str], base: str = "") -> dict[str, tuple[str, ...]]:
    """The GGUF models below a folder: the first part's name, and all parts' names. Vision parts and importance matrices are none."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(entries):
        last = PurePosixPath(name).name.lower()
        if name.startswith(base) and last.endswith(GGUF) and "mmproj" not in last and "imatrix" not in last:
            parts = _parts(name)
            found.setdefault(parts[0], parts)
    return found


def _folder(entries: Mapping[str, TreeEntry], base: str, asked: Asked, shards: Shards, weightless: bool) -> Wanted:
    inside = [name.removeprefix(base) for name in entries if name.startswith(base)]
    there = [name for name in inside if "/" not in name and not name.startswith(".")]
    small = _small(entries, base)
    models = ggufs(entries, base)
    has_weights = any(name.endswith((SUFFIX, INDEX_SUFFIX)) for name in there)
    if weightless and (has_weights or not models) and MODEL_FILES.intersection(there):
        return Wanted(base.rstrip("/"), (), small)
    if not has_weights:
        if models:
            return _gguf(entries, _one(entries, models, asked))
        raise _no_weights(there, inside, asked)
    chosen = _safetensors(there, asked)
    index = (base + chosen[0],) if chosen[0].endswith(INDEX_SUFFIX) else ()
    weights = tuple(base + name for name in (sorted(shards(index[0])) if index else chosen))
    return Wanted(base.rstrip("/"), weights, (*small, *index))


def _safetensors(there: Sequence[str], asked: Asked) -> list[str]:
    """The weights of a folder, in Transformers' order: the single file, the index, else what is unambiguous."""
    if SINGLE in there:
        return [SINGLE]
    indexes = [name for name in there if name.endswith(INDEX_SUFFIX)]
    if INDEX in indexes or len(indexes) == 1:
        return [INDEX if INDEX in indexes else indexes[0]]
    weights = sorted(name for name in there if name.endswith(SUFFIX))
    stems = {shard_stem(name) or name for name in weights}
    if len(stems) != 1:
        several = weights or indexes
        raise UsageError(
            f"{asked}: holds several checkpoints ({_some(several)}); name one, such as {_spelled(asked, several[0])}"
        )
    return weights


def _small(entries: Iterable[str], base: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in entries if name.startswith(base) and is_sidecar(name.removeprefix(base))))


def _gguf(entries: Mapping[str, TreeEntry], name: str) -> Wanted:
    """One GGUF: all its parts and its vision part; if that is not called as the text part is, it comes along unread."""
    base, weights = _base(name), _parts(name)
    if missing := [part for part in weights if part not in entries]:
        raise DamagedInput(
            f"{len(missing)} of the {len(weights)} parts of this split are not there, the first is {shown(missing[0])}", file=name
        )
    projector = projector_of(name.removeprefix(base), lambda other: base + other in entries)
    papers = tuple(sorted(other for other in entries if _PAPERS.fullmatch(other)))
    if projector is not None:
        return Wanted(name, (*weights, base + projector), (), papers)
    others = [other for other in entries if _is_projector(other) and _base(other) in (base, "")]
    return Wanted(name, weights, (), (*papers, *(others if len(others) == 1 else ())))


def _is_projector(name: str) -> bool:
    last = PurePosixPath(name).name.lower()
    return last.endswith(GGUF) and last.startswith(PROJECTOR)


def _of_type(entries: Iterable[str], kind: str) -> dict[str, tuple[str, ...]]:
    """The GGUF models whose names end in a type: `org/name:Q4_K_M`, as llama.cpp takes it."""
    ending = re.compile(rf"(?:.*[-._/])?{re.escape(kind)}(?:-\d+-of-\d+)?\.gguf", re.IGNORECASE)
    return {name: parts for name, parts in ggufs(entries).items() if ending.fullmatch(name)}


def _one(entries: Mapping[str, TreeEntry], models: Mapping[str, tuple[str, ...]], asked: Asked) -> str:
    if len(models) == 1:
        return next(iter(models))
    sizes = {name: sum(entries[part].size for part in parts if part in entries) for name, parts in models.items()}
    told = [f"{name} ({human(size)})" for name, size in sizes.items()]
    best = _spelled(asked, max(sizes, key=lambda name: sizes[name]))
    raise UsageError(
        f"{asked}: holds {len(models)} GGUF models: {_some(told)}",
        hint=f"name one, as in `hubclient pull {best} --for gguf`, the least quantised by its size; a pull without --for takes all",
    )


def _no_weights(there: Sequence[str], inside: Sequence[str], asked: Asked) -> UnsupportedFormat:
    folders = sorted({_base(name).rstrip("/") for name in inside if name.endswith(SUFFIX)})
    if folders:
        return UnsupportedFormat(
            f"{asked}: holds weights in folders alone ({_some(folders)})", hint=f"name one: {_spelled(asked, folders[0])}"
        )
    if pickled := sorted(name for name in there if _PICKLED.fullmatch(name)):
        return UnsupportedFormat(
            f"{asked}: holds {shown(pickled[0])} but no safetensors weights, and such pickled files are not read (yet)",
            hint="many repositories have safetensors in another revision, often refs/pr/1; Transformers' save_pretrained writes them",
        )
    return UnsupportedFormat(f"{asked}: holds no weights that can be read: neither *{SUFFIX} nor *{GGUF}")


def _parts(name: str) -> tuple[str, ...]:
    base = _base(name)
    return tuple(base + part for part in sisters(name.removeprefix(base)))


def _base(name: str) -> str:
    """The folder of a file, with its slash."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _spelled(asked: Asked, file: str) -> str:
    return str(Asked(asked.repo, asked.revision, file))


def listed(shards: Iterable[str], name: str, entries: Collection[str]) -> frozenset[str]:
    """The files that the index called `name` lists; DamagedInput if one is not in the repository."""
    found = frozenset(shards)
    if absent := sorted(shard for shard in found if _base(name) + shard not in entries):
        raise DamagedInput(f"names the shard {shown(absent[0])}, which is not there", file=name)
    return found
