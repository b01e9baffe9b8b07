"""Folders and files of made-up models: a Transformers folder written, tensors read back, our own keys taken out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hubclient.formats import gguf
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.model import OutputSpec, TensorSpec
from hubclient.formats.safetensors.planes import BLOCKS, SCALES
from hubclient.spokes.huggingface import TORCH_DTYPES

if TYPE_CHECKING:
    import numpy as np

    from hubclient.testing.synthetic import Synthetic

_OURS = "hubclient."
_LENGTH = 8  # bytes of the length in front of a safetensors header
_WORD = "▁"
_END = "<|endoftext|>"
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


class Stored(NamedTuple):
    """A tensor as a safetensors file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """The numbers as float32."""
        raw = np_from(self.data, ENCODINGS[self.dtype].block_bytes)
        floats = (raw.astype("<u4") << 16).view("<f4") if self.dtype == "BF16" else raw.view(_NUMPY[self.dtype]).astype("<f4")
        return floats.reshape(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def write(model: Synthetic, folder: Path, tokenizer: Mapping[str, Any], dtype: str = "BF16") -> Path:
    """The model as Transformers saves one: weights, config.json, `tokenizer` (the content of its files).

    The same model gives the same bytes.
    """
    folder.mkdir(parents=True)
    put(folder / "model.safetensors", tensors_of(model, dtype))
    (folder / "config.json").write_text(json.dumps({**model.raw, "torch_dtype": TORCH_DTYPES[dtype]}, indent=2))
    for name, content in tokenizer.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False))
    if isinstance(preprocessor := model.config.get("preprocessor"), Mapping):
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def tensors_of(model: Synthetic, dtype: str = "BF16") -> dict[str, Stored]:
    """Random tensors for the model; packed ones in the planes that Transformers has for them."""
    found: dict[str, Stored] = {}
    for full, shape in model.shapes.items():
        name = model.file_name(full)
        if full in model.stored:
            *rows, columns = shape
            groups = (*rows, columns // 32)
            found[name] = Stored("U8", (*groups, 16), _bytes(name, (*groups, 16)))
            scales = name.removesuffix(BLOCKS) + SCALES
            found[scales] = Stored("U8", groups, _bytes(scales, groups, 120, 130))
        else:
            bits = numbers(full, shape).view("u4")
            found[name] = Stored(dtype, shape, (bits >> 16).astype("<u2").tobytes() if dtype == "BF16" else bits.tobytes())
    return found


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """float32 multiples of 1/128 between -2 and 2, other ones for each name: exact in every float type, also after + 1."""
    import numpy as np

    steps = np.random.default_rng(zlib.crc32(name.encode())).integers(-255, 256, shape)
    return np.asarray(steps / 128, "<f4")


def np_from(data: bytes, width: int) -> np.ndarray[Any, Any]:
    """Bytes as unsigned numbers of so many bytes."""
    import numpy as np

    return np.frombuffer(data, f"<u{width}")


def _bytes(name: str, shape: tuple[int, ...], low: int = 0, high: int = 256) -> bytes:
    import numpy as np

    return np.random.default_rng(zlib.crc32(name.encode())).integers(low, high, shape).astype("u1").tobytes()


def put(path: Path, tensors: Mapping[str, Stored]) -> None:
    """A safetensors file: length of the header, the header, the bytes."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end := end + len(tensor.data)]}
    put_header(path, {"__metadata__": {"format": "pt"}, **header}, (tensor.data for tensor in tensors.values()))


def put_header(path: Path, header: Mapping[str, Any], data: Iterable[bytes] = ()) -> None:
    """A safetensors file of this header."""
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH, "little") + text)
        file.writelines(data)


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its data begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        return json.loads(file.read(length)), _LENGTH + length


def read(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        header, start = header_of(path)
        data = path.read_bytes()
        for name, item in header.items():
            if name != "__metadata__":
                first, last = item["data_offsets"]
                found[name] = Stored(item["dtype"], tuple(item["shape"]), data[start + first : start + last])
    return found


def config_in(folder: Path) -> dict[str, Any]:
    """config.json's content."""
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def stripped(paths: Iterable[Path], target: Path) -> list[Path]:
    """The same GGUF files or MLX folder, copied below `target`, without any key of our own, as if somebody else had written them."""
    target.mkdir(parents=True)
    return [
        _stripped_folder(path, target / path.name) if path.is_dir() else _stripped_gguf(path, target / path.name)
        for path in paths
    ]


def _stripped_gguf(source: Path, target: Path) -> Path:
    opened = gguf.FORMAT.open(source)
    refs = list(opened.tensors.values())
    metadata = {key: value for key, value in opened.metadata.items() if not key.startswith(_OURS)}
    (layout,) = gguf.FORMAT.layout(
        OutputSpec(target.name, tuple(TensorSpec(r.name, r.shape, r.encoding) for r in refs), metadata)
    )
    with source.open("rb") as data, target.open("wb") as output:
        output.write(layout.head)
        output.truncate(layout.size)
        for place in layout.tensors:
            data.seek(refs[place.tensor].offset)
            output.seek(place.offset)
            output.write(data.read(place.nbytes))
    return target


def _stripped_folder(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            header, start = header_of(path)
            kept = {key: value for key, value in header.get("__metadata__", {}).items() if not key.startswith(_OURS)}
            put_header(target / path.name, {**header, "__metadata__": kept}, [path.read_bytes()[start:]])
        elif path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def byte_level(*further: str) -> dict[str, Any]:
    """Files of a byte-level tokenizer of GPT-2's structure: 256 bytes, one merge, an end of text, and `further` special tokens."""
    vocabulary = {letter: number for number, letter in enumerate(_byte_letters())}
    vocabulary["th"] = len(vocabulary)
    added = [_added(len(vocabulary) + place, token) for place, token in enumerate((_END, *further))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    model |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": [["t", "h"]]}
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None}
    content |= {"pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}
    options = {"tokenizer_class": "GPT2Tokenizer", "bos_token": _END, "eos_token": _END, "unk_token": _END}
    return {"tokenizer.json": content, "tokenizer_config.json": options}


def word_pieces() -> dict[str, Any]:
    """Files of a tokenizer of BERT's structure: its special tokens, letters, and letters within words."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = {token: number for number, token in enumerate([*special, *letters, *(f"##{letter}" for letter in letters)])}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "normalizer": normalizer}
    content |= {"added_tokens": [_added(number, token) for number, token in enumerate(special)], "post_processor": None}
    content |= {"pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    content["model"] = {**model, "vocab": vocabulary}
    named = {f"{token.strip('[]').lower()}_token": token for token in special}
    return {
        "tokenizer.json": content,
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **named},
    }


def unigram() -> dict[str, Any]:
    """Files of a tokenizer of XLM-RoBERTa's structure: letters with scores, a mark for the beginning of a word."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    letters = [_WORD, *(chr(code) for code in range(ord("a"), ord("z") + 1))]
    vocabulary = [[token, 0.0] for token in special] + [[letter, -2.0 - place / 64] for place, letter in enumerate(letters)]
    metaspace = {"type": "Metaspace", "replacement": _WORD, "prepend_scheme": "always", "split": True}
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None}
    content |= {"added_tokens": [_added(number, token) for number, token in enumerate(special)]}
    content |= {"pre_tokenizer": metaspace, "decoder": metaspace}
    content["model"] = {"type": "Unigram", "unk_id": special.index("<unk>"), "vocab": vocabulary, "byte_fallback": False}
    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {"tokenizer.json": content, "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", **named}}


def _added(number: int, token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **flags, "special": True}


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in GPT-2's vocabulary: itself if it can be seen, else one from U+0100 on."""
    seen = [byte for byte in range(256) if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + place) for place in range(len(hidden))]
