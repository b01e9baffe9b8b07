"""The table of built-ins says exactly what the modules declare, and costs nothing to read."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from hubclient.plugins import Host
from hubclient.plugins.builtins import ARCHITECTURES, COMMANDS, FORMATS
from hubclient.plugins.discovery import Scan


@pytest.fixture(scope="module")
def builtin_host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(third_party=lambda: Scan((), ()), environ={"HUBCLIENT_CONFIG_DIR": str(tmp_path_factory.mktemp("config"))})


@pytest.mark.parametrize("module", [*ARCHITECTURES, *FORMATS.values(), *(module for module, _ in COMMANDS.values())])
def test_a_builtin_declares_what_the_table_announces(builtin_host, module):
    builtin_host.import_all()
    (plugin,) = (plugin for plugin in builtin_host.plugins() if plugin.module == module)
    assert (plugin.state, plugin.error) == ("loaded", None)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_help_is_the_commands_own(name):
    module, summary = COMMANDS[name]
    (command,) = (command for command in import_module(module).COMMANDS if command.name == name)
    assert command.get_short_help_str(limit=200).rstrip(".") == summary.rstrip(".")


def test_names_are_known_without_heavy_imports():
    heavy = ("numpy", "numba", "torch", "rich", "httpx", "requests", "tokenizers", "importlib.metadata")
    code = (
        "import sys; from hubclient.plugins import get_host; h = get_host(); [h.command_summary(n) for n in h.command_names()];"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
