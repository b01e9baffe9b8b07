"""The peer: llama.cpp's converter as its users run it, in a virtual environment of its own.

The source is the one that the source distribution of llama-cpp-python on PyPI carries; the environment gets what the
converter's own requirements file asks for, except that PyTorch is a version for which there are wheels everywhere.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from benchmarks.peers import pip, python_of

DISTRIBUTION = "llama-cpp-python==0.3.36"
REQUIREMENTS = "torch==2.13.0 transformers==4.57.6 numpy~=2.2.6 sentencepiece protobuf safetensors pyyaml tqdm requests"

_OPEN = """
import sys, time
import gguf
start = time.perf_counter()
gguf.GGUFReader(sys.argv[1])
print(time.perf_counter() - start)
"""


class LlamaCpp:
    """An installed peer under `bench`, made if it is not there."""

    def __init__(self, bench: Path) -> None:
        self._home = bench / "llama.cpp"
        self._python = python_of(self._home, REQUIREMENTS, self._fetch)
        self._source = next((self._home / "source").glob("*/vendor/llama.cpp"))

    def convert(self, source: Path, out: Path, kind: str) -> list[str]:
        """The command that converts a checkpoint."""
        script = str(self._source / "convert_hf_to_gguf.py")
        return [self._python, script, str(source), "--outfile", str(out), "--outtype", kind]

    def seconds_to_open(self, path: Path) -> float:
        """Seconds that gguf-py's reader takes to open a file, imports not counted."""
        env = {**os.environ, "PYTHONPATH": str(self._source / "gguf-py")}
        command = [self._python, "-c", _OPEN, str(path)]
        return float(subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout)

    def _fetch(self, python: str) -> None:
        pip(python, "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(self._home), DISTRIBUTION)
        (archive,) = self._home.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(self._home / "source", filter="data")
        archive.unlink()
