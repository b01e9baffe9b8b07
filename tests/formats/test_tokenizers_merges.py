"""Merges from scores and scores from merges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.errors import DamagedInput
from hubclient.formats.tokenizers.merges import (
    best_first,
    check_merges,
    from_strings,
    implied_by_id,
    implied_merges,
    scores_of_merges,
    to_strings,
)


def known(*texts: str) -> dict[str, int]:
    return {text: index for index, text in enumerate(texts)}


def test_every_split_into_known_parts_is_a_merge_the_longest_left_part_first() -> None:
    assert implied_merges(["aaa", "ab"], known("a", "b", "aa", "aaa", "ab"), "f") == [("aa", "a"), ("a", "aa"), ("a", "b")]


def test_transformers_orders_the_splits_of_a_text_by_the_ids_of_their_parts() -> None:
    vocab = known("a", "aa", "aaa")
    assert implied_by_id(vocab, ["aaa", "aa", "a"], [0.0, -1.0, -2.0], "f") == [("a", "aa"), ("aa", "a"), ("a", "a")]


def test_the_best_score_comes_first_and_other_types_do_not_come_at_all() -> None:
    assert best_first(["x", "y", "z", "w"], [-2.0, -1.0, -1.0, 0.0], [1, 1, 1, 3], (1,)) == ["y", "z", "x"]


def test_scores_fall_in_the_order_in_which_merges_first_produce_a_text() -> None:
    assert scores_of_merges([("a", "b"), ("ab", "c"), ("a", "bc")]) == {"ab": 0.0, "abc": -1.0}


@given(st.lists(st.tuples(st.text("abĠ▁", min_size=1), st.text("abĠ▁", min_size=1))))
def test_merges_survive_as_strings(merges: list[tuple[str, str]]) -> None:
    assert from_strings(to_strings(merges), "f") == merges


def test_a_space_inside_a_part_is_written_as_llama_cpp_does() -> None:
    assert to_strings([(" ", "a"), ("b", "c d")]) == ["Ġ a", "b cĠd"]


@pytest.mark.parametrize("text", ["ab", "", " ", "a ", " a"])
def test_a_merge_without_two_parts_is_refused(text: str) -> None:
    with pytest.raises(DamagedInput, match="not two parts"):
        from_strings([text], "f.gguf")


def test_a_merge_of_unknown_tokens_is_refused_by_name() -> None:
    with pytest.raises(DamagedInput, match="merge 1 needs the token 'ac'"):
        check_merges([("a", "b"), ("a", "c")], known("a", "b", "c", "ab"), "f.json")


def test_the_mark_of_a_continued_word_is_left_out_of_what_is_joined() -> None:
    check_merges([("a", "##b")], known("a", "##b", "ab"), "f.json", "##")


def test_texts_that_would_take_minutes_to_split_are_refused_at_once() -> None:
    with pytest.raises(DamagedInput, match="too long"):
        implied_merges(["a" * 60000] * 9, known("a"), "f.model")
