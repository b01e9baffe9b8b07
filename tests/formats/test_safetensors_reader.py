"""Which files make a checkpoint: single files, indexes, folders; and the small files beside them."""

from __future__ import annotations

import json
import os

import pytest
from rawsafetensors import blob, put_bytes_tensors, put_index
from reference import REFERENCE
from safetensors import safe_open

from hubclient.errors import DamagedInput, EnvironmentFault, SourceMissing, UnsupportedFormat, UsageError
from hubclient.formats.model import TensorSpec, Value
from hubclient.formats.safetensors import FORMAT, belongs_to_checkpoint, open_folder_without_weights
from hubclient.formats.safetensors.planes import Stored, split

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path):
    put_bytes_tensors(tmp_path / A, "x", "y", metadata={"format": "pt"})
    put_bytes_tensors(tmp_path / B, "z", metadata={"format": "pt"})
    put_index(tmp_path / "model.safetensors.index.json", {"z": B, "y": A, "x": A})
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_single_file_is_a_checkpoint_with_the_small_files_beside_it(tmp_path):
    path = put_bytes_tensors(tmp_path / "x.safetensors", "a", "b", metadata={"format": "pt", "note": "é"})
    (tmp_path / "config.json").write_text("{}")
    opened = FORMAT.open(path)
    assert (opened.format, opened.path, list(opened.tensors)) == ("safetensors", path, ["a", "b"])
    assert opened.metadata == {"format": Value("str", "pt"), "note": Value("str", "é")}
    assert opened.sidecars == {"config.json": tmp_path / "config.json"}
    assert [(file.path, file.size, file.mtime_ns) for file in opened.files] == [
        (path, path.stat().st_size, path.stat().st_mtime_ns)
    ]


@pytest.mark.parametrize("by_index_file", [False, True])
def test_shards_come_in_name_order_with_the_index_among_the_files(sharded, by_index_file):
    index = sharded / "model.safetensors.index.json"
    opened = FORMAT.open(index if by_index_file else sharded)
    assert list(opened.tensors) == ["x", "y", "z"]
    assert opened.tensors["z"].file == sharded / B
    assert [file.path.name for file in opened.files] == [A, B, index.name]
    assert opened.metadata == {"format": Value("str", "pt")}
    assert list(opened.sidecars) == ["config.json"]


def test_shards_without_an_index_are_joined_if_complete(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    assert list(FORMAT.open(sharded).tensors) == ["x", "y", "z"]
    (sharded / A).unlink()
    with pytest.raises(DamagedInput, match="has 1 of the 2 shards of 'model'; 1 is missing"):
        FORMAT.open(sharded)


def test_metadata_that_shards_disagree_on_keeps_the_file_it_came_from(sharded):
    put_bytes_tensors(sharded / B, "z", metadata={"format": "pt", "part": "2"})
    put_bytes_tensors(sharded / A, "x", "y", metadata={"format": "pt", "part": "1"})
    assert {key: value.value for key, value in FORMAT.open(sharded).metadata.items()} == {
        "format": "pt",
        f"{A}:part": "1",
        f"{B}:part": "2",
    }


def test_the_single_file_wins_over_an_index_as_in_transformers(sharded):
    put_bytes_tensors(sharded / "model.safetensors", "w")
    assert list(FORMAT.open(sharded).tensors) == ["w"]


def test_the_only_file_of_another_name_is_taken_and_hidden_leftovers_are_not(tmp_path):
    put_bytes_tensors(tmp_path / "adapter_model.safetensors", "a")
    (tmp_path / "._adapter_model.safetensors").write_bytes(b"\0\5\x16\7")
    assert list(FORMAT.open(tmp_path).tensors) == ["a"]


def test_the_only_index_of_another_name_is_taken(sharded):
    (sharded / "model.safetensors.index.json").rename(sharded / "model.fp16.safetensors.index.json")
    assert [file.path.name for file in FORMAT.open(sharded).files][-1] == "model.fp16.safetensors.index.json"


def test_several_checkpoints_in_a_folder_need_a_choice(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        put_bytes_tensors(tmp_path / name, "t")
    with pytest.raises(UsageError, match=r"holds several checkpoints \('a.safetensors', 'b.safetensors'\); name the file"):
        FORMAT.open(tmp_path)


def test_a_folder_in_the_cache_is_read_through_its_links(sharded, tmp_path):
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for place, name in enumerate((A, B, "model.safetensors.index.json", "config.json")):
        (tmp_path / "blobs").mkdir(exist_ok=True)
        (sharded / name).rename(tmp_path / "blobs" / str(place))
        (snapshot / name).symlink_to(f"../../blobs/{place}")
    opened = FORMAT.open(snapshot)
    assert opened.tensors["x"].file == snapshot / A
    assert list(opened.sidecars) == ["config.json"]
    (tmp_path / "blobs" / "1").unlink()
    with pytest.raises(DamagedInput, match=f"index.json: names the shard '{B}', which is not there"):
        FORMAT.open(snapshot)


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"x": A, "y": A, "w": A, "z": B}, rf"tensor 'w' is in {A}, which does not hold it"),
        ({"x": A, "z": B}, rf"does not say that tensor 'y' is in {A}"),
        ({"x": A, "y": B, "z": B}, rf"does not say that tensor 'y' is in {A}, which holds it"),
        ({"x": A, "y": A, "z": B, "w": B, "v": B}, rf"tensor 'v' \(and 1 more\) is in {B}, which does not hold it"),
        ({"x": A, "y": A, "z": "model-00003-of-00002.safetensors"}, "has shard 3 of 'model', a set of 2"),
        ({"x": A, "y": A}, "has 1 of the 2 shards of 'model'; 2 is missing"),
        ({"x": A, "y": A, "z": "model-00002-of-00003.safetensors"}, "mixes shards of 'model' from sets of 2 and of 3"),
        ({"x": A, "y": A, "z": "absent.safetensors"}, "has 1 of the 2"),
        ({"x": "a.safetensors"}, "names the shard 'a.safetensors', which is not there"),
        ({"x": "../" + A}, "the file name '../model"),
        ({"x": "/etc/passwd"}, "is absolute"),
        ({"x": "C:\\x"}, "the file name"),
        ({"x": "\\\\host\\share\\x"}, "the file name"),
        ({"x": ""}, "is empty"),
        ({"x": "a\0b"}, "control character"),
        ({"x": A, "y": A.upper()}, "only in case"),
        ({"x": 1}, "maps tensor 'x' to 1, not to a file name"),
        ({"x": None}, "not to a file name"),
        ({"x": [A]}, "not to a file name"),
        ({}, "has no weight_map"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, weight_map, words):
    put_index(sharded / "model.safetensors.index.json", weight_map)
    with pytest.raises(DamagedInput, match=words) as caught:
        FORMAT.open(sharded)
    assert str(caught.value).startswith(f"{sharded / 'model.safetensors.index.json'}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"), (b"[]", "holds a list where"),
        (b'{"weight_map": []}', "has no weight_map"), (b'{"metadata": {}}', "has no weight_map"),
        (b'{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}', "'x' twice"), (b"\xff", "not UTF-8"),
        (b'{"weight_map": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested"),
    ],
)  # fmt: skip
def test_an_index_that_is_no_index_is_refused(sharded, text, words):
    (sharded / "model.safetensors.index.json").write_bytes(text)
    with pytest.raises(DamagedInput, match=words):
        FORMAT.open(sharded)


