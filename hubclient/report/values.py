"""The numbers of a report: frozen values, made from a plan and its outcome.

Measured numbers have 6 significant digits: sums over tiles differ in later ones with the way the tiles were cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hubclient import __version__
from hubclient.mix import Share, joined, mix
from hubclient.model import display_name, encodings_of

if TYPE_CHECKING:
    from hubclient.deviation import Deviation
    from hubclient.fidelity import Kept, Outcome
    from hubclient.plan import OutputPlan, Plan, Step

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class WorstBlock:
    """The block with the largest root mean square error; it begins at element `column` of row `row`, the tensor being rows of
    its last axis.
    """

    rmse: float
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Error:
    """How far values are off: the root mean square error, the same with the root mean square of the source, `source_rms`, as
    unit, the cosine of the angle between both, and the worst block, if it is known.
    """

    rmse: float
    relative: float
    source_rms: float
    cosine: float
    worst: WorstBlock | None = None

    @classmethod
    def of(cls, found: Deviation, elements: int) -> Error:
        """The error of so many numbers."""
        rmse, source = found.rmse(elements), math.sqrt(found.source / elements) if elements else 0.0
        worst = WorstBlock(_rounded(found.worst_rmse), found.row, found.column) if found.worst >= 0 else None
        return cls(_rounded(rmse), _rounded(_ratio(rmse, source)), _rounded(source), _rounded(found.cosine), worst)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data, without the worst block."""
        return {
            "rmse": self.rmse, "relative_rmse": self.relative, "source_rms": self.source_rms, "cosine": self.cosine,
        }  # fmt: skip


_UNMEASURED = {**dict.fromkeys(Error(0.0, 0.0, 0.0, 1.0).as_json()), "worst_block": None}


@dataclass(frozen=True, slots=True)
class TensorReport:
    """A tensor of an output: how it is stored (`source_encoding`: how it was), and what became of its values.

    `changed` elements of what is not quantised would not come back bit for bit (None: not counted); `replaced` NaN and
    infinities were quantised as something else; `error` is None if the tensor was not quantised, or that was not measured.
    """

    name: str
    shape: tuple[int, ...]
    encoding: str
    source_encoding: str
    share: Share
    fidelity: str
    changed: int | None = None
    replaced: int = 0
    error: Error | None = None

    @classmethod
    def of(cls, step: Step, kept: Kept) -> TensorReport:
        """What a step of the plan came to."""
        changed, replaced = (None, kept.changed or 0) if step.quantises else (kept.changed, 0)
        return cls(
            step.name, tuple(step.array.shape), step.encoding.name,
            "/".join(sorted(encoding.name for encoding in encodings_of(step.array))),
            Share(1, kept.elements, step.nbytes), kept.fidelity, changed, replaced,
            None if kept.deviation is None else Error.of(kept.deviation, kept.elements),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The same as plain data; what was not measured is None."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "encoding": self.encoding,
            "source_encoding": self.source_encoding,
            "bytes": self.share.nbytes,
            "bits_per_weight": self.share.bits_per_weight,
            "fidelity": self.fidelity,
            "changed": self.changed,
            "replaced": self.replaced,
            **self._error(),
        }

    def _error(self) -> dict[str, Any]:
        if self.error is None:
            return _UNMEASURED
        worst = self.error.worst
        told = None if worst is None else {"rmse": worst.rmse, "row": worst.row, "column": worst.column}
        return {**self.error.as_json(), "worst_block": told}


@dataclass(frozen=True)
class OutputReport:
    """An output: its tensors in file order, and `error` over all `measured` numbers that were quantised.

    `size` is the bytes of all files; `losses`, `dropped` and `notes` are the plan's.
    """

    path: str
    format: str
    type: str
    size: int
    tensors: tuple[TensorReport, ...]
    error: Error | None = None
    measured: int = 0
    losses: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, output: OutputPlan, kept: Mapping[str, Kept]) -> OutputReport:
        """What an output came to."""
        found = [(one.deviation, one.elements) for one in kept.values() if one.deviation is not None]
        measured = sum(elements for _, elements in found)
        return cls(
            str(output.path), output.format, output.type, output.size,
            tuple(TensorReport.of(step, kept[step.name]) for step in output.steps),
            Error.of(_summed(deviation for deviation, _ in found), measured) if found else None, measured,
            output.losses, output.dropped, output.notes,
        )  # fmt: skip

    @cached_property
    def mix(self) -> Mapping[str, Share]:
        """The share of each encoding, the largest first."""
        return mix((tensor.encoding, tensor.share.weights, tensor.share.nbytes) for tensor in self.tensors)

    @property
    def total(self) -> Share:
        """All tensors together."""
        return joined(self.mix.values())

    @property
    def replaced(self) -> int:
        """NaN and infinities that were quantised as something else."""
        return sum(tensor.replaced for tensor in self.tensors)

    @cached_property
    def lowest_cosine(self) -> tuple[float, str] | None:
        """The lowest of any tensor, NaN being lower than any number, and the tensor's name."""
        found = [(tensor.error.cosine, tensor.name) for tensor in self.tensors if tensor.error is not None]
        return min(found, key=lambda one: (not math.isnan(one[0]), one[0]), default=None)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "path": self.path,
            "format": self.format,
            "type": self.type,
            "file_bytes": self.size,
            "total": {**self.total.as_json(), "replaced": self.replaced},
            "quantised": self._quantised(),
            "mix": {encoding: share.as_json() for encoding, share in self.mix.items()},
            "losses": list(self.losses),
            "dropped": list(self.dropped),
            "notes": list(self.notes),
            "tensors": [tensor.as_json() for tensor in self.tensors],
        }

    def _quantised(self) -> dict[str, Any] | None:
        if self.error is None or self.lowest_cosine is None:
            return None
        cosine, name = self.lowest_cosine
        return {"weights": self.measured, **self.error.as_json(), "lowest_cosine": {"cosine": cosine, "tensor": name}}


@dataclass(frozen=True, slots=True)
class Report:
    """What a conversion came to, output by output; `name` is what the model is called."""

    name: str
    source: str
    source_format: str
    architecture: str | None
    outputs: tuple[OutputReport, ...]

    @classmethod
    def of(cls, plan: Plan, outcome: Outcome) -> Report:
        """The report on a plan that was carried out; errors are in it where the plan's steps are `measured`."""
        outputs = tuple(map(OutputReport.of, plan.outputs, outcome.tensors))
        return cls(display_name(plan.source), str(plan.source), plan.source_format, plan.architecture, outputs)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data; numbers may be NaN or infinite."""
        return {
            "schema": _SCHEMA,
            "hubclient": __version__,
            "name": self.name,
            "source": self.source,
            "source_format": self.source_format,
            "architecture": self.architecture,
            "outputs": [output.as_json() for output in self.outputs],
        }


def _summed(deviations: Iterable[Deviation]) -> Deviation:
    """Over several tensors; without the worst block, which would not say of which."""
    from hubclient.deviation import Deviation

    total = Deviation()
    for one in deviations:
        total = total.joined(one)
    return total._replace(worst=-1.0)


def _ratio(error: float, source: float) -> float:
    if source:
        return error / source
    return math.inf if error else 0.0


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")
