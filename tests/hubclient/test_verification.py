"""verify: equal, equal within what an encoding may lose, or not; tensors, metadata, tokenizer, in any two formats."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from running import command

from hubclient import Checkpoint, verify
from hubclient.formats import gguf
from hubclient.formats.model import OutputSpec, TensorSpec, Value

MAKERS = {"llama": checkpoints.llama, "gpt2": checkpoints.gpt2, "bert": checkpoints.bert}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def outputs(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("outputs")
    made: dict[tuple[str, str], Path] = {}
    for name, source in sources.items():
        checkpoint = Checkpoint.from_pretrained(source)
        types = ("f32", "f16", "bf16", "q8_0")
        paths = checkpoint.save_pretrained(folder / (name + "-{type}.gguf"), format="gguf", type=types)
        made |= {(name, kind): path for kind, path in zip(types, paths, strict=True)}
        (made[name, "folder"],) = checkpoint.save_pretrained(folder / f"{name}-folder")
        (made[name, "f16 folder"],) = checkpoint.save_pretrained(folder / f"{name}-f16", type="f16")
    return made


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "folder"])
def test_what_we_wrote_is_the_same_model(
    name: str, kind: str, sources: dict[str, Path], outputs: dict[tuple[str, str], Path]
) -> None:
    report = verify(outputs[name, kind], sources[name])
    assert report.ok and set(report.counts()) == {"exact"} and report.differences == ()
    assert json.loads(json.dumps(report.as_json()))["ok"] is True


@pytest.mark.parametrize("name", MAKERS)
def test_a_gguf_is_verified_against_a_gguf_and_a_folder_against_a_gguf(name: str, outputs: dict[tuple[str, str], Path]) -> None:
    assert set(verify(outputs[name, "f32"], outputs[name, "f32"]).counts()) == {"exact"}
    assert set(verify(outputs[name, "q8_0"], outputs[name, "f32"]).counts()) == {"exact"}
    assert verify(outputs[name, "folder"], outputs[name, "f32"]).ok


def test_an_encoding_with_less_is_within_seen_from_the_other_side(outputs: dict[tuple[str, str], Path]) -> None:
    report = verify(outputs["bert", "f32"], outputs["bert", "f16"])
    assert not report.ok, "F32 that was F16 in between is not what F32 would be"


def test_a_folder_cast_to_another_dtype_is_judged_by_its_tensors(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path]
) -> None:
    report = verify(outputs["llama", "f16 folder"], sources["llama"])
    assert set(report.counts()) == {"exact"} and report.differences == ()


def changed(path: Path, folder: Path, tensor: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy in which a tensor's bytes are others."""
    ref = Checkpoint.from_pretrained(path).opened.tensors[tensor]
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(ref.offset)
        data = change(file.read(ref.nbytes))
        assert len(data) == ref.nbytes
        file.seek(ref.offset)
        file.write(data)
    return copy


