"""What the bytes of each file must be, as far as this machine knows; and what is wrong to see without reading any.

In this order: the name of a blob is its digest; `trees/<commit>.json` says what each file of the commit is, whatever it is
called here, and its size; a digest that we noted when we first met bytes that nobody says anything about.

llama.cpp leaves `blobs/<oid>.etag`, and where links are refused it moves the blob into the snapshot. What such a file is
called, and what it holds, may be the digest of moved bytes: if theirs is among them they are right. But an ETag may be
anything (of the Hub's file servers it is the xet hash), so it accuses nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hubclient.cache.digests import Digest
from hubclient.cache.inside import text_inside
from hubclient.cache.integrity.findings import Finding, Place
from hubclient.cache.layout import RepoPaths
from hubclient.cache.model import CachedBlob, CachedFile, CachedRepo, CachedRevision
from hubclient.cache.notes import live, recorded_digest
from hubclient.cache.trees import TreeEntry, read_tree
from hubclient.errors import DamagedInput
from hubclient.ground.words import counted

_LINKS = {"dangling": "missing", "outside": "outside", "loop": "loop", "folder": "folder", "unreadable": "unreadable"}


@dataclass(slots=True)
class Subject:
    """Bytes to be checked. `claims` are the digests that they should have, with the files that say so; `sizes` what trees say."""

    paths: RepoPaths
    blob: CachedBlob
    claims: dict[Digest, list[Place]] = field(default_factory=dict)
    sizes: dict[Digest, int] = field(default_factory=dict)
    unclaimed: list[Place] = field(default_factory=list)  # files that say nothing
    proofs: frozenset[Digest] = frozenset()

    @property
    def path(self) -> str:
        """Where the bytes are."""
        name = self.blob.name
        return f"{self.paths.cache}/{self.paths.repo.folder}/{name if '/' in name else f'blobs/{name}'}"

    @property
    def places(self) -> tuple[Place, ...]:
        """All files that show the bytes."""
        return tuple(place for places in (*self.claims.values(), self.unclaimed) for place in places)

    def claim(self, place: Place, entry: TreeEntry | None) -> None:
        """Let a file say what it should show."""
        named = Digest.of_name(self.blob.name)
        digest = entry.digest if entry else named
        if digest is None:
            self.unclaimed.append(place)
            return
        self.claims.setdefault(digest, []).append(place)
        if entry is not None:
            self.sizes[digest] = entry.size


def subjects(repo: CachedRepo, revisions: Sequence[CachedRevision], *, whole: bool) -> tuple[list[Subject], list[Finding]]:
    """The bytes of some revisions (`whole`: and those that none shows), and what is wrong with their links and lists."""
    found: dict[str, Subject] = {}
    findings: list[Finding] = []
    for revision in revisions:
        tree = _tree(repo, revision.commit, findings)
        for file in revision.files:
            finding = _claim(repo, revision.commit, file, (tree or {}).get(file.name), found)
            if finding is not None:
                findings.append(finding)
        if tree is not None:
            findings += _differences(repo, revision, tree)
    for name in repo.blobs if whole else ():
        if name not in found:
            found[name] = Subject(repo.paths, repo.blobs[name])
    _complete(repo, found.values())
    return list(found.values()), findings


def broken_refs(repo: CachedRepo, names: Iterable[str]) -> list[Finding]:
    """Branches and tags among `names` whose commit is not here and is not on its way; only a remark where nothing else is.

    huggingface_hub writes the branch before it asks for the first file, and leaves it if that is refused.
    """
    kind = "ref" if repo.revisions or repo.blobs else "begun"
    here = {revision.commit for revision in repo.revisions} | live(repo.paths)
    return [
        Finding(kind, repo.repo, f"refs/{name}", detail=repo.refs[name])
        for name in names
        if repo.refs[name] not in here and not repo.paths.snapshot(repo.refs[name]).is_dir() and (repo.paths.refs / name).exists()
    ]


def pointer_path(paths: RepoPaths, place: Place) -> str:
    """Where a file of a revision lies; its name is one that the disk has told, not one from the Hub."""
    return os.path.join(paths.snapshots, place.commit, *place.file.split("/"))


def _claim(repo: CachedRepo, commit: str, file: CachedFile, entry: TreeEntry | None, found: dict[str, Subject]) -> Finding | None:
    """Let a file say what its bytes should be; a finding if its link is wrong already."""
    place = Place(commit, file.name)
    if file.fault is not None:
        return _broken_link(repo, place, file, entry)
    blob = repo.bytes_of(commit, file)
    if blob is None:  # gone while we looked
        return _broken_link(repo, place, file._replace(fault="dangling"), entry)
    subject, named = found.setdefault(blob.name, Subject(repo.paths, blob)), Digest.of_name(blob.name)
    if entry is not None and named is not None and named != entry.digest and named.algorithm == entry.digest.algorithm:
        return Finding("swapped", repo.repo, blob.name, (place,), entry.digest, named, entry.size, blob.size, blob.shared)
    subject.claim(place, entry)
    return None


def _broken_link(repo: CachedRepo, place: Place, file: CachedFile, entry: TreeEntry | None) -> Finding | None:
    """The finding about a link, unless it has been removed or mended meanwhile."""
    pointer = pointer_path(repo.paths, place)
    if not os.path.lexists(pointer) or (file.fault == "dangling" and os.path.exists(pointer)):
        return None
    lost = _said(pointer) if file.fault == "dangling" else None
    expected = entry.digest if entry else Digest.of_name(lost or "")
    detail = "permission denied, or nothing that can be read" if file.fault == "unreadable" else ""
    size = entry.size if entry else None
    return Finding(_LINKS[file.fault or ""], repo.repo, lost, (place,), expected, size=size, detail=detail)


def _said(pointer: str) -> str | None:
    """The blob that a link names, whether it is there or not."""
    try:
        folder, name = os.path.split(os.readlink(pointer))
    except OSError:
        return None
    return name if os.path.basename(folder) == "blobs" else None


def _differences(repo: CachedRepo, revision: CachedRevision, tree: Mapping[str, TreeEntry]) -> list[Finding]:
    here = {file.name for file in revision.files}
    lacking = tuple(Place(revision.commit, name) for name in tree if name not in here)
    more = tuple(Place(revision.commit, name) for name in sorted(here) if name not in tree)
    told = f"{len(lacking):,} of {counted(len(tree), 'file')} {'was' if len(lacking) == 1 else 'were'}"
    found = [Finding("partial", repo.repo, None, lacking, detail=told)] if lacking else []
    return found + ([Finding("unlisted", repo.repo, None, more)] if more else [])


def _tree(repo: CachedRepo, commit: str, findings: list[Finding]) -> dict[str, TreeEntry] | None:
    path = repo.paths.tree(commit)
    try:
        return read_tree(path, portable=False)
    except DamagedInput as error:
        detail = str(error)
    except OSError as error:
        detail = error.strerror or str(error)
    findings.append(Finding("tree", repo.repo, f"trees/{path.name}", detail=detail))
    return None


def _complete(repo: CachedRepo, found: Iterable[Subject]) -> None:
    """Add what names and notes say where no tree does."""
    proofs: frozenset[Digest] | None = None
    for subject in found:
        named = Digest.of_name(subject.blob.name)
        if named is not None:
            subject.claims.setdefault(named, [])
        elif not subject.claims:
            noted = recorded_digest(repo.paths, subject.blob.name)
            if noted is not None:
                subject.claims[noted], subject.unclaimed = subject.unclaimed, []
            else:
                subject.proofs = proofs = _etags(repo) if proofs is None else proofs


def _etags(repo: CachedRepo) -> frozenset[Digest]:
    """The digests that llama.cpp's side files may state: by their names, and by what they hold."""
    told = set()
    for leftover in repo.leftovers:
        if leftover.kind == "etag":
            told.add(os.path.basename(leftover.path).removesuffix(".etag"))
            with suppress(OSError):
                text = text_inside(repo.paths.cache / leftover.path, repo.paths.cache)
                told.add((text or "").removeprefix("W/").strip('"'))
    return frozenset(digest for text in told if (digest := Digest.of_name(text)))
