"""`hubclient pull`, `lock` and `sync` as a user runs them: the path on stdout, everything else on stderr, one sentence for a fault."""

from __future__ import annotations

import json
import os
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
    assert f"`hubclient pull org/locked@{second}`" in missing.stderr
    told = json.loads(hubclient("sync", "--check", "--json").stdout)
    assert told["entries"][0]["fetched"] == ["config.json"] and told["checked"]


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
