"""safetensors -> GGUF -> safetensors: what the GGUF holds comes back bit for bit, with the help of our own keys or without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import TYPES, Golden, Stored, Workshop, goldens, tensors

from hubclient import Checkpoint
from hubclient.errors import Lossy

ALL = goldens()
EACH = pytest.mark.parametrize("golden", ALL, ids=lambda golden: golden.name)

# What has no place in GGUF, by golden: tensors under their stored names.
LOST = {"bert": ("pooler.dense.weight", "pooler.dense.bias")}
# What can be recomputed.
DROPPED = {"gpt2_mask_buffers": ("h.0.attn.bias", "h.1.attn.bias")}

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces,\ttabs\nand\n\nlines \r\n ",
    "",
    " ",
    "naïve café, Ünïcödé, straße; 東京 한국어 العربية עברית",
    "e\u0301 (combining), \u200b zero width, \ufeff mark, \u00a0 hard space, ﬁ ligature, Ⅷ",
    "emoji 👩‍👩‍👧 🏳️‍🌈 𝔘𝔫𝔦",
    "def f(x): return x**2  # 3.14159 1,000,000 0x1F",
    "don't WON'T they'll ’tis",
    "a" * 300,
    "<s>[INST] hi [/INST]</s><|im_start|>user<|im_end|><bos><start_of_turn>[CLS] [MASK] [SEP]<unk><pad>",
    "\x00\x01\x7f\u2028",
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("round"))


def fidelities(golden: Golden, kind: str, workshop: Workshop) -> dict[str, tuple[str, str]]:
    """What the plan says of each stored tensor: fidelity and encoding in the GGUF."""
    (output,) = Checkpoint.from_pretrained(golden.checkpoint).plan(workshop.folder / "never.gguf", format="gguf", type=kind).outputs
    return {leaf.ref.name: (step.fidelity, step.encoding.name) for step in output.steps for leaf in step.array.leaves()}


def as_encoded(values: np.ndarray, encoding: str) -> np.ndarray:
    """float32 values after a stay in a plain encoding, by numpy."""
    if encoding == "F16":
        return values.astype(np.float16).astype(np.float32)
    if encoding == "BF16":
        bits = values.view(np.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def within_q8_0(source: np.ndarray, found: np.ndarray) -> bool:
    """Half a step of 1/127 of each block's largest, and the scale's own rounding to float16."""
    blocks, again = source.reshape(-1, 32), found.reshape(-1, 32)
    bound = np.abs(blocks).max(axis=1, keepdims=True) * (0.5 / 127 + 2.0**-10) + 1e-6
    return bool(np.all(np.abs(blocks - again) <= bound))


def transposed_like(source: Stored, found: Stored, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Blocks run along the rows of the GGUF's tensor, which are GPT-2's columns."""
    one, two = source.values, found.values
    return (one.T, two.T) if name.split(".")[-2].startswith("c_") else (one, two)


@pytest.mark.parametrize("kind", TYPES)
@EACH
def test_tensors_come_back_as_exactly_as_the_plan_says(golden: Golden, kind: str, workshop: Workshop):
    source, found = tensors(golden.checkpoint), tensors(workshop.back(workshop.gguf(golden, kind)))
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
            assert within_q8_0(*map(np.ascontiguousarray, transposed_like(original, back, name))), name
        else:  # computed: within one unit in the last place of the value as it was stored
            assert np.all(np.abs(back.values - original.values) <= np.spacing(np.abs(original.values) + 1)), name


@EACH
def test_from_float32_every_tensor_comes_back_bit_for_bit(golden: Golden, workshop: Workshop):
    source, found = tensors(golden.checkpoint), tensors(workshop.back(workshop.gguf(golden, "f32")))
    assert [name for name, back in found.items() if back != source[name]] == []


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
    checkpoint, lost = Checkpoint.from_pretrained(golden.checkpoint), LOST.get(golden.name, ())
    out = tmp_path / "out.gguf"
    expected = {f"tensor bert.{name} has no place in GGUF" for name in lost}
    assert set(checkpoint.plan(out, format="gguf").losses) == expected
    if lost:
        with pytest.raises(Lossy, match="has no place in GGUF"):
            checkpoint.save_pretrained(out, format="gguf", strict=True)
        assert list(tmp_path.iterdir()) == []
    else:
        checkpoint.save_pretrained(out, format="gguf", strict=True)
        assert Checkpoint.from_pretrained(out).plan(tmp_path / "back").losses == ()


