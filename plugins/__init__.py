"""The plugin host: which packages teach hubclient architectures, formats and commands.

`hubclient.plugins.hookspecs` is the contract for authors; `get_host()` answers for the rest of hubclient.
"""

from __future__ import annotations

from hubclient.plugins.hookspecs import API_VERSION, hookimpl, hookspec
from hubclient.plugins.host import Host, get_host
from hubclient.plugins.manage import Diagnosis, diagnose, disable, enable, show
from hubclient.plugins.registry import Conflict, PluginInfo

__all__ = [
    "API_VERSION",
    "Conflict",
    "Diagnosis",
    "Host",
    "PluginInfo",
    "diagnose",
    "disable",
    "enable",
    "get_host",
    "hookimpl",
    "hookspec",
    "show",
]
