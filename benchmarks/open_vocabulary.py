"""Opening a GGUF whose vocabulary has 262,144 tokens, in process, after imports; every token reachable.

One file is as Gemma 3's (tokens, scores, types), the other has half a million merges besides. The reader of gguf-py is
timed once on each.
"""

from __future__ import annotations

import statistics
import struct
from itertools import islice
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.llama_cpp import LlamaCpp
from benchmarks.runs import fresh, inside
from benchmarks.vocabulary import made_up_words

TOKENS, MERGES = 262_144, 514_906
SECONDS = 0.3
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9  # gguf_metadata_value_type


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Both files."""
    plain, merged = bench / "vocabulary.gguf", bench / "vocabulary-merges.gguf"
    write_vocabulary(plain, TOKENS)
    write_vocabulary(merged, TOKENS, MERGES)
    peer = LlamaCpp(bench)
    figures = []
    for path, what in ((plain, "262,144 tokens"), (merged, "262,144 tokens and 514,906 merges")):
        fresh(bench / "out" / "none", path)
        runs = {"hubclient": [inside("open", path) for _ in range(rounds)], "gguf-py": [peer.seconds_to_open(path)]}
        figures.append(Figure(f"open a GGUF of {what}", statistics.median(runs["hubclient"]), "s", SECONDS, False, runs))
    return figures


def write_vocabulary(path: Path, tokens: int, merges: int = 0) -> None:
    """A GGUF v3 without tensors."""
    words = list(islice(made_up_words(), tokens))
    pairs = [
        _pair("general.architecture", _STRING, _text("gemma3")),
        _pair("tokenizer.ggml.model", _STRING, _text("llama")),
        _array("tokenizer.ggml.tokens", _STRING, tokens, b"".join(map(_text, words))),
        _array("tokenizer.ggml.scores", _F32, tokens, struct.pack(f"<{tokens}f", *range(0, -tokens, -1))),
        _array("tokenizer.ggml.token_type", _I32, tokens, struct.pack("<i", 1) * tokens),
    ]
    if merges:
        listed = (f"{words[index % tokens]} {words[index * 7 % tokens]}" for index in range(merges))
        pairs.append(_array("tokenizer.ggml.merges", _STRING, merges, b"".join(map(_text, listed))))
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _array(key: str, kind: int, count: int, body: bytes) -> bytes:
    return _pair(key, _ARRAY, struct.pack("<IQ", kind, count) + body)
