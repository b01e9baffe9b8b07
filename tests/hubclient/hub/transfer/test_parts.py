"""Unfinished downloads: what is there is known, dead ones are taken over by one, living ones are left alone."""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.cache.owner import Owner
from hubclient.errors import DamagedInput, EnvironmentFault, NotEnoughSpace
from hubclient.hub.transfer import parts
from hubclient.hub.transfer.parts import LEDGER, Found, Part, Span, open_part, parts_of
from hubclient.hub.transfer.ranges import Ranges, parse_content_range, segments

ETAG = "a" * 64
SIZE = 1_000_000
BYTES = os.urandom(SIZE)
DEAD = replace(Owner.this(), pid=2**22 + 1)  # more than Linux gives


@pytest.fixture
def blobs(cache: Path) -> Path:
    return cache / "models--org--name" / "blobs"


def opened(blobs: Path, size: int = SIZE) -> Part:
    return open_part(blobs, blobs.parent.parent, ETAG, size)


def filled(part: Part, *ranges: tuple[int, int]) -> Part:
    """Write these ranges, and note them."""
    with part.path.open("r+b") as file:
        for start, stop in ranges:
            file.seek(start)
            file.write(BYTES[start:stop])
            part.add(Span(start, stop, zlib.crc32(BYTES[start:stop])))
    return part


def disown(part: Part, owner: Owner) -> Found:
    """As if another process had written it."""
    _, *lines = part.ledger.read_bytes().split(b"\n")
    head = {"etag": part.etag, "size": part.size, **asdict(owner)}
    part.ledger.write_bytes(b"\n".join([json.dumps(head).encode(), *lines]))
    part.close()
    return next(found for found in parts_of(part.path.parent, part.etag, part.size) if found.ledger == part.ledger)


def there(part: Part) -> list[tuple[int, int]]:
    """The ranges that a part has, joined; their bytes are right."""
    data = part.path.read_bytes()
    assert len(data) == part.size
    holes = part.ranges.holes(0, part.size)
    ends = sorted({0, part.size, *(edge for hole in holes for edge in hole)})
    found = [pair for pair in pairwise(ends) if pair not in holes]
    assert all(data[start:stop] == BYTES[start:stop] for start, stop in found)
    assert all(part.intact(span) for span in part.spans)
    return found


def test_a_new_part_has_the_full_size_and_nothing_in_it(blobs: Path):
    part = opened(blobs)
    assert part.path.stat().st_size == SIZE and part.spans == []
    assert part.path.name.startswith(f"{ETAG}.") and part.path.name.endswith(".incomplete")
    assert {path.name for path in blobs.iterdir()} == {part.path.name, part.ledger.name}


def test_a_dead_processs_part_is_taken_over(blobs: Path):
    old = disown(filled(opened(blobs), (0, 1000), (5000, 9000)), DEAD)
    part = opened(blobs)
    assert there(part) == [(0, 1000), (5000, 9000)]
    assert not old.ledger.exists() and not old.data.exists()
    assert sorted(os.listdir(blobs)) == sorted([part.path.name, part.ledger.name])


def test_a_part_that_this_process_is_done_with_is_taken_over(blobs: Path):
    old = filled(opened(blobs), (0, 1000))
    old.close()
    assert there(opened(blobs)) == [(0, 1000)] and not old.path.exists()


@pytest.mark.parametrize(
    "owner", [Owner.this(), replace(Owner.this(), host="elsewhere"), replace(Owner.this(), space="another boot")]
)
def test_a_part_that_may_be_in_use_is_copied_and_left_alone(blobs: Path, owner: Owner):
    other = filled(opened(blobs), (0, 1000), (5000, 9000))
    if owner != Owner.this():
        disown(other, owner)
    before = other.ledger.read_bytes(), other.path.read_bytes()
    part = opened(blobs)
    assert there(part) == [(0, 1000), (5000, 9000)]
    assert (other.ledger.read_bytes(), other.path.read_bytes()) == before
    assert not part.path.samefile(other.path)


