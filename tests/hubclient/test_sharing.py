"""One cache, several programs: what hubclient brings the others take, and what they bring hubclient takes, without a byte twice.

huggingface_hub and Transformers are unmodified and talk to the test suite's hub; what llama.cpp reads is told by its rules
(`cachelayouts.llama_cached_files`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from cachelayouts import llama_cached_files
from hubserver import HubServer
from inprocess import hubclient
from running import command
from soundness import faults, snapshot_bytes

from hubclient.cache.layout import RepoId, RepoPaths

LARGE = bytes(range(256)) * 40
FIRST = {"config.json": b'{"first": true}', "model.safetensors": LARGE, "onnx/deep/model.onnx": b"o" * 999, "empty.txt": b""}
SECOND = FIRST | {"config.json": b'{"first": false}', "copy/of/weights.bin": LARGE, "tokenizer.json": b"{}"}
DATA = {"data/train.csv": b"a,b\n1,2\n", "README.md": b"# Data"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """`org/name` with two commits, a tag at the first and a branch with a slash; a data set; a repository without files."""
    with HubServer(root=tmp_path_factory.mktemp("served"), xet=True) as running:
        repo = running.repo("org/name")
        repo.tag("v1.0", repo.commit(FIRST))
        repo.commit(SECOND)
        repo.branch("feature/slash")
        running.repo("org/data", type="dataset").commit(DATA)
        running.repo("org/empty").commit({})
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HubServer) -> Path:
    """An empty cache, the environment's; the hub is the test suite's, in its HTTP way of sending large files."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    named = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": str(server.endpoint)}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in (named | quiet).items():
        monkeypatch.setenv(name, value)
    server.clear()
    return tmp_path / "hub"


