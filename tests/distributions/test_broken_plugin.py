"""A distribution that raises on import costs one warning where it is in the way, and nothing elsewhere."""

from __future__ import annotations

import json

import pytest


def warnings(done):
    return [line for line in done.stderr.splitlines() if "hubclient-broken" in line]


@pytest.fixture
def converted(run, example, broken, larch, tmp_path):
    """A GGUF made with the broken plugin installed."""
    done = run("convert", larch, "larch.gguf", "--to", "gguf", "--type", "bf16", "--json", sites=[example, broken])
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert warnings(done) == []
    return tmp_path / "larch.gguf"


def test_it_is_one_warning_where_its_name_is_asked_for(run, example, broken, larch, converted, tensors, tmp_path):
    done = run("convert", converted, "again", "--to", "safetensors", "--json", sites=[example, broken])
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    (line,) = warnings(done)
    assert "fails to import (RuntimeError: broken on purpose over two lines)" in line
    assert "`hubclient plugins disable hubclient-broken`" in line
    assert tensors(tmp_path / "again") == tensors(larch)


def test_disabled_it_costs_nothing(run, example, broken, converted):
    assert run("plugins", "disable", "hubclient-broken", sites=[example, broken]).returncode == 0
    done = run("inspect", converted, "--json", sites=[example, broken])
    assert done.returncode == 0
    assert done.stderr == ""


def test_commands_that_do_not_ask_for_it_never_import_it(run, example, broken, larch):
    place = ("place", larch, "--device", "cpu=1GiB")
    for arguments in (("--help",), ("convert", "--help"), ("plugins", "ls"), ("inspect", larch), place):
        done = run(*arguments, sites=[example, broken])
        assert done.returncode == 0, done.stderr
        assert warnings(done) == []
        assert "must not reach stdout" not in done.stdout + done.stderr


def test_asked_for_by_name_it_is_an_error_in_a_sentence(run, broken, larch):
    done = run("broken", sites=[broken])
    assert done.returncode == 3
    assert done.stdout == ""
    assert "the plugin hubclient-broken 0.1.0 fails to import" in done.stderr
    assert "Traceback" not in done.stderr
    config = json.loads((larch / "config.json").read_text())
    (larch / "config.json").write_text(json.dumps({**config, "architectures": ["BrokenForCausalLM"]}))
    done = run("convert", larch, "x.gguf", "--to", "gguf", sites=[broken])
    assert done.returncode == 3
    assert "the plugin hubclient-broken 0.1.0 fails to import" in done.stderr


def test_the_doctor_names_it_until_it_is_disabled(run, example, broken):
    sites = [example, broken]
    sick = run("plugins", "doctor", "--json", sites=sites)
    assert sick.returncode == 1
    (problem,) = json.loads(sick.stdout)["problems"]
    assert "hubclient-broken 0.1.0 fails to import" in problem
    assert run("plugins", "show", "hubclient-broken", sites=sites).returncode == 0
    assert run("plugins", "disable", "hubclient-broken", sites=sites).returncode == 0
    assert run("plugins", "doctor", "--json", sites=sites).returncode == 0
    assert run("plugins", "enable", "hubclient-broken", sites=sites).returncode == 0
    assert run("plugins", "doctor", "--json", sites=sites).returncode == 1


def test_help_lists_its_command_with_its_origin(run, broken):
    done = run("--help", sites=[broken])
    assert "From the plugin hubclient-broken 0.1.0." in done.stdout
