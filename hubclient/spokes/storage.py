"""Which encoding each tensor of a GGUF gets, and what goes with that: by one type, as llama.cpp's converter has it; by a recipe, as
llama-quantize has it; or as it is stored already, from one GGUF to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubclient.errors import UsageError
from hubclient.formats import gguf
from hubclient.formats.encodings import BF16, ENCODINGS, F16
from hubclient.formats.ggml import USES_IMPORTANCE
from hubclient.formats.gguf.storage import CONVERTED, FILE_TYPES, file_type, stored_type
from hubclient.formats.model import Encoding, Value
from hubclient.model import Model, Quantization, Request, common, encodings_of

if TYPE_CHECKING:
    from hubclient.architectures.language.arrays import Array
    from hubclient.formats.gguf.imatrix import ImportanceMatrix
    from hubclient.formats.gguf.recipes import Recipe

_RECIPES = "without --pure it is a recipe"
RECORDED = "quantize."  # keys of what a file was quantised with
_NAMED = 3  # tensors that a note names


@dataclass(frozen=True, slots=True)
class Importance:
    """How much the columns of a tensor matter; the numbers are read when they are wanted, as those of many experts are many."""

    matrix: ImportanceMatrix
    name: str
    shape: tuple[int, ...]

    @property
    def matrices(self) -> int:
        """How many there are in the tensor: a stack's experts."""
        return self.shape[-3] if len(self.shape) > 2 else 1

    def read(self, first: int = 0, last: int | None = None) -> Any:
        """Mean squares of what each column of the matrices [first, last) is multiplied by: float32 (matrices, columns)."""
        return self.matrix.weights(self.name, self.shape, first, last)

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes are sent what there is of this tensor."""
        return Importance, (self.matrix.alone(self.name), self.name, self.shape)


@dataclass(frozen=True)
class Storage:
    """The encodings of a file's tensors by name, in the order of the arrays; `label` is the type's name, `number`
    general.file_type. `importance` is that of tensors that are quantised by it, `recorded` the keys
    that say where it is from. `notes` are worth a reader's while, and no loss.
    """

    label: str
    number: int
    encodings: Mapping[str, Encoding]
    importance: Mapping[str, Importance] = field(default_factory=dict)
    recorded: Mapping[str, Value] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def converted_type(model: Model, name: str) -> tuple[str, Encoding]:
    """What `--type` means for tensors that no recipe speaks of: itself if the converter has it; else the 16-bit type of the model,
    the first of bf16 and f16 among its matrices, or f16.
    """
    encoding = gguf.FORMAT.encoding(name) if name.upper() in CONVERTED else _plain(model)
    return encoding.name, encoding


def store(model: Model, request: Request, arrays: Mapping[str, Array], keys: Mapping[str, Value]) -> Storage:
    """How the arrays of a text part are stored; `keys` are the metadata of the architecture.

    Raises UsageError, UnsupportedEncoding, or DamagedInput for an importance matrix of another model.
    """
    wishes = request.quantization
    if request.type.lower() == "auto" and _is_packed(model):
        if wishes.chooses:
            raise UsageError("tensors stay as they are without --type, so there is nothing to choose for them; name a --type")
        encodings = {name: _as_stored(array) or _unpacked(model, name, array) for name, array in arrays.items()}
        return Storage(*_stated(model), encodings)
    by_recipe = wishes.chooses or request.type.upper() not in (*CONVERTED, "AUTO")
    return _by_recipe(model, request, arrays, keys) if by_recipe else _by_type(model, request.type, arrays)


def _by_type(model: Model, type_: str, arrays: Mapping[str, Array]) -> Storage:
    label, wanted = converted_type(model, type_)
    encodings = {name: _converted(name, array, wanted) for name, array in arrays.items()}
    return Storage(label, file_type(wanted, set(encodings.values())), encodings)


def _by_recipe(model: Model, request: Request, arrays: Mapping[str, Array], keys: Mapping[str, Value]) -> Storage:
    from hubclient.formats.gguf.choices import ModelFacts, Overrides, Tensor, require_importance, unused
    from hubclient.formats.gguf.choices import choose as by_recipe

    wishes, label = request.quantization, request.type
    recipe = _recipe(_plain(model).name if label.lower() == "auto" else label, pure=wishes.pure)
    if wishes.pure and (label.lower() == "auto" or recipe.name != recipe.type):
        raise UsageError(f"--pure takes one type for all tensors, and {label} is none; --type {recipe.type} is", hint=_RECIPES)
    overrides = Overrides.parse(wishes.tensor_types, wishes.output_type, wishes.embedding_type)
    alone = {
        name: (_as_stored(array) if _of_gguf(model) else None) or _unpacked(model, name, array) for name, array in arrays.items()
    }
    tensors = [Tensor(name, tuple(reversed(array.shape)), alone[name].name) for name, array in arrays.items()]
    importance, unknown = _importance(request, arrays)
    choices = by_recipe(recipe, ModelFacts.of(keys), tensors, importance.keys(), overrides)
    require_importance(choices, importance.keys())
    encodings = {name: ENCODINGS[choice.type] for name, choice in choices.items()}
    heeded = {name: own for name, own in importance.items() if encodings[name].name in USES_IMPORTANCE}
    fallen = {name: f"{choice.fallback_from} as {choice.type}" for name, choice in choices.items() if choice.fallback_from}
    left = [name for name in unknown if encodings[name].name in USES_IMPORTANCE]
    notes = [
        *(["--output-type decides nothing: the output is the embedding"] if _outvoted(wishes, arrays) else []),
        *(f"--tensor-type {text} decides nothing in this model" for text in unused(overrides, choices)),
        *_note(fallen, lambda name: f"{name} ({fallen[name]})", "rows are not whole blocks, so another type stands in: "),
        *_note(left, str, "quantised without importance, which the matrix has none of for "),
    ]
    return Storage(recipe.name, recipe.number, encodings, heeded, _recorded(request), tuple(notes))


def _outvoted(wishes: Quantization, arrays: Mapping[str, Array]) -> bool:
    return bool(wishes.output_type and wishes.embedding_type and "output.weight" not in arrays)


def _note(names: Any, spelled: Callable[[str], str], told: str) -> list[str]:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [told + ", ".join(map(spelled, names[:_NAMED])) + more] if names else []


def _recipe(name: str, *, pure: bool) -> Recipe:
    from hubclient.formats.gguf.recipes import recipe

    return recipe(name, pure=pure)


def _importance(request: Request, arrays: Mapping[str, Array]) -> tuple[dict[str, Importance], tuple[str, ...]]:
    """What is known of the columns, by tensor, and the tensors of which nothing is."""
    from hubclient.formats.gguf.imatrix import check_fits

    matrix = request.quantization.importance
    if matrix is None:
        return {}, ()
    shapes = {name: array.shape for name, array in arrays.items()}
    unknown = check_fits(matrix, shapes)
    known = (name for name, shape in shapes.items() if matrix.knows(name, shape))
    return {name: Importance(matrix, name, shapes[name]) for name in known}, unknown


def _recorded(request: Request) -> dict[str, Value]:
    from hubclient.formats.gguf.imatrix import recorded

    matrix = request.quantization.importance
    return {} if matrix is None else recorded(matrix, matrix.source.name if matrix.source else "computed")


def _converted(name: str, array: Array, wanted: Encoding) -> Encoding:
    """The encoding of a tensor by the converter's rules: its name, and what it is made of."""
    sources = encodings_of(array)
    return stored_type(name, array.shape, wanted, sources.pop() if len(sources) == 1 and array.moves_rows else None)


