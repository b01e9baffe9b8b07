"""A pull brings what is missing, checked, and nothing else; whatever happens meanwhile the next one completes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hubserver import HubServer

from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import last_used, live
from hubclient.errors import (
    AccessDenied,
    DamagedInput,
    EnvironmentFault,
    NetworkFault,
    NotEnoughSpace,
    Offline,
    SourceMissing,
)
from hubclient.ground.faultpoints import POINTS
from hubclient.hub.client import Hub

FILES: dict[str, bytes] = {
    "config.json": b'{"model_type": "none"}',
    "model-1.safetensors": b"1" * 100_000,
    "model-2.safetensors": b"2" * 50_000,
    "onnx/model.onnx": b"o" * 1000,
    "README.md": b"# Read me",
    "empty.txt": b"",
}
HEEDS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's children ignore it
CODE = """
import sys
from hubclient.hub.client import Hub
for source in sys.argv[1:]:
    print(Hub().pull(source).snapshot)
"""


def contents(snapshot: Path) -> dict[str, bytes]:
    """Files by name, without the links that have no name yet, which a killed process leaves."""
    files = (path for path in snapshot.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in files}


def puller(*sources: str, **environment: str) -> subprocess.Popen[str]:
    """A pull in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", HEEDS + CODE, *sources],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def python(code: str, *arguments: str, **environment: str) -> str:
    """What a program prints; it must not warn."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


def served(server: HubServer) -> int:
    """Bytes of files that were sent."""
    return sum(request.sent_bytes for request in server.requests if "/api/" not in request.path)


def test_all_files_come_with_their_bytes_read_only(hub: Hub, server: HubServer):
    commit = server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    paths = RepoPaths(hub.cache, RepoId("org/name"))
    assert contents(pulled.snapshot) == FILES
    assert pulled.snapshot == paths.snapshot(commit) and pulled.commit == commit
    assert (paths.refs / "main").read_text() == commit
    assert paths.tree(commit).exists() and commit in last_used(paths) and not live(paths)
    assert set(pulled.fetched) == set(FILES) and pulled.downloaded == sum(map(len, FILES.values())) and not pulled.reused
    assert all(path.stat().st_mode & 0o222 == 0 for path in paths.blobs.iterdir())
    assert not list(hub.cache.rglob("*.incomplete")) and not list(hub.cache.rglob("*.tmp"))


def test_a_second_pull_asks_once_and_downloads_nothing(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    hub.pull("org/name")
    server.clear()
    again = hub.pull("org/name")
    assert len(server.requests) == 1 and not again.fetched and not again.downloaded
    assert again.reused == tuple(sorted(FILES)) and again.reused_bytes == sum(map(len, FILES.values()))


def test_of_a_changed_branch_only_what_changed_comes(hub: Hub, server: HubServer):
    repo = server.repo("org/name")
    first = repo.commit(FILES)
    hub.pull("org/name")
    second = repo.commit({"README.md": b"# Other", "onnx/model.onnx": None, "new.bin": b"n" * 10})
    pulled = hub.pull("org/name")
    paths = pulled.resolved.paths(hub.cache)
    assert set(pulled.fetched) == {"README.md", "new.bin"} and pulled.downloaded == 17
    assert contents(paths.snapshot(first)) == FILES
    assert contents(paths.snapshot(second)) == repo.files()
    assert (paths.refs / "main").read_text() == second


def test_a_file_of_several_names_comes_once(hub: Hub, server: HubServer):
    server.repo("org/name").commit({f"copy-{number}": b"same" * 1000 for number in range(20)})
    pulled = hub.pull("org/name")
    assert pulled.downloaded == 4000 and len(pulled.fetched) == 20 and len(contents(pulled.snapshot)) == 20
    assert served(server) == 4000


def test_patterns_choose_and_the_rest_can_follow(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name", include=["*.json", "model-*", "*.gguf"], exclude=["*-2*"])
    assert set(contents(pulled.snapshot)) == {"config.json", "model-1.safetensors"}
    assert pulled.notes == ("no file fits *.gguf",)
    assert set(hub.pull("org/name", exclude=["onnx/"]).fetched) == {"README.md", "empty.txt", "model-2.safetensors"}
    assert hub.pull("org/name").fetched == ("onnx/model.onnx",)
    with pytest.raises(SourceMissing, match="'nothing' leaves no file of org/name"):
        hub.pull("org/name", include=["nothing"])


def test_one_file_or_folder_is_named(hub: Hub, server: HubServer):
    server.repo("org/name").commit({**FILES, "tiny-Q4_K_M.gguf": b"GGUF", "tiny-Q8_0.gguf": b"GGUF2"})
    assert hub.pull("org/name:config.json").names == ("config.json",)
    assert hub.pull("org/name:onnx").names == ("onnx/model.onnx",)
    assert "tiny-Q4_K_M.gguf" in hub.pull("org/name:Q4_K_M").names
    with pytest.raises(SourceMissing, match=r"org/name has no file 'config.jsn'; did you mean config.json"):
        hub.pull("org/name:config.jsn")


def test_a_plan_writes_nothing_and_counts_what_would_come(hub: Hub, server: HubServer):
    repo = server.repo("org/name")
    repo.commit(FILES)
    plan = hub.plan_pull("org/name")
    assert plan.transfer == sum(map(len, FILES.values())) and not plan.reused and plan.free > plan.needs == plan.transfer
    assert not hub.cache.exists() and not server.asked("/resolve/")
    hub.pull("org/name", include=["model-1*"])
    repo.commit({"README.md": b"# Other"})
    plan = hub.plan_pull("org/name")
    assert plan.present.unshown == ("model-1.safetensors",) and plan.reused == 100_000
    assert json.loads(json.dumps(plan.as_json()))["fetch_bytes"] == plan.transfer


def test_progress_ends_at_what_was_transferred(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    hub.pull("org/name", include=["model-1*"])
    told: list[tuple[int, int]] = []
    pulled = hub.pull("org/name", progress=lambda done, total: told.append((done, total)))
    rest = sum(map(len, FILES.values())) - 100_000
    assert told[-1] == (rest, rest) and pulled.downloaded == rest and pulled.reused_bytes == 100_000
    assert told == sorted(told) and {total for _, total in told} == {rest}


def test_what_an_unfinished_run_left_counts_as_here(hub: Hub, server: HubServer):
    data = os.urandom(24 << 20)
    server.repo("org/name").commit({"model.safetensors": data})
    server.fault("truncate", path="*/model.safetensors*", after=20 << 20)
    server.fault("truncate", path="*/objects/*", after=20 << 20)
    process = puller("org/name", HUBCLIENT_FAULTPOINT="pull.ledger-written:2")
    process.communicate()
    server.clear()
    plan = hub.plan_pull("org/name")
    assert plan.kept >= 16 << 20 and plan.transfer == len(data) - plan.kept and plan.needs < len(data) // 2
    told: list[tuple[int, int]] = []
    pulled = hub.pull("org/name", progress=lambda done, total: told.append((done, total)))
    assert contents(pulled.snapshot) == {"model.safetensors": data} and not list(hub.cache.rglob("*.incomplete"))
    assert pulled.downloaded == plan.transfer and told[-1] == (plan.transfer, plan.transfer)


def test_too_little_disk_is_said_before_the_first_byte(hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/name").commit(FILES)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(NotEnoughSpace, match=r"bytes are needed and 1,000 are free"):
        hub.pull("org/name")
    assert not server.asked("/resolve/") and not hub.cache.exists()


def test_damage_is_found_and_fetched_again_if_asked(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    blob = (pulled.snapshot / "model-1.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"1" * 99_999 + b"x")
    assert not hub.pull("org/name").fetched
    told: list[tuple[int, int]] = []
    assert hub.plan_pull("org/name", check=True, progress=lambda *counts: told.append(counts)).present.damaged == (
        "model-1.safetensors",
    )
    assert told[-1][0] == told[-1][1] == sum(map(len, FILES.values()))
    with pytest.raises(Offline, match=r"1 file is damaged \(model-1.safetensors\)"):
        Hub(server.endpoint, cache=hub.cache, offline=True).pull("org/name", check=True)
    assert hub.pull("org/name", check=True).fetched == ("model-1.safetensors",)
    assert contents(pulled.snapshot) == FILES


def test_a_short_blob_and_a_lost_link_are_mended_unasked(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    (pulled.snapshot / "README.md").unlink()
    blob = (pulled.snapshot / "model-2.safetensors").resolve()
    blob.unlink()
    blob.write_bytes(b"2")
    (pulled.snapshot / "config.json").unlink()
    (pulled.snapshot / "config.json").symlink_to("/etc/hostname")
    again = hub.pull("org/name")
    assert again.fetched == ("model-2.safetensors",) and contents(pulled.snapshot) == FILES


def test_without_links_files_are_shown_all_the_same(hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    assert contents(pulled.snapshot) == FILES
    assert not any(path.is_symlink() for path in pulled.snapshot.rglob("*"))
    server.clear()
    assert not hub.pull("org/name", check=True).fetched and not server.asked("/resolve/")
    blobs = pulled.snapshot.parent.parent / "blobs"
    for blob in blobs.iterdir():  # as llama.cpp leaves it: bytes in the snapshot alone
        blob.unlink()
    assert not hub.pull("org/name", check=True).fetched


@pytest.mark.parametrize("planted", ["snapshots", "snapshots/{commit}", "snapshots/{commit}/onnx", "blobs"])
def test_nothing_is_written_through_a_planted_link(hub: Hub, server: HubServer, tmp_path: Path, planted: str):
    commit = server.repo("org/name").commit(FILES)
    outside = tmp_path / "outside"
    outside.mkdir()
    place = RepoPaths(hub.cache, RepoId("org/name")).path / planted.format(commit=commit)
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    with pytest.raises(DamagedInput, match="a link or a file"):
        hub.pull("org/name")
    assert not any(outside.iterdir()) and not server.asked("/resolve/")


def test_a_read_only_cache_serves_what_it_has(hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch):
    repo = server.repo("org/name")
    commit = repo.commit(FILES)
    hub.pull("org/name")
    repo.branch("copy", commit)
    repo.branch("more", commit)
    repo.commit({"more.txt": b"more"}, "more")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for function in ("os.mkdir", "os.replace", "pathlib.Path.touch", "os.utime"):
        monkeypatch.setattr(function, refuse)
    real_open = os.open
    monkeypatch.setattr(
        "os.open", lambda path, flags, *more, **named: refuse() if flags & os.O_CREAT else real_open(path, flags, *more, **named)
    )
    assert hub.pull("org/name").notes == ()
    (note,) = hub.pull("org/name@copy").notes
    assert "everything is here, but what org/name@copy is now could not be noted" in note
    with pytest.raises(EnvironmentFault, match="Read-only file system"):
        hub.pull("org/name@more")
    assert not server.asked("more.txt")


def test_offline_nothing_is_asked_and_what_is_missing_is_named(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    hub.pull("org/name", exclude=["onnx/", "model-2*"])
    server.clear()
    away = Hub(server.endpoint, cache=hub.cache, offline=True)
    with pytest.raises(Offline, match=r"2 files are not here \(model-2.safetensors, onnx/model.onnx\)") as caught:
        away.pull("org/name")
    assert caught.value.missing == ("model-2.safetensors", "onnx/model.onnx")
    assert caught.value.hint == "`hubclient pull org/name` fetches what is missing"
    assert set(away.pull("org/name", include=["*.json"]).files) == {"config.json"}
    assert not server.requests


def test_a_file_that_fails_lets_the_others_arrive(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    server.fault("status", path="*/README.md", status=404, headers={"X-Error-Code": "EntryNotFound"})
    with pytest.raises(SourceMissing, match=r"README\.md"):
        hub.pull("org/name", workers=1)
    paths = RepoPaths(hub.cache, RepoId("org/name"))
    (snapshot,) = paths.snapshots.iterdir()
    assert set(contents(snapshot)) == set(FILES) - {"README.md"}
    assert not (paths.refs / "main").exists() and not live(paths)
    server.clear()
    assert hub.pull("org/name").fetched == ("README.md",)


def test_wrong_bytes_are_refused_by_name_and_never_shown(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    server.fault("flip", path="*/config.json", after=3)
    with pytest.raises(DamagedInput, match=r"config.json"):
        hub.pull("org/name")
    (snapshot,) = RepoPaths(hub.cache, RepoId("org/name")).snapshots.iterdir()
    assert "config.json" not in contents(snapshot)


def test_a_closed_repository_says_so_once(hub: Hub, server: HubServer):
    server.repo("org/name", gated=True).commit(FILES)
    with pytest.raises(AccessDenied, match="licence"):
        hub.pull("org/name", workers=2)
    assert len(server.asked("/resolve/")) <= 4
    token = server.token("alice")
    server.repo("org/name").allow("alice")
    assert contents(Hub(server.endpoint, token, hub.cache).pull("org/name").snapshot) == FILES


def test_datasets_and_branches_with_slashes_have_their_places(hub: Hub, server: HubServer):
    repo = server.repo("org/data", type="dataset")
    repo.commit({"train.csv": b"1"}, "refs/heads/feature/x")
    pulled = hub.pull("datasets/org/data@feature/x")
    folder = hub.cache / "datasets--org--data"
    assert (folder / "refs" / "feature" / "x").read_text() == pulled.commit
    assert contents(folder / "snapshots" / pulled.commit) == {"train.csv": b"1"}


def test_a_commit_leaves_no_ref(hub: Hub, server: HubServer):
    commit = server.repo("org/name").commit(FILES)
    for revision in (commit, commit[:9]):
        hub.pull(f"org/name@{revision}")
    assert not any(RepoPaths(hub.cache, RepoId("org/name")).refs.iterdir())


def test_a_commit_without_files_has_an_empty_snapshot(hub: Hub, server: HubServer):
    server.repo("org/name").commit({})
    assert hub.pull("org/name").snapshot.is_dir()


def test_an_unreachable_hub_is_one_sentence(cache: Path):
    from hubclient.hub.net.patience import Patience
    from hubclient.hub.net.session import Session

    hub = Hub("http://127.0.0.1:9", cache=cache, token=False)
    hub.session = Session.of("http://127.0.0.1:9", False, patience=Patience(tries=1))
    with pytest.raises(NetworkFault, match=r"127\.0\.0\.1:9 cannot be reached"):
        hub.pull("org/name")


# What huggingface_hub and Transformers make of it, and the other way round; unmodified, in processes of their own.

SNAPSHOT = """
import sys, huggingface_hub
print(huggingface_hub.snapshot_download("org/name", local_files_only=sys.argv[1] == "local"))
"""


def test_huggingface_hub_takes_what_was_pulled(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    pulled = hub.pull("org/name")
    server.clear()
    assert python(SNAPSHOT, "local", HF_HUB_DISABLE_PROGRESS_BARS="1") == str(pulled.snapshot)
    assert not server.requests
    assert python(SNAPSHOT, "online", HF_HUB_DISABLE_PROGRESS_BARS="1") == str(pulled.snapshot)
    assert not server.asked("/resolve/")
    hf = str(Path(sys.executable).with_name("hf"))
    done = subprocess.run([hf, "cache", "verify", "org/name"], capture_output=True, text=True)
    assert done.returncode == 0 and f"Verified {len(FILES)} file(s)" in done.stdout, done
    done = subprocess.run([hf, "cache", "ls", "--format", "json", "--show-warnings"], capture_output=True, text=True)
    assert done.returncode == 0 and "org/name" in done.stdout and "arning" not in done.stdout + done.stderr, done


def test_what_huggingface_hub_downloaded_is_not_fetched_again(hub: Hub, server: HubServer):
    server.repo("org/name").commit(FILES)
    snapshot = python(SNAPSHOT, "online", HF_HUB_DISABLE_PROGRESS_BARS="1")
    server.clear()
    pulled = hub.pull("org/name", check=True)
    assert str(pulled.snapshot) == snapshot and not pulled.fetched and len(server.requests) == 1


@pytest.mark.torch
def test_transformers_loads_offline_what_was_pulled(hub: Hub, server: HubServer):
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2}
    server.repo("org/name").commit({"config.json": json.dumps(config).encode(), "generation_config.json": b"{}"})
    hub.pull("org/name")
    server.clear()
    code = "import transformers; print(transformers.AutoConfig.from_pretrained('org/name').hidden_size)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.stdout == "8\n" and not server.requests, done.stderr


# Several at once, killed, interrupted

PULLED = (
    "pull.tree-written",
    "pull.link-made",
    "pull.linked",
    "pull.linked:3",
    "pull.placed",
    "pull.placed:4",
    "pull.ref-written",
)


@pytest.mark.parametrize("point", PULLED)
def test_a_killed_pull_leaves_nothing_half_visible_and_is_completed(hub: Hub, server: HubServer, point: str):
    assert point.partition(":")[0] in POINTS
    repo = server.repo("org/name")
    repo.commit(FILES)
    process = puller("org/name", HUBCLIENT_FAULTPOINT=point)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    paths = RepoPaths(hub.cache, RepoId("org/name"))
    shown = [contents(snapshot) for snapshot in paths.snapshots.iterdir()]
    assert all(FILES[name] == data for files in shown for name, data in files.items())
    assert (paths.refs / "main").exists() == (point == "pull.ref-written")
    before = sum(map(len, shown))
    pulled = hub.pull("org/name")
    assert contents(pulled.snapshot) == FILES and len(pulled.fetched) <= len(FILES) - before
    assert not live(paths)


def test_ten_processes_pull_the_same_and_others(hub: Hub, server: HubServer):
    files = {f"f{number}": os.urandom(30_000 + number) for number in range(12)} | {"big.bin": os.urandom(6 << 20)}
    for name in ("org/a", "org/b"):
        server.repo(name).commit({**files, "own": name.encode()})
    running = [puller(*order) for order in [("org/a", "org/b"), ("org/b", "org/a")] for _ in range(5)]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0 and not errors, errors
    for name in ("org/a", "org/b"):
        assert contents(hub.pull(name, check=True).snapshot) == {**files, "own": name.encode()}
    assert not list(hub.cache.rglob("*.incomplete")) and not list(hub.cache.rglob("*.tmp"))
    assert not any(live(RepoPaths(hub.cache, RepoId(name))) for name in ("org/a", "org/b"))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_within_a_second_and_keeps_what_came(hub: Hub, server: HubServer, kind: signal.Signals):
    server.repo("org/name").commit(FILES)
    stalled = server.fault("stall", path="*/onnx/*", seconds=60)
    process = puller("org/name", HF_HUB_DOWNLOAD_TIMEOUT="60")
    snapshots = RepoPaths(hub.cache, RepoId("org/name")).snapshots
    while not stalled.struck or len(contents(snapshots)) < len(FILES) - 1:
        time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(kind)
    process.communicate()
    assert time.monotonic() - begun < 20  # a second, unless the machine is busy; the server is silent for a minute
    assert process.returncode != 0
    server.clear()
    assert hub.pull("org/name").fetched == ("onnx/model.onnx",)


def test_a_fault_of_the_connection_stops_the_others_soon(hub: Hub, server: HubServer):
    server.repo("org/name").commit({f"f{number}": bytes([number]) * 10 for number in range(100)})
    server.fault("status", path="*/resolve/*", status=403)
    with pytest.raises(AccessDenied):
        hub.pull("org/name", workers=4)
    assert len(server.asked("/resolve/")) < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "hubclient transfer"]
