"""verify, of quantised files: exact where our encoder would write the same, within where it comes about as close, or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from golden import Golden, foreign
from quantising import dense, gguf, importance
from reference import REFERENCE

from hubclient import Checkpoint, read_imatrix, verify

NAME = "blk.1.ffn_up.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The model quantised in a few ways."""
    folder, matrix = tmp_path_factory.mktemp("files"), importance(model)
    made = {kind: gguf(model, folder / f"{kind}.gguf", kind) for kind in ("Q4_0", "Q4_K_M", "Q8_0")}
    return made | {
        f"{kind} by importance": gguf(model, folder / f"{kind}-i.gguf", kind, importance=matrix) for kind in ("Q4_0", "Q4_K_M")
    }


def changed(path: Path, folder: Path, row: int, put: bytes, at: int = 0) -> Path:
    """A copy in which a row of a tensor begins with other bytes."""
    ref = Checkpoint.from_pretrained(path).opened.tensors[NAME]
    data = bytearray(path.read_bytes())
    start = ref.offset + row * ref.encoding.row_bytes(ref.shape[-1]) + at
    data[start : start + len(put)] = put
    (folder / "copy.gguf").write_bytes(data)
    return folder / "copy.gguf"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M", "Q8_0"])
def test_what_we_quantised_is_exact(kind: str, model: Path, files: Mapping[str, Path]) -> None:
    report = verify(files[kind], model)
    assert report.ok and set(report.counts()) == {"exact"} and report.differences == ()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M"])
def test_what_was_quantised_by_importance_is_within(kind: str, model: Path, files: Mapping[str, Path]) -> None:
    report = verify(files[f"{kind} by importance"], model)
    verdicts = {tensor.name: tensor.verdict for tensor in report.tensors}
    assert report.ok and verdicts[NAME] == "within" and verdicts["output_norm.weight"] == verdicts["token_embd.weight"] == "exact"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M"])
def test_with_the_matrix_at_hand_it_is_exact_and_a_changed_byte_is_seen(
    kind: str, model: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    matrix, file = importance(model), files[f"{kind} by importance"]
    assert set(verify(file, model, importance=matrix).counts()) == {"exact"}
    damaged = verify(changed(file, tmp_path, 3, b"\x5a\xa5", at=6), model, importance=matrix)
    assert {tensor.name: tensor.verdict for tensor in damaged.tensors}[NAME] != "exact"


@pytest.mark.parametrize("kind", ["Q4_K_M", "imatrix-Q4_K_M"])
def test_a_file_of_llama_quantize_is_the_model_it_was_made_of(kind: str) -> None:
    golden, theirs = Golden("llama_h256"), foreign(f"llama_h256-{kind}")
    if not golden.exists or theirs is None:
        pytest.skip("the folder is not at hand")
    found = {tensor.verdict for tensor in verify(theirs, golden.checkpoint).tensors}
    assert found == ({"exact", "within"} if "imatrix" in kind else {"exact"})


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M", "Q8_0", "Q4_0 by importance", "Q4_K_M by importance"])
@pytest.mark.parametrize("scale", [0.0, -1.0, 60000.0, np.inf, np.nan])
def test_a_block_with_another_scale_is_wrong(
    kind: str, scale: float, model: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    report = verify(changed(files[kind], tmp_path, 17, np.float16(scale).tobytes()), model)
    (wrong,) = [tensor for tensor in report.tensors if tensor.verdict == "wrong"]
    assert not report.ok and wrong.name == NAME and wrong.largest > 0


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K_M by importance"])
def test_another_models_rows_are_wrong(kind: str, files: Mapping[str, Path], model: Path, tmp_path: Path) -> None:
    other = dense(tmp_path / "other", seed=1)
    found = [tensor.verdict for tensor in verify(files[kind], other).tensors]
    assert set(found) == {"wrong"}


def test_zeros_in_place_of_a_row_are_wrong(files: Mapping[str, Path], model: Path, tmp_path: Path) -> None:
    report = verify(changed(files["Q4_0"], tmp_path, 3, bytes(8 * 18)), model)
    assert [tensor.name for tensor in report.tensors if tensor.verdict == "wrong"] == [NAME]


@pytest.mark.skipif(REFERENCE is None, reason="needs the reference data")
@pytest.mark.parametrize("kind", ["IQ2_XXS", "Q4_K_M", "Q2_K_S"])
def test_with_its_importance_matrix_a_file_is_exact(kind: str) -> None:
    assert REFERENCE is not None
    matrix = read_imatrix(REFERENCE / "quant" / "imatrix" / "llama_h256.imatrix.gguf")
    file, source = (REFERENCE / "foreign" / name for name in (f"llama_h256-imatrix-{kind}.gguf", "llama_h256.gguf"))
    assert verify(file, source, importance=matrix).counts() == {"exact": 20}
    without = verify(file, source)
    assert without.ok and "importance matrix" in without.uncompared[0]
