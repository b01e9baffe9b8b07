"""What a plugin module may declare, and how each mistake is told."""

from __future__ import annotations

import sys

import pluggy
import pytest

from hubclient.plugins import hookspecs
from hubclient.plugins.loading import Unusable, load

GOOD = "ARCHITECTURES = (Declared('foo', 'hf.Foo', 'gguf.foo'),)"
HOOK = "from hubclient.plugins import hookimpl\n@hookimpl\n"
A_FORMAT = """
class F:
    name, folder = "foofmt", False
    def detect(self, path): return False
    def open(self, path): ...
    def layout(self, spec): ...
    def encoding(self, name): ...
"""


@pytest.fixture
def manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("hubclient")
    manager.add_hookspecs(hookspecs)
    return manager


def test_constants_are_read_as_hooks_would_return_them(manager, module):
    found = load(manager, "foo", module(f"{GOOD}\n{A_FORMAT}\nFORMAT = F()\nimport click\nCOMMANDS = (click.Command('do'),)"))
    assert set(found.claims) == {"hf.Foo", "gguf.foo", "format.foofmt", "command.do"}
    assert found.claims["hf.Foo"] == found.claims["gguf.foo"] == found.architectures
    assert found.claims["format.foofmt"] == found.formats


def test_hooks_bring_the_same(manager, module):
    source = """
    from hubclient.plugins import hookimpl
    @hookimpl
    def hubclient_architectures():
        yield Declared("foo", "hf.Foo", "gguf.foo")
    """
    assert set(load(manager, "foo", module(source)).claims) == {"hf.Foo", "gguf.foo"}


def test_each_plugin_answers_for_itself(manager, module):
    load(manager, "one", module("ARCHITECTURES = (Declared('one', 'hf.One'),)"))
    assert set(load(manager, "two", module("ARCHITECTURES = (Declared('two', 'hf.Two'),)")).claims) == {"hf.Two"}


def test_look_alikes_share_a_name_inside_files_but_not_a_class_name(manager, module):
    found = load(manager, "a", module("ARCHITECTURES = (Declared('a', 'hf.A', 'gguf.a'), Declared('b', 'hf.B', 'gguf.a'))"))
    assert len(found.claims["gguf.a"]) == 2
    with pytest.raises(Unusable, match=r"declares hf\.A twice"):
        load(manager, "b", module("ARCHITECTURES = (Declared('a', 'hf.A'), Declared('b', 'hf.A'))"))


@pytest.mark.parametrize("wanted", ["1", "1.0", ">=1", ">=1,<2", " >=1.0 , <1.5 ", ">=0.9"])
def test_a_suitable_api_version_is_accepted(manager, module, wanted):
    assert load(manager, "foo", module(f"HUBCLIENT_API = {wanted!r}\n{GOOD}")).architectures


@pytest.mark.parametrize("wanted", ["2", "0", "1.1", ">=2", "<1", ">=1,<1.0", "0.9"])
def test_another_api_version_is_refused(manager, module, wanted):
    with pytest.raises(Unusable, match=r"was written for plugin API .*, and this hubclient has 1\.0"):
        load(manager, "foo", module(f"HUBCLIENT_API = {wanted!r}\n{GOOD}"))


@pytest.mark.parametrize("wanted", ["", "one", "1.0.0", "~=1", 1, (1, 0)])
def test_a_malformed_api_version_is_refused(manager, module, wanted):
    with pytest.raises(Unusable, match="neither a version"):
        load(manager, "foo", module(f"HUBCLIENT_API = {wanted!r}\n{GOOD}"))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("", "declares nothing"),
        ("ARCHITECTURES = ()", "declares nothing"),
        ("ARCHITECTURES = 5", "not a tuple"),
        ("ARCHITECTURES = 'foo'", "not a tuple"),
        ("ARCHITECTURES = ('foo',)", "as an architecture, which it is not"),
        ("ARCHITECTURES = (Declared,)", "as an architecture, which it is not"),
        ("Declared.claims = lambda self: 'hf.Foo'\nARCHITECTURES = (Declared('a'),)", "as an architecture, which it is not"),
        ("FORMAT = 3", "as a format, which it is not"),
        ("COMMANDS = (print,)", "as a command, which it is not"),
        ("import click\nCOMMANDS = (click.Command('a'), click.Command('a'))", r"declares command\.a twice"),
        (f"{HOOK}def hubclient_architecture(): return ()", "hook that does not exist"),
        (f"{HOOK}def hubclient_formats(path): return ()", "hook that does not exist"),
    ],
)
def test_garbage_is_refused_in_a_sentence_and_not_kept(manager, module, source, fault):
    with pytest.raises(Unusable, match=fault):
        load(manager, "foo", module(source))
    assert not manager.get_plugins()


def test_what_a_plugin_prints_when_imported_stays_off_stdout(manager, module, capsys):
    load(manager, "foo", module(f"print('hello')\n{GOOD}"))
    assert capsys.readouterr() == ("", "hello\n")


def test_constants_need_nothing_of_hubclient(manager, module):
    name = module(GOOD)
    load(manager, "foo", name)
    assert not any(hasattr(sys.modules[name], word) for word in ("hookimpl", "hubclient"))


PACKED = """
from hubclient.architectures import Layout, stored_as
class Packed(Declared):
    layouts = {{"gguf": Layout.of(stored_as({encodings}, {{"a.weight": "x"}}))}}
ARCHITECTURES = (Packed("foo", "hf.Foo"),)
"""


@pytest.mark.parametrize(
    ("encodings", "fault"),
    [
        ('("MXFP4", "NOSUCH")', "declares foo with lines for tensors stored as 'NOSUCH', which is no encoding"),
        ('("Q4_0", "Q8_0")', "declares foo with lines for tensors stored as Q4_0 or Q8_0, which safetensors has not"),
    ],
)
def test_lines_for_encodings_that_no_folder_has_are_told(manager, module, encodings, fault):
    with pytest.raises(Unusable, match=fault):
        load(manager, "foo", module(PACKED.format(encodings=encodings)))


@pytest.mark.parametrize("encodings", ['("MXFP4", "MXFP4_PLANES")', '"F8_E4M3"'])
def test_lines_for_encodings_that_a_folder_has_are_taken(manager, module, encodings):
    assert load(manager, "foo", module(PACKED.format(encodings=encodings))).architectures
