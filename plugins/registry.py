"""What the host knows about each plugin: who announced it, what it brought, what is wrong with it, and how to say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubclient.plugins.builtins import ESSENTIAL
from hubclient.plugins.discovery import Announcement, normal

if TYPE_CHECKING:
    from hubclient.plugins.loading import Contributions


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as others see it.

    `name` is what `hubclient plugins` commands take; `claims` are the names it announced; `origin` is "builtin" or
    "third-party"; `state` is "loaded", "not loaded" or "broken"; `disabled_by` says who turned it off, None if it is on.
    """

    name: str
    distribution: str
    version: str
    module: str
    origin: str
    enabled: bool
    disabled_by: str | None
    state: str
    error: str | None
    claims: tuple[str, ...]


@dataclass(slots=True)
class Plugin:
    """One module that somebody announced, and what became of it. `error` beside `contributions` is a lesser fault."""

    name: str
    distribution: str
    version: str
    module: str
    builtin: bool
    announced: tuple[str, ...]
    summaries: Mapping[str, str]
    contributions: Contributions | None = None
    error: str | None = None
    cause: BaseException | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"the plugin {self.source} {self.error}"

    @property
    def source(self) -> str:
        """Name for a reader, with the distribution that it comes from."""
        told = f"{self.distribution} {self.version}"
        return told if normal(self.name) == normal(self.distribution) else f"{self.name} of {told}"

    @property
    def remedy(self) -> str:
        """What the user can do about `error`."""
        return f"`hubclient plugins disable {self.name}` turns it off, `hubclient plugins doctor` checks it"

    @property
    def essential(self) -> bool:
        """True for what no setting can turn off."""
        return self.builtin and self.name in ESSENTIAL

    @property
    def brings_architectures(self) -> bool:
        """True if it announces anything but formats and commands."""
        return any(not claim.startswith(("format.", "command.")) for claim in self.announced)

    def named(self, name: str) -> bool:
        """True if `name` is the plugin's own."""
        return normal(self.name) == normal(name)

    def of(self, distribution: str) -> bool:
        """True if it is a third party's, from this distribution."""
        return not self.builtin and normal(self.distribution) == normal(distribution)

    def meant_by(self, name: str) -> bool:
        """True if a setting that says `name` concerns this plugin."""
        return self.named(name) or self.of(name)

    def loaded(self, contributions: Contributions) -> None:
        """Keep what it brought, and note where that is not what was announced."""
        self.contributions = contributions
        faults = [
            f"{fault} {', '.join(sorted(claims))}"
            for fault, claims in (
                ("announces but does not declare", set(self.announced) - set(contributions.claims)),
                ("declares but does not announce (ignored)", set(contributions.claims) - set(self.announced)),
            )
            if claims
        ]
        self.error = " and ".join(faults) or None

    def failed(self, error: BaseException) -> None:
        """Keep why it is unusable, on one line."""
        from hubclient.plugins.loading import Unusable

        text = " ".join(str(error).split())[:300]
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        self.error = text if isinstance(error, Unusable) else f"fails to import ({told})"
        self.cause = error

    def info(self, disabled_by: str | None) -> PluginInfo:
        """A snapshot for others."""
        return PluginInfo(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            module=self.module,
            origin="builtin" if self.builtin else "third-party",
            enabled=disabled_by is None,
            disabled_by=disabled_by,
            state="loaded" if self.contributions else "broken" if self.error else "not loaded",
            error=self.error,
            claims=self.announced,
        )


@dataclass(frozen=True, slots=True)
class Conflict:
    """Several plugins announce what one alone can serve. `settled` says whether the user chose `serving`."""

    claim: str
    plugins: tuple[Plugin, ...]
    serving: Plugin | None
    settled: bool

    def __str__(self) -> str:
        told = f"{self.claim} is claimed by {' and by '.join(plugin.source for plugin in self.plugins)}"
        return f"{told}; {self.serving.name} serves it" if self.serving else told

    @property
    def losers(self) -> tuple[str, ...]:
        """Names of the plugins that do not serve it."""
        return tuple(plugin.name for plugin in self.plugins if plugin is not self.serving)

    @property
    def remedy(self) -> str:
        """How the user settles it."""
        rival = next((plugin for plugin in self.plugins if not plugin.builtin), self.plugins[0])
        return f"settle it with `hubclient plugins enable {rival.name} --prefer {self.claim}` or by disabling one of them"


def gather(announcements: Iterable[Announcement]) -> tuple[Plugin, ...]:
    """One plugin per announced module, built-ins first, each with a name that is its own.

    A built-in is called as its module; a third party's as its distribution, with the module where that is not enough.
    """
    rows: dict[tuple[str, str, bool], list[Announcement]] = {}
    for row in announcements:
        rows.setdefault((row.distribution, row.module, row.builtin), []).append(row)
    keys = sorted(rows, key=lambda key: not key[2])
    short = {key: key[1].rpartition(".")[2] if key[2] else key[0] for key in keys}
    taken = Counter(normal(name) for name in short.values())
    plugins = []
    for key in keys:
        distribution, module, builtin = key
        name = short[key] if taken[normal(short[key])] == 1 or builtin else f"{distribution}:{module}"
        own = rows[key]
        summaries = {row.claim: row.summary for row in own if row.summary}
        plugins.append(Plugin(name, distribution, own[0].version, module, builtin, tuple(row.claim for row in own), summaries))
    return tuple(plugins)
