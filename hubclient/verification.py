"""verify: are two checkpoints the same model? Tensor by tensor, in the layout of the first, then metadata and tokenizer.

The reference goes through its architecture into the layout of the checkpoint under test, row by row, and is encoded as
that one is. Equal bytes are "exact"; a difference within what the encoding may lose is "within"; anything else "wrong".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hubclient.architectures.language.arrays import Array
from hubclient.bounds import close
from hubclient.checkpoint import Checkpoint
from hubclient.errors import UnsupportedEncoding
from hubclient.formats import codecs
from hubclient.formats.encodings import F32
from hubclient.formats.ggml import USES_IMPORTANCE
from hubclient.formats.sourcefile import read_source
from hubclient.ground.machine import cores
from hubclient.model import Request, common, encodings_of, leaf
from hubclient.rows import FilePool, Reader, packed
from hubclient.spokes import spoke
from hubclient.spokes.storage import RECORDED, Importance
from hubclient.work import pack

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Leaf
    from hubclient.formats.gguf.imatrix import ImportanceMatrix
    from hubclient.formats.model import OpenedCheckpoint, TensorRef
    from hubclient.model import Model, Target

    Rows = np.ndarray[Any, Any]

Verdict = Literal["exact", "within", "wrong", "missing", "extra"]
_TILE = 1 << 20  # elements
_TILE_ACROSS = 1 << 23  # the same for transposed matrices, of which every tile reads all
# Keys that name the file, not the model; our own keys; and what an encoding is called.
_LINE = 80  # characters of two values that are told
_UNCOMPARED = (
    "general.name",
    "general.file_type",
    "general.size_label",
    "general.quantization_version",
    "hubclient.",
    "split.",
    "quantize.",
)
_ENCODED = ("dtype", "torch_dtype", "quantization", "quantization_config")


@dataclass(frozen=True, slots=True)
class TensorVerdict:
    """One tensor: its name in the checkpoint under test, the verdict and the largest absolute difference."""

    name: str
    verdict: Verdict
    largest: float = 0.0
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain data; `largest` is null where a number stands against none."""
        largest = self.largest if math.isfinite(self.largest) else None
        return {"name": self.name, "verdict": self.verdict, "largest": largest, **({"why": self.why} if self.why else {})}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `verify`. `differences` are metadata and tokenizer keys that are not equal; `uncompared` are sentences on
    parts that only one of the two has, which is no fault.
    """

    path: Path
    against: Path
    tensors: tuple[TensorVerdict, ...]
    differences: tuple[str, ...]
    uncompared: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if no tensor is wrong, missing or extra and no key differs."""
        return not self.differences and all(tensor.verdict in ("exact", "within") for tensor in self.tensors)

    def counts(self) -> dict[str, int]:
        """Tensors by verdict."""
        result: dict[str, int] = {}
        for tensor in self.tensors:
            result[tensor.verdict] = result.get(tensor.verdict, 0) + 1
        return result

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "ok": self.ok,
            "path": str(self.path),
            "against": str(self.against),
            "counts": self.counts(),
            "differences": list(self.differences),
            "uncompared": list(self.uncompared),
            "tensors": [tensor.as_json() for tensor in self.tensors],
        }


def verify(
    path: str | os.PathLike[str] | Checkpoint,
    against: str | os.PathLike[str] | Checkpoint,
    *,
    jobs: int | None = None,
    importance: ImportanceMatrix | None = None,
) -> Report:
    """Compare the checkpoint at `path` with the one it should have come from; any two known formats, here or on the Hub.

    Of a vision model in GGUF the projector beside the text part is compared as well. `importance` is the matrix that a GGUF was
    quantised by: its bytes can be held against nothing without it.
    Raises what opening them raises (SourceMissing, UnsupportedFormat, UnsupportedArchitecture, DamagedInput).
    """
    tested, reference = _opened(path), _opened(against)
    model = _packed_alike(reference.model, tested)
    parts, uncompared = _parts(tested, model)
    judged: list[TensorVerdict] = []
    differences: list[str] = []
    for opened, target in parts:
        names = {spec.name: array for spec, array in zip(target.spec.tensors, target.arrays, strict=True)}
        weighted = any(key.startswith(RECORDED) for key in opened.metadata)
        if weighted and importance is None:
            uncompared += (
                f"{opened.path}: was made with an importance matrix, without which only gross faults are seen; --imatrix names it",
            )
        by = _By(importance, weighted)
        judged += _judged(names, opened.tensors, _recomputable(model, target), jobs or cores(), by)
        differences += _differences(opened, target, folder=tested.host.format(tested.format).folder)
    return Report(_path(path), _path(against), tuple(judged), tuple(differences), uncompared)