def python(code: str, *arguments: str, **environment: str) -> str:
    """What a program prints that uses huggingface_hub."""
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def hf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub's own command line."""
    line = [str(Path(sys.executable).with_name("hf")), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


# What hubclient brings


@dataclass(frozen=True)
class Case:
    """A pull, and what must be there then."""

    files: dict[str, bytes]
    source: str = "org/name"
    revision: str = "main"
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    tag: bool = False  # of the first commit, named by its digits

    @property
    def repo(self) -> RepoId:
        return RepoId.parse(self.source)


JSON = {name: data for name, data in SECOND.items() if name.endswith(".json")}
NO_LINKS = {"HF_HUB_DISABLE_SYMLINKS": "1"}
CASES = {
    "whole": Case(SECOND),
    "include": Case(JSON, options=("--include", "*.json")),
    "exclude": Case({name: SECOND[name] for name in SECOND if "/" not in name}, options=("--exclude", "*/")),
    "one-file": Case({"onnx/deep/model.onnx": b"o" * 999}, options=(":onnx/deep/model.onnx",)),
    "commit": Case(FIRST, tag=True),
    "tag": Case(FIRST, revision="v1.0"),
    "branch-with-slash": Case(SECOND, revision="feature/slash"),
    "dataset": Case(DATA, "datasets/org/data"),
    "without-files": Case({}, "org/empty"),
    "without-links": Case(SECOND, environment=NO_LINKS),
    "without-links-include": Case(JSON, options=("--include", "*.json"), environment=NO_LINKS),
}

# Everything that huggingface_hub says of a revision in the cache, without a connection.
TOLD = """
import json, sys
import huggingface_hub as hub
from huggingface_hub.utils import scan_cache_dir
repo, type, revision, files = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
found = scan_cache_dir()
known = {"repo_type": type, "revision": revision}
print(json.dumps({
    "warnings": [str(warning) for warning in found.warnings],
    "incomplete": len(found.incomplete_files),
    "size": found.size_on_disk,
    "repos": {one.repo_id: one.size_on_disk for one in found.repos},
    "refs": sorted(ref for one in found.repos for ref in one.refs),
    "snapshot": hub.snapshot_download(repo, local_files_only=True, allow_patterns=files, **known),
    "files": [hub.hf_hub_download(repo, name, local_files_only=True, **known) for name in files],
    "tree": {file.path: file.size for file in hub.get_cached_repo_tree(repo, **known)},
}))
"""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = CASES[request.param]
    return found


def test_huggingface_hub_and_llama_cpp_take_what_was_pulled(
    cache: Path, server: HubServer, case: Case, tmp_path: Path, monkeypatch
):
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    commit = commit_of(server, case)
    revision = commit if case.tag else case.revision
    named = [option for option in case.options if option.startswith(":")]
    options = [option for option in case.options if option not in named]
    pulled = command("pull", "".join([f"{case.source}@{revision}", *named]), *options, cwd=tmp_path)
    assert pulled.returncode == 0, pulled.stderr
    paths = RepoPaths(cache, case.repo)
    assert not faults(cache) and shown(paths, commit) == case.files

    server.clear()
    told = json.loads(python(TOLD, case.repo.name, case.repo.type, revision, json.dumps(sorted(case.files)), HF_HUB_OFFLINE="1"))
    size = sum(len(data) for data in set(case.files.values()))
    assert told["warnings"] == [] and told["incomplete"] == 0 and not server.requests
    assert told["refs"] == ([] if case.tag else [revision])
    assert told["snapshot"] == str(paths.snapshot(commit))
    assert told["files"] == [str(paths.snapshot(commit) / name) for name in sorted(case.files)]
    all_files = server.repo(case.repo.name, type=case.repo.type).files(commit)
    assert told["tree"] == {name: len(data) for name, data in all_files.items()}
    if not case.environment:  # without links huggingface_hub counts each name's bytes
        assert told["repos"] == {case.repo.name: size} and told["size"] == size
    (row,) = listed()
    assert row["size"] == size and row["refs"] == told["refs"]

    if case.repo.type == "model" and not case.tag and "/" not in revision:  # llama.cpp looks at what lies right in `refs`
        assert {name: path.read_bytes() for name, path in llama_cached_files(cache, case.repo.name).items()} == case.files
    if case.files:
        arguments = [case.repo.name, "--repo-type", case.repo.type, "--revision", revision]
        verified = hf("cache", "verify", *arguments)
        assert verified.returncode == 0 and f"Verified {len(case.files)} file(s)" in verified.stdout, verified


def commit_of(server: HubServer, case: Case) -> str:
    repo = server.repo(case.repo.name, type=case.repo.type)
    commit = repo.shown().commit("v1.0" if case.tag else case.revision)
    assert commit is not None
    return commit.id


def listed() -> list[dict[str, Any]]:
    """What `cache ls` lists."""
    rows: list[dict[str, Any]] = json.loads(hubclient("cache", "ls", "--json").out)["repositories"]
    return rows


def shown(paths: RepoPaths, commit: str) -> dict[str, bytes]:
    """The files of a snapshot, their bytes read through whatever shows them."""
    snapshot = paths.snapshot(commit)
    return {path.relative_to(snapshot).as_posix(): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}


def test_hf_cache_ls_lists_all_of_it_without_a_warning(cache: Path, tmp_path: Path):
    for source in ("org/name", "org/name@v1.0", "org/name@feature/slash", "datasets/org/data", "org/empty"):
        assert hubclient("pull", source).code == 0
    done = hf("cache", "ls", "--format", "json", "--show-warnings")
    assert done.returncode == 0 and "arning" not in done.stdout + done.stderr, done
    theirs = {row["id"].removeprefix("model/").replace("dataset/", "datasets/") for row in json.loads(done.stdout)}
    assert theirs == {row["repo"] for row in listed()} == {"org/name", "datasets/org/data", "org/empty"}


def test_huggingface_hub_fetches_nothing_again_and_takes_the_rest(cache: Path, server: HubServer):
    assert hubclient("pull", "org/name", "--include", "*.json").code == 0
    before = {path.name: path.stat().st_mtime_ns for path in (cache / "models--org--name" / "blobs").iterdir()}
    server.clear()
    snapshot = python("import huggingface_hub as hub; print(hub.snapshot_download('org/name'))")
    asked = {request.path.partition("/resolve/")[2].partition("/")[2] for request in server.asked("/resolve/", "GET", "hub")}
    assert asked and not asked & JSON.keys()
    after = {path.name: path.stat().st_mtime_ns for path in (cache / "models--org--name" / "blobs").iterdir()}
    assert after.items() >= before.items() and snapshot_bytes(cache, "org/name", Path(snapshot).name) == SECOND
    assert hubclient("cache", "verify").code == 0 and not faults(cache)


def test_huggingface_hub_can_force_its_way_over_our_read_only_blobs(cache: Path, server: HubServer):
    assert hubclient("pull", "org/name").code == 0
    code = "import huggingface_hub as hub; print(hub.snapshot_download('org/name', force_download=True))"
    snapshot = Path(python(code))
    assert snapshot_bytes(cache, "org/name", snapshot.name) == SECOND and not faults(cache)
    assert hubclient("cache", "verify").code == 0
    server.clear()
    assert hubclient("pull", "org/name", "--check").code == 0 and not server.asked("/resolve/")


def test_hf_cache_rm_and_prune_remove_what_hubclient_pulled(cache: Path, server: HubServer):
    repo = server.repo("org/moving")
    first = repo.commit({"a.txt": b"a", "same.txt": b"same"})
    assert hubclient("pull", "org/moving").code == 0 and hubclient("pull", "datasets/org/data").code == 0
    second = repo.commit({"a.txt": b"A"})
    assert hubclient("pull", "org/moving").code == 0 and hubclient("cache", "pin", "org/moving").code == 0
    assert hf("cache", "prune", "--yes").returncode == 0
    assert not (cache / "models--org--moving" / "snapshots" / first).exists()
    assert snapshot_bytes(cache, "org/moving", second) == {"a.txt": b"A", "same.txt": b"same"} and not faults(cache)
    assert hubclient("cache", "verify").code == 0
    assert hf("cache", "rm", "model/org/moving", "--yes").returncode == 0
    assert [row["repo"] for row in listed()] == ["datasets/org/data"]
    assert not (cache / "models--org--moving").exists(), "our notes went with it"


@pytest.mark.torch
def test_transformers_loads_offline_what_was_pulled(cache: Path, server: HubServer, tmp_path: Path, monkeypatch):
    folder = checkpoints.llama(tmp_path / "llama")
    server.repo("org/llama").commit({path.name: path for path in folder.iterdir()})
    assert hubclient("pull", "org/llama").code == 0
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "plain"))
    assert hubclient("pull", "org/llama", "--for", "gguf").code == 0
    monkeypatch.delenv("HF_HUB_DISABLE_SYMLINKS")
    server.clear()
    code = """
import sys, transformers as t
for cache in sys.argv[1:]:
    config = t.AutoConfig.from_pretrained("org/llama", cache_dir=cache)
    tokenizer = t.AutoTokenizer.from_pretrained("org/llama", cache_dir=cache)
    model = t.AutoModelForCausalLM.from_pretrained("org/llama", cache_dir=cache)
    given = tokenizer("hello there", return_tensors="pt")["input_ids"]
    print(config.hidden_size, len(tokenizer), tuple(model(given).logits.shape) == (1, given.shape[1], config.vocab_size))
"""
    told = python(code, str(cache), str(tmp_path / "plain"), HF_HUB_OFFLINE="1").splitlines()
    assert told[0] == told[1] and told[0].startswith("64 ") and told[0].endswith("True") and not server.requests


