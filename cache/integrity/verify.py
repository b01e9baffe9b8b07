"""Are the bytes in the cache what they should be? Offline, on all cores, each byte once; a killed run is gone on with.

What they should be is collected first (`claims.py`), then threads hash them (`reading.py`). Another process may pull,
repair or collect meanwhile: what changed while it was read is read again, and what went together with its snapshot is no
loss. Nothing in the cache is written but the digests of bytes that nobody says anything about, so that the next time can
hold them against something. What is found intact is marked in the catalog until the run is finished (`marks.py`); a finished
run shortens no later one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hubclient.cache.digests import Digest
from hubclient.cache.integrity.claims import Subject, broken_refs, pointer_path, subjects
from hubclient.cache.integrity.findings import Finding, Place, Verification
from hubclient.cache.integrity.marks import Marks
from hubclient.cache.integrity.reading import Outcome, Progress, read_all
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.lookup import find_repo, find_revision, refuse_linked
from hubclient.cache.model import CachedRepo, CachedRevision
from hubclient.cache.notes import record_digest
from hubclient.cache.scanning.scan import scan_cache, scan_repo
from hubclient.errors import UsageError
from hubclient.ground.machine import cores

_Chosen = list[tuple[CachedRepo, Sequence[CachedRevision]]]


def verify(
    cache: Path,
    repos: Sequence[RepoId] | None = None,
    revision: str | None = None,
    *,
    jobs: int | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Hold everything in the cache, or in some repositories, or in a revision of theirs, against what it should be.

    `revision` is a branch, a tag, a commit or the beginning of one. `jobs` threads, by default one per core, each with
    1 MiB. If the same call was interrupted it goes on from there, over what has not changed since; `again` starts anew.
    `progress` is told bytes. UsageError for what is not in the cache at all, DamagedInput for a link in its place;
    damage is a finding, not an error.
    """
    chosen = _chosen(cache, repos, revision)
    waiting: list[Subject] = []
    findings: list[Finding] = []
    for repo, revisions in chosen:
        more, wrong = subjects(repo, revisions, whole=revision is None)
        waiting += more
        findings += wrong
    checked = read = 0
    with Marks(cache, _selection(repos, revision), again=again) as marks:
        left = [subject for subject in waiting if not marks.holds(subject)]
        for outcome in read_all(left, jobs or cores(), progress):
            wrong = judge(outcome)
            findings += wrong
            checked += not outcome.gone
            read += outcome.read
            marks.add(outcome, intact=not any(finding.is_failure for finding in wrong))
        marks.finish()
    for repo, _ in chosen:
        findings += broken_refs(repo, repo.refs if revision is None else ())
    findings.sort(key=lambda finding: (finding.repo, finding.blob or "", finding.places))
    skipped = len(waiting) - len(left)
    return Verification(tuple(findings), len(chosen), checked + skipped, read, skipped)


def judge(outcome: Outcome) -> list[Finding]:
    """What is to be said about bytes that were read."""
    subject = outcome.subject
    if outcome.gone:
        lost = [place for place in subject.places if _dangles(subject, place)]
        return [_finding(outcome, "missing", lost, _named(subject))] if lost else []
    if outcome.fault:
        return [_finding(outcome, "unreadable", subject.places, _named(subject))]
    if not subject.claims:
        return _first_met(outcome)
    wrong = [digest for digest in subject.claims if not _holds(outcome, digest)]
    if not wrong:
        return []
    own = Digest.of_name(subject.blob.name)
    if own not in wrong and len(wrong) < len(subject.claims):  # intact, but shown as what it is not
        return [_finding(outcome, "swapped", subject.claims[digest], digest) for digest in wrong]
    first = own if own in wrong else wrong[0]
    short = any(subject.sizes.get(digest, outcome.size) != outcome.size for digest in wrong)
    return [_finding(outcome, "size" if short else "damaged", subject.places, first)]


def _holds(outcome: Outcome, digest: Digest) -> bool:
    sized = outcome.subject.sizes.get(digest, outcome.size) == outcome.size
    return sized and outcome.digests is not None and outcome.digests.get(digest.algorithm) == digest


def _first_met(outcome: Outcome) -> list[Finding]:
    """Bytes that nothing was said about: note what they are; no remark if a side file of llama.cpp's proves them right."""
    subject, digests = outcome.subject, outcome.digests or {}
    noted = record_digest(subject.paths, subject.blob.name, digests["sha256"])
    if subject.proofs.intersection(digests.values()):
        return []
    detail = "; its digest is noted for the next time" if noted else ""
    return [_finding(outcome, "unknown", subject.places, None, detail)]


def _finding(outcome: Outcome, kind: str, places: Sequence[Place], expected: Digest | None, detail: str = "") -> Finding:
    subject = outcome.subject
    found = (outcome.digests or {}).get(expected.algorithm if expected else "sha256")
    size = max((subject.sizes[digest] for digest in subject.claims if digest in subject.sizes), default=None)
    return Finding(
        kind,
        subject.paths.repo,
        subject.blob.name,
        tuple(sorted(places)),
        expected,
        found,
        subject.sizes.get(expected, size) if expected else size,
        outcome.size,
        subject.blob.shared,
        detail or outcome.fault,
    )


def _named(subject: Subject) -> Digest | None:
    """The digest that tells what the bytes are called by: by their own name, else by whoever shows them."""
    return Digest.of_name(subject.blob.name) or next(iter(subject.claims), None)


def _dangles(subject: Subject, place: Place) -> bool:
    pointer = pointer_path(subject.paths, place)
    return os.path.lexists(pointer) and not os.path.exists(pointer)


def _chosen(cache: Path, repos: Sequence[RepoId] | None, revision: str | None) -> _Chosen:
    if repos is None:
        if revision is not None:
            raise UsageError("a revision is one of a repository, and none was named")
        return [(repo, repo.revisions) for repo in scan_cache(cache).repos]
    found = [_repo(cache, repo) for repo in dict.fromkeys(repos)]
    return [(repo, repo.revisions if revision is None else [find_revision(repo, revision)]) for repo in found]


def _repo(cache: Path, repo: RepoId) -> CachedRepo:
    refuse_linked(cache, repo)
    here = os.path.isdir(RepoPaths(cache, repo).path)
    return (
        scan_repo(cache, repo) if here else find_repo(scan_cache(cache), repo)
    )  # which raises, and says what may have been meant


def _selection(repos: Sequence[RepoId] | None, revision: str | None) -> str:
    """What was asked for, as text: only the same again goes on with an interrupted run."""
    return f"{'all' if repos is None else ' '.join(sorted(map(str, repos)))} {revision or ''}"
