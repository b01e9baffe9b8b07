"""`hubclient cache`: look after the models on this machine; each command is one call of hubclient.Cache."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hubclient.cache.store import Cache
from hubclient.cli.options import SIZE, as_json, console, counted, human, print_json, printable, progress_bar

if TYPE_CHECKING:
    from hubclient.cache.model import CachedRepo
    from hubclient.cache.plans import RemovalPlan
    from hubclient.cache.summary import RepoSummary

    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # generic only since click 8.5

_SHOWN = 20  # lines of a list that may have thousands


class Age(_ParamType):
    """A time span in seconds: 90d, 12h, 2w, 6mo, 1y; a bare number is days."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """From text."""
        from hubclient.cache.filters import age

        found = age(str(value))
        if found is None:
            self.fail(f"{value!r} is no time span, such as 90d, 12h, 2w, 6mo or 1y", param, ctx)
        return found


@click.group()
@click.option("--cache", "path", metavar="DIR", help="Another cache than the one that HF_HUB_CACHE or HF_HOME names.")
@click.pass_context
def cache(ctx: click.Context, path: str | None) -> None:
    """Look after the models on this machine: what is here, is it intact, what may go.

    It is the cache of huggingface_hub, Transformers and llama.cpp. All of this works without a network, except that repair
    fetches what no intact copy is left of. REPO is such as org/name, org/name@main or datasets/org/name.
    """
    ctx.obj = {**(ctx.obj or {}), "cache": Cache(path)}


def _with_cache(command: Callable[..., None]) -> Callable[..., None]:
    """Hand the group's cache to a command."""
    from functools import update_wrapper

    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        ctx.invoke(command, ctx.obj["cache"], **options)

    return update_wrapper(run, command)


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
    _print_columns(("repository", "size", "files", "last used", "refs", ""), [_line(row) for row in rows])
    click.echo(
        f"{counted(len(rows), 'repository')}, {human(sum(row.size for row in rows))} in {printable(str(store.path))}", err=True
    )


@cache.command()
@click.argument("source", metavar="REPO[@REVISION]")
@as_json
@_with_cache
def show(store: Cache, source: str, as_json: bool) -> None:
    """Show a repository's revisions, files, pins, and what was made from it."""
    found = store.show(source)
    print_json(found.as_json()) if as_json else _print_repo(found)


@cache.command()
@as_json
@_with_cache
def stats(store: Cache, as_json: bool) -> None:
    """Say what takes the room, and what could be had back."""
    found = store.stats()
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        (
            "on the disk",
            human(found.size),
            f"{counted(found.repositories, 'repository')}, {counted(found.revisions, 'revision')}",
        ),
        *((f"  {name}", human(share.size), counted(share.count, "file")) for name, share in sorted(found.formats.items())),
        ("in several repositories", human(found.duplicates.size), f"{counted(found.duplicates.count, 'further copy')}"),
        ("shared store", human(found.shared.size), counted(found.shared.count, "file")),
        ("unfinished downloads", human(found.incomplete.size), counted(found.incomplete.count, "file")),
        ("without branch or tag", human(found.unreferenced.size), counted(found.unreferenced.count, "revision")),
        ("`prune` would free", human(found.reclaimable), ""),
        ("verified, unchanged since", human(found.verified.size), counted(found.verified.count, "file")),
        ("pinned", "", counted(found.pinned, "repository")),
        ("cannot be used", "", counted(found.faults, "file")),
    ]
    _print_columns(("", "size", ""), [row for row in rows if row[0].startswith(("on", " ", "`")) or not _is_nothing(row)])


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
@_with_cache
def pin(store: Cache, sources: tuple[str, ...], why: str) -> None:
    """Keep repositories, or revisions of them, from being collected, pruned or removed."""
    for source in sources:
        store.pin(source, why)
        click.echo(printable(f"pinned {source}"))


@cache.command()
@click.argument("sources", nargs=-1, required=True, metavar="REPO[@REVISION]...")
@_with_cache
def unpin(store: Cache, sources: tuple[str, ...]) -> None:
    """Take pins away."""
    for source in sources:
        click.echo(printable(f"unpinned {source}" if store.unpin(source) else f"{source} was not pinned"))


