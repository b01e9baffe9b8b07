"""Quantising by importance: each expert by its own, what is recorded, and what a matrix may not be."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantising import EXPERTS, dense, gguf, held, importance, keys, routed, stored_matrix, values
from reference import DATA
from running import Failing, command

from hubclient import Checkpoint, read_imatrix
from hubclient.checkpoint import run
from hubclient.errors import DamagedInput, SourceChanged, UsageError
from hubclient.formats import codecs
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.gguf.imatrix import Entry, ImportanceMatrix
from hubclient.model import Quantization
from hubclient.spokes.storage import Importance

THEIRS = DATA / "quant" / "imatrix" / "mixtral.imatrix.gguf"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return routed(tmp_path_factory.mktemp("source") / "mixtral")


def alone(rows: Any, kind: str, weights: Any) -> bytes:
    """One matrix in a type, by the importance of its columns."""
    return codecs.encode(rows.astype(np.float32), ENCODINGS[kind], importance=weights).tobytes()


# Used


@pytest.mark.parametrize("options", [{}, {"jobs": 1, "max_memory": 1}], ids=["at once", "in small tiles"])
def test_each_expert_is_quantised_by_its_own_importance(options: dict[str, Any], experts: Path, tmp_path: Path) -> None:
    matrix = importance(experts)
    path = gguf(experts, tmp_path / "a.gguf", "Q4_0", pure=True, importance=matrix, **options)
    plain = gguf(experts, tmp_path / "f32.gguf", "f32")
    found = held(path)
    for name in ("blk.0.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight"):
        shape, kind, data = found[name]
        rows, weights = values(plain, name).reshape(shape), matrix.weights(name, shape)
        assert kind == "Q4_0" and shape[0] == EXPERTS and weights is not None and weights.shape == (EXPERTS, shape[-1])
        assert data == b"".join(alone(rows[expert], kind, weights[expert]) for expert in range(EXPERTS))
        assert data != b"".join(alone(rows[expert], kind, weights[0]) for expert in range(EXPERTS))


def test_what_the_matrix_does_not_know_is_quantised_without_and_said(model: Path, tmp_path: Path) -> None:
    matrix = importance(model, without="ffn_down")
    plan = Checkpoint.from_pretrained(model).plan(
        tmp_path / "a.gguf", format="gguf", type="Q4_0", quantization=Quantization(importance=matrix, pure=True)
    )
    assert plan.notes == (
        "quantised without importance, which the matrix has none of for blk.0.ffn_down.weight, blk.1.ffn_down.weight",
    )
    path, plain = (
        gguf(model, tmp_path / "a.gguf", "Q4_0", pure=True, importance=matrix),
        gguf(model, tmp_path / "b.gguf", "Q4_0", pure=True),
    )
    by, without = held(path), held(plain)
    unlike = {name for name in by if by[name] != without[name]}
    assert unlike == set(matrix.entries)


def test_a_type_that_has_no_use_for_importance_is_the_same_with_it(model: Path, tmp_path: Path) -> None:
    by = gguf(model, tmp_path / "a.gguf", "Q8_0", importance=importance(model))
    assert held(by) == held(gguf(model, tmp_path / "b.gguf", "Q8_0"))


def test_the_embedding_may_be_of_another_size(model: Path, tmp_path: Path) -> None:
    matrix = importance(model)
    odd = replace(matrix, entries={**matrix.entries, "token_embd.weight": Entry(np.ones((1, 99), np.float32), np.array([1]))})
    assert held(gguf(model, tmp_path / "a.gguf", "Q4_0", importance=odd)) == held(
        gguf(model, tmp_path / "b.gguf", "Q4_0", importance=matrix)
    )


# Recorded


def test_the_file_says_which_matrix_it_was(model: Path, tmp_path: Path) -> None:
    matrix = read_imatrix(stored_matrix(importance(model), tmp_path / "mine.gguf"))
    path = gguf(model, tmp_path / "a.gguf", "Q4_0", importance=matrix)
    recorded = {key: value for key, value in keys(path).items() if key.startswith("quantize.")}
    assert recorded == {
        "quantize.imatrix.file": "mine.gguf",
        "quantize.imatrix.dataset": "text.txt",
        "quantize.imatrix.entries_count": 14,
        "quantize.imatrix.chunks_count": 3,
    }
    assert {key: value for key, value in keys(gguf(path, tmp_path / "b.gguf", "auto")).items() if key in recorded} == recorded
    other = replace(importance(model, without="attn"), datasets=(), chunks=0)
    again = gguf(path, tmp_path / "c.gguf", "Q4_0", importance=other, requantize=True)
    assert {key: value for key, value in keys(again).items() if key.startswith("quantize.")} == {
        "quantize.imatrix.file": "computed",
        "quantize.imatrix.entries_count": 6,
    }


def test_other_importance_is_another_plan(model: Path, tmp_path: Path) -> None:
    def fingerprint(seed: int) -> str:
        wishes = Quantization(importance=importance(model, seed=seed))
        plan = Checkpoint.from_pretrained(model).plan(tmp_path / "a.gguf", format="gguf", type="Q4_0", quantization=wishes)
        return plan.fingerprint(plan.outputs[0])

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


def test_a_worker_elsewhere_is_sent_the_importance_of_its_tensor_alone(experts: Path, tmp_path: Path) -> None:
    computed = importance(experts)
    read = read_imatrix(stored_matrix(computed, tmp_path / "m.gguf"))
    for matrix in (computed, read):
        wishes = Quantization(importance=matrix)
        plan = Checkpoint.from_pretrained(experts).plan(tmp_path / "a.gguf", format="gguf", type="Q4_0", quantization=wishes)
        own = {step.name: step.importance for step in plan.outputs[0].steps if step.importance is not None}
        assert own.keys() == computed.entries.keys() - {"blk.0.ffn_gate_inp.weight", "blk.1.ffn_gate_inp.weight"}
        sent = pickle.dumps(own["blk.0.ffn_up_exps.weight"])
        assert b"attn_q" not in sent
        assert np.array_equal(pickle.loads(sent).read(), own["blk.0.ffn_up_exps.weight"].read())


@given(
    rows=st.sampled_from([1, 2, 3, 6, 12, 24]), stated=st.booleans(), form=st.sampled_from(["computed", "GGUF", "dat"]),
    first=st.integers(0, 6), last=st.integers(0, 6), seed=st.integers(0, 1 << 30),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_part_is_what_the_whole_has_there(
    tmp_path_factory: pytest.TempPathFactory, rows: int, stated: bool, form: str, first: int, last: int, seed: int
) -> None:
    """However many rows an entry has for the six matrices of four columns."""
    rng = np.random.default_rng(seed)
    entry = Entry(rng.random((rows, 24 // rows), np.float32), rng.integers(0, 5, rows))
    matrix = ImportanceMatrix({"a": entry, "b": entry}, ("text.txt",), 3, 64)
    folder = tmp_path_factory.mktemp("m")
    if form == "GGUF":
        matrix = read_imatrix(stored_matrix(matrix, folder / "m.gguf"))
    elif form == "dat":
        values = entry.values.reshape(-1) * 3
        name = b"\1\0\0\0" + b"\1\0\0\0a" + (3).to_bytes(4, "little") + (24).to_bytes(4, "little")
        (folder / "m.dat").write_bytes(name + values.astype("<f4").tobytes())
        matrix = read_imatrix(folder / "m.dat")
    shape = (6, 5, 4)
    whole = matrix.weights("a", shape)
    part = matrix.weights("a", shape, first, max(first, last) if stated else None)
    assert whole is not None and part is not None
    assert np.array_equal(part, whole[first : max(first, last)] if stated else whole[first:])
    alone = matrix.alone("a")
    assert alone.entries.keys() == {"a"} and np.array_equal(alone.entries["a"].values.reshape(whole.shape), whole)


def test_of_a_large_stack_only_the_matrices_at_hand_are_read(tmp_path: Path) -> None:
    shape = (512, 2, 4096)
    entry = Entry(np.ones(shape[::2], np.float32), np.arange(512))
    matrix = read_imatrix(stored_matrix(ImportanceMatrix({"a": entry}, ("text.txt",), 3, 64), tmp_path / "m.gguf"))
    own = Importance(matrix, "a", shape)
    tracemalloc.start()
    try:
        assert own.matrices == 512 and own.read(300, 302).tolist() == [[np.float32(1 / 300)] * 4096, [np.float32(1 / 301)] * 4096]
        assert tracemalloc.get_traced_memory()[1] < entry.sums.nbytes / 8
    finally:
        tracemalloc.stop()


# Refused


@pytest.mark.parametrize("form", ["GGUF", "dat"])
def test_the_matrix_of_another_model_is_refused(form: str, model: Path, tmp_path: Path, failing: Failing) -> None:
    path = THEIRS if form == "GGUF" else THEIRS.with_name("llama_h256.imatrix.dat")
    source = model if form == "GGUF" else routed(tmp_path / "source" / "mixtral")
    code, told = failing("convert", source, tmp_path / "out" / "a.gguf", "--to", "gguf", "--type", "Q4_0", "--imatrix", path)
    assert code == 4 and len(told.splitlines()) == 1 and f"{path}: is the importance matrix of another model: " in told
    assert not (tmp_path / "out").exists()


def test_an_entry_of_another_size_is_named(model: Path, tmp_path: Path) -> None:
    matrix = importance(model)
    odd = {**matrix.entries, "blk.1.attn_q.weight": Entry(np.ones((1, 128), np.float32), np.array([1]))}
    with pytest.raises(DamagedInput, match=r"of another model: its entry blk\.1\.attn_q\.weight has 128 numbers .* 256 columns"):
        gguf(model, tmp_path / "a.gguf", "Q4_0", importance=replace(matrix, entries=odd))


def test_what_is_no_matrix_is_refused(model: Path, tmp_path: Path, failing: Failing) -> None:
    (tmp_path / "no.dat").write_bytes(b"\xff" * 99)
    options = ("--to", "gguf", "--type", "Q4_0", "--imatrix")
    for name, code in (("no.dat", 4), ("none.gguf", 5)):
        found, told = failing("convert", model, tmp_path / "a.gguf", *options, tmp_path / name)
        assert found == code and len(told.splitlines()) == 1 and name in told
    assert [path.name for path in tmp_path.iterdir()] == ["no.dat"]


@pytest.mark.parametrize(
    ("kind", "pure", "without", "needles"),
    [
        ("IQ2_XXS", False, None, ("blk.0.", "--tensor-type")),
        ("IQ2_XXS", False, "blk.1.ffn_up", ("blk.1.ffn_up.weight: IQ2_XXS ", "--tensor-type")),
        ("IQ2_XS", True, "none", ("output.weight: IQ2_XS ", "--output-type")),
        ("IQ2_XXS", True, "none", ("output.weight: IQ2_XXS ", "--output-type")),
    ],
)  # fmt: skip
def test_a_type_that_needs_importance_is_refused_where_there_is_none(
    kind: str, pure: bool, without: str | None, needles: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    matrix = importance(model, without=without) if without else None
    with pytest.raises(UsageError, match="needs an importance matrix, and there is none for this tensor") as caught:
        gguf(model, tmp_path / "a.gguf", kind, pure=pure, importance=matrix)
    assert all(needle in str(caught.value) for needle in needles) and "hubclient imatrix" in str(caught.value.hint)


def test_a_pure_type_names_the_embeddings_option(model: Path, tmp_path: Path, failing: Failing) -> None:
    path = stored_matrix(importance(model), tmp_path / "m.gguf")
    options = ("--to", "gguf", "--pure", "--type", "IQ2_XXS", "--imatrix", path, "--output-type", "Q8_0")
    code, told = failing("convert", model, tmp_path / "out" / "a.gguf", *options)
    sentence, _ = told.splitlines()
    assert code == 2 and "token_embd.weight: IQ2_XXS needs an importance matrix" in sentence and "--embedding-type" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ('type = "Q4_K"\nrule = 3', "rule: 3 is no list"),
        ('type = "Q9_K"', "Q9_K"),
        ("type = ", "is not TOML"),
        ('base = "mine.toml"', "leads back"),
        ("rule = " + "[" * 5000, "is not TOML"),
        ('type = "Q4_K"\n[[rule]]\nname = "("\ntype = "Q8_0"', "name"),
        ('type = "Q4_K"\n[[rule]]\nname = "(a+)+$"\ntype = "Q8_0"\nrole = "x"', "role"),
    ],
)
def test_an_absurd_recipe_is_refused_in_one_sentence(
    text: str, needle: str, source: Path, tmp_path: Path, failing: Failing
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    code, told = failing("convert", source, tmp_path / "out" / "a.gguf", "--to", "gguf", "--recipe", tmp_path / "mine.toml")
    sentence, *hint = told.splitlines()
    assert code == 2 and "mine.toml" in sentence and needle in sentence and len(sentence) < 500 and len(hint) <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_the_command_takes_it_all_at_once(model: Path, tmp_path: Path) -> None:
    stored_matrix(importance(model), tmp_path / "m.gguf")
    (tmp_path / "mine.toml").write_text('base = "Q4_0"\n[[rule]]\nrole = "attn_v"\ntype = "Q8_0"\n')
    done = command(
        "convert", model, "{type}.gguf", "--to", "gguf", "--type", "q4_0", "--recipe", "mine.toml", "--imatrix", "m.gguf",
        "--output-type", "F16", "--tensor-type", "attn_q=Q8_0", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wishes: dict[str, Any] = {
        "importance": read_imatrix(tmp_path / "m.gguf"),
        "output_type": "F16",
        "tensor_types": ("attn_q=Q8_0",),
    }
    assert held(tmp_path / "Q4_0.gguf") == held(gguf(model, tmp_path / "a.gguf", "Q4_0", **wishes))
    found = held(tmp_path / "mine.gguf")
    assert found["blk.0.attn_v.weight"][1] == found["blk.0.attn_q.weight"][1] == "Q8_0" and found["output.weight"][1] == "F16"


def test_a_matrix_that_changes_before_it_is_used_is_noticed(model: Path, tmp_path: Path) -> None:
    path = stored_matrix(importance(model), tmp_path / "a.gguf")
    wishes = Quantization(importance=read_imatrix(path))
    plan = Checkpoint.from_pretrained(model).plan(tmp_path / "out.gguf", format="gguf", type="Q4_0", quantization=wishes)
    stored_matrix(importance(model, seed=1), path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChanged, match=r"a\.gguf"):
        run(plan)
    assert not (tmp_path / "out.gguf").exists()
