"""What a repository's headers tell before any weight byte moves: supported or not, which files, how large, is there room."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from hubserver import HubServer
from reference import DATA

from hubclient.cache.asked import Asked
from hubclient.cache.layout import RepoId
from hubclient.checkpoint import Checkpoint
from hubclient.errors import (
    NotEnoughSpace,
    OutputExists,
    UnknownTokenizer,
    Unsupported,
    UnsupportedArchitecture,
    UnsupportedFormat,
    UsageError,
)
from hubclient.ground.words import human
from hubclient.hub.client import Hub
from hubclient.hub.resolve import Resolved, resolve
from hubclient.hub.source.preflight import Preflight, preflight, refuse_early, select_for

Usage = namedtuple("Usage", "total used free")
EXTRA = {
    "original/consolidated.00.pth": b"p" * 300_000,
    "pytorch_model.bin": b"b" * 300_000,
    "tf_model.h5": b"t" * 300_000,
    "flax_model.msgpack": b"f" * 300_000,
    "onnx/model.onnx": b"o" * 300_000,
    "openvino/openvino_model.bin": b"v" * 300_000,
    "consolidated.safetensors": b"c" * 300_000,
    ".gitattributes": b"",
    "figures/loss.png": b"\x89PNG",
}
GGUF = DATA / "gguf" / "llama3_rope_tied.gguf"


def files_of(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(
        tmp_path_factory.mktemp("made") / "llama", sizes={"hidden_size": 256, "intermediate_size": 1024}, shards=2
    )


def resolved(hub: Hub, name: str) -> Resolved:
    return resolve(hub.session, hub.cache, RepoId(name))


def looked(hub: Hub, name: str, target: str | None = None, file: str | None = None) -> Preflight:
    return preflight(hub.session, hub.cache, resolved(hub, name), target, file)


def selected(hub: Hub, name: str, target: str = "gguf", file: str | None = None) -> set[str]:
    return set(select_for(hub.session, hub.cache, resolved(hub, name), target, file))


def sent(server: HubServer) -> int:
    return sum(request.sent_bytes for request in server.requests if request.origin == "cdn")


@pytest.mark.parametrize("target", ["gguf", "safetensors", "mlx"])
def test_exactly_what_the_conversion_reads_is_chosen(server: HubServer, hub: Hub, llama: Path, target: str):
    papers = {"README.md": b"# Llama", "LICENSE": b"free", "LICENSE.txt": b"free"}
    server.repo("org/llama").commit({**files_of(llama), **EXTRA, **papers})
    assert selected(hub, "org/llama", target) == {*files_of(llama), *papers}
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    names = {checkpoint.called(path).partition(":")[2] for path in (file.path for file in checkpoint.opened.files)}
    assert selected(hub, "org/llama", target) == names | set(checkpoint.opened.sidecars)
    assert sent(server) < 600_000


def test_the_output_has_the_size_that_is_told(server: HubServer, hub: Hub, llama: Path, tmp_path: Path):
    server.repo("org/llama").commit(files_of(llama))
    found = looked(hub, "org/llama", "gguf")
    (out,) = Checkpoint.from_pretrained(llama).save_pretrained(tmp_path / "a.gguf", format="gguf")
    assert found.supported and found.outputs == {"BF16": out.stat().st_size}
    assert found.size == sum(path.stat().st_size for path in files_of(llama).values())
    weights = sum(path.stat().st_size for name, path in files_of(llama).items() if name.endswith(".safetensors"))
    assert found.download == weights and list(found.missing) == [
        name for name in files_of(llama) if name.endswith(".safetensors")
    ]
    told = "\n".join(found.lines())
    assert (
        "llama (LlamaForCausalLM)" in told
        and f"becomes gguf BF16: {human(out.stat().st_size)}" in told
        and "converts to" not in told
    )
    assert found.as_json()["supported"] is True and found.as_json()["outputs"] == found.outputs


def test_what_is_here_is_not_downloaded_again(server: HubServer, hub: Hub, llama: Path):
    server.repo("org/llama").commit({**files_of(llama), **EXTRA})
    snapshot = hub.pull("org/llama", target="gguf").snapshot
    assert sorted(files_of(snapshot)) == sorted(files_of(llama))
    assert looked(hub, "org/llama", "mlx").download == 0
    server.clear()
    assert selected(hub, "org/llama", "mlx") == set(files_of(llama)) and sent(server) == 0


def test_what_is_not_supported_is_refused_before_weights_move(server: HubServer, hub: Hub, llama: Path):
    unknown = files_of(llama)
    unknown["config.json"] = unknown["config.json"].read_bytes().replace(b"LlamaForCausalLM", b"NobodyForCausalLM")
    server.repo("org/unknown").commit(unknown)
    found = looked(hub, "org/unknown", "gguf")
    assert not found.supported and isinstance(found.fault, UnsupportedArchitecture) and found.format == "safetensors"
    assert "cannot be converted: " in found.lines()[-1] and "NobodyForCausalLM" in found.as_json()["why"]
    with pytest.raises(UnsupportedArchitecture):
        hub.pull("org/unknown", target="gguf")
    assert sent(server) < 600_000
    assert not looked(hub, "org/unknown").supported
    hub.pull("org/unknown")


def test_a_tensor_without_a_rule_and_a_tokenizer_without_a_name_are_found(server: HubServer, hub: Hub, tmp_path: Path):
    odd = checkpoints.llama(tmp_path / "odd", tensors={"model.layers.0.odd.weight": (8, 8)})
    server.repo("org/odd").commit(files_of(odd))
    with pytest.raises(Unsupported, match=r"model\.layers\.0\.odd\.weight"):
        selected(hub, "org/odd")
    server.repo("org/words").commit(
        {**files_of(checkpoints.llama(tmp_path / "words")), "tokenizer.json": _strange_tokenizer(tmp_path / "words")}
    )
    with pytest.raises((UnknownTokenizer, UsageError)):
        selected(hub, "org/words")


def _strange_tokenizer(folder: Path) -> bytes:
    import json

    document = json.loads((folder / "tokenizer.json").read_bytes())
    document["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "[aeiou]{3}"}, "behavior": "Isolated", "invert": False}
    return json.dumps(document).encode()


def test_the_one_gguf_comes_with_its_parts_and_its_vision_part(server: HubServer, hub: Hub, llama: Path, tmp_path: Path):
    parts = Checkpoint.from_pretrained(llama).save_pretrained(tmp_path / "M.gguf", format="gguf", max_shard_size=1 << 20)
    assert len(parts) > 1
    server.repo("org/split").commit(
        {**{path.name: path for path in parts}, "README.md": b"#", "config.json": b"{}", "mmproj-F16.gguf": b"GGUF"}
    )
    assert selected(hub, "org/split") == {*(path.name for path in parts), "README.md", "mmproj-F16.gguf"}
    assert selected(hub, "org/split", file=parts[1].name) == selected(hub, "org/split")


def test_of_several_ggufs_one_has_to_be_named(server: HubServer, hub: Hub):
    content = GGUF.read_bytes()
    server.repo("org/many").commit({"M-Q4_K_M.gguf": content, "M-Q8_0.gguf": content, "imatrix.gguf": content, "README.md": b"#"})
    with pytest.raises(UsageError, match="holds 2 GGUF models") as caught:
        selected(hub, "org/many")
    assert "org/many:M-Q4_K_M.gguf" in str(caught.value.hint)
    assert selected(hub, "org/many", file="M-Q8_0.gguf") == {"M-Q8_0.gguf", "README.md"}
    assert selected(hub, "org/many", "mlx", file="Q8_0") == {"M-Q8_0.gguf", "README.md"}


def test_pickled_weights_alone_are_said_to_be_unreadable(server: HubServer, hub: Hub):
    server.repo("org/bin").commit({"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    with pytest.raises(UnsupportedFormat, match="not read") as caught:
        selected(hub, "org/bin")
    assert caught.value.exit_code == 3 and "refs/pr" in str(caught.value.hint)


def test_a_full_disk_is_noticed_before(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/llama").commit(files_of(llama))
    found = looked(hub, "org/llama", "gguf")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, found.download - 1))
    with pytest.raises(NotEnoughSpace, match="to be downloaded"):
        selected(hub, "org/llama")


def test_a_conversion_is_refused_before_the_download_if_it_could_not_end(
    server: HubServer, hub: Hub, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server.repo("org/llama").commit(files_of(llama))
    checkpoint = Checkpoint.from_pretrained("org/llama", headers_only=True)
    plan = checkpoint.plan(tmp_path / "a.gguf", format="gguf")
    refuse_early(checkpoint, plan)
    need = plan.outputs[0].size + sum(checkpoint.origins[0].missing.values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, need - 1))
    with pytest.raises(NotEnoughSpace, match="the download and what is made of it"):
        refuse_early(checkpoint, plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, need))
    refuse_early(checkpoint, plan)
    (tmp_path / "a.gguf").touch()
    with pytest.raises(OutputExists):
        refuse_early(checkpoint, plan)
    refuse_early(checkpoint, plan, force=True)


def test_offline_the_list_alone_decides(server: HubServer, hub: Hub, llama: Path, monkeypatch: pytest.MonkeyPatch):
    server.repo("org/llama").commit({**files_of(llama), **EXTRA})
    hub.pull("org/llama", include=["*.json"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = Hub(cache=hub.cache)
    server.clear()
    assert set(select_for(offline.session, offline.cache, resolved(offline, "org/llama"), "gguf")) == set(files_of(llama))
    assert server.requests == []


def test_a_list_that_is_cut_says_by_how_much():
    flight = Preflight(Asked(RepoId("org/x")), "a" * 40, "gguf", {"a": 1}, {}, 0, losses=tuple(f"tensor {n}" for n in range(66)))
    told = [line for line in flight.lines() if line.startswith("not carried over")]
    assert len(told) == 7 and told[-1] == "not carried over: and 60 more, which --json lists"
    assert len(flight.lines()) == 8
