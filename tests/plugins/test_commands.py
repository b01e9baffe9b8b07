"""`hubclient plugins`: works with broken plugins, damaged settings and conflicts, and its JSON is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hubclient.cli.plugins import plugins
from hubclient.errors import DamagedInput, UsageError
from hubclient.plugins import get_host

FOO = "ARCHITECTURES = (Declared('foo', 'hf.MadeUpForCausalLM'),)"


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        get_host.cache_clear()  # a new process
        return CliRunner().invoke(plugins, arguments)

    return invoke


@pytest.fixture
def good(install, module) -> str:
    name = module(FOO)
    install("good-plugin", f"[hubclient.architectures]\nhf.MadeUpForCausalLM = {name}\n")
    return "good-plugin"


@pytest.fixture
def broken(install, module) -> str:
    name = module("raise RuntimeError('broken on purpose')")
    install("broken-plugin", f"[hubclient.architectures]\nhf.OtherForCausalLM = {name}\n")
    return "broken-plugin"


def listed(result: Result) -> dict[str, dict[str, object]]:
    return {plugin["name"]: plugin for plugin in json.loads(result.stdout)["plugins"]}


def test_ls_lists_everything_and_imports_nothing(run, good, broken):
    result = run("ls", "--json")
    found = listed(result)
    assert result.exit_code == 0
    assert found["good-plugin"]["claims"] == ["hf.MadeUpForCausalLM"]
    assert {plugin["state"] for plugin in found.values()} == {"not loaded"}
    assert found["llama"]["origin"] == "builtin"
    assert found["broken-plugin"]["origin"] == "third-party"
    assert result.stderr == ""


def test_ls_as_a_table_has_a_line_per_plugin(run, good):
    lines = run("ls").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("good-plugin"))
    assert "good-plugin 1.0" in line
    assert "hf.MadeUpForCausalLM" in line


def test_show_by_name_or_by_what_is_announced(run, good):
    by_name, by_claim = run("show", "Good_Plugin", "--json"), run("show", "hf.MadeUpForCausalLM", "--json")
    assert by_name.stdout == by_claim.stdout
    assert list(listed(by_name)) == ["good-plugin"]
    assert "announces hf.MadeUpForCausalLM" in run("show", "good-plugin").stdout


def test_show_of_an_unknown_name_offers_close_ones(run, good):
    error = run("show", "goodplugin").exception
    assert isinstance(error, UsageError)
    assert "close names: good-plugin" in str(error)


def test_doctor_finds_the_broken_one_and_says_how_to_go_on(run, good, broken):
    result = run("doctor", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["ok"] is False
    assert "the plugin broken-plugin 1.0 fails to import (RuntimeError: broken on purpose)" in told["problems"]
    assert listed(result)["good-plugin"]["state"] == "loaded"
    assert listed(result)["broken-plugin"]["state"] == "broken"
    assert "problem: the plugin broken-plugin 1.0" in run("doctor").stdout


def test_disabling_the_broken_one_heals(run, good, broken):
    assert run("disable", "broken-plugin").exit_code == 0
    told = json.loads(run("doctor", "--json").stdout)
    assert not any("broken-plugin" in problem for problem in told["problems"])
    assert told["notes"] == ["the plugin broken-plugin is disabled by settings and was not examined"]
    assert run("enable", "broken-plugin").exit_code == 0
    assert listed(run("ls", "--json"))["broken-plugin"]["enabled"] is True


def test_a_conflict_is_shown_and_settled(run, good, install, module):
    install("rival", f"[hubclient.architectures]\nhf.MadeUpForCausalLM = {module(FOO)}\n")
    conflicts = json.loads(run("ls", "--json").stdout)["conflicts"]
    expected = {"claim": "hf.MadeUpForCausalLM", "plugins": ["good-plugin", "rival"], "serving": None, "settled": False}
    assert conflicts == [expected]
    assert any("--prefer hf.MadeUpForCausalLM" in problem for problem in json.loads(run("doctor", "--json").stdout)["problems"])
    assert run("enable", "rival", "--prefer", "hf.MadeUpForCausalLM").exit_code == 0
    assert json.loads(run("ls", "--json").stdout)["conflicts"] == [{**expected, "serving": "rival", "settled": True}]


def test_only_what_a_plugin_announces_can_be_preferred(run, good):
    assert isinstance(run("enable", "good-plugin", "--prefer", "hf.LlamaForCausalLM").exception, UsageError)
    assert isinstance(run("disable", "no-such-plugin").exception, UsageError)


def test_what_enables_others_cannot_be_disabled(run, monkeypatch):
    assert isinstance(run("disable", "plugins").exception, UsageError)
    monkeypatch.setenv("HUBCLIENT_DISABLE_PLUGINS", "plugins")
    assert listed(run("ls", "--json"))["plugins"]["enabled"] is True


def test_damaged_settings_are_one_sentence_and_never_overwritten(run, tmp_path, good):
    path = tmp_path / "config" / "plugins.json"
    path.parent.mkdir()
    path.write_text("{")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert any(str(path) in problem and "damaged" in problem for problem in json.loads(result.stdout)["problems"])
    assert listed(result)["good-plugin"]["state"] == "loaded"
    assert isinstance(run("disable", "good-plugin").exception, DamagedInput)
    assert path.read_text() == "{"


def test_settings_that_name_what_is_not_installed_are_a_note(run, good, tmp_path):
    (tmp_path / "config").mkdir()
    Path(tmp_path / "config" / "plugins.json").write_text('{"disabled": ["gone"], "prefer": {}}')
    assert json.loads(run("doctor", "--json").stdout)["notes"] == ["the settings name the plugin gone, which is not installed"]


def test_the_group_is_what_the_table_of_builtins_announces():
    command = get_host().command("plugins")
    assert isinstance(command, click.Group)
    assert set(command.commands) == {"ls", "show", "doctor", "enable", "disable", "test"}
