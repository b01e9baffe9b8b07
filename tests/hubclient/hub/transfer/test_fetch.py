"""Files come whole and checked or not at all, whatever the server does; nothing that is here is fetched again."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hubserver import HubServer

from hubclient.cache.digests import Digest
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.trees import TreeEntry
from hubclient.disk import writing
from hubclient.errors import AccessDenied, DamagedInput, EnvironmentFault, NetworkFault, NotEnoughSpace, Offline, SourceMissing
from hubclient.hub.net.connections import Connections, Stopped
from hubclient.hub.net.failures import Passing
from hubclient.hub.net.patience import Patience
from hubclient.hub.net.session import Session
from hubclient.hub.transfer import fetch as transfer
from hubclient.hub.transfer import large
from hubclient.hub.transfer.fetch import Fetched, fetch
from hubclient.hub.transfer.parts import LEDGER, Part, open_part
from hubclient.hub.transfer.stream import RangesIgnored, Target, streaming

ROOT = Path(__file__).resolve().parents[3]
HASTE = Patience(first=0.001, longest=0.002)
REPO = RepoId("org/name")
LARGE = os.urandom(9_000_001)
SMALL = os.urandom(10_001)


class Told:
    """Progress, added up."""

    def __init__(self) -> None:
        self.fetched = self.here = 0

    def __call__(self, count: int, /, *, fetched: bool) -> None:
        if fetched:
            self.fetched += count
        else:
            self.here += count


@pytest.fixture
def paths(cache: Path) -> RepoPaths:
    return RepoPaths(cache, REPO)


@pytest.fixture
def session(server: HubServer, cache: Path) -> Session:
    return Session.of(server.endpoint, False, patience=HASTE)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are cut and noted as if they were a thousand times as large."""
    monkeypatch.setattr(large, "STEP", 1 << 18)
    monkeypatch.setattr(large, "_PARALLEL", 1 << 20)
    monkeypatch.setattr(large, "_SEGMENT", (1 << 20, 1 << 20))
    monkeypatch.setattr(large, "_TRIAL", 0.0)
    monkeypatch.setattr(large, "_FAST", math.inf)


class Getting:
    """Fetches one file of one commit."""

    def __init__(self, server: HubServer, session: Session, paths: RepoPaths, content: bytes, *, lfs: bool = True) -> None:
        self.server, self.session, self.paths, self.content = server, session, paths, content
        self.commit = server.repo("org/name").commit({"a/file.bin": content}, lfs=lambda _name, _size: lfs)
        self.entry = server.repo("org/name").entries()["a/file.bin"]
        self.told = Told()

    def __call__(self, **options: object) -> Fetched:
        return fetch(self.session, self.paths, self.commit, "a/file.bin", self.entry, progress=self.told, **options)  # type: ignore[arg-type]

    def complete(self, **options: object) -> Fetched:
        """Fetch, and look at what came."""
        done = self(**options)
        assert done.path == self.paths.blob(self.entry.etag)
        assert done.path.read_bytes() == self.content
        assert done.path.stat().st_mode & 0o222 == 0
        assert self.left == [] and self.told.fetched + self.told.here == len(self.content)
        return done

    @property
    def left(self) -> list[str]:
        """Files beside the blob."""
        return [path.name for path in self.paths.blobs.glob("*") if path.name != self.entry.etag]

    def refused(self, *words: str, kind: type[Exception] = NetworkFault) -> Exception:
        """Fetching fails in one sentence that holds these words; no blob appears."""
        with pytest.raises(kind) as caught:
            self()
        told = str(caught.value)
        assert all(word in told for word in words), told
        assert "\n" not in told and len(told) < 400
        assert not self.paths.blob(self.entry.etag).exists()
        return caught.value

    def sent(self) -> int:
        """Bytes of files that the server has sent."""
        return sum(request.sent_bytes for request in self.server.requests if request.status in (200, 206))


@pytest.fixture(params=["small", "large", "git", "in pieces"])
def getting(request: pytest.FixtureRequest, server: HubServer, session: Session, paths: RepoPaths) -> Getting:
    if request.param == "in pieces":
        request.getfixturevalue("pieces")
    small = request.param in ("small", "git")
    return Getting(server, session, paths, SMALL if small else LARGE, lfs=request.param != "git")


