"""Which revisions a policy takes, what they free, what stands above it: plans over caches that are made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.model import CacheContents, CachedBlob, CachedFile, CachedRepo, CachedRevision, Leftover, SharedBlob
from hubclient.cache.notes import Pin
from hubclient.cache.retention.keeping import Writing
from hubclient.cache.retention.plans import RemovalPlan
from hubclient.cache.retention.policy import Policy, plan_gc, plan_prune, plan_rm
from hubclient.errors import EnvironmentFault, UsageError

CACHE = Path("/cache")
NOW = 1_000_000.0
DAY = 86_400.0
A, B, C, D = ("1234" * 10, "1299" * 10, "c" * 40, "d" * 40)
PIN = Pin("alice", "2025-01-01T00:00:00Z", "in production")
ONE, TWO = RepoId("org/one"), RepoId("org/two")
X, Y = "e" * 64, "f" * 64


def revision(
    commit: str, blobs: Mapping[str, int], *, days: float = 10, refs: tuple[str, ...] = ("main",), pin: Pin | None = None
):
    """A revision that was last used so many days ago, with a file for each blob."""
    files = tuple(CachedFile(f"{name}.bin", name, size) for name, size in blobs.items())
    return CachedRevision(commit, files, refs, NOW - days * DAY, NOW - days * DAY, pin)


def repo(*revisions: CachedRevision, of: RepoId = ONE, more: tuple[CachedBlob, ...] = (), **fields: object) -> CachedRepo:
    blobs = {}
    for one in revisions:
        for file in one.files:
            if file.blob is not None:
                blobs[file.blob] = blob(file.blob, file.size)
    blobs |= {other.name: other for other in more}
    refs = {ref: one.commit for one in revisions for ref in one.refs}
    return CachedRepo(RepoPaths(CACHE, of), revisions, fields.pop("refs", refs), blobs, **fields)  # type: ignore[arg-type]


def blob(name: str, size: int, *, days: float = 10, inode: int = 0, shared: str | None = None) -> CachedBlob:
    return CachedBlob(name, size, size, int((NOW - days * DAY) * 1e9), NOW - days * DAY, 1, inode, shared)


def cache(*repos: CachedRepo, shared: tuple[SharedBlob, ...] = (), leftovers: tuple[Leftover, ...] = ()) -> CacheContents:
    return CacheContents(CACHE, repos, shared, leftovers)


def entry(xet_hash: str, size: int, links: tuple[str, ...] | None, days: float = 10) -> SharedBlob:
    return SharedBlob(xet_hash, CACHE / "blobs" / xet_hash[:2] / xet_hash, size, int((NOW - days * DAY) * 1e9), links)


def taken(plan: RemovalPlan) -> list[str]:
    return [removal.commit for removal in plan.removals]


def gc(contents: CacheContents, *, live: Mapping[RepoId, Writing] | None = None, **policy: float) -> RemovalPlan:
    return plan_gc(contents, Policy(**policy), now=NOW, live=live)  # type: ignore[arg-type]


def consistent(plan: RemovalPlan) -> bool:
    """Whether the parts of a plan add up to what it says is freed."""
    parts = (plan.removals, [one for one in plan.blobs if one.orphan], plan.shared)
    return plan.freed == sum(one.frees for part in parts for one in part) + sum(debris.size for debris in plan.debris)


# age, size, number


def test_what_was_not_used_for_longer_than_the_age_goes_with_its_refs():
    plan = gc(cache(repo(revision(A, {"x": 5}, days=91), revision(B, {"y": 7}, days=89, refs=("v1",)))), max_age=90 * DAY)
    assert taken(plan) == [A] and plan.removals[0].refs == ("main",) and "91 days ago" in plan.removals[0].why
    assert plan.freed == 5 and plan.size == 12 and not plan.short_by and [one.name for one in plan.blobs] == ["x"]
    assert consistent(plan)


def test_the_least_recently_used_go_until_the_cache_fits():
    revisions = [revision(commit, {commit[:5]: 10}, days=days, refs=(commit,)) for commit, days in ((A, 3), (B, 9), (C, 6))]
    plan = gc(cache(repo(*revisions)), max_size=20)
    assert taken(plan) == [B] and plan.remaining == 20
    assert taken(gc(cache(repo(*revisions)), max_size=19)) == [B, C]
    assert taken(gc(cache(repo(*revisions)), max_size=30)) == []


def test_ties_are_broken_by_name_whatever_the_order():
    one, two = revision(B, {"x": 1}, refs=("b",)), revision(A, {"y": 1}, refs=("a",))
    for revisions in ((one, two), (two, one)):
        assert taken(gc(cache(repo(*revisions)), max_size=1)) == [A]


def test_a_revision_whose_going_frees_nothing_stays():
    old, new = revision(A, {"x": 10}, days=9, refs=("old",)), revision(B, {"x": 10, "y": 5}, days=1)
    other = repo(revision(C, {"z": 10}, days=5), of=TWO)
    assert taken(gc(cache(repo(old, new), other), max_size=15)) == [C]


def test_the_last_used_of_each_repository_are_kept_from_age_and_size():
    contents = cache(
        repo(*[revision(commit, {commit[:5]: 10}, days=days, refs=(commit,)) for commit, days in ((A, 30), (B, 20), (C, 10))])
    )
    assert taken(gc(contents, max_age=5 * DAY, keep_last=2)) == [A]
    plan = gc(contents, max_size=0, keep_last=2)
    assert taken(plan) == [A] and plan.short_by == 20
    assert sorted(kept.why for kept in plan.kept) == ["is among the last 2 used of its repository"] * 2


def test_a_number_alone_takes_all_others():
    contents = cache(
        repo(*[revision(commit, {commit[:5]: 1}, days=days, refs=(commit,)) for commit, days in ((A, 3), (B, 2), (C, 1))])
    )
    assert taken(gc(contents, keep_last=1)) == [A, B]
    assert taken(gc(contents, keep_last=0)) == [A, B, C]
    assert taken(gc(contents)) == []


def test_a_policy_of_less_than_nothing_is_refused():
    for name in ("max_size", "max_age", "keep_last", "grace"):
        with pytest.raises(UsageError, match="less than nothing"):
            Policy(**{name: -1})  # type: ignore[arg-type]


# what stands above


def test_pins_running_pulls_and_the_grace_stand_above_the_policy_and_the_plan_says_so():
    contents = cache(
        repo(
            revision(A, {"x": 1}, pin=PIN, refs=("a",)),
            revision(B, {"y": 2}, days=0.01, refs=("b",)),
            revision(C, {"z": 4}, refs=("c",)),
            revision(D, {"w": 8}, refs=("d",)),
        ),
        repo(revision(A, {"v": 16}), of=TWO, pin=PIN),
    )
    plan = gc(contents, max_size=0, live={ONE: Writing(frozenset([C]), frozenset(["z"]))})
    assert taken(plan) == [D] and plan.short_by == 23 and plan.freed == 8
    why = {kept.what: kept.why for kept in plan.kept}
    assert why["org/one@123412341234"] == "is pinned by alice: in production"
    assert why["org/two@123412341234"] == "is pinned with its repository by alice: in production"
    assert why["org/one@cccccccccccc"] == "is being pulled right now"
    assert why["org/one@129912991299"] == "was used 14 minutes ago"


def test_blobs_that_a_running_pull_may_need_stay_though_no_revision_shows_them():
    one = repo(revision(A, {"x": 1, "y": 2}), more=(blob("z", 4),))
    plan = gc(cache(one), max_age=DAY, live={ONE: Writing(frozenset([C]), frozenset(["x"]))})
    assert taken(plan) == [A] and [part.name for part in plan.blobs] == ["y", "z"] and plan.freed == 6
    assert [kept.what for kept in plan.kept] == ["models--org--one/blobs/x"] and not plan.repos
    assert not gc(cache(one), max_age=DAY, live={ONE: Writing(frozenset([C]), None)}).blobs


def test_a_blob_that_was_written_a_short_while_ago_stays():
    one = repo(revision(A, {"x": 1}), more=(blob("y", 2, days=0.001), blob("x", 1, days=0.001)))
    plan = gc(cache(one), max_age=DAY)
    assert taken(plan) == [A] and not plan.blobs and plan.freed == 0 and not plan.repos
    assert [(kept.what[-1], kept.why) for kept in plan.kept] == [
        ("x", "was written 1 minute ago"),
        ("y", "was written 1 minute ago"),
    ]


def test_bytes_that_something_unknown_shows_stay():
    one = replace(repo(revision(A, {"x": 1}), more=(blob("y", 2),)), held=frozenset(["x", "y"]))
    plan = gc(cache(one), max_age=DAY)
    assert taken(plan) == [A] and not plan.blobs and plan.freed == 0


def test_a_snapshot_that_another_one_leans_on_stays():
    lying = CachedBlob(f"snapshots/{A}/m", 9, 9, 0, 0.0, 1, 5)
    leaning = replace(revision(B, {}, days=1, refs=("b",)), files=(CachedFile("m", lying.name, 9),))
    one = repo(replace(revision(A, {}), files=(CachedFile("m", None, 9),)), more=(lying,))
    one = replace(one, revisions=(*one.revisions, leaning))
    assert not taken(gc(cache(one), max_age=5 * DAY))
    with pytest.raises(UsageError, match="another revision shows"):
        plan_rm(cache(one), ONE, A)
    assert plan_rm(cache(one), ONE).freed == 9


# physical bytes


def test_bytes_count_once_and_go_with_the_last_revision_that_shows_them():
    contents = cache(
        repo(revision(A, {"x": 10, "y": 1}, days=9, refs=("a",)), revision(B, {"x": 10, "z": 2}, days=8, refs=("b",)))
    )
    plan = gc(contents, max_age=8.5 * DAY)
    assert plan.size == 13 and plan.freed == 1
    plan = gc(contents, max_age=DAY)
    assert [removal.frees for removal in plan.removals] == [1, 12] and plan.freed == 13 and plan.repos == (ONE,)


def test_hard_links_go_when_the_last_name_does_in_whatever_repository():
    one = repo(revision(A, {"x": 10}), more=(blob("x", 10, inode=7),))
    two = repo(revision(B, {"y": 10}, days=1), of=TWO, more=(blob("y", 10, inode=7),))
    plan = gc(cache(one, two), max_age=5 * DAY)
    assert plan.size == 10 and taken(plan) == [A] and plan.freed == 0 and plan.repos == (ONE,)
    assert gc(cache(one, two), max_age=DAY / 2).freed == 10


def test_shared_entries_go_with_their_last_link_and_not_where_links_are_unknown():
    def contents(links: tuple[str, ...] | None) -> CacheContents:
        one = repo(revision(A, {"x": 10}), more=(blob("x", 10, shared=X),))
        two = repo(revision(B, {"y": 10}, days=1), of=TWO, more=(blob("y", 10, shared=X),))
        return cache(one, two, shared=(entry(X, 10, links),))

    known = ("models--org--one/blobs/x", "models--org--two/blobs/y")
    assert gc(contents(known), max_age=5 * DAY).freed == 0
    plan = gc(contents(known), max_age=DAY / 2)
    assert plan.freed == plan.size == 10 and [one.xet_hash for one in plan.shared] == [X] and consistent(plan)
    plan = gc(contents(None), max_age=DAY / 2)
    assert plan.freed == 0 and not plan.shared and any("nobody can tell" in kept.why for kept in plan.kept)
    plan = gc(contents((*known, "models--org--strange/blobs/z")), max_age=DAY / 2)
    assert plan.freed == 0 and not plan.shared


# prune


def test_what_no_ref_names_goes_unless_it_is_pinned_or_was_just_used():
    contents = cache(
        repo(
            revision(A, {"x": 1}, refs=()),
            revision(B, {"y": 2}, refs=(), days=0),
            revision(C, {"z": 4}, refs=(), pin=PIN),
            revision(D, {"w": 8}),
        )
    )
    plan = plan_prune(contents, now=NOW)
    assert taken(plan) == [A] and plan.freed == 1 and len(plan.kept) == 2
    assert taken(gc(contents, detached=True)) == [A] and not taken(gc(contents))
    assert not taken(gc(contents, keep_last=9))


def test_what_unfinished_writers_left_goes_once_it_is_old_and_unknown_files_never():
    folder = "models--org--one"
    old, new = NOW - DAY, NOW - 60
    kinds = ("incomplete", "ledger", "temporary", "trash", "etag", "unknown", "lock")
    left = tuple(Leftover(f"{folder}/blobs/{kind}.{age}", kind, 1, age) for kind in kinds for age in (old, new))
    stray = (Leftover("stray", "unknown", 1, old), Leftover(".locks/.hubclient-trash/1", "trash", 0, new))
    contents = cache(repo(revision(A, {"x": 1}), more=(blob("y", 2),), leftovers=left), leftovers=stray)
    plan = plan_prune(contents, now=NOW)
    assert {debris.path for debris in plan.debris} == {
        *(f"{folder}/blobs/{kind}.{old}" for kind in ("incomplete", "ledger", "temporary", "trash")),
        f"{folder}/blobs/trash.{new}",
        ".locks/.hubclient-trash/1",
    }
    assert [one.name for one in plan.blobs] == ["y"] and plan.freed == 2 + 5 and not plan.repos and consistent(plan)
    assert plan.size == 3 + len(left) + 1 and len(plan.kept) == 3
    assert not plan_prune(contents, now=NOW, live={ONE: Writing(frozenset([C]), None)}).blobs


def test_refs_to_snapshots_that_are_gone_and_entries_without_links_go():
    contents = cache(
        repo(revision(A, {"x": 1}), refs={"main": A, "old": B, "coming": C}),
        shared=(entry(X, 8, ()), entry(Y, 16, (), days=0), entry("d" * 64, 32, None)),
    )
    plan = plan_prune(contents, now=NOW, live={ONE: Writing(frozenset([C]))})
    assert [(ref.name, ref.commit) for ref in plan.refs] == [("old", B)]
    assert [one.xet_hash for one in plan.shared] == [X] and plan.freed == 8 and consistent(plan)
    assert [kept.size for kept in plan.kept] == [16, 32]


def test_a_repository_of_which_nothing_remains_goes_as_a_whole():
    empty, gone = repo(of=ONE), repo(revision(A, {"x": 1}, refs=()), of=TWO)
    assert plan_prune(cache(empty, gone), now=NOW).repos == (ONE, TWO)
    strange = replace(gone, leftovers=(Leftover("models--org--two/notes.txt", "unknown", 3, 0.0),))
    plan = plan_prune(cache(strange), now=NOW)
    assert not plan.repos and taken(plan) == [A] and plan.kept[0].what == "models--org--two/notes.txt"
    side = replace(gone, leftovers=(Leftover("models--org--two/blobs/x.etag", "etag", 3, NOW),))
    assert plan_prune(cache(side), now=NOW).freed == 4


# rm


def test_a_revision_is_named_by_ref_by_commit_or_by_the_start_of_one():
    contents = cache(repo(revision(A, {"x": 1}), revision(B, {"x": 1, "y": 2}, refs=("v1.0",))))
    for name, commit, freed in (("main", A, 0), ("v1.0", B, 2), (B, B, 2), ("1234", A, 0), (A[:9].upper(), A, 0)):
        plan = plan_rm(contents, ONE, name)
        assert taken(plan) == [commit] and plan.freed == freed and plan.named
    for name, told in (("12", "no revision"), ("feed" * 10, "no revision"), ("v1", "did you mean v1.0")):
        with pytest.raises(UsageError, match=told):
            plan_rm(contents, ONE, name)
    twins = cache(repo(revision(A, {}), revision("1234" * 9 + "9999", {}, refs=())))
    with pytest.raises(UsageError, match="any of 2 revisions"):
        plan_rm(twins, ONE, "1234")


def test_a_repository_goes_with_all_that_is_in_it():
    left = (Leftover("models--org--one/blobs/z.incomplete", "incomplete", 4, NOW),)
    contents = cache(repo(revision(A, {"x": 1}, days=0), more=(blob("y", 2, days=0),), leftovers=left), repo(of=TWO))
    plan = plan_rm(contents, ONE)
    assert plan.repos == (ONE,) and plan.freed == 7 and plan.concerned == (ONE,)
    assert plan_rm(contents, TWO).repos == (TWO,)
    plan = plan_rm(contents, ONE, A)
    assert not plan.repos and plan.freed == 1, "what is left of another download is not what was named"


def test_a_file_goes_from_all_revisions_or_from_the_one_that_is_named():
    contents = cache(
        repo(revision(A, {"x": 1, "y": 2}), revision(B, {"x": 1, "z": 4}, refs=("b",)), revision(C, {"x": 1}, refs=("c",)))
    )
    plan = plan_rm(contents, ONE, None, "x.bin")
    assert [(one.commit, one.files) for one in plan.removals] == [(A, ("x.bin",)), (B, ("x.bin",)), (C, ())]
    assert plan.freed == 1 and plan.removals[0].refs == () and plan.removals[2].refs == ("c",)
    assert plan_rm(contents, ONE, "main", "y.bin").freed == 2
    with pytest.raises(UsageError, match=r"no file 'y.bi' .* did you mean .*y.bin"):
        plan_rm(contents, ONE, None, "y.bi")


def test_what_is_not_here_pinned_or_being_pulled_is_refused_with_what_to_do():
    contents = cache(repo(revision(A, {"x": 1}, pin=PIN), revision(B, {"y": 1}, refs=("b",))), repo(of=TWO, pin=PIN))
    with pytest.raises(UsageError, match=r"org/on is not in the cache .* did you mean org/one") as told:
        plan_rm(contents, RepoId("org/on"))
    assert "cache ls" in str(told.value.hint)
    for arguments in ((ONE,), (ONE, "main"), (ONE, None, "x.bin"), (TWO,)):
        with pytest.raises(UsageError, match="is pinned") as told:
            plan_rm(contents, *arguments)
        assert "unpin" in str(told.value.hint)
    assert taken(plan_rm(contents, ONE, "b")) == [B]
    loose = cache(repo(revision(B, {"y": 1})))
    for revised in (None, B):
        with pytest.raises(EnvironmentFault, match="being pulled right now"):
            plan_rm(loose, ONE, revised, live={ONE: Writing(frozenset([B]))})
    with pytest.raises(EnvironmentFault):
        plan_rm(loose, ONE, live={ONE: Writing(frozenset([C]))})


def test_a_plan_is_plain_data():
    contents = cache(repo(revision(A, {"x": 1}, refs=()), more=(blob("y", 2),)), shared=(entry(X, 8, ()),))
    told = json.loads(json.dumps(plan_prune(contents, now=NOW).as_json()))
    assert told["freed"] == 11 and told["remaining"] == 0 and told["revisions"][0]["repo"] == "org/one"
    assert told["repositories"] == ["org/one"] and told["orphans"] == [{"repo": "org/one", "blob": "y", "frees": 2}]
