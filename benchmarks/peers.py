"""Peers' virtual environments, each made once under the folder of the benchmarks."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

MLX = ("mlx", "mlx[cpu]==0.32.4 mlx-lm==0.32.2 transformers==5.23.0")
TRANSFORMERS = ("transformers", "torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0")
GGML = ("ggml", "xllamacpp==2026.10.11549")


def python_of(home: Path, requirements: str, then: Callable[[str], object] = lambda _: None) -> str:
    """The Python of the environment in `home`, made if it is not there: the requirements, and then what else is to be done."""
    python = str(home / "venv" / "bin" / "python")
    if not (home / "ready").exists():
        venv.create(home / "venv", with_pip=True, clear=True)
        pip(python, "install", "--quiet", *requirements.split())
        then(python)
        (home / "ready").touch()
    return python


def peer(bench: Path, which: tuple[str, str]) -> str:
    """The Python of one of the environments above."""
    name, requirements = which
    return python_of(bench / name, requirements)


def pip(python: str, *arguments: str) -> None:
    """Run pip in an environment, saying so."""
    print(f"pip {' '.join(arguments)}", file=sys.stderr)
    subprocess.run([python, "-m", "pip", *arguments], check=True)
