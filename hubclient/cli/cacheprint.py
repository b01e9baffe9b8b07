"""What `hubclient cache` prints for people: tables on stdout, what became of it and why on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubclient.cache.retention.keeping import ago
from hubclient.cache.unfinished import download_of
from hubclient.cli.options import console, counted, human, printable

if TYPE_CHECKING:
    from hubclient.cache.catalog.summary import RepoSummary
    from hubclient.cache.catalog.tally import Stats
    from hubclient.cache.model import CachedRepo
    from hubclient.cache.retention.plans import Kept, RemovalPlan

_FEW = 5  # things that stay, which are told one by one
_RIGHT = ("size", "files", "frees")  # columns of numbers


def print_rows(rows: Sequence[RepoSummary], path: Path) -> None:
    """The repositories of a cache."""
    print_columns(("repository", "size", "files", "last used", "refs", ""), [_line(row) for row in rows])
    click.echo(f"{counted(len(rows), 'repository')}, {human(sum(row.size for row in rows))} in {printable(str(path))}", err=True)


def _line(row: RepoSummary) -> tuple[str, ...]:
    marks = ["pinned"] if row.pinned else []
    marks += [counted(row.faults, "broken file")] if row.faults else []
    marks += [f"{counted(row.downloads, 'unfinished download')}, {human(row.incomplete)} so far"] if row.downloads else []
    marks += [counted(row.revisions, "revision")] if row.revisions != 1 else []
    return str(row.repo), human(row.size), f"{row.files:,}", _since(row.used), " ".join(row.refs), ", ".join(marks)


def print_stats(found: Stats) -> None:
    """What takes the room; of what may be there, only what is."""
    held = f"{counted(found.repositories, 'repository')}, {counted(found.revisions, 'revision')}"
    rows = [
        ("on the disk", found.size, held),
        *((f"  {name}", share.size, counted(share.count, "file")) for name, share in sorted(found.formats.items())),
    ]
    perhaps = [
        ("in several repositories", found.duplicates, "further copy"),
        ("shared store", found.shared, "file"),
        ("unfinished downloads", found.incomplete, "file"),
        ("without branch or tag", found.unreferenced, "revision"),
        ("verified, unchanged since", found.verified, "file"),
    ]
    rows += [(name, share.size, counted(share.count, what)) for name, share, what in perhaps if share.count]
    rows.append(("`prune` would free", found.reclaimable, ""))
    numbers = [("pinned", found.pinned, "repository"), ("cannot be used", found.faults, "file")]
    told = [(name, human(size), what) for name, size, what in rows]
    print_columns(("", "size", ""), told + [(name, "", counted(count, what)) for name, count, what in numbers if count])


def print_repo(found: CachedRepo) -> None:
    """A repository, or what is left of it for one revision."""
    pinned = f", pinned by {found.pin.by} {found.pin.why}".rstrip() if found.pin else ""
    click.echo(printable(f"{found.repo}: {human(found.size)}, {counted(len(found.revisions), 'revision')}{pinned}"))
    click.echo(printable(f"  {found.paths.path}"))
    for revision in sorted(found.revisions, key=lambda one: -one.used):
        refs = f" ({', '.join(revision.refs)})" if revision.refs else ""
        pinned = f", pinned by {revision.pin.by} {revision.pin.why}".rstrip() if revision.pin else ""
        whole = revision.expected if revision.expected and revision.expected > len(revision.files) else 0
        files = f"{len(revision.files):,} of {counted(whole, 'file')}" if whole else counted(len(revision.files), "file")
        click.echo(
            "\n" + printable(f"{revision.commit}{refs}: {files}, {human(revision.size)}, used {_since(revision.used)}{pinned}")
        )
        rows = [
            (file.name, human(file.size), file.fault or "", (file.blob or "lies in the snapshot")[:20]) for file in revision.files
        ]
        print_columns(("file", "size", "", "blob"), rows)
    for output in found.outputs:
        gone = "" if Path(output.path).exists() else " (no longer there)"
        click.echo("\n" + printable(f"made from {output.commit[:12]}: {output.path}, {output.format} {output.type}{gone}"))
    for warning in found.warnings:
        click.echo(printable(f"note: {warning}"), err=True)


def print_plan(plan: RemovalPlan) -> None:
    """What would go, what stays though it was asked for, and how much it is."""
    lines = [(str(one), human(one.frees), _since(one.used), one.why) for one in plan.removals]
    lines += [(told, human(size), "", "") for told, size in _unshown(plan)]
    lines += [(f"{ref.repo} {ref.name}", "", "", f"names {ref.commit[:12]}, which is not here") for ref in plan.refs]
    if not lines:
        lines = [(str(repo), "", "", "is empty") for repo in plan.repos]
    if lines:
        print_columns(("goes", "frees", "last used", "why"), lines)
    for line in _kept(plan.kept, plan.grace):
        click.echo(printable(f"kept: {line}"), err=True)
    if plan.short_by:
        click.echo(f"still {human(plan.short_by)} over the limit of {human(plan.remaining - plan.short_by)}", err=True)
    told = f"{human(plan.freed)} of {human(plan.size)} would go" if lines else f"nothing to remove ({human(plan.size)} in use)"
    click.echo(told, err=True)


def _unshown(plan: RemovalPlan) -> list[tuple[str, int]]:
    """What goes that is no revision: what it is, and its bytes."""
    found = []
    if orphans := [blob for blob in plan.blobs if blob.orphan]:
        found.append((f"{counted(len(orphans), 'blob')} that no revision shows", sum(blob.frees for blob in orphans)))
    begun = [debris for debris in plan.debris if debris.kind in ("incomplete", "ledger")]
    if begun:
        count = len({download_of(debris.path) for debris in begun})
        where = sorted({str(debris.repo) for debris in begun if debris.repo})
        told = f"{counted(count, 'unfinished download')}" + (f" of {where[0]}" if len(where) == 1 else "")
        found.append((told, sum(debris.size for debris in begun)))
    if rest := [debris for debris in plan.debris if debris not in begun]:
        found.append((f"{counted(len(rest), 'leftover')} of unfinished writers", sum(debris.size for debris in rest)))
    if entries := [entry for entry in plan.shared if entry.frees]:
        found.append((f"{counted(len(entries), 'file')} of the shared store without a link", sum(one.frees for one in entries)))
    return found


def _kept(kept: Sequence[Kept], grace: float) -> list[str]:
    """What stays: a few one by one, many by their reasons."""
    if len(kept) <= _FEW:
        return [f"{one.what} {one.why}" for one in kept]
    counts = Counter((_kind(one), _reason(one.why, grace)) for one in kept)
    parts = [f"{counted(count, kind)} {reason}" for (kind, reason), count in counts.most_common()]
    return [", ".join(parts) + " (--json lists them)"]


def _kind(one: Kept) -> str:
    return "unfinished download" if one.what.startswith("an unfinished download") else "revision" if "@" in one.what else "file"


def _reason(why: str, grace: float) -> str:
    """Why something stays, without what differs from one to the next: when, by whom."""
    for verb in ("used", "written"):
        if why.startswith(f"was {verb} "):
            return f"{verb} within the last {ago(grace).removesuffix(' ago').removeprefix('1 ')} (--grace 0s includes them)"
    return "pinned" if why.startswith("is pinned") else why.removeprefix("is ").removeprefix("was ")


def print_columns(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A plain table. On a terminal rich draws it, cut to its width; importing rich takes longer than all of `ls`."""
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(box=None)
        for head in heads:
            table.add_column(head, justify="right" if head in _RIGHT else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(printable, row))
        console().print(table)
        return
    table_rows = [tuple(map(printable, row)) for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*table_rows, strict=True)]
    click.echo(
        "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table_rows)
    )


def _since(moment: float) -> str:
    """How long ago that was, in the largest unit; nothing for never."""
    seconds = time.time() - moment
    if not moment:
        return ""
    return "just now" if seconds < 60 else ago(seconds)