@cache.command()
@click.argument("source", metavar="REPO[@REVISION][:FILE]")
@dry_run
@yes
@as_json
@_with_cache
def rm(store: Cache, source: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a repository, a revision, or a file."""
    _carry_out(store, store.plan_rm(source), dry_run=dry_run, yes=yes, as_json=as_json)


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
    from hubclient.cache.retention import GRACE, Policy

    policy = Policy(max_size, max_age, keep_last, GRACE if grace is None else grace, detached=False)
    _carry_out(store, store.plan_gc(policy), dry_run=dry_run, yes=yes, as_json=as_json)


def _carry_out(store: Cache, plan: RemovalPlan, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the plan, ask, remove, say what became of it."""
    if not as_json:
        _print_plan(plan)
    if dry_run or plan.is_empty:
        if as_json:
            print_json({"plan": plan.as_json()})
        return
    if not yes and not _asked("remove this?"):
        raise (
            click.UsageError("nothing was removed: add --yes where nobody can be asked")
            if not sys.stdin.isatty()
            else click.Abort
        )
    with progress_bar("removing") as bar:
        removed = store.carry_out(plan, progress=(lambda freed: bar(freed, plan.freed)) if bar else None)
    if as_json:
        print_json({"plan": plan.as_json(), "removed": removed.as_json()})
        return
    for kept in removed.kept:
        if kept not in plan.kept:
            click.echo(printable(f"kept: {kept.what} {kept.why}"), err=True)
    click.echo(f"{human(removed.freed)} freed", err=True)


def _asked(question: str) -> bool:
    return sys.stdin.isatty() and click.confirm(question, err=True)


def _print_plan(plan: RemovalPlan) -> None:
    lines = [(str(one), human(one.frees), _ago(one.used), one.why) for one in plan.removals]
    orphans = [blob for blob in plan.blobs if blob.orphan]
    if orphans:
        lines.append(
            (f"{counted(len(orphans), 'blob')} that no revision shows", human(sum(blob.frees for blob in orphans)), "", "")
        )
    if plan.debris:
        size = sum(debris.size for debris in plan.debris)
        lines.append((f"{counted(len(plan.debris), 'leftover')} of unfinished writers", human(size), "", ""))
    entries = [entry for entry in plan.shared if entry.frees]
    if entries:
        size = sum(entry.frees for entry in entries)
        lines.append((f"{counted(len(entries), 'file')} of the shared store without a link", human(size), "", ""))
    lines += [(f"{ref.repo} {ref.name}", "", "", f"names {ref.commit[:12]}, which is not here") for ref in plan.refs]
    if lines:
        _print_columns(("goes", "frees", "last used", "why"), lines)
    for kept in plan.kept[:_SHOWN]:
        click.echo(printable(f"kept: {kept.what} {kept.why}"), err=True)
    if len(plan.kept) > _SHOWN:
        click.echo(f"kept: {len(plan.kept) - _SHOWN} more, which --json lists", err=True)
    if plan.short_by:
        click.echo(f"note: {human(plan.short_by)} more than the limit stay, because of what is kept", err=True)
    click.echo(
        f"{human(plan.freed)} of {human(plan.size)} would go" if lines else f"nothing to remove ({human(plan.size)} in use)",
        err=True,
    )


def _print_repo(found: CachedRepo) -> None:
    pinned = f", pinned by {found.pin.by} {found.pin.why}".rstrip() if found.pin else ""
    click.echo(printable(f"{found.repo}: {human(found.size)}, {counted(len(found.revisions), 'revision')}{pinned}"))
    click.echo(printable(f"  {found.paths.path}"))
    for revision in sorted(found.revisions, key=lambda one: -one.used):
        refs = f" ({', '.join(revision.refs)})" if revision.refs else ""
        pinned = f", pinned by {revision.pin.by} {revision.pin.why}".rstrip() if revision.pin else ""
        whole = f" of {revision.expected:,}" if revision.expected and revision.expected > len(revision.files) else ""
        told = f"{len(revision.files):,}{whole} files, {human(revision.size)}, used {_ago(revision.used)}{pinned}"
        click.echo("\n" + printable(f"{revision.commit}{refs}: {told}"))
        rows = [
            (file.name, human(file.size), file.fault or "", (file.blob or "lies in the snapshot")[:20]) for file in revision.files
        ]
        _print_columns(("file", "size", "", "blob"), rows)
    for output in found.outputs:
        gone = "" if Path(output.path).exists() else " (no longer there)"
        click.echo("\n" + printable(f"made from {output.commit[:12]}: {output.path}, {output.format} {output.type}{gone}"))
    for warning in found.warnings:
        click.echo(printable(f"note: {warning}"), err=True)


def _line(row: RepoSummary) -> tuple[str, ...]:
    marks = ["pinned"] if row.pinned else []
    marks += [counted(row.faults, "broken file")] if row.faults else []
    marks += [f"{human(row.incomplete)} unfinished"] if row.incomplete else []
    marks += [counted(row.revisions, "revision")] if row.revisions != 1 else []
    return str(row.repo), human(row.size), f"{row.files:,}", _ago(row.used), " ".join(row.refs), ", ".join(marks)


def _print_columns(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A plain table. On a terminal rich draws it, cut to its width; importing rich takes longer than all of `ls`."""
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(box=None)
        for head in heads:
            table.add_column(head, justify="right" if head in ("size", "files", "frees") else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(printable, row))
        console().print(table)
        return
    table_rows = [tuple(map(printable, row)) for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*table_rows, strict=True)]
    click.echo(
        "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table_rows)
    )


def _ago(moment: float) -> str:
    seconds = time.time() - moment
    if not moment:
        return ""
    for unit, length in (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


def _is_nothing(row: tuple[str, ...]) -> bool:
    return row[2].startswith("0 ")


COMMANDS = (cache,)
