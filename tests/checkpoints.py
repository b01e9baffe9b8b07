"""Tiny checkpoints made from nothing: Llama, GPT-2 and BERT folders with random weights and a tokenizer, by numpy alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden import copy
from rawsafetensors import entry, put, put_index

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, "np.ndarray[Any, Any]"]

WEIGHTS, INDEX, CONFIG, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"
ABSENT = object()  # as a value in `config`: leave the key out

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "vocab_size": 272,
    "bos_token_id": 269,
    "eos_token_id": 270,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 32,
    "vocab_size": 272,
    "bos_token_id": 269,
    "eos_token_id": 270,
    "torch_dtype": "float32",
}
BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}


def llama(folder: Path, **options: Any) -> Path:
    """A Llama; see `make` for the options."""
    return make(folder, LLAMA, llama_shapes, byte_level(), dtype=options.pop("dtype", "BF16"), **options)


def gpt2(folder: Path, **options: Any) -> Path:
    """A GPT-2, whose matrices are transposed on the way to GGUF."""
    return make(folder, GPT2, gpt2_shapes, byte_level(), dtype=options.pop("dtype", "F32"), **options)


def bert(folder: Path, **options: Any) -> Path:
    """A BERT encoder."""
    return make(folder, BERT, bert_shapes, word_pieces(), dtype=options.pop("dtype", "F32"), **options)


def make(
    folder: Path,
    base: Mapping[str, Any],
    shapes: Callable[[Mapping[str, Any]], Shapes],
    tokenizer: Mapping[str, bytes],
    *,
    dtype: str,
    config: Mapping[str, Any] | None = None,
    sizes: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    shards: int = 1,
    seed: int = 0,
) -> Path:
    """A folder as Transformers saves it.

    `config` changes config.json alone, `sizes` changes what the tensors are made from as well; `tensors` adds tensors
    by shape or values, None leaves one out; `shards` spreads them over that many files with an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**base, **(sizes or {})}
    made: Mapping[str, Any] = {**shapes(whole), **(tensors or {})}
    rng = np.random.default_rng(seed)
    values = {
        name: rng.standard_normal(it, np.float32) if isinstance(it, tuple) else it for name, it in made.items() if it is not None
    }
    write_weights(folder, values, dtype, shards)
    write_json(folder / "config.json", {key: value for key, value in {**whole, **(config or {})}.items() if value is not ABSENT})
    for name, data in tokenizer.items():
        (folder / name).write_bytes(data)
    return folder


def write_weights(folder: Path, tensors: Tensors, dtype: str, shards: int = 1) -> None:
    """model.safetensors, or that many shards and their index."""
    names = list(tensors)
    groups = [names[at::shards] for at in range(shards)]
    files = ["model.safetensors"] if shards == 1 else [f"model-{at + 1:05d}-of-{shards:05d}.safetensors" for at in range(shards)]
    for file, group in zip(files, groups, strict=True):
        put_tensors(folder / file, {name: tensors[name] for name in group}, dtype)
    if shards > 1:
        put_index(
            folder / "model.safetensors.index.json",
            {name: file for file, group in zip(files, groups, strict=True) for name in group},
        )


