"""`hubclient pull`, `lock` and `sync` as a user runs them: the path on stdout, everything else on stderr, one sentence for a fault."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import llama
from hubserver import HubServer

ROOT = Path(__file__).resolve().parents[2]
FILES = {"config.json": b"{}", "weights.bin": b"w" * 2000, "onnx/model.onnx": b"o" * 10}
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("served")) as running:
        running.repo("org/name").commit(FILES)
        yield running


class Shell:
    """Runs hubclient with a cache and a working folder of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.cache = folder, folder / "cache"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        ours = {"HF_HOME": str(folder / "home"), "HF_HUB_CACHE": str(self.cache), "HF_ENDPOINT": endpoint}
        self.environment = kept | ours | {"PYTHONPATH": str(ROOT)}

    def __call__(self, *arguments: str, **environment: str) -> Done:
        command = [sys.executable, "-m", "hubclient.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True)


@pytest.fixture
def hubclient(tmp_path: Path, server: HubServer) -> Shell:
    return Shell(tmp_path, str(server.endpoint))


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def test_the_snapshot_is_the_one_line_on_stdout(hubclient: Shell):
    done = hubclient("pull", "org/name")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in Path(only_line(done.stdout)).iterdir()} == {"config.json", "weights.bin", "onnx"}
    assert only_line(done.stderr) == "3 files, 2.0 kB downloaded"
    assert only_line(hubclient("pull", "org/name").stderr) == "3 files, 2.0 kB were here"


def test_of_one_file_its_path_is_printed(hubclient: Shell):
    assert Path(only_line(hubclient("pull", "org/name:onnx/model.onnx").stdout)).read_bytes() == b"o" * 10


def test_json_is_one_object(hubclient: Shell):
    done = hubclient("pull", "org/name", "--include", "*.json", "--include", "*.gguf", "--json")
    told = json.loads(done.stdout)
    assert told["fetched"] == ["config.json"] and told["notes"] == ["no file fits *.gguf"] and not done.stderr
    plan = json.loads(hubclient("pull", "org/name", "--dry-run", "--json").stdout)
    assert [file["name"] for file in plan["files"] if file["fetch"]] == ["onnx/model.onnx", "weights.bin"]
    assert plan["fetch_bytes"] == 2010 and plan["reused_bytes"] == 2


def test_a_dry_run_lists_what_would_come_and_writes_nothing(hubclient: Shell):
    done = hubclient("pull", "org/name", "--dry-run")
    assert "weights.bin" in done.stdout and "fetch" in done.stdout and "2.0 kB would be downloaded" in done.stdout
    assert not hubclient.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("pull", "org/name@nope"), 5, "org/name has no revision 'nope'"),
        (("pull", "org/name:nope"), 5, "org/name has no file 'nope'"),
        (("pull", "../name"), 2, "is no repository's name"),
        (("pull", "org/name", "--offline"), 5, "org/name is not in the cache"),
        (("pull", "org/name", "--workers", "0"), 2, "--workers"),
        (("sync",), 5, "hubclient.lock: there is no such lock file"),
        (("lock",), 5, "hubclient.lock: there is no such lock file"),
    ],
)
def test_a_fault_is_a_sentence_and_a_code(hubclient: Shell, arguments: tuple[str, ...], code: int, sentence: str):
    done = hubclient(*arguments)
    assert done.returncode == code and sentence in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr


def test_offline_by_environment_or_option_is_the_same(hubclient: Shell, server: HubServer):
    snapshot = hubclient("pull", "org/name").stdout
    server.clear()
    assert hubclient("pull", "org/name", "--offline").stdout == snapshot
    assert hubclient("pull", "org/name", HF_HUB_OFFLINE="1").stdout == snapshot
    assert not server.requests


def test_offline_the_command_that_fetches_it_is_the_one_that_was_given(hubclient: Shell):
    hubclient("pull", "org/name", "--include", "*.json")
    for rest in ("org/name:weights.bin", "org/name --include 'w*' --exclude '*.onnx'", "org/name@v9 --for gguf"):
        done = hubclient(*shlex.split(f"pull --offline {rest}"))
        words = shlex.split(done.stderr.split("`")[1])
        assert done.returncode == 5 and sorted(words) == sorted(["hubclient", "pull", *shlex.split(rest)])


