"""Words for sizes, and declarations as parts of larger ones."""

from __future__ import annotations

import pytest

from hubclient.architectures import alike, with_biases
from hubclient.architectures.language.declaration import Placement
from hubclient.architectures.llama import LLAMA
from hubclient.architectures.llava import LLAVA
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan

SHAPES = {"q.weight": ("out", "in"), "norm.weight": ("in",), "conv.weight": ("out", 1, 4), "A_log": ("in", 2)}


def test_a_bias_is_as_long_as_its_weight_has_rows():
    assert with_biases(SHAPES) == {**SHAPES, "q.bias": ("out",), "norm.bias": ("in",), "conv.bias": ("out",)}
    assert with_biases({"q.weight": ("in", "out")}, out=-1)["q.bias"] == ("out",)


def test_what_is_said_of_a_bias_holds():
    assert with_biases({"q.weight": ("out", "in"), "q.bias": ("other",)})["q.bias"] == ("other",)


def test_modules_may_share_their_sizes():
    assert alike((f"b.{{i}}.{name}" for name in ("k", "v")), "kv", "in") == {
        "b.{i}.k.weight": ("kv", "in"),
        "b.{i}.v.weight": ("kv", "in"),
    }


def test_a_part_of_a_larger_model_is_placed_under_its_longer_names():
    placement = Placement("b.{i}", ("e",), ("n", "h"), {"h": "e"}, window="w").within("text")
    assert placement == Placement("text.b.{i}", ("text.e",), ("text.n", "text.h"), {"text.h": "text.e"}, window="w")
    assert LLAMA.within().placement == LLAMA.placement
    assert LLAVA.placement.first[-1] == "language_model.model.embed_tokens"


UNTOLD = {  # tensors whose sizes no key of the config tells
    "classifier.weight", "classifier.bias", "classifier.out_proj.weight", "classifier.out_proj.bias",
}  # fmt: skip


@pytest.mark.parametrize(
    "architecture", Host(third_party=lambda: Scan((), ()), environ={}).all_architectures(), ids=lambda a: a.name
)
def test_norms_and_biases_of_every_family_have_a_size(architecture):
    """So that one of a wrong length does not pass."""
    from hubclient.architectures.language.patterns import Pattern, overlap

    sized = [Pattern.of(name) for name in architecture.shapes]
    rules = (rule for layout in architecture.layouts.values() for rule in layout.rules)
    named = {pattern.text: pattern for rule in rules for pattern in rule.hf}
    open_ = {
        text
        for text, pattern in named.items()
        if ("norm" in text.lower() or text.endswith(".bias"))
        and not any(other.template == pattern.template and overlap(other, pattern) for other in sized)
    }
    assert open_ <= UNTOLD | {"visual.blocks.{v}.mlp.fc1.bias"}  # as wide as the config's ratio, which a GGUF does not say