@pytest.fixture
def big(server: HubServer, session: Session, paths: RepoPaths, pieces: None) -> Getting:
    return Getting(server, session, paths, LARGE)


def test_a_file_comes_whole_and_once(getting: Getting):
    done = getting.complete()
    assert (done.how, done.received) == ("fetched", len(getting.content))
    assert getting.sent() == len(getting.content)
    assert not [request for request in getting.server.requests if request.method != "GET"]
    again = getting()
    assert (again.how, again.received) == ("present", 0) and getting.sent() == len(getting.content)


def test_an_empty_file_takes_no_request(server: HubServer, session: Session, paths: RepoPaths):
    Getting(server, session, paths, b"", lfs=False).complete()
    assert not server.requests


def test_an_empty_file_that_is_said_to_have_a_digest_is_refused(server: HubServer, session: Session, paths: RepoPaths):
    getting = Getting(server, session, paths, b"", lfs=False)
    getting.entry = TreeEntry(0, "1" * 40)
    getting.refused("a/file.bin", "1" * 40, kind=DamagedInput)


def test_a_blob_of_another_size_is_replaced(getting: Getting):
    blob = getting.paths.blob(getting.entry.etag)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(getting.content[:-1])
    getting.complete()


def test_a_bad_blob_of_the_right_size_is_fetched_on_request(getting: Getting):
    blob = getting.paths.blob(getting.entry.etag)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(len(getting.content)))
    assert getting().how == "present"
    getting.told = Told()
    assert getting.complete(again=True).how == "fetched"


def test_a_planted_link_in_the_blobs_place_is_replaced_and_its_target_stays(getting: Getting, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(len(getting.content)))
    blob = getting.paths.blob(getting.entry.etag)
    blob.parent.mkdir(parents=True)
    blob.symlink_to(elsewhere)
    getting.complete()
    assert not blob.is_symlink() and elsewhere.read_bytes() == bytes(len(getting.content))


def test_a_planted_link_in_the_folders_place_is_refused(getting: Getting, tmp_path: Path):
    getting.paths.path.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    getting.paths.blobs.symlink_to(tmp_path / "elsewhere")
    getting.refused("blobs", kind=DamagedInput)
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("how", ["", "reset"])
@pytest.mark.parametrize("after", [None, 0, 1, 5000])
def test_a_connection_that_breaks_is_taken_up_again(getting: Getting, how: str, after: int | None):
    getting.server.fault("truncate", path="*file.bin*", after=after, value=how, times=3)
    getting.complete()


def test_what_came_before_a_break_is_not_fetched_again(big: Getting):
    big.server.fault("truncate", origin="cdn", after=700_000, nth=2)
    big.complete()
    assert big.sent() < len(LARGE) + (1 << 18) + (1 << 20)  # what was on its way when the connection closed


def test_breaks_that_bring_something_each_time_never_end_a_download(big: Getting):
    big.server.fault("truncate", origin="cdn", after=300_000, value="close")
    big.complete()


def test_a_connection_that_always_breaks_is_refused(getting: Getting):
    getting.server.fault("truncate", path="*file.bin*", after=0)
    fault = getting.refused("127.0.0.1", "tried 5 times")
    assert fault.__class__.__name__ == "Passing"


@pytest.mark.parametrize("by", [-1, 1, 5000])
def test_a_wrong_length_is_refused(getting: Getting, by: int):
    getting.server.fault("length", path="*file.bin*", by=by)
    getting.refused("a/file.bin")


def test_a_wrong_length_once_is_forgiven(getting: Getting):
    getting.server.fault("length", path="*file.bin*", by=1, times=1)
    getting.complete()


def test_a_wrong_bit_once_is_mended(getting: Getting):
    getting.server.fault("flip", path="*file.bin*", after=5000, times=1, origin="cdn")
    getting.server.fault("flip", path="*file.bin*", after=5000, times=1, origin="hub")
    getting.complete()


