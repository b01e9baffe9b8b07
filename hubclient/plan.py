"""The plan of a conversion: every file, offset, transform and loss, known before a weight byte is read. Pure data.

Printable, serialisable, comparable; the fingerprint of each output names it for resumption.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient import __version__
from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.errors import Lossy, UnsupportedEncoding
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.model import Encoding, FileLayout, SourceFile
from hubclient.garbage import uncollected
from hubclient.model import Inline, Target, encodings_of
from hubclient.opening import called

if TYPE_CHECKING:
    from hubclient.hub.source.locate import Located

_SCHEMA = 1
_WIDER = {
    "BF16": ("F32", "F64"), "F16": ("F32", "F64"), "F32": ("F64",),
    "MXFP4": ("BF16", "F32", "F64"), "MXFP4_PLANES": ("BF16", "F32", "F64"), "NVFP4_PLANES": ("BF16", "F32", "F64"),
    "MXFP8_PLANES": ("F32", "F64"),
}  # fmt: skip
# MLX unpacks in the dtype of the scales, so the numbers are of that dtype.
_WIDER |= {
    name: (dtype, *_WIDER[dtype])
    for name in ENCODINGS
    for dtype in _WIDER
    if name.startswith("AFFINE") and name.endswith(f"_{dtype}")
}


class Place(NamedTuple):
    """A stretch of an output: the file (its index in `OutputPlan.files`), the absolute offset, the size in bytes."""

    file: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """One output tensor: the array behind it, its encoding, its place: several if the encoding has planes, in their order.

    `index` counts an output's steps; `fits` says that the values are known to fit a narrower encoding. What is quantised may
    go by the `importance` of its columns (whose `read(first, last)` gives float32 (matrices, columns), the matrices being the
    experts of a stack, of which there are `matrices`); NaN and infinities are refused unless `nonfinite`; `measured` says that it is found out how far values are off.
    """

    index: int
    name: str
    array: Array
    encoding: Encoding
    places: tuple[Place, ...]
    fits: bool = False
    importance: Any = None
    nonfinite: bool = False
    measured: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, in all places."""
        return self.places[0].nbytes if len(self.places) == 1 else sum(place.nbytes for place in self.places)

    def stretches(self, start: int, stop: int) -> tuple[Place, ...]:
        """Where the bytes of rows [start, stop) go: a stretch of each place."""
        sizes = self.encoding.plane_row_bytes(self.array.columns)
        return tuple(
            Place(place.file, place.offset + start * size, (stop - start) * size)
            for place, size in zip(self.places, sizes, strict=True)
        )

    @property
    def moves(self) -> bool:
        """True if stored bytes move as they are, without being decoded."""
        if isinstance(self.array, Leaf):  # nearly all steps of a large plan
            return self.array.ref.encoding == self.encoding and not self._stranded
        own = encodings_of(self.array)
        packed = self.encoding.blocked
        return own == {self.encoding} and (self.array.moves_rows if packed else self.array.moves_elements) and not self._stranded

    @property
    def repacks(self) -> bool:
        """True if stored bits take another order and nothing else, so that blocks become others without being decoded."""
        if not self.encoding.blocked or self._stranded or not self.array.moves_rows:
            return False
        from hubclient.formats.codecs import can_repack

        own = encodings_of(self.array)
        return len(own) == 1 and can_repack(own.pop(), self.encoding)

    @property
    def quantises(self) -> bool:
        """True if numbers are packed into blocks anew."""
        return self.encoding.blocked and not self.moves and not self.repacks

    @property
    def requantises(self) -> bool:
        """True if blocks are unpacked and packed as others, which adds error to error."""
        return self.quantises and any(encoding.blocked for encoding in encodings_of(self.array))

    @property
    def _stranded(self) -> bool:
        return self.encoding.blocked and len(self.array.shape) < 2

    @property
    def fidelity(self) -> str:
        """What may happen to the values: "exact", "computed", "rounded" (to a plain dtype) or "quantised".

        Of the middle two the values decide when they are at hand; see `hubclient.fidelity`.
        """
        if self.fits:
            return "exact"
        if self.moves:
            return "exact"
        own = {encoding.name for encoding in encodings_of(self.array)}
        if not self.array.keeps_values:
            return "computed"
        same = None if self.encoding.blocked else self.encoding.name  # blocks that do not move are made anew
        if all(name == same or self.encoding.name in _WIDER.get(name, ()) for name in own):
            return "exact"
        unpacked = not self.array.moves_elements or all(ENCODINGS[name].blocked for name in own)
        if unpacked and self.encoding.name in ("F32", "F64"):
            return "exact"  # blocks are unpacked in float32, and scales applied
        if self.repacks:
            return "exact"
        return "quantised" if self.encoding.blocked else "rounded"

    def as_json(self) -> dict[str, Any]:
        """The step as plain data; "bytes" are those of the first place, and "places" has all of them if there are several."""
        refs = [leaf.ref for leaf in ((self.array,) if isinstance(self.array, Leaf) else self.array.leaves())]
        inputs = [ref.name for ref in refs]
        file, offset, nbytes = self.places[0]
        told = {
            "name": self.name,
            "shape": list(self.array.shape),
            "encoding": self.encoding.name,
            "from": inputs[0] if len(inputs) == 1 else inputs,
            "source_encoding": "/".join(sorted({ref.encoding.name for ref in refs})),
            "transform": self.array.describe(),
            "fidelity": self.fidelity,
            "file": file,
            "offset": offset,
            "bytes": nbytes,
        }
        if len(self.places) > 1:
            told["places"] = [{"file": file, "offset": offset, "bytes": nbytes} for file, offset, nbytes in self.places]
        return told


