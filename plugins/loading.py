"""Imports one plugin, registers it with pluggy, and takes what its hooks return; built-ins and third parties alike.

Everything that can be wrong with a plugin surfaces here as an exception, and the host decides what it means.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import pluggy

from hubclient.plugins.discovery import UNIQUE
from hubclient.plugins.hookspecs import API_VERSION, hookimpl

_BOUND = re.compile(r"(>=|<|)\s*(\d+)(?:\.(\d+))?")


class Unusable(Exception):
    """A plugin imports, but what it declares cannot be used; `str()` completes "the plugin ..."."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """What a plugin brings, by kind and by the claims that it makes."""

    architectures: tuple[Any, ...]
    formats: tuple[Any, ...]
    commands: tuple[Any, ...]
    claims: Mapping[str, tuple[Any, ...]]


class Constants:
    """Stands in for a module that declares constants instead of hooks."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    @hookimpl
    def hubclient_architectures(self) -> Iterable[Any]:
        """The module's ARCHITECTURES."""
        return getattr(self._module, "ARCHITECTURES", ())  # type: ignore[no-any-return]

    @hookimpl
    def hubclient_formats(self) -> Iterable[Any]:
        """The module's FORMAT."""
        return (self._module.FORMAT,) if hasattr(self._module, "FORMAT") else ()

    @hookimpl
    def hubclient_commands(self) -> Iterable[Any]:
        """The module's COMMANDS."""
        return getattr(self._module, "COMMANDS", ())  # type: ignore[no-any-return]


def load(manager: pluggy.PluginManager, name: str, module_path: str) -> Contributions:
    """Import and register a plugin and collect what it brings. Raises whatever the module raises, or Unusable."""
    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the command's own output
        module = import_module(module_path)
        _check_api(getattr(module, "HUBCLIENT_API", None))
        plugin = module if _has_hooks(manager, module) else Constants(module)
        try:
            manager.register(plugin, name)
            manager.check_pending()
            return _collect(manager, plugin)
        except BaseException as error:
            if manager.is_registered(plugin):
                manager.unregister(plugin)
            if isinstance(error, pluggy.PluginValidationError):
                raise Unusable(f"implements a hook that does not exist so: {error}") from error
            raise


def _check_api(wanted: object) -> None:
    """Refuse a plugin written for another API; `wanted` is "1", "1.2", ">=1,<3" or None."""
    if wanted is None:
        return
    bounds = [_BOUND.fullmatch(part.strip()) for part in wanted.split(",")] if isinstance(wanted, str) else [None]
    for bound in bounds:
        if bound is None:
            raise Unusable(f'says HUBCLIENT_API = {wanted!r}, neither a version such as "1" nor a range such as ">=1,<2"')
        if not _within(bound[1], (int(bound[2]), int(bound[3] or 0))):
            here = ".".join(map(str, API_VERSION))
            raise Unusable(f"was written for plugin API {wanted}, and this hubclient has {here}")


def _within(operator: str, version: tuple[int, int]) -> bool:
    if operator == "<":
        return version > API_VERSION
    return version <= API_VERSION and (operator == ">=" or API_VERSION[0] == version[0])


def _has_hooks(manager: pluggy.PluginManager, module: ModuleType) -> bool:
    return any(manager.parse_hookimpl_opts(module, name) is not None for name in vars(module))


def _collect(manager: pluggy.PluginManager, plugin: object) -> Contributions:
    others = [other for other in manager.get_plugins() if other is not plugin]

    def call(hook: str, kind: str, usable: Callable[[Any], bool]) -> tuple[Any, ...]:
        returned = manager.subset_hook_caller(hook, others)()
        items = tuple(item for result in returned for item in _items(hook, result))
        for item in items:
            if not usable(item):
                raise Unusable(f"declares {item!r:.80} as {kind}, which it is not")
        return items

    architectures = call("hubclient_architectures", "an architecture", _is_architecture)
    for item in architectures:
        _check_stored(item)
    formats = call("hubclient_formats", "a format", _is_format)
    commands = call("hubclient_commands", "a command", _is_command)
    return Contributions(architectures, formats, commands, _claims(architectures, formats, commands))


def _claims(architectures: Iterable[Any], formats: Iterable[Any], commands: Iterable[Any]) -> dict[str, tuple[Any, ...]]:
    """What is behind each claim. Only names inside files (GGUF, MLX) may stand for several architectures."""
    pairs = [(claim, item) for item in architectures for claim in sorted(item.claims())]
    pairs += [(f"format.{item.name}", item) for item in formats]
    pairs += [(f"command.{item.name}", item) for item in commands]
    if not pairs:
        raise Unusable("declares nothing: neither hooks nor ARCHITECTURES, FORMAT or COMMANDS")
    claims: dict[str, tuple[Any, ...]] = {}
    for claim, item in pairs:
        if claim in claims and claim.startswith(UNIQUE):
            raise Unusable(f"declares {claim} twice")
        claims[claim] = (*claims.get(claim, ()), item)
    return claims


def _items(hook: str, result: Any) -> tuple[Any, ...]:
    if not isinstance(result, Iterable) or isinstance(result, str | bytes | Mapping):
        kind = hook.removeprefix("hubclient_")
        raise Unusable(f"gives {result!r:.40} as its {kind}, which is not a tuple of them, such as ({kind[:-1].upper()},)")
    return tuple(result)


def _is_architecture(item: Any) -> bool:
    if not isinstance(getattr(item, "name", None), str) or not callable(getattr(item, "claims", None)):
        return False
    claims = item.claims()
    return isinstance(claims, frozenset | set) and all(isinstance(claim, str) for claim in claims)


def _check_stored(architecture: Any) -> None:
    """Refuse lines for encodings (`stored_as`) that nobody knows, or that the tensors behind them cannot have in a folder."""
    from hubclient.formats.encodings import ENCODINGS, in_safetensors

    layouts = getattr(architecture, "layouts", {})
    for names in (names for layout in layouts.values() for names in sorted(layout.stored)):
        if unknown := [name for name in names if name not in ENCODINGS]:
            raise Unusable(
                f"declares {architecture.name} with lines for tensors stored as {unknown[0]!r:.40}, which is no encoding"
            )
        if in_safetensors(names) is None:
            told = (
                f"declares {architecture.name} with lines for tensors stored as {' or '.join(names)}, which safetensors has not"
            )
            raise Unusable(f"{told}; name what they are stored as there, too")


def _is_format(item: Any) -> bool:
    from hubclient.formats.model import Format

    return isinstance(item, Format) and isinstance(item.name, str)


def _is_command(item: Any) -> bool:
    import click

    return isinstance(item, click.Command) and isinstance(item.name, str)
