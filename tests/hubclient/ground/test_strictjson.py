"""Strict JSON: bounded, UTF-8, without duplicate keys, and every fault one sentence."""

from __future__ import annotations

import json
import math
import os
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import DamagedInput, EnvironmentFault, SourceMissing
from hubclient.formats.jsonfile import read_json, read_object
from hubclient.ground import strictjson
from hubclient.ground.strictjson import parse_json, parse_object, write_json

TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=20,
)


def fault(data: bytes, **options) -> str:
    with pytest.raises(DamagedInput) as caught:
        parse_json(data, "dir/config.json", **options)
    message = str(caught.value)
    assert message.startswith("dir/config.json: ") and message.isprintable() and len(message) < 300
    return message


@given(TREES)
def test_what_is_written_reads_back(value):
    assert parse_json(write_json(value), "x") == value


@given(st.binary(max_size=64) | st.text(st.sampled_from('{}[]",:0123eE.-+ \\u\ndaNInfity'), max_size=40).map(str.encode))
def test_any_bytes_give_what_json_says_or_one_sentence(data):
    try:
        value = parse_json(data, "dir/config.json")
    except DamagedInput as error:
        assert str(error).startswith("dir/config.json: ") and str(error).isprintable()
    else:
        assert value == json.loads(data)


def test_the_style_is_that_of_transformers():
    value = {"b": [1, 2.5], "a": "größe", "limits": [0.0, math.inf]}
    assert write_json(value).decode() == json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def test_a_syntax_error_is_placed_by_line_column_and_byte():
    with pytest.raises(DamagedInput, match="line 2, column 8") as caught:
        parse_json('{"é": 1,\n "b":  x}'.encode(), "config.json")
    assert caught.value.offset == 17


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"), (b"  \n", "empty"), (b'{"a": 1', "line 1"), (b"{} x", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"), (b'{"a": 1,}', "not valid JSON"), (b"[1 // one\n]", "not valid JSON"),
        (b'"a\nb"', "not valid JSON"), (b"\0" * 20, "not valid JSON"), (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"\xff\xfe{\0}\0", "not UTF-8"), (b'{"a": "\xff"}', "not UTF-8"), (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'{"a": 1, "a": 2}', "'a' twice"), (b'[{"x": {"k": 1, "j": 2, "k": 1}}]', "'k' twice"),
        (b'{"\\u0061": 1, "a": 1}', "'a' twice"), (b'"\\ud800"', "surrogate"), (b'{"\\udc00x": 1}', "surrogate"),
        (b"NaN", "NaN"), (b'{"a": [-Infinity]}', "-Infinity"), (b"1e999", "1e999"),
        (b"1" * 5000, "digits"), (b"1" * 10_000_000, "digits"), (b"[" + b"[]," * 4_000_000 + b"[]]", "values"),
        (b"[" * 10_000 + b"]" * 10_000, "nested"), (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested"),
        (b"[" * 4_000_000, "nested"), (b'{"a":[' * 100 + b"]}" * 100, "nested"),
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused_in_one_sentence(data, words):
    assert words in fault(data)


def test_the_depth_allowed_is_exact():
    parse_json(b"[" * strictjson.MAX_DEPTH + b"]" * strictjson.MAX_DEPTH, "x")
    with pytest.raises(DamagedInput, match="nested deeper"):
        parse_json(b"[" * (strictjson.MAX_DEPTH + 1) + b"]" * (strictjson.MAX_DEPTH + 1), "x")


def test_non_finite_numbers_are_read_where_allowed():
    assert parse_json(b"[0.0, Infinity, -Infinity]", "x", allow_nonfinite=True) == [0.0, math.inf, -math.inf]
    assert math.isnan(parse_json(b"NaN", "x", allow_nonfinite=True))


def test_surrogate_pairs_and_escaped_backslashes_are_text():
    assert parse_json(b'["\\ud83d\\ude00", "\\\\ud800"]', "x") == ["\U0001f600", "\\ud800"]


def test_a_very_long_integer_is_refused_even_where_the_interpreter_would_try():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert "digits" in fault(b"1" * 10_000_000)
        assert parse_json(b"[12, -3]", "x") == [12, -3]
    finally:
        sys.set_int_max_str_digits(before)


def test_large_but_ordinary_integers_are_exact():
    assert parse_json(b"1000000000000000019884624838656", "x") == 1000000000000000019884624838656


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"[1]", "a list"), (b'"a"', "a string"), (b"3", "a number"), (b"null", "null"), (b"true", "true or false")],
)
def test_an_object_is_asked_for_by_name(data, kind):
    with pytest.raises(DamagedInput, match=f"holds {kind} where a JSON object"):
        parse_object(data, "config.json")


def test_a_part_of_a_file_is_named_and_its_offsets_are_those_of_the_file():
    with pytest.raises(DamagedInput, match=r"x\.bin: the header is not valid JSON") as caught:
        parse_object(b"{x}", "x.bin", part="the header ", start=8)
    assert caught.value.offset == 9


def test_a_config_of_a_gigabyte_is_refused_unread(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedInput, match="1,073,741,824 bytes, more than the 67,108,864"):
            read_json(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_the_callers(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"[1, 2, 3]")
    assert read_json(path, limit=9) == [1, 2, 3]
    with pytest.raises(DamagedInput, match="9 bytes, more than the 8"):
        read_json(path, limit=8)


def test_links_are_followed_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "real").write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to("real")
    (tmp_path / "gone.json").symlink_to("nowhere")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "dir.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    assert read_object(tmp_path / "link.json") == {"a": 1}
    with pytest.raises(SourceMissing, match="link to nowhere, which does not exist"):
        read_object(tmp_path / "gone.json")
    with pytest.raises(SourceMissing, match="does not exist"):
        read_object(tmp_path / "absent.json")
    with pytest.raises(SourceMissing, match="does not exist"):
        read_object(tmp_path / "real" / "config.json")
    with pytest.raises(EnvironmentFault, match=r"loop\.json: cannot be read"):
        read_object(tmp_path / "loop.json")
    with pytest.raises(DamagedInput, match="is a folder where a file was expected"):
        read_object(tmp_path / "dir.json")
    with pytest.raises(DamagedInput, match="pipe"):
        read_object(tmp_path / "pipe.json")
