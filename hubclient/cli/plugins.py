"""`hubclient plugins`: list, check and switch plugins; works whatever is wrong with any of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from hubclient.cli.options import as_json, console, print_json, printable
from hubclient.plugins import Conflict, PluginInfo, diagnose, disable, enable, get_host, show

if TYPE_CHECKING:
    from hubclient.testing import Outcome


@click.group()
def plugins() -> None:
    """List, check and switch plugins.

    A plugin is a package that teaches hubclient architectures, formats or commands. All of this works whatever is wrong
    with any of them.
    """


@plugins.command()
@as_json
def ls(as_json: bool) -> None:
    """List all plugins, without importing any."""
    host = get_host()
    if as_json:
        conflicts = _conflicts(host.conflicts())
        print_json({"plugins": _rows(host.plugins()), "conflicts": conflicts, "problems": list(host.problems)})
    else:
        _print_table(host.plugins())
        _print_lines("conflict", (str(conflict) for conflict in host.conflicts()))


@plugins.command("show")
@click.argument("name")
@as_json
def show_(name: str, as_json: bool) -> None:
    """Show the plugins called NAME, or those that announce it (hf.LlamaForCausalLM, format.gguf, command.convert)."""
    found = show(get_host(), name)
    if as_json:
        print_json({"plugins": _rows(found)})
    for plugin in () if as_json else found:
        click.echo(f"{plugin.name}: {plugin.distribution} {plugin.version} ({plugin.origin}), {_state(plugin)}")
        click.echo(f"  module    {plugin.module}")
        click.echo(f"  announces {', '.join(plugin.claims)}")


@plugins.command()
@as_json
def doctor(as_json: bool) -> None:
    """Import every enabled plugin and check it; exit code 1 if something is wrong."""
    found = diagnose(get_host())
    if as_json:
        told = {"problems": list(found.problems), "notes": list(found.notes)}
        print_json({"ok": not found.problems, **told, "plugins": _rows(found.plugins)})
    else:
        _print_lines("problem", found.problems)
        _print_lines("note", found.notes)
        click.echo(f"{sum(plugin.state == 'loaded' for plugin in found.plugins)} of {len(found.plugins)} plugins work")
    click.get_current_context().exit(1 if found.problems else 0)


@plugins.command("test")
@click.argument("name")
@as_json
def test_(name: str, as_json: bool) -> None:
    """Hold the architectures of the plugin NAME against the conformance kit; exit code 1 if one fails.

    Small random models are made up from the declarations and taken to every format and back.
    """
    from hubclient.testing import run_installed

    outcomes = run_installed(get_host(), name)
    if as_json:
        rows = [{"case": str(outcome.case), "fault": outcome.fault} for outcome in outcomes]
        print_json({"ok": not any(row["fault"] for row in rows), "cases": rows})
    else:
        _print_outcomes(outcomes)
    click.get_current_context().exit(1 if any(outcome.fault for outcome in outcomes) else 0)


@plugins.command("enable")
@click.argument("name")
@click.option("--prefer", metavar="CLAIM", help="Let it serve this name, which others announce too.")
def enable_(name: str, prefer: str | None) -> None:
    """Turn the plugin NAME on again."""
    _print_switched(enable(get_host(), name, prefer))


@plugins.command("disable")
@click.argument("name")
def disable_(name: str) -> None:
    """Turn the plugin NAME off: it is never imported."""
    _print_switched(disable(get_host(), name))


COMMANDS = (plugins,)


def _rows(found: Iterable[PluginInfo]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(plugin) for plugin in found]


def _conflicts(found: Iterable[Conflict]) -> list[dict[str, Any]]:
    return [
        {
            "claim": conflict.claim,
            "plugins": [plugin.name for plugin in conflict.plugins],
            "serving": conflict.serving.name if conflict.serving else None,
            "settled": conflict.settled,
        }
        for conflict in found
    ]


def _state(plugin: PluginInfo) -> str:
    if not plugin.enabled:
        return f"disabled by {plugin.disabled_by}"
    return f"{plugin.state}: {plugin.error}" if plugin.error else plugin.state


def _print_lines(kind: str, lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(f"{kind}: {line}"))


def _print_outcomes(outcomes: Iterable[Outcome]) -> None:
    """A row for each check and declaration: passed, or what is wrong."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("architecture", "check", "result"):
        table.add_column(heading, overflow="fold")
    passed = 0
    for outcome in outcomes:
        passed += outcome.fault is None
        table.add_row(*map(printable, (str(outcome.case.subject), outcome.case.check.name, outcome.fault or "passed")))
    console().print(table)
    click.echo(f"{passed} of {table.row_count} checks passed")


def _print_switched(found: Iterable[PluginInfo]) -> None:
    for plugin in found:
        click.echo(f"{plugin.name} ({plugin.distribution} {plugin.version}): {'enabled' if plugin.enabled else _state(plugin)}")


def _print_table(found: Iterable[PluginInfo]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("plugin", "from", "state", "announces"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "plugin")
    for plugin in found:
        cells = (plugin.name, f"{plugin.distribution} {plugin.version}", _state(plugin), " ".join(plugin.claims))
        table.add_row(*map(printable, cells))
    console().print(table)
