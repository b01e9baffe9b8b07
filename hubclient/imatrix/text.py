"""The text of an importance matrix as token ids, in chunks of equal length, as llama-imatrix makes them.

The text loses one newline at its end, special tokens in it are plain text, and a BOS is put before it where llama.cpp puts one;
then each chunk's first token is replaced by a BOS as well. What is left of the text after the last whole chunk is not used.
Source: llama.cpp's tools/imatrix (`compute_imatrix`), common/arg.cpp (`--file`), src/llama-vocab.cpp (when a BOS is added).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.errors import DamagedInput, UsageError
from hubclient.formats.model import Value
from hubclient.formats.sourcefile import read_source

if TYPE_CHECKING:
    import numpy as np

    from hubclient.model import Model

    Ids = np.ndarray[Any, Any]

_LIMIT = 256 << 20  # bytes of text; matrices are made from a few
_BOS = {"llama": 1, "gpt2": 11}  # what llama.cpp takes where a file has no id for it


def chunks(model: Model, text: Path, context: int, limit: int | None = None) -> Ids:
    """Token ids of the text, int64 (chunks, context), at most `limit` chunks.

    Raises UsageError if the text is shorter than two chunks, DamagedInput if it is no text or the model has no tokenizer.
    """
    import numpy as np

    keys = _keys(model)
    bos = _bos(keys)
    ids = ([] if bos is None else [bos]) + _encode(model, _read(text))
    if len(ids) < 2 * context:
        raise UsageError(
            f"{text}: is {len(ids)} tokens long where two chunks of {context} are the least that an importance matrix is made from"
        )
    count = min(len(ids) // context, limit or len(ids))
    cut = np.array(ids[: count * context], np.int64).reshape(count, context)
    if bos is not None:
        cut[:, 0] = bos
    return cut


def _read(path: Path) -> str:
    data, _ = read_source(path, _LIMIT)
    try:
        return data.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DamagedInput(f"is no text in UTF-8: byte {error.start} does not belong there", file=path) from None


def _encode(model: Model, text: str) -> list[int]:
    """The ids of a text alone, with nothing put around it."""
    from tokenizers import Tokenizer as Library

    from hubclient.formats.tokenizers import to_files

    assert model.tokenizer is not None
    library = Library.from_str(to_files(model.tokenizer)["tokenizer.json"].decode())
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()
    ids: list[int] = library.encode(text, add_special_tokens=False).ids
    return ids


def _keys(model: Model) -> Mapping[str, Value]:
    """What GGUF says of the tokenizer, or would say."""
    from hubclient.formats.tokenizers import to_gguf

    if model.tokenizer is None:
        raise DamagedInput("there is no tokenizer beside the weights, without which a text has no tokens", file=model.opened.path)
    if model.opened.format == "gguf":
        return model.opened.metadata
    size = model.config.get("vocab_size")
    return to_gguf(model.tokenizer, vocab_size=size, pre=model.pre, options=model.architecture.tokenizer)


def _bos(keys: Mapping[str, Value]) -> int | None:
    """The id that is put before a text; None if nothing is."""
    from hubclient.formats.tokenizers.pretokenizers import row_named
    from hubclient.formats.tokenizers.special import FLAG_KEYS, ID_KEYS

    def stated(key: str) -> Any:
        return keys[key].value if key in keys else None

    kind = stated("tokenizer.ggml.model")
    row = row_named(stated("tokenizer.ggml.pre") or "default") if kind == "gpt2" else None
    usual = row.bos if row is not None else kind == "llama"
    flag = stated(FLAG_KEYS["bos"])
    if not (usual if flag is None else flag):
        return None
    index = stated(ID_KEYS["bos"])
    return index if index is not None else _BOS.get(str(kind))
