"""Time to open a GGUF vocabulary of 262 thousand tokens, its tokens reachable: ours, and gguf-py's reader if asked.

    python benchmarks/open_vocabulary.py [--gguf-py]

The file has what a large vocabulary has: tokens, scores, token types and 500 thousand merges. Medians of five, warm
cache, imports not counted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from hubclient.formats.gguf.reader import open_checkpoint
from hubclient.formats.gguf.values import NumberArray
from hubclient.formats.gguf.writer import layout_files
from hubclient.formats.model import OutputSpec, Value

TOKENS, MERGES = 262_144, 500_000


def write_vocabulary(path: Path) -> None:
    """A vocabulary-only GGUF with tokens and merges of ordinary lengths."""
    tokens = [f"▁word{i % 977}{i:x}" if i % 3 else f"{i:x}" for i in range(TOKENS)]
    merges = [f"{tokens[i % TOKENS]} {i:x}" for i in range(MERGES)]
    metadata = {
        "general.architecture": Value("str", "llama"),
        "tokenizer.ggml.model": Value("str", "gpt2"),
        "tokenizer.ggml.tokens": Value("[str]", tokens),
        "tokenizer.ggml.scores": Value("[f32]", NumberArray("f32", array("f", range(TOKENS)))),
        "tokenizer.ggml.token_type": Value("[i32]", NumberArray("i32", array("i", [1]) * TOKENS)),
        "tokenizer.ggml.merges": Value("[str]", merges),
    }
    (file,) = layout_files(OutputSpec(path.name, (), metadata))
    path.write_bytes(file.head)


def ours(path: Path) -> None:
    """Open, and read tokens here and there."""
    metadata = open_checkpoint(path).metadata
    tokens = metadata["tokenizer.ggml.tokens"].value
    assert len(tokens) == TOKENS and tokens[TOKENS - 1] and tokens[12345]


def ours_all(path: Path) -> None:
    """Open, and decode every token and merge."""
    metadata = open_checkpoint(path).metadata
    assert len(list(metadata["tokenizer.ggml.tokens"].value)) == TOKENS
    assert len(list(metadata["tokenizer.ggml.merges"].value)) == MERGES


def gguf_py(path: Path) -> None:
    """The reference reader."""
    import gguf

    gguf.GGUFReader(path)


def median(run: Callable[[Path], None], path: Path, times: int) -> float:
    """Median seconds of a run."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run(path)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Write the file, time the readers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        write_vocabulary(path)
        print(f"{path.stat().st_size / 1e6:.1f} MB, {TOKENS} tokens, {MERGES} merges")
        print(f"open, tokens reachable    {median(ours, path, 5):7.3f} s")
        print(f"open, all strings decoded {median(ours_all, path, 5):7.3f} s")
        if "--gguf-py" in sys.argv:
            print(f"gguf-py                   {median(gguf_py, path, 1):7.3f} s")


if __name__ == "__main__":
    main()
