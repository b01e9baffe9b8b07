"""safetensors -> GGUF -> safetensors: what the GGUF holds comes back bit for bit, with the help of our own keys or without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import TEXTS, TYPES, Golden, Stored, Workshop, copy, differences, goldens, tensors, transformers_result

from hubclient import Checkpoint, verify
from hubclient.errors import Lossy
from hubclient.formats.gguf import FORMAT

ALL = [golden for golden in goldens() if not golden.unpacked]
EACH = pytest.mark.parametrize("golden", ALL, ids=lambda golden: golden.name)

# What has no place in GGUF, by golden: tensors under their stored names.
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
SIGLIP_HEAD = (
    "attention.in_proj_bias", "attention.in_proj_weight", "attention.out_proj.bias", "attention.out_proj.weight",
    "layernorm.bias", "layernorm.weight", "mlp.fc1.bias", "mlp.fc1.weight", "mlp.fc2.bias", "mlp.fc2.weight", "probe",
)  # fmt: skip
LOST = {
    "bert": POOLER,
    "xlm_roberta": POOLER,
    "camembert": POOLER,
    "llava": ("vision_tower.post_layernorm.weight", "vision_tower.post_layernorm.bias"),
    "gemma3_vision": tuple(f"vision_tower.vision_model.head.{name}" for name in SIGLIP_HEAD),
}
# Tensors whose first rows have no place.
SKIPPED = {
    "roberta_cls": ("roberta.embeddings.position_embeddings.weight", 2),
    "xlm_roberta": ("embeddings.position_embeddings.weight", 2),
    "camembert": ("embeddings.position_embeddings.weight", 2),
}
# What GGUF cannot say, and its readers take to be otherwise.
UNSAID = dict.fromkeys(
    ("t5", "t5_deep_decoder"), ("config: scale_decoder_outputs is True, which GGUF cannot say; its readers assume False",)
)
# What float32 arithmetic does not bring back to the bit: -exp of a float32, 1 + w of a w far below one.
NOT_QUITE = {
    "mamba": ("backbone.layers.0.mixer.A_log", "backbone.layers.1.mixer.A_log"),
    "gemma3": ("model.layers.4.self_attn.q_norm.weight",),
    "gemma3_vision": ("multi_modal_projector.mm_input_projection_weight",),  # float16 in every file
}
# What can be recomputed.
DROPPED = {"gpt2_mask_buffers": ("h.0.attn.bias", "h.1.attn.bias")}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("round"))


def fidelities(golden: Golden, kind: str, workshop: Workshop) -> dict[str, tuple[str, str]]:
    """What the plan says of each stored tensor: fidelity and encoding in the GGUF; scales go the way of their blocks."""
    plan = Checkpoint.from_pretrained(golden.checkpoint).plan(workshop.folder / "never.gguf", format="gguf", type=kind)
    found: dict[str, tuple[str, str]] = {}
    for step in (step for output in plan.outputs for step in output.steps):
        for leaf in step.array.leaves():
            found.setdefault(leaf.ref.name, (step.fidelity, step.encoding.name))
    return found | {name.replace("_blocks", "_scales"): said for name, said in found.items() if name.endswith("_blocks")}


def source_tensors(golden: Golden) -> dict[str, Stored]:
    """The golden's own tensors, with zeros for the rows that have no place in GGUF."""
    found = tensors(golden.checkpoint)
    if golden.name in SKIPPED:
        name, rows = SKIPPED[golden.name]
        stored = found[name]
        size = rows * len(stored.data) // stored.shape[0]
        found[name] = replace(stored, data=bytes(size) + stored.data[size:])
    return found


def as_encoded(values: np.ndarray, encoding: str) -> np.ndarray:
    """float32 values after a stay in a plain encoding, by numpy."""
    if encoding == "F16":
        return values.astype(np.float16).astype(np.float32)
    if encoding == "BF16":
        bits = values.view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def within_q8_0(source: np.ndarray, found: np.ndarray) -> bool:
    """Half a step of 1/127 of each block's largest, the scale's rounding to float16, the value's to its own dtype again."""
    blocks, again = source.reshape(-1, 32), found.reshape(-1, 32)
    bound = np.abs(blocks).max(axis=1, keepdims=True) * (0.5 / 127 + 2.0**-10 + 2.0**-8) + 1e-6
    return bool(np.all(np.abs(blocks - again) <= bound))


