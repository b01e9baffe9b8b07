"""`hubclient cache`: look after the models on this machine; each command is one call of hubclient.Cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hubclient.cache.store import Cache
from hubclient.cli.cacheprint import print_plan, print_repo, print_rows, print_stats
from hubclient.cli.options import SIZE, as_json, counted, human, print_json, printable, progress_bar

if TYPE_CHECKING:
    from hubclient.cache.retention.plans import RemovalPlan

    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # generic only since click 8.5

_ANOTHER = "Another cache than the one that HF_HUB_CACHE or HF_HOME names."


class Age(_ParamType):
    """A time span in seconds: 90d, 12h, 2w, 6mo, 1y; a bare number is days."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """From text."""
        from hubclient.cache.catalog.filters import age

        found = age(str(value))
        if found is None:
            self.fail(f"{value!r} is no time span, such as 90d, 12h, 2w, 6mo or 1y", param, ctx)
        return found


@click.group()
@click.option("--cache", "path", metavar="DIR", help=f"{_ANOTHER} May also follow the command.")
@click.pass_context
def cache(ctx: click.Context, path: str | None) -> None:
    """Look after the models on this machine: what is here, is it intact, what may go.

    It is the cache of huggingface_hub, Transformers and llama.cpp. All of this works without a network, except that repair
    fetches what no intact copy is left of. REPO is such as org/name, org/name@main or datasets/org/name.
    """
    ctx.obj = {**(ctx.obj or {}), "cache": Cache(path)}


def _with_cache(command: Callable[..., None]) -> Callable[..., None]:
    """Hand the group's cache to a command, or the one that is named behind the command."""
    from functools import update_wrapper

    @click.option("--cache", "another", metavar="DIR", help=_ANOTHER)
    @click.pass_context
    def run(ctx: click.Context, /, another: str | None, **options: Any) -> None:
        store = ctx.obj["cache"] if another is None else Cache(another)
        try:
            ctx.invoke(command, store, **options)
        except click.exceptions.Exit:
            _tell_absence(store)
            raise
        _tell_absence(store)

    return update_wrapper(run, command)


def _tell_absence(store: Cache) -> None:
    if not store.exists:
        click.echo(printable(f"{store.path}: there is no cache here yet"), err=True)


yes = click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")


