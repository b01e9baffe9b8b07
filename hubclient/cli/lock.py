"""`hubclient lock`: one call of hubclient.hub.locking.lock."""

from __future__ import annotations

import click

from hubclient.cli.options import as_json, counted, human, print_json, printable, progress_bar
from hubclient.cli.pull import exclude, for_target, include, offline
from hubclient.hub.lockfile import DEFAULT_NAME

_SHORT = 12  # digits of a commit


@click.command()
@click.argument("sources", metavar="[REPO[@REVISION]]...", nargs=-1)
@click.option("-o", "--output", "path", default=DEFAULT_NAME, show_default=True, metavar="FILE", help="The lock file.")
@include
@exclude
@for_target
@offline
@as_json
def lock(
    sources: tuple[str, ...],
    path: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    target: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Note which commits repositories are at now, with their files' digests, for `hubclient sync`.

    Repositories that are in FILE already are looked up again, others in it stay as they are; without any, all are looked up.
    """
    from hubclient.hub.client import Hub

    with progress_bar("locking") as bar:
        locked = Hub(offline=offline or None).lock(
            sources, path, include=include, exclude=exclude, target=target, stage=bar.stage if bar else None
        )
    if as_json:
        print_json(locked.as_json())
        return
    for entry, before, count in zip(locked.changed, locked.before, locked.counts, strict=True):
        moved = before is not None and before != entry.commit
        change = f"{before[:_SHORT]} -> {entry.commit[:_SHORT]}" if before and moved else entry.commit[:_SHORT]
        chosen = before is not None and count != len(entry.files)
        files = f"files: {count:,} -> {len(entry.files):,}" if chosen else counted(len(entry.files), "file")
        click.echo(printable(f"{entry.asked}  {change}  {files}, {human(entry.size)}"))
    if not locked.changed:
        click.echo(printable(f"{locked.path}: nothing has changed"))


COMMANDS = (lock,)
