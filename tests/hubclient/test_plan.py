"""Plans: complete, consistent, told as JSON, the same every time, and named after what decides the bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from running import contents, counting_reads

from hubclient import Checkpoint
from hubclient.errors import UnsupportedEncoding, UnsupportedFormat, UsageError
from hubclient.plan import Plan, fidelities


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "tiny-llama")


def plan_of(source: Path, out: Path | str | None = "out/{type}.gguf", **options: Any) -> Plan:
    return Checkpoint.from_pretrained(source).plan(out, **{"format": "gguf", "type": ["f16", "q8_0"], **options})


def test_planning_reads_no_weights_and_writes_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(source)
    with counting_reads() as sizes:
        plan_of(source).as_json()
    assert sizes == [] and list(tmp_path.iterdir()) == [] and contents(source) == before


def test_tensors_lie_in_their_files_without_overlap(source: Path) -> None:
    for plan in (
        plan_of(source),
        plan_of(source, max_shard_size=50_000),
        plan_of(source, "out-{type}", format="safetensors", type=["f16", "f32"]),
    ):
        for output in plan.outputs:
            for number, file in enumerate(output.files):
                end = len(file.head)
                for place in sorted(place for step in output.steps for place in step.places if place.file == number):
                    assert end <= place.offset
                    end = place.offset + place.nbytes
                assert end <= file.size
            assert all(step.nbytes == step.encoding.nbytes(step.array.shape) for step in output.steps)
            assert [step.index for step in output.steps] == list(range(len(output.steps)))


def test_a_plan_as_json_is_plain_and_says_what_will_happen(source: Path) -> None:
    told = json.loads(json.dumps(plan_of(source).as_json(), allow_nan=False))
    assert told["source"] == str(source) and told["architecture"] == "llama" and told["source_format"] == "safetensors"
    first, second = told["outputs"]
    assert (first["type"], second["type"]) == ("F16", "Q8_0")
    assert first["fingerprint"] != second["fingerprint"]
    assert first["bytes"] == sum(file["bytes"] for file in first["files"])
    query = next(tensor for tensor in second["tensors"] if tensor["name"] == "blk.0.attn_q.weight")
    assert query == {
        "name": "blk.0.attn_q.weight", "shape": [64, 64], "encoding": "Q8_0", "from": "model.layers.0.self_attn.q_proj.weight",
        "source_encoding": "BF16", "transform": "rope", "fidelity": "quantised", "file": 0, "offset": query["offset"], "bytes": 4352,
    }  # fmt: skip


def test_planning_twice_gives_the_same(source: Path) -> None:
    assert plan_of(source) == plan_of(source)
    assert plan_of(source).as_json() == plan_of(source).as_json()


def test_how_values_fare_is_counted(source: Path) -> None:
    to_f32, to_f16, to_q8 = plan_of(source, type=["f32", "f16", "q8_0"]).outputs
    assert fidelities(to_f32) == {"exact": 21}
    assert fidelities(to_f16) == {"exact": 5, "rounded": 16}
    assert fidelities(to_q8) == {"exact": 5, "quantised": 16}


# The fingerprint


def test_the_fingerprint_follows_everything_that_decides_the_bytes(tmp_path: Path) -> None:
    def fingerprints(**options: Any) -> list[str]:
        plan = Checkpoint.from_pretrained(tmp_path / "a").plan("out.gguf", **{"format": "gguf", "type": "f16", **options})
        return [plan.fingerprint(output) for output in plan.outputs]

    checkpoints.llama(tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    stat = weights.stat()
    seen = [fingerprints()]
    assert fingerprints() == seen[0]
    seen += [fingerprints(**options) for options in ({"type": "q8_0"}, {"pre": "llama-bpe"}, {"max_shard_size": 60_000})]
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    seen.append(fingerprints())
    weights.write_bytes(weights.read_bytes().replace(b'"format": "pt"', b'"format": "np"'))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    seen.append(fingerprints())
    checkpoints.write_json(tmp_path / "a" / "config.json", {**checkpoints.LLAMA, "rope_theta": 20000.0})
    seen.append(fingerprints())
    assert len({str(one) for one in seen}) == len(seen)


def test_the_fingerprint_does_not_depend_on_how_the_source_is_called(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    one, other = plan_of(Path(source.name)), plan_of(source)
    assert [one.fingerprint(output) for output in one.outputs] == [other.fingerprint(output) for output in other.outputs]


# Names of outputs


def test_names_are_filled_in(source: Path, tmp_path: Path) -> None:
    assert [output.path for output in plan_of(source, tmp_path / "{type}" / "{name}.gguf").outputs] == [
        tmp_path / "F16" / "tiny-llama.gguf",
        tmp_path / "Q8_0" / "tiny-llama.gguf",
    ]


@pytest.mark.parametrize(
    ("format_name", "type_", "name"),
    [("gguf", "auto", "tiny-llama-BF16.gguf"), ("safetensors", "f16", "tiny-llama-F16-safetensors")],
)
def test_without_a_name_outputs_are_called_after_the_source(
    format_name: str, type_: str, name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (output,) = plan_of(source, None, format=format_name, type=type_).outputs
    assert output.path == tmp_path / name


def test_a_cache_snapshot_is_called_after_its_repository(tmp_path: Path) -> None:
    folder = tmp_path / "models--some--Model-7B" / "snapshots" / "0123456789abcdef"
    checkpoints.llama(folder)
    assert Checkpoint.from_pretrained(folder).name == "Model-7B"


def test_several_types_need_names_of_their_own(source: Path) -> None:
    with pytest.raises(UsageError, match=r"several types need \{type\}"):
        plan_of(source, "out.gguf")


def test_a_type_given_twice_is_one_output(source: Path) -> None:
    assert len(plan_of(source, "out.gguf", type=["f16", "f16"]).outputs) == 1
    assert len(plan_of(source, "out.gguf", type=["f16", "F16"]).outputs) == 1


def test_types_that_mean_the_same_are_one_output(source: Path) -> None:
    assert len(plan_of(source, "{type}.gguf", type=["auto", "bf16"]).outputs) == 1


def test_links_to_one_place_are_one_name(source: Path, tmp_path: Path) -> None:
    (tmp_path / "F16.gguf").symlink_to("same")
    (tmp_path / "Q8_0.gguf").symlink_to("same")
    with pytest.raises(UsageError):
        plan_of(source, tmp_path / "{type}.gguf")


# What is refused


@pytest.mark.parametrize("format_name", ["gguf", "safetensors"])
def test_an_unknown_type_is_refused_by_name(format_name: str, source: Path) -> None:
    with pytest.raises((UnsupportedEncoding, UsageError), match="q9"):
        plan_of(source, format=format_name, type="q9")


def test_a_type_that_cannot_be_encoded_is_refused_before_anything_is_read(source: Path) -> None:
    with pytest.raises(UnsupportedEncoding, match="'q8_1'"):
        plan_of(source, type="q8_1")


def test_an_unknown_format_is_refused_by_name(source: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="onnx"):
        plan_of(source, format="onnx")


def test_an_unknown_part_is_refused_by_name(source: Path) -> None:
    with pytest.raises(UsageError, match="weights"):
        plan_of(source, only="weights")


@pytest.mark.parametrize("types", [[], ()])
def test_no_type_is_no_plan(types: Any, source: Path) -> None:
    with pytest.raises(UsageError):
        plan_of(source, type=types)
