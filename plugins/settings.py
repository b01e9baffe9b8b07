"""What the user decided about plugins: which are off, and who serves a name that several claim.

Kept in `plugins.json` in hubclient's configuration folder (HUBCLIENT_CONFIG_DIR overrides where that is). Two
environment variables go on top for one run: HUBCLIENT_DISABLE_PLUGINS=name,name and HUBCLIENT_NO_THIRD_PARTY=1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hubclient.errors import DamagedInput, EnvironmentFault
from hubclient.plugins.discovery import normal

_LIMIT = 1 << 20  # bytes; far more than every plugin there is


@dataclass(frozen=True, slots=True)
class Settings:
    """`disabled` holds plugin or distribution names, `prefer` maps a claim to the one that shall serve it."""

    disabled: frozenset[str] = frozenset()
    prefer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def enable(self, name: str, claim: str | None = None) -> Settings:
        """The settings with `name` on and, if a claim is given, preferred for it."""
        disabled = frozenset(other for other in self.disabled if normal(other) != normal(name))
        return Settings(disabled, MappingProxyType({**self.prefer, claim: name} if claim else dict(self.prefer)))

    def disable(self, name: str) -> Settings:
        """The settings with `name` off, and no longer preferred for anything."""
        prefer = {claim: chosen for claim, chosen in self.prefer.items() if normal(chosen) != normal(name)}
        return Settings(self.disabled | {name}, MappingProxyType(prefer))


def settings_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings are kept; the file need not exist."""
    folder = environ.get("HUBCLIENT_CONFIG_DIR")
    if not folder:
        import click

        folder = click.get_app_dir("hubclient")
    return Path(folder) / "plugins.json"


def read_settings(path: Path) -> Settings:
    """Read the settings; none if there is no file. DamagedInput if it does not hold what `write_settings` writes."""
    try:
        with open(path, "rb") as file:
            text = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise EnvironmentFault(f"{path}: the plugin settings cannot be read: {error.strerror}", path) from error
    try:
        return _checked(json.loads(text[:_LIMIT]))
    except (ValueError, RecursionError) as error:
        hint = "repair or delete the file; until then no plugin is disabled or preferred by it"
        raise DamagedInput(f"the plugin settings are damaged: {error}", file=path, hint=hint) from error


def _checked(content: Any) -> Settings:
    disabled, prefer = (content.get("disabled", []), content.get("prefer", {})) if isinstance(content, dict) else (None, None)
    if not isinstance(disabled, list) or not isinstance(prefer, dict):
        raise ValueError('expected {"disabled": [names], "prefer": {claim: name}}')  # noqa: TRY004 (a fault of the file)
    if not all(isinstance(name, str) for name in (*disabled, *prefer.values())):
        raise ValueError("a plugin name in it is not a string")
    return Settings(frozenset(disabled), MappingProxyType(prefer))


def write_settings(path: Path, settings: Settings) -> None:
    """Replace the settings in one step, so that a reader or a crash never meets half of them."""
    import tempfile

    content = {"disabled": sorted(settings.disabled), "prefer": dict(sorted(settings.prefer.items()))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".plugins-", delete=False) as file:
            try:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise EnvironmentFault(f"{path}: the plugin settings cannot be written: {error.strerror}", path) from error
