"""Which dtype brings stored values back without loss, asked of the values.

GGUF keeps norms and biases as F32 whatever the model's dtype was. Going back, such a tensor becomes bf16 or f16 again if
every one of its values is one, or was computed from one; the tensors in question are small, so this is the one place where planning reads values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array
from hubclient.architectures.language.elementwise import bare
from hubclient.errors import DamagedInput
from hubclient.formats.encodings import BF16, F16, F32
from hubclient.formats.model import Encoding
from hubclient.model import encodings_of

if TYPE_CHECKING:
    import numpy as np

    from hubclient.rows import Reader

_LIMIT = 64 << 20  # bytes of values that planning may look at, in all
_LARGEST = 16 << 20  # and of one tensor: norms, biases and learned positions are smaller, matrices of full-size models are not
_AT_ONCE = 1 << 18  # elements
_LARGEST_DERIVED = 1 << 16  # elements of a tensor that is derived from the config


def narrowed(
    tensors: Mapping[str, Array], main: Encoding | None, known: Mapping[str, Encoding]
) -> tuple[dict[str, Encoding], frozenset[str]]:
    """The dtype of each tensor, and the names of those whose values were found to fit a narrower dtype than they have.

    `known` are dtypes that the file says. Where it says none: a tensor's own dtype if safetensors has it, `main` for F32
    tensors whose values fit it, F32 for what must be decoded.
    """
    from hubclient.rows import FilePool, Reader

    result: dict[str, Encoding] = {}
    fitting: set[str] = set()
    budget = _LIMIT
    with FilePool() as pool:
        for name, array in tensors.items():
            own = encodings_of(array)
            stored = own.pop() if len(own) == 1 else None
            wanted, size = known.get(name, main), array.rows * array.columns * 4
            if stored == F32 and wanted in (BF16, F16) and size <= min(budget, _LARGEST):
                budget -= size
                if _fits(array, wanted, Reader(pool)):
                    fitting.add(name)
            moves = stored is not None and stored.safetensors and array.moves_elements
            natural = wanted if name in fitting else stored if moves else F32
            result[name] = known.get(name) or natural or F32
    return result, frozenset(fitting)


def main_dtype(dtypes: Mapping[str, Encoding], tensors: Mapping[str, Array]) -> str | None:
    """The dtype that holds most elements of a model's matrices, packed ones aside."""
    sizes: dict[str, int] = {}
    for name, array in tensors.items():
        if name in dtypes and len(array.shape) > 1 and not dtypes[name].planes:
            sizes[dtypes[name].name] = sizes.get(dtypes[name].name, 0) + array.rows * array.columns
    return max(sizes, key=lambda kind: sizes[kind], default=None)


def values_of(array: Array) -> Callable[[], np.ndarray[Any, Any]]:
    """Reads a small tensor that is derived from the config, as float32 of its shape; DamagedInput if it is not small."""

    def read_all() -> np.ndarray[Any, Any]:
        from hubclient.rows import FilePool, Reader

        if array.rows > _LARGEST_DERIVED:
            name = next(array.leaves()).ref.name
            raise DamagedInput(f"tensor {name} has {array.rows} elements; no model needs that many", tensor=name)
        with FilePool() as pool:
            return array.read(0, array.rows, Reader(pool).floats).reshape(array.shape)

    return read_all


def _fits(array: Array, encoding: Encoding, reader: Reader) -> bool:
    """Whether every value is one of `encoding`'s, or was computed from one: computed again, it is what is stored."""
    import numpy as np

    from hubclient.formats import codecs

    found = bare(array)
    part, operations = found if found else (array, ())
    off = sum(operation.inverse.rounding for operation in operations)
    step = max(1, _AT_ONCE // max(1, array.columns))
    for start in range(0, array.rows, step):
        stop = min(start + step, array.rows)
        values = array.read(start, stop, reader.floats)
        again = codecs.decode(codecs.encode(values, encoding), encoding, array.columns)
        if np.array_equal(values.view(np.uint32), again.view(np.uint32)):
            continue
        for operation in operations:
            again = operation.inverse.apply(again)
        stored = part.read(start, stop, reader.floats).view(np.int32).astype(np.int64)
        if not operations or np.abs(stored - again.view(np.int32)).max(initial=0) > off:
            return False
    return True