# What huggingface_hub brings

PUBLISH = """
import sys
from huggingface_hub.utils import _shared_blobs
blob, xet_hash, cache, size = sys.argv[1:]
print(_shared_blobs.publish_blob_to_shared_store(blob_path=blob, xet_hash=xet_hash, cache_dir=cache, expected_size=int(size)))
"""


@dataclass(frozen=True)
class Brought:
    """A call of huggingface_hub's, and what is there then."""

    call: str
    files: dict[str, bytes]
    revision: str = "main"
    environment: dict[str, str] = field(default_factory=dict)
    asks: bool = False  # whether the list of files was not kept, and must be asked for


SINGLE = "hub.hf_hub_download('org/name', 'model.safetensors', revision=revision)"
BROUGHT = {
    "snapshot": Brought("hub.snapshot_download('org/name', revision=revision)", SECOND),
    "snapshot-of-tag": Brought("hub.snapshot_download('org/name', revision=revision)", FIRST, "v1.0"),
    "snapshot-of-slash": Brought("hub.snapshot_download('org/name', revision=revision)", SECOND, "feature/slash"),
    "snapshot-twice": Brought("[hub.snapshot_download('org/name', revision=r) for r in ('v1.0', revision)]", SECOND),
    "snapshot-forced": Brought("[hub.snapshot_download('org/name', force_download=f) for f in (False, True)]", SECOND),
    "patterns": Brought("hub.snapshot_download('org/name', revision=revision, allow_patterns='*.json')", JSON),
    "one-file": Brought(SINGLE, {"model.safetensors": LARGE}, asks=True),
    "one-file-of-tag": Brought(SINGLE, {"model.safetensors": LARGE}, "v1.0", asks=True),
    "one-file-in-folders": Brought(
        "hub.hf_hub_download('org/name', 'model.onnx', subfolder='onnx/deep')", {"onnx/deep/model.onnx": b"o" * 999}, asks=True
    ),
    "without-links": Brought("hub.snapshot_download('org/name', revision=revision)", SECOND, environment=NO_LINKS),
    "one-file-without-links": Brought(SINGLE, {"model.safetensors": LARGE}, environment=NO_LINKS, asks=True),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_what_huggingface_hub_brought_is_listed_verified_and_not_fetched_again(cache: Path, server: HubServer, name: str):
    brought = BROUGHT[name]
    commit = server.repo("org/name").shown().commit(brought.revision)
    assert commit is not None
    code = "import sys, huggingface_hub as hub; revision = sys.argv[1]; print(" + brought.call + ")"
    python(code, brought.revision, **brought.environment)

    (revision,) = json.loads(hubclient("cache", "show", f"org/name@{brought.revision}", "--json").out)["revisions"]
    assert {file["name"]: file["size"] for file in revision["files"]} == {file: len(data) for file, data in brought.files.items()}
    (row,) = listed()
    assert row["repo"] == "org/name" and brought.revision in row["refs"] and row["faults"] == 0 and row["incomplete"] == 0
    verified = hubclient("cache", "verify")
    assert verified.code == 0 and not [line for line in verified.out.splitlines() if not line.startswith("note: ")], verified
    assert not faults(cache)

    server.clear()
    include = [word for file in brought.files for word in ("--include", file)]
    pulled = hubclient("pull", f"org/name@{brought.revision}", *include, "--json")
    assert pulled.code == 0 and json.loads(pulled.out)["downloaded_bytes"] == 0 and json.loads(pulled.out)["fetched"] == []
    assert not server.asked("/resolve/") and len(server.requests) == 1 + brought.asks
    assert hubclient("pull", f"org/name@{brought.revision}", *include, "--check", "--offline").code == 0
    assert snapshot_bytes(cache, "org/name", commit.id).items() >= brought.files.items()


@pytest.mark.parametrize("links", [True, False])
def test_what_huggingface_hub_brought_is_collected_and_the_rest_stays_whole(cache: Path, server: HubServer, links: bool):
    environment = {} if links else NO_LINKS
    code = "import huggingface_hub as hub; [hub.snapshot_download('org/name', revision=r) for r in ('v1.0', 'main')]"
    python(code + "; hub.snapshot_download('org/data', repo_type='dataset')", **environment)
    repo = server.repo("org/name").shown()
    first, second = repo.commit("v1.0"), repo.commit("main")
    assert first is not None and second is not None
    assert hubclient("cache", "rm", "org/name@v1.0", "--yes").code == 0
    assert not (cache / "models--org--name" / "snapshots" / first.id).exists()
    assert snapshot_bytes(cache, "org/name", second.id) == SECOND and not faults(cache)
    collected = hubclient("cache", "gc", "--max-size", "1", "--grace", "0", "--keep-last", "1", "--yes")
    assert collected.code == 0 and snapshot_bytes(cache, "org/name", second.id) == SECOND
    assert hubclient("cache", "rm", "org/name", "--yes").code == 0
    assert hubclient("cache", "verify").code == 0 and not faults(cache)
    told = python("from huggingface_hub.utils import scan_cache_dir as s; print([r.repo_id for r in s().repos], s().warnings)")
    assert told == "['org/data'] []"


def test_both_link_to_the_store_for_all_repositories_and_either_may_go(cache: Path, server: HubServer):
    """huggingface_hub publishes what xet brought; here by its own function, because the hub of the test suite speaks no xet."""
    weights = random.Random(5).randbytes(3 << 20)
    for name in ("org/one", "org/two", "org/three"):
        server.repo(name).commit({"model.safetensors": weights, "config.json": b"{}"})
    entry = server.repo("org/one").entries()["model.safetensors"]
    links = {name: cache / f"models--org--{name}" / "blobs" / entry.etag for name in ("one", "two", "three")}
    assert hubclient("pull", "org/one").code == 0
    assert python(PUBLISH, str(links["one"]), str(entry.xet_hash), str(cache), str(entry.size), HF_HUB_DISABLE_XET="0") == "True"
    server.clear()
    python("import huggingface_hub as hub; hub.snapshot_download('org/two')", HF_HUB_DISABLE_XET="0")
    assert hubclient("pull", "org/three").code == 0
    sent = sum(request.sent_bytes for request in server.asked("model.safetensors", "GET") + server.asked(origin="cdn"))
    assert sent < len(weights) // 10, "both took the store's"
    assert {link.resolve().relative_to(cache).parts[0] for link in links.values()} == {"blobs"}
    assert hf("cache", "rm", "model/org/one", "--yes").returncode == 0
    assert hubclient("cache", "rm", "org/two", "--yes").code == 0
    assert links["three"].read_bytes() == weights and hubclient("cache", "verify").code == 0 and not faults(cache)
    assert hf("cache", "rm", "model/org/three", "--yes").returncode == 0
    assert not [path for path in cache.glob("blobs/??/*") if path.suffix != ".lock"]
