"""Layouts: every name of every architecture goes there and back, wrong tables are refused when they are declared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import ROOT

from hubclient.architectures import (
    Architecture,
    Layout,
    absent,
    biased,
    block,
    concat,
    either,
    identity,
    optional,
    present,
    rope,
    stack,
    transpose,
)
from hubclient.architectures.language.layouts import Matching
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.architectures.language.tables import Rule, Side
from hubclient.plugins import Host
from hubclient.plugins.builtins import ARCHITECTURES
from hubclient.plugins.discovery import Scan

EVERY = Host(third_party=lambda: Scan((), ()), environ={}).all_architectures()
LAYOUTS = [pytest.param(item, space, id=f"{item.name}-{space}") for item in EVERY for space in item.layouts]
LAYERS, MANY = 12, 3  # blocks, and of what is stacked (experts)
VARIANTS = (0, 1)


class Sizes(Mapping[str, Any]):
    """A config in which every size is MANY."""

    def __getitem__(self, key: str) -> int:
        return MANY

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def sample(layout: Layout, variant: int) -> dict[str, Rule]:
    """Every Hugging Face name of a model and its rule; of alternatives those of number `variant`, or the last there are."""
    last: dict[str, int] = {}
    for rule in layout.rules:
        if rule.choice:
            last[rule.choice[0]] = max(last.get(rule.choice[0], 0), rule.choice[1])
    found: dict[str, Rule] = {}
    for rule in layout.rules:
        if rule.choice is None or rule.choice[1] == min(variant, last[rule.choice[0]]):
            found |= {name: rule for pattern in rule.hf for name in instances(pattern, rule)}
    return found


def instances(pattern: Pattern, rule: Rule | None = None) -> list[str]:
    spread = rule.transform.spread[0] if rule and rule.transform.spread else ""
    captures = sorted(pattern.captures)
    numbers = itertools.product(*(range(MANY if capture == spread else LAYERS) for capture in captures))
    return [pattern.name(dict(zip(captures, values, strict=True))) for values in numbers]


def counts(layout: Layout) -> dict[str, int]:
    return dict.fromkeys((capture for rule in layout.rules for pattern in rule.target for capture in pattern.captures), LAYERS)


def match(layout: Layout, rules: Mapping[str, Rule], side: Side) -> Matching:
    encodings = {name: rule.stored[0] if rule.stored else "F32" for name, rule in rules.items()}
    return layout.match(rules, side, counts(layout), Sizes(), encodings)


def strays(matching: Matching) -> tuple[str, ...]:
    return (*matching.unmatched, *matching.missing, *matching.surplus, *matching.dropped, *matching.omitted)


def test_every_family_module_is_announced():
    families = {path.stem for path in (ROOT / "architectures").glob("*.py") if "\nARCHITECTURES = (" in path.read_text()}
    assert {module.rpartition(".")[2] for module in ARCHITECTURES} == families


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_every_name_goes_to_the_target_and_comes_back(architecture: Architecture, space: str, variant: int):
    layout = architecture.layouts[space]
    names = sample(layout, variant)
    there = match(layout, names, "hf")
    assert strays(there) == ()
    targets = {name: bound.rule for bound in there.bound for name in bound.outputs}
    assert len(targets) == sum(len(bound.outputs) for bound in there.bound)
    back = match(layout, targets, "target")
    assert strays(back) == ()
    assert sorted(name for bound in back.bound for name in bound.outputs) == sorted(names)
    assert {bound.inputs: bound.outputs for bound in back.bound} == {bound.outputs: bound.inputs for bound in there.bound}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("architecture", "space"), LAYOUTS)
def test_a_tensor_that_is_needed_and_lacking_is_missing(architecture: Architecture, space: str, variant: int):
    layout = architecture.layouts[space]
    names = sample(layout, variant)
    assert any(rule.required for rule in names.values())
    for lacking, rule in names.items():
        if template(lacking)[1][:1] in ((), (str(LAYERS - 1),)):  # one block of all will do
            missing = match(layout, {name: other for name, other in names.items() if name != lacking}, "hf").missing
            if rule.choice and missing:
                assert rule.required and len(rule.hf) == 1  # or the first of another alternative, if nothing of this one is left
            else:
                assert missing == ((lacking,) if rule.required or len(rule.hf) > 1 or rule.transform.spread else ()), lacking


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


@pytest.mark.parametrize("architecture", EVERY, ids=lambda item: item.name)
def test_modules_of_the_placement_are_modules_of_the_layouts(architecture: Architecture):
    layouts, placement = architecture.layouts.values(), architecture.placement
    patterns = [pattern for layout in layouts for rule in layout.rules for pattern in rule.hf]
    patterns += [pattern for layout in layouts for pattern in (*layout.omit, *layout.drop)]
    names = [name for pattern in patterns for name in instances(pattern)]
    inside = (f"{placement.block}.{module}" for module in placement.experts)
    for module in (*placement.first, placement.block, *inside):
        one = instances(Pattern.of(module))[0]
        assert any(name.startswith(f"{one}.") for name in names), module


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
