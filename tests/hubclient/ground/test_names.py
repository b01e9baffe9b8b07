"""Names from inside files: what may become a path, and how any value is shown in one line."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import DamagedInput
from hubclient.ground.names import meant, safe_relative, shown


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00002.safetensors", "1_Pooling/config.json", "a", "..a", "a..b", "...x", ".gitattributes",
        "additional_chat_templates/tool use.jinja", "ünïcödé/模型.json", "console.json", "comma.txt", "com10", "x" * 255,
    ],
)  # fmt: skip
def test_ordinary_names_pass(name):
    assert safe_relative(name, source="index.json") == PurePosixPath(name)


@pytest.mark.parametrize(
    "name",
    [
        "..", "../x", "a/../../x", "a/..", ".", "./a", "a/./b", "a//b", "a/", "/etc/passwd", "//host/share/x",
        "\\\\host\\share\\x", "a\\..\\b", "..\\x", "C:\\x", "C:x", "c:/x", "file.txt:stream", "\\\\?\\C:\\x", "\\\\.\\pipe\\x",
        "", "a\0b", "a\nb", "a\x1b[31m", "a\x7f", "a\u202egpj.exe", "a\u2028b", "\ud800",
        "con", "NUL", "nul.txt", "a/Aux.json", "COM1", "lpt9.tar.gz", "com¹", "CON .txt", "conin$", "prn.",
        "a.", "a ", "a/b. ", "a. /b", "x*", "what?", 'a"b', "a<b", "a|b", "x" * 256, "ü" * 128, "/".join(["abc"] * 300),
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_on_some_system_are_refused(name):
    with pytest.raises(DamagedInput) as caught:
        safe_relative(name, source="dir/index.json")
    assert str(caught.value).startswith("dir/index.json: the file name ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    assert caught.value.file == Path("dir/index.json")


@pytest.mark.parametrize(("first", "second"), [("a.json", "A.json"), ("ß", "SS"), ("é", "e\u0301"), ("same", "same")])
def test_names_that_some_file_system_takes_for_one_are_refused_together(first, second):
    taken: set[str] = set()
    safe_relative(first, source="index.json", taken=taken)
    safe_relative("other", source="index.json", taken=taken)
    with pytest.raises(DamagedInput, match="only in case"):
        safe_relative(second, source="index.json", taken=taken)


@given(st.text(st.sampled_from("ab./\\:~ \0\nCON\u0130\u202e1-$*"), max_size=12))
def test_whatever_passes_stays_inside_under_both_rules(name):
    try:
        path = safe_relative(name, source="x")
    except DamagedInput:
        return
    assert str(path) == name
    windows = PureWindowsPath(name)
    assert not path.is_absolute() and not windows.is_absolute() and not windows.drive and not windows.root
    assert not windows.is_reserved()
    assert ".." not in path.parts and path.parts == windows.parts


@pytest.mark.parametrize("value", ["x" * 10**6, "a\nb\x1b[0m", ["y" * 1000] * 1000, {"k": {"k": {"k": {}}}}, 10**400, "\ud800"])
def test_shown_values_are_short_and_printable(value):
    assert len(shown(value)) < 1500
    assert shown(value).isprintable()


KNOWN = ("F16", "Q4_K_S", "Q4_K_M", "Q5_K_M")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("q4km", "; did you mean Q4_K_M?"),
        ("Q4-K-S", "; did you mean Q4_K_S?"),
        ("q4_k_x", "; did you mean Q4_K_S or Q4_K_M or Q5_K_M?"),
        ("frobnicator", "; known: F16, Q4_K_S, Q4_K_M, Q5_K_M"),
        ("", "; known: F16, Q4_K_S, Q4_K_M, Q5_K_M"),
        (4, "; known: F16, Q4_K_S, Q4_K_M, Q5_K_M"),
    ],
)
def test_what_may_be_meant_is_the_nearest_name_or_any(value: object, told: str):
    assert meant(value, KNOWN) == told
