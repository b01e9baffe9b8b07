"""Who serves a name, what is imported for it, and that one bad plugin costs a line."""

from __future__ import annotations

import sys
import threading

import pytest

from hubclient.errors import PluginConflict, PluginError, UnsupportedArchitecture, UnsupportedFormat
from hubclient.plugins import enable

FOO = "ARCHITECTURES = (Declared('foo', 'hf.Foo', 'gguf.foo'),)"
BROKEN = "raise RuntimeError('two\\nlines')"
CLAIMS = ("hf.Foo", "gguf.foo")


def messages(caplog):
    assert all("\n" not in record.getMessage() for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_only_what_is_asked_for_is_imported(host, module, announce):
    foo, bar = module(FOO), module("ARCHITECTURES = (Declared('bar', 'hf.Bar'),)")
    ours = host(announce("hubclient", foo, *CLAIMS, builtin=True), announce("third", bar, "hf.Bar"))
    assert [architecture.name for architecture in ours.architectures("hf", "Foo")] == ["foo"]
    assert foo in sys.modules
    assert bar not in sys.modules
    assert [(plugin.name, plugin.state, plugin.origin) for plugin in ours.plugins()] == [
        (foo, "loaded", "builtin"),
        ("third", "not loaded", "third-party"),
    ]
    assert [architecture.name for architecture in ours.architectures("hf", "Bar")] == ["bar"]


def test_a_plugin_is_loaded_once_for_all_threads(host, module, announce):
    ours = host(announce("third", module(f"import time\ntime.sleep(0.05)\n{FOO}"), *CLAIMS))
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.extend(ours.architectures("hf", "Foo"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


def test_an_unknown_architecture_is_told_with_close_names(host, module, announce):
    ours = host(announce("third", module(FOO), "hf.FooForCausalLM"))
    with pytest.raises(UnsupportedArchitecture, match=r"'FoForCausalLM'; close names: FooForCausalLM") as caught:
        ours.architectures("hf", "FoForCausalLM")
    assert caught.value.architecture == "FoForCausalLM"
    assert caught.value.exit_code == 3


def test_what_only_shares_its_task_is_no_close_name(host, module, announce):
    ours = host(announce("third", module(FOO), "hf.BloomForCausalLM", "hf.Qwen3ForCausalLM", "hf.Qwen3ForConditionalGeneration"))
    for name, near in (
        ("FooForCausalLM", ""),
        ("Qwen4ForCausalLM", "; close names: Qwen3ForCausalLM, Qwen3ForConditionalGeneration"),
    ):
        with pytest.raises(UnsupportedArchitecture) as caught:
            ours.architectures("hf", name)
        assert str(caught.value) == f"no installed plugin knows the architecture {name!r}{near}"


def test_unknown_formats_and_commands(host, module, announce):
    ours = host(announce("third", module(FOO), *CLAIMS))
    with pytest.raises(UnsupportedFormat, match="'nope'"):
        ours.format("nope")
    assert ours.command("nope") is None


# Broken plugins


@pytest.mark.parametrize("source", [BROKEN, "raise SystemExit(3)", "import no_such_module_anywhere", "def f(:", "1/0"])
def test_a_broken_plugin_that_is_asked_for_is_an_error_that_names_it(host, module, announce, source):
    ours = host(announce("third", module(source), *CLAIMS))
    with pytest.raises(PluginError, match=r"the plugin third 1\.0 fails to import") as caught:
        ours.architectures("hf", "Foo")
    assert caught.value.plugin == "third"
    assert "hubclient plugins disable third" in str(caught.value.hint)
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


def test_a_broken_plugin_that_is_not_asked_for_is_not_imported(host, module, announce, caplog):
    ours = host(announce("third", module(BROKEN), "hf.Bar"), announce("hubclient", module(FOO), *CLAIMS, builtin=True))
    assert ours.architectures("hf", "Foo")
    assert ours.plugins()[1].state == "not loaded"
    assert not messages(caplog)


def test_a_broken_plugin_among_all_is_one_warning(host, module, announce, caplog):
    ours = host(announce("third", module(BROKEN), "hf.Bar"), announce("hubclient", module(FOO), *CLAIMS, builtin=True))
    for _ in range(2):
        assert [architecture.name for architecture in ours.all_architectures()] == ["foo"]
    (line,) = messages(caplog)
    assert "the plugin third 1.0 fails to import (RuntimeError: two lines)" in line
    assert "`hubclient plugins disable third`" in line
    (problem,) = ours.problems
    assert problem in line
    assert ours.plugins()[1].state == "broken"


def test_a_broken_candidate_for_a_name_in_a_file_is_one_warning(host, module, announce, caplog):
    ours = host(announce("third", module(BROKEN), "gguf.foo"), announce("hubclient", module(FOO), *CLAIMS, builtin=True))
    assert [architecture.name for architecture in ours.architectures("gguf", "foo")] == ["foo"]
    assert len(messages(caplog)) == 1


def test_a_broken_format_does_not_stop_detection(host, module, announce, caplog):
    ours = host(announce("third", module(BROKEN), "format.bad"))
    assert list(ours.formats()) == []
    assert len(messages(caplog)) == 1
    with pytest.raises(PluginError):
        ours.format("bad")


def test_claims_that_were_not_announced_are_not_served(host, module, announce, caplog):
    ours = host(announce("third", module("ARCHITECTURES = (Declared('foo', 'hf.Foo', 'hf.Llama'),)"), "hf.Foo"))
    assert ours.architectures("hf", "Foo")
    (line,) = messages(caplog)
    assert "third 1.0 declares but does not announce (ignored) hf.Llama" in line
    with pytest.raises(UnsupportedArchitecture):
        ours.architectures("hf", "Llama")


def test_announcing_without_declaring_is_an_error(host, module, announce):
    ours = host(announce("third", module(FOO), "hf.Foo", "gguf.foo", "hf.Bar"))
    with pytest.raises(PluginError, match=r"announces but does not declare hf\.Bar"):
        ours.architectures("hf", "Bar")
    assert ours.architectures("hf", "Foo")


# Conflicts


def test_two_third_parties_with_one_class_name_are_a_conflict_in_any_order(host, module, announce):
    one, two = announce("one", module(FOO), *CLAIMS), announce("two", module(FOO), *CLAIMS)
    for order in ((one, two), (two, one)):
        with pytest.raises(PluginConflict, match=r"hf\.Foo is claimed by (one|two) 1\.0 and by (one|two) 1\.0") as caught:
            host(*order).architectures("hf", "Foo")
        assert "--prefer hf.Foo" in str(caught.value.hint)


def test_look_alikes_of_two_distributions_are_both_candidates(host, module, announce):
    ours = host(announce("one", module(FOO), *CLAIMS), announce("two", module(FOO), *CLAIMS))
    assert len(ours.architectures("gguf", "foo")) == 2


def test_a_builtin_keeps_its_name_and_says_so_once(host, module, announce, caplog):
    rival = module(FOO)
    ours = host(announce("rival", rival, *CLAIMS), announce("hubclient", module(FOO), *CLAIMS, builtin=True))
    for _ in range(2):
        assert len(ours.architectures("hf", "Foo")) == 1
    assert rival not in sys.modules
    (line,) = messages(caplog)
    assert "hubclient plugins enable rival --prefer hf.Foo" in line
    assert [(conflict.claim, conflict.settled) for conflict in ours.conflicts()] == [("hf.Foo", False)]


def test_who_loses_a_conflict_is_not_among_all(host, module, announce):
    rival = module("ARCHITECTURES = (Declared('theirs', 'hf.Foo'), Declared('other', 'hf.Other'))")
    ours = host(announce("rival", rival, "hf.Foo", "hf.Other"), announce("hubclient", module(FOO), *CLAIMS, builtin=True))
    assert [architecture.name for architecture in ours.all_architectures()] == ["foo", "other"]


def test_a_preference_settles_a_conflict(host, module, announce, caplog):
    builtin, rival = module(FOO), module("ARCHITECTURES = (Declared('theirs', 'hf.Foo', 'gguf.foo'),)")
    rows = announce("hubclient", builtin, *CLAIMS, builtin=True), announce("rival", rival, *CLAIMS)
    enable(host(*rows), "rival", "hf.Foo")
    ours = host(*rows)
    assert [architecture.name for architecture in ours.architectures("hf", "Foo")] == ["theirs"]
    assert builtin not in sys.modules
    assert not messages(caplog)
    assert not ours.problems


def test_disabling_one_settles_a_conflict(host, module, announce):
    rows = announce("one", module(FOO), *CLAIMS), announce("two", module(BROKEN), *CLAIMS)
    assert host(*rows, environ={"HUBCLIENT_DISABLE_PLUGINS": "x, Two"}).architectures("hf", "Foo")


def test_a_preference_for_a_plugin_that_is_gone_is_no_preference(host, module, announce):
    rows = announce("one", module(FOO), *CLAIMS), announce("two", module(FOO), *CLAIMS)
    enable(host(*rows), "two", "hf.Foo")
    assert host(rows[0]).architectures("hf", "Foo")
    three = announce("three", module(FOO), *CLAIMS)
    with pytest.raises(PluginConflict):
        host(*rows, three, environ={"HUBCLIENT_DISABLE_PLUGINS": "two"}).architectures("hf", "Foo")


def test_a_conflict_between_formats_does_not_stop_detection(host, module, announce, caplog):
    ours = host(announce("one", module(FOO), "format.x"), announce("two", module(FOO), "format.x"))
    assert list(ours.formats()) == []
    assert len(messages(caplog)) == 1


# Names and switches


def test_disabled_plugins_are_never_imported_and_mentioned_when_missed(host, module, announce):
    name = module(FOO)
    ours = host(announce("third", name, *CLAIMS), environ={"HUBCLIENT_DISABLE_PLUGINS": "third"})
    with pytest.raises(UnsupportedArchitecture) as caught:
        ours.architectures("hf", "Foo")
    assert "third 1.0 announces it and is disabled by HUBCLIENT_DISABLE_PLUGINS" in str(caught.value.hint)
    ours.import_all()
    assert name not in sys.modules
    (plugin,) = ours.plugins()
    assert (plugin.enabled, plugin.disabled_by) == (False, "HUBCLIENT_DISABLE_PLUGINS")


def test_third_parties_can_be_left_out_altogether(host, module, announce):
    ours = host(announce("third", module(FOO), *CLAIMS), environ={"HUBCLIENT_NO_THIRD_PARTY": "1"})
    assert ours.plugins() == ()


def test_plugins_are_called_as_their_distribution_where_that_is_enough(host, announce):
    ours = host(
        announce("hubclient", "hubclient.architectures.llama", "hf.A", builtin=True),
        announce("one", "one_package", "hf.B", "gguf.b"),
        announce("many", "many.first", "hf.C"),
        announce("many", "many.second", "command.c"),
        announce("Llama", "not_ours", "hf.D"),
    )
    names = [plugin.name for plugin in ours.plugins()]
    assert names == ["llama", "one", "many:many.first", "many:many.second", "Llama:not_ours"]
    assert [plugin.name for plugin in ours.find("Many")] == ["many:many.first", "many:many.second"]
    assert [plugin.module for plugin in ours.find("llama")] == ["hubclient.architectures.llama"]


def test_commands_are_named_and_summarised_without_importing(host, module, announce):
    name = module("import click\nCOMMANDS = (click.Command('do'),)")
    ours = host(announce("third", name, "command.do"))
    assert ours.command_names() == ("do",)
    assert ours.command_summary("do") == "From the plugin third 1.0."
    assert name not in sys.modules
    assert ours.command("do").name == "do"
