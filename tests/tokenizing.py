"""Helpers of the tokenizer tests: the golden tokenizers with their families' options, texts, and encoding."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reference import DATA, REFERENCE

from hubclient.formats.gguf import FORMAT
from hubclient.formats.model import OutputSpec, Value
from hubclient.formats.tokenizers import Tokenizer, read_files

FOLDER: Path = REFERENCE / "golden" if REFERENCE else DATA / "golden"

# How families whose declarations tell of no special wishes are stored needs no line here.
_LLAMA = {"add_space_prefix": "tokenizer_config", "prefer": "sentencepiece"}
_GLM = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"}
_PREFIXLESS = {"add_space_prefix": False}
_GLM4 = {"default_tokens": {**_GLM, "bos": "<|endoftext|>"}}
_MARKED = {"trust_special": True}
_ALL_ADDED = {"add_default": {"bos": True, "eos": True, "sep": True}}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys((
        "afmoe", "arcee", "ernie4_5", "granite", "granitemoe", "idefics3", "ministral3", "mistral", "mistral3", "mixtral",
        "paddleocr_vl", "smollm3", "voxtral", "llama", "llama3_rope_tied", "llama_attnbias", "llama_awq", "llama_bin",
        "llama_embed_only", "llama_gptq", "llama_h256", "llama_linear_rope", "llama_minimal_config", "llama_newstyle_config",
        "llama_odd_dims", "llama_padded_vocab", "llama_sharded",
    ), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_vision"), _PREFIXLESS),
    **dict.fromkeys(("glm4", "glm4v"), _GLM4),
    **dict.fromkeys(("modernbert", "modernbert_cls"), _ALL_ADDED),
    **dict.fromkeys(("phi3", "phi3_longrope"), _MARKED),
    "camembert": {"model": "bert"},
    "gemma": {**_PREFIXLESS, "default_ids": {"eot": 107}},
    "gemma4": {"model": "gemma4", "add": {"bos": True}, "control": "named"},
    "glm": {"add_default": {"bos": False}, "default_tokens": _GLM},
    "glm4_moe": {"default_tokens": {**_GLM, "bos": "[gMASK]", "eom": "<|observation|>"}},
    "nemotron": {"ids": {"pad": 0, "unk": 1}},
    "phi": {"add_default": {"bos": False}},
}  # fmt: skip
# tokenizer.json and the SentencePiece model beside it disagree in these (the former normalises nothing), so that keys,
# which come from the model, cannot give the former's ids; and in the last two keys were made that say something else.
CONTRADICTORY = {"t5", "mt5", "umt5", "t5_deep_decoder", "t5_encoder", "t5_v11_gated", "xlm_roberta", "camembert", "gemma4"}
_ROUNDED = {"mamba": 16, "mamba2": 16}  # families that pad the vocabulary to a multiple


def golden_names() -> list[str]:
    """The golden tokenizers that this machine has."""
    folders = [*(FOLDER / "checkpoints").iterdir(), *(DATA / "tokenizers").iterdir()]
    return sorted({folder.name for folder in folders if (folder / "tokenizer.json").is_file()})


def golden_folder(name: str) -> Path:
    """Where a golden's files are."""
    folders: tuple[Path, ...] = (FOLDER / "checkpoints" / name, DATA / "tokenizers" / name)
    return next(folder for folder in folders if folder.is_dir())


def golden_record(name: str) -> dict[str, Any]:
    """What llama.cpp's converter made of it."""
    paths = (FOLDER / "goldens" / f"{name}.json", DATA / "tokenizers" / name / "golden.json")
    record: dict[str, Any] = json.loads(next(path for path in paths if path.is_file()).read_text())
    return record


def files_in(folder: Path) -> dict[str, Path]:
    """A folder's files by relative name."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def golden_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a golden's files."""
    tokenizer = read_files(files_in(golden_folder(name)))
    assert tokenizer is not None
    return tokenizer


def golden_size(name: str) -> int:
    """The rows of a golden's embedding."""
    config = json.loads((golden_folder(name) / "config.json").read_text())
    size = config.get("vocab_size") or (config.get("text_config") or config.get("llm_config"))["vocab_size"]
    step = _ROUNDED.get(name, 1)
    return -(-int(size) // step) * step


@cache
def texts() -> tuple[str, ...]:
    """Texts that exercise cutting, merging, unknown characters, runs of spaces and added tokens."""
    pieces = [
        "a", "b", "e", "s", "t", "-", "=", "0", "1", "23", "4567", "é", "日", "本語", "'", ".", "..", "🚀", "th", "in",
        "A", "S", "_", "/", "*", "The", "ing", "the", "क", "'s", "(", ")", "ABC", "?!", ",", "。", "'LL", "½",
        "HTTPServer", "<|im_end|>", "[INST]", "</s>", "<s>", "<mask>", "[MASK]", "<think>",
    ]  # fmt: skip
    pieces += [" ", "  ", "\n", "\t", " the", "\r\n"]
    rng = random.Random(5)
    made = ["".join(rng.choices(pieces, k=rng.randint(1, 24))) for _ in range(250)]
    runs = ["".join(rng.choice("ae =-*0s") * rng.randint(1, 20) for _ in range(rng.randint(1, 9))) for _ in range(100)]
    return ("", " ", "   ", "Hello world, it's 12345 o'clock!", "\n\n a\n", *made, *runs)


def differing(first: Any, second: Any, *, special: bool = False) -> list[str]:
    """The texts that two `tokenizers.Tokenizer` encode differently."""

    def ids(tokenizer: Any, text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=special).ids
        return found

    return [text for text in texts() if ids(first, text) != ids(second, text)]


def loaded(files: Mapping[str, bytes]) -> Any:
    """The `tokenizers.Tokenizer` of written files."""
    from tokenizers import Tokenizer as Library

    return Library.from_str(files["tokenizer.json"].decode())


def write(files: Mapping[str, bytes], folder: Path) -> dict[str, Path]:
    """Files put into a folder, as `read_files` takes them."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


def vocabulary_file(path: Path, keys: Mapping[str, Value]) -> Path:
    """A GGUF that holds a vocabulary alone, with what llama.cpp wants to know of a model besides."""
    sizes = {"context_length": 64, "embedding_length": 64, "block_count": 1, "attention.head_count": 1, "feed_forward_length": 64}
    metadata = {"general.architecture": Value("str", "llama")}
    metadata |= {f"llama.{name}": Value("u32", size) for name, size in sizes.items()}
    metadata["llama.attention.layer_norm_rms_epsilon"] = Value("f32", 1e-5)
    metadata["llama.vocab_size"] = Value("u32", len(keys["tokenizer.ggml.tokens"].value))
    (layout,) = FORMAT.layout(OutputSpec(path.name, (), {**metadata, **keys}))
    path.write_bytes(layout.head.ljust(layout.size, b"\0"))
    return path


def vocabularies() -> list[Path]:
    """The real vocabularies of llama.cpp's distribution, where this machine has them."""
    return sorted((REFERENCE / "vocabs").glob("*.gguf")) if REFERENCE else []
