"""`hubclient pull`: one call of hubclient.hub.pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubclient.cli.options import as_json, console, counted, human, print_json, printable, progress_bar
from hubclient.hub.transfer.crew import WORKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubclient.hub.pull import Pulled
    from hubclient.hub.pullplan import PullPlan
    from hubclient.hub.source.preflight import Preflight

TARGETS = ("gguf", "safetensors", "mlx")

include = click.option(
    "--include", multiple=True, metavar="PATTERN", help="Only files that fit, such as '*.json' or 'onnx/'; several times."
)
exclude = click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that fit.")
for_target = click.option("--for", "target", type=click.Choice(TARGETS), help="Only what a conversion to this format needs.")
workers = click.option(
    "--workers", type=click.IntRange(1, 64), default=WORKERS, show_default=True, help="Files fetched side by side."
)
offline = click.option("--offline", is_flag=True, help="Open no connection: use what is here, as HF_HUB_OFFLINE=1 does.")


@click.command()
@click.argument("source", metavar="REPO[@REVISION][:FILE]")
@include
@exclude
@for_target
@workers
@click.option("--check", is_flag=True, help="Hash what is here already, and fetch again what is damaged.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing (with --for: but configs and tokenizers)."
)
@offline
@as_json
def pull(
    source: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    target: str | None,
    workers: int,
    check: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Bring a repository into the cache: what is not here yet, checked by its digest.

    Prints the folder that shows the files (or, of FILE, its path). A pull that was stopped goes on when it is given again.
    """
    from hubclient.hub.client import Hub

    hub = Hub(offline=offline or None)
    asked = hub.asked(source)
    flights: list[Preflight] = []
    listener = flights.append if target is not None or not dry_run else None  # a look at headers brings files
    with progress_bar("checking") as bar:
        stage = bar.stage if bar else None
        plan = hub.plan_pull(
            asked, include=include, exclude=exclude, target=target, check=check, told=listener, progress=bar, stage=stage
        )
    if not as_json:
        _print_flights(flights)
    pulled = None
    if not dry_run:
        if plan.kept and not as_json:
            click.echo(f"{human(plan.kept)} were left from before", err=True)
        with progress_bar("downloading") as bar:
            pulled = hub.carry_out(plan, workers=workers, progress=bar, stage=bar.stage if bar else None)
    if as_json:
        told = plan.as_json() if pulled is None else pulled.as_json()
        print_json(told | ({"preflight": flights[0].as_json()} if flights else {}))
    elif pulled is None:
        _print_plan(plan)
    else:
        _print_pulled(pulled, asked.file)


def _print_flights(flights: Sequence[Preflight]) -> None:
    """What is known before weights come: all of it where it is about a conversion, else what kind of model it is."""
    for flight in flights:
        faults = (f"note: cannot be converted: {flight.fault}",) if flight.fault else ()
        for line in flight.lines() if flight.target else (flight.summary, *faults):
            click.echo(printable(line), err=True)


def _print_pulled(pulled: Pulled, file: str | None) -> None:
    """What became of it on stderr; on stdout where it is, and nothing else."""
    for note in pulled.notes:
        click.echo(printable(f"note: {note}"), err=True)
    click.echo(_told(pulled), err=True)
    single = file is not None and pulled.names == (file,)
    click.echo(printable(str(pulled.snapshot / pulled.names[0] if single else pulled.snapshot)))


def _told(pulled: Pulled) -> str:
    came = f"{counted(len(pulled.fetched), 'file')}, {human(pulled.downloaded)} downloaded"
    here = f"{counted(len(pulled.reused), 'file')}, {human(pulled.reused_bytes)} were here"
    parts = [came] if pulled.fetched else []
    return "; ".join([*parts, here] if pulled.reused or not parts else parts)


def _print_plan(plan: PullPlan) -> None:
    from rich.table import Table

    from hubclient.hub.selection import unfit

    table = Table(box=None)
    for column in ("file", "size", ""):
        table.add_column(column, justify="right" if column == "size" else "left")
    states = dict.fromkeys(plan.present.missing, "fetch") | dict.fromkeys(plan.present.damaged, "fetch again: damaged")
    for name in plan.names:
        table.add_row(printable(name), human(plan.resolved.entries[name].size), states.get(name, "here"))
    console().print(table)
    kept = f", {human(plan.kept)} are left from a run that was stopped" if plan.kept else ""
    click.echo(f"{human(plan.transfer)} would be downloaded{kept}; {human(plan.reused)} are here; {human(plan.free)} are free")
    for pattern in plan.unmatched:
        click.echo(printable(f"note: {unfit(pattern, plan.resolved.entries)}"), err=True)
    if plan.needs > plan.free:
        click.echo("note: that does not fit on the disk", err=True)


COMMANDS = (pull,)
