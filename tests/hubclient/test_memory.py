"""Peak memory follows --max-memory, not the size of a model or of a tensor."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from rawsafetensors import entry
from running import environment

from benchmarks.checkpoints import write_checkpoint
from benchmarks.deepseek import DeepSeekV3

# The peak of this very program: what a child's rusage tells may be the parent's, from before the child's exec.
MEASURED = """
import atexit, pathlib, sys
def tell():
    status = pathlib.Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(tell)
from hubclient.cli import main
main()
"""
MIB = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")


def hollow(
    folder: Path, base: Mapping[str, Any], shapes: Callable[[Mapping[str, Any]], checkpoints.Shapes], dtype: str, **sizes: Any
) -> Path:
    """A checkpoint whose weights are one hole: any size, written in no time."""
    folder.mkdir()
    config = {**base, **sizes}
    checkpoints.write_json(folder / "config.json", config)
    for name, data in checkpoints.byte_level().items():
        (folder / name).write_bytes(data)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes(config).items():
        size = math.prod(shape) * {"BF16": 2, "F32": 4}[dtype]
        header[name] = entry(dtype, shape, end, end := end + size)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def peak(folder: Path, source: Path, *options: str) -> int:
    """Bytes of resident memory that a conversion took at most."""
    out = folder / "{type}.gguf"
    line = [sys.executable, "-c", MEASURED, "convert", str(source), str(out), "--to", "gguf", "--force", *options]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in folder.glob("*.gguf"):
        path.unlink()
    return int(done.stderr.split()[-1]) * 1024


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory")


@pytest.fixture(scope="module")
def one_tensor(work: Path) -> tuple[Path, Path]:
    """A model that is one tensor of 300 MB, and one of 2 MB."""
    shapes, wide = checkpoints.llama_shapes, {"num_hidden_layers": 0, "tie_word_embeddings": True, "hidden_size": 4096}
    return hollow(work / "big", checkpoints.LLAMA, shapes, "BF16", **wide, vocab_size=36_864), hollow(
        work / "small", checkpoints.LLAMA, shapes, "BF16", **wide
    )


@pytest.mark.parametrize("types", [("bf16",), ("q8_0",), ("f32", "f16", "q8_0")], ids="-".join)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_one_large_tensor_takes_no_more_than_allowed(
    types: tuple[str, ...], jobs: str, one_tensor: tuple[Path, Path], work: Path
) -> None:
    big, small = one_tensor
    options = ("--max-memory", "64M", "--jobs", jobs, *(part for kind in types for part in ("--type", kind)))
    assert peak(work, big, *options) <= peak(work, small, *options) + 64 * MIB


def test_rows_that_change_places_take_no_more(work: Path) -> None:
    """Rope: 4096 heads of 64, half of whose rows lie apart."""
    sizes = {"num_hidden_layers": 1, "tie_word_embeddings": True, "hidden_size": 256, "head_dim": 64, "num_attention_heads": 4096}
    big = hollow(work / "rope", checkpoints.LLAMA, checkpoints.llama_shapes, "BF16", **sizes)
    small = hollow(
        work / "rope-small", checkpoints.LLAMA, checkpoints.llama_shapes, "BF16", **{**sizes, "num_attention_heads": 16}
    )
    options = ("--max-memory", "64M", "--type", "q8_0")
    assert peak(work, big, *options) <= peak(work, small, *options) + 64 * MIB


def test_transposed_matrices_take_no_more(work: Path) -> None:
    big = hollow(work / "gpt2", checkpoints.GPT2, checkpoints.gpt2_shapes, "F32", n_embd=2304, n_layer=1)
    small = hollow(work / "gpt2-small", checkpoints.GPT2, checkpoints.gpt2_shapes, "F32", n_embd=64, n_layer=1)
    options = ("--max-memory", "64M", "--type", "f16", "--jobs", "2")
    assert peak(work, big, *options) <= peak(work, small, *options) + 64 * MIB


def test_experts_that_are_stacked_take_no_more(work: Path) -> None:
    """One tensor of 134 MB that lies in a hundred shards, three times."""
    sizes: dict[str, Any] = {
        "heads": 2,
        "intermediate": 512,
        "query_rank": 64,
        "latent": 64,
        "vocab": 300,
        "layers": 4,
        "further": 0,
    }
    big = write_checkpoint(DeepSeekV3(hidden=512, expert_width=512, **sizes), work / "experts")
    small = write_checkpoint(DeepSeekV3(hidden=64, expert_width=64, **sizes), work / "experts-small")
    options = ("--max-memory", "64M", "--type", "q8_0", "--jobs", "2")
    assert peak(work, big, *options) <= peak(work, small, *options) + 64 * MIB


def test_a_smaller_bound_takes_less(one_tensor: tuple[Path, Path], work: Path) -> None:
    big, _ = one_tensor
    few, many = (peak(work, big, "--type", "q8_0", "--max-memory", size, "--jobs", "8") for size in ("48M", "2G"))
    assert few + 20 * MIB < many


def test_a_plan_of_a_model_larger_than_any_memory_is_made(work: Path) -> None:
    sizes = {
        "hidden_size": 16_384,
        "intermediate_size": 53_248,
        "num_hidden_layers": 126,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
    }
    huge = hollow(work / "huge", checkpoints.LLAMA, checkpoints.llama_shapes, "BF16", **sizes)
    assert os.stat(huge / "model.safetensors").st_size > 700 * 10**9
    line = [sys.executable, "-c", MEASURED, "convert", str(huge), str(work / "huge.gguf"), "--to", "gguf", "--dry-run", "--json"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outputs"][0]["bytes"] > 700 * 10**9
    assert int(done.stderr.split()[-1]) * 1024 < 400 * MIB