def blockwise(stored: Stored, name: str, config: dict[str, Any]) -> np.ndarray:
    """Values with rows as the GGUF has them: GPT-2's fused layers are transposed, and what gives keys in latent attention."""
    if name.endswith("kv_b_proj.weight"):
        heads = stored.values.reshape(config["num_attention_heads"], -1, config["kv_lora_rank"])
        keys, values = np.split(heads, [config["qk_nope_head_dim"]], axis=1)
        return np.concatenate((keys.transpose(0, 2, 1).ravel(), values.ravel()))
    transposed = config["model_type"] == "gpt2" and name.split(".")[-2].startswith("c_")
    return np.ascontiguousarray(stored.values.T) if transposed else stored.values


@pytest.mark.parametrize("kind", TYPES)
@EACH
def test_tensors_come_back_as_exactly_as_the_plan_says(golden: Golden, kind: str, workshop: Workshop):
    source, found = source_tensors(golden), tensors(workshop.back(workshop.gguf(golden, kind)))
    planned = fidelities(golden, kind, workshop)
    gone = {*LOST.get(golden.name, ()), *DROPPED.get(golden.name, ())}
    assert found.keys() == source.keys() - gone
    for name, back in found.items():
        original, (fidelity, encoding) = source[name], planned[name]
        assert (back.dtype, back.shape) == (original.dtype, original.shape), name
        if fidelity == "exact":
            assert back.data == original.data, name
        elif fidelity == "rounded":
            assert np.array_equal(back.values, as_encoded(original.values, encoding)), name
        elif fidelity == "quantised":
            assert within_q8_0(blockwise(original, name, golden.config), blockwise(back, name, golden.config)), name
        else:  # computed: within one unit in the last place of the value as it was stored
            assert np.all(np.abs(back.values - original.values) <= np.spacing(np.abs(original.values) + 1)), name


@EACH
def test_from_float32_every_tensor_comes_back_bit_for_bit(golden: Golden, workshop: Workshop):
    source, found = source_tensors(golden), tensors(workshop.back(workshop.gguf(golden, "f32")))
    assert {name for name, back in found.items() if back != source[name]} == set(NOT_QUITE.get(golden.name, ()))


@EACH
def test_config_and_small_files_come_back(golden: Golden, workshop: Workshop):
    back = workshop.back(workshop.gguf(golden, "f32"))
    names = {name for name in files(golden.checkpoint) if not name.endswith((".safetensors", ".index.json"))}
    assert files(back) - {"model.safetensors"} == names
    for name in sorted(names):
        before, after = (golden.checkpoint / name).read_bytes(), (back / name).read_bytes()
        if name.endswith(".json"):
            assert json.loads(before) == json.loads(after), name
        else:
            assert before == after, name


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@EACH
def test_what_is_lost_is_listed_and_strict_refuses_it(golden: Golden, workshop: Workshop, tmp_path: Path):
    checkpoint = Checkpoint.from_pretrained(golden.checkpoint)
    out, prefix = tmp_path / "out.gguf", checkpoint.model.architecture.prefix
    called = {next(array.leaves()).ref.name: name for name, array in checkpoint.model.tensors.items()}
    expected = {f"tensor {called[name]} has no place in GGUF" for name in LOST.get(golden.name, ())}
    expected |= set(UNSAID.get(golden.name, ()))
    if golden.name in SKIPPED:
        name = prefix + SKIPPED[golden.name][0].removeprefix(prefix)
        expected.add(f"{name}: the first pad_token_id + 1 rows, which the model never reads")
    assert set(checkpoint.plan(out, format="gguf").losses) == expected
    if expected:
        with pytest.raises(Lossy, match=r"cannot say|has no place|never reads"):
            checkpoint.save_pretrained(out, format="gguf", strict=True)
        assert list(tmp_path.iterdir()) == []
    else:
        checkpoint.save_pretrained(out, format="gguf", strict=True)
        assert Checkpoint.from_pretrained(out).plan(tmp_path / "back").losses == ()


