"""`hubclient convert`: one call of Checkpoint.plan and one of run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubclient.cli.options import SIZE, as_json, human, print_json, progress_bar

if TYPE_CHECKING:
    from hubclient.plan import Plan


@click.command()
@click.argument("source")
@click.argument("out", required=False)
@click.option("--to", "target", required=True, metavar="FORMAT", help="gguf or safetensors.")
@click.option(
    "--type", "types", multiple=True, metavar="T", help="Encoding: auto (default), f32, f16, bf16, Q8_0 ...; several times for several outputs."
)
@click.option("--only", type=click.Choice(["tokenizer", "config"]), help="Convert only this part.")
@click.option("--pre", metavar="NAME", help="Name of the pre-tokenizer (tokenizer.ggml.pre), if it is not recognised.")
@click.option("--max-shard-size", type=SIZE, help="Split the weights over files of at most this size, such as 5GB.")
@click.option("--jobs", type=click.IntRange(1), help="Threads; by default one per core.")
@click.option("--max-memory", type=SIZE, default="512M", show_default=True, help="Bound on memory for the work itself.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--strict", is_flag=True, help="Refuse (exit code 1) if anything is not carried over.")
@click.option("--force", is_flag=True, help="Replace an output that is already there.")
@as_json
def convert(
    source: str,
    out: str | None,
    target: str,
    types: tuple[str, ...],
    only: str | None,
    pre: str | None,
    max_shard_size: int | None,
    jobs: int | None,
    max_memory: int,
    dry_run: bool,
    strict: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Turn SOURCE (a folder or file) into another layout or encoding.

    OUT may contain {name} and {type}; by default it is named after SOURCE, in the working folder. A run that was stopped
    goes on when the same command is given again.
    """
    from hubclient.checkpoint import Checkpoint, run

    plan = Checkpoint.from_pretrained(source, only=only).plan(
        out, format=target, type=types or "auto", only=only, pre=pre, max_shard_size=max_shard_size
    )
    if dry_run:
        print_json(plan.as_json()) if as_json else _print_plan(plan)
        return
    with progress_bar("converting") as progress:
        written = run(plan, strict=strict, force=force, jobs=jobs, max_memory=max_memory, progress=progress)
    if as_json:
        outputs = [
            {"path": str(output.path), "type": output.type, "bytes": output.size, "losses": list(output.losses), "dropped": list(output.dropped)}
            for output in plan.outputs
        ]
        print_json({"written": [str(path) for path in written], "outputs": outputs, "losses": list(plan.losses)})
    else:
        _print_result(plan)


def _print_result(plan: Plan) -> None:
    from hubclient.plan import fidelities

    for output in plan.outputs:
        counts = ", ".join(f"{count} {kind}" for kind, count in fidelities(output).items())
        click.echo(f"{output.path}  {human(output.size)}  {output.type}" + (f"  ({counts})" if counts else ""))
    for loss in plan.losses:
        click.echo(f"not carried over: {loss}", err=True)


def _print_plan(plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for output in plan.outputs:
        table = Table(title=f"{output.path} ({output.type}, {human(output.size)})", title_justify="left")
        for column in ("tensor", "shape", "encoding", "from", "transform", "values"):
            table.add_column(column, overflow="fold")
        for step in output.steps:
            told = step.as_json()
            source = told["from"] if isinstance(told["from"], str) else ", ".join(told["from"])
            table.add_row(
                step.name,
                "x".join(map(str, told["shape"])),
                told["encoding"],
                f"{source} ({told['source_encoding']})",
                told["transform"],
                told["fidelity"],
            )
        console.print(table)
    _print_result(plan)
COMMANDS = (convert,)