def test_a_wrong_bit_always_is_refused_with_both_digests(getting: Getting):
    getting.server.fault("flip", path="*file.bin*", after=5000)
    wrong = bytearray(getting.content)
    wrong[5000] ^= 1
    hasher = getting.entry.digest.hasher(len(wrong))
    hasher.update(wrong)
    getting.refused("a/file.bin", getting.entry.digest.hex, hasher.hexdigest(), kind=DamagedInput)
    assert getting.left == []


def test_a_file_that_changes_on_the_way_is_never_accepted(big: Getting):
    big.server.fault("change", origin="cdn", after=4_000_000)
    big.refused(big.entry.digest.hex, kind=DamagedInput)


def test_a_file_that_changes_between_two_breaks_is_fetched_anew(big: Getting):
    big.server.fault("change", origin="cdn", after=0, times=3)
    big.complete()


def test_a_wrong_etag_is_refused(getting: Getting):
    getting.server.fault("etag", path="*file.bin*", value="0" * 64)
    getting.refused("0" * 64, getting.entry.etag)


def test_an_etag_of_a_mirrors_own_making_says_nothing(getting: Getting):
    getting.server.fault("etag", path="*file.bin*", value="mirror-17")
    getting.complete()


@pytest.mark.parametrize("headers", [{"X-Repo-Commit": "0" * 40}, {"X-Linked-Size": "7"}])
def test_another_commit_or_size_is_refused(getting: Getting, headers: dict[str, str]):
    getting.server.fault("headers", path="*file.bin*", headers=headers)
    getting.refused("a/file.bin", next(iter(headers.values())))


def test_fewer_headers_are_no_fault(getting: Getting):
    gone = dict.fromkeys(("X-Repo-Commit", "X-Linked-Size", "X-Linked-Etag", "ETag"))
    getting.server.fault("headers", path="*file.bin*", headers=gone)
    getting.complete()


def test_a_server_without_ranges_sends_the_whole(big: Getting):
    big.server.fault("ignore_range", path="*file.bin*")
    assert big.complete().received == len(LARGE)


def test_a_server_without_ranges_that_breaks_sends_the_whole_again(big: Getting):
    big.server.fault("truncate", origin="cdn", after=5_000_000, nth=5)
    big.server.fault("ignore_range", path="*file.bin*")
    big.complete()


