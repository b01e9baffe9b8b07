"""Transfers side by side: order, counts, and who stops whom."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest
from hubserver import HubServer

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.trees import TreeEntry
from hubclient.hub.client import Hub
from hubclient.hub.net.connections import Stopped
from hubclient.hub.net.patience import Patience
from hubclient.hub.net.session import Session
from hubclient.hub.pull import carry_out
from hubclient.hub.pullplan import plan_pull
from hubclient.hub.transfer.crew import run_all
from hubclient.hub.transfer.transfers import Tally, Transfers, in_order


def failing(fault: Exception) -> None:
    raise fault


def test_the_largest_begins_and_small_ones_come_before_other_large_ones():
    sizes = {"a": 5 << 20, "b": 10, "c": 1 << 30, "d": 2000, "e": 9 << 20}
    assert in_order({name: TreeEntry(size, name) for name, size in sizes.items()}) == ["c", "b", "d", "e", "a"]
    assert in_order({}) == []


def test_what_was_here_after_all_is_not_counted_as_to_come():
    told: list[tuple[int, int]] = []
    tally = Tally(100, 20, lambda *counts: told.append(counts))
    tally(20, fetched=False)  # what a stopped run had left, as was known
    tally(30, fetched=True)
    tally(40, fetched=False)  # a copy in another repository
    tally(10, fetched=True)
    assert told == [(0, 80), (30, 80), (30, 40), (40, 40)]


def test_bytes_that_come_twice_never_make_more_than_all():
    told: list[tuple[int, int]] = []
    tally = Tally(10, 0, lambda *counts: told.append(counts))
    for count in (10, -10, 10):
        tally(count, fetched=True)
    tally(-10, fetched=False)
    tally(10, fetched=True)
    assert told[-1] == (20, 20) and all(done <= total for done, total in told)


def test_all_jobs_are_done_by_at_most_so_many_threads():
    done: list[int] = []
    threads: set[str] = set()

    def work(number: int) -> None:
        threads.add(str(threading.get_ident()))
        done.append(number)
        time.sleep(0.001)

    assert run_all([partial(work, number) for number in range(50)], 3, lambda: None, lambda _: False) == []
    assert sorted(done) == list(range(50)) and len(threads) <= 3
    assert run_all([], 3, lambda: None, lambda _: False) == []


def test_a_fault_that_concerns_one_job_lets_the_others_go_on():
    done: list[int] = []
    jobs = [partial(failing, ValueError("first")), *(partial(done.append, number) for number in range(10))]
    (fault,) = run_all(jobs, 2, lambda: None, lambda fault: isinstance(fault, ValueError))
    assert str(fault) == "first" and len(done) == 10


def test_any_other_fault_stops_them():
    stopped = threading.Event()
    begun: list[int] = []

    def wait(number: int) -> None:
        begun.append(number)
        stopped.wait(60)

    jobs = [partial(wait, 0), partial(failing, OSError("over")), *(partial(wait, number) for number in range(1, 20))]
    with pytest.raises(OSError, match="over"):
        run_all(jobs, 2, stopped.set, lambda fault: isinstance(fault, ValueError))
    assert stopped.is_set() and len(begun) <= 3


def test_one_that_does_not_stop_is_not_waited_for():
    begun = time.monotonic()
    with pytest.raises(OSError, match="over"):
        run_all([partial(time.sleep, 30), partial(failing, OSError("over"))], 2, lambda: None, lambda _: False)
    assert time.monotonic() - begun < 15


def test_nothing_is_shown_after_a_stop(server: HubServer, hub: Hub, cache: Path):
    repo = server.repo("org/name")
    repo.commit({"a.txt": b"1"})
    hub.pull("org/name")
    commit = repo.commit({"b.txt": b"1"})
    transfers = Transfers(hub.session, plan_pull(hub.session, cache, RepoId("org/name"), "main"), 1, None, None)
    transfers._connections.stop()
    with pytest.raises(Stopped):
        transfers.show_what_is_here()
    assert not RepoPaths(cache, RepoId("org/name")).pointer(commit, "b.txt").exists()


def test_a_wait_that_the_hub_asks_for_is_told(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/name").commit({"a.txt": b"1"})
    for path in ("/api/", "/resolve/"):
        server.fault("status", path=path, status=429, headers={"Retry-After": "300"}, times=1)
    told: list[str] = []
    monkeypatch.setattr("hubclient.hub.net.patience.random.uniform", lambda *_: 0.0)
    session = Session.of(server.endpoint, False, patience=Patience(tries=2))
    carry_out(session, plan_pull(session, cache, RepoId("org/name"), stage=told.append), stage=told.append)
    assert told.count("the Hub asks to wait 300 s") == 2
