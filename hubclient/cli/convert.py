"""`hubclient convert`: one call of Checkpoint.plan and one of run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubclient.cli.options import MEMORY, SIZE, as_json, human, importance_in, print_json, printable, progress_bar, with_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubclient.fidelity import Kept, Outcome
    from hubclient.plan import OutputPlan, Plan


_SHOWN = 12  # losses; a vision tower has hundreds of tensors


@click.command()
@click.argument("source")
@click.argument("out", required=False)
@click.option("--to", "target", required=True, metavar="FORMAT", help="gguf, safetensors or mlx.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="T",
    help="Encoding or recipe: auto (default), f32, f16, bf16, Q8_0, Q4_K_M, 4bit ...; several times for several outputs.",
)
@click.option("--recipe", "recipes", multiple=True, metavar="FILE", help="A recipe of your own (TOML), as one more type.")
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="Another type for tensors in whose names the regular expression is found; the first that is found counts.",
)
@click.option("--output-type", metavar="TYPE", help="Another type for output.weight.")
@click.option("--embedding-type", metavar="TYPE", help="Another type for token_embd.weight.")
@click.option("--pure", is_flag=True, help="Exactly the ggml type --type for all that would be quantised.")
@click.option("--imatrix", metavar="FILE", help="Quantise by this importance matrix (GGUF or .dat; see `hubclient imatrix`).")
@click.option("--allow-requantize", is_flag=True, help="Quantise again what is quantised already.")
@click.option("--allow-nonfinite", is_flag=True, help="Quantise NaN as 0, infinities as the largest finite number of their row.")
@click.option("--report", metavar="FILE", help="Write how far each quantised tensor is off, as .json or .html.")
@click.option("--group-size", type=click.INT, help="How many numbers share a scale in MLX's types: 32, 64 (default) or 128.")
@click.option("--only", type=click.Choice(["tokenizer", "config", "text", "projector"]), help="Convert only this part.")
@click.option(
    "--projector", metavar="GGUF", help="The file with SOURCE's vision part; mmproj-SOURCE beside it is found by itself."
)
@click.option("--pre", metavar="NAME", help="Name of the pre-tokenizer (tokenizer.ggml.pre), if it is not recognised.")
@click.option("--max-shard-size", type=SIZE, help="Split the weights over files of at most this size, such as 5GB.")
@click.option("--jobs", type=click.IntRange(1), help="Threads; by default one more than there are cores.")
@click.option("--max-memory", type=MEMORY, default="512M", show_default=True, help="Bound on memory for the work itself.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--strict", is_flag=True, help="Refuse (exit code 1) if anything is not carried over.")
@click.option("--force", is_flag=True, help="Replace an output that is already there.")
@as_json
@click.pass_context
def convert(
    ctx: click.Context,
    source: str,
    out: str | None,
    target: str,
    types: tuple[str, ...],
    recipes: tuple[str, ...],
    tensor_types: tuple[str, ...],
    output_type: str | None,
    embedding_type: str | None,
    pure: bool,
    imatrix: str | None,
    allow_requantize: bool,
    allow_nonfinite: bool,
    report: str | None,
    group_size: int | None,
    only: str | None,
    projector: str | None,
    pre: str | None,
    max_shard_size: int | None,
    jobs: int | None,
    max_memory: int,
    dry_run: bool,
    strict: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Turn SOURCE (a folder, a file, or org/name[@revision][:file] of the Hub) into another layout or encoding.

    OUT may contain {name} and {type}; by default it is named after SOURCE, in the working folder. A run that was stopped
    goes on when the same command is given again. What SOURCE has on the Hub is downloaded into the Hugging Face cache, once
    its headers have shown that it can be converted.
    """
    from hubclient.checkpoint import Checkpoint, run
    from hubclient.model import Quantization

    quantization = Quantization(
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        pure=pure,
        importance=importance_in(imatrix),
        requantize=allow_requantize,
        nonfinite=allow_nonfinite,
        measure=report is not None,
    )
    headers_only = only not in ("tokenizer", "config")  # for which a folder's small files do
    checkpoint = Checkpoint.from_pretrained(source, projector=projector, only=only, headers_only=headers_only)
    if report is not None:
        from hubclient.report import check_report_path

        check_report_path(Path(report), force=force or dry_run, sources=checkpoint.inputs)

    def planned(checkpoint: Checkpoint) -> Plan:
        return checkpoint.plan(
            out,
            format=target,
            type=[*types, *map(_recipe_file, recipes)] or "auto",
            only=only,
            pre=pre,
            max_shard_size=max_shard_size,
            group_size=group_size,
            quantization=quantization,
        )

    plan = planned(checkpoint)
    if dry_run:
        print_json(plan.as_json()) if as_json else _print_plan(plan)
        ctx.exit(1 if strict and plan.losses else 0)
    if checkpoint.headers_only:
        from hubclient.hub.source.preflight import refuse_early

        refuse_early(checkpoint, plan, strict=strict, force=force)
        plan = planned(with_weights(checkpoint))
    with progress_bar("converting") as progress:
        stage = progress.stage if progress else None
        told = partial(_report, plan, Path(report)) if report is not None else None
        outcome = run(
            plan, strict=strict, force=force, jobs=jobs, max_memory=max_memory, progress=progress, stage=stage, told=told
        )
    if as_json:
        outputs = [_told(output, tensors) for output, tensors in zip(plan.outputs, outcome.tensors, strict=True)]
        print_json({"written": list(map(str, outcome.paths)), "outputs": outputs, "losses": list(plan.losses)})
    else:
        _print_result(plan, [outcome.counts(index) for index in range(len(plan.outputs))])
        _print_replaced(outcome)


