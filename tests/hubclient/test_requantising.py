"""From GGUF to GGUF: what is quantised moves as it is, a split stays one, and nothing is quantised twice unless that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import FOREIGN, Golden, foreign
from quantising import dense, gguf, held, importance, keys, types, values
from running import Failing

from hubclient import Checkpoint
from hubclient.checkpoint import run
from hubclient.errors import UsageError
from hubclient.formats.gguf import FORMAT
from hubclient.formats.model import OutputSpec, TensorSpec
from hubclient.model import Quantization

QUANTISED = sorted({path.name: path for folder in FOREIGN for path in folder.glob("llama_h256-*.gguf")}.values())
OWN = {"hubclient.checkpoint", "hubclient.tokenizer", "general.size_label"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense(tmp_path_factory.mktemp("source") / "llama")


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The model in a few types; whole, but for what is called a split."""
    folder = tmp_path_factory.mktemp("files")
    made = {kind: gguf(model, folder / f"{kind}.gguf", kind) for kind in ("bf16", "Q8_0", "Q4_K_M")}
    made["Q4_0"] = gguf(model, folder / "Q4_0.gguf", "Q4_0", pure=True)
    return made | {f"split {kind}": split(made[kind], folder / f"split-{kind}") for kind in ("bf16", "Q4_K_M")}


def split(path: Path, folder: Path) -> Path:
    """The same in three parts, which tensors went to in turn; the first part."""
    folder.mkdir()
    opened, data = FORMAT.open(path), path.read_bytes()
    refs = list(opened.tensors.values())
    specs = tuple(TensorSpec(ref.name, ref.shape, ref.encoding) for ref in refs)
    parts = tuple(number % 3 for number in range(len(refs)))
    layouts = FORMAT.layout(OutputSpec("model.gguf", specs, opened.metadata, {}, None, parts))
    for layout in layouts:
        content = bytearray(layout.head.ljust(layout.size, b"\0"))
        for place in layout.tensors:
            ref = refs[place.tensor]
            content[place.offset : place.offset + place.nbytes] = data[ref.offset : ref.offset + ref.nbytes]
        (folder / layout.name).write_bytes(content)
    return folder / layouts[0].name


def parts(path: Path) -> dict[str, list[str]]:
    """Which tensors are in which part of a split, by the end of its name."""
    found: dict[str, list[str]] = {}
    for name, ref in FORMAT.open(path).tensors.items():
        found.setdefault(ref.file.name.rpartition("model")[2], []).append(name)
    return found


# As it is


@pytest.mark.parametrize("source", QUANTISED, ids=lambda path: path.stem.removeprefix("llama_h256-"))
def test_without_a_type_every_tensor_moves_as_it_is(source: Path, tmp_path: Path) -> None:
    plan = Checkpoint.from_pretrained(source).plan(tmp_path / "a.gguf", format="gguf")
    outcome = run(plan)
    assert all(step.moves for step in plan.outputs[0].steps) and plan.losses == () == plan.notes
    assert outcome.counts(0) == {"exact": len(plan.outputs[0].steps)}
    (path,) = outcome.paths
    assert held(path) == held(source)
    assert {**keys(path), **dict.fromkeys(OWN)} == {**keys(source), **dict.fromkeys(OWN)}


def test_it_is_called_after_what_it_is(files: Mapping[str, Path], tmp_path: Path) -> None:
    (path,) = Checkpoint.from_pretrained(files["Q4_K_M"]).save_pretrained(tmp_path / "{type}.gguf", format="gguf")
    assert path.name == "Q4_K_M.gguf"


@pytest.mark.parametrize("kind", ["bf16", "Q4_K_M"])
def test_a_split_stays_a_split(kind: str, files: Mapping[str, Path], tmp_path: Path) -> None:
    source = files[f"split {kind}"]
    paths = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "model.gguf", format="gguf")
    assert [path.name for path in paths] == [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert held(paths[0]) == held(source) and parts(paths[0]) == parts(source)


def test_quantising_a_split_keeps_its_parts(files: Mapping[str, Path], tmp_path: Path) -> None:
    source = files["split bf16"]
    paths = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "model.gguf", format="gguf", type="Q4_K_M")
    assert parts(paths[0]) == parts(source) and held(paths[0]) == held(files["Q4_K_M"])


def test_a_size_of_parts_goes_before_those_of_the_source(files: Mapping[str, Path], tmp_path: Path) -> None:
    source = Checkpoint.from_pretrained(files["split Q4_K_M"])
    paths = source.save_pretrained(tmp_path / "model.gguf", format="gguf", max_shard_size=100_000)
    assert len(paths) > 3 and held(paths[0]) == held(files["Q4_K_M"])