SEALED = """
import sys
def refuse(event, _):
    assert not event.startswith("socket."), event
sys.addaudithook(refuse)
from hubclient.cli import main
try:
    main()
finally:
    assert not {"huggingface_hub", "httpx2", "requests"} & sys.modules.keys()
"""


def test_offline_no_command_makes_a_socket_or_loads_a_client(hubclient: Shell):
    hubclient("pull", "org/name")
    hubclient("lock", "org/name")
    commands = {"pull org/none --offline": 5, "pull org/name --check --offline": 0, "lock --offline": 0, "sync --check": 0}
    for command, code in commands.items():
        run = [sys.executable, "-c", SEALED, *command.split()]  # a sync of what is here needs no --offline
        done = subprocess.run(run, cwd=hubclient.folder, env=hubclient.environment, capture_output=True, text=True)
        assert done.returncode == code and "Error" not in done.stderr, done.stderr


def test_lock_and_sync(hubclient: Shell, server: HubServer):
    repo = server.repo("org/locked")
    first = repo.commit(FILES)
    done = hubclient("lock", "org/locked", "--exclude", "onnx/")
    assert only_line(done.stdout) == f"org/locked  {first[:12]}  2 files, 2.0 kB"
    second = repo.commit({"config.json": b"[]"})
    snapshot = Path(only_line(hubclient("sync").stdout))
    assert snapshot.name == first and {path.name for path in snapshot.iterdir()} == {"config.json", "weights.bin"}
    assert only_line(hubclient("lock").stdout) == f"org/locked  {first[:12]} -> {second[:12]}  2 files, 2.0 kB"
    assert only_line(hubclient("lock").stdout) == "hubclient.lock: nothing has changed"
    missing = hubclient("sync", "--offline")
    assert missing.returncode == 5 and "1 file is not here (config.json)" in missing.stderr
    assert "`hubclient sync` fetches what is missing" in missing.stderr
    told = json.loads(hubclient("sync", "--check", "--json").stdout)
    assert told["entries"][0]["fetched"] == ["config.json"] and told["checked"]
    assert hubclient("sync").stderr.splitlines()[-1] == "2 files, 2.0 kB: all here"
    assert hubclient("sync", "--check").stderr.splitlines()[-1] == "2 files, 2.0 kB: all intact"
    chosen = hubclient("lock", "org/locked", "--include", "config.json")
    assert only_line(chosen.stdout) == f"org/locked  {second[:12]}  files: 2 -> 1, 2 B"


def test_a_pattern_that_forgets_its_slash_is_told(hubclient: Shell):
    done = hubclient("pull", "org/name", "--include", "onnx")
    assert done.returncode == 5 and "'onnx' leaves no file of org/name" in done.stderr and "did you mean 'onnx/'?" in done.stderr
    done = hubclient("pull", "org/name", "--exclude", "onnx", "--dry-run")
    assert "note: no file fits onnx; did you mean 'onnx/'?" in done.stderr


@pytest.mark.parametrize("options", [(), ("--offline",)])
def test_a_file_in_the_place_of_the_cache_is_told(hubclient: Shell, options: tuple[str, ...]):
    hubclient.cache.write_text("")
    done = hubclient("pull", "org/name", *options)
    assert done.returncode == 5 and done.stderr.startswith(f"hubclient: {hubclient.cache}: is no folder, and so no cache\n")


def test_for_a_target_only_what_it_needs_comes_and_what_it_becomes_is_told(hubclient: Shell, server: HubServer, tmp_path: Path):
    folder = llama(tmp_path / "model")
    files = {path.name: path for path in folder.iterdir()}
    server.repo("org/llama").commit({**files, "pytorch_model.bin": b"p" * 10, "README.md": b"# Card", "onnx/x.onnx": b"o"})
    done = hubclient("pull", "org/llama", "--for", "gguf")
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(done.stdout.strip()).as_posix() for path in Path(done.stdout.strip()).rglob("*") if path.is_file()}
    assert "model.safetensors" in names and not names & {"pytorch_model.bin", "onnx/x.onnx"}
    assert "llama (LlamaForCausalLM)" in done.stderr and "becomes gguf" in done.stderr


