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

_CLOSE = 0.8  # of difflib's measure: Qwen4 and Qwen3, and no less


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
        self._found_wrong: list[str] = []
        self._said: set[str] = set()
        self._lock = threading.RLock()  # tiles and outputs are worked on by threads, which may all ask
        self._manager = pluggy.PluginManager("hubclient")
        self._manager.add_hookspecs(hookspecs)
        self._disabled_here = tuple(name for name in environ.get("HUBCLIENT_DISABLE_PLUGINS", "").split(",") if name.strip())
        self._read_settings()
        found = Scan((), ()) if environ.get("HUBCLIENT_NO_THIRD_PARTY", "0") not in ("", "0") else third_party()
        self._found_wrong += found.problems
        self._plugins = gather([*(builtins() if builtin is None else builtin), *found.announcements])
        for problem in self._found_wrong:
            self._say(problem)

    def _read_settings(self) -> None:
        try:
            self.settings = read_settings(self.settings_file)
        except HubclientError as error:
            self._found_wrong.append(f"{error}; {error.hint}" if error.hint else str(error))

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
        """Every architecture of every enabled, usable plugin, but for those that another one serves in their place."""
        asked = [plugin for plugin in self._enabled() if plugin.brings_architectures]
        loaded = [(plugin, brought) for plugin in asked if (brought := self._load(plugin))]
        self._say_faults(asked)
        lost = {(name, conflict.claim) for conflict in self.conflicts() for name in conflict.losers}
        return tuple(
            item
            for plugin, brought in loaded
            for item in brought.architectures
            if lost.isdisjoint((plugin.name, claim) for claim in item.claims())
        )

    def architectures_of(self, name: str) -> tuple[Architecture, ...]:
        """What the enabled plugins called `name` (see `find`) declare. PluginError if one of them cannot be used."""
        found: list[Architecture] = []
        for plugin in [p for p in self._enabled() if p.named(name)] or [p for p in self._enabled() if p.of(name)]:
            brought = self._load(plugin)
            if brought is None:
                raise PluginError(str(plugin), plugin.name, hint=plugin.remedy) from plugin.cause
            found += brought.architectures
        return tuple(found)

    def format(self, name: str) -> Format:
        """The format of this name. Raises UnsupportedFormat, PluginConflict or PluginError."""
        found = self._serve(f"format.{name}")
        if not found:
            told = f"no installed plugin knows the format {name!r}; known: {', '.join(self._names('format.'))}"
            raise UnsupportedFormat(told, hint=self._turned_off(f"format.{name}"))
        return found[0]  # type: ignore[no-any-return]

    def formats(self) -> Iterator[Format]:
        """All usable formats, built-ins first, each loaded when the iteration reaches it."""
        for name in self._names("format."):
            try:
                yield from self._serve(f"format.{name}")
            except PluginError as error:
                self._say(f"{error}; {error.hint}")

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
        """The plugins meant by a plugin's name, or else by a third party's distribution name."""
        found = [p for p in self._plugins if p.named(name)] or [p for p in self._plugins if p.of(name)]
        return tuple(plugin.info(self._disabled_by(plugin)) for plugin in found)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Names that several enabled plugins announce although one alone can serve them, and who does."""
        rivals: dict[str, list[Plugin]] = {}
        for plugin in self._enabled():
            for claim in plugin.announced:
                rivals.setdefault(claim, []).append(plugin)
        several = sorted(claim for claim, plugins in rivals.items() if len(plugins) > 1 and claim.startswith(UNIQUE))
        return tuple(self._conflict(claim, rivals[claim]) for claim in several)

    def import_all(self) -> None:
        """Import every enabled plugin; what is wrong with one shows in `plugins()`."""
        for plugin in self._enabled():
            self._load(plugin)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong as far as is known without importing more, one sentence each."""
        conflicts = [f"{conflict}; {conflict.remedy}" for conflict in self.conflicts() if not conflict.settled]
        return (*self._found_wrong, *(str(plugin) for plugin in self._enabled() if plugin.error), *conflicts)

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
        self._say(f"{conflict}; {conflict.remedy}")
        return [conflict.serving]

    def _serve(self, claim: str) -> list[Any]:
        """The objects behind a claim. One unusable plugin among several is a warning, alone it is the answer."""
        plugins = self._settle(claim)
        found = [item for plugin in plugins if (brought := self._load(plugin)) for item in brought.claims.get(claim, ())]
        if plugins and not found:
            first = plugins[0]
            raise PluginError(str(first), first.name, hint=first.remedy) from first.cause
        self._say_faults(plugins)
        return found

    def _unknown_architecture(self, claim: str, name: str) -> str:
        near = _near(name, self._names(claim.removesuffix(name)))
        told = f"; close names: {', '.join(near)}" if near else ""
        return f"no installed plugin knows the architecture {name!r}{told}"

    def _turned_off(self, claim: str) -> str | None:
        off = [plugin for plugin in self._plugins if claim in plugin.announced and self._disabled_by(plugin)]
        return f"the plugin {off[0].source} announces it and is disabled by {self._disabled_by(off[0])}" if off else None

    # Loading

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
        return plugin.contributions

    def _say_faults(self, plugins: Iterable[Plugin]) -> None:
        for plugin in plugins:
            if plugin.error:
                self._say(f"{plugin}; {plugin.remedy}")

    def _say(self, line: str) -> None:
        """Say something once, in one line on stderr unless the program has set up logging."""
        if line not in self._said:
            import logging

            self._said.add(line)
            logging.getLogger("hubclient.plugins").warning("hubclient: %s", line)


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Names that may be meant: of a class what stands before its task is compared, which is what tells one from another."""
    from difflib import get_close_matches

    by_stem: dict[str, list[str]] = {}
    for one in known:
        by_stem.setdefault(_stem(one), []).append(one)
    return [one for stem in get_close_matches(_stem(name), by_stem, n=3, cutoff=_CLOSE) for one in by_stem[stem]][:3]


def _stem(name: str) -> str:
    return (name.partition("For")[0] or name).removesuffix("LMHeadModel").removesuffix("Model").lower()


@cache
def get_host() -> Host:
    """The host of this process."""
    return Host()
