"""Distributions installed by pip into folders of their own, a tiny checkpoint, and the command line in its own process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rawsafetensors import entry, put
from reference import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Run = Callable[..., "subprocess.CompletedProcess[str]"]

CONFIG = {
    "architectures": ["LarchForCausalLM"],
    "model_type": "larch",
    "n_blocks": 3,
    "d_model": 64,
    "d_ff": 96,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_size": 16,
    "max_length": 128,
    "norm_eps": 1e-05,
    "rotary_base": 50000.0,
    "vocab_size": 258,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bark": {"thickness": 3},
}
BLOCK = {
    "norm1.weight": (64,),
    "attn.qkv.weight": (128, 64),
    "attn.out.weight": (64, 64),
    "norm2.weight": (64,),
    "mlp.gate.weight": (96, 64),
    "mlp.up.weight": (96, 64),
    "mlp.down.weight": (64, 96),
}
SHAPES = {
    "trunk.embed.weight": (258, 64),
    **{f"trunk.blocks.{layer}.{name}": shape for layer in range(3) for name, shape in BLOCK.items()},
    "trunk.norm.weight": (64,),
}


def _pip_install(source: Path, work: Path) -> Path:
    """Install a distribution, from a copy because setuptools leaves its build beside the source, without any index."""
    copy, target = work / "source", work / "site"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(target), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples/hubclient-larch is installed."""
    return _pip_install(ROOT / "examples" / "hubclient-larch", tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution that raises on import is installed."""
    return _pip_install(ROOT / "tests" / "distributions" / "broken", tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def willow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that docs/add-an-architecture.md shows, as its files."""
    page = (ROOT / "docs" / "add-an-architecture.md").read_text()
    folder = tmp_path_factory.mktemp("willow")
    for name, content in re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="session")
def willow_site(willow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed."""
    return _pip_install(willow, tmp_path_factory.mktemp("willow-site"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(*arguments, sites=[folders])` is `hubclient` in its own process, elsewhere, with those distributions installed."""

    def invoke(*arguments: str | Path, sites: list[Path], **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "import sys; from hubclient.cli import main; sys.exit(main())", *map(str, arguments)]
        paths = os.pathsep.join(map(str, [ROOT, *sites]))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUBCLIENT_")}
        settings = {"PYTHONPATH": paths, "HUBCLIENT_CONFIG_DIR": str(tmp_path / "config")}
        env = {**inherited, **settings, **environ}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)

    return invoke


@pytest.fixture
def larch(tmp_path: Path) -> Path:
    """A tiny random checkpoint of an architecture that hubclient does not know: bfloat16, tied, bytes for tokens."""
    random = np.random.default_rng(7)
    header, data = {}, b""
    for name, shape in SHAPES.items():
        bits = (random.standard_normal(shape).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = entry("BF16", shape, len(data), len(data) + len(bits))
        data += bits
    folder = tmp_path / "larch"
    put(folder / "model.safetensors", header, data)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    """GPT-2's structure with one merge: 256 bytes, "th", and an end of text."""
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({**vocabulary, "th": 256}, [("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


@pytest.fixture
def tensors() -> Callable[[Path], dict[str, tuple[str, list[int], bytes]]]:
    """`tensors(folder)`: dtype, shape and bytes by name of a folder's model.safetensors."""

    def read(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
        content = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        return {
            name: (entry["dtype"], entry["shape"], content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
            for name, entry in header.items()
        }

    return read
