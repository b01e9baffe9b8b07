"""Ten processes pull the same and different repositories while others collect: whatever locks do, nothing is ever half there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from crowding import NO_LOCKS, OVER
from hubserver import HubProcess
from killing import Warm
from killscenes import MODEL, NOW, QUICK, Scene, Trial, Whole, World, running_world
from soundness import Seen, faults, incomplete, leftovers, still_to_come

SECONDS = float(os.environ.get("HUBCLIENT_CROWD_SECONDS", "4"))  # of each crowd

Sources = dict[str, dict[str, str]]  # files' sha256 by name, by org/name@commit


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("served")) as hub:
        yield hub


@pytest.fixture(scope="module")
def sources(hub: HubProcess) -> Sources:
    """Repositories with revisions that share blobs; files of some bytes, and of some megabytes, one in all repositories."""
    chance = random.Random(3)
    everywhere, found = chance.randbytes(3 << 20), {}
    for name in ("org/one", "org/two", "org/three"):
        files: dict[str, bytes] = {f"part/{number}.txt": b"%d %s" % (number, name.encode()) for number in range(6)}
        files |= {"everywhere.safetensors": everywhere, "same.safetensors": chance.randbytes(5 << 20)}
        for revision in range(3):
            files |= {"config.json": b'{"v": %d}' % revision, "own.safetensors": chance.randbytes(2500 << 10)}
            commit = hub.commit(name, files, branch="main" if revision else "old")
            found[f"{name}@{commit if revision == 1 else 'main' if revision else 'old'}"] = _digests(files)
    return found


def _digests(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.mark.parametrize("locks", ["locks", "no locks"])
@pytest.mark.parametrize("others", ["hubclient alone", "huggingface_hub too"])
def test_a_crowd(locks: str, others: str, hub: HubProcess, sources: Sources, tmp_path: Path) -> None:
    strangers = 2 if others != "hubclient alone" else 0
    calls = ["crowding:pulling"] * (10 - strangers) + ["crowding:downloading"] * strangers + ["crowding:collecting"] * 2
    cache, notes = tmp_path / "cache", tmp_path / "notes"
    for folder in (cache, notes):
        folder.mkdir()
    told = {
        "endpoint": hub.endpoint,
        "cache": str(cache),
        "notes": str(notes),
        "sources": sources,
        "limit": 12 << 20,
        "grace": 0.7 if strangers else 0.0,
        "turns": 1.0 if strangers else 0.0,
    }
    (tmp_path / "setting").write_text(json.dumps(told))
    environ = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    with Warm(environ, tmp_path, NO_LOCKS if locks == "no locks" else "") as warm:
        running = [warm.start(str(tmp_path / "setting"), str(number), call=call) for number, call in enumerate(calls)]
        sampled = _sampled(cache, notes)
        ended = [warm.wait(process) for process in running]
        assert [done for done in ended if done.status or done.out] == []
        _judge(calls, _done(notes), strangers > 0)
        assert [fault for fault in sampled if not (strangers and _theirs(fault))] == []
        environ = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": hub.endpoint}
        _still_of_use(warm, environ, cache, sources)


def _sampled(cache: Path, notes: Path) -> list[str]:
    """Let them do, for a while and until enough has been done; what was wrong at any moment that we looked."""
    found: dict[str, None] = {}
    seen: Seen = set()
    begun = time.monotonic()
    try:
        while (lasts := time.monotonic() - begun) < SECONDS or (lasts < SECONDS + 60 and not _enough(_done(notes))):
            found |= dict.fromkeys(faults(cache, seen))
    finally:
        (notes / OVER).touch()
    return [*found]


def _done(notes: Path) -> dict[int, list[dict[str, Any]]]:
    """What each process has noted; of a line that is being written nothing."""
    found = {}
    for path in notes.glob("*.jsonl"):
        found[int(path.stem)] = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return found


def _enough(done: Mapping[int, list[dict[str, Any]]]) -> bool:
    """Whether something has been shown: many pulls, and removals beside them."""
    lines = [line for lines in done.values() for line in lines]
    return sum(line["did"] == "pulled" for line in lines) > 20 and sum(line.get("removed", 0) for line in lines) > 2


def _theirs(fault: str) -> bool:
    """Whether it is of huggingface_hub's own making: it writes the ref before the snapshot, and removes a link to make it anew."""
    return fault.endswith(("names a snapshot that is not here", "is missing for a moment"))


def _judge(calls: list[str], done: Mapping[int, list[dict[str, Any]]], strangers: bool) -> None:
    """Everybody had something to do, nobody failed, nobody was lied to."""
    assert len(done) == len(calls) and _enough(done)
    for call, lines in ((calls[number], lines) for number, lines in done.items()):
        for line in lines:
            if call == "crowding:downloading" and line.get("error", "").startswith("FileNotFoundError: "):
                continue  # stopped for longer than the grace, which is an hour elsewhere; it says so
            assert line["did"] != "failed", f"{call}: {line['error']}\n{line['trace']}"
            assert [fault for fault in line.get("wrong", ()) if not (strangers and _theirs(fault))] == [], call