def test_an_index_of_a_gigabyte_is_refused_unread(sharded):
    os.truncate(sharded / "model.safetensors.index.json", 1 << 30)
    with pytest.raises(DamagedInput, match="more than the 100,000,000"):
        FORMAT.open(sharded)


def test_an_index_cut_off_at_any_byte_is_refused(sharded):
    index = sharded / "model.safetensors.index.json"
    whole = index.read_bytes()
    for size in range(len(whole)):
        index.write_bytes(whole[:size])
        with pytest.raises(DamagedInput, match=r"index\.json: "):
            FORMAT.open(sharded)


def test_a_false_total_size_is_no_fault(sharded):
    put_index(sharded / "model.safetensors.index.json", {"x": A, "y": A, "z": B}, metadata={"total_size": 1.5e10})
    assert len(FORMAT.open(sharded).tensors) == 3


def test_a_tensor_in_two_shards_is_refused(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    put_bytes_tensors(sharded / B, "y", "z")
    with pytest.raises(DamagedInput, match=f"tensor 'y' is in {A} and in {B}"):
        FORMAT.open(sharded)


def test_a_damaged_shard_is_named(sharded):
    (sharded / B).write_bytes(b"\1")
    with pytest.raises(DamagedInput, match=f"{B}: is 1 bytes, too short"):
        FORMAT.open(sharded)


def test_shards_may_count_from_zero_and_lie_in_a_subfolder(tmp_path):
    names = [f"part/w-{number}-of-2.safetensors" for number in range(3)]
    for name in names:
        put_bytes_tensors(tmp_path / name, name)
    put_index(tmp_path / "model.safetensors.index.json", {name: name for name in names})
    assert list(FORMAT.open(tmp_path).tensors) == names


def test_no_weights_is_said_with_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        UnsupportedFormat, match=r"neither model.safetensors, model.safetensors.index.json nor another \*.safetensors"
    ):
        FORMAT.open(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"PK")
    with pytest.raises(
        UnsupportedFormat, match=r"holds 'pytorch_model-00001-of-00002.bin' but no safetensors .* \.bin files are not read"
    ):
        FORMAT.open(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.safetensors", "absent.safetensors.index.json"])
def test_a_path_that_is_not_there_is_missing(tmp_path, name):
    with pytest.raises(SourceMissing, match=f"{name}: does not exist"):
        FORMAT.open(tmp_path / name)


SIDECARS = [
    "LICENSE", "LICENSE.txt", "README.md", "added_tokens.json", "additional_chat_templates/rag.jinja",
    "additional_chat_templates/tool use.jinja", "chat_template.jinja", "config.json", "generation_config.json", "merges.txt",
    "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json", "special_tokens_map.json",
    "spiece.model", "tekken.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
]  # fmt: skip
OTHERS = [
    "notes.txt",
    "training_args.bin",
    "onnx/config.json",
    "1_Pooling/x.json",
    "additional_chat_templates/x.txt",
    "LICENSES/MIT",
    ".config.json",
]


def test_the_known_small_files_are_the_sidecars_and_nothing_else(tmp_path):
    for name in SIDECARS + OTHERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    put_bytes_tensors(tmp_path / "model.safetensors", "a")
    assert FORMAT.open(tmp_path).sidecars == {name: tmp_path / name for name in SIDECARS}


def test_what_a_folder_consists_of_is_known_by_name():
    weights = ["model.safetensors", A, "model-1-of-62.safetensors", "model.safetensors.index.json"]
    assert all(map(belongs_to_checkpoint, SIDECARS + weights))
    others = ["my.safetensors", "sub/model.safetensors", "../config.json", "config.json/x", "model.safetensors.bak", ""]
    assert not any(map(belongs_to_checkpoint, OTHERS + others))


def test_a_sidecar_that_is_no_file_is_refused(tmp_path):
    put_bytes_tensors(tmp_path / "model.safetensors", "a")
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(DamagedInput, match=r"config\.json: is a device, pipe or socket"):
        FORMAT.open(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("gone")
    with pytest.raises(SourceMissing, match=r"config\.json: is a link to gone"):
        FORMAT.open(tmp_path)


def test_a_folder_opens_without_its_weights(tmp_path):
    (tmp_path / "README.md").write_text("#")
    with pytest.raises(UnsupportedFormat, match=r"holds neither config\.json nor a tokenizer file"):
        open_folder_without_weights(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        opened = open_folder_without_weights(path)
        assert (dict(opened.tensors), opened.files, list(opened.sidecars)) == ({}, (), ["README.md", "tokenizer.json"])
    with pytest.raises(SourceMissing):
        open_folder_without_weights(tmp_path / "absent")


def test_detection_goes_by_name_or_first_bytes_and_never_raises_on_odd_content(tmp_path):
    put_bytes_tensors(tmp_path / "model" / "model.safetensors", "a")
    (tmp_path / "blob").write_bytes(blob({}))
    (tmp_path / "garbage.safetensors").write_bytes(b"x")
    (tmp_path / "config" / "sub").mkdir(parents=True)
    (tmp_path / "config" / "config.json").write_text("{}")
    for name in ("model", "model/model.safetensors", "blob", "garbage.safetensors", "config", "x.safetensors.index.json"):
        assert FORMAT.detect(tmp_path / name), name
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "short").write_bytes(b"{}")
    (tmp_path / "config" / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("x.gguf", "short", "config", "config/sub", "absent", "loop", "pipe"):
        assert not FORMAT.detect(tmp_path / name), name
    with pytest.raises(EnvironmentFault, match="too long"):
        FORMAT.detect(tmp_path / ("x" * 300))


def stored_as(spec: TensorSpec) -> Stored:
    return Stored(spec.name, spec.encoding.name, spec.shape)


@pytest.mark.skipif(REFERENCE is None, reason="no reference data here")
def test_every_reference_checkpoint_opens_as_the_library_opens_it():
    assert REFERENCE is not None
    folders = [path.parent for path in sorted((REFERENCE / "golden" / "checkpoints").glob("*/config.json"))]
    opened = {folder.name: FORMAT.open(folder) for folder in folders if list(folder.glob("*.safetensors"))}
    assert len(opened) > 100
    for checkpoint in opened.values():
        theirs: dict[str, tuple[tuple[int, ...], str]] = {}
        for file in checkpoint.files:
            if file.path.suffix == ".safetensors":
                with safe_open(file.path, framework="np") as tensors:
                    slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                theirs |= {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        specs = [TensorSpec(ref.name, ref.shape, ref.encoding) for ref in checkpoint.tensors.values()]
        stored = [part for spec in specs for part in (split(spec) if spec.encoding.planes else [stored_as(spec)])]
        assert {part.name: (part.shape, part.dtype) for part in stored} == theirs
        assert "config.json" in checkpoint.sidecars


def test_an_index_written_by_transformers_reads_back(tmp_path):
    put_bytes_tensors(tmp_path / A, "x")
    put_bytes_tensors(tmp_path / B, "y")
    index = {"metadata": {"total_parameters": 2, "total_size": 2}, "weight_map": {"x": A, "y": B}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    assert list(FORMAT.open(tmp_path).tensors) == ["x", "y"]
