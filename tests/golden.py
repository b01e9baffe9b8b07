"""The golden checkpoints that conversions are judged by: all there are, or the subset in tests/data (see its README).

A golden is a checkpoint, what llama.cpp's converter makes of it, and what Transformers and llama.cpp compute from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from reference import DATA, REFERENCE
from tokenizing import CONTRADICTORY

from hubclient import Checkpoint
from hubclient.formats.gguf import FORMAT
from hubclient.formats.model import OutputSpec, TensorSpec

FOLDER = REFERENCE / "golden" if REFERENCE else DATA / "golden"
MADE = DATA / "made"  # of layouts that no golden has
FOREIGN = (*([REFERENCE / "foreign"] if REFERENCE else []), DATA / "gguf")
TYPES = ("f32", "auto", "q8_0")
VARIANTS = {"fp": "auto", "q4": "4bit"}  # mlx-lm's outputs, and our types for them

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "llama": (
        "llama", "llama3_rope_tied", "llama_attnbias", "llama_embed_only", "llama_h256", "llama_linear_rope",
        "llama_minimal_config", "llama_newstyle_config", "llama_odd_dims", "llama_padded_vocab", "llama_sharded",
    ),
    "mistral": ("mistral",),
    "qwen2": ("qwen2", "qwen2_f16_bias_tied"),
    "qwen3": ("qwen3", "qwen3_yarn", "qwen3_embedding"),
    "gemma": ("gemma",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3",),
    "phi3": ("phi3", "phi3_longrope"),
    "mamba": ("mamba",),
    "mamba2": ("mamba2",),
    "jamba": ("jamba",),
    "gpt2": ("gpt2", "gpt2_mask_buffers", "gpt2_prefixed"),
    "falcon": ("falcon", "falcon_multi_query", "falcon_one_norm"),
    "bloom": ("bloom",),
    "stablelm": ("stablelm_qknorm",),
    "olmo2": ("olmo2",),
    "starcoder2": ("starcoder2",),
    "gpt_neox": ("gpt_neox",),
    "bert": ("bert", "bert_cls"),
    "mixtral": ("mixtral",),
    "qwen_moe": ("qwen2_moe", "qwen3_moe"),
    "deepseek": ("deepseek_v2_lite", "deepseek_v3", "deepseek_v3_fp8"),
    "gpt_oss": ("gpt_oss_mxfp4",),
    "olmoe": ("olmoe",),
    "t5": ("t5", "t5_v11_gated", "t5_deep_decoder", "t5_encoder"),
    "mt5": ("mt5",),
    "umt5": ("umt5",),
    "distilbert": ("distilbert",),
    "roberta": ("roberta_cls",),
    "xlm_roberta": ("xlm_roberta",),
    "camembert": ("camembert",),
    "modernbert": ("modernbert", "modernbert_cls"),
    "llava": ("llava",),
    "mistral3": ("mistral3",),
    "qwen2_vl": ("qwen2_vl",),
    "gemma3_vision": ("gemma3_vision",),
}  # fmt: skip

# Where we write something else than the reference, as the tensors and keys that lines of compare.py begin with, and why.
EXCEPTIONS: Mapping[str, tuple[Mapping[str, tuple[str, ...]], str]] = {
    "bert_cls": (
        {"extra": ("cls.weight", "cls.bias")},
        "the reference drops the pooler (dense and tanh) that the classifier needs; with it llama.cpp gives Transformers' scores",
    ),
    "mistral3": (
        {"projector extra": ("v.token_embd.img_break",)},
        "the reference forgets the embedding of [IMG_BREAK] (llama.cpp issue 24235), without which llama.cpp refuses the file",
    ),
    "gemma3_vision": (
        {"projector kv_extra": ("clip.vision.projector.scale_factor",)},
        "the reference looks for the number of vectors in another file than config.json; without it llama.cpp makes one of four",
    ),
    "camembert": (
        {
            "shape": ("position_embd.weight",),
            "kv_extra": ("tokenizer.ggml.scores", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces"),
            "kv_different": (
                "bert.context_length",
                "tokenizer.ggml.model",
                "tokenizer.ggml.tokens",
                "tokenizer.ggml.token_type",
            ),
        },
        "the reference takes it for BERT, positions two rows off and pieces as if they were words; as XLM-RoBERTa it runs right",
    ),
}


@dataclass(frozen=True)
class Golden:
    """One golden by name."""

    name: str

    @property
    def checkpoint(self) -> Path:
        """The folder as the hub holds it."""
        return self._folder / "checkpoints" / self.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that is known about it."""
        content: dict[str, Any] = json.loads((self._folder / "goldens" / f"{self.name}.json").read_text())
        return content

    @property
    def _folder(self) -> Path:
        return MADE if (MADE / "goldens" / f"{self.name}.json").is_file() else FOLDER

    @property
    def exists(self) -> bool:
        """Whether this machine has it."""
        return (self._folder / "goldens" / f"{self.name}.json").is_file()

    @property
    def unpacked(self) -> bool:
        """Whether weights are packed with scales, which they come back from other formats without (see test_packed)."""
        return (self.config.get("quantization_config") or {}).get("quant_method") == "fp8"

    @property
    def pre(self) -> str:
        """What the reference was told to call the pre-tokenizer."""
        return str(self.record["pre_override"])

    @property
    def kind(self) -> str:
        """causal, encoder, classifier or encdec."""
        return str(self.record["kind"])

    @property
    def ids(self) -> list[int]:
        """The input of `logits`."""
        return list(self.record["input_ids"])

    @property
    def logits(self) -> list[float]:
        """Transformers' result at the last position (an encoder's hidden state, a classifier's scores)."""
        return list(self.record["transformers"]["last_logits"])

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that have the same ids by tokenizer.json and by what the tokenizer's keys say."""
        return (TEXTS[0], TEXTS[-1]) if self.name in CONTRADICTORY else TEXTS

    @property
    def config(self) -> dict[str, Any]:
        """config.json's content."""
        content: dict[str, Any] = json.loads((self.checkpoint / "config.json").read_text())
        return content


