"""The canonical view of a checkpoint: Hugging Face names, lazy arrays, one spelling of the config.

Every format is a spoke to it (see hubclient.spokes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubclient.architectures.language.arrays import Array, Leaf
from hubclient.formats.model import Encoding, OpenedCheckpoint, OutputSpec, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubclient.architectures.language.declaration import Architecture
    from hubclient.formats.gguf.imatrix import ImportanceMatrix
    from hubclient.formats.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that a leaf holds itself instead of a file: a tensor derived from the config."""

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    data: bytes
    big_endian: bool = False


@dataclass(frozen=True, slots=True)
class Naming:
    """How a checkpoint spells tensor names: with the architecture's prefix or without, which older last components, which
    other beginnings.
    """

    prefixed: bool = True
    older: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packed:
    """What a folder holds in place of tensors that it has packed into several each; `parts` is by those tensors' stored names,
    and has what the numbers are in first.

    A copy holds `parts` and `aside` again, under their names. Whoever unpacks gives up `aside`, and says `losses`. `unread`
    is a sentence on why weights cannot be unpacked, so that a copy is all that can be made; empty if they can.
    """

    parts: Mapping[str, Mapping[str, Leaf]] = field(default_factory=dict)
    aside: Mapping[str, Leaf] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    unread: str = ""


@dataclass(frozen=True)
class Model:
    """A checkpoint through its architecture.

    `config` is normalised (see hubclient.architectures.language.config), `raw_config` is config.json's content as the checkpoint
    has it or as it was rebuilt. `tensors` are the Hugging Face tensors under full names (with the architecture's prefix).
    `dtypes` says which encoding a Hugging Face checkpoint of this model has per tensor, where that is known; `fitting`
    names tensors stored wider than that whose values were found to fit it; `pre` is the name of the pre-tokenizer if the
    checkpoint says it by name; `metadata` are further keys that a file of the same format keeps; `files` are small files that travel along; `losses` is what reading already had to give up, `lacking` names parts of the model
    that the source does not have (the vision part of a text model's file): a loss where all parts belong in one place;
    `packed` says how the source stores tensors that are several there; `tokenizer_keys` are those of GGUF by the name of the
    pre-tokenizer, once they were made, for the next of several outputs.
    """

    opened: OpenedCheckpoint
    architecture: Architecture
    hf_class: str
    config: Mapping[str, Any]
    raw_config: Mapping[str, Any]
    tensors: Mapping[str, Array]
    naming: Naming = field(default_factory=Naming)
    dtypes: Mapping[str, Encoding] = field(default_factory=dict)
    fitting: frozenset[str] = frozenset()
    files: Mapping[str, bytes] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    packed: Packed = field(default_factory=Packed)
    pre: str | None = None
    metadata: Mapping[str, Value] = field(default_factory=dict)
    load_tokenizer: Callable[[], Tokenizer | None] = lambda: None
    tokenizer_keys: dict[str | None, Mapping[str, Value]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, read when first asked for; None if the checkpoint has none."""
        return self.load_tokenizer()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the Hugging Face tensors."""
        return {name: array.shape for name, array in self.tensors.items()}

    @property
    def layers(self) -> int:
        """Number of blocks."""
        value = self.config.get(self.architecture.blocks)
        return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Wishes about quantised tensors, beside the type.

    For GGUF: `tensor_types` are texts PATTERN=TYPE, the patterns regular expressions that are searched for in tensor names;
    `output_type` and `embedding_type` are those of two tensors; `pure` makes everything that would be quantised the one type;
    `importance` is an importance matrix (`hubclient.read_imatrix`).
    For all formats: `requantize` allows blocks to be unpacked and packed as others; `nonfinite` quantises NaN as 0 and infinities as the largest finite number of their row instead of refusing
    them; `measure` finds out how far values are off.
    """

    tensor_types: tuple[str, ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    pure: bool = False
    importance: ImportanceMatrix | None = None
    requantize: bool = False
    nonfinite: bool = False
    measure: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """What of it decides about types of tensors, as the command line calls it."""
        asked = {
            "--tensor-type": self.tensor_types, "--output-type": self.output_type, "--embedding-type": self.embedding_type,
            "--pure": self.pure, "--imatrix": self.importance,
        }  # fmt: skip
        return tuple(name for name, value in asked.items() if value)

    @property
    def chooses(self) -> bool:
        """Whether any of it decides about types of tensors, so that a recipe is needed."""
        return bool(self.options)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of an output: type name ("auto", "f16", "Q8_0", "4bit") or recipe, an override of the pre-tokenizer's name,
    shard size, a part alone, how many numbers share a scale where the type leaves that open, and wishes about quantising.
    """

    type: str = "auto"
    pre: str | None = None
    max_shard_size: int | None = None
    only: str | None = None
    group_size: int | None = None
    quantization: Quantization = field(default_factory=Quantization)


@dataclass(frozen=True, slots=True)
class Target:
    """An output as a spoke describes it: the specification, the array behind each of its tensors, and what is given up.

    `fitting` names tensors whose values were found to fit their narrower encoding. `dropped` lists tensors that were left out because they can be recomputed; that is no loss.
    `before` is put before the output's name, for a part of a model that has a file of its own beside the other. `importance`
    is that of the columns of tensors that are quantised, `nonfinite` and `measured` hold for all of these (see `plan.Step`).
    `notes` are worth a reader's while, and no loss.
    """

    spec: OutputSpec
    arrays: tuple[Array, ...]
    type: str
    fitting: frozenset[str] = frozenset()
    losses: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    before: str = ""
    importance: Mapping[str, Any] = field(default_factory=dict)
    nonfinite: bool = False
    measured: bool = False
    notes: tuple[str, ...] = ()


def display_name(path: Path) -> str:
    """What to call a checkpoint: the repository's name if its folder is a cache snapshot, else the folder's or file's."""
    path = path.absolute() if path.name not in ("", ".", "..") else path.resolve()  # a link keeps its own name
    if path.is_file():
        return path.stem
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rsplit("--", 1)[-1]
    return path.name or "model"


def encodings_of(array: Array) -> set[Encoding]:
    """The encodings of the stored tensors behind an array."""
    if isinstance(array, Leaf):  # nearly all; a plan of 90,000 tensors asks several times
        return {array.ref.encoding}
    return {leaf.ref.encoding for leaf in array.leaves()}


def common(array: Array) -> Encoding | None:
    """The one encoding in which an array can be read without decoding; None if it must be read as float32."""
    own = encodings_of(array)
    if len(own) != 1:
        return None
    (encoding,) = own
    if encoding.blocked:
        return encoding if array.moves_rows and len(array.shape) > 1 else None
    return encoding if array.moves_elements else None


def leaf(ref: Any) -> Leaf:
    """A stored tensor as an array."""
    return Leaf(ref.shape, ref)
