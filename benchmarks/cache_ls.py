"""`cache ls` over 1000 repositories, 2000 revisions and 40,000 links, against `hf cache ls`: with the catalog, and without yet.

The cache is laid out as huggingface_hub does it, lists of commits included. Both programs run as a user would run them, in a
process of their own, and write their table to nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.runs import hubclient, in_turns, measured

REPOSITORIES, REVISIONS, FILES = 1000, 2, 20
FASTER = 10.0
SETTLE = 2.5  # seconds after which the catalog relies on the times of folders


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Seconds of the whole command."""
    cache = built(bench / "cache_ls")
    env = {
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HUBCLIENT_CATALOG": str(bench / "cache_ls-catalog"),
        "NO_COLOR": "1",
    }
    ours = hubclient("cache", "ls")
    theirs = [str(Path(sys.executable).with_name("hf")), "cache", "ls"]
    contestants = {
        "hubclient": lambda: measured(ours, env=env).seconds,
        "hf": lambda: measured(theirs, env=env).seconds,
    }
    measured(ours, env=env)
    warm = in_turns(rounds, contestants)
    contestants["hubclient"] = lambda: _cold(ours, env)
    cold = in_turns(rounds, contestants)
    return [
        ratio("cache ls of 1000 repositories, catalogued: times as fast as hf", "hf", "hubclient", warm, FASTER, at_least=True),
        ratio("the same, not catalogued yet: times as fast as hf", "hf", "hubclient", cold, 1.0, at_least=True),
    ]


def _cold(command: list[str], env: Mapping[str, str]) -> float:
    """Seconds of a first run."""
    shutil.rmtree(env["HUBCLIENT_CATALOG"], ignore_errors=True)
    return measured(command, env=env).seconds


def built(cache: Path) -> Path:
    """The cache, made unless it is there."""
    done = cache / "CACHEDIR.TAG"
    if not done.exists():
        shutil.rmtree(cache, ignore_errors=True)
        for number in range(REPOSITORIES):
            _repository(cache / f"models--org{number % 50}--name{number}", number)
        time.sleep(SETTLE)
        done.write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    return cache


def _repository(folder: Path, number: int) -> None:
    for name in ("blobs", "refs", "trees"):
        (folder / name).mkdir(parents=True)
    for revision in range(REVISIONS):
        commit = hashlib.sha1(f"{number} {revision}".encode(), usedforsecurity=False).hexdigest()
        (folder / "snapshots" / commit / "unet").mkdir(parents=True)
        files = {}
        for index in range(FILES):
            name = f"file{index}.json" if index % 4 else f"unet/weights{index}.safetensors"
            content = f"{number} {index} {revision * (index % 2)}".encode()  # every other file changes with the revision
            digest = hashlib.sha256(content).hexdigest()
            etag = digest[: 40 if index % 4 else 64]
            (folder / "blobs" / etag).write_bytes(content)
            pointer = folder / "snapshots" / commit / name
            pointer.symlink_to(os.path.relpath(folder / "blobs" / etag, pointer.parent))
            files[name] = {"size": len(content), "blob_id": digest[:40]} | ({} if index % 4 else {"lfs_sha256": digest})
        (folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": files}, indent=1))
        (folder / "refs" / "main").write_text(commit)
