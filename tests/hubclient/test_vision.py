"""Models with vision: two files of GGUF from one command and back, parts alone, and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden import Golden, Workshop, copy, tensors, vision_goldens
from rawsafetensors import entry, put
from running import Failing, refused

from hubclient import Checkpoint, place, verify
from hubclient.errors import Lossy, UsageError
from hubclient.formats.gguf import FORMAT
from hubclient.inspection import inspect

ALL = vision_goldens()
EACH = pytest.mark.parametrize("golden", ALL, ids=lambda golden: golden.name)
GOLDEN = Golden("mistral3")  # the one that every machine has


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("vision"))


def bytes_of(path: Path) -> dict[str, bytes]:
    """Every tensor of a GGUF."""
    data = path.read_bytes()
    return {name: data[ref.offset : ref.offset + ref.nbytes] for name, ref in FORMAT.open(path).tensors.items()}


def changed(golden: Golden, folder: Path, *, names: Callable[[str], str | None] = str, **config: Any) -> Path:
    """The golden's folder with tensors renamed (None: left out) and keys of config.json set (None: taken out)."""
    copy(golden.checkpoint, folder)
    header, data = {}, b""
    for name, stored in tensors(golden.checkpoint).items():
        if (new := names(name)) is not None:
            header[new] = entry(stored.dtype, stored.shape, len(data), len(data) + len(stored.data))
            data += stored.data
    put(folder / "model.safetensors", {"__metadata__": {"format": "pt"}, **header}, data)
    content = {key: value for key, value in {**golden.config, **config}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


# Both parts


@EACH
def test_one_command_writes_both_files(golden: Golden, tmp_path: Path):
    written = Checkpoint.from_pretrained(golden.checkpoint).save_pretrained(tmp_path / "a.gguf", format="gguf", type="f16")
    assert written == (tmp_path / "a.gguf", tmp_path / "mmproj-a.gguf")
    assert {path.name for path in tmp_path.iterdir()} == {"a.gguf", "mmproj-a.gguf"}
    assert not set(FORMAT.open(written[0]).tensors) & set(FORMAT.open(written[1]).tensors)


def test_several_types_are_two_files_each(tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(GOLDEN.checkpoint)
    plan = checkpoint.plan(tmp_path / "{name}-{type}.gguf", format="gguf", type=["f16", "Q8_0"])
    names = [output.path.name for output in plan.outputs]
    assert names == ["mistral3-F16.gguf", "mmproj-mistral3-F16.gguf", "mistral3-Q8_0.gguf", "mmproj-mistral3-Q8_0.gguf"]


def test_recipes_are_of_the_text_part_and_the_projector_is_written_once(tmp_path: Path):
    """And found beside each of them again, though its name ends in another type."""
    source = Checkpoint.from_pretrained(GOLDEN.checkpoint)
    written = source.save_pretrained(tmp_path / "{name}-{type}.gguf", format="gguf", type=["Q4_0", "Q4_K_M"])
    assert [path.name for path in written] == ["mistral3-Q4_0.gguf", "mmproj-mistral3-BF16.gguf", "mistral3-Q4_K_M.gguf"]
    for text in ("Q4_0", "Q4_K_M"):
        companion = FORMAT.open(tmp_path / f"mistral3-{text}.gguf").companion
        assert companion is not None and companion.path == written[1]


def test_which_of_several_projectors_is_meant_has_to_be_said(tmp_path: Path):
    source = Checkpoint.from_pretrained(GOLDEN.checkpoint)
    source.save_pretrained(tmp_path / "{name}-{type}.gguf", format="gguf", type=["Q4_0", "F16", "Q8_0"])
    assert FORMAT.open(tmp_path / "mistral3-Q4_0.gguf").companion is None


@pytest.mark.parametrize(("part", "before"), [("text", ""), ("projector", "mmproj-")])
@EACH
def test_a_part_alone_is_the_same_file_under_the_name_that_is_asked_for(golden: Golden, part: str, before: str, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(golden.checkpoint)
    checkpoint.save_pretrained(tmp_path / "both.gguf", format="gguf")
    (alone,) = checkpoint.save_pretrained(tmp_path / "alone.gguf", format="gguf", only=part)
    assert alone == tmp_path / "alone.gguf"
    assert alone.read_bytes() == (tmp_path / f"{before}both.gguf").read_bytes()


def test_a_projector_alone_is_called_so_where_no_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (alone,) = Checkpoint.from_pretrained(GOLDEN.checkpoint).save_pretrained(format="gguf", only="projector", type="f16")
    assert alone.name == "mmproj-mistral3-F16.gguf"


@EACH
def test_both_files_to_gguf_again_are_both_files(golden: Golden, workshop: Workshop, tmp_path: Path):
    first = workshop.gguf(golden, "auto")
    text, projector = Checkpoint.from_pretrained(first).save_pretrained(tmp_path / first.name, format="gguf")
    for before, after in ((first, text), (workshop.projector(first), projector)):
        assert bytes_of(after) == bytes_of(before)
        one, two = (FORMAT.open(path).metadata for path in (before, after))
        differing = {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}
        assert {key for key in differing if not key.startswith("hubclient.")} <= {"general.name"}


def test_the_projector_may_lie_elsewhere(workshop: Workshop, tmp_path: Path):
    first = workshop.gguf(GOLDEN, "f32")
    (text := tmp_path / "text.gguf").write_bytes(first.read_bytes())
    (vision := tmp_path / "vision.gguf").write_bytes(workshop.projector(first).read_bytes())
    (back,) = Checkpoint.from_pretrained(text, projector=vision).save_pretrained(tmp_path / "back", strict=True)
    assert tensors(back) == tensors(GOLDEN.checkpoint)


def test_text_alone_goes_back_and_says_what_is_lacking(workshop: Workshop, tmp_path: Path):
    (text := tmp_path / "text.gguf").write_bytes(workshop.gguf(GOLDEN, "f32").read_bytes())
    checkpoint = Checkpoint.from_pretrained(text)
    plan = checkpoint.plan(tmp_path / "back")
    assert plan.losses == ("the vision part, which lies in a file of its own: name it with --projector",)
    with pytest.raises(Lossy):
        checkpoint.save_pretrained(tmp_path / "back", strict=True)
    (back,) = checkpoint.save_pretrained(tmp_path / "back")
    assert tensors(back).keys() == {name for name in tensors(GOLDEN.checkpoint) if name.startswith("language_model.")}


@EACH
def test_verify_judges_each_file(golden: Golden, workshop: Workshop, tmp_path: Path):
    projector = workshop.projector(workshop.gguf(golden, "q8_0"))
    report = verify(projector, golden.checkpoint)
    assert report.ok and len(report.tensors) == len(FORMAT.open(projector).tensors)
    data = bytearray(projector.read_bytes())
    ref = FORMAT.open(projector).tensors["v.blk.1.ln1.weight"]
    data[ref.offset + 3] ^= 0x40
    (broken := tmp_path / "broken.gguf").write_bytes(data)
    assert [item.name for item in verify(broken, golden.checkpoint).tensors if item.verdict != "exact"] == [ref.name]


@EACH
def test_verify_compares_the_projector_beside_the_text_part(golden: Golden, workshop: Workshop, tmp_path: Path):
    text = workshop.gguf(golden, "q8_0")
    projector = workshop.projector(text)
    report = verify(text, golden.checkpoint)
    assert report.ok and report.uncompared == ()
    assert {verdict.name for verdict in report.tensors} == FORMAT.open(text).tensors.keys() | FORMAT.open(
        projector
    ).tensors.keys()
    (tmp_path / text.name).write_bytes(text.read_bytes())
    alone = verify(tmp_path / text.name, golden.checkpoint)
    assert alone.ok and alone.uncompared == (
        f"{tmp_path / text.name}: the vision part is not compared, as no projector lies beside this file",
    )
    data = bytearray(projector.read_bytes())
    ref = FORMAT.open(projector).tensors["v.blk.1.ln1.weight"]
    data[ref.offset + 3] ^= 0x40
    (tmp_path / projector.name).write_bytes(data)
    broken = verify(tmp_path / text.name, golden.checkpoint)
    assert not broken.ok and [item.name for item in broken.tensors if item.verdict != "exact"] == [ref.name]


@EACH
def test_inspect_tells_of_both_files(golden: Golden, workshop: Workshop):
    text = workshop.gguf(golden, "f32")
    told = inspect(Checkpoint.from_pretrained(text))
    assert told["projector"] == str(workshop.projector(text))
    alone = inspect(Checkpoint.from_pretrained(workshop.projector(text)))
    assert alone["metadata"]["general.type"] == "mmproj" and alone["tensor_count"] > 0


@EACH
def test_every_byte_of_both_parts_is_placed(golden: Golden, workshop: Workshop):
    stored = sum(len(tensor.data) for tensor in tensors(golden.checkpoint).values())
    modules = place(golden.checkpoint, {"cpu": 1 << 40}).modules
    assert sum(module.weights for module in modules) == stored
    assert {"vision_tower", "visual"} & {module.name.split(".")[0] for module in modules[:2]}
    parts = [FORMAT.open(path) for path in (workshop.gguf(golden, "f32"), workshop.projector(workshop.gguf(golden, "f32")))]
    elements = sum(ref.nbytes for opened in parts for name, ref in opened.tensors.items() if "img_break" not in name)
    assert sum(module.weights for module in place(workshop.gguf(golden, "f32"), {"cpu": 1 << 40}).modules) == elements


@EACH
def test_mlx_has_no_place_for_vision_and_says_so(golden: Golden, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(golden.checkpoint)
    plan = checkpoint.plan(tmp_path / "mlx", format="mlx")
    vision = {name for name in checkpoint.model.tensors if "vis" in name or "multi_modal" in name}
    assert {loss for loss in plan.losses if loss.startswith("tensor ")} == {
        f"tensor {name} has no place in MLX" for name in vision
    }
    (folder,) = checkpoint.save_pretrained(tmp_path / "mlx", format="mlx")
    assert "vision_config" not in json.loads((folder / "config.json").read_text())
    assert Checkpoint.from_pretrained(folder).plan(tmp_path / "back").losses == ("the vision part, which mlx-lm leaves out",)


# Other spellings of names

OLDER_AND_NEWER = {
    "llava": (("vision_tower.", "vision_tower.vision_model."), ("vision_tower.", "model.vision_tower.vision_model.")),
    "gemma3_vision": (("vision_tower.vision_model.", "vision_tower."), ("vision_tower.", "model.vision_tower.")),
    "mistral3": (("vision_tower.", "model.vision_tower."),),
    "qwen2_vl": (("visual.", "model.visual."),),
}
LOST = {"llava": "post_layernorm", "gemma3_vision": ".head."}
TEXT = {"qwen2_vl": ("model.", "model.language_model.")}


@pytest.mark.parametrize(
    ("golden", "spelling"),
    [pytest.param(golden, pair, id=f"{golden.name}-{pair[1]}") for golden in ALL for pair in OLDER_AND_NEWER[golden.name]],
)
def test_other_spellings_give_the_same_files_and_come_back(golden: Golden, spelling: tuple[str, str], tmp_path: Path):
    """Transformers 4 and 5, and repositories, begin names in several ways."""

    def other(name: str) -> str:
        if not spelling[1].startswith("model."):
            return spelling[1] + name.removeprefix(spelling[0]) if name.startswith(spelling[0]) else name
        if name.startswith(spelling[0]):
            return spelling[1] + name.removeprefix(spelling[0])
        old, new = TEXT.get(golden.name, ("language_model.model.", "model.language_model."))
        if name.startswith(old):
            return new + name.removeprefix(old)
        return f"model.{name}" if name.startswith("multi_modal_projector.") else name.removeprefix("language_model.")

    source = changed(golden, tmp_path / golden.name, names=other)
    assert tensors(source).keys() != tensors(golden.checkpoint).keys()
    one, two = tmp_path / "one" / "a.gguf", tmp_path / "two" / "a.gguf"
    for folder, out in ((golden.checkpoint, one), (source, two)):
        out.parent.mkdir()
        Checkpoint.from_pretrained(folder).save_pretrained(out, format="gguf", type="f32")
    assert bytes_of(one) == bytes_of(two)
    assert Workshop.projector(one).read_bytes() == Workshop.projector(two).read_bytes()
    (back,) = Checkpoint.from_pretrained(two).save_pretrained(tmp_path / "back")
    found, before = tensors(back), tensors(source)
    assert before.keys() - found.keys() == {name for name in before if LOST.get(golden.name, "nothing") in name}
    assert all(found[name] == before[name] for name in found if "mm_input_projection" not in name)


# What is refused


def test_a_projector_is_no_model(workshop: Workshop, failing: Failing, tmp_path: Path):
    (alone := tmp_path / "alone.gguf").write_bytes(workshop.projector(workshop.gguf(GOLDEN, "f32")).read_bytes())
    refused(failing, alone, 2, "alone.gguf", "without its text part", to="safetensors")


def test_a_text_model_has_no_projector(source: Path, failing: Failing, tmp_path: Path):
    refused(failing, copy(source, tmp_path / "llama"), 3, "no tensor of a vision part", only="projector")


def test_a_folder_is_never_asked_for_a_part(failing: Failing, tmp_path: Path):
    folder = copy(GOLDEN.checkpoint, tmp_path / "mistral3")
    refused(failing, folder, 2, "a folder holds all parts", to="safetensors", only="projector")


def test_text_without_the_vision_that_config_json_tells_of(failing: Failing, tmp_path: Path):
    folder = changed(GOLDEN, tmp_path / "a", names=lambda name: name if name.startswith("language_model.") else None)
    refused(failing, folder, 3, "no tensor of the vision part", "vision_config")
    assert Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "text.gguf", format="gguf", only="text")


def test_vision_without_text(failing: Failing, tmp_path: Path):
    folder = changed(GOLDEN, tmp_path / "a", names=lambda name: None if name.startswith("language_model.") else name)
    refused(failing, folder, 3, "holds no tensors of a text part")


def test_vision_without_text_lacks_the_embedding_of_a_token(failing: Failing, tmp_path: Path):
    folder = changed(GOLDEN, tmp_path / "a", names=lambda name: None if name.startswith("language_model.") else name)
    refused(failing, folder, 3, "language_model.model.embed_tokens.weight", "[IMG_BREAK]", only="projector")


def test_a_missing_tensor_of_the_tower_is_named(failing: Failing, tmp_path: Path):
    gone = "vision_tower.transformer.layers.1.ffn_norm.weight"
    folder = changed(GOLDEN, tmp_path / "a", names=lambda name: None if name == gone else name)
    refused(failing, folder, 3, gone)


def test_vision_config_is_missing(failing: Failing, tmp_path: Path):
    refused(failing, changed(GOLDEN, tmp_path / "a", vision_config=None), 4, "config.json", "no vision_config")


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_size", 128), ("num_hidden_layers", 2), ("patch_size", 7), ("patch_size", "x")]
)
def test_vision_config_contradicts_the_tensors(key: str, value: Any, failing: Failing, tmp_path: Path):
    sizes = {**GOLDEN.config["vision_config"], key: value}
    refused(failing, changed(GOLDEN, tmp_path / "a", vision_config=sizes), 4, "vision_")


def test_how_images_are_prepared_is_not_said(failing: Failing, tmp_path: Path):
    folder = copy(GOLDEN.checkpoint, tmp_path / "a")
    (folder / "preprocessor_config.json").unlink()
    refused(failing, folder, 4, "preprocessor_config.json is missing", "image_mean")
    (written,) = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "text.gguf", format="gguf", only="text")
    assert written.exists()


@pytest.mark.parametrize(
    ("content", "needle"), [('{"image_std": [1, 1, 1]}', "image_mean"), ('{"image_mean": 1}', "image_"), ("[", "")]
)
def test_how_images_are_prepared_is_not_said_in_full(content: str, needle: str, failing: Failing, tmp_path: Path):
    folder = copy(GOLDEN.checkpoint, tmp_path / "a")
    (folder / "preprocessor_config.json").write_text(content)
    refused(failing, folder, 4, "preprocessor", needle)


def test_the_tokenizer_has_no_break_between_rows(failing: Failing, tmp_path: Path):
    folder = copy(GOLDEN.checkpoint, tmp_path / "a")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_text((folder / name).read_text().replace("[IMG_BREAK]", "[IMG_OTHER]"))
    refused(failing, folder, 4, "no token [IMG_BREAK]")


def pair(workshop: Workshop, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    """A GGUF whose projector beside it has been changed."""
    first = workshop.gguf(GOLDEN, "f32")
    (text := folder / "text.gguf").write_bytes(first.read_bytes())
    before = workshop.projector(first).read_bytes()
    after = change(before)
    assert after != before and len(after) == len(before)
    workshop.projector(text).write_bytes(after)
    return text


def numbered(key: str, old: int, new: int) -> Callable[[bytes], bytes]:
    """Another number under a key of type u32."""
    before, after = (key.encode() + struct.pack("<II", 4, value) for value in (old, new))
    return lambda data: data.replace(before, after)


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (lambda data: data.replace(b"pixtral", b"pixtrul"), "no vision part for the architecture mistral3"),
        (lambda data: data.replace(b"clip.projector_type", b"clip.projector_kind"), "no vision part for the architecture"),
        (numbered("clip.vision.projection_dim", 64, 128), "hidden_size 128, while this one has 64"),
        (numbered("clip.vision.embedding_length", 64, 128), "vision_config.hidden_size"),
        (numbered("clip.vision.feed_forward_length", 128, 64), "vision_config.intermediate_size"),
        (numbered("clip.vision.block_count", 3, 2), "block"),
        (numbered("clip.vision.patch_size", 14, 7), "vision_config.patch_size"),
    ],
)
def test_a_projector_of_another_model(
    change: Callable[[bytes], bytes], needle: str, workshop: Workshop, failing: Failing, tmp_path: Path
):
    refused(failing, pair(workshop, tmp_path, change), 4, "mmproj-text.gguf", needle, to="safetensors")


