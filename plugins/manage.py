"""What the `hubclient plugins` commands do: switch plugins on and off for good, and examine all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from hubclient.errors import UsageError
from hubclient.plugins.builtins import ESSENTIAL
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
    if any(plugin.origin == "builtin" and plugin.name in ESSENTIAL for plugin in known(host, name)):
        raise UsageError(f"the plugin {name} cannot be disabled: without it nothing could be enabled again")
    return _keep(host, name, read_settings(host.settings_file).disable(name))


def known(host: Host, name: str) -> tuple[PluginInfo, ...]:
    """The plugins called `name`; UsageError with close names if there are none."""
    found = host.find(name)
    if not found:
        near = get_close_matches(name, [plugin.name for plugin in host.plugins()], n=3)
        told = f"; close names: {', '.join(near)}" if near else ""
        raise UsageError(f"there is no plugin {name!r}{told}", hint="`hubclient plugins ls` lists them")
    return found


def show(host: Host, name: str) -> tuple[PluginInfo, ...]:
    """The plugins called `name`, or those that announce the claim `name` (`hf.LlamaForCausalLM`, `format.gguf`)."""
    return tuple(plugin for plugin in host.plugins() if name in plugin.claims) or known(host, name)


def diagnose(host: Host) -> Diagnosis:
    """Import every enabled plugin and say what is wrong: with plugins, with settings, between plugins."""
    host.import_all()
    return Diagnosis(host.plugins(), host.problems, tuple(_notes(host)))


def _keep(host: Host, name: str, settings: Settings) -> tuple[PluginInfo, ...]:
    write_settings(host.settings_file, settings)
    host.settings = settings
    return host.find(name)


def _notes(host: Host) -> Iterator[str]:
    """What is worth knowing and is not wrong."""
    for plugin in host.plugins():
        if not plugin.enabled:
            yield f"the plugin {plugin.name} is disabled by {plugin.disabled_by} and was not examined"
    for name in sorted({*host.settings.disabled, *host.settings.prefer.values()}):
        if not host.find(name):
            yield f"the settings name the plugin {name}, which is not installed"
