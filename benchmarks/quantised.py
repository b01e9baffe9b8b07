"""A Q4_K_M GGUF of 1.1 billion parameters to bf16 safetensors, against Transformers merely loading it.

Both are whole processes; the time of hubclient ends when the output is on the disk, that of Transformers when the model is in
memory. ggml packs the file, through the functions that xllamacpp's wheel exports, by llama-quantize's recipe.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.checkpoints import ensure
from benchmarks.figures import Figure, ratio
from benchmarks.ggml import encode, library
from benchmarks.peers import TRANSFORMERS, peer
from benchmarks.runs import Contest, fresh, hubclient, in_turns, measured

if TYPE_CHECKING:
    import ctypes

    from hubclient.formats.model import Encoding, TensorRef

TIMES_FASTER = 8.0
_LOAD = "import sys; from transformers import AutoModelForCausalLM as M; M.from_pretrained(sys.argv[1], gguf_file=sys.argv[2])"
_Q4_K_M, _ROWS = 15, 4096  # llama_ftype; rows packed at a time


def measure(bench: Path, rounds: int) -> list[Figure]:
    """Speed and memory."""
    file, small, out = _packed("tinyllama", bench), _packed("small", bench), bench / "out" / "unpacked"
    contest = Contest(
        {
            "Transformers": [peer(bench, TRANSFORMERS), "-c", _LOAD, str(file.parent), file.name],
            "hubclient": hubclient("convert", file, out, "--to", "safetensors", "--type", "bf16"),
        },
        lambda: fresh(out, file),
        synced={"hubclient"},
    )
    measured(hubclient("convert", small, fresh(out, small), "--to", "safetensors", "--type", "bf16"))
    runs = in_turns(rounds, contest.contestants)
    fresh(out)
    what = "1.1 B of Q4_K_M to bf16 safetensors"
    return [
        ratio(f"{what}, Transformers loading it / hubclient", "Transformers", "hubclient", runs, TIMES_FASTER, at_least=True),
        Figure(f"peak memory, {what}", statistics.median(contest.peaks["hubclient"]), "MiB", None, False, contest.peaks, "MiB"),
    ]


def _packed(name: str, bench: Path) -> Path:
    """The Q4_K_M file of a checkpoint, made if it is not there."""
    path = bench / "checkpoints" / f"{name}-q4_k_m.gguf"
    if not path.exists():
        from hubclient import Checkpoint

        plain = bench / "out" / f"{name}-bf16.gguf"
        Checkpoint.from_pretrained(ensure(name, bench)).save_pretrained(plain, format="gguf", type="bf16", force=True)
        pack(plain, path, library(bench))
        plain.unlink()
    return path


def pack(plain: Path, path: Path, ggml: ctypes.CDLL) -> None:
    """A bf16 GGUF of a Llama in Q4_K_M; the file appears under its name when it is complete."""
    from hubclient.formats.gguf import FORMAT
    from hubclient.formats.model import OutputSpec, TensorSpec, Value

    opened = FORMAT.open(plain)
    layers = opened.metadata["llama.block_count"].value
    specs = tuple(TensorSpec(ref.name, ref.shape, kind_of(ref, layers)) for ref in opened.tensors.values())
    metadata = {**opened.metadata, "general.file_type": Value("u32", _Q4_K_M)}
    (layout,) = FORMAT.layout(OutputSpec(path.name, specs, metadata))
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(layout.head)
        for place, spec, ref in zip(layout.tensors, specs, opened.tensors.values(), strict=True):
            file.seek(place.offset)
            for piece in _pieces(ref, spec.encoding, ggml):
                file.write(piece)
        file.truncate(layout.size)
    partial.rename(path)


def kind_of(ref: TensorRef, layers: int) -> Encoding:
    """The type that llama-quantize gives a tensor: more bits for the output, and in some blocks for two of the matrices."""
    from hubclient.formats.encodings import ENCODINGS

    if len(ref.shape) < 2 or ref.shape[-1] % 256:
        return ref.encoding
    more = ref.name == "output.weight"
    if ref.name.endswith(("attn_v.weight", "ffn_down.weight")):
        block = int(ref.name.split(".")[1])
        more = block < layers // 8 or block >= 7 * layers // 8 or (block - layers // 8) % 3 == 2  # use_more_bits
    return ENCODINGS["Q6_K" if more else "Q4_K"]


def _pieces(ref: TensorRef, encoding: Encoding, ggml: ctypes.CDLL) -> Iterator[Any]:
    """The tensor's bytes in `encoding`, some rows at a time."""
    import numpy as np

    stored = np.memmap(ref.file, np.uint8, "r", ref.offset, (ref.nbytes,))
    if encoding == ref.encoding:
        yield stored
        return
    columns = ref.shape[-1]
    halves = stored.view(np.uint16).reshape(-1, columns)
    for start in range(0, len(halves), _ROWS):
        values = (halves[start : start + _ROWS].astype(np.uint32) << 16).view(np.float32)
        yield encode(ggml, values, encoding)
