"""The whole contract between hubclient and its plugins: three hooks, all optional.

A plugin is a module that a distribution names in its entry points; the *names* of the entry points say what it brings,
so that hubclient imports it only when something it named is asked for:

    [project.entry-points."hubclient.architectures"]
    "hf.MyModelForCausalLM" = "my_package.mymodel"       # the class name in config.json
    "gguf.mymodel" = "my_package.mymodel"                # general.architecture of a GGUF
    [project.entry-points."hubclient.formats"]
    myformat = "my_package.myformat"
    [project.entry-points."hubclient.commands"]
    mycommand = "my_package.cli"

A module of constants needs no hook: `ARCHITECTURES = (MYMODEL,)`, `FORMAT = MyFormat()` and `COMMANDS = (mycommand,)` are
read as what the three hooks would return. Either way it may say for which API it was written: `HUBCLIENT_API = "1"`
(this major version, the default), `"1.2"` (and at least this minor), or a range such as `">=1,<3"`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from hubclient.architectures import Architecture
    from hubclient.formats.model import Format

API_VERSION = (1, 0)
"""Major and minor. A new hook or an optional argument raises the minor, anything that breaks a plugin the major."""

hookspec = pluggy.HookspecMarker("hubclient")
hookimpl = pluggy.HookimplMarker("hubclient")


@hookspec
def hubclient_architectures() -> Iterable[Architecture]:
    """Return the architectures that the module declares: `return (MYMODEL,)`."""
    return ()


@hookspec
def hubclient_formats() -> Iterable[Format]:
    """Return the checkpoint formats that the module implements: `return (MyFormat(),)`."""
    return ()


@hookspec
def hubclient_commands() -> Iterable[click.Command]:
    """Return the commands to hang under `hubclient`, each named as its entry point is: `return (mycommand,)`."""
    return ()