def _still_of_use(warm: Warm, environ: dict[str, str], cache: Path, sources: Sources) -> None:
    """What they have left is whole, can be cleared of all that is of no use, and pulled into."""
    pruned = warm.run("cache", "prune", "--grace", "0s", "--yes", environ=environ)
    assert pruned.status == 0, pruned.out
    assert faults(cache) == [] and leftovers(cache) == []
    for source, digests in sources.items():
        pulled = warm.run("pull", source, environ=environ)
        assert pulled.status == 0, pulled.out
        snapshot = Path(pulled.out.splitlines()[-1])
        assert _digests({name: (snapshot / name).read_bytes() for name in digests}) == digests
    shutil.rmtree(cache)


# Two at one thing


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("crowd")) as world:
        yield world


UNFINISHED = Scene("_unfinished", ("pull", MODEL))


@pytest.mark.parametrize("preamble", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_many_adopt_what_a_dead_process_left(preamble: str, world: World, tmp_path: Path) -> None:
    trial = Trial(world, UNFINISHED, tmp_path / "place")
    with Warm({"HF_ENDPOINT": str(world.hub.endpoint), "HF_HOME": str(tmp_path)}, tmp_path, preamble) as warm:
        environ = {"HF_HUB_CACHE": str(trial.cache)}
        ended = [warm.wait(one) for one in [warm.start("pull", MODEL, environ=environ, tweaks=QUICK) for _ in range(6)]]
    assert [done.out for done in ended if done.status] == []
    assert trial.wrong() == []
    assert trial.wrong_when_completed() == []


@pytest.mark.parametrize("damage", ["cut", "garbled", "lying", "of another file", "empty", "without bytes", "with short bytes"])
def test_what_is_left_is_not_trusted(damage: str, world: World, tmp_path: Path) -> None:
    trial = Trial(world, UNFINISHED, tmp_path / "place")
    ledger, other = sorted(trial.cache.rglob("*.ledger.incomplete"))
    part, told = ledger.with_name(ledger.name.replace(".ledger.", ".")), ledger.read_bytes()
    lines = told.split(b"\n")
    if damage == "without bytes":
        part.unlink()
    elif damage == "with short bytes":
        os.truncate(part, 300_000)
    elif damage == "lying":
        part.write_bytes(part.read_bytes()[::-1])
    else:
        garbled = b"\n".join([lines[0], b"0 99999999999 00000000", b"-1 5 0", b"\xff\xfe", b"10 5 00000000", *lines[1:]])
        ledger.write_bytes({"cut": told[:-5], "garbled": garbled, "of another file": other.read_bytes(), "empty": b""}[damage])
    assert trial.play().status == 0
    assert trial.wrong() == []
    again = trial.world.run(trial.place, "cache", "prune", *NOW)
    assert again.status == 0 and leftovers(trial.cache) == [] and Whole.of(trial.place) == trial.whole


def test_a_full_disk_is_one_sentence_and_what_came_stays(world: World, tmp_path: Path) -> None:
    trial = Trial(world, Scene("_first", ("pull", MODEL)), tmp_path / "place")
    full = world.run(trial.place, "pull.ledger-written", str(300 << 10), *trial.scene.command, call="killing:filling_up")
    assert full.status == 5, full
    assert full.out.count("hubclient: ") == 1 and "Traceback" not in full.out and "fault of ours" not in full.out
    assert trial.wrong() == []
    assert 0 < still_to_come(trial.cache, trial.whole.blobs) < sum(trial.whole.blobs.values())
    assert trial.wrong_when_completed() == []


def test_a_cache_that_is_deleted_under_a_pull(world: World, tmp_path: Path) -> None:
    trial = Trial(world, Scene("_empty", ("pull", MODEL)), tmp_path / "place")
    for held in ("*/resolve/*/a.safetensors*", "*/resolve/*/config.json*"):
        world.hub.clear()
        fault = world.hub.fault("stall", path=held, seconds=0.5, times=1)
        running = world.warm.start(
            *trial.scene.command, environ={"HF_HUB_CACHE": str(trial.cache), "HUBCLIENT_CATALOG": str(tmp_path)}, tweaks=QUICK
        )
        while not fault.struck:
            time.sleep(0.005)
        shutil.rmtree(trial.cache, ignore_errors=True)
        shutil.rmtree(trial.cache, ignore_errors=True)
        ended = world.warm.wait(running)
        assert ended.status in (0, 5) and "Traceback" not in ended.out and "fault of ours" not in ended.out, ended
        if ended.status == 0:
            assert faults(trial.cache) == [] and incomplete(trial.cache) == []
        world.hub.clear()
    assert trial.wrong_when_completed() == []
