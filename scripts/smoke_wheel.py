"""Build sdist and wheel, install the wheel (built from the sdist) elsewhere, and use it from another directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECK = """
import hubclient, hubclient.formats.gguf, hubclient.architectures.llama, hubclient.plugins, hubclient.cache, sys
assert not any(name in sys.modules for name in ("formats", "architectures", "plugins", "cache"))
print(hubclient.__file__)
"""


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    """Run a command, with `path` first among the places that Python imports from; its output."""
    environ = {**os.environ, "PYTHONPATH": str(path)} if path else None
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True, env=environ).stdout


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(ROOT), cwd=work)
        (wheel,) = (work / "dist").glob("*.whl")
        target = work / "elsewhere"
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=work)
        home = run(sys.executable, "-c", CHECK, cwd=work, path=target).strip()
        assert str(target) in home, f"the wheel was not what got imported: {home}"

        def hubclient(*arguments: str) -> str:
            return run(sys.executable, "-m", "hubclient", *arguments, cwd=work, path=target)

        source = ROOT / "tests" / "data" / "golden" / "checkpoints" / "bert"
        hubclient("convert", str(source), "bert.gguf", "--to", "gguf", "--type", "q8_0")
        told = json.loads(hubclient("inspect", "bert.gguf", "--json"))
        assert told["architecture"] == "bert", told
        hubclient("verify", "bert.gguf", "--against", str(source))
    print("the wheel works from another directory")


if __name__ == "__main__":
    main()