def test_what_nobody_has_written_to_for_a_day_or_since_the_machine_started_is_taken_over(blobs: Path):
    for owner, age in ((replace(Owner.this(), host="elsewhere"), 90_000), (replace(Owner.this(), space="another boot"), 0)):
        old = disown(filled(opened(blobs), (0, 1000)), owner)
        if not age:
            age = int(time.clock_gettime(time.CLOCK_BOOTTIME)) + 60
        for path in (old.ledger, old.data):
            os.utime(path, (time.time() - age, time.time() - age))
        part = opened(blobs)
        assert there(part) == [(0, 1000)] and not old.data.exists()
        part.remove()
        part.close()


def test_all_that_is_there_is_put_together(blobs: Path):
    disown(filled(opened(blobs), (0, 1000)), DEAD)
    disown(filled(open_part_alone(blobs), (500, 3000), (4000, 9000)), DEAD)
    filled(open_part_alone(blobs), (3000, 4000))
    part = opened(blobs)
    assert there(part) == [(500, 9000)]  # ranges are copied whole or not at all
    assert len(os.listdir(blobs)) == 4


def open_part_alone(blobs: Path) -> Part:
    """A new part that takes nothing from others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "parts_of", lambda *_: iter(()))
        return opened(blobs)


def test_parts_of_other_bytes_are_left_alone(blobs: Path):
    disown(filled(opened(blobs), (0, 1000)), DEAD)
    (blobs / f"{ETAG}.incomplete").write_bytes(b"huggingface_hub's")
    (blobs / f"{ETAG}.12345678.incomplete").write_bytes(b"huggingface_hub's")
    part = opened(blobs, SIZE + 1)
    assert part.spans == [] and len(os.listdir(blobs)) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: data.replace(b'"size": 1000000', b'"size": "x"'),
        lambda data: data.replace(ETAG.encode(), b"b" * 64),
        lambda data: b"[" * 100_000 + data,
    ],
)
def test_a_ledger_that_cannot_be_read_is_left_alone(blobs: Path, damage):
    old = disown(filled(opened(blobs), (0, 1000)), DEAD)
    old.ledger.write_bytes(damage(old.ledger.read_bytes()))
    assert opened(blobs).spans == [] and old.data.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"0 1000",
        b"1000 500 00000000\n",
        b"0 2000000 00000000\n",
        b"-1 5 00000000\n",
        b"x\n",
        b"0 1000 zzzzzzzz\n",
        b"2000 3000 0000",
    ],
)
def test_lines_that_are_torn_or_cannot_be_do_not_count(blobs: Path, line: bytes):
    old = disown(filled(opened(blobs), (5000, 9000)), DEAD)
    with old.ledger.open("ab") as file:
        file.write(line)
    assert there(opened(blobs)) == [(5000, 9000)]


def test_a_range_beyond_the_file_does_not_count(blobs: Path):
    old = disown(filled(opened(blobs), (0, 1000), (5000, 9000)), DEAD)
    os.truncate(old.data, 7000)
    assert opened(blobs).spans[0][:2] == (0, 1000)


@pytest.mark.parametrize("kind", ["sym", "hard"])
def test_a_link_in_the_place_of_the_bytes_is_not_written_through(blobs: Path, tmp_path: Path, kind: str):
    old = disown(filled(opened(blobs), (0, 1000)), DEAD)
    (tmp_path / "mine").write_bytes(BYTES)
    old.data.unlink()
    getattr(old.data, f"{kind}link_to")(tmp_path / "mine")
    part = opened(blobs)
    with part.path.open("r+b") as file:
        file.write(b"else")
    assert not part.path.is_symlink() and (tmp_path / "mine").read_bytes() == BYTES


def test_a_link_in_the_place_of_the_folder_is_refused(blobs: Path, tmp_path: Path):
    blobs.parent.mkdir(parents=True)
    blobs.symlink_to(tmp_path)
    with pytest.raises(DamagedInput, match="blobs"):
        opened(blobs)


def test_bytes_that_were_lost_are_found(blobs: Path):
    part = filled(opened(blobs), (0, 1000), (1000, 2000))
    with part.path.open("r+b") as file:
        file.seek(1500)
        file.write(b"\0" * 10)
    assert [part.intact(span) for span in part.spans] == [True, False]
    part.start_over(part.spans[:1])
    part.close()
    assert there(opened(blobs)) == [(0, 1000)]


def test_of_many_that_take_over_at_once_one_gets_the_file_and_nobody_a_shared_one(blobs: Path):
    disown(filled(opened(blobs), (0, 500_000)), DEAD)
    got: list[Part] = []
    threads = [threading.Thread(target=lambda: got.append(opened(blobs))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({part.path.stat().st_ino for part in got}) == 8
    assert sum(there(part) == [(0, 500_000)] for part in got) >= 1
    assert all(there(part) in ([(0, 500_000)], []) for part in got)


def test_what_does_not_fit_is_refused_with_numbers_and_leaves_nothing(blobs: Path):
    with pytest.raises(NotEnoughSpace, match=r"4,611,686,018,427,387,904 bytes are needed, .* are free"):
        opened(blobs, 1 << 62)
    assert os.listdir(blobs) == []


@pytest.mark.skipif(os.name != "posix" or not os.getuid(), reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_told(blobs: Path):
    blobs.mkdir(parents=True)
    blobs.chmod(0o555)
    with pytest.raises(EnvironmentFault, match="blobs"):
        opened(blobs)


def test_without_copying_in_the_kernel_ranges_are_copied_all_the_same(blobs: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise OSError(18, "not across file systems")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    filled(opened(blobs), (0, 1000), (5000, 900_000))
    assert there(opened(blobs)) == [(0, 1000), (5000, 900_000)]


def test_the_ledger_belongs_to_its_bytes():
    part = Part(Path("/x") / f"{ETAG}.0123abcd.incomplete", ETAG, 1)
    assert part.ledger.name == f"{ETAG}.0123abcd{LEDGER}"
    assert Found(part.ledger, Owner.this(), ()).data == part.path
    part.close()


# Ranges


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple)), st.integers(0, 60), st.integers(0, 60))
def test_ranges_are_sets_of_bytes(ranges, start: int, stop: int):
    have, bytes_ = Ranges(ranges), {byte for a, b in ranges for byte in range(a, b)}
    assert have.total == len(bytes_)
    holes = have.holes(start, stop)
    assert [byte for a, b in holes for byte in range(a, b)] == [byte for byte in range(start, stop) if byte not in bytes_]
    assert all(a < b for a, b in holes) and have.prefix == next(n for n in range(62) if n not in bytes_)


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 30))
def test_segments_cover_the_holes_in_order(lengths: list[int], length: int):
    holes = [(100 * number, 100 * number + count) for number, count in enumerate(lengths)]
    cut = segments(holes, length)
    assert [byte for a, b in cut for byte in range(a, b)] == [byte for a, b in holes for byte in range(a, b)]
    assert all(0 < b - a <= length + length // 4 for a, b in cut)


@pytest.mark.parametrize(
    ("text", "range_"),
    [
        ("bytes 0-9/100", (0, 10, 100)),
        (" Bytes 5-5/* ", (5, 6, None)),
        ("bytes */100", None),
        ("bytes 0-9", None),
        ("items 0-9/100", None),
        ("bytes 0-9/1" + "0" * 30, None),
        ("bytes ٠-٩/١", None),
        ("", None),
    ],
)
def test_content_ranges(text: str, range_: tuple[int, int, int | None] | None):
    assert parse_content_range(text) == range_


def test_a_ledger_of_many_ranges_takes_no_longer_than_it_must(blobs: Path):
    count = 70_000
    part = opened(blobs, 4 * count)
    lines = [b"%d %d %08x" % (4 * number, 4 * number + 2, zlib.crc32(bytes(2))) for number in range(count)]
    part.ledger.write_bytes(b"\n".join([part.ledger.read_bytes().rstrip(), *reversed(lines), b""]))
    part.close()
    (found,) = parts_of(blobs, ETAG, 4 * count)
    assert len(found.spans) == 1 << 16
    assert Ranges(span[:2] for span in found.spans).total == 2 << 16


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_ranges_that_overlap_are_there_once(pairs: list[tuple[int, int]]):
    ranges = Ranges(pairs)
    covered = {place for start, stop in pairs for place in range(start, stop)}
    holes = {place for start, stop in ranges.holes(0, 30) for place in range(start, stop)}
    assert ranges.total == len(covered) and holes == set(range(30)) - covered
