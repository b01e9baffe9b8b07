"""Layouts: every name of every architecture goes there and back, wrong tables are refused when they are declared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubclient.architectures import Architecture, Layout, block, concat, identity, optional, rope, transpose
from hubclient.architectures.layouts import Matching
from hubclient.architectures.patterns import Pattern, template
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan

EVERY = Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()
LAYOUTS = [pytest.param(item, space, id=f"{item.name}-{space}") for item in EVERY for space in item.layouts]
LAYERS = 12


def names_of(architecture: Architecture, space: str) -> list[str]:
    """Every Hugging Face name that the layout has rules for, in a model of twelve layers."""
    return [name for rule in architecture.layouts[space].rules for pattern in rule.hf for name in instances(pattern)]


def instances(pattern: Pattern) -> list[str]:
    return [pattern.name({"i": layer}) for layer in range(LAYERS)] if pattern.captures else [pattern.text]


def strays(matching: Matching) -> tuple[str, ...]:
    return (*matching.unmatched, *matching.missing, *matching.dropped, *matching.omitted)


def test_the_families_are_there():
    assert {item.name for item in EVERY} == {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gpt2", "bert", "bert-classifier"}


@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_every_name_goes_to_the_target_and_comes_back(architecture: Architecture, space: str):
    layout, names = architecture.layouts[space], names_of(architecture, space)
    there = layout.match(names, "hf", {"i": LAYERS})
    assert strays(there) == ()
    targets = [name for bound in there.bound for name in bound.outputs]
    assert len(set(targets)) == len(targets) and len(set(names)) == len(names)
    back = layout.match(targets, "target", {"i": LAYERS})
    assert strays(back) == ()
    assert sorted(name for bound in back.bound for name in bound.outputs) == sorted(names)
    assert {bound.inputs: bound.outputs for bound in back.bound} == {bound.outputs: bound.inputs for bound in there.bound}


@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_a_tensor_that_is_needed_and_lacking_is_missing(architecture: Architecture, space: str):
    layout, names = architecture.layouts[space], names_of(architecture, space)
    needed = {name for rule in layout.rules if rule.required for pattern in rule.hf for name in instances(pattern)}
    assert needed
    for name in names:
        matching = layout.match([other for other in names if other != name], "hf", {"i": LAYERS})
        assert matching.missing == ((name,) if name in needed else ())


@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_what_is_dropped_or_omitted_is_known_and_no_rule(architecture: Architecture, space: str):
    layout = architecture.layouts[space]
    for patterns, kind in ((layout.drop, "dropped"), (layout.omit, "omitted")):
        for pattern in patterns:
            for name in instances(pattern):
                matching = layout.match([name], "hf", {"i": 0})
                assert (matching.bound, getattr(matching, kind)) == ((), (name,))
    for name in layout.derive:
        assert layout.match([name], "target", {"i": 0}).dropped == (name,)


@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_modules_of_the_placement_are_modules_of_the_layout(architecture: Architecture, space: str):
    names = [name.rpartition(".")[0] for name in names_of(architecture, space)]
    names += [
        pattern.text.rpartition(".")[0] for pattern in (*architecture.layouts[space].omit, *architecture.layouts[space].drop)
    ]
    inside = architecture.placement.block.format(i=0) + "."
    assert any(name.startswith(inside) for name in names)
    for module in architecture.placement.first:
        assert any(f"{name}.".startswith(f"{module}.") for name in names), module


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
    "captures that differ": (lambda: Layout.of({"a.{i}": "x.{e}"}), "captures of .* differ"),
    "a capture on one side only": (lambda: Layout.of({"a.{i}": "x"}), "captures of .* differ"),
    "a capture twice in a name": (lambda: Layout.of({"a.{i}.{i}": "x.{i}"}), "must be whole components and differ"),
    "a capture in the middle of a component": (lambda: Layout.of({"a.w{i}": "x.{i}"}), "must be whole components"),
    "nothing that could be a target": (lambda: Layout.of({"a": 3}), "3 is neither a name nor a transform"),
    "a transform without a name behind it": (lambda: Layout.of({"a": identity}), "neither a name nor a transform"),
    "two tensors to one without a transform": (lambda: Layout.of({("a", "b"): "x"}), "not as many names"),
    "a split of three into two": (lambda: Layout.of({"a": ~concat("p", "q", "r") >> ("x", "y")}), "not as many names"),
    "a joining of two where one is given": (lambda: Layout.of({"a": concat("p", "q") >> "x"}), "not as many names"),
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
