"""What a card says, what it leaves alone, and that nothing from a file becomes Markdown or HTML."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.cache.layout import RepoId
from hubclient.hub.publish.card import BEGIN, END, Row, in_code, licence_of, new_card, section, with_section
from hubclient.hub.publish.provenance import Contents, Origin

ENDPOINT = "https://huggingface.co"
ROW = Row("a-Q4_K_M.gguf", "gguf", "Q4_K_M", 1234567, "0" * 64)
GGUF = Contents({ROW.name: ("gguf", "Q4_K_M")}, {}, architecture="llama")


def head(card: str) -> dict[str, object]:
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_a_card_from_nothing() -> None:
    card = new_card(RepoId("me/a_b-GGUF"), GGUF, [ROW], {"license": "mit"}, [RepoId("you/a")], ENDPOINT)
    assert head(card) == {
        "license": "mit",
        "library_name": "gguf",
        "base_model": "you/a",
        "base_model_relation": "quantized",
        "tags": ["gguf", "llama"],
    }
    assert "\n# a\\_b-GGUF\n" in card and f"| `a-Q4_K_M.gguf` | gguf | `Q4_K_M` | 1,234,567 | `{'0' * 64}` |  |\n" in card


def test_several_sources_and_formats() -> None:
    kinds = {"model.safetensors": ("safetensors", "BF16"), "a.gguf": ("gguf", "F16")}
    card = new_card(RepoId("me/a"), Contents(kinds, {}, transformers=True), [], {}, [RepoId("x/a"), RepoId("x/b")], ENDPOINT)
    told = head(card)
    assert (
        told["base_model"] == ["x/a", "x/b"]
        and told["library_name"] == "transformers"
        and told["tags"] == ["safetensors", "gguf"]
    )


def test_where_it_was_made_from() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    rows = [ROW._replace(origin=Origin(RepoId("o/n"), commit)), ROW._replace(name="b.gguf", origin=Origin(RepoId("o/n")))]
    text = section(rows, ENDPOINT)
    assert (
        f"[`o/n@0123456789ab`](https://huggingface.co/o/n/tree/{commit})" in text
        and "[`o/n`](https://huggingface.co/o/n)" in text
    )


def test_rows_are_in_the_order_of_their_names() -> None:
    rows = [ROW._replace(name=name) for name in ("c", "a", "b")]
    assert section(rows, ENDPOINT) == section(rows[::-1], ENDPOINT)
    assert re.findall(r"^\| `(\w)`", section(rows, ENDPOINT), re.MULTILINE) == ["a", "b", "c"]


@given(st.text(max_size=2000))
def test_what_is_not_ours_stays(card: str) -> None:
    if BEGIN in card or END in card:
        return
    made = with_section(card, [ROW], ENDPOINT)
    assert made.startswith(card) and with_section(made, [ROW], ENDPOINT) == made


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_section_is_made_anew_in_its_place(before: str, after: str) -> None:
    if any(mark in text for mark in (BEGIN, END) for text in (before, after)):
        return
    old = before + section([ROW._replace(size=1)], ENDPOINT) + after
    assert with_section(old, [ROW], ENDPOINT) == before + section([ROW], ENDPOINT) + after


@pytest.mark.parametrize(
    "card",
    [f"{BEGIN}\nmine\n", f"mine\n{END}\n", f"{END}\nmine\n{BEGIN}\n", f"{BEGIN}\nmine\n{BEGIN}\n| `x` | |\n{END}\nmine too\n"],
)  # fmt: skip
def test_broken_marks_cost_nobody_a_word(card: str) -> None:
    made = with_section(card, [ROW], ENDPOINT)
    again = with_section(made, [ROW], ENDPOINT)
    assert again.count("mine") == card.count("mine") and again == with_section(again, [ROW], ENDPOINT)
    assert "`a-Q4_K_M.gguf`" in again


def test_rows_stay_while_their_files_do() -> None:
    first = with_section("", [ROW, ROW._replace(name="odd`name|.gguf")], ENDPOINT)
    both = with_section(first, [ROW._replace(name="new.gguf")], ENDPOINT, [ROW.name, "odd`name|.gguf", "new.gguf"])
    assert sorted(re.findall(r"^\| (?!file|-)(\S+)", both, re.MULTILINE)) == sorted(
        [f"`{ROW.name}`", in_code("odd`name|.gguf"), "`new.gguf`"]
    )
    assert ROW.name not in with_section(both, [ROW._replace(name="new.gguf")], ENDPOINT, ["new.gguf"])


@given(st.text(max_size=60))
def test_no_text_becomes_markup(text: str) -> None:
    shown = in_code(text)
    assert "\n" not in shown and "|" not in shown and "<" not in shown and not shown.strip("`").count("`")
    if not shown.startswith("`"):
        assert (not re.search(r"[^\w&#;]", shown, re.ASCII) and html.unescape(shown).isascii()) or text  # references alone
    else:
        assert shown == f"`{text}`"


def test_names_that_would_be_markup() -> None:
    for name in ("a|b", "a`b", "<img src=x>", "[x](y)", "a\nb", "$x$", "\u202eabc", "", " a"):
        assert re.fullmatch(r"(?:[A-Za-z0-9]|&#\d+;)*", in_code(name)), name
    assert in_code("Llama-3.2_1B (copy)/a+b@c.gguf") == "`Llama-3.2_1B (copy)/a+b@c.gguf`"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"license": "MIT"}, {"license": "mit"}),
        ({"license": ["mit", "apache-2.0"]}, {"license": ["mit", "apache-2.0"]}),
        ({"license": "other", "license_name": "l", "license_link": "https://x"}, {"license": "other", "license_name": "l", "license_link": "https://x"}),
        ({"license": "mit", "license_name": "l"}, {"license": "mit"}),
        ({"license": "a licence: of my own"}, {}),
        ({"license": {"a": 1}}, {}),
        ({"license": "other", "license_name": "a\nb: c"}, {"license": "other"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_licences(values: dict[str, object], found: dict[str, object]) -> None:
    assert licence_of(values) == found
