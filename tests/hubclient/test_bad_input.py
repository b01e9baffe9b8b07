"""Files that are cut off, garbled, hostile or huge, and whatever else: one sentence each, and nothing written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import CONFIG, INDEX, TOKENIZER, WEIGHTS, altered_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rawsafetensors import blob
from running import Failing, environment, refused

from hubclient import Checkpoint
from hubclient.errors import HubclientError

Edit = Callable[[Path], object]


# safetensors and the index


def cut(size: int) -> Edit:
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


def put(name: str, data: bytes) -> Edit:
    return lambda folder: (folder / name).write_bytes(data)


def replace(name: str, make: Callable[[Path], object]) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return edit


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        *((cut(size), 4) for size in (0, 1, 7, 8, 9, 100, 2000, -1, -100_000)),
        (put(WEIGHTS, b"hello, this is no tensor file at all"), 4),
        (put(WEIGHTS, b"\xff" * 4096), 4),
        (put(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"), 4),
        (put(WEIGHTS, blob({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, bytes(4))), 4),
        (put(WEIGHTS, blob({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))), 4),
        (put(WEIGHTS, blob(b"{" + b'"a":[' * 50_000)), 4),
        (replace(WEIGHTS, Path.mkdir), 4),
        (replace(WEIGHTS, os.mkfifo), 4),
        (replace(WEIGHTS, lambda path: path.symlink_to("nowhere")), 5),
        (replace(WEIGHTS, lambda path: path.symlink_to(path.name)), 5),
        (replace(CONFIG, os.mkfifo), 4),
        (replace(CONFIG, Path.mkdir), 4),
    ],
)  # fmt: skip
def test_weights_that_are_none(edit: Edit, code: int, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    edit(folder)
    refused(failing, folder, code, "llama/")


def test_a_file_longer_than_its_header_says_is_refused(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"PK\3\4")
    refused(failing, folder, 4, WEIGHTS)


def map_to(**changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] |= {"model.norm.weight": changes["name"]} if "name" in changes else changes
        checkpoints.write_json(folder / INDEX, index)

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        put(INDEX, b"{"),
        put(INDEX, b"{}"),
        put(INDEX, b'{"weight_map": []}'),
        put(INDEX, b'{"weight_map": {}}'),
        *(
            map_to(name=name)
            for name in (5, None, "", "../x.safetensors", "/etc/passwd", "a\\b", "CON", "x\0y", INDEX, "other.safetensors")
        ),
        map_to(name="model-00003-of-00003.safetensors"),
        map_to(ghost="model-00001-of-00002.safetensors"),
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        lambda folder: shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors"),
    ],
)
def test_an_index_that_lies(edit: Edit, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=2)
    edit(folder)
    refused(failing, folder, 4, INDEX)


@pytest.mark.parametrize("gone", [WEIGHTS, CONFIG])
def test_a_folder_that_lacks_what_matters(gone: str, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / gone).unlink()
    refused(failing, folder, 3 if gone == WEIGHTS else 4, "llama", gone)


# Tokenizer and other small files


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"model": 5}', b'{"model": {"type": "BPE"}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 1000000000}, "merges": []}}',
        b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}',
    ],
)  # fmt: skip
def test_a_tokenizer_that_is_none(text: bytes, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / TOKENIZER).write_bytes(text)
    refused(failing, folder, 4, f"llama/{TOKENIZER}: ")
    shutil.rmtree(tmp_path / "out")
    refused(failing, folder, 4, f"llama/{TOKENIZER}: ", only="tokenizer")


def test_an_unknown_kind_of_tokenizer_is_unsupported(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / TOKENIZER).write_bytes(b'{"model": {"type": "Foo", "vocab": {}}}')
    refused(failing, folder, 3, TOKENIZER, "Foo")


def test_an_unknown_pre_tokenizer_is_unsupported_and_may_be_named(failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    document = json.loads((folder / TOKENIZER).read_text())
    document["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "q+"}, "behavior": "Isolated", "invert": False}
    checkpoints.write_json(folder / TOKENIZER, document)
    code, err = failing("convert", folder, tmp_path / "out.gguf", "--to", "gguf")
    assert code == 3 and "--pre" in err
    Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "out.gguf", format="gguf", pre="gpt-2")


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"]
)
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_small_files_that_are_broken(name: str, text: bytes, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama")
    (folder / name).write_bytes(text)
    refused(failing, folder, 4, f"llama/{name}: ")


@pytest.mark.parametrize(
    ("modules", "pooling"),
    [
        ("{", None),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', None),
        ('[{"type": "x.Pooling", "path": "../other"}]', None),
        ('[{"type": "x.Pooling", "path": {}}]', None),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', "["),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', "[]"),
        ('[{"type": "x.Pooling", "path": "1_Pooling"}]', '{"pooling_mode_max_tokens": true}'),
    ],
)
def test_pooling_that_is_none(modules: str, pooling: str | None, failing: Failing, tmp_path: Path) -> None:
    folder = checkpoints.bert(tmp_path / "bert")
    (folder / "modules.json").write_text(modules)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / CONFIG).write_text(pooling)
    refused(failing, folder, 4, "bert/modules.json" if pooling is None else "1_Pooling/config.json")


# Bounded time and memory


SPARSE = {
    CONFIG: 1 << 30, TOKENIZER: 1 << 30, "tokenizer.model": 1 << 30, "tokenizer_config.json": 1 << 30, "generation_config.json": 1 << 30,
    "modules.json": 1 << 30, "README.md": 1 << 30, INDEX: 1 << 30,
}  # fmt: skip


@pytest.mark.parametrize("name", SPARSE)
def test_a_gigabyte_where_a_small_file_belongs_is_not_read(name: str, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "llama", shards=2 if name == INDEX else 1)
    with (folder / name).open("ab") as file:
        file.truncate(SPARSE[name])
    for target in ("gguf", "safetensors"):
        line = [sys.executable, "-m", "hubclient", "convert", str(folder), str(tmp_path / "out"), "--to", target]
        done = subprocess.run(
            line, env=environment(), capture_output=True, text=True, timeout=60, preexec_fn=_little_memory, check=False
        )
        if target == "gguf" or done.returncode != 0:
            assert done.returncode == 4 and f"{name}: is 1,073,741,824 bytes" in done.stderr, done.stderr
        assert not (tmp_path / "out").exists() or name == "modules.json"
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def _little_memory() -> None:
    """Too little for a gigabyte of text; code and libraries take their share of addresses."""
    resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))


# Whatever bytes


def valid_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Small right checkpoints of every kind, by file."""
    folder = tmp_path_factory.mktemp("samples")
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1}
    llama = checkpoints.llama(folder / "llama", sizes=sizes)
    checkpoints.write_json(llama / "generation_config.json", {"temperature": 0.6, "top_k": 5})
    (path,) = Checkpoint.from_pretrained(llama).save_pretrained(folder / "gguf" / "model.gguf", format="gguf")
    bare = altered_gguf(path, folder, {"hubclient.tokenizer": None, "hubclient.checkpoint": None})
    (folder / "bare").mkdir()
    bare.rename(folder / "bare" / "model.gguf")
    small = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 4, "num_attention_heads": 2}
    checkpoints.bert(folder / "bert", sizes=small)
    checkpoints.llama(folder / "sharded", shards=2, sizes=sizes)
    return {name: valid_files(folder / name) for name in ("llama", "gguf", "bare", "bert", "sharded")}


