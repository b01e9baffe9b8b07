"""The checks, as one table: what each proves, and which subjects it is about. `run` carries one out.

The suite for pytest and `hubclient plugins test` both go by this table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.errors import HubclientError, UsageError
from hubclient.plugins.manage import known
from hubclient.testing import arrays, configs, conversions, hostile, names, placing, published
from hubclient.testing.bench import Bench, Subject
from hubclient.testing.faults import Fault

if TYPE_CHECKING:
    from hubclient.architectures import Architecture
    from hubclient.plugins import Host

# Takes the subject and a folder of its own; raises Fault.
Work = Callable[[Subject, Path], None]
_WRITTEN = ("gguf", "mlx")


@dataclass(frozen=True, slots=True)
class Check:
    """One property. `about` is "declaration", "layout" (once for each), "format" (once for each that is written) or "published"."""

    name: str
    about: str
    work: Work


CHECKS = (
    Check("every tensor has a shape", "declaration", names.shapes_are_found),
    Check("names go there and come back", "layout", names.come_back),
    Check("what is missing is named", "layout", names.missing_is_named),
    Check("what is too much is named", "layout", names.surplus_is_named),
    Check("values go there and come back", "layout", arrays.come_back),
    Check("arrays keep their word", "layout", arrays.keep_their_word),
    Check("config comes back", "declaration", configs.come_back),
    Check("no two pairs write one key", "declaration", configs.keys_differ),
    Check("stored values are of a known type", "declaration", configs.types_are_known),
    Check("defaults are what is missing", "declaration", configs.defaults_fill),
    Check("modules hold every tensor", "declaration", placing.modules_hold_all),
    Check("modules are placed", "declaration", placing.all_is_placed),
    Check("there and back is exact", "format", conversions.exact),
    Check("there and back without our keys", "format", conversions.exact_or_said),
    Check("every way round leads to the same", "declaration", conversions.all_ways),
    Check("told from look-alikes", "format", conversions.recognised),
    Check("a missing tensor is refused", "format", hostile.missing),
    Check("a wrong shape is refused", "format", hostile.wrong_shape),
    Check("a stranger's tensor is refused", "format", hostile.stranger),
    Check("a block too many is refused", "format", hostile.block_too_many),
    Check("truncated weights are refused", "format", hostile.truncated),
    Check("a published model is planned", "published", published.planned),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One check of one subject. `str()` is its name in reports."""

    check: Check
    subject: Subject

    def __str__(self) -> str:
        return f"{self.subject}: {self.check.name}"

    def run(self, folder: Path) -> None:
        """Carry it out; Fault if the declaration does not pass. What hubclient raises on the way is a fault of the declaration."""
        __tracebackhide__ = True
        try:
            self.check.work(self.subject, folder)
        except HubclientError as error:
            raise Fault(str(error)) from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: `fault` is None if it passed."""

    case: Case
    fault: str | None


def cases(
    architectures: Iterable[Architecture],
    *,
    config: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Mapping[str, Any]] | None = None,
    published: Sequence[Path] = (),
) -> Iterator[Case]:
    """Every check of every declaration; arguments as in `ArchitectureSuite`."""
    found = tuple(architectures)
    host = Bench(found)
    for architecture in found:
        given = given_for(architecture, config or {})
        tokenizer = (tokenizers or {}).get(architecture.name, {})
        yield from _of(Subject(architecture, host, config=given, tokenizer=tokenizer), published_for(architecture, published))


def given_for(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config values for one declaration: those under its name, and those that are under none."""
    own = config.get(architecture.name)
    common = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    return {**common, **own} if isinstance(own, Mapping) else common


def published_for(architecture: Architecture, paths: Sequence[Path]) -> list[Path]:
    """The published models whose class a declaration announces."""
    return [path for path in paths if published.load(path).config["architectures"][0] in architecture.hf]


def run_all(all_cases: Iterable[Case]) -> Iterator[Outcome]:
    """Carry out cases, each in an empty folder that is removed again."""
    for case in all_cases:
        with tempfile.TemporaryDirectory(prefix="hubclient-testing-") as folder:
            try:
                case.run(Path(folder))
            except Fault as fault:
                yield Outcome(case, str(fault))
            else:
                yield Outcome(case, None)


def run_installed(host: Host, name: str) -> tuple[Outcome, ...]:
    """Every check of what the installed plugin called `name` declares.

    UsageError if there is no such plugin or it declares no architectures, PluginError if it cannot be used.
    """
    known(host, name)
    architectures = host.architectures_of(name)
    if not architectures:
        raise UsageError(f"the plugin {name} declares no architectures, which are what can be tested, or is disabled")
    return tuple(run_all(cases(architectures)))


def _of(subject: Subject, models: Sequence[Path]) -> Iterator[Case]:
    layouts = subject.architecture.layouts
    for check in CHECKS:
        match check.about:
            case "declaration":
                yield Case(check, subject)
            case "layout":
                yield from (Case(check, replace(subject, space=space)) for space in layouts)
            case "format":
                yield from (Case(check, replace(subject, space=space)) for space in layouts if space in _WRITTEN)
            case _:
                yield from (Case(check, replace(subject, published=path)) for path in models)
