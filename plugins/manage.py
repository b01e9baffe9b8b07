"""What the `hubclient plugins` commands do: switch plugins on and off for good, and examine all of them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from hubclient.errors import UsageError
from hubclient.plugins.host import Host
from hubclient.plugins.registry import PluginInfo
from hubclient.plugins.settings import Settings, read_settings, write_settings


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an examination found: every plugin, and a sentence for everything that is wrong. Empty `problems` is health."""

    plugins: tuple[PluginInfo, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def enable(host: Host, name: str, prefer: str | None = None) -> tuple[PluginInfo, ...]:
    """Turn a plugin on and, if `prefer` is a claim that it announces, let it serve that claim. UsageError if it cannot."""
    found = known(host, name)
    if prefer is not None and not any(prefer in plugin.claims for plugin in found):
        claims = ", ".join(claim for plugin in found for claim in plugin.claims)
        raise UsageError(f"the plugin {name} does not announce {prefer}, only {claims}")
    return _keep(host, name, read_settings(host.settings_file).enable(name, prefer))


def disable(host: Host, name: str) -> tuple[PluginInfo, ...]:
    """Turn a plugin off; it is never imported then. UsageError if there is none of that name or nothing works without it."""
    found = known(host, name)
    changed = _keep(host, name, read_settings(host.settings_file).disable(name))
    if all(plugin.enabled for plugin in found) and all(plugin.enabled for plugin in changed):
        raise UsageError(f"the plugin {name} cannot be disabled: it is what enables others")
    return changed


def known(host: Host, name: str) -> tuple[PluginInfo, ...]:
    """The plugins called `name`; UsageError with close names if there are none."""
    found = host.find(name)
    if not found:
        near = get_close_matches(name, [plugin.name for plugin in host.plugins()], n=3)
        told = f"; close names: {', '.join(near)}" if near else ""
        raise UsageError(f"there is no plugin {name!r}{told}", hint="`hubclient plugins ls` lists them")
    return found


def diagnose(host: Host) -> Diagnosis:
    """Import every enabled plugin and say what is wrong: with plugins, with settings, between plugins."""
    host.import_all()
    plugins = host.plugins()
    broken = [f"the plugin {plugin.name} ({plugin.distribution} {plugin.version}) {plugin.error}" for plugin in plugins if plugin.error]
    open_conflicts = [f"{conflict}; {conflict.remedy}" for conflict in host.conflicts() if not conflict.settled]
    problems = dict.fromkeys([*host.problems, *broken, *open_conflicts])
    return Diagnosis(plugins, tuple(problems), tuple(_notes(host, plugins)))


def _notes(host: Host, plugins: tuple[PluginInfo, ...]) -> list[str]:
    notes = [f"the plugin {plugin.name} is disabled by {plugin.disabled_by} and was not examined" for plugin in plugins if not plugin.enabled]
    settings = host.settings
    for name in sorted({*settings.disabled, *settings.prefer.values()}):
        if not host.find(name):
            notes.append(f"the settings name a plugin {name} that is not installed")
    return notes