def test_a_server_without_ranges_that_always_breaks_is_refused(big: Getting, monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def halved(_session: Session, target: Target, part: tuple[int, int]) -> Iterator[Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            yield LARGE[: part[1] // 2]
            raise Passing("broken")

        if part != (0, target.entry.size):
            raise RangesIgnored
        yield pieces()

    monkeypatch.setattr(large, "streaming", halved)
    big.refused("a/file.bin", "as a whole only")


@pytest.mark.parametrize("value", ["", "hidden"])
def test_another_range_than_was_asked_for_never_gets_in(big: Getting, value: str):
    big.server.fault("other_range", path="*file.bin*", origin="cdn", by=100, value=value, nth=2 if value else None)
    if value:
        big.complete()  # seen by the digest alone; the second time the file is taken as a whole
    else:
        big.refused("another range")


def test_a_range_in_several_parts_is_refused(big: Getting):
    big.server.fault("multipart", path="*file.bin*")
    big.refused("another range")


@pytest.mark.parametrize("size", [10_001, 3_000_000])
def test_packed_bytes_are_unpacked(server: HubServer, session: Session, paths: RepoPaths, size: int):
    server.fault("gzip", path="*file.bin*", origin="cdn")
    Getting(server, session, paths, os.urandom(10_001) + bytes(size - 10_001)).complete()


def test_a_packed_range_is_refused(big: Getting):
    big.server.fault("gzip", origin="cdn")
    big.refused("a/file.bin", "packed")


def test_packed_bytes_that_unpack_without_an_end_are_refused(server: HubServer, session: Session, paths: RepoPaths):
    getting = Getting(server, session, paths, bytes(50_000_000))
    getting.entry = TreeEntry(1_000_000, getting.entry.blob_id, getting.entry.lfs_sha256)
    server.fault("gzip", path="*/storage/*")
    server.fault("headers", origin="hub", headers={"X-Linked-Size": None})
    getting.refused("more than the 1,000,000 bytes")


def test_silence_is_waited_for_and_then_taken_up(getting: Getting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    getting.server.fault(
        "stall", path="*file.bin*", after=3000, seconds=3, times=1, origin="cdn" if getting.entry.lfs_sha256 else "hub"
    )
    getting.complete()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(getting: Getting, status: int):
    getting.server.fault("status", path="*file.bin*", status=status, headers={"Retry-After": "0"}, times=2)
    getting.complete()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, NetworkFault, ["400"]),
        (401, AccessDenied, ["looks the same without a token"]),
        (403, AccessDenied, ["no token"]),
        (404, SourceMissing, ["no file 'a/file.bin'"]),
        (416, NetworkFault, ["416"]),
        (418, NetworkFault, ["418"]),
        (429, NetworkFault, ["limits", "tried 5 times"]),
        (500, NetworkFault, ["500", "tried 5 times"]),
        (503, NetworkFault, ["503", "tried 5 times"]),
    ],
)
def test_refusals_are_one_sentence(getting: Getting, status: int, kind: type[Exception], words: list[str]):
    getting.server.fault("status", path="*file.bin*", origin="hub", status=status)
    getting.refused(*words, kind=kind)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_to_storage_that_has_expired_is_asked_for_anew(big: Getting, status: int):
    big.server.fault("status", origin="cdn", status=status, times=2)
    big.complete()


def test_nothing_is_fetched_twice_after_a_run_that_failed(big: Getting):
    big.server.fault("status", origin="cdn", status=500, nth=6)
    big.session.patience = Patience(tries=1)
    with pytest.raises(NetworkFault):
        big()
    before, kept = big.sent(), len(big.left)
    assert kept == 2
    big.server.clear()
    big.told = Told()
    big.complete()
    assert big.told.here > 0 and big.sent() == big.told.fetched < len(LARGE)
    assert before


def test_bad_bytes_of_an_earlier_run_are_found_and_only_they_are_fetched(big: Getting):
    big.server.fault("status", origin="cdn", status=500, nth=8)
    big.session.patience = Patience(tries=1)
    with pytest.raises(NetworkFault):
        big(connections=Connections(1))
    (data,) = [big.paths.blobs / name for name in big.left if "ledger" not in name]
    with data.open("r+b") as file:
        file.write(b"0" * 100)
    big.server.clear()
    big.told = Told()
    big.complete()
    assert big.told.here > 7 * (1 << 20) - 2 * (1 << 18) and big.sent() == big.told.fetched < len(LARGE) - big.told.here + 1


def test_offline_nothing_is_asked(getting: Getting):
    getting.session = Session.of(getting.server.endpoint, False, offline=True)
    fault = getting.refused("a/file.bin", kind=Offline)
    assert isinstance(fault, Offline) and fault.missing == ("a/file.bin",)
    assert not getting.server.requests


def test_offline_what_is_here_is_taken(getting: Getting):
    getting.complete()
    getting.session = Session.of(getting.server.endpoint, False, offline=True)
    assert getting().how == "present"


@pytest.mark.parametrize(("mode", "how"), [(0o444, "linked"), (0o644, "copied")])
def test_another_repositorys_bytes_are_taken(big: Getting, mode: int, how: str):
    other = RepoPaths(big.paths.cache, RepoId("other/one", "dataset")).blob(big.entry.etag)
    other.parent.mkdir(parents=True)
    other.write_bytes(LARGE)
    other.chmod(mode)
    done = big.complete()
    assert (done.how, big.sent()) == (how, 0)
    assert done.path.samefile(other) == (how == "linked") and other.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("disabled", [False, True])
def test_the_shared_stores_bytes_are_linked_to(big: Getting, monkeypatch: pytest.MonkeyPatch, disabled: bool):
    if disabled:
        monkeypatch.setenv("HF_HUB_DISABLE_SHARED_BLOBS", "1")
    xet, store = "ab" * 32, big.paths.cache / "blobs"
    (store / "ab").mkdir(parents=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    (store / "ab" / xet).write_bytes(LARGE)
    (store / "ab" / xet).chmod(0o444)
    (store / "ab" / f"{xet}.refs").touch()
    big.entry = replace(big.entry, xet_hash=xet)
    assert big.complete().how == ("fetched" if disabled else "linked")
    assert big.paths.blob(big.entry.etag).is_symlink() != disabled
    assert big().how == "present"


def test_another_repositorys_bad_bytes_are_not(big: Getting):
    other = RepoPaths(big.paths.cache, RepoId("other/one")).blob(big.entry.etag)
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(len(LARGE)))
    other.chmod(0o444)
    assert big.complete().how == "fetched"


def test_a_full_disk_is_noticed_before_the_first_byte(big: Getting, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    big.refused("9,000,001", "1,000,000", kind=NotEnoughSpace)
    assert not big.server.requests and big.left == []


def test_a_disk_that_fills_up_keeps_what_came(big: Getting, monkeypatch: pytest.MonkeyPatch):
    written = large._Writer.write

    def full(self: large._Writer, piece: bytes) -> None:
        if self.place > 5_000_000:
            with writing(self._part.path):
                raise OSError(28, "No space left on device")
        written(self, piece)

    monkeypatch.setattr(large._Writer, "write", full)
    big.refused("the disk is full", kind=NotEnoughSpace)
    monkeypatch.undo()
    big.told = Told()
    big.complete()
    assert big.told.here > 1 << 20


def test_two_at_once_both_get_it_and_one_fetches(big: Getting):
    results: list[Fetched] = []
    threads = [threading.Thread(target=lambda: results.append(big())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done.how for done in results) == ["fetched", "present"] and big.sent() == len(LARGE)


@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_at_once_both_succeed(big: Getting, locks: bool):
    arguments = [
        big.server.endpoint,
        str(big.paths.cache),
        big.commit,
        str(big.entry.size),
        big.entry.blob_id,
        str(big.entry.lfs_sha256),
    ]
    code = CHILD if locks else f"import fcntl\nfcntl.flock = lambda *_: None\n{CHILD}"
    running = [subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert big.paths.blob(big.entry.etag).read_bytes() == LARGE and big.left == []
    assert not locks or big.sent() == len(LARGE)


def test_without_locks_all_threads_are_right(big: Getting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    results: list[Fetched] = []
    threads = [threading.Thread(target=lambda: results.append(big())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and big.left == [] and results[0].path.read_bytes() == LARGE


def test_a_stopped_download_ends_soon_and_keeps_what_came(big: Getting):
    connections = Connections(2)
    big.server.fault("stall", origin="cdn", after=0, seconds=0.2, nth=4)

    def stop(count: int, /, *, fetched: bool) -> None:
        connections.stop()

    with pytest.raises(Stopped):
        fetch(big.session, big.paths, big.commit, "a/file.bin", big.entry, connections=connections, progress=stop)
    big.complete()


def test_all_files_together_use_no_more_connections_than_given(
    server: HubServer, session: Session, paths: RepoPaths, pieces: None
):
    commit = server.repo("org/name").commit({f"{n}.bin": os.urandom(3_000_000) for n in range(4)})
    entries, connections = server.repo("org/name").entries(), Connections(3)
    active = most = 0
    lock = threading.Lock()

    @contextmanager
    def counted(*arguments):
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        try:
            with streaming(*arguments) as pieces:
                yield pieces
        finally:
            with lock:
                active -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "streaming", counted)
        threads = [
            threading.Thread(target=fetch, args=(session, paths, commit, name, entry), kwargs={"connections": connections})
            for name, entry in entries.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 < most <= 3
    assert all(Digest.of_name(entry.etag) and paths.blob(entry.etag).exists() for entry in entries.values())


CHILD = """
import sys
from pathlib import Path
from typing import Any
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.trees import TreeEntry
from hubclient.hub.transfer import large
from hubclient.hub.transfer import fetch as transfer
from hubclient.hub.net.session import Session
from hubclient.hub.transfer.fetch import fetch
large.STEP, large._PARALLEL, large._SEGMENT, large._TRIAL, large._FAST = 1 << 18, 1 << 20, (1 << 20, 1 << 20), 0, 1e99
endpoint, cache, commit, size, blob, sha256 = sys.argv[1:]
fetch(Session.of(endpoint, False), RepoPaths(Path(cache), RepoId("org/name")), commit, "a/file.bin", TreeEntry(int(size), blob, sha256))
"""


@pytest.fixture
def child(big: Getting) -> Callable[..., int]:
    """Fetch in a process of its own, killed at a point."""

    def run(point: str = "") -> int:
        entry = big.entry
        arguments = [big.server.endpoint, str(big.paths.cache), big.commit, str(entry.size), entry.blob_id, str(entry.lfs_sha256)]
        return subprocess.run(
            [sys.executable, "-c", CHILD, *arguments], cwd=ROOT, env={**os.environ, "HUBCLIENT_FAULTPOINT": point}, check=False
        ).returncode

    return run


@pytest.mark.parametrize(
    "point",
    ["pull.part-created", "pull.range-written:1", "pull.range-written:9", "pull.ledger-written:9", "pull.hashed", "pull.placed"],
)
def test_a_killed_download_goes_on_where_it_was(big: Getting, child: Callable[..., int], point: str):
    assert child(point) == -9
    assert big.paths.blob(big.entry.etag).exists() == (point == "pull.placed")
    assert child() == 0
    assert big.paths.blob(big.entry.etag).read_bytes() == LARGE
    lost = 4 * ((1 << 18) + (1 << 20))  # of each connection what the ledger was not told, and what was on its way
    assert big.sent() <= len(LARGE) + lost
    if point != "pull.placed":
        assert big.left == []


def test_a_process_killed_while_it_takes_over_leaves_all_to_the_next(big: Getting, child: Callable[..., int]):
    assert child("pull.ledger-written:20") == -9
    assert child("pull.part-adopted") == -9
    assert child() == 0
    assert big.paths.blob(big.entry.etag).read_bytes() == LARGE and big.left == []
    assert big.sent() <= len(LARGE) + 4 * ((1 << 18) + (1 << 20))


def test_a_process_killed_while_it_takes_another_repositorys_bytes(big: Getting, child: Callable[..., int]):
    other = RepoPaths(big.paths.cache, RepoId("other/one")).blob(big.entry.etag)
    other.parent.mkdir(parents=True)
    other.write_bytes(LARGE)
    assert child("pull.taken") == -9
    assert child() == 0 and big.sent() == 0


def test_the_digest_is_that_of_the_bytes(getting: Getting):
    if getting.entry.lfs_sha256:
        assert hashlib.sha256(getting().path.read_bytes()).hexdigest() == getting.entry.etag


def test_what_was_stopped_places_nothing(getting: Getting, monkeypatch: pytest.MonkeyPatch):
    connections = Connections()
    taken = transfer._taken

    def late(session: Session, target: Target) -> bytes:
        data = taken(session, target)
        connections.stop()
        return data

    monkeypatch.setattr(transfer, "_taken", late)
    monkeypatch.setattr(large, "reach", lambda point: connections.stop() if point == "pull.hashed" else None)
    with pytest.raises(Stopped):
        getting(connections=connections)
    assert not getting.paths.blob(getting.entry.etag).exists()


@pytest.mark.parametrize("failing", ["write", "place"])
def test_a_small_file_that_cannot_be_stored_leaves_nothing(
    server: HubServer, session: Session, paths: RepoPaths, monkeypatch: pytest.MonkeyPatch, failing: str
):
    small = Getting(server, session, paths, SMALL)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise NotEnoughSpace("full")

    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(transfer, "place_blob", refuse)
    small.refused(kind=NotEnoughSpace)
    assert small.left == []


def test_a_part_that_others_remove_is_told(big: Getting, monkeypatch: pytest.MonkeyPatch):
    opened = open_part

    def removed(*arguments: Any) -> Part:
        part = opened(*arguments)
        part.remove()
        return part

    monkeypatch.setattr(large, "open_part", removed)
    big.refused("cannot be written", kind=EnvironmentFault)


def test_a_server_that_drips_comes_to_an_end(big: Getting):
    big.server.fault("truncate", origin="cdn", after=1, value="close")
    big.refused("tried 5 times")
    (ledger,) = big.paths.blobs.glob(f"*{LEDGER}")
    assert len(ledger.read_bytes().splitlines()) <= 1 + 4  # what it is, and a line for what each connection brought