@pytest.mark.parametrize(("kind", "options"), [("Q8_0", {}), ("Q4_K_M", {}), ("Q4_0", {"pure": True})])
def test_what_has_the_wanted_type_passes_through(
    kind: str, options: dict[str, Any], files: Mapping[str, Path], tmp_path: Path
) -> None:
    assert held(gguf(files[kind], tmp_path / "a.gguf", kind, **options)) == held(files[kind])


def test_only_what_changes_is_quantised(files: Mapping[str, Path], tmp_path: Path) -> None:
    before = held(files["Q4_K_M"])
    after = held(gguf(files["Q4_K_M"], tmp_path / "a.gguf", "Q4_K_M", tensor_types=("attn_k=F16",)))
    assert {name for name in before if before[name] != after[name]} == {"blk.0.attn_k.weight", "blk.1.attn_k.weight"}
    assert after["blk.0.attn_k.weight"][1] == "F16"


# Not twice


@pytest.mark.parametrize(
    ("was", "kind", "options"),
    [("Q4_0", "Q8_0", {}), ("Q8_0", "Q4_0", {}), ("Q4_K_M", "Q8_0", {}), ("Q8_0", "Q8_0", {"tensor_types": ("ffn_down=Q4_0",)})],
)
def test_quantising_again_is_refused_unless_it_is_allowed(
    was: str, kind: str, options: dict[str, Any], files: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"^[\w.]+\.weight: is quantised as Q\w+ already; quantising it again as Q\w+ "
    ) as caught:
        gguf(files[was], tmp_path / "a.gguf", kind, **options)
    assert "--allow-requantize" in str(caught.value.hint) and list(tmp_path.iterdir()) == []
    path = gguf(files[was], tmp_path / "a.gguf", kind, requantize=True, **options)
    unpacked = gguf(files[was], tmp_path / "f32.gguf", "f32")
    assert held(path) == held(gguf(unpacked, tmp_path / "b.gguf", kind, **options))


def test_the_command_refuses_it_in_one_sentence(files: Mapping[str, Path], tmp_path: Path, failing: Failing) -> None:
    code, told = failing("convert", files["Q8_0"], tmp_path / "a.gguf", "--to", "gguf", "--type", "Q4_0")
    sentence, hint = told.splitlines()
    assert code == 2 and ": is quantised as Q8_0 already; " in sentence and "--allow-requantize" in hint
    assert list(tmp_path.iterdir()) == []


def test_unpacking_needs_no_leave(files: Mapping[str, Path], tmp_path: Path) -> None:
    path = gguf(files["Q4_0"], tmp_path / "a.gguf", "f32")
    assert set(types(path).values()) == {"F32"}
    for name in ("blk.0.attn_q.weight", "output.weight"):
        assert np.array_equal(values(path, name), values(files["Q4_0"], name))


def test_mlx_weights_are_quantised_already(model: Path, tmp_path: Path) -> None:
    (packed,) = Checkpoint.from_pretrained(model).save_pretrained(tmp_path / "mlx", format="mlx", type="4bit")
    with pytest.raises(UsageError, match=r": is quantised as AFFINE\w+ already"):
        gguf(packed, tmp_path / "a.gguf", "Q4_0")
    assert "Q4_0" in types(gguf(packed, tmp_path / "a.gguf", "Q4_0", requantize=True)).values()


def test_without_a_type_there_is_nothing_to_choose(files: Mapping[str, Path], model: Path, tmp_path: Path) -> None:
    for wish in (Quantization(pure=True), Quantization(output_type="F16"), Quantization(importance=importance(model))):
        with pytest.raises(UsageError, match="name a --type"):
            Checkpoint.from_pretrained(files["Q4_0"]).plan(tmp_path / "a.gguf", format="gguf", quantization=wish)


# Published in blocks


@pytest.mark.parametrize("form", ["folder", "GGUF"])
@pytest.mark.parametrize("kind", ["auto", "Q8_0", "MXFP4_MOE"])
def test_experts_that_were_trained_in_blocks_are_kept(form: str, kind: str, tmp_path: Path) -> None:
    golden, theirs = Golden("gpt_oss_mxfp4"), foreign("gpt_oss_mxfp4")
    if not golden.exists or theirs is None:
        pytest.skip("this model is not at hand")
    path = gguf(golden.checkpoint if form == "folder" else theirs, tmp_path / "a.gguf", kind)
    found, expected = held(path), held(theirs)
    experts = [name for name in expected if name.endswith("_exps.weight")]
    assert experts and all(found[name] == expected[name] and found[name][1] == "MXFP4" for name in experts)


def test_a_file_that_does_not_say_its_type_is_called_after_most_of_its_bytes(files: Mapping[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "untold.gguf"
    source.write_bytes(files["Q4_K_M"].read_bytes().replace(b"general.file_type", b"general.file_typo"))
    (output,) = Checkpoint.from_pretrained(source).plan(tmp_path / "a.gguf", format="gguf").outputs
    assert output.type == "Q4_K" and all(step.moves for step in output.steps)