def _report(plan: Plan, path: Path, outcome: Outcome) -> None:
    from hubclient.report import Report, write_report

    write_report(Report.of(plan, outcome), path)
    click.echo(printable(f"report: {path}"), err=True)


def _print_replaced(outcome: Outcome) -> None:
    """How many NaN and infinities became something else, over all outputs."""
    found = [
        kept.changed for tensors in outcome.tensors for kept in tensors.values() if kept.fidelity == "quantised" and kept.changed
    ]
    if found:
        click.echo(f"note: {sum(found):,} NaN and infinities were replaced, in {len(found)} quantised tensors", err=True)


def _recipe_file(name: str) -> str:
    """A recipe's file is known by its ending, or by having a folder."""
    return name if name.lower().endswith(".toml") else str(Path(name).absolute())


def _told(output: OutputPlan, tensors: Mapping[str, Kept]) -> dict[str, Any]:
    lists = {"losses": list(output.losses), "dropped": list(output.dropped), "notes": list(output.notes)}
    values = {name: kept.as_json() for name, kept in tensors.items()}
    return {"path": str(output.path), "type": output.type, "bytes": output.size, **lists, "tensors": values}


def _print_result(plan: Plan, found: Sequence[Mapping[str, int]], verb: str = "") -> None:
    for output, fidelities in zip(plan.outputs, found, strict=True):
        counts = ", ".join(f"{count} {kind}" for kind, count in fidelities.items())
        click.echo(f"{verb}{_where(output)}  {human(output.size)}  {output.type}" + (f"  ({counts})" if counts else ""))
    notes = tuple(f"{output.path.name}: {note}" for output in plan.outputs for note in output.notes)
    for heading, lines in (("note", notes), ("not carried over", plan.losses)):
        for line in lines[:_SHOWN]:
            click.echo(printable(f"{heading}: {line}"), err=True)
        if len(lines) > _SHOWN:
            click.echo(f"{heading}: {len(lines) - _SHOWN} more, which --json lists", err=True)


def _print_plan(plan: Plan) -> None:
    from hubclient.cli.dryrun import print_steps
    from hubclient.plan import fidelities

    print_steps(plan)
    _print_result(plan, list(map(fidelities, plan.outputs)), "would write ")
    for output in plan.outputs:
        for path in (output.path,) if output.folder else output.paths():
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                click.echo(printable(f"note: {path} is already there; --force replaces it"), err=True)


def _where(output: OutputPlan) -> str:
    """What to open afterwards: a split has no file of the name that was asked for, so its first part is named."""
    first, *more = (output.path,) if output.folder else output.paths()
    return f"{first} and {len(more)} more" if more else str(first)


COMMANDS = (convert,)
