"""The peer: llama.cpp's converter and llama-quantize as their users run them, in a virtual environment of their own.

The source is the one that the source distribution of llama-cpp-python on PyPI carries; the environment gets what the
converter's own requirements file asks for, except that PyTorch is a version for which there are wheels everywhere.
llama-quantize is in no wheel that runs everywhere: it is built, by CMake's own defaults for a release.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from benchmarks.peers import pip, python_of

DISTRIBUTION = "llama-cpp-python==0.3.36"
REQUIREMENTS = "torch==2.13.0 transformers==4.57.6 numpy~=2.2.6 sentencepiece protobuf safetensors pyyaml tqdm requests"
_BUILD = "cmake==4.4.4 ninja==1.13.2"
_OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_OPENSSL=OFF")
_COMPILERS = ("c++", "g++", "clang++", "cl")

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

    def quantize(self, source: Path, out: Path, kind: str, threads: int) -> list[str]:
        """The command that quantises a GGUF; FileNotFoundError if there is no compiler that could build it."""
        return [str(self._tool("llama-quantize")), str(source), str(out), kind, str(threads)]

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

    def _tool(self, name: str) -> Path:
        """A program of llama.cpp's, built if it is not there, which takes some minutes."""
        folder = self._home / "build"
        path = folder / "bin" / name
        if not path.exists():
            if not os.environ.get("CXX") and not any(map(shutil.which, _COMPILERS)):
                raise FileNotFoundError(f"there is no C++ compiler to build {name} with")
            pip(self._python, "install", "--quiet", *_BUILD.split())
            programs = Path(self._python).parent
            ninja = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={programs / 'ninja'}"]
            for step in (
                ["-S", str(self._source), "-B", str(folder), *ninja, *_OPTIONS],
                ["--build", str(folder), "--target", name],
            ):
                subprocess.run([programs / "cmake", *step], stdout=subprocess.DEVNULL, check=True)
        return path
