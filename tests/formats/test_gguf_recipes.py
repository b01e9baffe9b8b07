"""Recipes: the choices of llama-quantize for whole models, and what a user may choose instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from choosing import llama, types
from reference import DATA, REFERENCE

from hubclient.errors import UsageError
from hubclient.formats.gguf import FORMAT
from hubclient.formats.gguf.choices import (
    NO_OVERRIDES,
    Choice,
    ModelFacts,
    Overrides,
    Tensor,
    choose,
    requantised,
    require_importance,
    unused,
)
from hubclient.formats.gguf.recipes import RECIPES, recipe
from hubclient.formats.gguf.ruletables import TYPES
from hubclient.formats.gguf.storage import FILE_TYPES
from hubclient.formats.model import Value

SMALL = DATA / "quant" / "mixes-small.json"
FULL = REFERENCE / "quant" / "mixes.json" if REFERENCE else None
FOREIGN = (REFERENCE / "foreign" if REFERENCE else DATA / "gguf").glob("llama_h256-*.gguf")
NAMES = {
    "LlamaForCausalLM": "llama", "MixtralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Phi3ForCausalLM": "phi3",
    "GPT2LMHeadModel": "gpt2", "BloomForCausalLM": "bloom", "StableLmForCausalLM": "stablelm",
    "DeepseekV3ForCausalLM": "deepseek2", "MambaForCausalLM": "mamba",
}  # fmt: skip


def recorded() -> dict[str, dict[str, Any]]:
    """What llama-quantize chose: per model, its config, tensors, and types by mix and tensor."""
    if FULL is not None and FULL.is_file():
        return json.loads(FULL.read_text())
    models = json.loads(SMALL.read_text())
    for model in models.values():
        for mix, letters in model["types"].items():
            if isinstance(letters, str):
                kinds = (model["kinds"][letter] for letter in letters)
                model["types"][mix] = dict(zip(model["tensors"], kinds, strict=True))
    return models


RECORDED = recorded()


def facts_of(config: dict[str, Any]) -> ModelFacts:
    def count(*keys: str) -> int:
        return next((config[key] for key in keys if config.get(key)), 0)

    architecture = NAMES[config["architectures"][0]]
    heads = count("num_attention_heads", "n_head")
    kv_heads = 1 if architecture == "deepseek2" else count("num_key_value_heads") or heads  # one latent head
    experts = count("num_local_experts", "n_routed_experts")
    return ModelFacts(architecture, count("num_hidden_layers", "n_layer"), experts, heads, kv_heads)


def tensors_of(model: dict[str, Any]) -> list[Tensor]:
    unquantised = model["types"]["BF16"]
    return [Tensor(name, tuple(ne), unquantised[name].upper()) for name, ne in model["tensors"].items()]


@pytest.mark.parametrize("name", RECORDED)
def test_every_mix_makes_the_choices_of_llama_quantize(name: str):
    model = RECORDED[name]
    facts, tensors = facts_of(model["config"]), tensors_of(model)
    for mix, wanted in model["types"].items():
        if "error" in wanted:
            with pytest.raises(UsageError, match="is not a whole number of Q1_0 blocks of 128, and nothing stands in"):
                choose(recipe(mix), facts, tensors)
        else:
            made = {tensor: choice.type.lower() for tensor, choice in choose(recipe(mix), facts, tensors).items()}
            assert made == wanted, mix


@pytest.mark.parametrize("path", sorted(FOREIGN), ids=lambda path: path.stem)
def test_files_that_llama_quantize_made_have_the_types_that_are_chosen(path: Path):
    """With an importance matrix too: some recipes give some tensors other types then."""
    opened = FORMAT.open(path)
    tensors = [
        Tensor(ref.name, tuple(reversed(ref.shape)), "BF16" if len(ref.shape) > 1 else "F32") for ref in opened.tensors.values()
    ]
    made = choose(recipe(path.stem.rsplit("-", 1)[1]), ModelFacts.of(opened.metadata), tensors, importance="imatrix" in path.stem)
    assert {name: choice.type for name, choice in made.items()} == {
        name: ref.encoding.name for name, ref in opened.tensors.items()
    }


def test_all_file_types_of_llama_quantize_are_there_with_their_numbers():
    assert set(RECIPES) == set(FILE_TYPES) - {"NVFP4"}  # a number that llama-quantize knows no mix for
    for name in RECIPES:
        assert recipe(name.lower()).number == FILE_TYPES[name]
    assert [recipe(name).name for name in ("Q3_K", "q4_k", "Q5_K")] == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]


@pytest.mark.parametrize(
    ("mix", "importance", "part", "first", "last"),
    [
        ("Q4_0", False, "ffn_down", "Q4_0", "Q4_0"),
        ("Q4_0", True, "ffn_down", "Q4_1", "Q4_0"),
        ("Q5_0", True, "ffn_down", "Q5_1", "Q5_0"),
        ("IQ4_XS", False, "ffn_down", "Q5_K", "IQ4_XS"),
        ("IQ4_XS", True, "ffn_down", "IQ4_XS", "IQ4_XS"),
        ("IQ3_XXS", False, "ffn_down", "Q4_K", "Q3_K"),
        ("IQ3_XXS", True, "ffn_down", "IQ3_XXS", "IQ3_XXS"),
    ],
)
def test_some_types_depend_on_whether_there_is_an_importance_matrix(mix, importance, part, first, last):
    facts, tensors = llama(kv_heads=64)
    made = types(choose(recipe(mix), facts, tensors, importance), part)
    assert (made[:4], made[4:]) == ([first] * 4, [last] * 28)


def test_attention_values_of_a_model_of_70_thousand_million_get_more_bits():
    for architecture, blocks, kv_heads, wanted in [
        ("llama", 80, 8, "Q5_K"), ("llama", 80, 64, "Q3_K"), ("llama", 60, 8, "Q4_K"), ("jais2", 68, 64, "Q5_K"),
    ]:  # fmt: skip
        facts, tensors = llama(blocks, architecture, kv_heads=kv_heads)
        assert set(types(choose(recipe("Q2_K"), facts, tensors), "attn_v")) == {wanted}


def test_falcon_has_rules_of_its_own():
    facts, tensors = llama(architecture="falcon", kv_heads=1)
    made = choose(recipe("Q4_K_M"), facts, tensors)
    assert made["output.weight"].type == "Q8_0"
    assert types(made, "ffn_down")[:7] == ["Q6_K", "Q6_K", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q5_K"]


def test_blocks_are_counted_by_number_whatever_the_order_of_tensors():
    facts, tensors = llama()
    for mix in ("Q4_K_M", "Q3_K_M", "IQ2_M"):
        assert choose(recipe(mix), facts, tensors[::-1]) == choose(recipe(mix), facts, tensors)


def test_a_choice_says_why():
    facts, tensors = llama(columns=64)
    made = choose(recipe("Q4_K_M"), facts, tensors, overrides=Overrides.parse(["attn_q=q8_0"]))
    assert made["blk.0.attn_norm.weight"] == Choice("F32", "kept: one row")
    assert made["blk.0.attn_q.weight"] == Choice("Q8_0", "--tensor-type attn_q=q8_0")
    assert made["blk.0.attn_k.weight"] == Choice("Q5_0", "Q4_K_M: all else", "Q4_K")
    assert made["blk.0.attn_v.weight"].fallback_from == "Q6_K"


def test_what_is_no_float_stays_what_it_is():
    tensors = [Tensor("blk.0.ffn_gate_tid2eid.weight", (8, 8), "I32"), Tensor("blk.0.other.weight", (256, 8), "I32")]
    assert {choice.type for choice in choose(recipe("Q4_K_M"), ModelFacts("x", 1), tensors).values()} == {"I32"}


# ---- overrides


def test_the_first_pattern_found_in_a_name_counts_as_in_llama_quantize():
    facts, tensors = llama()
    made = choose(recipe("Q4_K_M"), facts, tensors, overrides=Overrides.parse([r"blk\.1\.ATTN_V=Q8_0", "attn_(v|k)=q5_0"]))
    assert [made[f"blk.{i}.attn_v.weight"].type for i in range(3)] == ["Q5_0", "Q8_0", "Q5_0"]
    assert set(types(made, "attn_k")) == {"Q5_0"} and made["blk.2.attn_q.weight"].type == "Q4_K"


def test_what_the_user_chose_is_not_counted_as_a_place():
    facts, tensors = llama()
    made = choose(recipe("Q4_K_S"), facts, tensors, overrides=Overrides.parse([r"blk\.0\.attn_v=Q8_0"]))
    assert types(made, "attn_v")[:6] == ["Q8_0", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q4_K"]


def test_output_and_embedding_have_options_of_their_own():
    facts, tensors = llama()
    wishes = Overrides.parse([".*=Q5_0"], "q8_0", "f16")
    made = choose(recipe("Q4_K_M"), facts, tensors, overrides=wishes)
    assert [made[f"{name}.weight"].type for name in ("output", "token_embd")] == ["Q8_0", "F16"]
    tied = tensors[:1] + tensors[2:]
    for pure in (False, True):
        made = choose(recipe("Q4_K_M", pure=pure), facts, tied, overrides=Overrides.parse(output_type="Q8_0"))
        assert made["token_embd.weight"].type == "Q8_0"
    made = choose(recipe("Q4_K_M"), facts, tied, overrides=Overrides.parse(output_type="Q8_0", embedding_type="Q5_0"))
    assert made["token_embd.weight"].type == "Q5_0"


def test_the_embeddings_of_layers_follow_the_embedding_unless_named():
    tensors = [Tensor(f"{name}.weight", (256, 8), "BF16") for name in ("token_embd", "per_layer_token_embd", "output")]
    facts = ModelFacts("gemma3n", 1)
    for patterns, wanted in ([], "Q8_0"), (["per_layer=Q5_0"], "Q5_0"):
        made = choose(recipe("Q4_K_M"), facts, tensors, overrides=Overrides.parse(patterns, embedding_type="Q8_0"))
        assert [made[tensor.name].type for tensor in tensors[:2]] == ["Q8_0", wanted]


def test_norms_are_beyond_the_reach_of_every_pattern():
    facts, tensors = llama()
    wishes = Overrides.parse(["attn_norm=Q8_0", "attn_k=Q8_0"])
    made = choose(recipe("Q4_K_M"), facts, tensors, overrides=wishes)
    assert set(types(made, "attn_norm")) == {"F32"}
    assert unused(wishes, made) == ("attn_norm=Q8_0",) and unused(NO_OVERRIDES, made) == ()


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("attn_v", "is not PATTERN=TYPE"),
        ("=Q8_0", "is not PATTERN=TYPE"),
        ("attn_v=", "is not PATTERN=TYPE"),
        ("attn_v=Q4_K_M", "no tensor type; did you mean Q4_K"),
        ("attn_v=Q8_K", "Q8_K cannot be made"),
        ("attn_v=I8", "I8 cannot be made"),
        ("attn_(v=Q8_0", "is no regular expression"),
        ("(a+)+$=Q8_0", "may take for ever"),
        ("a.*b.*c.*d.*e.*=Q8_0", "may take for ever"),
        ("x" * 1000 + "=Q8_0", "no pattern of 1 to 200 characters"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(text: str, needle: str):
    with pytest.raises(UsageError, match=f"--tensor-type.*{needle}"):
        Overrides.parse([text])


def test_types_of_output_and_embedding_are_checked_by_option():
    for option, wish in ("--output-type", {"output_type": "Q9"}), ("--embedding-type", {"embedding_type": "Q9"}):
        with pytest.raises(UsageError, match=f"{option}: 'Q9' is no tensor type"):
            Overrides.parse(**wish)


# ---- pure


@pytest.mark.parametrize("kind", TYPES)
def test_pure_is_exactly_that_type_everywhere(kind: str):
    facts, tensors = llama(experts=8)
    found = recipe(kind.lower(), pure=True)
    made = choose(found, facts, tensors)
    assert {choice.type for choice in made.values() if not choice.reason.startswith("kept")} == {kind}
    assert set(types(made, "attn_norm")) == {"F32"} and found.number in FILE_TYPES.values()


def test_pure_with_a_mix_is_its_own_type_and_falls_back_where_rows_do_not_fit():
    facts, tensors = llama(columns=96)
    assert recipe("Q4_K_M", pure=True).type == "Q4_K" and recipe("IQ2_S", pure=True).type == "IQ2_S"
    assert set(types(choose(recipe("Q4_K_M", pure=True), facts, tensors), "attn_v")) == {"Q5_0"}
    with pytest.raises(UsageError, match=r"token_embd.weight: a row of 96 .* NVFP4 blocks of 64"):
        choose(recipe("NVFP4", pure=True), facts, tensors[:1])


def test_a_bare_type_without_pure_is_no_recipe():
    with pytest.raises(UsageError, match="MXFP4 is a type of tensors and no recipe") as caught:
        recipe("mxfp4")
    assert "--pure" in str(caught.value.hint)


# ---- importance


@pytest.mark.parametrize(
    ("mix", "pure", "refused"),
    [
        ("Q4_K_M", False, None),
        ("Q2_K", False, None),
        ("Q2_K", True, None),
        ("Q2_K_S", False, "blk.0.attn_q.weight: Q2_K"),
        ("IQ3_S", False, None),
        ("IQ3_XXS", False, "blk.0.attn_q.weight: IQ2_S"),
        ("IQ2_S", True, "blk.0.attn_q.weight: IQ2_S"),  # runs without for embedding and output
        ("IQ2_XXS", True, "token_embd.weight: IQ2_XXS .* --embedding-type"),
    ],
)
def test_importance_is_demanded_where_llama_quantize_demands_it(mix, pure, refused):
    facts, tensors = llama()
    made = choose(recipe(mix, pure=pure), facts, tensors)
    require_importance(made, True)
    if refused is None:
        require_importance(made, False)
        return
    with pytest.raises(UsageError, match=refused):
        require_importance(made, False)


def test_a_matrix_that_lacks_one_tensor_is_not_enough_for_it():
    facts, tensors = llama()
    known = {tensor.name for tensor in tensors if tensor.name.startswith("blk.")}
    made = choose(recipe("IQ2_XXS"), facts, tensors, known)
    require_importance(made, known)
    with pytest.raises(UsageError, match=r"blk.3.ffn_up.weight: IQ2_XXS needs an importance matrix.*--tensor-type"):
        require_importance(made, known - {"blk.3.ffn_up.weight"})
    with pytest.raises(UsageError, match=r"output.weight: IQ2_XXS .*--output-type"):
        require_importance(choose(recipe("IQ2_XXS"), facts, tensors, known, Overrides.parse(output_type="IQ2_XXS")), known)


def test_what_has_its_type_already_needs_nothing():
    tensors = [Tensor("blk.0.ffn_up.weight", (256, 8), "IQ2_XXS"), Tensor("blk.0.attn_q.weight", (256, 8), "Q4_0")]
    made = choose(recipe("IQ2_XXS"), ModelFacts("llama", 1), tensors)
    assert [choice.needs_importance for choice in made.values()] == [False, True]
    assert requantised(made, tensors) == ("blk.0.attn_q.weight",)


# ---- facts


def test_facts_come_from_the_keys_of_a_gguf():
    keys = {
        "general.architecture": Value("str", "jamba"), "jamba.block_count": Value("u32", 8), "jamba.expert_count": Value("u32", 16),
        "jamba.attention.head_count": Value("u32", 32), "jamba.attention.head_count_kv": Value("[u32]", [0, 8, 8]),
    }  # fmt: skip
    facts = ModelFacts.of(keys)
    assert facts == ModelFacts("jamba", 8, 16, 32, 0) and facts.gqa == 0
    del keys["jamba.attention.head_count_kv"]
    assert ModelFacts.of(keys).gqa == 1
    odd = {"general.architecture": Value("str", "x"), "x.block_count": Value("str", "many"), "x.expert_count": Value("[u32]", [])}
    assert ModelFacts.of(odd) == ModelFacts("x", 0) and ModelFacts.of({}) == ModelFacts("", 0)
