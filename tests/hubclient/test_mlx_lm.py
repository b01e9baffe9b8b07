"""mlx-lm loads every MLX folder that we write and generates the tokens that it generates from its own conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden import VARIANTS, Golden, Workshop, goldens

pytestmark = pytest.mark.mlx
STEPS = 8
# mlx-lm's own conversion leaves rope in Transformers 5's spelling, which its Llama does not read; ours says it in both.
BETTER = ("llama_newstyle_config",)
CONVERTED = [
    (golden, variant)
    for golden in goldens()
    for variant in VARIANTS
    if "tensors" in golden.record.get("mlx", {}).get(variant, {})
]
EACH = [pytest.param(golden, variant, id=f"{golden.name}-{variant}") for golden, variant in CONVERTED]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("mlx"))


def theirs(golden: Golden, variant: str, folder: Path) -> Path:
    """What mlx-lm itself converts the checkpoint to."""
    mlx_lm = pytest.importorskip("mlx_lm")
    out = folder / "theirs"
    options: dict[str, Any] = {"quantize": True, "q_bits": 4} if variant == "q4" else {}
    group = golden.record["mlx"][variant].get("quantize", {}).get("group_size")
    mlx_lm.convert(str(golden.checkpoint), str(out), **options, **({"q_group_size": group} if group else {}))
    return out


def continued(folder: Path, ids: list[int]) -> tuple[list[int], list[float]]:
    """The greedy continuation, and the logits behind the ids."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    model, _ = load_model(folder, strict=True)
    model.set_dtype(mx.float32)  # the CPU has no gathered products in bfloat16
    tokens, first = list(ids), None
    for _ in range(STEPS):
        logits = model(mx.array([tokens]))[0, -1].astype(mx.float32)
        first = logits if first is None else first
        tokens.append(int(mx.argmax(logits)))
    assert first is not None
    return tokens[len(ids) :], first.tolist()


@pytest.mark.parametrize(("golden", "variant"), EACH)
def test_it_says_the_same_as_from_its_own_conversion(golden: Golden, variant: str, workshop: Workshop, tmp_path: Path):
    pytest.importorskip("mlx_lm")
    if golden.name in BETTER:
        pytest.skip("held against Transformers below")
    ours, reference = workshop.mlx(golden, variant), theirs(golden, variant, tmp_path)
    assert continued(ours, golden.ids) == continued(reference, golden.ids)


@pytest.mark.parametrize(
    "golden",
    [golden for golden, variant in CONVERTED if variant == "fp" and golden.record["summary"]["transformers_logits"]],
    ids=lambda golden: golden.name,
)
def test_it_computes_what_transformers_computes(golden: Golden, workshop: Workshop):
    pytest.importorskip("mlx_lm")
    if not golden.record["summary"]["mlx_agrees"] and golden.name not in BETTER:
        pytest.skip("mlx-lm computes something else")
    _, logits = continued(workshop.mlx(golden, "fp"), golden.ids)
    assert max(abs(one - two) for one, two in zip(logits, golden.logits, strict=True)) < 5e-3


@pytest.mark.parametrize("golden", [golden for golden in goldens() if golden.name == "llama"], ids=lambda golden: golden.name)
def test_it_generates_text_with_our_tokenizer_files(golden: Golden, workshop: Workshop):
    mlx_lm = pytest.importorskip("mlx_lm")
    model, tokenizer = mlx_lm.load(str(workshop.mlx(golden, "q4")))
    assert isinstance(mlx_lm.generate(model, tokenizer, "hello", max_tokens=4), str)