def _opened(source: str | os.PathLike[str] | Checkpoint) -> Checkpoint:
    return source.with_weights() if isinstance(source, Checkpoint) else Checkpoint.from_pretrained(source)


def _path(source: str | os.PathLike[str] | Checkpoint) -> Path:
    return source.opened.path if isinstance(source, Checkpoint) else Path(source)


def _parts(tested: Checkpoint, model: Model) -> tuple[list[tuple[OpenedCheckpoint, Target]], tuple[str, ...]]:
    """What is tested, each file with what it should be, and what is not."""
    from hubclient.spokes import projector

    writer, asked, opened = spoke(tested.host.format(tested.format)), _request(tested), tested.opened
    parts = [(opened, writer.write(model, asked))]
    if opened.format != "gguf" or asked.only == "projector":
        return parts, ()
    there, wanted = opened.companion, bool(projector.split(model)[1])
    if there is not None and wanted:
        parts.append((there, writer.write(model, replace(asked, only="projector"))))
    elif there is not None:
        return parts, (f"{there.path}: the vision part is not compared, as the reference has none",)
    elif wanted:
        return parts, (f"{opened.path}: the vision part is not compared, as no projector lies beside this file",)
    return parts, ()


def _judged(
    names: Mapping[str, Array], stored: Mapping[str, TensorRef], recomputable: set[str], jobs: int, by: _By
) -> Iterable[TensorVerdict]:
    """Every tensor that is there or should be; those in `recomputable` need not."""
    with FilePool() as pool, ThreadPoolExecutor(jobs, "hubclient") as threads:
        reader = Reader(pool)
        both = [name for name in stored if name in names]
        yield from threads.map(lambda name: _judge(name, names[name], stored[name], reader, by), both)
    yield from (TensorVerdict(name, "missing") for name in names if name not in stored and name not in recomputable)
    yield from (TensorVerdict(name, "extra") for name in stored if name not in names)


def _packed_alike(model: Model, tested: Checkpoint) -> Model:
    """The model with those tensors packed that the checkpoint under test has as they are packed."""
    stored = tested.opened.tensors

    def there(parts: Mapping[str, Leaf]) -> bool:
        return any(name in stored and stored[name].encoding == part.ref.encoding for name, part in parts.items())

    parts = {name: parts for name, parts in model.packed.parts.items() if there(parts)}
    aside = model.packed.aside if parts else {}
    return replace(model, packed=replace(model.packed, parts=parts, aside=aside)) if model.packed.parts else model


def _recomputable(model: Model, target: Target) -> set[str]:
    """Names in the target of tensors (masks, inv_freq) that need not be stored."""
    layouts = model.architecture.layouts.values()
    dropped = {name for layout in layouts for name in layout.match(model.tensors, "hf", {}, model.config).dropped}
    leaves = {id(array) for name, array in model.tensors.items() if name in dropped}
    return {spec.name for spec, array in zip(target.spec.tensors, target.arrays, strict=True) if id(array) in leaves}


def _request(tested: Checkpoint) -> Request:
    from hubclient.spokes import projector
    from hubclient.spokes.carried import load

    carried = load(tested.opened.metadata, tested.opened.path)
    part = "projector" if projector.is_one(tested.opened) else None
    return Request(pre=carried.pre if carried else None, only=part)


class _By(NamedTuple):
    """What quantised tensors went by: the importance matrix, if it is at hand, and whether there was one."""

    matrix: ImportanceMatrix | None = None
    weighted: bool = False

    def of(self, name: str, shape: tuple[int, ...]) -> Importance | None:
        """The importance for a tensor."""
        known = self.matrix is not None and self.matrix.knows(name, shape)
        return Importance(self.matrix, name, shape) if known else None  # type: ignore[arg-type]


_PLAIN = _By()


