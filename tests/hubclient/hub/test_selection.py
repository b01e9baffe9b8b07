"""Which files patterns choose."""

from __future__ import annotations

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import SourceMissing
from hubclient.hub.selection import choose, named

NAMES = ["config.json", "model.safetensors", "onnx/model.onnx", "onnx/config.json", "a/b/c.txt", ".gitattributes", "[x].txt"]
PATTERNS = st.sampled_from(["*.json", "onnx/", "*", "a/*", "model.*", "[!c]*", "[[]x].txt", "nothing", "ONNX/", "onnx\\"])


@given(st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=3))
def test_patterns_choose_what_huggingface_hub_would(include: list[str], exclude: list[str]):
    theirs = filter_repo_objects(NAMES, allow_patterns=include or None, ignore_patterns=exclude or None)
    assert list(choose(NAMES, include, exclude).names) == list(theirs)


def test_patterns_that_fit_nothing_are_told():
    choice = choose(NAMES, ["*.json", "*.gguf"], ["*.md"])
    assert choice.names == ("config.json", "onnx/config.json") and choice.unmatched == ("*.gguf", "*.md")


def test_a_misspelt_file_is_told_with_what_may_be_meant():
    with pytest.raises(SourceMissing, match=r"org/name has no file 'confg.json'; did you mean config.json"):
        named("confg.json", NAMES, "org/name")


def test_a_text_alone_is_one_pattern():
    assert choose(["a.json", "b.bin"], "*.json") == choose(["a.json", "b.bin"], ["*.json"])
    assert choose(["a.json", "b.bin"], exclude="*.json").names == ("b.bin",)