@EACH
def test_what_came_back_converts_to_the_same_gguf_again(golden: Golden, workshop: Workshop, tmp_path: Path):
    first = workshop.gguf(golden, "f32")
    folder = copy(workshop.back(first), tmp_path / golden.name)  # a GGUF holds its source's name
    second, *others = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "second.gguf", format="gguf", type="f32")
    assert [path.read_bytes() for path in others] == [path.read_bytes() for path in projectors(first)]
    one, two = (FORMAT.open(path) for path in (first, second))
    differing = {key for key in one.metadata.keys() | two.metadata.keys() if one.metadata.get(key) != two.metadata.get(key)}
    assert {key for key in differing if not key.startswith("hubclient.")} == set()
    assert differences(golden, second, "f32").keys() == differences(golden, first, "f32").keys()
    contents = [
        {name: path.read_bytes()[ref.offset : ref.offset + ref.nbytes] for name, ref in opened.tensors.items()}
        for path, opened in ((first, one), (second, two))
    ]
    assert contents[0] == contents[1]


def projectors(gguf: Path) -> list[Path]:
    """The file of the vision part, if there is one."""
    path = Workshop.projector(gguf)
    return [path] if path.exists() else []


@pytest.mark.parametrize("kind", TYPES)
@EACH
def test_verify_finds_every_tensor_exact_and_every_key_equal(golden: Golden, kind: str, workshop: Workshop):
    ours = workshop.gguf(golden, kind)
    for gguf in (ours, workshop.stripped(golden, kind), *projectors(ours)):
        report = verify(gguf, golden.checkpoint)
        assert report.ok and set(report.counts()) == {"exact"}


# Without our own keys

# Config keys that a GGUF alone tells otherwise, and means the same model by.
SPECIAL = ("bos_token_id", "eos_token_id")  # those of the tokenizer; config.json has none
HEADLESS = ("architectures", "tie_word_embeddings")  # a model without a head is one whose head is the embedding
UNTOLD = {
    "mistral": ("architectures", "model_type", "sliding_window"),  # llama.cpp runs it as Llama
    "llama_embed_only": HEADLESS,
    "qwen3_embedding": HEADLESS,
    "bert": SPECIAL,
    "bert_cls": SPECIAL,
    "distilbert": SPECIAL,
    "mt5": ("architectures", "model_type"),  # read as the T5 that it is
    "camembert": ("architectures", "model_type"),  # read as XLM-RoBERTa
}


def full(name: str, known: set[str]) -> str:
    """A stored name with the prefix that its class leaves out."""
    return next(
        (
            prefix + name
            for prefix in ("", "model.", "transformer.", "bert.", "distilbert.", "roberta.")
            if prefix + name in known
        ),
        name.replace("vision_tower.", "vision_tower.vision_model."),  # as repositories have it, and some programs ask for
    )


@pytest.mark.parametrize("kind", TYPES)
@EACH
def test_without_our_keys_tensors_have_the_same_values(golden: Golden, kind: str, workshop: Workshop):
    helped, alone = tensors(workshop.back(workshop.gguf(golden, kind))), tensors(workshop.back(workshop.stripped(golden, kind)))
    names = {full(name, set(alone)): name for name in helped}
    assert set(names) == set(alone)
    narrow = "BF16" if any(stored.dtype == "BF16" for stored in helped.values()) else "F16"
    for name, back in alone.items():
        expected = helped[names[name]]
        if expected.dtype == "U8":  # blocks or their scales
            assert back == expected, name
            continue
        assert np.array_equal(as_encoded(back.values, expected.dtype), expected.values), name
        if name.endswith("mm_input_projection_weight"):  # float16 in every file
            assert back.dtype == "F16"
        elif kind == "auto" and expected.dtype == narrow:
            assert back.dtype == narrow, name
        elif kind == "f32":
            assert back.dtype == "F32"


