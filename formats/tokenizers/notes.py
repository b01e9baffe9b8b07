"""What a GGUF said of its tokenizer and no Hugging Face file can say: kept in tokenizer_config.json under "hubclient".

    "hubclient": {"gguf": {"vocab_size": 151936, "tokens": "crc32", "keys": {"tokenizer.ggml.pre": {"type": "str", "value": ..}}}}

`keys` holds the keys that converting the files back would give otherwise: null for one that the GGUF did not have, `value`
for the whole value, `at` for single elements of an array. `vocab_size` counts the rows of the token table where rows
without a token follow it. The notes hold for the tokens they were made for (`tokens`): once the vocabulary is changed
they are ignored.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from hubclient.errors import DamagedInput
from hubclient.formats.model import Value
from hubclient.formats.tokenizers.model import MAX_TOKENS, pad_token
from hubclient.ground.names import shown

FIELD = "hubclient"
_TOKENS = "tokenizer.ggml.tokens"
_BITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64, "i8": -8, "i16": -16, "i32": -32, "i64": -64}
_FEW = 4  # an array of which less than a fourth differs is noted by its differing elements


def tokenizer_keys(metadata: Mapping[str, Value]) -> dict[str, Value]:
    """A file's keys that belong to its tokenizer."""
    return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}


def notes(wanted: Mapping[str, Value], derived: Mapping[str, Value]) -> dict[str, Any] | None:
    """What has to be noted so that `derived` becomes `wanted`; None if they are the same."""
    keys: dict[str, Any] = {key: None for key in derived if key not in wanted}
    for key, value in wanted.items():
        note = _note(value, derived.get(key))
        if note is not None:
            keys[key] = note
    return {"tokens": _checksum(derived), "keys": keys} if keys else None


def noted_size(settings: Mapping[str, Any]) -> int | None:
    """The noted number of rows."""
    size = _section(settings).get("vocab_size")
    return size if type(size) is int and 0 < size <= MAX_TOKENS else None


def apply_notes(keys: dict[str, Value], settings: Mapping[str, Any]) -> dict[str, Value]:
    """`keys` with what is noted in tokenizer_config.json. Raises DamagedInput for notes that are not ours."""
    section = _section(settings)
    noted = section.get("keys")
    if not isinstance(noted, Mapping) or section.get("tokens") != _checksum(keys):
        return keys
    result = dict(keys)
    for key, note in noted.items():
        if not key.startswith("tokenizer."):
            raise _fault(key)
        if note is None:
            result.pop(key, None)
        else:
            result[key] = _noted(key, note, keys.get(key))
    return result


def _section(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    own = settings.get(FIELD)
    section = own.get("gguf") if isinstance(own, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _checksum(keys: Mapping[str, Value]) -> str:
    """Of the tokens up to the last row that has one."""
    texts = keys[_TOKENS].value if _TOKENS in keys else ()
    count = len(texts)
    while count and texts[count - 1] == pad_token(count - 1):
        count -= 1
    return f"{zlib.crc32(chr(0).join(texts[:count]).encode('utf-8', 'surrogatepass')):08x}"


def _note(wanted: Value, derived: Value | None) -> dict[str, Any] | None:
    array = wanted.type.startswith("[")
    values = list(wanted.value) if array else wanted.value
    if derived is None or array != derived.type.startswith("["):
        return {"type": wanted.type, "value": values}
    others = list(derived.value) if array else derived.value
    if values == others and wanted.type == derived.type:
        return None
    if array and len(values) == len(others):
        at = {str(index): value for index, value in enumerate(values) if value != others[index]}
        if len(at) * _FEW < len(values):
            return {"type": wanted.type, "at": at}
    return {"type": wanted.type, "value": values}


def _noted(key: str, note: Any, derived: Value | None) -> Value:
    if not isinstance(note, Mapping) or not isinstance(note.get("type"), str):
        raise _fault(key)
    kind, at = note["type"], note.get("at")
    if "value" in note:
        value = note["value"]
    elif isinstance(at, Mapping) and derived is not None and isinstance(derived.value, Sequence):
        value = list(derived.value)
        for index, element in at.items():
            if not index.isascii() or not index.isdigit() or len(index) > 9:
                raise _fault(key)
            if int(index) < len(value):
                value[int(index)] = element
    else:
        raise _fault(key)
    if not fits(kind, value):
        raise _fault(key)
    return Value(kind, value)


def fits(kind: str, value: Any) -> bool:
    """Whether `value` is of the metadata type `kind`."""
    if kind.startswith("[") and kind.endswith("]"):
        return isinstance(value, list) and len(value) <= 4 * MAX_TOKENS and all(fits(kind[1:-1], item) for item in value)
    if kind == "str":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    if kind in ("f32", "f64"):
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < (3.5e38 if kind == "f32" else math.inf)
    bits = _BITS.get(kind)
    if bits is None or type(value) is not int:
        return False
    return 0 <= value < 1 << bits if bits > 0 else -(1 << -bits - 1) <= value < 1 << -bits - 1


def _fault(key: str) -> DamagedInput:
    return DamagedInput(f"has a note on {shown(key)} that is not one of hubclient's", file="tokenizer_config.json")