@EACH
def test_a_second_conversion_of_what_came_back_gives_the_same_gguf(golden: Golden, workshop: Workshop, tmp_path: Path):
    """Also without the source's own tokenizer files at hand: the rebuilt ones say the same."""
    first = workshop.gguf(golden, "f32")
    folder = tmp_path / golden.name
    workshop.back(first).rename(folder)
    (second,) = Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "second.gguf", format="gguf", type="f32")
    one, two = (Checkpoint.from_pretrained(path).opened for path in (first, second))
    differing = {key for key in one.metadata.keys() | two.metadata.keys() if one.metadata.get(key) != two.metadata.get(key)}
    assert differing <= {"hubclient.checkpoint"}  # holds small files as they were written
    assert [(ref.name, ref.shape, ref.encoding) for ref in one.tensors.values()] == [
        (ref.name, ref.shape, ref.encoding) for ref in two.tensors.values()
    ]
    folder.rename(workshop.back(first) if False else workshop.folder / f"{first.stem}-back")


# Without our own keys


def full(name: str, known: set[str]) -> str:
    """A stored name with the prefix that its class leaves out."""
    return next((prefix + name for prefix in ("", "model.", "transformer.", "bert.") if prefix + name in known), name)


@pytest.mark.parametrize("kind", TYPES)
@EACH
def test_without_our_keys_tensors_have_the_same_values(golden: Golden, kind: str, workshop: Workshop):
    helped, alone = tensors(workshop.back(workshop.gguf(golden, kind))), tensors(workshop.back(workshop.stripped(golden, kind)))
    names = {full(name, set(alone)): name for name in helped}
    if golden.name == "bert_cls":
        names = {full(name, set(alone)): name for name in helped}
    assert set(names) == set(alone)
    narrow = "BF16" if any(stored.dtype == "BF16" for stored in helped.values()) else "F16"
    for name, back in alone.items():
        expected = helped[names[name]]
        assert np.array_equal(back.values, expected.values), name
        if kind == "auto" and expected.dtype == narrow:
            assert back.dtype == narrow, name
        if kind == "f32":
            assert back.dtype == "F32"


@EACH
def test_without_our_keys_the_config_says_the_same_of_the_model(golden: Golden, workshop: Workshop):
    helped, alone = (Checkpoint.from_pretrained(path).model for path in (workshop.gguf(golden, "f32"), workshop.stripped(golden, "f32")))
    assert alone.losses == ()
    told = {key for key in alone.raw_config if key not in ("architectures", "model_type", "torch_dtype")}
    assert told >= {helped.architecture.blocks, "vocab_size"}
    for key in told - {"rope_theta", "rope_scaling"}:
        assert alone.config[key] == helped.config.get(key, alone.config[key]), key
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


def ids(folder: Path) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in TEXTS]


@EACH
def test_without_our_keys_the_tokenizer_gives_the_same_ids(golden: Golden, workshop: Workshop):
    assert ids(workshop.back(workshop.stripped(golden, "f32"))) == ids(golden.checkpoint)


# In Transformers


def last_logits(golden: Golden, folder: Path) -> np.ndarray:
    """As the golden's: the last position's logits or hidden state, or the scores, in float32."""
    import torch
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    assert name in (golden.config["architectures"][0], "LlamaForCausalLM", "Qwen3Model", "Gemma2ForCausalLM")
    model, loading = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert set(loading["missing_keys"]) <= {"pooler.dense.weight", "pooler.dense.bias"}
    assert not loading["unexpected_keys"] and not loading["mismatched_keys"]
    with torch.no_grad():
        output = model.eval()(torch.tensor([golden.ids]), **({"output_hidden_states": True} if golden.kind == "encoder" else {}))
    if golden.kind == "classifier":
        result = output.logits[0]
    elif golden.kind == "encoder":
        result = output.hidden_states[-1][0, -1]
    else:
        result = output.logits[0, -1]
    values: np.ndarray = result.numpy()
    return values


def auto_ids(folder: Path) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.mark.torch
@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "stripped"])
@EACH
def test_transformers_loads_what_came_back_and_computes_the_same(golden: Golden, ours: bool, workshop: Workshop):
    gguf = workshop.gguf(golden, "f32") if ours else workshop.stripped(golden, "f32")
    found = last_logits(golden, workshop.back(gguf))
    assert np.abs(found - golden.logits).max() <= 1e-4
    if golden.kind == "causal":
        assert int(found.argmax()) == golden.record["transformers"]["argmax"][-1]


@pytest.mark.torch
@pytest.mark.parametrize("ours", [True, False], ids=["our-keys", "stripped"])
@EACH
def test_transformers_own_tokenizer_gives_the_same_ids(golden: Golden, ours: bool, workshop: Workshop):
    gguf = workshop.gguf(golden, "f32") if ours else workshop.stripped(golden, "f32")
    assert auto_ids(workshop.back(gguf)) == auto_ids(golden.checkpoint)
