"""`hubclient lock`: one call of hubclient.hub.locking.lock."""

from __future__ import annotations

import click

from hubclient.cli.options import as_json, counted, human, print_json, printable, progress_bar
from hubclient.cli.pull import exclude, for_target, include, offline

_SHORT = 12  # digits of a commit


@click.command()
@click.argument("sources", metavar="[REPO[@REVISION]]...", nargs=-1)
@click.option("-o", "--output", "path", default="hubclient.lock", show_default=True, metavar="FILE", help="The lock file.")
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
    from hubclient.cache.asked import Asked
    from hubclient.hub.client import Hub

    asked = [Asked.parse(source) for source in sources]
    with progress_bar("locking") as bar:
        locked = Hub(offline=offline or None).lock(
            asked, path, include=include, exclude=exclude, target=target, stage=bar.stage if bar else None
        )
    if as_json:
        print_json(locked.as_json())
        return
    for entry, before in zip(locked.changed, locked.before, strict=True):
        change = f"{before[:_SHORT]} -> {entry.commit[:_SHORT]}" if before else entry.commit[:_SHORT]
        click.echo(printable(f"{entry.asked}  {change}  {counted(len(entry.files), 'file')}, {human(entry.size)}"))
    if not locked.changed:
        click.echo(printable(f"{locked.path}: nothing has changed"))


COMMANDS = (lock,)
