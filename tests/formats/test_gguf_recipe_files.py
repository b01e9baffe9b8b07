"""Recipe files of a user's own, among them those that nobody should have written; recipes in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from choosing import llama, types
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import DamagedInput, SourceMissing, UnsupportedEncoding, UsageError
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.gguf.catalogue import as_json, example, in_words, rows
from hubclient.formats.gguf.choices import Choice, bits_per_weight, choose
from hubclient.formats.gguf.recipes import RECIPES, recipe
from hubclient.formats.gguf.rules import ROLES
from hubclient.formats.gguf.storage import FILE_TYPES


def file(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_of_ones_own_goes_on_from_a_recipe(tmp_path: Path):
    found = recipe(
        file(
            tmp_path,
            """
            base = "q4_k_m"
            description = "keys and values in 8 bits"
            [[keep]]
            tensors = 'blk\\.0\\.attn'
            [[rule]]
            role = ["attn_k", "attn_v"]
            type = "Q8_0"
            [[rule]]
            tensors = 'ffn_up'
            where = ["last 2", "every 4"]
            unless = { where = "first 8" }
            type = "q5_k"
            """,
        )
    )
    facts, tensors = llama()
    made = choose(found, facts, tensors)
    assert (found.name, found.number, found.type) == ("mine", 15, "Q4_K")
    assert types(made, "blk.0.") == ["BF16"] * 4 + ["Q4_K", "Q4_K", "Q6_K", "F32"]
    assert set(types(made, "attn_v")[1:]) == {"Q8_0"} and types(made, "ffn_down")[1] == "Q6_K"
    fives = [i for i, kind in enumerate(types(made, "ffn_up")) if kind == "Q5_K"]
    assert fives == [11, 15, 19, 23, 27, 30, 31]


def test_a_file_may_begin_from_a_type_or_from_another_file(tmp_path: Path):
    file(tmp_path, 'type = "Q5_K"\n[[rule]]\nrole = "output"\ntype = "F16"', "base.toml")
    found = recipe(file(tmp_path, 'base = "base.toml"\nthen = "attention"\ntype = "Q6_K"'))
    facts, tensors = llama(experts=8)
    made = choose(found, facts, tensors)
    assert (found.number, made["output.weight"].type) == (18, "F16")
    assert (made["blk.0.attn_q.weight"].type, made["blk.0.attn_v.weight"].type) == ("Q6_K", "Q8_0")
    assert set(types(made, "attn_norm")) == {"F32"}  # what no recipe touches is the same for all


def test_a_file_may_say_what_stands_in_for_a_type(tmp_path: Path):
    found = recipe(file(tmp_path, 'type = "NVFP4"\nfallback = { NVFP4 = "MXFP4" }\nneeds_importance = ["MXFP4"]'))
    facts, tensors = llama(columns=96)
    made = choose(found, facts, tensors)
    assert made["blk.0.attn_q.weight"] == Choice("MXFP4", "mine: all else", "NVFP4", needs_importance=True)
    assert found.number == FILE_TYPES["NVFP4"]


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("", "mine.toml: type is missing"),
        ("type = 'Q4_K", "mine.toml: is not TOML"),
        ("\x00", "mine.toml: is not TOML"),
        (f"type = {'9' * 5000}", "mine.toml: is not TOML"),
        ("type = " + "[" * 50_000, "mine.toml: is not TOML"),
        ("type = 'Q4_K_M'", "mine.toml: type: 'Q4_K_M' is no tensor type; did you mean Q4_K"),
        ("type = 'Q8_1'", "mine.toml: type: Q8_1 cannot be made"),
        ("type = 4", "mine.toml: type: 4 is no tensor type"),
        ("typ = 'Q4_K'", "mine.toml: 'typ' is no key of a recipe; did you mean type"),
        ("base = 'Q4_K_X'", "mine.toml: base: 'Q4_K_X' is no recipe"),
        ("base = 4", "mine.toml: base: 4 is no text"),
        ("base = 'mine.toml'", "mine.toml: base: leads back to .*mine.toml"),
        ('base = "\\u0000.toml"', "mine.toml: base: .* is no recipe"),
        ("base = 'output_q6'", "mine.toml: type is missing"),
        ("then = 'nothing'", "mine.toml: then: 'nothing' is no recipe"),
        (f"base = {['Q4_K_M'] * 50}", "mine.toml: base: names more than 16"),
        ("type = 'Q4_K'\nfile_type = 33", "mine.toml: file_type: 33 is the number of no file type"),
        ("type = 'Q4_K'\nfallback = 'Q4_0'", "mine.toml: fallback: 'Q4_0' is no table"),
        ("type = 'Q4_K'\nfallback = { Q4_K = 'I8' }", "mine.toml: fallback: Q4_K: I8 cannot be made"),
        ("type = 'Q4_K'\nneeds_importance = 'Q4_K'", "mine.toml: needs_importance: 'Q4_K' is no list"),
        ("type = 'Q4_K'\n[rule]", "mine.toml: rule: .* is no list"),
        ("type = 'Q4_K'\nrule = [3]", "mine.toml: rule 1: 3 is no table"),
        ("type = 'Q4_K'\n[[rule]]\nrole = 'output'", "mine.toml: rule 1: type is missing"),
        ("type = 'Q4_K'\n[[keep]]\ntype = 'F16'", "mine.toml: keep 1: 'type' is no key"),
    ],
)
def test_an_absurd_file_is_refused_in_one_sentence(tmp_path: Path, text: str, needles: str):
    with pytest.raises(UsageError, match=needles) as caught:
        recipe(file(tmp_path, text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("condition", "needle"),
    [
        ("rol = 'output'", "'rol' is no key of a rule; did you mean role"),
        ("role = 'attn_x'", "role: 'attn_x' is no role"),
        ("role = []", "role: .* is neither a text nor a list"),
        ("tensors = 'a('", "tensors: 'a.' is no regular expression"),
        ("tensors = '(a|b)*'", "tensors: .* may take for ever"),
        ("tensors = '(?:.?){22}Z'", "tensors: .* may take for ever"),
        ("tensors = '.?.?.?.?.?.?.?.?Z'", "tensors: .* may take for ever"),
        ("tensors = '(.|..)(.|..)(.|..)(.|..)(.|..)Z'", "tensors: .* may take for ever"),
        ("tensors = 3", "tensors: 3 is neither a text nor a list"),
        ("where = 'frist 3'", "where: 'frist 3' is no place"),
        ("where = 'first 0'", "where: 'first 0' is no place"),
        ("where = 'first 9/8'", "where: 'first 9/8' is no place"),
        ("where = 'every 1/8'", "where: 'every 1/8' is no place"),
        ("where = 'first 1 after 1/8'", "where: .* is no place"),
        ("counted = true", "counted says how `where` is meant"),
        ("counted = 1\nwhere = 'first 1'", "counted: 1 is neither true nor false"),
        ("experts = 'many'", "experts: 'many' is no count"),
        ("blocks = true", "blocks: True is no count"),
        ("gqa = -1", "gqa: -1 is no count"),
        ("tied = 'yes'", "tied: 'yes' is neither true nor false"),
        ("was = 'Q99'", "was: 'Q99' is no tensor type"),
        ("unless = 'tied'", "unless: 'tied' is no table"),
        ("unless = { unless = {} }", "unless: 'unless' is no key"),
    ],
)
def test_a_condition_that_cannot_be_read_is_named(tmp_path: Path, condition: str, needle: str):
    with pytest.raises(UsageError, match=f"mine.toml: rule 2: {needle}"):
        recipe(file(tmp_path, f"type = 'Q4_K'\n[[rule]]\ntype = 'Q8_0'\n[[rule]]\ntype = 'Q8_0'\n{condition}"))


def test_bases_that_go_round_or_on_and_on_are_refused(tmp_path: Path):
    for name, base in ("a", "b"), ("b", "c"), ("c", "a"):
        file(tmp_path, f'base = "{base}.toml"', f"{name}.toml")
    with pytest.raises(UsageError, match=r"c.toml: base: leads back to .*a.toml"):
        recipe(tmp_path / "a.toml")
    for number in range(30):
        file(tmp_path, f'base = "{number + 1}.toml"', f"{number}.toml")
    with pytest.raises(UsageError, match="more than 16 times over"):
        recipe(tmp_path / "0.toml")


def test_bases_that_double_and_double_end_in_too_many_rules(tmp_path: Path):
    file(tmp_path, "type = 'Q4_K'\n" + "[[rule]]\nrole = 'output'\ntype = 'Q8_0'\n" * 10, "0.toml")
    for number in range(1, 15):
        file(tmp_path, f"base = ['{number - 1}.toml', '{number - 1}.toml']", f"{number}.toml")
    with pytest.raises(UsageError, match="more than 1000 rules"):
        recipe(tmp_path / "14.toml")


def test_what_is_no_file_is_said_as_of_any_other_source(tmp_path: Path):
    with pytest.raises(SourceMissing):
        recipe(tmp_path / "none.toml")
    with pytest.raises(DamagedInput, match="is a folder"):
        recipe(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'description = "\xff"')
    with pytest.raises(UsageError, match="not UTF-8"):
        recipe(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20))
    with pytest.raises(DamagedInput, match="more than"):
        recipe(tmp_path / "large.toml")


def test_an_unknown_recipe_is_refused_with_what_may_have_been_meant():
    with pytest.raises(UnsupportedEncoding, match=r"'Q4_K_N' is no recipe; did you mean .*Q4_K_M"):
        recipe("Q4_K_N")
    for name in ("", "attention", "Q8_K"):
        with pytest.raises(UnsupportedEncoding, match="is no recipe"):
            recipe(name)


@pytest.mark.parametrize("name", ["q4km", "Q4KM", "q4-k-m", "q4_km"])
def test_a_name_without_its_punctuation_means_that_recipe(name: str):
    with pytest.raises(UnsupportedEncoding, match=r"; did you mean Q4_K_M\?$"):
        recipe(name)


_KEYS = ("base", "then", "type", "file_type", "needs_importance", "rule", "keep", "role", "where", "tensors", "experts", "unless")
_WORDS = (*_KEYS, *ROLES, "Q4_K", "Q8_0", "first 1/8", "more bits", ">=4", "Q4_K_M", "output_q6", "[a", "\x00")
_SCALARS = st.sampled_from(_WORDS) | st.integers() | st.booleans() | st.text("ab(*+|", max_size=6)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@given(
    st.dictionaries(
        st.sampled_from(_KEYS),
        st.recursive(
            _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3)
        ),
    )
)
def test_any_file_is_a_recipe_or_is_refused(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]):
    path = file(tmp_path_factory.getbasetemp(), "\n".join(f"{key} = {_toml(value)}" for key, value in content.items()))
    facts, tensors = llama(2, columns=96)
    try:
        choose(recipe(path), facts, tensors)
    except UsageError as error:
        assert "\n" not in str(error)


def test_sizes_of_a_model_that_is_known_are_those_that_are_published():
    """llama-quantize's own list: 4.58 GiB for Q4_K_M of Llama 3 8B, and so on."""
    sizes = {row.name: row.bits * 8_030_000_000 / 8 / 2**30 for row in rows()}
    for name, published in [("Q4_K_M", 4.58), ("Q8_0", 7.96), ("Q6_K", 6.14), ("Q3_K_S", 3.41), ("Q5_K_M", 5.33), ("Q2_K", 2.96)]:
        assert sizes[name] == pytest.approx(published, abs=0.02)
    assert next(row.name for row in rows()) == "F32" and len(sizes) == len(RECIPES)


def test_a_recipe_that_a_model_does_not_fit_has_no_row():
    facts, tensors = llama(columns=64)
    assert set(RECIPES) - {row.name for row in rows(facts, tensors)} == {"Q1_0"}


def test_bits_are_those_of_the_types():
    facts, tensors = llama()
    made = choose(recipe("Q8_0", pure=True), facts, tensors[:2])
    assert bits_per_weight(made, tensors[:2]) == 8.5 and bits_per_weight({}, []) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_told(name: str):
    found = RECIPES[name]
    lines, told = in_words(found), as_json(found)
    assert lines[0].startswith(name) and found.description and json.dumps(told)
    assert len(told["rules"]) == len(found.rules) and {rule["type"] for rule in told["rules"]} <= set(ENCODINGS)
    assert not any(re.search(r"[\n\t]", line) for line in lines)


def test_the_example_is_a_model_of_8_thousand_million():
    assert sum(tensor.ne[0] * tensor.ne[1] for tensor in example()[1]) == pytest.approx(8.03e9, rel=1e-3)
