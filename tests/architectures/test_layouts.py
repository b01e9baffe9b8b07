"""Layouts: what tables mean, and that wrong ones are refused when they are declared. For those of the families see test_conformance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ROOT

from hubclient.architectures import (
    Layout,
    absent,
    biased,
    block,
    concat,
    each,
    either,
    identity,
    optional,
    present,
    rope,
    stack,
    stored_as,
    transpose,
)
from hubclient.architectures.language.layouts import Matching
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.plugins.builtins import ARCHITECTURES


def strays(matching: Matching) -> tuple[str, ...]:
    return (*matching.unmatched, *matching.missing, *matching.surplus, *matching.dropped, *matching.omitted)


def test_every_family_module_is_announced():
    families = {path.stem for path in (ROOT / "architectures").glob("*.py") if "\nARCHITECTURES = (" in path.read_text()}
    assert {module.rpartition(".")[2] for module in ARCHITECTURES} == families


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a name on the Hugging Face side twice": (
        lambda: Layout.of({"a.weight": "x"}, {"a.weight": "y"}),
        "covered twice on the hf side",
    ),
    "a name on the target side twice": (lambda: Layout.of({"a": "x", "b": "x"}), "covered twice on the target side"),
    "a capture that overlaps a literal": (
        lambda: Layout.of({"a.{i}.w": "x.{i}"}, {"a.0.w": "y"}),
        "covered twice on the hf side",
    ),
    "two captures that overlap": (lambda: Layout.of({"a.{i}.w": "x.{i}", "a.{e}.w": "y.{e}"}), "covered twice on the hf side"),
    "a rule for what is dropped": (lambda: Layout.of({"a": "x"}, drop=["a"]), "covered twice on the hf side"),
    "a rule for what is omitted": (lambda: Layout.of({"a": "x"}, omit=["a"]), "covered twice on the hf side"),
    "a rule for what is derived": (lambda: Layout.of({"a": "x"}, derive={"x": object()}), "covered twice on the target side"),
    "captures that differ": (lambda: Layout.of({"a.{i}": "x.{e}"}), "both sides must have the same captures"),
    "a capture on one side only": (lambda: Layout.of({"a.{i}": "x"}), "both sides must have the same captures"),
    "a capture twice in a name": (lambda: Layout.of({"a.{i}.{i}": "x.{i}"}), "must be whole components and differ"),
    "a capture in the middle of a component": (lambda: Layout.of({"a.w{i}": "x.{i}"}), "must be whole components"),
    "nothing that could be a target": (lambda: Layout.of({"a": 3}), "'a': 3 is neither a name nor a transform"),
    "a transform without a name behind it": (lambda: Layout.of({"a": identity}), "neither a name nor a transform"),
    "two tensors to one without a transform": (
        lambda: Layout.of({("a", "b"): "x"}),
        "makes 2 tensors of 2 tensors, and here are 2 and 1",
    ),
    "a split of three into two": (
        lambda: Layout.of({"a": ~concat("p", "q", "r") >> ("x", "y")}),
        "makes 3 tensors of 1 tensor, and here are 1 and 2",
    ),
    "a joining of two where one is given": (
        lambda: Layout.of({"a": concat("p", "q") >> "x"}),
        "makes 1 tensor of 2 tensors, and here are 1",
    ),
    "an unstacking on the way there": (
        lambda: Layout.of({"a": ~stack("e", "n") >> "x"}),
        "has to be from one name with the capture",
    ),
    "an encoding without a name": (lambda: stored_as((), {"a": "x"}), "stored_as: .. where names of encodings are needed"),
    "an encoding with an empty name": (lambda: stored_as(("MXFP4", ""), {"a": "x"}), "where names of encodings are needed"),
    "a stacking of each": (lambda: each(stack("e", "n"), identity), "cannot be a member of each"),
    "a composition of what does not fit": (
        lambda: concat("p", "q") >> ~concat("p", "q", "r") >> concat("p", "q"),
        "gives 3 tensors",
    ),
}


@pytest.mark.parametrize(("declare", "fault"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_table_is_refused_when_it_is_declared(declare: Callable[[], object], fault: str):
    with pytest.raises(ValueError, match=fault):
        declare()


def test_a_fused_tensor_is_split_and_joined_under_the_names_of_its_layer():
    layout = Layout.of(
        block("m.{i}", "blk.{i}", {"qkv": ~concat("q", "k") >> ("q", "k"), ("gate", "up"): concat("f", "f") >> "ffn"})
    )
    matching = layout.match(["m.3.up", "m.3.qkv", "m.3.gate"], "hf", {"i": 0})
    assert [(bound.inputs, bound.outputs) for bound in matching.bound] == [
        (("m.3.gate", "m.3.up"), ("blk.3.ffn",)),
        (("m.3.qkv",), ("blk.3.q", "blk.3.k")),
    ]
    half = layout.match(["m.3.up", "blk.9.q"], "hf", {"i": 0})
    assert (half.bound, half.missing, half.unmatched) == ((), ("m.3.gate",), ("blk.9.q",))


def test_optional_lines_may_be_absent_and_keep_their_transform():
    layout = Layout.of(optional(block("m.{i}", "blk.{i}", {"q": rope("heads") >> "q"})), {"w": transpose >> "x"})
    assert layout.match(["w"], "hf", {"i": 4}).missing == ()
    assert layout.match([], "hf", {"i": 4}).missing == ("w",)
    (bound,) = layout.match(["m.0.q", "w"], "hf", {"i": 4}).bound[:1]
    rule = bound.rule
    assert (rule.hf, rule.target) == ((Pattern.of("m.{i}.q"),), (Pattern.of("blk.{i}.q"),))
    assert rule.transform == rope("heads") and not rule.required


@pytest.mark.parametrize(
    "name", ["m.01.w", "m.٣.w", "m.x.w", "m..w", "m.1", "m.1.w.2", "M.1.w", "m." + "9" * 5000 + ".w", "m.-1.w"]
)
def test_only_plain_numbers_are_captured(name: str):
    layout = Layout.of({"m.{i}.w": "blk.{i}.w"})
    assert layout.match([name], "hf", {"i": 0}).unmatched == (name,)


def test_literal_digits_are_part_of_a_name():
    layout = Layout.of({"1_Dense.linear": "d", "net.0.w": "first", "net.2.w": "second"})
    matching = layout.match(["net.2.w", "net.1.w", "1_Dense.linear"], "hf", {"i": 0})
    assert [bound.outputs for bound in matching.bound] == [("second",), ("d",)]
    assert (matching.unmatched, matching.missing) == (("net.1.w",), ("net.0.w",))


@given(st.lists(st.one_of(st.sampled_from(["a", "blk", "w1"]), st.integers(0, 999).map(str)), min_size=1, max_size=6))
def test_a_template_and_its_digits_are_the_name(parts: list[str]):
    blanked, digits = template(".".join(parts))
    left = iter(digits)
    assert [next(left) if part == "#" else part for part in blanked.split(".")] == parts
    assert list(digits) == [part for part in parts if part.isdecimal()]


def test_a_claim_of_four_thousand_million_layers_costs_nothing():
    layout = Layout.of(block("m.{i}", "blk.{i}", {"w": "w", "v": "v"}))
    assert layout.match(["m.0.w", "m.0.v"], "hf", {"i": 2**32 - 1}).missing[:2] == ("m.1.w", "m.2.w")


def test_a_target_name_of_several_alternatives_goes_where_the_rest_of_the_block_is():
    one, two = {"norm": "norm"}, {"norm_1": "norm_2", "norm_mlp": "norm"}
    layout = Layout.of(block("m.{i}", "blk.{i}", either(one, two)))
    names = ["blk.0.norm", "blk.1.norm", "blk.1.norm_2", "blk.2.norm_2", "blk.2.norm"]
    back = layout.match(names, "target", {"i": 3})
    assert strays(back) == ()
    assert [(bound.inputs, bound.outputs) for bound in back.bound] == [
        (("blk.1.norm_2",), ("m.1.norm_1",)),
        (("blk.2.norm_2",), ("m.2.norm_1",)),
        (("blk.0.norm",), ("m.0.norm",)),
        (("blk.1.norm",), ("m.1.norm_mlp",)),
        (("blk.2.norm",), ("m.2.norm_mlp",)),
    ]
    assert layout.match(["blk.0.norm_2"], "target", {"i": 1}).missing == ("blk.0.norm",)


def test_weights_and_biases_go_the_same_way():
    layout = Layout.of(block("m.{i}", "blk.{i}", biased({"a": "b", "qkv": rope("heads") >> "q"})))
    assert [(rule.hf[0].text, rule.target[0].text) for rule in layout.rules] == [
        ("m.{i}.a.weight", "blk.{i}.b.weight"),
        ("m.{i}.a.bias", "blk.{i}.b.bias"),
        ("m.{i}.qkv.weight", "blk.{i}.q.weight"),
        ("m.{i}.qkv.bias", "blk.{i}.q.bias"),
    ]
    assert {rule.transform for rule in layout.rules} == {identity, rope("heads")}


def test_blocks_behind_the_last_are_omitted_as_many_as_the_config_counts():
    layout = Layout.of(block("m.{i}", "blk.{i}", {"w": "w"}), omit=["m.{i}.eh"], further={"i": "more"})
    names = [f"m.{i}.w" for i in range(5)]
    matching = layout.match([*names, "m.3.eh"], "hf", {"i": 3}, {"more": 1})
    assert set(matching.omitted) == {"m.3.w", "m.3.eh"}
    assert [bound.captures for bound in matching.bound][3:] == [(("i", 4),)]  # whoever holds it against the count says so
    for more in (0, None, "x", -1):
        assert layout.match(names, "hf", {"i": 3}, {"more": more}).omitted == ()
    assert layout.match(names, "hf", {"i": 0}, {"more": 9}).omitted == ()
    assert layout.match(["blk.3.w"], "target", {"i": 3}, {"more": 1}).omitted == ()


def test_lines_of_a_layout_that_follows_are_optional_or_alternatives_where_they_are_so_there():
    dense, sparse = {"up": "up"}, {"gate": "gate", "e.{e}.up": stack("e", "n") >> "ups"}
    first = Layout.of(block("m.{i}", "blk.{i}", {"w": "w"}, optional({"b": "b"}), either(dense, sparse)))
    second = first.following(block("m.{i}", "n.{i}", {"e.{e}.up": stack("e", "n") >> "all", "b": transpose >> "bias"}))
    names = ["m.0.w", "m.0.up", "m.1.w", "m.1.gate", "m.1.e.0.up", "m.1.e.1.up"]
    matching = second.match(names, "hf", {"i": 2}, {"n": 2})
    assert strays(matching) == ()
    assert [bound.outputs[0] for bound in matching.bound] == ["m.0.w", "m.0.up", "m.1.w", "m.1.gate", "n.1.all"]


def test_a_fact_may_be_about_any_block():
    anywhere = present("m.{i}.mlp.bias")
    assert anywhere.of({"m.0.w": (1,), "m.7.mlp.bias": (1,)})
    assert not anywhere.of({"m.0.mlp.bias.more": (1,), "m.x.mlp.bias": (1,)})
    assert absent("m.{i}.mlp.bias").of({"m.0.w": (1,)})
