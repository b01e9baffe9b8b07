"""Facts that tell look-alikes apart, and sizes that depend on a token's id."""

from __future__ import annotations

import pytest

from hubclient.architectures import absent, all_of, given, less, present, says, total
from hubclient.architectures.language.expressions import evaluate
from hubclient.errors import DamagedInput

FILE = {"a.weight": (), "tokenizer.ggml.model": "t5"}


def test_a_fact_may_be_about_metadata_and_need_others():
    assert says("tokenizer.ggml.model", "t5").of(FILE)
    assert not says("tokenizer.ggml.model", "bert").of(FILE) and not says("tokenizer.ggml.pre", "t5").of(FILE)
    assert all_of(present("a.weight"), absent("b.weight")).of(FILE)
    assert not all_of(present("a.weight"), present("b.weight")).of(FILE)


def test_a_tensor_tells_one_value_and_its_absence_another():
    assert given("a.weight", "gated", "plain").of(FILE) == "gated"
    assert given("b.weight", "gated", "plain").of(FILE) == "plain"
    assert given("b.weight", "gated").of(FILE) is None


def test_the_first_token_may_be_a_term_but_no_size():
    assert evaluate(total("pad_token_id", 1), {"pad_token_id": 0}) == 1
    for nothing in (-1, None, False):
        with pytest.raises(DamagedInput, match="pad_token_id"):
            evaluate(total("pad_token_id", 1), {"pad_token_id": nothing})
    with pytest.raises(DamagedInput, match="size"):
        evaluate("size", {"size": 0})


def test_a_difference_is_positive():
    assert evaluate(less("rows", total("pad_token_id", 1)), {"rows": 514, "pad_token_id": 1}) == 512
    with pytest.raises(DamagedInput, match=r"rows - \(2\) is 2 - 2, which is not positive"):
        evaluate(less("rows", 2), {"rows": 2})