@cache.command()
@click.option("--filter", "filters", multiple=True, metavar="COND", help="Such as size>1GB, used>90d, type=dataset, pinned=yes.")
@click.option("--sort", default="name", show_default=True, help="name, size, used or modified; with :asc or :desc.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@as_json
@_with_cache
def ls(store: Cache, filters: tuple[str, ...], sort: str, limit: int | None, as_json: bool) -> None:
    """List the repositories."""
    rows = store.ls(filters, sort=sort, limit=limit)
    if as_json:
        print_json({"cache": str(store.path), "repositories": [row.as_json() for row in rows]})
        return
    if store.exists:
        print_rows(rows, store.path)


@cache.command()
@click.argument("source", metavar="REPO[@REVISION]")
@as_json
@_with_cache
def show(store: Cache, source: str, as_json: bool) -> None:
    """Show a repository's revisions, files, pins, and what was made from it."""
    found = store.show(source)
    print_json(found.as_json()) if as_json else print_repo(found)


@cache.command()
@as_json
@_with_cache
def stats(store: Cache, as_json: bool) -> None:
    """Say what takes the room, and what could be had back."""
    found = store.stats()
    if as_json:
        print_json(found.as_json())
    elif store.exists:
        print_stats(found)


@cache.command()
@click.argument("sources", nargs=-1, metavar="[REPO[@REVISION]]...")
@click.option("--jobs", type=click.IntRange(1), help="Threads; by default one per core.")
@click.option("--again", is_flag=True, help="Start over instead of going on from an interrupted run.")
@as_json
@_with_cache
@click.pass_context
def verify(ctx: click.Context, store: Cache, sources: tuple[str, ...], jobs: int | None, again: bool, as_json: bool) -> None:
    """Hash everything, or some repositories, and hold it against what it should be; exit code 1 if something is wrong."""
    with progress_bar("verifying") as bar:
        found = store.verify(sources, jobs=jobs, again=again, progress=bar)
    if as_json:
        print_json(found.as_json())
    else:
        for finding in found.findings:
            click.echo(printable(f"{'' if finding.is_failure else 'note: '}{finding}"), err=not finding.is_failure)
        before = f", {found.skipped:,} of them by the run that was interrupted" if found.skipped else ""
        wrong = (
            f"{counted(len(found.failures), 'fault')}; `hubclient cache repair` mends what it can"
            if not found.ok
            else "all intact"
        )
        if store.exists:
            click.echo(f"{counted(found.checked, 'file')} verified{before}: {wrong}", err=True)
    ctx.exit(0 if found.ok else 1)


@cache.command()
@click.argument("sources", nargs=-1, metavar="[REPO[@REVISION]]...")
@click.option("--offline", is_flag=True, help="Mend from this machine only.")
@click.option("--jobs", type=click.IntRange(1), help="Threads that verify; by default one per core.")
@as_json
@_with_cache
@click.pass_context
def repair(ctx: click.Context, store: Cache, sources: tuple[str, ...], offline: bool, jobs: int | None, as_json: bool) -> None:
    """Verify, and mend what is bad: from an intact copy on this machine, else from the Hub; exit code 1 if something is left."""
    from hubclient.hub.client import Hub

    hub = Hub(cache=store.path, offline=offline or None)
    with progress_bar("verifying") as bar:
        found = hub.repair(sources, jobs=jobs, progress=bar, stage=bar.stage if bar else None)
    if as_json:
        print_json(found.as_json())
    else:
        for what, findings in (("mended", found.mended), ("fetched", found.fetched)):
            for finding in findings:
                click.echo(printable(f"{what}: {finding.name}"))
        for left in found.left:
            click.echo(printable(f"left: {left}" + (f" ({left.hint})" if left.hint else "")), err=True)
        click.echo(f"{counted(len(found.mended) + len(found.fetched), 'fault')} mended, {len(found.left)} left", err=True)
    ctx.exit(0 if found.ok else 1)


@cache.command()
@click.argument("sources", nargs=-1, required=True, metavar="REPO[@REVISION]...")
@click.option("--why", default="", help="A note to yourself and others.")
@as_json
@_with_cache
def pin(store: Cache, sources: tuple[str, ...], why: str, as_json: bool) -> None:
    """Keep repositories, or revisions of them, from being collected, pruned or removed."""
    pinned = {source: store.pin(source, why) for source in sources}
    if as_json:
        print_json({"pinned": [{"source": source, "by": one.by, "why": one.why} for source, one in pinned.items()]})
        return
    for source in pinned:
        click.echo(printable(f"pinned {source}"))


@cache.command()
@click.argument("sources", nargs=-1, required=True, metavar="REPO[@REVISION]...")
@as_json
@_with_cache
def unpin(store: Cache, sources: tuple[str, ...], as_json: bool) -> None:
    """Take pins away."""
    gone = {source: store.unpin(source) for source in sources}
    if as_json:
        print_json({"unpinned": [source for source in gone if gone[source]], "not_pinned": [s for s in gone if not gone[s]]})
        return
    for source, was_pinned in gone.items():
        click.echo(printable(f"unpinned {source}" if was_pinned else f"{source} was not pinned"))


@cache.command()
@click.argument("sources", nargs=-1, required=True, metavar="REPO[@REVISION][:FILE]...")
@dry_run
@yes
@as_json
@_with_cache
def rm(store: Cache, sources: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove repositories, revisions, or files or folders of them."""
    _carry_out(store, store.plan_rm(*sources), dry_run=dry_run, yes=yes, as_json=as_json)


@cache.command()
@click.option("--grace", type=Age(), help="Leave alone what was touched within this time (default 1h).")
@dry_run
@yes
@as_json
@_with_cache
def prune(store: Cache, grace: float | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove what is of no use: revisions without branch or tag, abandoned downloads, bytes that nothing shows."""
    _carry_out(store, store.plan_prune(grace=grace), dry_run=dry_run, yes=yes, as_json=as_json)


@cache.command()
@click.option("--max-size", type=SIZE, help="Remove what was least recently used until the cache takes no more, such as 200G.")
@click.option("--max-age", type=Age(), help="Remove what was not used for longer, such as 90d.")
@click.option("--keep-last", type=click.IntRange(0), help="Keep each repository's N last used revisions; alone: and no others.")
@click.option("--grace", type=Age(), help="Leave alone what was touched within this time (default 1h).")
@dry_run
@yes
@as_json
@_with_cache
def gc(
    store: Cache,
    max_size: int | None,
    max_age: float | None,
    keep_last: int | None,
    grace: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Keep the cache within bounds: least recently used first, never what is pinned or being downloaded.

    Without a bound only what nothing shows goes: abandoned downloads and the like.
    """
    from hubclient.cache.retention.policy import GRACE, Policy

    policy = Policy(max_size, max_age, keep_last, GRACE if grace is None else grace)
    _carry_out(store, store.plan_gc(policy), dry_run=dry_run, yes=yes, as_json=as_json)


def _carry_out(store: Cache, plan: RemovalPlan, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the plan, ask, remove, say what became of it."""
    if not as_json and store.exists:
        print_plan(plan)
    if dry_run or plan.is_empty:
        if as_json:
            print_json({"plan": plan.as_json()})
        return
    if not yes and not _agreed("remove this?"):
        click.echo("nothing was removed", err=True)
        click.get_current_context().exit(1)
    with progress_bar("removing") as bar:
        removed = store.carry_out(plan, progress=(lambda freed: bar(freed, plan.freed)) if bar else None)
    if as_json:
        print_json({"plan": plan.as_json(), "removed": removed.as_json()})
        return
    for kept in removed.kept:
        if kept not in plan.kept:
            click.echo(printable(f"kept: {kept.what} {kept.why}"), err=True)
    click.echo(f"{human(removed.freed)} freed", err=True)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("nothing was removed: add --yes where nobody can be asked")
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or the end of the input
        click.echo(err=True)
        return False


COMMANDS = (cache,)
