"""The plugin host: who announces a name, which one of them serves it, and the objects behind it.

A plugin is imported when something it announced is asked for, alone, and at most once. If it cannot be used, that is one
line on stderr that names its distribution (or a PluginError, if nobody else can answer); everything else goes on.

Who serves a name that several announce: the plugin that the user prefers; else the built-in, and a line says so; else
nobody, which is a PluginConflict. The order in which plugins are found or imported never matters.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from hubclient.errors import HubclientError, PluginConflict, PluginError, UnsupportedArchitecture, UnsupportedFormat
from hubclient.plugins import hookspecs
from hubclient.plugins.builtins import builtins
from hubclient.plugins.discovery import UNIQUE, Announcement, Scan, scan
from hubclient.plugins.loading import Contributions, load
from hubclient.plugins.registry import Conflict, Plugin, PluginInfo, gather
from hubclient.plugins.settings import Settings, read_settings, settings_path

if TYPE_CHECKING:
    import click

    from hubclient.architectures import Architecture
    from hubclient.formats.model import Format


class Host:
    """All installed plugins. `get_host()` is the one of this process; tests make their own with what they announce.

    `environ` gives the HUBCLIENT_* variables; `settings_file` overrides where the settings are read from.
    """

    def __init__(
        self,
        *,
        builtin: Iterable[Announcement] | None = None,
        third_party: Callable[[], Scan] = scan,
        environ: Mapping[str, str] = os.environ,
        settings_file: Path | None = None,
    ) -> None:
        self.settings_file = settings_file or settings_path(environ)
        self.settings = Settings()
        self._problems: list[str] = []
        self._warned: set[str] = set()
        self._lock = threading.RLock()  # tiles and outputs are worked on by threads, which may all ask
        self._manager = pluggy.PluginManager("hubclient")
        self._manager.add_hookspecs(hookspecs)
        self._disabled_here = tuple(name for name in environ.get("HUBCLIENT_DISABLE_PLUGINS", "").split(",") if name.strip())
        self._read_settings()
        found = Scan((), ()) if environ.get("HUBCLIENT_NO_THIRD_PARTY", "0") not in ("", "0") else third_party()
        for problem in found.problems:
            self._report(problem)
        self._plugins = gather([*(builtins() if builtin is None else builtin), *found.announcements])

    def _read_settings(self) -> None:
        try:
            self.settings = read_settings(self.settings_file)
        except HubclientError as error:
            self._report(f"{error}{f'; {error.hint}' if error.hint else ''}")

    # What programs ask for

    def architectures(self, space: str, name: str) -> tuple[Architecture, ...]:
        """The architectures that claim `name` in `space`.

        For a class name (space "hf") exactly one; for a name inside a file ("gguf", "mlx") all that may be meant.
        Raises UnsupportedArchitecture, PluginConflict, or PluginError if all that announce it are unusable.
        """
        claim = f"{space}.{name}"
        found = self._serve(claim)
        if not found:
            raise UnsupportedArchitecture(self._unknown_architecture(claim, name), name, hint=self._turned_off(claim))
        return tuple(found)

    def all_architectures(self) -> tuple[Architecture, ...]:
        """Every architecture of every enabled, usable plugin."""
        loaded = (self._try(plugin) for plugin in self._enabled() if plugin.brings_architectures)
        return tuple(item for contributions in loaded if contributions for item in contributions.architectures)

    def format(self, name: str) -> Format:
        """The format of this name. Raises UnsupportedFormat, PluginConflict or PluginError."""
        found = self._serve(f"format.{name}")
        if not found:
            known = ", ".join(self._names("format."))
            raise UnsupportedFormat(f"no installed plugin knows the format {name!r}; known: {known}", hint=self._turned_off(f"format.{name}"))
        return found[0]  # type: ignore[no-any-return]

    def formats(self) -> Iterator[Format]:
        """All usable formats, built-ins first, each loaded when the iteration reaches it."""
        for name in self._names("format."):
            plugin = self._settle(f"format.{name}")[0]
            contributions = self._try(plugin)
            if contributions:
                yield from contributions.claims.get(f"format.{name}", ())

    def command_names(self) -> tuple[str, ...]:
        """Names of all commands of enabled plugins; imports none."""
        return self._names("command.")

    def command_summary(self, name: str) -> str:
        """One line for `hubclient --help`; imports nothing."""
        plugin = self._announcing(f"command.{name}")[0]
        return plugin.summaries.get(f"command.{name}") or f"From the plugin {plugin.source}."

    def command(self, name: str) -> click.Command | None:
        """The command of this name, or None if nobody has it. Raises PluginConflict or PluginError."""
        found = self._serve(f"command.{name}")
        return found[0] if found else None

    # What `hubclient plugins` asks for

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin, also disabled and broken ones; imports none."""
        return tuple(plugin.info(self._disabled_by(plugin)) for plugin in self._plugins)

    def find(self, name: str) -> tuple[PluginInfo, ...]:
        """The plugins meant by a plugin's name, or else by a third party's distribution name, or else by a claim."""
        by_name = [plugin for plugin in self._plugins if plugin.named(name)]
        found = by_name or [p for p in self._plugins if p.of(name)] or [p for p in self._plugins if name in p.announced]
        return tuple(plugin.info(self._disabled_by(plugin)) for plugin in found)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Names that several enabled plugins announce although one alone can serve them, and who does."""
        claims = sorted({claim for plugin in self._enabled() for claim in plugin.announced if claim.startswith(UNIQUE)})
        rivals = {claim: self._announcing(claim) for claim in claims}
        return tuple(self._conflict(claim, plugins) for claim, plugins in rivals.items() if len(plugins) > 1)

    def import_all(self) -> None:
        """Import every enabled plugin; what is wrong with one shows in `plugins()`."""
        for plugin in self._enabled():
            self._load(plugin)

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong so far, one sentence each."""
        return tuple(self._problems)

    # Who announces what, and who serves it

    def _disabled_by(self, plugin: Plugin) -> str | None:
        if plugin.essential:
            return None
        if any(plugin.meant_by(name) for name in self._disabled_here):
            return "HUBCLIENT_DISABLE_PLUGINS"
        return "settings" if any(plugin.meant_by(name) for name in self.settings.disabled) else None

    def _enabled(self) -> list[Plugin]:
        return [plugin for plugin in self._plugins if self._disabled_by(plugin) is None]

    def _announcing(self, claim: str) -> list[Plugin]:
        return [plugin for plugin in self._enabled() if claim in plugin.announced]

    def _names(self, space: str) -> tuple[str, ...]:
        claims = (claim for plugin in self._enabled() for claim in plugin.announced if claim.startswith(space))
        return tuple(dict.fromkeys(claim.removeprefix(space) for claim in claims))

    def _conflict(self, claim: str, plugins: list[Plugin]) -> Conflict:
        preferred = [plugin for plugin in plugins if plugin.meant_by(self.settings.prefer.get(claim, ""))]
        serving = preferred or [plugin for plugin in plugins if plugin.builtin]
        return Conflict(claim, tuple(plugins), serving[0] if len(serving) == 1 else None, bool(preferred))

    def _settle(self, claim: str) -> list[Plugin]:
        """Those who serve a claim, of those who announce it; PluginConflict if nobody may."""
        plugins = self._announcing(claim)
        if len(plugins) < 2:
            return plugins
        conflict = self._conflict(claim, plugins)
        if conflict.settled and conflict.serving:
            return [conflict.serving]
        if not claim.startswith(UNIQUE):
            return plugins
        if conflict.serving is None:
            raise PluginConflict(str(conflict), plugins[0].name, hint=conflict.remedy)
        self._report(f"{conflict}; {conflict.remedy}")
        return [conflict.serving]

    def _serve(self, claim: str) -> list[Any]:
        """The objects behind a claim. One unusable plugin among several is a warning, alone it is the answer."""
        plugins = self._settle(claim)
        usable = [contributions for plugin in plugins if (contributions := self._load(plugin))]
        broken = [plugin for plugin in plugins if plugin.error and not plugin.contributions]
        if broken and not usable:
            raise PluginError(str(broken[0]), broken[0].name, hint=broken[0].remedy) from broken[0].cause
        for plugin in broken:
            self._report(f"{plugin}; {plugin.remedy}")
        return [item for contributions in usable for item in contributions.claims.get(claim, ())]

    def _unknown_architecture(self, claim: str, name: str) -> str:
        from difflib import get_close_matches

        space = claim.removesuffix(name)
        near = get_close_matches(name, self._names(space), n=3)
        return f"no installed plugin knows the architecture {name!r} ({space[:-1]})" + (f"; close names: {', '.join(near)}" if near else "")

    def _turned_off(self, claim: str) -> str | None:
        off = [plugin for plugin in self._plugins if claim in plugin.announced and self._disabled_by(plugin)]
        return f"the plugin {off[0].source} announces it and is disabled by {self._disabled_by(off[0])}" if off else None

    # Loading

    def _try(self, plugin: Plugin) -> Contributions | None:
        """Load a plugin that nobody asked for by name: unusable is a warning."""
        contributions = self._load(plugin)
        if contributions is None:
            self._report(f"{plugin}; {plugin.remedy}")
        return contributions

    def _load(self, plugin: Plugin) -> Contributions | None:
        """Import a plugin, once; None if it is unusable."""
        with self._lock:
            if plugin.contributions is None and plugin.error is None:
                try:
                    contributions = load(self._manager, plugin.name, plugin.module)
                except (Exception, SystemExit) as error:  # a plugin may raise anything; only the user's Ctrl-C is not its own
                    plugin.failed(error)
                else:
                    plugin.loaded(contributions)
                    if plugin.error:
                        self._report(f"{plugin}; {plugin.remedy}")
        return plugin.contributions

    def _report(self, line: str) -> None:
        """Note a problem and say it once, in one line on stderr unless the program has set up logging."""
        if line not in self._warned:
            import logging

            self._warned.add(line)
            self._problems.append(line)
            logging.getLogger("hubclient.plugins").warning("hubclient: %s", line)


@cache
def get_host() -> Host:
    """The host of this process."""
    return Host()