def copy(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint's folder that can be changed, whatever the source's modes."""
    for path in source.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def goldens(*kinds: str) -> list[Golden]:
    """Those of our families that this machine has, of these kinds if any are named."""
    found = [golden for names in FAMILIES.values() for golden in map(Golden, names) if golden.exists]
    return [golden for golden in found if not kinds or golden.kind in kinds]


def vision_goldens() -> list[Golden]:
    """Those whose GGUF is two files."""
    return [golden for golden in goldens() if "vision_config" in golden.config]


def foreign(name: str) -> Path | None:
    """A GGUF that llama.cpp's converter wrote from the checkpoint of this name, if this machine has it."""
    return next((folder / f"{name}.gguf" for folder in FOREIGN if (folder / f"{name}.gguf").is_file()), None)


# Ordinary and odd: spaces, scripts, combining marks, emoji, code, control characters, special tokens.
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces,\ttabs\nand\n\nlines \r\n ",
    "",
    " ",
    "naïve café, Ünïcödé, straße; 東京 한국어 العربية עברית",
    "e\u0301 (combining), \u200b zero width, \ufeff mark, \u00a0 hard space, ﬁ ligature, Ⅷ",
    "emoji 👩‍👩‍👧 🏳️‍🌈 𝔘𝔫𝔦",
    "def f(x): return x**2  # 3.14159 1,000,000 0x1F",
    "don't WON'T they'll ’tis",
    "<s>[INST] hi [/INST]</s><|im_start|>user<|im_end|><bos><start_of_turn>[CLS] [MASK] [SEP]<unk><pad>",
    "\x00\x01\x7f\u2028",
    "a" * 300,
)


class Workshop:
    """Conversions into one folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def gguf(self, golden: Golden, kind: str, *, pre: str | None = None) -> Path:
        """The golden's checkpoint as a GGUF of this type."""
        path = self.folder / f"{golden.name}-{kind}{'-pre' if pre else ''}.gguf"
        if not path.exists():
            Checkpoint.from_pretrained(golden.checkpoint).save_pretrained(path, format="gguf", type=kind, pre=pre)
        return path

    def stripped(self, golden: Golden, kind: str) -> Path:
        """The same without any key of our own, as if somebody else had written it."""
        path = self.folder / f"{golden.name}-{kind}-stripped.gguf"
        if not path.exists():
            without_our_keys(source := self.gguf(golden, kind), path)
            if self.projector(source).exists():
                self.projector(path).write_bytes(self.projector(source).read_bytes())  # which never has any
        return path

    @staticmethod
    def projector(text: Path) -> Path:
        """Where the vision part of a GGUF with the text part lies, if there is one."""
        return text.with_name(f"mmproj-{text.name}")

    def mlx(self, golden: Golden, variant: str) -> Path:
        """The golden's checkpoint as an MLX folder."""
        path = self.folder / f"{golden.name}-{variant}-mlx"
        if not path.exists():
            group = golden.record["mlx"].get(variant, {}).get("quantize", {}).get("group_size")
            Checkpoint.from_pretrained(golden.checkpoint).save_pretrained(
                path, format="mlx", type=VARIANTS[variant], group_size=group
            )
        return path

    def stripped_mlx(self, golden: Golden, variant: str) -> Path:
        """The same without any key of our own, as if somebody else had written it."""
        path = self.folder / f"{golden.name}-{variant}-mlx-stripped"
        if not path.exists():
            copy(self.mlx(golden, variant), path)
            for file in path.glob("*.safetensors"):
                without_our_key(file)
        return path

    def back(self, gguf: Path) -> Path:
        """A GGUF, or an MLX folder, as a folder of safetensors."""
        path = self.folder / f"{gguf.stem}-back"
        if not path.exists():
            Checkpoint.from_pretrained(gguf).save_pretrained(path)
        return path