def test_what_cannot_be_converted_is_refused_before_its_weights_come(hubclient: Shell, server: HubServer, tmp_path: Path):
    folder = llama(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    config = json.loads(files["config.json"]) | {"architectures": ["NobodyKnowsForCausalLM"], "model_type": "nobody"}
    server.clear()
    server.repo("org/unknown").commit({**files, "config.json": json.dumps(config).encode()})
    done = hubclient("pull", "org/unknown", "--for", "gguf")
    assert done.returncode == 3 and "NobodyKnows" in done.stderr and not done.stdout
    sent = sum(request.sent_bytes for request in server.requests if request.origin == "cdn")
    assert sent < len(files["model.safetensors"])


def test_a_look_at_headers_is_a_courtesy(hubclient: Shell, server: HubServer, tmp_path: Path):
    files = {path.name: path for path in llama(tmp_path / "model").iterdir()}
    server.clear()
    server.repo("org/rangeless").commit(files)
    server.fault("ignore_range", path="*/resolve/*")
    server.fault("ignore_range", origin="cdn")
    done = hubclient("pull", "org/rangeless")
    assert done.returncode == 0, done.stderr
    assert f"{len(files)} files" in done.stderr and "were here" not in done.stderr
    server.clear()


def test_what_comes_with_headers_counts_as_fetched_and_none_comes_with_a_dry_run(
    hubclient: Shell, server: HubServer, tmp_path: Path
):
    files = {path.name: path for path in llama(tmp_path / "model").iterdir()}
    server.repo("org/counted").commit(files)
    assert hubclient("pull", "org/counted", "--dry-run").returncode == 0 and not hubclient.cache.exists()
    told = json.loads(hubclient("pull", "org/counted", "--json").stdout)
    assert sorted(told["fetched"]) == sorted(files) and told["preflight"]["architecture"] == "llama"
    assert told["downloaded_bytes"] == sum(path.stat().st_size for path in files.values()) and not told["reused_bytes"]
    server.repo("org/chosen").commit({name: path.read_bytes() + b" " * name.endswith("json") for name, path in files.items()})
    told = json.loads(hubclient("pull", "org/chosen", "--for", "gguf", "--json").stdout)
    assert set(told["fetched"]) == set(files) and not told["reused_bytes"]


def test_a_repository_has_one_grammar_everywhere(hubclient: Shell, server: HubServer):
    snapshot = hubclient("pull", "org/name").stdout
    for spelling in ("hf://org/name", "hf://models/org/name@main", f"{server.endpoint}/org/name/tree/main"):
        done = hubclient("pull", spelling)
        assert done.stdout == snapshot, done.stderr
        assert hubclient("info", spelling).returncode == hubclient("lock", spelling, "-o", "other.lock").returncode == 0
    assert only_line(hubclient("pull", "hf://org/name/onnx/model.onnx").stdout).endswith("/onnx/model.onnx")
    assert hubclient("cache", "show", "hf://org/name").returncode == 0
    assert "is not the Hub in use" in hubclient("pull", "https://example.org/org/name").stderr


def test_a_lock_file_that_cannot_be_is_one_sentence(hubclient: Shell):
    (hubclient.folder / "folder").mkdir()
    for arguments in (("lock", "org/name", "-o", "folder"), ("sync", "folder"), ("lock", "org/name", "-o", "/proc/x.lock")):
        done = hubclient(*arguments)
        assert done.returncode == 5 and "cannot be" in done.stderr and "the cache" not in done.stderr, done.stderr


def test_a_pull_that_is_refused_leaves_nothing(hubclient: Shell, server: HubServer):
    server.repo("org/closed", gated="manual").commit(FILES)
    done = hubclient("pull", "org/closed")
    assert done.returncode == 5 and not done.stdout
    assert not [path for path in hubclient.cache.rglob("*") if "closed" in path.name and ".locks" not in path.parts]
    assert json.loads(hubclient("cache", "ls", "--json").stdout)["repositories"] == []
