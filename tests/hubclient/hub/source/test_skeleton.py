"""A checkpoint of the Hub is looked at by its headers alone, planned with as if it were here, and never taken for weights."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from golden import Golden
from hubserver import HubServer, Request
from reference import DATA
from running import command, environment

from hubclient import Checkpoint, place, verify
from hubclient.cache.layout import RepoId, RepoPaths
from hubclient.cache.notes import last_used, read_outputs
from hubclient.checkpoint import run
from hubclient.errors import (
    DamagedInput,
    EnvironmentFault,
    Lossy,
    NetworkFault,
    Offline,
    UnsupportedArchitecture,
    UnsupportedFormat,
    UsageError,
)
from hubclient.hub.client import Hub
from hubclient.hub.source import skeleton
from hubclient.hub.source.skeleton import Skeleton, Weights
from hubclient.hub.source.temporary import make_temporary
from hubclient.inspection import inspect

LARGE = {"hidden_size": 256, "intermediate_size": 1024}  # 4 MB of weights
GGUF = {"hidden_size": 512, "intermediate_size": 2048}  # 14 MB


def files_of(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def weights_sent(server: HubServer) -> int:
    return sum(request.sent_bytes for request in server.requests if request.origin == "cdn")


def normal(told: dict[str, Any]) -> dict[str, Any]:
    """A plan without what tells where its source lies."""
    outputs = [{key: value for key, value in output.items() if key != "fingerprint"} for output in told["outputs"]]
    return {"outputs": outputs, "architecture": told["architecture"], "source_format": told["source_format"]}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards and an index."""
    return checkpoints.llama(tmp_path_factory.mktemp("made") / "llama", sizes=LARGE, shards=2)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of type BF16, whose norms are float32."""
    folder = tmp_path_factory.mktemp("made")
    source = checkpoints.llama(folder / "llama", sizes=GGUF)
    return Checkpoint.from_pretrained(source).save_pretrained(folder / "tiny-BF16.gguf", format="gguf", type="bf16")[0]


@pytest.mark.parametrize("target", ["gguf", "safetensors", "mlx"])
def test_the_plan_is_that_of_the_files_themselves(server: HubServer, hub: Hub, llama: Path, tmp_path: Path, target: str):
    server.repo("org/llama").commit(files_of(llama))
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    assert checkpoint.headers_only and checkpoint.name == "llama" and checkpoint.format == "safetensors"
    expected = Checkpoint.from_pretrained(llama)
    out = tmp_path / "out"
    assert normal(checkpoint.plan(out, format=target).as_json()) == normal(expected.plan(out, format=target).as_json())
    assert weights_sent(server) <= 2 * (64 << 10) < 4_000_000


def test_only_headers_are_fetched_and_no_branch_is_moved(server: HubServer, hub: Hub, llama: Path, cache: Path):
    commit = server.repo("org/llama").commit({**files_of(llama), "original/consolidated.pth": b"x" * 2_000_000})
    found = inspect(Checkpoint.from_pretrained("org/llama", only="config", headers_only=True))
    assert found["architecture"] == "llama" and found["parameters"] > 1_000_000
    assert found["files"][0]["path"] == "org/llama:model-00001-of-00002.safetensors"
    assert found["path"] == "org/llama"
    paths = RepoPaths(cache, RepoId("org/llama"))
    assert not paths.refs.exists() or not any(paths.refs.iterdir())
    assert not [path for path in paths.snapshot(commit).iterdir() if path.suffix == ".safetensors"]
    assert all("Range" in {key.title() for key in request.headers} for request in ranged(server))


def ranged(server: HubServer) -> list[Request]:
    return [request for request in server.requests if ".safetensors" in request.path and ".json" not in request.path]


def test_a_large_vocabulary_comes_when_it_is_read(server: HubServer, hub: Hub, llama: Path, tmp_path: Path):
    files = files_of(llama)
    files["tokenizer.json"] = files["tokenizer.json"].read_bytes() + b" " * 400_000
    server.repo("org/llama").commit(files)
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    assert "tokenizer.json" in checkpoint.opened.sidecars
    place(checkpoint, {"cpu": 1 << 40})
    assert not [request for request in server.requests if "tokenizer.json" in request.path]
    checkpoint.plan(tmp_path / "a.gguf", format="gguf")
    assert [request for request in server.requests if "tokenizer.json" in request.path]


def test_values_that_a_plan_looks_at_are_fetched_too(server: HubServer, hub: Hub, gguf: Path, tmp_path: Path):
    server.repo("org/tiny-gguf").commit({"tiny-BF16.gguf": gguf, "README.md": b"# tiny"})
    checkpoint = Checkpoint.from_pretrained("org/tiny-gguf", headers_only=True)
    assert checkpoint.name == "tiny-BF16"
    expected = Checkpoint.from_pretrained(gguf).plan(tmp_path / "out", format="safetensors")
    plan = checkpoint.plan(tmp_path / "out", format="safetensors")
    assert normal(plan.as_json()) == normal(expected.as_json())
    assert {step.encoding.name for step in plan.outputs[0].steps} == {"BF16"}
    assert weights_sent(server) < 3_000_000 < gguf.stat().st_size


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_nothing_can_be_made_of_headers(server: HubServer, hub: Hub, llama: Path, gguf: Path, tmp_path: Path, kind: str):
    server.repo("org/name").commit(files_of(llama) if kind == "safetensors" else {"tiny.gguf": gguf})
    checkpoint = Checkpoint.from_pretrained("org/name", headers_only=True)
    plan = checkpoint.plan(tmp_path / "out", format="mlx")
    with pytest.raises(UsageError, match="only its headers were fetched"):
        run(plan, force=True)
    assert not list(tmp_path.glob("out*"))
    from hubclient.rows import FilePool, Reader

    array = max(checkpoint.model.tensors.values(), key=lambda array: array.rows * array.columns)
    with FilePool() as pool, pytest.raises(UsageError, match="only its headers were fetched"):
        array.read(0, 1, Reader(pool).floats)


def test_a_skeleton_that_is_left_behind_is_no_checkpoint(server: HubServer, hub: Hub, llama: Path, tmp_path: Path):
    server.repo("org/llama").commit(files_of(llama))
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    weights = [file.path for file in checkpoint.opened.files if file.path.name.endswith(".safetensors")]
    assert [path.stat().st_size for path in weights] == [0, 0]
    shutil.copytree(checkpoint.opened.path, tmp_path / "copy")
    with pytest.raises(DamagedInput, match="too short for a safetensors file"):
        Checkpoint.from_pretrained(tmp_path / "copy")


def test_the_folder_lives_as_long_as_anything_that_was_opened(server: HubServer, hub: Hub, llama: Path):
    server.repo("org/llama").commit(files_of(llama))
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    folder, model = checkpoint.opened.path, checkpoint.model
    del checkpoint
    gc.collect()
    assert model.tokenizer is not None and folder.is_dir()
    del model
    gc.collect()
    assert not folder.exists() and not folder.parents[2].exists()


def test_weights_come_when_they_are_wanted_and_outputs_are_noted(
    server: HubServer, hub: Hub, llama: Path, tmp_path: Path, cache: Path
):
    extra = {"original/consolidated.00.pth": b"p" * 100_000, "onnx/model.onnx": b"o", "pytorch_model.bin": b"b"}
    commit = server.repo("org/llama").commit({**files_of(llama), **extra, "README.md": b"# Llama", "LICENSE": b"free"})
    done: list[tuple[int, int]] = []
    checkpoint = Checkpoint.from_pretrained("org/llama@main", progress=lambda *now: done.append(now))
    paths = RepoPaths(cache, RepoId("org/llama"))
    assert not checkpoint.headers_only and checkpoint.opened.path == paths.snapshot(commit) and done
    (out,) = checkpoint.save_pretrained(tmp_path / "a.gguf", format="gguf", type="bf16")
    assert sorted(files_of(paths.snapshot(commit))) == sorted([*files_of(llama), "README.md", "LICENSE"])
    (noted,) = read_outputs(paths)
    assert (noted.path, noted.format, noted.type, noted.commit) == (str(out), "gguf", "BF16", commit)
    assert verify(out, "org/llama").ok and commit in last_used(paths)


def test_what_is_here_takes_no_request_for_a_commit(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    commit = server.repo("org/llama").commit(files_of(llama))
    hub.pull("org/llama")
    server.clear()
    assert not Checkpoint.from_pretrained(f"org/llama@{commit}").headers_only
    assert not Checkpoint.from_pretrained(f"org/llama@{commit}", headers_only=True).headers_only
    assert server.requests == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Checkpoint.from_pretrained("org/llama").model.architecture.name == "llama"
    assert server.requests == []


def test_offline_names_what_is_missing_and_the_command(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/llama").commit(files_of(llama))
    hub.pull("org/llama", include=["*.json"])
    server.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline) as caught:
        Checkpoint.from_pretrained("org/llama", headers_only=True)
    assert caught.value.missing == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert "hubclient pull org/llama" in str(caught.value.hint) and caught.value.missing[0] in str(caught.value)
    assert Checkpoint.from_pretrained("org/llama", only="tokenizer").format == "safetensors"
    with pytest.raises(Offline, match="org/other"):
        Checkpoint.from_pretrained("org/other")
    assert server.requests == []


def test_offline_nothing_is_missed_that_is_not_read(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    spare = {"README.md": b"# Llama", "LICENSE": b"free", "merges.txt": b"#version: 0.2\n", "vocab.json": b"{}"}
    server.repo("org/llama").commit({**files_of(llama), **spare})
    hub.pull("org/llama", exclude=[*spare])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint = Checkpoint.from_pretrained("org/llama")
    assert checkpoint.model.tokenizer is not None and not set(spare) & set(checkpoint.opened.sidecars)
    (checkpoint.opened.path / "tokenizer.json").unlink()
    for blob in (checkpoint.opened.path.parents[1] / "blobs").iterdir():
        if blob.stat().st_size == (llama / "tokenizer.json").stat().st_size:
            blob.unlink()
    with pytest.raises(Offline, match=r"tokenizer\.json") as caught:
        Checkpoint.from_pretrained("org/llama")
    assert "`hubclient pull org/llama --include merges.txt --include tokenizer.json --include vocab.json`" in str(
        caught.value.hint
    )


def test_without_a_hub_it_is_said_that_all_is_here(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    from hubclient.hub.net.session import Session

    commit = server.repo("org/llama").commit(files_of(llama))
    hub.pull("org/llama")

    def unreachable(*_: object, **__: object) -> None:
        raise NetworkFault("no way there")

    monkeypatch.setattr(Session, "get_json", unreachable)
    for ask in (lambda: Checkpoint.from_pretrained("org/llama"), lambda: hub.pull("org/llama", include="*.json")):
        with pytest.raises(NetworkFault, match="no way there") as caught:
            ask()
        assert f"all of org/llama@{commit[:12]}" in str(caught.value.hint) and "--offline" in str(caught.value.hint)
    with pytest.raises(NetworkFault) as caught:
        hub.pull("org/llama@v1")
    assert caught.value.hint is None


def test_offline_a_glance_is_not_taken_for_nothing(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/llama").commit(files_of(llama))
    Checkpoint.from_pretrained("org/llama", headers_only=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="only headers and configs of org/llama are here"):
        Hub(cache=hub.cache).info("org/llama")


def test_an_unknown_architecture_is_said_before_weights_move(server: HubServer, hub: Hub, llama: Path, cache: Path):
    files = files_of(llama)
    files["config.json"] = files["config.json"].read_bytes().replace(b"LlamaForCausalLM", b"NobodyForCausalLM")
    server.repo("org/odd").commit(files)
    with pytest.raises(UnsupportedArchitecture, match="NobodyForCausalLM"):
        Checkpoint.from_pretrained("org/odd")
    assert weights_sent(server) <= 2 * (64 << 10)


def test_errors_call_files_what_they_are_on_the_hub(server: HubServer, hub: Hub, llama: Path):
    files = files_of(llama)
    files["config.json"] = b"{"
    files["model-00002-of-00002.safetensors"] = b"\xff" * 200
    server.repo("org/bad").commit(files)
    with pytest.raises(DamagedInput) as caught:
        Checkpoint.from_pretrained("org/bad", headers_only=True)
    assert str(caught.value).startswith("org/bad:model-00002-of-00002.safetensors: ")


def test_one_gguf_among_several_has_to_be_named(server: HubServer, hub: Hub):
    content = (DATA / "gguf" / "llama3_rope_tied.gguf").read_bytes()
    names = [
        "M-Q4_K_M.gguf",
        "M-Q8_0.gguf",
        "big/M-BF16-00001-of-00002.gguf",
        "big/M-BF16-00002-of-00002.gguf",
        "imatrix.gguf",
        "mmproj-F16.gguf",
    ]
    server.repo("org/many").commit(dict.fromkeys(names, content))
    with pytest.raises(UsageError) as caught:
        Checkpoint.from_pretrained("org/many", headers_only=True)
    assert "holds 3 GGUF models" in str(caught.value) and "mmproj" not in str(caught.value)
    assert "`hubclient pull org/many:big/M-BF16-00001-of-00002.gguf --for gguf`" in str(caught.value.hint)
    for spelling in ("org/many:M-Q4_K_M.gguf", "org/many:Q4_K_M", "org/many:q4_k_m", "hf://org/many/M-Q4_K_M.gguf"):
        assert Checkpoint.from_pretrained(spelling, headers_only=True).name == "M-Q4_K_M"


def test_what_cannot_be_read_is_said_by_name(server: HubServer, hub: Hub):
    server.repo("org/bin").commit({"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    server.repo("org/parts").commit({"unet/model.safetensors": b"x", "model_index.json": b"{}"})
    server.repo("org/none").commit({"README.md": b"# none"})
    for name, told in (("bin", r"pytorch_model\.bin"), ("parts", "unet"), ("none", "no weights")):
        with pytest.raises(UnsupportedFormat, match=told):
            Checkpoint.from_pretrained(f"org/{name}")


def test_an_index_that_names_what_is_not_there_is_refused(server: HubServer, hub: Hub, llama: Path):
    files = files_of(llama)
    del files["model-00002-of-00002.safetensors"]
    server.repo("org/torn").commit(files)
    with pytest.raises(DamagedInput, match=r"model-00002-of-00002\.safetensors"):
        Checkpoint.from_pretrained("org/torn", headers_only=True)


def test_parts_of_a_split_that_are_not_there_are_named(server: HubServer, hub: Hub):
    server.repo("org/torn").commit({"M-00001-of-00003.gguf": b"GGUF", "M-00003-of-00003.gguf": b"GGUF"})
    for source in ("org/torn", "org/torn:M-00003-of-00003.gguf"):
        with pytest.raises(DamagedInput, match=r"1 of the 3 parts .* M-00002-of-00003|'M-00002-of-00003\.gguf'"):
            Checkpoint.from_pretrained(source)


def test_what_another_tool_left_of_a_repository_is_opened_offline(
    server: HubServer, hub: Hub, llama: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    server.repo("org/llama").commit({**files_of(llama), "other.bin": b"o"})
    pulled = hub.pull("org/llama", exclude=["*.bin"])
    (cache / "models--org--llama" / "trees" / f"{pulled.commit}.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert Checkpoint.from_pretrained("org/llama").model.architecture.name == "llama"
    (pulled.snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Offline, match=r"model-00002-of-00002\.safetensors"):
        Checkpoint.from_pretrained("org/llama")


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model-00001-of-00002.safetensors"])
def test_sizes_that_the_list_claims_are_bounded(server: HubServer, hub: Hub, llama: Path, name: str):
    files = files_of(llama)
    if name.endswith(".json"):
        files[name] = b"{" + b" " * 100_000_001
    else:
        files[name] = (1 << 40).to_bytes(8, "little") + b"{" * 1_000_000
    server.repo("org/huge").commit(files)
    with pytest.raises(DamagedInput, match="more than"):
        Checkpoint.from_pretrained("org/huge", headers_only=True)
    assert sum(request.sent_bytes for request in server.requests) < 2_000_000


def test_a_server_without_ranges_is_said_to_be_one(server: HubServer, hub: Hub, llama: Path):
    server.repo("org/llama").commit(files_of(llama))
    server.fault("ignore_range", path="*.safetensors")
    with pytest.raises(NetworkFault, match="sends no parts of files"):
        Checkpoint.from_pretrained("org/llama", headers_only=True)


def test_commands_take_repositories(server: HubServer, hub: Hub, llama: Path, tmp_path: Path, cache: Path):
    commit = server.repo("org/llama").commit(files_of(llama))
    looked = command("inspect", "org/llama", "--json", cwd=tmp_path)
    assert json.loads(looked.stdout)["architecture"] == "llama" and looked.stderr == ""
    placed = command("place", f"org/llama@{commit}", "--device", "cpu=1GiB", "--json", cwd=tmp_path)
    assert json.loads(placed.stdout)["fits"] is True
    dry = command("convert", "hf://org/llama", "--to", "gguf", "--dry-run", "--json", cwd=tmp_path)
    told = json.loads(dry.stdout)
    assert (told["source"], told["sources"][0]["path"]) == ("org/llama", "org/llama:model-00001-of-00002.safetensors")
    assert weights_sent(server) < 1_000_000
    (tmp_path / "taken.gguf").touch()
    taken = command("convert", "org/llama", "taken.gguf", "--to", "gguf", cwd=tmp_path)
    assert (taken.returncode, weights_sent(server) < 1_000_000) == (5, True) and "is already there" in taken.stderr
    made = command("convert", "org/llama", "--to", "gguf", cwd=tmp_path)
    assert made.returncode == 0 and (tmp_path / "llama-BF16.gguf").is_file()
    assert "2 files" in made.stderr and str(cache) in made.stderr and "4.2 MB" in made.stderr
    sent = weights_sent(server)
    proved = command("verify", "llama-BF16.gguf", "--against", "org/llama", cwd=tmp_path)
    assert proved.returncode == 0 and weights_sent(server) == sent


def test_a_projector_may_be_named_on_the_hub_too(server: HubServer, hub: Hub, tmp_path: Path):
    vision = Checkpoint.from_pretrained(Golden("mistral3").checkpoint)
    text, projector = vision.save_pretrained(tmp_path / "a-F16.gguf", format="gguf", type="f16")
    server.repo("org/apart").commit({"a-F16.gguf": text, "mmproj.gguf": projector})
    server.repo("org/both").commit({"a-F16.gguf": text, "mmproj-a-F16.gguf": projector})
    apart = Checkpoint.from_pretrained("org/apart", projector="org/apart:mmproj.gguf", headers_only=True)
    both = Checkpoint.from_pretrained("org/both", headers_only=True)
    for checkpoint in (apart, both):
        assert checkpoint.headers_only and checkpoint.opened.companion is not None
        plan = checkpoint.with_weights().plan(tmp_path / "out", format="safetensors")
        assert normal(plan.as_json()) == normal(checkpoint.plan(tmp_path / "out", format="safetensors").as_json())
        (out,) = run(plan, force=True).paths
        assert verify(out, Checkpoint.from_pretrained(text, projector=projector)).ok


def test_a_checkpoint_goes_to_the_hub_and_comes_back(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", server.token("alice", "write"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    pushed = Checkpoint.from_pretrained(llama).push_to_hub("alice/llama", message="first")
    assert set(files_of(llama)) <= set(pushed.files)
    assert verify("alice/llama", llama).ok


def test_an_import_of_the_parser_needs_no_network_library():
    import subprocess
    import sys

    code = "import sys, hubclient.hub.source.locate; print([n for n in sys.modules if n.split('.')[0] in ('huggingface_hub', 'httpx2', 'numpy')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.fspath(Path.cwd()))
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("of", ["headers", "values"])
def test_an_interrupt_waits_for_no_silent_server(of: str):
    waiting, waited = threading.Event(), threading.Event()

    def fetch(start: int, stop: int, /, stopped: threading.Event | None = None) -> bytes:
        if start == 0:
            waiting.wait(30)
            raise KeyboardInterrupt
        waiting.set()
        assert stopped is not None
        if stopped.wait(30):
            waited.set()
        return bytes(stop - start)

    with pytest.raises(KeyboardInterrupt):
        if of == "values":
            values = skeleton._Values(fetch)
            values.may_be({0: 4, 8: 4})
            values._known[4] = b""
            values.of(0, 4)
        else:
            late = Weights(lambda _start, _stop, stopped=None: fetch(1, 2, stopped), "b", 9)
            files = {"a.safetensors": Weights(fetch, "a", 9), "b.safetensors": late}
            Skeleton(RepoId("org/name"), "a" * 40, {}, files).fetch_headers()
    assert waited.wait(30)


def test_a_plan_holds_the_headers_that_it_was_made_from(server: HubServer, hub: Hub, llama: Path, tmp_path: Path):
    server.repo("org/llama").commit(files_of(llama))
    plan = Checkpoint.from_pretrained("org/llama", headers_only=True).plan(tmp_path / "out", format="mlx")
    gc.collect()
    with pytest.raises(UsageError, match=r"org/llama:.*only its headers were fetched"):
        run(plan)
    lossy = replace(plan, outputs=(replace(plan.outputs[0], losses=("a chat template",)),))
    with pytest.raises(Lossy, match=r"^org/llama: not everything would be carried over: a chat template"):
        run(lossy, strict=True)
    assert plan.as_json()["source"] == "org/llama"


def test_an_error_tells_nowhere_of_the_temporary_folder(server: HubServer, hub: Hub, llama: Path):
    files = files_of(llama)
    files["model-00002-of-00002.safetensors"] = b"\xff" * 200
    server.repo("org/bad").commit(files)
    with pytest.raises(DamagedInput) as caught:
        Checkpoint.from_pretrained("org/bad", headers_only=True)
    error = caught.value
    assert error.args == (str(error),) and error.file == Path("org/bad:model-00002-of-00002.safetensors")
    assert "hubclient-" not in f"{error!r} {error} {error.file} {error.hint}"


@pytest.mark.parametrize("shards", [1, 2])
def test_a_hub_that_fails_does_not_change_the_format(server: HubServer, hub: Hub, tmp_path: Path, shards: int):
    made = Checkpoint.from_pretrained(checkpoints.llama(tmp_path / "plain", sizes={"hidden_size": 64}))
    size = 60_000 if shards > 1 else None
    (folder,) = made.save_pretrained(tmp_path / "mlx", format="mlx", type="4bit", max_shard_size=size)
    server.repo("org/mlx").commit(files_of(folder))
    assert Checkpoint.from_pretrained("org/mlx", headers_only=True).format == "mlx"
    server.fault("status", path="*.safetensors", status=404, nth=1)
    with pytest.raises(EnvironmentFault):
        Checkpoint.from_pretrained("org/mlx", headers_only=True)


LEFT = """
import os, signal
from hubclient.hub.source.temporary import make_temporary
print(make_temporary(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    done = subprocess.run([sys.executable, "-c", LEFT], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    strange = tmp_path / "hubclient-of-somebody"
    strange.mkdir()
    assert left.parent == tmp_path and left.is_dir()
    ours = [make_temporary(), make_temporary()]
    assert sorted(tmp_path.iterdir()) == sorted([strange, *ours])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_leaves_the_folder_to_its_parent(server: HubServer, hub: Hub, llama: Path):
    server.repo("org/llama").commit(files_of(llama))
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    folder = checkpoint.opened.path
    child = os.fork()
    if not child:
        del checkpoint
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.is_dir() and checkpoint.opened.path == folder
