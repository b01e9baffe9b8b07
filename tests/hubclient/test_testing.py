"""The conformance kit finds what is wrong with a declaration: each fault by the check that is there for it, in a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from reference import ROOT

from hubclient.architectures import (
    Architecture,
    Fixed,
    Layout,
    Pair,
    Transform,
    block,
    code,
    concat,
    each,
    either,
    ratio,
    stack,
    u32,
)
from hubclient.architectures.decoder import ENDS, MLP, NORMS
from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.gathers import Permute
from hubclient.architectures.llama import ATTENTION, GGUF, LLAMA
from hubclient.plugins import Host
from hubclient.plugins.discovery import Scan
from hubclient.testing import CHECKS, Fault, Subject, cases, run_all
from hubclient.testing.checks import Case


@dataclass(frozen=True, slots=True)
class OneWay(Transform):
    """Rows turned round on the way there, and left so on the way back."""

    def forward(self, arrays: tuple[Array, ...], config: Mapping[str, Any]) -> tuple[Array, ...]:
        return tuple(Permute(array, (array.rows // 2, 2), (1, 0)) for array in arrays)

    def backward(self, arrays: tuple[Array, ...], config: Mapping[str, Any]) -> tuple[Array, ...]:
        return arrays


@dataclass(frozen=True, slots=True)
class Turned(Array):
    """Every row backwards, which it keeps to itself."""

    part: Array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.part.shape

    @property
    def parts(self) -> tuple[Array, ...]:
        return (self.part,)

    def read(self, start: int, stop: int, load: Any) -> Any:
        return self.part.read(start, stop, load)[:, ::-1]


@dataclass(frozen=True, slots=True)
class Hasty(Array):
    """All rows negated, and said to be moved only; the first of whatever is asked for twice."""

    part: Array

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.part.shape

    @property
    def parts(self) -> tuple[Array, ...]:
        return (self.part,)

    def read(self, start: int, stop: int, load: Any) -> Any:
        return -self.part.read(start, stop, load)


@dataclass(frozen=True, slots=True)
class Of(Transform):
    """An array kind as its own inverse."""

    kind: Any

    def forward(self, arrays: tuple[Array, ...], config: Mapping[str, Any]) -> tuple[Array, ...]:
        return tuple(map(self.kind, arrays))

    def backward(self, arrays: tuple[Array, ...], config: Mapping[str, Any]) -> tuple[Array, ...]:
        return self.forward(arrays, config)


@dataclass(frozen=True, slots=True)
class Twice:
    """Stores a key as another pair does, and one that it does not own up to."""

    def keys(self, name: str) -> tuple[str, ...]:
        return (f"{name}.context_length",)

    def forward(self, config: Mapping[str, Any], name: str) -> dict[str, Any]:
        return {f"{name}.context_length": ("u32", 7)}

    def backward(self, metadata: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        return {}


def changed(**what: Any) -> Architecture:
    """Llama with something else, under a name of its own."""
    layouts = what.pop("layouts", {"gguf": replace(GGUF, name="elm"), "mlx": GGUF.following(name="elm")})
    return replace(LLAMA, **{"name": "elm", "hf": ("ElmForCausalLM",), "model_type": "elm", "layouts": layouts, **what})


def gguf(*lines: Any, attention: Any = ATTENTION, mlp: Any = MLP) -> dict[str, Layout]:
    return {"gguf": Layout.of(ENDS, block("model.layers.{i}", "blk.{i}", NORMS, attention, mlp, *lines))}


Q, V = "self_attn.q_proj.weight", "self_attn.v_proj.weight"
WITHOUT_SHAPES = {name: sizes for name, sizes in LLAMA.shapes.items() if "mlp" not in name}
FAULTS: dict[str, tuple[Architecture, str, str]] = {
    "a way back that is none": (
        changed(layouts=gguf(attention={**ATTENTION, V: OneWay() >> "attn_v.weight"})),
        "values go there and come back",
        "self_attn.v_proj.weight comes back with other values",
    ),
    "an array that moves less than rows": (
        changed(layouts=gguf(attention={**ATTENTION, V: Of(Turned) >> "attn_v.weight"})),
        "arrays keep their word",
        "says that its rows only move, and takes them apart",
    ),
    "an array that computes in secret": (
        changed(layouts=gguf(attention={**ATTENTION, V: Of(Hasty) >> "attn_v.weight"})),
        "arrays keep their word",
        "blk.0.attn_v.weight says that its elements only move, and computes",
    ),
    "a format that lacks a tensor": (
        changed(layouts={"gguf": GGUF, "mlx": Layout.of(ENDS, block("model.layers.{i}", "model.layers.{i}", NORMS, MLP))}),
        "there and back is exact",
        "no rule in the architecture elm",
    ),
    "sizes that contradict the transform": (
        changed(shapes={**LLAMA.shapes, f"model.layers.{{i}}.{Q}": ("vocab_size", "hidden_size")}),
        "values go there and come back",
        "where the config asks for 4 heads",
    ),
    "no shape that a transform takes": (
        changed(
            layouts=gguf(mlp={"mlp.up.weight": each(concat("a", "b") >> ~concat(3, "b")) >> "ffn_up.weight"}), shapes=WITHOUT_SHAPES
        ),
        "every tensor has a shape",
        "the kit finds no shape for model.layers.{i}.mlp.up.weight that its transform takes; say it in shapes=",
    ),
    "two pairs for one key": (changed(config=(*LLAMA.config, Twice())), "no two pairs write one key", "elm.context_length is written"),
    "a code for two values": (
        changed(config=(*LLAMA.config, code("hidden_act", "act", {"silu": 1, "swish": 1}))),
        "config comes back",
        "hidden_act is 'silu', and comes back as 'swish'",
    ),
    "a type that there is not": (
        changed(config=(*LLAMA.config, Fixed("odd", "u9", 1))),
        "stored values are of a known type",
        "elm.odd is 1 as u9",
    ),
    "a number that is none": (
        changed(config=(*LLAMA.config, Fixed("odd", "u32", -1))),
        "stored values are of a known type",
        "elm.odd is -1 as u32",
    ),
    "a config value that files do not tell": (
        changed(
            config=tuple(pair for pair in LLAMA.config if not (isinstance(pair, Pair) and pair.hf == "num_key_value_heads")),
            defaults={**LLAMA.defaults, "num_key_value_heads": 8},
        ),
        "there and back without our keys",
        "num_key_value_heads is None",
    ),
    "a module that is not there": (
        changed(placement=replace(LLAMA.placement, first=("model.embed_token",))),
        "modules hold every tensor",
        "the model has no module model.embed_token",
    ),
    "a block that is not there": (
        changed(placement=replace(LLAMA.placement, block="model.layer.{i}")),
        "modules hold every tensor",
        "model.layer.{i} is met 0 times in a model of 2 blocks",
    ),
    "a look-alike that nothing tells apart": (
        changed(layouts={"gguf": replace(GGUF, name="llama")}),
        "told from look-alikes",
        "may be any of several declarations",
    ),
    "a look-alike that is not named": (
        changed(layouts={"gguf": replace(GGUF, name="qwen2")}, look_alike="llama"),
        "told from look-alikes",
        "qwen2",
    ),
    "a loss that nobody expects": (
        changed(assumed={**LLAMA.assumed, "num_attention_heads": (7, None)}, config=LLAMA.config),
        "there and back is exact",
        "num_attention_heads",
    ),
}  # fmt: skip


def outcomes(architecture: Architecture, check: str) -> list[str]:
    found = [case for case in cases([architecture]) if case.check.name == check]
    assert found
    return [outcome.fault for outcome in run_all(found) if outcome.fault]


@pytest.mark.parametrize(("architecture", "check", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_found_by_its_check(architecture: Architecture, check: str, told: str):
    faults = outcomes(architecture, check)
    assert faults and any(told in fault for fault in faults), faults
    assert all(fault.count("\n") == 0 for fault in faults)


@pytest.mark.parametrize("check", CHECKS[:-1], ids=lambda check: check.name)
def test_an_architecture_that_is_not_installed_passes(check):
    assert outcomes(changed(), check.name) == []


def test_experts_and_alternatives_are_made_up_too():
    experts = {"moe.{e}.up.weight": stack("e", "num_experts") >> "ffn_up_exps.weight", "moe.gate.weight": "ffn_gate_inp.weight"}
    layouts = gguf(mlp=either(experts, {"mlp.up_proj.weight": "ffn_up.weight"}))
    architecture = changed(layouts=layouts, defaults={**LLAMA.defaults, "num_experts": 64})
    model = Subject(architecture, Host(third_party=lambda: Scan((), ()), environ={})).models[0]
    assert [f"model.layers.0.moe.{expert}.up.weight" in model.shapes for expert in range(5)] == [True] * 4 + [False]
    assert "model.layers.1.mlp.up_proj.weight" in model.shapes and "model.layers.1.moe.0.up.weight" not in model.shapes
    assert "model.layers.1.moe.0.up.weight" in model.spare and model.undeclared


def test_what_an_author_says_goes_before_what_the_kit_makes_up():
    architecture = changed()
    given = {"num_attention_heads": 8, "elm": {"head_dim": 16}, "larch": {"head_dim": 3}}
    case: Case = next(cases([architecture], config=given))
    config = case.subject.models[0].config
    assert (config["num_attention_heads"], config["head_dim"], config["num_key_value_heads"]) == (8, 16, 2)


def test_a_fault_of_hubclients_own_kind_is_a_sentence_too(tmp_path):
    bad = changed(shapes={"model.norm.weight": (ratio("hidden_size", 7),)})
    with pytest.raises(Fault, match="say with `config` how large these are: num_hidden_layers"):
        next(cases([bad])).run(tmp_path)


def test_the_kit_needs_no_pytest():
    code_ = "import sys; sys.modules['pytest'] = None\nimport hubclient.testing\nassert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code_], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_key_that_only_one_of_two_pairs_writes_is_no_fault():
    pairs = (*LLAMA.config, u32("sliding_window", "attention.sliding_window", when={"use_sliding_window": (True,)}))
    assert outcomes(changed(config=pairs), "no two pairs write one key") == []
