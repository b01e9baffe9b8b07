"""`hubclient sync`: one call of hubclient.hub.locking.sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubclient.cli.options import as_json, counted, human, print_json, printable, progress_bar
from hubclient.cli.pull import offline, workers

if TYPE_CHECKING:
    from hubclient.hub.locking import Synced
from hubclient.hub.lockfile import DEFAULT_NAME


@click.command()
@click.argument("path", metavar="[FILE]", default=DEFAULT_NAME)
@click.option("--check", is_flag=True, help="Hash what is here already, and fetch again what is damaged.")
@workers
@offline
@as_json
def sync(path: str, check: bool, workers: int, offline: bool, as_json: bool) -> None:
    """Fetch exactly what a lock file (hubclient.lock) names, as far as it is not here.

    What is here already takes no connection. A Hub that has other bytes for a commit is refused. A run that was stopped goes
    on when it is given again.
    """
    from hubclient.hub.client import Hub

    with progress_bar("syncing") as bar:
        synced = Hub(offline=offline or None).sync(
            path, check=check, workers=workers, progress=bar, stage=bar.stage if bar else None
        )
    if as_json:
        print_json(synced.as_json())
        return
    for pulled in synced.pulled:
        for note in pulled.notes:
            click.echo(printable(f"note: {note}"), err=True)
        click.echo(printable(str(pulled.snapshot)))
    click.echo(_told(synced), err=True)


def _told(synced: Synced) -> str:
    """What it did, over all repositories."""
    came = sum(len(pulled.fetched) for pulled in synced.pulled), sum(pulled.downloaded for pulled in synced.pulled)
    here = sum(len(pulled.reused) for pulled in synced.pulled), sum(pulled.reused_bytes for pulled in synced.pulled)
    state = "intact" if synced.checked else "here"
    if not came[0]:
        return f"{counted(here[0], 'file')}, {human(here[1])}: all {state}"
    fetched = f"{counted(came[0], 'file')}, {human(came[1])} downloaded"
    return f"{fetched}; {counted(here[0], 'file')}, {human(here[1])} were {state}" if here[0] else fetched


COMMANDS = (sync,)