@dataclass(frozen=True)
class OutputPlan:
    """One output: a file, a split or a folder. `path` is where it appears when it is complete. `losses` is what is not carried
    over, `dropped` are tensors that can be recomputed, `notes` are worth knowing and no loss.
    """

    path: Path
    format: str
    folder: bool
    type: str
    files: tuple[FileLayout, ...]
    steps: tuple[Step, ...]
    losses: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def paths(self) -> tuple[Path, ...]:
        """The files as they will be called."""
        if self.folder:
            return tuple(self.path / file.name for file in self.files)
        return (self.path,) if len(self.files) == 1 else tuple(self.path.parent / file.name for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """The output as plain data."""
        files = [{"name": file.name, "bytes": file.size, "head_bytes": len(file.head)} for file in self.files]
        return {
            "path": str(self.path),
            "format": self.format,
            "type": self.type,
            "bytes": self.size,
            "files": files,
            "losses": list(self.losses),
            "dropped": list(self.dropped),
            "notes": list(self.notes),
            "tensors": [step.as_json() for step in self.steps],
        }


@dataclass(frozen=True)
class Plan:
    """A conversion: sources, with the state they were planned from, and outputs.

    `origins` are where the sources are from; what of them is a temporary folder of headers is there as long as the plan.
    """

    source: Path
    source_format: str
    architecture: str | None
    sources: tuple[SourceFile, ...]
    outputs: tuple[OutputPlan, ...]
    origins: tuple[Located, ...] = field(default=(), compare=False, repr=False)

    def called(self, path: Path) -> str:
        """A source as users know it: by its path, or one of which only headers are here as `org/name:file`."""
        return called(self.origins, path)

    @property
    def losses(self) -> tuple[str, ...]:
        """What is not carried over, over all outputs."""
        return tuple(dict.fromkeys(loss for output in self.outputs for loss in output.losses))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, over all outputs."""
        return tuple(dict.fromkeys(note for output in self.outputs for note in output.notes))

    @cached_property
    def source_state(self) -> str:
        """sha256 over place (links followed), size, time of change and header digest of every source file."""
        state = [(os.path.realpath(file.path), file.size, file.mtime_ns, file.header_digest) for file in self.sources]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def fingerprint(self, output: OutputPlan) -> str:
        """sha256 over everything that decides an output's bytes and where they come from."""
        digest = hashlib.sha256(self.source_state.encode())
        digest.update(json.dumps([_SCHEMA, __version__, output.format, output.type]).encode())
        for file in output.files:
            digest.update(f"{file.name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
            digest.update(file.head)
        for step in output.steps:
            inputs = "\0".join(_identity(leaf.ref) for leaf in step.array.leaves())
            described = f"{step.name}\0{step.encoding.name}\0{step.array.describe()}\0{inputs}\n"
            digest.update(described.encode("utf-8", "surrogateescape"))
            if step.importance is not None:
                digest.update(step.importance.read().tobytes())
        if any(step.nonfinite or step.measured for step in output.steps):
            digest.update(json.dumps([(step.nonfinite, step.measured) for step in output.steps]).encode())
        return digest.hexdigest()

    @uncollected()
    def as_json(self) -> dict[str, Any]:
        """The plan as plain data, for `--dry-run --json` and for comparison."""
        return {
            "schema": _SCHEMA,
            "source": self.called(self.source),
            "source_format": self.source_format,
            "architecture": self.architecture,
            "source_state": self.source_state,
            "sources": [
                {
                    "path": self.called(file.path),
                    "bytes": file.size,
                    "mtime_ns": file.mtime_ns,
                    "header_sha256": file.header_digest,
                }
                for file in self.sources
            ],
            "outputs": [{"fingerprint": self.fingerprint(output), **output.as_json()} for output in self.outputs],
        }


def refuse_losses(plan: Plan) -> None:
    """Lossy if anything is not carried over."""
    if plan.losses:
        raise Lossy(f"{plan.called(plan.source)}: not everything would be carried over: {'; '.join(plan.losses)}", plan.losses)


def lay_out(target: Target, files: tuple[FileLayout, ...]) -> Iterator[Step]:
    """The steps of an output, in file order (that of their first planes)."""
    further = _further_planes(files)
    firsts = ((number, placed) for number, file in enumerate(files) for placed in file.tensors if not placed.plane)
    for index, (number, (tensor, offset, nbytes, _)) in enumerate(firsts):
        spec = target.spec.tensors[tensor]
        places = (Place(number, offset, nbytes), *further.get(tensor, ()))
        step = Step(
            index, spec.name, target.arrays[tensor], spec.encoding, places, spec.name in target.fitting,
            target.importance.get(spec.name), target.nonfinite, target.measured,
        )  # fmt: skip
        _check_codecs(step)
        yield step


def _further_planes(files: tuple[FileLayout, ...]) -> Mapping[int, list[Place]]:
    """The places of all planes but the first, by tensor; most tensors have none."""
    placed = ((number, place) for number, file in enumerate(files) for place in file.tensors if place.plane)
    found: dict[int, list[Place]] = {}
    for number, (tensor, offset, nbytes, _) in sorted(placed, key=lambda item: item[1].plane):
        found.setdefault(tensor, []).append(Place(number, offset, nbytes))
    return found


def _check_codecs(step: Step) -> None:
    """UnsupportedEncoding, naming the tensor, if its bytes would have to be decoded or encoded and cannot be."""
    if step.moves or step.repacks:
        return
    from hubclient.formats.codecs import can_decode, can_encode

    unreadable = [encoding.name for encoding in encodings_of(step.array) if not can_decode(encoding)]
    if unreadable or not can_encode(step.encoding):
        names = ", ".join(leaf.ref.name for leaf in step.array.leaves())
        told = (
            f"{unreadable[0]}, which cannot be decoded here"
            if unreadable
            else f"to become {step.encoding}, which cannot be encoded here"
        )
        raise UnsupportedEncoding(f"tensor {names} is {told}")


def fidelities(output: OutputPlan) -> Mapping[str, int]:
    """How many tensors of an output are moved or computed in which way."""
    counts: dict[str, int] = {}
    for step in output.steps:
        counts[step.fidelity] = counts.get(step.fidelity, 0) + 1
    return counts


def _identity(ref: Any) -> str:
    if isinstance(ref, Inline):
        return f"{ref.name}={hashlib.sha256(ref.data).hexdigest()}"
    if ref.planes:
        return f"{ref.name}@{','.join(f'{plane.file.name}+{plane.offset}' for plane in ref.planes)}"
    return f"{ref.name}@{ref.file.name}+{ref.offset}"