def other_sign(data: bytes) -> bytes:
    """The last value with another sign, or the last quant far off."""
    return data[:-1] + bytes([data[-1] ^ 0x80])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_one_wrong_value_is_found_and_named(
    name: str, kind: str, sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    report = verify(changed(outputs[name, kind], tmp_path, "blk.1.attn_output.weight", other_sign), sources[name])
    (wrong,) = [tensor for tensor in report.tensors if tensor.verdict != "exact"]
    assert not report.ok and (wrong.name, wrong.verdict) == ("blk.1.attn_output.weight", "wrong") and wrong.largest > 0


def rounded_down(data: bytes) -> bytes:
    """Float16 values one step nearer to zero: what another rounding might give."""
    values = np.frombuffer(data, np.uint16)
    return (values - (values & 0x7FFF > 0x400)).astype(np.uint16).tobytes()


def test_a_rounding_to_the_other_side_is_not_what_the_encoding_may_lose(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    report = verify(changed(outputs["bert", "f16"], tmp_path, "blk.0.attn_q.weight", rounded_down), sources["bert"])
    (tensor,) = [tensor for tensor in report.tensors if tensor.verdict != "exact"]
    assert tensor.verdict == "wrong"


def quantised_by_the_stored_scale(data: bytes) -> bytes:
    """Blocks that another encoder might make of decoded ones: it divides by the scale after that was rounded to float16."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, 34).copy()
    values = blocks[:, 2:].view(np.int8) * blocks[:, :2].copy().view(np.float16).astype(np.float32)
    scales = (np.abs(values).max(axis=1, keepdims=True) / np.float32(126.5)).astype(np.float16)
    blocks[:, :2] = scales.view(np.uint8)
    blocks[:, 2:] = np.rint(values / scales.astype(np.float32)).clip(-127, 127).astype(np.int8).view(np.uint8)
    return blocks.tobytes()


def test_another_encoders_blocks_are_within_the_bound(outputs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    back = Checkpoint.from_pretrained(outputs["llama", "q8_0"]).save_pretrained(tmp_path / "back", type="f32")[0]
    (again,) = Checkpoint.from_pretrained(back).save_pretrained(tmp_path / "again.gguf", format="gguf", type="q8_0")
    report = verify(changed(again, tmp_path / "..", "blk.0.attn_q.weight", quantised_by_the_stored_scale), back)
    (tensor,) = [tensor for tensor in report.tensors if tensor.verdict != "exact"]
    assert report.ok and tensor.verdict == "within" and tensor.largest > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_wrong_where_a_number_belongs(
    value: float, sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    def change(data: bytes) -> bytes:
        return struct.pack("<f", value) + data[4:]

    copy = changed(outputs["bert", "f32"], tmp_path, "blk.0.attn_q.weight", change)
    (tensor,) = [tensor for tensor in verify(copy, sources["bert"]).tensors if tensor.verdict != "exact"]
    assert tensor.verdict == "wrong"
    done = command("verify", copy, "--against", sources["bert"], "--json", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_no_numbers_that_came_from_no_numbers_are_right(tmp_path: Path) -> None:
    odd = np.zeros((64, 64), np.float32)
    odd[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    source = checkpoints.bert(tmp_path / "bert", tensors={"encoder.layer.0.attention.self.query.weight": odd})
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out.gguf", format="gguf", type="f32")
    assert verify(path, source).ok


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Value], dict[str, TensorSpec]], None]) -> Path:
    """A GGUF with other keys or tensors, laid out by our own writer."""
    opened = gguf.FORMAT.open(path)
    metadata = dict(opened.metadata)
    specs = {name: TensorSpec(name, ref.shape, ref.encoding) for name, ref in opened.tensors.items()}
    change(metadata, specs)
    (layout,) = gguf.FORMAT.layout(OutputSpec(target.name, tuple(specs.values()), metadata))
    data = bytearray(layout.head.ljust(layout.size, b"\0"))
    for place in layout.tensors:
        name = list(specs)[place.tensor]
        if name in opened.tensors:
            ref = opened.tensors[name]
            data[place.offset : place.offset + place.nbytes] = path.read_bytes()[ref.offset : ref.offset + ref.nbytes][
                : place.nbytes
            ].ljust(place.nbytes, b"\0")
    target.write_bytes(data)
    return target


def test_missing_extra_and_misshapen_tensors_are_named(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    def change(metadata: dict[str, Value], specs: dict[str, TensorSpec]) -> None:
        from hubclient.formats.encodings import F32

        del specs["blk.0.attn_k.weight"]
        specs["strange.weight"] = TensorSpec("strange.weight", (4,), F32)
        specs["output_norm.weight"] = TensorSpec("output_norm.weight", (32,), F32)

    report = verify(rewritten(outputs["llama", "f16"], tmp_path / "x.gguf", change), sources["llama"])
    found = {tensor.name: tensor for tensor in report.tensors if tensor.verdict != "exact"}
    assert {name: tensor.verdict for name, tensor in found.items()} == {
        "blk.0.attn_k.weight": "missing", "strange.weight": "extra", "output_norm.weight": "wrong",
    }  # fmt: skip
    assert found["output_norm.weight"].why == "shape [32], expected [64]" and not report.ok


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", Value("u32", 3)),
        ("llama.block_count", Value("[u32]", [2])),
        ("llama.rope.freq_base", Value("f32", 500000.0)),
        ("llama.rope.freq_base", Value("str", "10000")),
        ("tokenizer.ggml.model", Value("[str]", ["gpt2"])),
        ("tokenizer.ggml.tokens", Value("[str]", ["a"])),
        ("tokenizer.ggml.tokens", Value("u32", 1)),
        ("tokenizer.ggml.bos_token_id", Value("u32", 0)),
        ("tokenizer.ggml.merges", None),
        ("llama.something_new", Value("u32", 1)),
    ],
)
def test_differing_metadata_is_named(
    key: str, value: Value | None, sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    def change(metadata: dict[str, Value], specs: dict[str, TensorSpec]) -> None:
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value

    report = verify(rewritten(outputs["llama", "f16"], tmp_path / "x.gguf", change), sources["llama"])
    assert not report.ok and len(report.differences) == 1 and report.differences[0].startswith(f"{key} ")


@pytest.mark.parametrize("key", ["general.name", "general.file_type", "hubclient.checkpoint"])
def test_what_names_a_file_is_not_compared(
    key: str, sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    def change(metadata: dict[str, Value], specs: dict[str, TensorSpec]) -> None:
        if key in ("general.name",):
            metadata[key] = Value("str", "something else")
        else:
            metadata.pop(key, None)

    assert verify(rewritten(outputs["llama", "f16"], tmp_path / "x.gguf", change), sources["llama"]).ok


def test_differences_come_in_the_same_order_every_time(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    other = checkpoints.llama(
        tmp_path / "other", config={"rope_theta": 1.0, "rms_norm_eps": 0.5, "max_position_embeddings": 7, "bos_token_id": 3}
    )
    runs = [command("verify", outputs["llama", "f16"], "--against", other, "--json", cwd=tmp_path) for _ in range(2)]
    assert runs[0].returncode == 1 and runs[0].stdout == runs[1].stdout
    assert len(json.loads(runs[0].stdout)["differences"]) >= 3


def test_short_values_that_differ_are_told(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    def change(metadata: dict[str, Value], specs: dict[str, TensorSpec]) -> None:
        metadata["tokenizer.ggml.pre"] = Value("str", "other")

    told = verify(rewritten(outputs["llama", "f16"], tmp_path / "x.gguf", change), sources["llama"]).differences
    (line,) = (line for line in told if line.startswith("tokenizer.ggml.pre"))
    assert line.startswith("tokenizer.ggml.pre differs: 'other' instead of '")


def test_a_missing_or_changed_file_of_a_folder_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sources["llama"], copy)
    (copy / "tokenizer_config.json").unlink()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert verify(copy, sources["llama"]).differences == ("tokenizer_config.json is missing",)
    (copy / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert "config.json differs" in verify(copy, sources["llama"]).differences


def test_the_command_says_what_is_wrong_and_ends_with_one(
    sources: dict[str, Path], outputs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    good = command("verify", outputs["llama", "f16"], "--against", sources["llama"], cwd=tmp_path)
    assert good.returncode == 0 and "the same model" in good.stdout and "21 exact" in good.stdout
    bad = changed(outputs["llama", "f16"], tmp_path, "blk.1.attn_output.weight", other_sign)
    done = command("verify", bad, "--against", sources["llama"], cwd=tmp_path)
    assert done.returncode == 1 and "NOT the same model" in done.stdout
    assert re.search(r"blk\.1\.attn_output\.weight: wrong \(off by [\d.e+-]+\)", done.stdout)


@pytest.mark.parametrize("jobs", [1, 4])
def test_verdicts_do_not_depend_on_jobs(jobs: int, sources: dict[str, Path], outputs: dict[tuple[str, str], Path]) -> None:
    assert verify(outputs["gpt2", "q8_0"], sources["gpt2"], jobs=jobs).ok


def test_large_tensors_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubclient import verification

    sizes: dict[str, Any] = {"vocab_size": 300, "n_embd": 128}
    source = checkpoints.gpt2(tmp_path / "gpt2", sizes=sizes)
    (path,) = Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "out.gguf", format="gguf", type="f16")
    monkeypatch.setattr(verification, "_TILE", 1000)
    monkeypatch.setattr(verification, "_TILE_ACROSS", 3000)
    assert verify(path, source).ok