def put_tensors(path: Path, tensors: Tensors, dtype: str) -> Path:
    """One safetensors file; float32 arrays are stored as `dtype`, others as they are."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    end = 0
    for name, array in tensors.items():
        kind = (
            dtype
            if array.dtype == np.float32
            else {"int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}[str(array.dtype)]
        )
        blobs.append(stored(array, kind))
        header[name] = entry(kind, array.shape, end, end := end + len(blobs[-1]))
    return put(path, header, b"".join(blobs))


def stored(array: np.ndarray[Any, Any], dtype: str) -> bytes:
    """Values as a safetensors dtype has them; to BF16 by cutting off."""
    if dtype == "BF16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return array.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}.get(dtype, array.dtype)).tobytes()


def altered_gguf(
    path: Path, folder: Path, metadata: Mapping[str, Any] | None = None, shapes: Mapping[str, Any] | None = None
) -> Path:
    """A copy of a GGUF, called bad.gguf, with other keys and tensors (None: without); all values are zero."""
    from hubclient.formats import gguf
    from hubclient.formats.encodings import F32
    from hubclient.formats.model import OutputSpec, TensorSpec

    opened = gguf.FORMAT.open(path)
    keys = {key: value for key, value in {**opened.metadata, **(metadata or {})}.items() if value is not None}
    sizes = {**{name: ref.shape for name, ref in opened.tensors.items()}, **(shapes or {})}
    specs = tuple(TensorSpec(name, shape, F32) for name, shape in sizes.items() if shape is not None)
    (layout,) = gguf.FORMAT.layout(OutputSpec("bad.gguf", specs, keys))
    (folder / "bad.gguf").write_bytes(layout.head.ljust(layout.size, b"\0"))
    return folder / "bad.gguf"


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path


def llama_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = size * config["num_attention_heads"], size * config["num_key_value_heads"]
    block = {
        "input_layernorm.weight": (hidden,),
        "mlp.down_proj.weight": (hidden, inner),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
    }
    blocks = {f"model.layers.{i}.{name}": shape for i in range(config["num_hidden_layers"]) for name, shape in block.items()}
    head: Shapes = {} if config["tie_word_embeddings"] else {"lm_head.weight": (vocab, hidden)}
    return {**head, "model.embed_tokens.weight": (vocab, hidden), **blocks, "model.norm.weight": (hidden,)}


def gpt2_shapes(config: Mapping[str, Any]) -> Shapes:
    size = config["n_embd"]
    block: Shapes = {f"{norm}.{part}": (size,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    conv = {
        "attn.c_attn": (size, 3 * size),
        "attn.c_proj": (size, size),
        "mlp.c_fc": (size, 4 * size),
        "mlp.c_proj": (4 * size, size),
    }
    for name, shape in conv.items():
        block |= {f"{name}.weight": shape, f"{name}.bias": shape[1:]}
    blocks = {f"transformer.h.{i}.{name}": shape for i in range(config["n_layer"]) for name, shape in block.items()}
    ends = {"transformer.wte.weight": (config["vocab_size"], size), "transformer.wpe.weight": (config["n_positions"], size)}
    return {**ends, **blocks, "transformer.ln_f.weight": (size,), "transformer.ln_f.bias": (size,)}


def bert_shapes(config: Mapping[str, Any]) -> Shapes:
    size, inner = config["hidden_size"], config["intermediate_size"]
    matrices = {
        **{f"attention.self.{part}": (size, size) for part in ("query", "key", "value")},
        "attention.output.dense": (size, size),
        "intermediate.dense": (inner, size),
        "output.dense": (size, inner),
    }
    block: Shapes = {}
    for name, shape in matrices.items():
        block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    block |= {
        f"{norm}.{part}": (size,) for norm in ("attention.output.LayerNorm", "output.LayerNorm") for part in ("weight", "bias")
    }
    rows = {"word": config["vocab_size"], "position": config["max_position_embeddings"], "token_type": config["type_vocab_size"]}
    ends: Shapes = {f"embeddings.{name}_embeddings.weight": (count, size) for name, count in rows.items()}
    ends |= {"embeddings.LayerNorm.weight": (size,), "embeddings.LayerNorm.bias": (size,)}
    return {
        **ends,
        **{f"encoder.layer.{i}.{name}": shape for i in range(config["num_hidden_layers"]) for name, shape in block.items()},
    }


def byte_level() -> dict[str, bytes]:
    """GPT-2's kind of tokenizer: 256 bytes, 13 merges, 3 special tokens."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in shown] + [chr(0x100 + at) for at in range(256 - len(shown))]
    merges = [("Ġ", "t"), ("h", "e"), ("i", "n"), ("r", "e"), ("o", "n"), ("Ġt", "he"), ("e", "r"), ("Ġ", "a"), ("a", "t"),
              ("Ġ", "s"), ("e", "n"), ("o", "r"), ("in", "g")]  # fmt: skip
    vocabulary = {text: at for at, text in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    special = ["<s>", "</s>", "<pad>"]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": merges,
    }  # fmt: skip
    document = _document([(text, len(vocabulary) + at) for at, text in enumerate(special)], None, step, None, step, model)
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 128,
    }
    return {"tokenizer.json": _dump(document), "tokenizer_config.json": _dump(settings)}


def word_pieces() -> dict[str, bytes]:
    """BERT's kind of tokenizer: 5 special tokens, letters at the start and inside of words, a few words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(ord("a") + at) for at in range(26)]
    tokens = [*special, *letters, *("##" + letter for letter in letters), "the", "of", "##ing", "and", "in", ".", ","]
    ends = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")]
    around = {
        "type": "TemplateProcessing",
        "single": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]],
        "pair": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1], {"Sequence": {"id": "B", "type_id": 1}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [at], "tokens": [name]} for name, at in (("[CLS]", 2), ("[SEP]", 3))},
    }  # fmt: skip
    lower = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    model = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {text: at for at, text in enumerate(tokens)},
    }  # fmt: skip
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    added = [(text, at) for at, text in enumerate(special)]
    settings = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32,
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }  # fmt: skip
    document = _document(added, lower, {"type": "BertPreTokenizer"}, around, decoder, model)
    return {"tokenizer.json": _dump(document), "tokenizer_config.json": _dump(settings)}


def _document(added: list[tuple[str, int]], normalizer: Any, cut: Any, around: Any, decoder: Any, model: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": at, "content": text, **flags} for text, at in added],
        "normalizer": normalizer, "pre_tokenizer": cut, "post_processor": around, "decoder": decoder, "model": model,
    }  # fmt: skip


def _dump(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def config_of(folder: Path) -> dict[str, Any]:
    """What config.json says."""
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def edited(source: Path, target: Path, **changes: Any) -> Path:
    """A copy whose config says something else; None takes a key away."""
    config = {**config_of(copy(source, target)), **changes}
    (target / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return target