def damage(data: st.DataObject, content: bytes) -> bytes:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, min(len(broken), 6000) - 1)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "remove", "swap"]))
        if how == "flip" and broken:
            broken[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del broken[at:]
        elif how == "insert":
            broken[at:at] = data.draw(
                st.binary(max_size=8) | st.sampled_from([b"[", b"{", b'"', b"null", b"-1", b"1e999", b"\xff" * 8])
            )
        elif how == "remove":
            del broken[at : at + data.draw(st.integers(1, 64))]
        elif how == "swap" and broken:
            other = data.draw(st.integers(0, len(broken) - 1))
            broken[at], broken[other] = broken[other], broken[at]
    return bytes(broken)


@pytest.mark.parametrize("kind", ["llama", "gguf", "bare", "bert", "sharded"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_is_damaged_only_our_errors_come_out(
    kind: str, data: st.DataObject, samples: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = samples[kind]
    victim = data.draw(st.sampled_from(sorted(files)))
    folder = tmp_path_factory.mktemp("damaged")
    for name, content in files.items():
        (folder / name).write_bytes(damage(data, content) if name == victim else content)
    source = folder / "model.gguf" if "model.gguf" in files else folder
    for target in ("gguf", "safetensors"):
        try:
            Checkpoint.from_pretrained(source).plan(folder / "out", format=target).as_json()
        except HubclientError as error:
            assert error.exit_code in (2, 3, 4, 5) and str(error)
    shutil.rmtree(folder)
