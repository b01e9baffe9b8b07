"""One importance matrix: the text's chunks through the model, what its weights were multiplied by, and the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient import disk
from hubclient.checkpoint import Checkpoint
from hubclient.errors import DamagedInput, EnvironmentFault, OutputExists, Unsupported, UsageError
from hubclient.formats.encodings import BF16, F32
from hubclient.formats.gguf.imatrix import Entry, ImportanceMatrix, imatrix_data, lay_out_imatrix
from hubclient.formats.gguf.storage import stored_type
from hubclient.imatrix.skeleton import Skeleton, require_libraries
from hubclient.imatrix.text import chunks
from hubclient.rows import FilePool, Reader
from hubclient.spokes import projector
from hubclient.spokes.matching import as_if_stored, converted, located, match
from hubclient.spokes.packed import refuse_unread

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Array
    from hubclient.architectures.language.layouts import Matching
    from hubclient.execute import Progress
    from hubclient.model import Model

    Ids = np.ndarray[Any, Any]

_BATCH = 2048  # tokens that go through a module at once, as in llama-imatrix, or one chunk if it is longer
_RUNS = 64  # batches that wait for each other
_KEPT = 16  # bytes that a batch keeps per token and number of its hidden state: a few float32 copies
DEFAULT_MEMORY = 4 << 30


def compute(
    source: str | os.PathLike[str] | Checkpoint,
    text: str | os.PathLike[str],
    *,
    context: int = 512,
    chunk_limit: int | None = None,
    process_output: bool = False,
    device: str = "auto",
    max_memory: int = DEFAULT_MEMORY,
    progress: Progress | None = None,
) -> ImportanceMatrix:
    """Measure the importance of every column of a model's weights on a text, as llama-imatrix does.

    `context` is the length of a chunk in tokens, `chunk_limit` how many chunks are read at most, `process_output` whether
    output.weight is measured as well, `device` "auto", "cpu" or one of PyTorch's accelerators. Weights are loaded block by block;
    `max_memory` bounds (in bytes) what the chunks that wait for the next block keep: where all do not fit, blocks are
    loaded several times. Raises UsageError, Unsupported*, DamagedInput, or EnvironmentFault if PyTorch is missing.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.from_pretrained(source)
    if context < 1:
        raise UsageError(f"a context of {context} tokens cannot be")
    require_libraries()
    place, ids = _device(device), chunks(checkpoint.model, Path(text), context, chunk_limit)
    with _quietly(checkpoint.opened.path):
        measuring = _Measuring(checkpoint.model, process_output=process_output, device=place, progress=progress)
        measuring.check(ids)
        measuring.run(ids, max_memory)
        return ImportanceMatrix(measuring.entries(), (os.fspath(text),), len(ids), context)


def refuse_existing(out: str | os.PathLike[str], checkpoint: Checkpoint, *, force: bool = False) -> Path:
    """The path to write to, links followed: OutputExists for what is there unless `force`, UsageError for the source itself."""
    path = Path(os.path.realpath(out))
    if any(path == file.path.resolve() for file in checkpoint.opened.all_files):
        raise UsageError(f"{path}: is the source itself; name another output")
    if path.exists() and not (force and path.is_file()):
        raise OutputExists(f"{path}: is already there", path, hint="--force replaces a file")
    return path


def save(matrix: ImportanceMatrix, path: Path) -> None:
    """Write a matrix as llama-imatrix does; it has its name when it is complete."""
    unfinished = path.with_name(path.name + ".partial")
    layout = lay_out_imatrix(matrix, path.name)
    disk.create(unfinished, layout.head, layout.size)
    for place, data in zip(layout.tensors, imatrix_data(matrix), strict=True):
        disk.write_rows(unfinished, data, place.offset)
    disk.sync(unfinished)
    with disk.writing(path):
        unfinished.replace(path)
    disk.sync(path.parent)