def _judge(name: str, expected: Array, ref: TensorRef, reader: Reader, by: _By = _PLAIN) -> TensorVerdict:
    if expected.shape != ref.shape:
        return TensorVerdict(name, "wrong", why=f"shape {list(ref.shape)}, expected {list(expected.shape)}")
    stored, exact, within, largest = leaf(ref), True, True, 0.0
    importance = by.of(name, ref.shape) if ref.encoding.name in USES_IMPORTANCE else None
    step = max(1, (_TILE if expected.local else _TILE_ACROSS) // max(1, stored.columns))
    try:
        for start in range(0, stored.rows, step):
            stop = min(start + step, stored.rows)
            if not _same_bytes(expected, stored, start, stop, reader, importance):
                exact = False
                want, have = expected.read(start, stop, reader.floats), stored.read(start, stop, reader.floats)
                fits, difference = close(want, have, ref.encoding, weighted=by.weighted)
                within, largest = within and fits, max(largest, difference)
    except UnsupportedEncoding as error:
        return TensorVerdict(name, "wrong", why=str(error))
    return TensorVerdict(name, "exact" if exact else "within" if within else "wrong", largest)


def _same_bytes(expected: Array, stored: Array, start: int, stop: int, reader: Reader, importance: Importance | None) -> bool:
    import numpy as np

    (encoding,) = encodings_of(stored)
    source = common(expected)
    if source is not None and source == common(stored):
        return bool(np.array_equal(expected.read(start, stop, reader.native), stored.read(start, stop, reader.native)))
    if source is not None and codecs.can_repack(source, encoding) and common(stored) is not None:
        rows = packed(expected.read(start, stop, reader.native))
        want = codecs.transcode(rows, source, encoding, expected.columns)
        return bool(np.array_equal(want, packed(stored.read(start, stop, reader.native))))
    values = expected.read(start, stop, reader.floats)
    if not codecs.can_encode(encoding) or (codecs.needs_importance(encoding) and importance is None):
        return bool(np.array_equal(values, stored.read(start, stop, reader.floats)))
    want = pack(packed(values), F32, encoding, expected.columns, (start, expected.rows), importance)
    return bool(np.array_equal(want, packed(stored.read(start, stop, reader.native))))


def _differences(opened: OpenedCheckpoint, target: Target, *, folder: bool) -> Iterable[str]:
    from hubclient.formats.tokenizers.hf import TOKENIZER_LIMIT

    if not folder:  # all is in the one file
        yield from _unequal(_plain(target.spec.metadata), _plain(opened.metadata))
        return
    for name, data in target.spec.sidecars.items():
        if name not in opened.sidecars:
            yield f"{name} is missing"
        elif not _same_file(data, read_source(opened.sidecars[name], TOKENIZER_LIMIT)[0], name):
            yield f"{name} differs"


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.value for key, value in metadata.items() if not key.startswith(_UNCOMPARED)}


def _unequal(want: Mapping[str, Any], have: Mapping[str, Any]) -> Iterable[str]:
    for key in {**want, **have}:
        if key not in have:
            yield f"{key} is missing"
        elif key not in want:
            yield f"{key} is not expected"
        elif not _equal(want[key], have[key]):
            yield f"{key} differs{_values(want[key], have[key])}"


def _values(want: Any, have: Any) -> str:
    """Both, where they are short enough for a line."""
    told = f": {have!r} instead of {want!r}"
    plain = all(isinstance(value, str | int | float) for value in (want, have))
    return told if plain and len(told) <= _LINE else ""


def _equal(one: Any, two: Any) -> bool:
    import numpy as np

    if isinstance(one, float) and isinstance(two, int | float):
        return bool(np.float32(one) == np.float32(two))
    if isinstance(one, Sequence) and isinstance(two, Sequence) and not isinstance(one, str) and not isinstance(two, str):
        return bool(one == two) or (len(one) == len(two) and all(map(_equal, one, two)))
    return bool(one == two)


def _same_file(one: bytes, two: bytes, name: str) -> bool:
    if one == two or not name.endswith(".json"):
        return one == two
    try:
        want, have = json.loads(one), json.loads(two)
        if name == "config.json" and isinstance(want, dict) and isinstance(have, dict):
            for key in _ENCODED:  # tensors are judged by the encoding they have
                want.pop(key, None)
                have.pop(key, None)
        return bool(want == have)
    except ValueError:
        return False