def _unpacked(model: Model, name: str, array: Array) -> Encoding:
    """The encoding of a tensor that is left alone and cannot be as it is stored."""
    return _converted(name, array, _plain(model))


def _as_stored(array: Array) -> Encoding | None:
    """The one encoding whose bytes can move as they are, if GGUF has it."""
    encoding = common(array)
    return encoding if encoding is not None and encoding.ggml is not None else None


def _plain(model: Model) -> Encoding:
    """The 16-bit type of a model's matrices."""
    for array in model.tensors.values():
        if len(array.shape) > 1:
            for encoding in encodings_of(array):
                if encoding in (BF16, F16):
                    return encoding
    return F16


def _of_gguf(model: Model) -> bool:
    return model.opened.format == "gguf"


def _is_packed(model: Model) -> bool:
    """Whether this is a quantised GGUF."""
    return _of_gguf(model) and any(ref.encoding.blocked for ref in model.opened.tensors.values())


def _stated(model: Model) -> tuple[str, int]:
    """Name and number of a quantised GGUF's file type: as the file says, else that of the encoding of most bytes, if there is one
    of its name, else of the 16-bit type.
    """
    from hubclient.formats.gguf.recipes import ALIASES

    stated = model.opened.metadata.get("general.file_type")
    for name, number in FILE_TYPES.items():
        if stated is not None and stated.value == number:
            return name, number
    sizes: dict[str, int] = {}
    for ref in model.opened.tensors.values():
        sizes[ref.encoding.name] = sizes.get(ref.encoding.name, 0) + ref.nbytes
    label = max(sizes, key=lambda name: sizes[name])
    kind = ALIASES.get(label, label)
    return label, FILE_TYPES[kind if kind in FILE_TYPES else F16.name]
