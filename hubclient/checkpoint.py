"""Checkpoint: a model on disk in any known format, and the conversions it can take.

checkpoint = Checkpoint.from_pretrained("./Llama-3.2-1B")
plan = checkpoint.plan("out/{name}-{type}.gguf", format="gguf", type=["f16", "Q8_0"])
checkpoint.save_pretrained("Llama-3.2-1B-F16.gguf", format="gguf", type="f16")
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.errors import UnmappedTensor, UsageError
from hubclient.formats.safetensors.reader import INDEX
from hubclient.formats.sourcefile import open_source, source_file
from hubclient.garbage import uncollected
from hubclient.model import Quantization, Request, display_name, encodings_of
from hubclient.opening import called, open_found, speaking
from hubclient.plan import OutputPlan, Plan, lay_out, refuse_losses
from hubclient.plugins import get_host
from hubclient.spokes import spoke
from hubclient.spokes.reach import refuse_without_layout

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from hubclient.execute import Progress
    from hubclient.fidelity import Outcome
    from hubclient.formats.model import OpenedCheckpoint, SourceFile
    from hubclient.hub.publish.push import Pushed
    from hubclient.hub.source.locate import Located
    from hubclient.model import Model, Target
    from hubclient.plugins import Host

_PARTS = (None, "tokenizer", "config", "text", "projector")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: headers only; weights are read when something is saved or verified.

    `origins` are where it is from, and where its projector is from if that was named.
    """

    opened: OpenedCheckpoint
    host: Host
    origins: tuple[Located, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    @uncollected()
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        projector: str | os.PathLike[str] | None = None,
        host: Host | None = None,
        only: str | None = None,
        headers_only: bool = False,
        progress: Progress | None = None,
    ) -> Checkpoint:
        """Open a folder or file of any known format, or a repository of the Hub: `org/name[@revision][:file]`.

        `projector` is the GGUF with the vision part of a GGUF with the text part; one beside it that is called `mmproj-`
        and the text's name is found by itself. `only="tokenizer"` or `"config"` also opens folders without weights.
        What a repository has is downloaded into the Hugging Face cache, as far as it is read, and stays there; with
        `headers_only` only the headers are, until `with_weights`. `progress` is called with bytes downloaded and bytes in all.
        Raises SourceMissing, UnsupportedFormat, UsageError or DamagedInput; of the Hub's also Unsupported*, before weights are
        downloaded, NetworkFault, Offline, AccessDenied and NotEnoughSpace.
        """
        host = host or get_host()
        if projector is not None:
            from hubclient.spokes.projector import joined

            text = cls.from_pretrained(source, host=host, headers_only=True)
            vision = cls.from_pretrained(projector, host=host, headers_only=True)
            origins = (*text.origins, *vision.origins)
            with speaking(origins):
                both = cls(joined(text.opened, vision.opened), host, origins)
            return both if headers_only else both.with_weights(progress)
        from hubclient.hub.source.locate import locate

        checkpoint = cls.at(locate(source, only=only, headers=headers_only), host)
        return checkpoint if headers_only else checkpoint.with_weights(progress)

    @classmethod
    def at(cls, located: Located, host: Host | None = None) -> Checkpoint:
        """Open what was found (`hubclient.hub.source.locate.locate`), with headers only if no more of it is here."""
        host = host or get_host()
        return cls(open_found(located, host), host, (located,))

    @property
    def headers_only(self) -> bool:
        """Whether weights are still on the Hub, so that nothing can be saved, verified or measured."""
        return any(origin.headers_only for origin in self.origins)

    @uncollected()
    def with_weights(self, progress: Progress | None = None) -> Checkpoint:
        """The same with its weights on this machine; itself, if they are. For what is raised see `from_pretrained`."""
        if not self.headers_only:
            return self
        only = self.origins[0].only
        if only != "tokenizer":
            _ = self.model  # what nobody here knows is said before weights are downloaded
        paths = [origin.completed(progress).path for origin in self.origins]
        projector = paths[1] if len(paths) > 1 else None
        return Checkpoint.from_pretrained(paths[0], projector=projector, host=self.host, only=only)

    @property
    def format(self) -> str:
        """The name of its format."""
        return self.opened.format

    @cached_property
    @uncollected()
    def model(self) -> Model:
        """The canonical view: Hugging Face names and config. Raises UnsupportedArchitecture, UnmappedTensor, DamagedInput."""
        with speaking(self.origins):
            return spoke(self.host.format(self.format)).read(self.opened, self.host)

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json's content, as it is or rebuilt from the file's metadata."""
        return self.model.raw_config

    @property
    def name(self) -> str:
        """What to call it: repository, folder or file name."""
        return display_name(self.opened.path)

    def called(self, path: Path) -> str:
        """A file of its own as users know it: by its path, or one of which only headers are here as `org/name:file`."""
        return called(self.origins, path)

    @property
    def inputs(self) -> frozenset[Path]:
        """What no output may replace: the folder or file itself, its weights and small files; with links followed."""
        opened = self.opened
        index = [opened.path / INDEX] if opened.path.is_dir() else []
        found = (opened.path, *(file.path for file in opened.all_files), *opened.sidecars.values(), *index)
        return frozenset(item.resolve() for item in found)

    @uncollected()
    def plan(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        format: str = "safetensors",  # noqa: A002 - the word users know
        type: str | Sequence[str] = "auto",  # noqa: A002
        only: str | None = None,
        pre: str | None = None,
        max_shard_size: int | None = None,
        group_size: int | None = None,
        quantization: Quantization | None = None,
    ) -> Plan:
        """What a conversion would do, from headers alone; touches no weight byte and writes nothing.

        `out` may contain {name} and {type}; by default it is named after the checkpoint, in the working folder. `type`
        given as a sequence plans several outputs that share one read. `only` limits the output to "tokenizer", "config",
        "text" or "projector"; `pre` names the pre-tokenizer (`tokenizer.ggml.pre`); `max_shard_size` (bytes) splits the weights;
        `group_size` is how many numbers share a scale in MLX's types; `quantization` has further wishes about quantised tensors.
        Raises UsageError, Unsupported* or DamagedInput.
        """
        if only not in _PARTS:
            known = ", ".join(part for part in _PARTS if part)
            raise UsageError(f"only {only!r} is unknown; parts that can be asked for alone are {known}")
        names = [type] if isinstance(type, str) else list(type)
        if not names:
            raise UsageError("no type to write is named")
        writer = spoke(self.host.format(format))
        if group_size is not None and not getattr(writer, "GROUPS", False):
            raise UsageError(f"the types of {format} have no groups whose size could be chosen")
        wishes = quantization or Quantization()
        if wishes.chooses and not getattr(writer, "RECIPES", False):
            raise UsageError(f"{', '.join(wishes.options)} can be asked for with GGUF alone, and this is {format}")
        with speaking(self.origins):
            return self._planned(out, format, [Request(name, pre, max_shard_size, only, group_size, wishes) for name in names])

    def save_pretrained(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        format: str = "safetensors",  # noqa: A002
        type: str | Sequence[str] = "auto",  # noqa: A002
        only: str | None = None,
        pre: str | None = None,
        max_shard_size: int | None = None,
        group_size: int | None = None,
        quantization: Quantization | None = None,
        strict: bool = False,
        force: bool = False,
        jobs: int | None = None,
        max_memory: int | None = None,
        executor: Executor | None = None,
        progress: Progress | None = None,
        stage: Callable[[str], None] | None = None,
    ) -> tuple[Path, ...]:
        """Convert; returns the files or folders written. The first options are those of `plan`, the others of `run`."""
        plan = self.plan(
            out, format=format, type=type, only=only, pre=pre, max_shard_size=max_shard_size, group_size=group_size,
            quantization=quantization,
        )  # fmt: skip
        options = {"jobs": jobs, "max_memory": max_memory, "executor": executor, "progress": progress, "stage": stage}
        return run(plan, strict=strict, force=force, **options).paths  # type: ignore[arg-type]

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        message: str | None = None,
        progress: Progress | None = None,
    ) -> Pushed:
        """Send its files, as they are, to a repository of the Hub, with a model card; for options and errors see `hub.push`."""
        from hubclient.hub.client import Hub

        wishes = {"private": private, "create_pr": create_pr, "revision": revision, "message": message}
        return Hub().push(self.with_weights().opened.path, repo, **wishes, progress=progress)

    def _planned(self, out: str | os.PathLike[str] | None, format_name: str, requests: Sequence[Request]) -> Plan:
        writer, only, wishes = spoke(self.host.format(format_name)), requests[0].only, requests[0].quantization
        model = self._part(only)
        if only != "tokenizer":
            refuse_without_layout(model, format_name)
        written = (writer.write(model, part) for request in requests for part in writer.parts(model, request))
        try:
            targets = _distinct(replace(target, nonfinite=wishes.nonfinite, measured=wishes.measure) for target in written)
        except UnmappedTensor as error:
            from hubclient.spokes.belonging import explained

            raise explained(model, error, self.host) from None
        paths = self._paths(out, format_name, targets, only)
        outputs = tuple(self._lay_out(path, format_name, target) for path, target in zip(paths, targets, strict=True))
        for output in outputs:
            self._check_output(output)
            if not wishes.requantize:
                _refuse_requantising(output)
        architecture = model.architecture.name if only != "tokenizer" else None
        sources = (*self.opened.all_files, *_sources(wishes))
        return Plan(self.opened.path, self.format, architecture, sources, outputs, self.origins)

    def _part(self, only: str | None) -> Model:
        if only != "tokenizer":
            return self.model
        from hubclient.spokes.tokenizer_only import read

        return read(self.opened, self.host)

    def _lay_out(self, path: Path, format_name: str, target: Target) -> OutputPlan:
        format_ = self.host.format(format_name)
        spec = target.spec if format_.folder else replace(target.spec, name=path.name)
        files = format_.layout(spec)
        steps = tuple(lay_out(target, files))
        told = target.losses, target.dropped, target.notes
        return OutputPlan(path, format_name, format_.folder, target.type, files, steps, *told)

    def _paths(
        self, out: str | os.PathLike[str] | None, format_name: str, targets: Sequence[Target], only: str | None
    ) -> list[Path]:
        if out is not None and os.fspath(out) == "-":
            raise UsageError("an output is written at many places at once, which standard output cannot take; name a file")
        suffix = f"-{format_name}" if self.host.format(format_name).folder else f".{format_name}"
        pattern = os.fspath(out) if out is not None else "{name}-{type}" + suffix
        if unknown := [one for one in _PLACEHOLDER.findall(pattern) if one not in ("name", "type")]:
            raise UsageError(f"{pattern}: {{{unknown[0]}}} is no placeholder; an output's name may contain {{name}} and {{type}}")
        named = out is not None and only is not None  # a part that is asked for alone is called as the user says
        paths = [_fill(pattern, self.name, target.type, "" if named else target.before) for target in targets]
        if twice := [path for index, path in enumerate(paths) if path in paths[:index]]:
            if "{type}" in pattern:
                raise UsageError(f"{twice[0]}: several of these types would be called so; convert them one by one")
            raise UsageError(f"{pattern}: several types need {{type}} in the output's name, or they would all be called the same")
        return paths

    def _check_output(self, output: OutputPlan) -> None:
        """UsageError if an output, or one of its files, is where the source is or where no file can be."""
        path, inputs = output.path, self.inputs
        if output.folder and any(path in (item, *item.parents) for item in inputs):
            raise UsageError(f"{path}: is the source itself, or a folder that it lies in; name another output")
        for file in () if output.folder else {path, *output.paths()}:
            if Path(os.path.realpath(file)) in inputs:
                raise UsageError(f"{file}: is the source itself; name another output")
            if file.is_dir():
                raise UsageError(
                    f"{file}: is a folder where a file is to be written; add a file name, such as {file / '{name}-{type}.gguf'}"
                )
            if file.exists() and not file.is_file():
                raise UsageError(f"{file}: is neither a file nor a folder, and is not replaced")


def run(
    plan: Plan,
    *,
    strict: bool = False,
    force: bool = False,
    jobs: int | None = None,
    max_memory: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] | None = None,
    told: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Carry out a plan; returns the files or folders written, and what became of each tensor's values.

    `strict` refuses with Lossy if anything is not carried over. `force` replaces what is already there. `jobs` threads
    share `max_memory` bytes (default 512 MiB), or any `executor` takes the tiles; `progress` is called with bytes done
    and bytes in all, `stage` with what is done before: compiling, where a type is written for the first time.
    `told` is called with the outcome before outputs get their names, so that what it writes (a report) is there when they are.
    """
    from hubclient.execute import DEFAULT_MEMORY, execute
    from hubclient.traces import note_outputs

    memory = max_memory or DEFAULT_MEMORY
    options = {"jobs": jobs, "executor": executor, "progress": progress, "stage": stage, "told": told}
    with speaking(plan.origins):
        if strict:
            refuse_losses(plan)
        outcome = execute(plan, max_memory=memory, force=force, **options)  # type: ignore[arg-type]
        note_outputs(plan)
    return outcome


