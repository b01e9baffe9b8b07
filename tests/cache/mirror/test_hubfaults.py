"""The switchboard does what its rules say, on the wire."""

from __future__ import annotations

import gzip
import http.client
import json
import time

import pytest
from hubfaults import HOSTILE_NAMES, Fault
from hubserver import HubServer

DATA = bytes(range(256)) * 16384  # 4 MiB, several pieces
PATH = "/org/name/resolve/main/model.safetensors"
TREE = "/api/models/org/name/tree/main"


@pytest.fixture
def hub():
    with HubServer(cdn=False) as running:
        running.repo("org/name").commit({"model.safetensors": DATA, "a.txt": "text"})
        yield running


@pytest.mark.parametrize("after", [0, 1, 1 << 20, 3_000_000])
def test_a_body_is_cut_short(hub, ask, after):
    hub.fault("truncate", path="*/resolve/*", after=after, times=1)
    got = ask(hub.endpoint, PATH)
    assert (got.status, got.whole, got.body) == (200, False, DATA[:after])
    assert ask(hub.endpoint, PATH).body == DATA
    assert [(request.fault, request.sent_bytes) for request in hub.requests] == [("truncate", after), (None, len(DATA))]


def test_a_connection_is_dropped_before_any_header(hub, ask):
    hub.fault("truncate", value="reset", times=1)
    with pytest.raises(ConnectionResetError):
        ask(hub.endpoint, PATH)
    hub.fault("truncate", times=1)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub.endpoint, PATH)


def test_a_connection_is_reset_in_the_middle(hub, ask):
    hub.fault("truncate", after=2_000_000, value="reset")
    try:
        got = ask(hub.endpoint, PATH)
    except ConnectionResetError:
        return  # what had come before went with it
    assert not got.whole and DATA.startswith(got.body)


def test_lengths_lie_both_ways(hub, ask):
    hub.fault("length", by=10, method="GET", times=1)
    hub.fault("length", by=-10, method="GET", times=1)
    hub.fault("length", by=7, method="HEAD")
    more, less, head = ask(hub.endpoint, PATH), ask(hub.endpoint, PATH), ask(hub.endpoint, PATH, "HEAD")
    assert (more.headers["Content-Length"], more.whole, more.body) == (str(len(DATA) + 10), False, DATA)
    assert (less.headers["Content-Length"], less.whole, less.body) == (str(len(DATA) - 10), True, DATA[:-10])
    assert head.headers["Content-Length"] == head.headers["X-Linked-Size"] == str(len(DATA) + 7)


@pytest.mark.parametrize("at", [0, (1 << 20) - 1, 1 << 20, len(DATA) - 1])
def test_one_bit_is_wrong_whatever_range_is_asked_for(hub, ask, at):
    hub.fault("flip", after=at)
    wrong = DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]
    assert ask(hub.endpoint, PATH).body == wrong
    start = max(0, at - 5)
    assert ask(hub.endpoint, PATH, Range=f"bytes={start}-{at + 5}").body == wrong[start : at + 6]
    assert ask(hub.endpoint, PATH, Range=f"bytes={at + 1}-{at + 2}").body == DATA[at + 1 : at + 3] or at == len(DATA) - 1


def test_a_file_changes_midway(hub, ask):
    hub.fault("change", after=1_500_000, content=b"\0" * 2_000_000)
    turned = bytes(255 - byte for byte in DATA[2_000_000:])
    assert ask(hub.endpoint, PATH).body == DATA[:1_500_000] + b"\0" * 500_000 + turned
    assert ask(hub.endpoint, PATH, Range="bytes=1499999-1500000").body == DATA[1_499_999:1_500_000] + b"\0"


def test_headers_lie(hub, ask):
    hub.fault("etag", value="f" * 64, path="model.safetensors")
    got = ask(hub.endpoint, PATH)
    assert got.headers["ETag"] == got.headers["X-Linked-Etag"] == '"' + "f" * 64 + '"' and got.body == DATA
    hub.fault("headers", path="a.txt", headers={"X-Repo-Commit": None, "Content-Range": "bytes nonsense"})
    got = ask(hub.endpoint, "/org/name/resolve/main/a.txt")
    assert got.headers["X-Repo-Commit"] is None and got.headers["Content-Range"] == "bytes nonsense"


@pytest.mark.parametrize("after", [None, 0, 1 << 20, 2_000_000])
def test_a_stall_holds_up_one_request_only(hub, ask, after):
    hub.fault("stall", seconds=0.3, after=after, path=PATH, times=1)
    before = time.monotonic()
    assert ask(hub.endpoint, PATH).body == DATA
    assert time.monotonic() - before >= 0.3


def test_redirects_go_in_a_loop_or_elsewhere(hub, ask):
    hub.fault("redirect", times=1)
    assert ask(hub.endpoint, f"{PATH}?x=1").headers["Location"] == f"{PATH}?x=1"
    hub.fault("redirect", status=307, location="ftp://elsewhere/x")
    got = ask(hub.endpoint, PATH)
    assert (got.status, got.headers["Location"]) == (307, "ftp://elsewhere/x")


