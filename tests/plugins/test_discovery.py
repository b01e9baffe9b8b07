"""Entry points are read from metadata alone, as importlib.metadata would, and nothing in them can break the scan."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import distributions

import pytest

from hubclient.plugins.discovery import Announcement, claim_of, scan

ENTRY_POINTS = """
    [console_scripts]
    foo = foo.cli:main

    [hubclient.architectures]
    hf.FooForCausalLM = foo.declared
    gguf.foo=foo.declared
    # a comment
    [hubclient.formats]
    foofmt = foo.format
    [hubclient.commands]
    foo-it = foo.cli
    [other.group]
    x = y
"""


def test_a_distribution_announces_by_entry_point_names(install):
    site = install("Hubclient.Foo", ENTRY_POINTS, "2.1")
    found = scan([str(site)])
    assert found.announcements == (
        Announcement("command.foo-it", "foo.cli", "Hubclient.Foo", "2.1"),
        Announcement("format.foofmt", "foo.format", "Hubclient.Foo", "2.1"),
        Announcement("gguf.foo", "foo.declared", "Hubclient.Foo", "2.1"),
        Announcement("hf.FooForCausalLM", "foo.declared", "Hubclient.Foo", "2.1"),
    )
    assert found.problems == ()


def test_it_finds_what_importlib_metadata_finds(install):
    site = install("a-plugin", ENTRY_POINTS)
    install("b.plugin", ENTRY_POINTS, "3")
    theirs = {
        (claim_of(entry.group, entry.name), entry.value, dist.metadata["Name"], dist.version)
        for dist in distributions(path=[str(site)])
        for entry in dist.entry_points
        if entry.group.startswith("hubclient.")
    }
    assert {(a.claim, a.module, a.distribution, a.version) for a in scan([str(site)]).announcements} == theirs


def test_nothing_is_imported(install, module):
    name = module("raise RuntimeError('imported')")
    install("a", f"[hubclient.formats]\na = {name}\n")
    assert [a.module for a in scan().announcements] == [name]
    assert name not in sys.modules


def test_the_first_folder_on_the_path_wins(install, tmp_path):
    first = install("a", "[hubclient.formats]\nnew = a\n", "2")
    install("A", "[hubclient.formats]\nold = a\n", "1", folder=tmp_path / "later")
    assert [a.claim for a in scan([str(first), str(tmp_path / "later")]).announcements] == ["format.new"]


def test_a_wheel_on_the_path_is_read_too(tmp_path):
    wheel = tmp_path / "zipped-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zipped-1.0.dist-info/METADATA", "Name: zipped\nVersion: 1.0\n\n")
        archive.writestr("zipped-1.0.dist-info/entry_points.txt", "[hubclient.formats]\nzipped = zipped\n")
    assert scan([str(wheel)]).announcements == (Announcement("format.zipped", "zipped", "zipped", "1.0"),)


def test_a_legacy_egg_info_folder_is_read_too(tmp_path):
    info = tmp_path / "old.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Name: old\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[hubclient.formats]\nold = old\n")
    assert scan([str(tmp_path)]).announcements == (Announcement("format.old", "old", "old", "0.1"),)


def test_metadata_may_be_missing(install, tmp_path):
    site = install("bare", "[hubclient.formats]\nbare = bare\n", "7")
    (site / "bare-7.dist-info" / "METADATA").unlink()
    assert scan([str(site)]).announcements == (Announcement("format.bare", "bare", "bare", "7"),)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[hubclient.formats]\nx = no module", "does not name a module"),
        ("[hubclient.formats]\nx = pkg.mod:attr", "does not name a module"),
        ("[hubclient.formats]\nx", "does not name a module"),
        ("[hubclient.formats]\nx = ../../etc/passwd", "does not name a module"),
        ("[hubclient.format]\nx = pkg", "no entry-point group hubclient.format"),
        ("[hubclient.architectures]\nFooForCausalLM = pkg", "must be of the kind hf.ClassName"),
        ("[hubclient.architectures]\nformat.gguf = pkg", "must be of the kind hf.ClassName"),
    ],
)
def test_an_unusable_entry_point_is_told_and_the_others_serve(install, line, fault):
    site = install("bad", f"[hubclient.commands]\ngood = pkg\n{line}\n")
    found = scan([str(site)])
    assert [a.claim for a in found.announcements] == ["command.good"]
    (problem,) = found.problems
    assert problem.startswith("bad 1.0 announces a plugin that cannot be found: ")
    assert fault in problem
    assert "\n" not in problem


def test_garbled_metadata_is_told(install):
    site = install("bad", b"[hubclient.formats]\n\xff\xfe\x00 = \xff\n")
    found = scan([str(site)])
    assert found.announcements == ()
    assert len(found.problems) == 1


def test_absent_and_odd_path_entries_are_passed_over(tmp_path):
    (tmp_path / "text").write_text("not a zip")
    assert scan([str(tmp_path / "absent"), str(tmp_path / "text"), str(tmp_path)]) == ((), ())
