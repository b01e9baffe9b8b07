"""Quantising: the files that llama-quantize wrote, one step instead of two, many outputs of one read, and who decides types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from golden import FOREIGN, Golden, foreign
from quantising import dense, gguf, held, importance, keys, types
from reference import DATA
from running import counting_reads

from hubclient import Checkpoint
from hubclient.errors import UsageError
from hubclient.formats.gguf.imatrix import read_imatrix
from hubclient.model import Quantization

QUANTISED = sorted({path.name: path for folder in FOREIGN for path in folder.glob("llama_h256-*.gguf")}.values())
IMPORTANCE = DATA / "quant" / "imatrix" / "llama_h256.imatrix.gguf"


def wishes(path: Path) -> Quantization:
    """Those that go with a file's name."""
    return Quantization(importance=read_imatrix(IMPORTANCE) if "-imatrix-" in path.name else None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("source") / "llama")


# What llama-quantize wrote


@pytest.mark.parametrize("theirs", QUANTISED, ids=lambda path: path.stem.removeprefix("llama_h256-"))
def test_a_file_of_llama_quantize_is_made_again(theirs: Path, tmp_path: Path) -> None:
    source = foreign("llama_h256")
    if source is None:
        pytest.skip("what it was made from is not at hand")
    kind = theirs.stem.rpartition("-")[2]
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(
        tmp_path / "a.gguf", format="gguf", type=kind, quantization=wishes(theirs)
    )
    assert held(path) == held(theirs)
    ours, own = keys(path), {"hubclient.checkpoint", "hubclient.tokenizer", "general.size_label"}
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: value for key, value in keys(theirs).items() if key not in own
    }


@pytest.mark.parametrize("kind", ["Q4_K_M", "imatrix-Q4_K_M"])
def test_it_is_made_from_the_folder_in_one_step(kind: str, tmp_path: Path) -> None:
    golden, theirs = Golden("llama_h256"), foreign(f"llama_h256-{kind}")
    if not golden.exists or theirs is None:
        pytest.skip("the folder is not at hand")
    (path,) = Checkpoint.from_pretrained(golden.checkpoint).save_pretrained(
        tmp_path / "a.gguf", format="gguf", type="Q4_K_M", quantization=wishes(theirs)
    )
    assert held(path) == held(theirs)


# One step, one read


def test_one_step_gives_what_two_give(model: Path, tmp_path: Path) -> None:
    matrix = importance(model)
    once = gguf(model, tmp_path / "once" / "llama.gguf", "Q4_K_M", importance=matrix)
    between = gguf(model, tmp_path / "between" / "llama.gguf", "bf16")
    twice = gguf(between, tmp_path / "twice" / "llama.gguf", "Q4_K_M", importance=matrix)
    assert held(twice) == held(once) and list(held(twice)) == list(held(once))
    aside = "hubclient.checkpoint"  # what a reader cannot know alone; the second time the pre-tokenizer's name is part of that
    assert {**keys(twice), aside: ""} == {**keys(once), aside: ""}


def test_several_types_take_one_read(model: Path, tmp_path: Path) -> None:
    source = Checkpoint.from_pretrained(model)
    kinds = ("Q4_0", "Q8_0", "Q4_K_M")
    with counting_reads() as sizes:
        paths = source.save_pretrained(tmp_path / "{type}.gguf", format="gguf", type=kinds)
    assert sum(sizes) == sum(ref.nbytes for ref in source.opened.tensors.values())
    for path, kind in zip(paths, kinds, strict=True):
        assert path.read_bytes() == gguf(model, tmp_path / "alone" / path.name, kind).read_bytes()


def test_with_importance_a_type_that_is_named_twice_is_made_once(model: Path, tmp_path: Path) -> None:
    quantization = Quantization(importance=importance(model))
    plan = Checkpoint.from_pretrained(model).plan(
        tmp_path / "{type}.gguf", format="gguf", type=["Q4_K_M", "q4_k"], quantization=quantization
    )
    assert len(plan.outputs) == 1


# Who decides