def _sources(wishes: Quantization) -> Iterator[SourceFile]:
    """The file of an importance matrix, whose numbers are read while tensors are written."""
    if wishes.importance is not None and wishes.importance.source is not None:
        with open_source(wishes.importance.source) as (_, state):
            yield source_file(wishes.importance.source, state, b"")


def _refuse_requantising(output: OutputPlan) -> None:
    for step in output.steps:
        if step.requantises:
            was = "/".join(sorted(encoding.name for encoding in encodings_of(step.array) if encoding.blocked))
            raise UsageError(
                f"{step.name}: is quantised as {was} already; quantising it again as {step.encoding} would add error to error",
                hint="start from the 16-bit original, if there is one; --allow-requantize does it all the same, --type auto leaves all as it is",
            )


def _distinct(targets: Iterable[Target]) -> list[Target]:
    """Each output once: types may be named twice, in another case, or by "auto"."""
    found: list[Target] = []
    for target in targets:
        if target not in found:
            found.append(target)
    return found


def _fill(pattern: str, name: str, type_: str, before: str) -> Path:
    """The output's path, with links followed: what a link points to is written, the link stays."""
    values = {"name": name, "type": type_}
    path = Path(_PLACEHOLDER.sub(lambda found: values[found[1]], pattern))
    return Path(os.path.realpath(path.with_name(before + path.name) if before else path))