@EACH
def test_without_our_keys_the_config_says_the_same_of_the_model(golden: Golden, workshop: Workshop):
    helped, alone = (
        Checkpoint.from_pretrained(path).model for path in (workshop.gguf(golden, "f32"), workshop.stripped(golden, "f32"))
    )
    assert alone.losses == ()
    said = {**alone.raw_config, **alone.raw_config.get("text_config", {})}
    assert said.keys() >= {helped.architecture.blocks, "vocab_size"}
    unlike = {key for key, value in said.items() if key in alone.config and alone.config[key] != helped.config.get(key, value)}
    unlike -= {"text_config", "vision_config"}
    assert unlike <= {"torch_dtype", "rope_theta", "rope_scaling", *UNTOLD.get(golden.name, ())}
    seen = helped.config.get("vision_config", {})
    assert {key for key, value in said.get("vision_config", {}).items() if value != seen.get(key, value)} <= {"vision_use_head"}
    assert alone.config.get("rope_parameters") == helped.config.get("rope_parameters")


# Tokenizers


def encodings(folder: Path) -> list[Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    both = [tokenizer.encode(text, add_special_tokens=special) for text in TEXTS for special in (True, False)]
    pairs = [tokenizer.encode("one text", "and another")]
    texts = [tokenizer.decode(encoding.ids, skip_special_tokens=skip) for encoding in both for skip in (True, False)]
    return [(encoding.ids, encoding.tokens, encoding.type_ids, encoding.offsets) for encoding in [*both, *pairs]] + texts


@EACH
def test_the_tokenizer_encodes_and_decodes_as_it_did(golden: Golden, workshop: Workshop):
    assert encodings(workshop.back(workshop.gguf(golden, "f32"))) == encodings(golden.checkpoint)


def ids(folder: Path, texts: tuple[str, ...]) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in texts]


@EACH
def test_without_our_keys_the_tokenizer_gives_the_same_ids(golden: Golden, workshop: Workshop):
    assert ids(workshop.back(workshop.stripped(golden, "f32")), golden.texts) == ids(golden.checkpoint, golden.texts)


# In Transformers


def auto_ids(folder: Path, texts: tuple[str, ...] = TEXTS) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in texts]


@pytest.mark.torch
@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "stripped"])
@EACH
def test_transformers_loads_what_came_back_and_computes_the_same(golden: Golden, ours: bool, workshop: Workshop):
    gguf = workshop.gguf(golden, "f32") if ours else workshop.stripped(golden, "f32")
    found = transformers_result(golden, workshop.back(gguf))
    assert np.abs(found - golden.logits).max() <= 1e-4
    if golden.kind == "causal":
        assert int(found.argmax()) == golden.record["transformers"]["argmax"][-1]


# Goldens whose stripped GGUF gives a tokenizer that Transformers reads by another class, and which.
OTHER_CLASS = {
    "mistral": "model_type llama makes Transformers use LlamaTokenizer, which merges runs of spaces unlike tokenizer.json",
}


@pytest.mark.torch
@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "stripped"])
@EACH
def test_transformers_own_tokenizer_gives_the_same_ids(golden: Golden, ours: bool, workshop: Workshop, tmp_path: Path):
    back = workshop.back(workshop.gguf(golden, "f32") if ours else workshop.stripped(golden, "f32"))
    source = golden.checkpoint
    if not ours and golden.name in OTHER_CLASS:
        source = as_class_of(back, golden, tmp_path / "source")
        assert auto_ids(source) != auto_ids(golden.checkpoint)
    texts = TEXTS if ours else golden.texts
    assert auto_ids(back, texts) == auto_ids(source, texts)


def as_class_of(back: Path, golden: Golden, folder: Path) -> Path:
    """The source's tokenizer under the class and model type of what came back."""
    copy(golden.checkpoint, folder)
    (folder / "config.json").write_bytes((back / "config.json").read_bytes())
    settings = json.loads((golden.checkpoint / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = json.loads((back / "tokenizer_config.json").read_text())["tokenizer_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
