"""`hubclient push`: one call of hubclient.hub.publish.push."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from hubclient.cli.options import as_json, counted, human, print_json, printable, progress_bar
from hubclient.cli.pull import exclude, include

if TYPE_CHECKING:
    from hubclient.hub.publish.push import Pushed

_SHOWN = 8  # files


@click.command()
@click.argument("path")
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make a new repository private; refuse one that is there and public.")
@click.option("--create-pr", is_flag=True, help="Propose it as a pull request.")
@click.option("--revision", metavar="BRANCH", help="Push to this branch, which is made if it is new; main by default.")
@click.option("--message", metavar="TEXT", help="The commit's message.")
@click.option("--no-card", is_flag=True, help="Write no model card, and add nothing to one.")
@include
@exclude
@click.option("--offline", is_flag=True, help="Refused: a push needs the Hub.")
@as_json
def push(
    path: str,
    repo: str,
    private: bool,
    create_pr: bool,
    revision: str | None,
    message: str | None,
    no_card: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Send PATH (a file or a folder) to REPO on the Hub, in one commit; REPO is made if it is new.

    A model card is written that says what the files are and what they were made from; one that is there is only added to.
    Hidden files, unfinished outputs and what is called like a token or a key never go. Prints the commit's address.
    """
    from hubclient.hub.net.session import Session
    from hubclient.hub.publish.push import push as send

    with ExitStack() as stack:
        pushed = send(
            Session.of(offline=offline or None),
            path,
            repo,
            private=private or None,
            create_pr=create_pr,
            revision=revision,
            message=message,
            card=not no_card,
            include=include,
            exclude=exclude,
            progress=_reading(stack),
            bars=sys.stderr.isatty(),
        )
    if as_json:
        print_json(asdict(pushed))
    else:
        _print(pushed)


def _reading(stack: ExitStack) -> Callable[[int, int], None]:
    """A bar while digests are made, gone before huggingface_hub shows its own."""
    bar = stack.enter_context(progress_bar("reading"))

    def progress(done: int, total: int) -> None:
        if bar is not None:
            bar(done, total)
        if done >= total:
            stack.close()

    return progress


def _print(pushed: Pushed) -> None:
    made = f"made {pushed.repo} ({'private' if pushed.private else 'public'}); " if pushed.created else ""
    card = f" (README.md {pushed.card})" if pushed.card else ""
    click.echo(printable(f"{made}{counted(len(pushed.files), 'file')}{card}, {human(pushed.bytes)}"), err=True)
    for name, why in list(pushed.left_out.items())[:_SHOWN]:
        click.echo(printable(f"left out: {name} ({why})"), err=True)
    if len(pushed.left_out) > _SHOWN:
        click.echo(f"left out: {len(pushed.left_out) - _SHOWN} more, which --json lists", err=True)
    for note in pushed.notes:
        click.echo(printable(f"note: {note}"), err=True)
    click.echo(printable(pushed.pr_url or pushed.url))


COMMANDS = (push,)