def test_a_projector_with_a_tensor_that_nobody_knows(workshop: Workshop, failing: Failing, tmp_path: Path):
    text = pair(workshop, tmp_path, lambda data: data.replace(b"v.pre_ln.weight", b"v.pre_xx.weight"))
    refused(failing, text, 3, "v.pre_xx.weight", to="safetensors")


def test_a_projector_with_a_tensor_too_few(workshop: Workshop, failing: Failing, tmp_path: Path):
    text = pair(workshop, tmp_path, lambda data: data.replace(b"v.blk.1.ln1.weight", b"v.blk.9.ln1.weight"))
    refused(failing, text, 3, "v.blk.1.ln1.weight", to="safetensors")


def test_what_is_no_projector_cannot_follow_the_option(workshop: Workshop, failing: Failing, tmp_path: Path):
    text = workshop.gguf(GOLDEN, "f32")
    code, told = failing("convert", text, tmp_path / "out", "--to", "safetensors", "--projector", text)
    assert code == 2 and "is no projector" in told
    code, told = failing("convert", GOLDEN.checkpoint, tmp_path / "out", "--to", "gguf", "--projector", workshop.projector(text))
    assert code == 2 and "--projector is for GGUF" in told
    projector = workshop.projector(text)
    code, told = failing("convert", projector, tmp_path / "out", "--to", "safetensors", "--projector", projector)
    assert code == 2 and "without its text part" in told
    assert list(tmp_path.iterdir()) == []


def test_a_text_model_takes_no_projector(source: Path, workshop: Workshop, failing: Failing, tmp_path: Path):
    Checkpoint.from_pretrained(source).save_pretrained(tmp_path / "llama.gguf", format="gguf")
    projector = workshop.projector(workshop.gguf(GOLDEN, "f32"))
    code, told = failing("convert", tmp_path / "llama.gguf", tmp_path / "out", "--to", "safetensors", "--projector", projector)
    assert code == 4 and "no vision part for the architecture llama" in told
    assert not (tmp_path / "out").exists()


def test_an_unknown_part(tmp_path: Path):
    with pytest.raises(UsageError, match="projector"):
        Checkpoint.from_pretrained(GOLDEN.checkpoint).plan(tmp_path / "a.gguf", format="gguf", only="tower")