class _Measuring:
    """A model, what is seen of it, and how far it is."""

    def __init__(self, model: Model, *, process_output: bool, device: str, progress: Progress | None) -> None:
        from hubclient.imatrix.attention import attend
        from hubclient.imatrix.watch import Watch

        self.model = model
        self.tensors, self.matching = _matched(model)
        self.skeleton = Skeleton(model, self.tensors, self.matching, device)
        self.watch = Watch()
        self._attention = attend(self.skeleton.module, self.watch)
        self._output = process_output and any("output.weight" in bound.outputs for bound in self.matching.bound)
        self._progress = progress
        self._done = self._all = 0
        self._entered = False
        self._checked: set[str] = set()

    def check(self, ids: Ids) -> None:
        """Refuse chunks that are longer than the model reads, and tokens that it does not know."""
        config, path = self.skeleton.module.config.get_text_config(), self.model.opened.path
        known, rows = getattr(config, "max_position_embeddings", None), getattr(config, "vocab_size", None)
        if isinstance(known, int) and ids.shape[1] > known:
            raise UsageError(f"{path}: reads {known} tokens at most, and chunks of {ids.shape[1]} are asked for")
        if isinstance(rows, int) and int(ids.max()) >= rows:
            raise DamagedInput(f"its tokenizer gives the token {int(ids.max())}, its embedding has {rows} rows", file=path)

    def run(self, ids: Ids, max_memory: int) -> None:
        """All chunks through the model, as many at a time as `max_memory` allows."""
        size = max(1, _BATCH // ids.shape[1])
        batches = [ids[at : at + size] for at in range(0, len(ids), size)]
        width = getattr(self.skeleton.module.config.get_text_config(), "hidden_size", 4096)
        held = max(1, min(_RUNS, max_memory // (_KEPT * width * size * ids.shape[1])))
        used = (name for name in self.skeleton.doors if self._output or not self._is_output(name))
        self._all = len(batches) * sum(self.skeleton.sizes[name] for name in used)
        with FilePool() as pool:
            for at in range(0, len(batches), held):
                self._round(batches[at : at + held], Reader(pool))

    def entries(self) -> dict[str, Entry]:
        """What was seen, by GGUF name."""
        found: dict[str, Entry] = {}
        for door in self.skeleton.doors:
            found.update(self._entries_of(door))
        return found

    def _round(self, batches: Sequence[Ids], reader: Reader) -> None:
        import torch

        from hubclient.imatrix.walk import walk

        whole = self.skeleton.module
        core = whole if self._output else whole.base_model

        def read(batch: Ids) -> None:
            with torch.no_grad():
                core(input_ids=torch.from_numpy(batch).to(self.skeleton.device), use_cache=False)

        modules = {path: whole.get_submodule(path) for path in self.skeleton.doors}
        walk([partial(read, batch) for batch in batches], modules, partial(self._served, reader))

    @contextmanager
    def _served(self, reader: Reader, door: str) -> Iterator[Callable[[], None]]:
        """A module with its weights, watched; afterwards it is checked what was seen of it."""
        import torch

        try:
            weights, roundings = self.skeleton.fill(door, reader), self.skeleton.roundings(door)
            with self.watch.knowing(weights, roundings), torch.no_grad(), self._watching():
                yield partial(self._advance, self.skeleton.sizes[door])
        finally:
            self.skeleton.drop(door)
        if door not in self._checked:
            self._check(door)
            self._checked.add(door)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """The watch entered once, also where a module is served within another."""
        if self._entered:
            yield
            return
        self._entered = True
        try:
            with self.watch:
                yield
        finally:
            self._entered = False

    def _advance(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._all)

    def _check(self, door: str) -> None:
        """Refuse a weight that nothing was multiplied by, and numbers that are not finite: as soon as a module is through."""
        arrays = converted(replace(self.matching, bound=self.skeleton.doors[door]), self.tensors, self.model.config, "hf")
        found = self._entries_of(door)
        for name, array in arrays.items():
            if self._is_wanted(name) and name not in found and stored_type(name, array.shape, BF16) != F32:
                told = f"{type(self.skeleton.module).__name__} of Transformers does not multiply by it as llama.cpp does"
                raise Unsupported(f"{self.model.opened.path}: the importance of {name} cannot be measured: {told}")

    def _entries_of(self, door: str) -> dict[str, Entry]:
        """What was seen behind a door, by GGUF name. DamagedInput if it is not finite."""
        import numpy as np

        from hubclient.imatrix.importance import entries

        shapes = {f"{door}.{name}": value.shape for name, value in self.skeleton.module.get_submodule(door).named_parameters()}
        seen = {name: self.watch.seen[name] for name in shapes if name in self.watch.seen}
        sums = {name: one.beside(one.sums.cpu().float(), shapes[name]) for name, one in seen.items()}
        counts = {name: one.beside(one.counts[:, None].expand_as(one.sums).float(), shapes[name]) for name, one in seen.items()}
        latents = self.skeleton.renamed(self._attention.latents)
        stored = self.skeleton.stored(sums), self.skeleton.stored(counts)
        found = entries(self.skeleton.doors[door], self.model.config, *stored, latents)
        for name, entry in found.items():
            if not np.isfinite(entry.sums).all():
                told = f"what {name} is multiplied by is not finite, so weights or the model's config are damaged"
                raise DamagedInput(told, file=self.model.opened.path, tensor=name)
        return {name: entry for name, entry in found.items() if self._is_wanted(name)}

    def _is_wanted(self, name: str) -> bool:
        return name.startswith("blk.") or (self._output and name == "output.weight")

    def _is_output(self, door: str) -> bool:
        return any("output.weight" in bound.outputs for bound in self.skeleton.doors[door])


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Without Transformers' remarks; an accelerator that is too small is an EnvironmentFault."""
    import torch
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = str(error).partition(". ")[0]
        raise EnvironmentFault(
            f"{path}: {told}", path, hint="--max-memory, a shorter --context or --device cpu need less"
        ) from None
    finally:
        logging.set_verbosity(before)


def _matched(model: Model) -> tuple[Mapping[str, Array], Matching]:
    """The text part's Hugging Face tensors in plain numbers, and the rules that make GGUF's of them."""
    if "gguf" not in model.architecture.layouts:
        raise Unsupported(f"{model.opened.path}: {model.architecture.name} has no GGUF layout, in whose names importance is kept")
    refuse_unread(model)
    text, _ = projector.split(model)
    tensors = as_if_stored(replace(model, tensors=text), F32)
    where = str(model.opened.path)
    matching = located(model.opened, lambda: match(model.architecture, "gguf", tensors, "hf", model.config, where))
    return tensors, matching


def _device(name: str) -> str:
    """PyTorch's name of where to compute. UsageError if there is no such place."""
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, dtype=torch.float64, device=name).sum().item()
    except (RuntimeError, AssertionError, TypeError) as error:
        told = str(error).partition("\n")[0]
        raise UsageError(f"PyTorch has no device {name!r} here that sums in float64: {told}") from None
    return name
