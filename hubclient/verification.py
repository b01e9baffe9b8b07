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
from typing import TYPE_CHECKING, Any, Literal

from hubclient.architectures.language.arrays import Array
from hubclient.checkpoint import Checkpoint
from hubclient.errors import UnsupportedEncoding
from hubclient.formats import codecs
from hubclient.formats.sourcefile import read_source
from hubclient.model import Request, encodings_of, leaf
from hubclient.rows import FilePool, Reader, packed
from hubclient.spokes import spoke
from hubclient.tiles import common

if TYPE_CHECKING:
    import numpy as np

    from hubclient.architectures.language.arrays import Leaf
    from hubclient.formats.model import Encoding, OpenedCheckpoint, TensorRef
    from hubclient.model import Model, Target

    Rows = np.ndarray[Any, Any]

Verdict = Literal["exact", "within", "wrong", "missing", "extra"]
_TILE = 1 << 20  # elements
_TILE_ACROSS = 1 << 23  # the same for transposed matrices, of which every tile reads all
# Keys that name the file, not the model; our own keys; and what an encoding is called.
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
# Largest relative rounding of each plain encoding (half a unit in the last place), and its smallest step.
_RELATIVE = {"F64": 0.0, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
_ABSOLUTE = {"F16": 2.0**-25}
_FURTHER = 3.0  # times as far off as our own encoder makes blocks of few bits


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


def verify(path: str | os.PathLike[str], against: str | os.PathLike[str], *, jobs: int | None = None) -> Report:
    """Compare the checkpoint at `path` with the one it should have come from; any two known formats.

    Of a vision model in GGUF the projector beside the text part is compared as well.
    Raises what opening them raises (SourceMissing, UnsupportedFormat, UnsupportedArchitecture, DamagedInput).
    """
    from hubclient.execute import cores

    tested, reference = Checkpoint.from_pretrained(path), Checkpoint.from_pretrained(against)
    model = _packed_alike(reference.model, tested)
    parts, uncompared = _parts(tested, model)
    judged: list[TensorVerdict] = []
    differences: list[str] = []
    for opened, target in parts:
        names = {spec.name: array for spec, array in zip(target.spec.tensors, target.arrays, strict=True)}
        judged += _judged(names, opened.tensors, _recomputable(model, target), jobs or cores())
        differences += _differences(opened, target, folder=tested.host.format(tested.format).folder)
    return Report(Path(path), Path(against), tuple(judged), tuple(differences), uncompared)


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
    names: Mapping[str, Array], stored: Mapping[str, TensorRef], recomputable: set[str], jobs: int
) -> Iterable[TensorVerdict]:
    """Every tensor that is there or should be; those in `recomputable` need not."""
    with FilePool() as pool, ThreadPoolExecutor(jobs, "hubclient") as threads:
        reader = Reader(pool)
        both = [name for name in stored if name in names]
        yield from threads.map(lambda name: _judge(name, names[name], stored[name], reader), both)
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


def _judge(name: str, expected: Array, ref: TensorRef, reader: Reader) -> TensorVerdict:
    if expected.shape != ref.shape:
        return TensorVerdict(name, "wrong", why=f"shape {list(ref.shape)}, expected {list(expected.shape)}")
    stored, exact, within, largest = leaf(ref), True, True, 0.0
    step = max(1, (_TILE if expected.local else _TILE_ACROSS) // max(1, stored.columns))
    try:
        for start in range(0, stored.rows, step):
            stop = min(start + step, stored.rows)
            if not _same_bytes(expected, stored, start, stop, reader):
                exact = False
                fits, difference = _close(expected, stored, start, stop, reader)
                within, largest = within and fits, max(largest, difference)
    except UnsupportedEncoding as error:
        return TensorVerdict(name, "wrong", why=str(error))
    return TensorVerdict(name, "exact" if exact else "within" if within else "wrong", largest)


def _same_bytes(expected: Array, stored: Array, start: int, stop: int, reader: Reader) -> bool:
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
    if not codecs.can_encode(encoding) or codecs.needs_importance(encoding):
        return bool(np.array_equal(values, stored.read(start, stop, reader.floats)))
    return bool(np.array_equal(codecs.encode(values, encoding), packed(stored.read(start, stop, reader.native))))


def _close(expected: Array, stored: Array, start: int, stop: int, reader: Reader) -> tuple[bool, float]:
    import numpy as np

    (encoding,) = encodings_of(stored)
    want, have = expected.read(start, stop, reader.floats), stored.read(start, stop, reader.floats)
    alike = (want == have) | (np.isnan(want) & np.isnan(have))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, which differ by NaN from themselves
        difference = np.where(alike, 0.0, np.abs(want.astype(np.float64) - have))
        difference[np.isnan(difference)] = np.inf  # a number where none belongs, or the other way round
    if encoding.name in _RELATIVE:
        bound = np.abs(want) * _RELATIVE[encoding.name] + _ABSOLUTE.get(encoding.name, 0.0)
    elif encoding.name == "Q8_0":  # half a step of 1/127 of the block's largest, and the scale's own rounding to f16
        blocks = np.abs(want.reshape(-1, encoding.block)).max(axis=1)
        bound = np.repeat(blocks * (0.5 / 127 + 2.0**-11) + 127 * 2.0**-25, encoding.block).reshape(want.shape)
    elif encoding.name.startswith("AFFINE"):
        bound = _affine_bound(want, encoding)
    elif codecs.can_encode(encoding) and encoding.blocked:
        bound = _block_bound(want, have, encoding)
    else:
        bound = np.zeros_like(want)
    largest = float(difference.max(initial=0.0))
    return bool(np.all(difference <= bound)) and np.isfinite(largest), largest


def _block_bound(want: Rows, have: Rows, encoding: Encoding) -> Rows:
    """Infinite for rows that are about as close as our own encoder without importance comes, else zero.

    Importance moves errors to columns that matter less, so no single element and no single block has a bound; but a row is
    not much further off, and no block much more than if it were zero.
    """
    import numpy as np

    uniform = np.ones(want.shape[1], np.float32) if codecs.needs_importance(encoding) else None
    own = codecs.decode(codecs.encode(want, encoding, importance=uniform), encoding, want.shape[1])
    off, usual = ((np.square(made.astype(np.float64) - want)).reshape(len(want), -1, encoding.block) for made in (have, own))
    size = np.square(want.astype(np.float64)).reshape(off.shape)
    rows = off.sum((1, 2)) <= _FURTHER**2 * usual.sum((1, 2)) + 1e-12 * size.sum((1, 2))
    blocks = (off.sum(2) <= _FURTHER**2 * (usual.sum(2) + size.sum(2))).all(axis=1)
    bound: Rows = np.repeat(np.where(rows & blocks, np.inf, 0.0)[:, None], want.shape[1], axis=1)
    return bound


def _affine_bound(want: Rows, encoding: Encoding) -> Rows:
    """A step of the group, which one of its ends may be off, and the roundings of scale, bias, product and sum."""
    import numpy as np

    levels = 2 ** (8 * encoding.planes[0] // encoding.block) - 1
    groups = want.reshape(-1, encoding.block)
    step = (groups.max(axis=1) - groups.min(axis=1)) / levels
    rounding = 6 * np.abs(groups).max(axis=1) * _RELATIVE[encoding.name.rpartition("_")[2]]
    bound: Rows = np.repeat(step + rounding, encoding.block).reshape(want.shape)
    return bound


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
            yield f"{key} differs"


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