def test_any_status(hub, ask):
    hub.fault("status", status=429, headers={"Retry-After": "3"}, times=2)
    for _ in range(2):
        got = ask(hub.endpoint, PATH)
        assert (got.status, got.headers["Retry-After"], got.headers["X-Error-Message"]) == (429, "3", "Too Many Requests")
    assert ask(hub.endpoint, PATH).status == 200


def test_ranges_are_not_what_was_asked_for(hub, ask):
    asked = {"Range": "bytes=1000000-1000009"}
    hub.fault("ignore_range", times=1)
    hub.fault("other_range", by=5, times=1)
    hub.fault("other_range", by=-5, value="hidden", times=1)
    hub.fault("multipart", times=1)
    whole, other, hidden, parts = (ask(hub.endpoint, PATH, **asked) for _ in range(4))
    assert (whole.status, whole.body) == (200, DATA)
    assert (other.headers["Content-Range"], other.body) == (f"bytes 1000005-1000014/{len(DATA)}", DATA[1000005:1000015])
    assert (hidden.headers["Content-Range"], hidden.body) == (f"bytes 1000000-1000009/{len(DATA)}", DATA[999995:1000005])
    assert parts.headers["Content-Type"].startswith("multipart/byteranges") and DATA[1000000:1000010] in parts.body


def test_bodies_come_compressed(hub, ask):
    hub.fault("gzip")
    got = ask(hub.endpoint, PATH, Accept_Encoding="identity")
    assert got.headers["Content-Encoding"] == "gzip" and got.headers["Content-Length"] is None
    assert gzip.decompress(got.body) == DATA


def test_lists_lie(hub, ask):
    hub.fault(
        "listing",
        entries=[{"path": "../x", "size": -1}],
        replace={"a.txt": {"oid": "zz", "size": 1 << 80}},
        path="/api/",
        times=2,
    )
    tree, info = (json.loads(ask(hub.endpoint, path).body) for path in (TREE, "/api/models/org/name"))
    assert [(item["path"], item["size"]) for item in tree] == [("a.txt", 1 << 80), ("model.safetensors", len(DATA)), ("../x", -1)]
    assert info["siblings"][-1] == {"rfilename": "../x"}
    hub.fault("listing", value="endless")
    links = [ask(hub.endpoint, TREE).headers["Link"] for _ in range(3)]
    assert len({*links}) == 3 and all(link.startswith(f"<{hub.endpoint}{TREE}?") for link in links)


def test_hostile_names_are_listed_and_served(hub, ask):
    from urllib.parse import quote

    commit = hub.repo("org/hostile").commit(dict.fromkeys((*HOSTILE_NAMES, "A.txt", "a.txt"), b"evil"))
    listed = [item["path"] for item in json.loads(ask(hub.endpoint, "/api/models/org/hostile/tree/main?recursive=1").body)]
    assert {*listed} >= {*HOSTILE_NAMES}
    for name in HOSTILE_NAMES:
        assert ask(hub.endpoint, f"/org/hostile/resolve/{commit}/{quote(name, safe='')}").body == b"evil", name


def test_a_rule_says_which_requests(hub, ask):
    hub.fault("status", path="a.txt", method="HEAD", nth=2)
    told = [ask(hub.endpoint, "/org/name/resolve/main/a.txt", method).status for method in ("HEAD", "GET", "HEAD", "HEAD")]
    assert told == [200, 200, 500, 200]
    hub.clear()
    chance = hub.fault("status", probability=0.5)
    told = [ask(hub.endpoint, "/org/name/resolve/main/a.txt").status for _ in range(40)]
    assert 0 < told.count(500) == chance.struck < 40 == chance.seen


def test_a_rule_may_be_of_one_origin(ask):
    with HubServer() as hub:
        hub.repo("org/name").commit({"model.safetensors": DATA})
        hub.fault("status", origin="cdn", status=403)
        place = ask(hub.endpoint, PATH).headers["Location"].removeprefix(str(hub.cdn))
        assert ask(hub.cdn, place).status == 403


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'melt' is no action; there are truncate, length"):
        Fault("melt")


def test_a_fault_of_the_hub_itself_is_never_passed_over(ask, tmp_path):
    with pytest.raises(ExceptionGroup, match="the hub itself failed"), HubServer() as hub:
        (tmp_path / "x").write_bytes(b"1")
        hub.repo("org/name").commit({"x": tmp_path / "x"})
        (tmp_path / "x").unlink()
        ask(hub.endpoint, "/org/name/resolve/main/x")


def test_rules_are_set_from_outside(hub, ask):
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
    connection.request("POST", "/-/faults", json.dumps([{"action": "change", "after": 2, "content": "AAAAAAA="}]))
    assert connection.getresponse().read() == b"[]"
    assert ask(hub.endpoint, "/org/name/resolve/main/a.txt").body[:4] == b"te\0\0"
    assert json.loads(ask(hub.endpoint, "/-/requests").body)[-1]["fault"] == "change"
    assert ask(hub.endpoint, "/-/faults", "DELETE").status == 200 and hub.faults == []