def test_pure_is_the_type_for_all_that_would_be_quantised(model: Path, tmp_path: Path) -> None:
    found = types(gguf(model, tmp_path / "a.gguf", "Q4_0", pure=True))
    assert {name for name, kind in found.items() if kind == "F32"} == {name for name in found if "norm" in name}
    assert {kind for name, kind in found.items() if "norm" not in name} == {"Q4_0"}
    assert types(gguf(model, tmp_path / "b.gguf", "Q4_0"))["output.weight"] == "Q6_K"


def test_a_bare_type_is_no_recipe_unless_it_is_pure(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MXFP4 is a type of tensors and no recipe") as caught:
        gguf(model, tmp_path / "a.gguf", "MXFP4")
    assert "--pure" in str(caught.value.hint)
    assert set(types(gguf(model, tmp_path / "b.gguf", "MXFP4", pure=True)).values()) == {"MXFP4", "F32"}


def test_wishes_go_before_the_recipe_and_the_first_that_is_found_counts(model: Path, tmp_path: Path) -> None:
    found = types(
        gguf(
            model, tmp_path / "a.gguf", "Q4_0", output_type="q8_0", embedding_type="F16",
            tensor_types=(r"blk\.0\.attn_(q|k)=Q8_0", "attn_q=q4_k", "ffn_norm=Q8_0"),
        )
    )  # fmt: skip
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q8_0", "F16")
    assert [found[f"blk.{block}.attn_{part}.weight"] for block in (0, 1) for part in "qkv"] == [
        "Q8_0", "Q8_0", "Q4_0", "Q4_K", "Q4_0", "Q4_0",
    ]  # fmt: skip
    assert found["blk.0.ffn_norm.weight"] == "F32"  # which nothing quantises


def test_a_wish_alone_leaves_all_else_at_16_bits(model: Path, tmp_path: Path) -> None:
    found = types(gguf(model, tmp_path / "a.gguf", "auto", tensor_types=("ffn_down=Q8_0",)))
    assert {kind for name, kind in found.items() if "ffn_down" in name} == {"Q8_0"}
    assert {kind for name, kind in found.items() if "norm" not in name and "ffn_down" not in name} == {"BF16"}


@pytest.mark.parametrize(
    "wish", [{"output_type": "Q4_9"}, {"embedding_type": ""}, {"tensor_types": ("a=b",)}, {"tensor_types": ("(=Q8_0",)}]
)
def test_a_wish_that_means_nothing_is_refused(wish: dict[str, str | Sequence[str]], model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        gguf(model, tmp_path / "a.gguf", "Q4_0", **wish)
    assert list(tmp_path.iterdir()) == []


def test_other_formats_have_no_recipes(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pure can be asked for with GGUF alone, and this is mlx"):
        Checkpoint.from_pretrained(model).plan(tmp_path / "a", format="mlx", type="4bit", quantization=Quantization(pure=True))


@pytest.mark.parametrize("kind", ["Q4_K_M", "auto"])
def test_pure_takes_a_type_and_no_recipe(kind: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pure takes one type for all tensors"):
        Checkpoint.from_pretrained(model).plan(
            tmp_path / "a.gguf", format="gguf", type=kind, quantization=Quantization(pure=True)
        )


# What is said


def test_rows_that_are_not_whole_blocks_are_noted(source: Path, tmp_path: Path) -> None:
    (output,) = Checkpoint.from_pretrained(source).plan(tmp_path / "a.gguf", format="gguf", type="Q4_K_M").outputs
    made = {step.name: step.encoding.name for step in output.steps}
    assert output.notes == (
        (
            "rows are not whole blocks, so another type stands in: token_embd.weight (Q4_K as Q5_0), "
            "blk.0.ffn_down.weight (Q4_K as Q5_0), blk.0.ffn_gate.weight (Q4_K as Q5_0) and 12 more"
        ),
    )
    assert made["blk.0.ffn_up.weight"] == "Q5_0" and made["output.weight"] == "Q8_0" and output.losses == ()


def test_a_wish_that_decides_nothing_is_noted(model: Path, tmp_path: Path) -> None:
    wish = Quantization(tensor_types=("ffn_gate_exps=Q8_0", "ffn_down=Q8_0"))
    plan = Checkpoint.from_pretrained(model).plan(tmp_path / "a.gguf", format="gguf", type="Q4_0", quantization=wish)
    assert plan.notes == ("--tensor-type ffn_gate_exps=Q8_0 decides nothing in this model",)