def without_our_keys(source: Path, target: Path, *, sparse: bool = False) -> None:
    """Lay a GGUF out again without the keys under `hubclient.`; tensors are copied as they are.

    `sparse` copies only what is small, for files whose large tensors are holes.
    """
    opened = FORMAT.open(source)
    refs = list(opened.tensors.values())
    metadata = {key: value for key, value in opened.metadata.items() if not key.startswith("hubclient.")}
    assert len(metadata) < len(opened.metadata)
    specs = tuple(TensorSpec(ref.name, ref.shape, ref.encoding) for ref in refs)
    (layout,) = FORMAT.layout(OutputSpec(target.name, specs, metadata))
    with source.open("rb") as data, target.open("wb") as output:
        output.write(layout.head)
        output.truncate(layout.size)
        for place in layout.tensors:
            if not sparse or place.nbytes < 1 << 16:
                data.seek(refs[place.tensor].offset)
                output.seek(place.offset)
                output.write(data.read(place.nbytes))


def without_our_key(path: Path) -> None:
    """Take the keys under `hubclient.` out of a safetensors file's header."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    kept = {key: text for key, text in header["__metadata__"].items() if not key.startswith("hubclient.")}
    assert len(kept) < len(header["__metadata__"])
    text = json.dumps({**header, "__metadata__": kept}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])


# Judging by the reference's own rules


@cache
def judge() -> ModuleType:
    """compare.py of the golden data."""
    spec = spec_from_file_location("golden_compare", FOLDER / "compare.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differences(golden: Golden, output: Path, kind: str) -> dict[str, list[str]]:
    """How a GGUF, and the file of the projector beside it, differ from what the reference writes; empty if not at all."""
    found = _unlike(golden.record["gguf"][kind], output)
    vision = (golden.record.get("gguf_mmproj") or {}).get(kind, {})
    if "tensors" in vision:
        told = _unlike(vision, Workshop.projector(output))
        found |= {f"projector {what}": lines for what, lines in told.items()}
    return found


def _unlike(record: Mapping[str, Any], output: Path) -> dict[str, list[str]]:
    rules = judge()
    file = rules.GGUF(str(output))
    found: dict[str, list[str]] = rules.compare_tensors(record["tensors"], file.tensor_records(), None, "type")
    found.update(rules.compare_kv(record["kv"], file.kv))
    return {what: lines for what, lines in found.items() if lines and what != "kv_cosmetic"}


def mlx_differences(golden: Golden, folder: Path, variant: str) -> dict[str, list[str]]:
    """How an MLX folder differs from what mlx-lm writes; empty if not at all."""
    rules, record = judge(), golden.record["mlx"][variant]
    found = rules.compare_tensors(record["tensors"], list(rules.read_safetensors_dir(str(folder)).values()), None, "dtype")
    want, config = rules.flat(record["config_added"]), json.loads((folder / "config.json").read_text())
    have = rules.flat(config)
    found["config"] = [f"{key} is not {value!r}" for key, value in want.items() if have.get(key) != value]
    found["config"] += [f"{key} is there" for key in record["config_removed"] if key in config]
    packed = rules.flat({"quantization": config.get("quantization", {})})
    found["config"] += [f"{key} is there" for key in packed if key not in want]
    return {what: lines for what, lines in found.items() if lines}


def unexplained(golden: Golden, found: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The differences that no exception accounts for."""
    expected = EXCEPTIONS.get(golden.name, ({}, ""))[0]
    left = {what: [line for line in lines if line.split()[0] not in expected.get(what, ())] for what, lines in found.items()}
    return {what: lines for what, lines in left.items() if lines}


# Reading safetensors without hubclient


@dataclass(frozen=True)
class Stored:
    """A tensor as a file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def values(self) -> np.ndarray:
        """As float32."""
        if self.dtype == "BF16":
            return (np.frombuffer(self.data, "<u2").astype("<u4") << 16).view("<f4").reshape(self.shape)
        dtype = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}[self.dtype]
        return np.frombuffer(self.data, dtype).astype(np.float32).reshape(self.shape)


def tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder, by name."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, item in json.loads(data[8:start]).items():
            if name != "__metadata__":
                begin, end = item["data_offsets"]
                found[name] = Stored(item["dtype"], tuple(item["shape"]), data[start + begin : start + end])
    return found


# What the real programs compute


# Weights that a class has and its results do not depend on.
UNUSED = ("pooler.dense.", "model.vision_tower.head.", "model.vision_tower.post_layernorm.")


def transformers_result(golden: Golden, folder: Path) -> np.ndarray:
    """As `Golden.logits`, by Transformers in float32 from a folder, which must hold every weight that it uses."""
    import torch
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, loading = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert all(key.startswith(UNUSED) for key in loading["missing_keys"])
    assert not loading["unexpected_keys"] and not loading["mismatched_keys"]
    start = {"decoder_input_ids": torch.tensor([[model.config.decoder_start_token_id]])} if golden.kind == "encdec" else {}
    with torch.no_grad():
        output = model.eval()(torch.tensor([golden.ids]), output_hidden_states=golden.kind == "encoder", **start)
    found = {"encoder": lambda: output.hidden_states[-1][0, -1], "classifier": lambda: output.logits[0]}
    values: np.ndarray = found.get(golden.kind, lambda: output.logits[0, -1])().numpy()
    return values
