"""Architecture: one declaration, both directions. Everything a family module says is one of these values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from hubclient.architectures.language.config import Default
from hubclient.architectures.language.expressions import Expr, evaluate
from hubclient.architectures.language.layouts import Layout
from hubclient.architectures.language.pairs import Pairs
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.architectures.language.schedules import Schedule, offset_of, period_of
from hubclient.errors import DamagedInput

# Hugging Face names and shapes of a model's tensors. Where look-alikes are told apart on the way back, also the target's
# tensors that the layout has no rule for, under their own names, and metadata values by key.
Shapes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class present:  # noqa: N801 - reads as a word in the tables
    """True if the model has this tensor, or any that fits the pattern."""

    name: str

    def of(self, tensors: Shapes) -> bool:
        """The fact for a model."""
        return _has(tensors, self.name)


@dataclass(frozen=True, slots=True)
class absent:  # noqa: N801
    """True if the model lacks this tensor, or any that fits the pattern."""

    name: str

    def of(self, tensors: Shapes) -> bool:
        """The fact for a model."""
        return not _has(tensors, self.name)


@dataclass(frozen=True, slots=True)
class rows_of:  # noqa: N801
    """The number of rows of a tensor, None if the model lacks it or it is a scalar."""

    name: str

    def of(self, tensors: Shapes) -> int | None:
        """The fact for a model."""
        shape: tuple[int, ...] | None = tensors.get(self.name)
        return shape[0] if shape else None


@dataclass(frozen=True, slots=True)
class columns_of:  # noqa: N801
    """The length of a tensor's rows, None if the model lacks it or it is a scalar."""

    name: str

    def of(self, tensors: Shapes) -> int | None:
        """The fact for a model."""
        shape: tuple[int, ...] | None = tensors.get(self.name)
        return shape[-1] if shape else None


@dataclass(frozen=True, slots=True)
class rows_per_column:  # noqa: N801
    """How often the length of a tensor's rows goes into their number, None if it does not or the model lacks the tensor."""

    name: str

    def of(self, tensors: Shapes) -> int | None:
        """The fact for a model."""
        shape: tuple[int, ...] | None = tensors.get(self.name)
        whole, rest = divmod(shape[0], shape[-1]) if shape and shape[-1] else (0, 0)
        return None if rest else whole or None


NULL: Any = object()
"""For `given`: config.json says null, where a key that is left out means something else."""


@dataclass(frozen=True, slots=True)
class given:  # noqa: N801
    """A value that the config has if the model has this tensor, or any that fits the pattern, and the one that it has
    otherwise; None says nothing.
    """

    name: str
    value: Any
    otherwise: Any = None

    def of(self, tensors: Shapes) -> Any:
        """The fact for a model."""
        return self.value if _has(tensors, self.name) else self.otherwise


@dataclass(frozen=True, slots=True)
class says:  # noqa: N801
    """True if the metadata has this value under this key; for telling look-alikes apart."""

    key: str
    value: Any

    def of(self, tensors: Shapes) -> bool:
        """The fact for a file."""
        return bool(tensors.get(self.key) == self.value)


@dataclass(frozen=True, slots=True)
class all_of:  # noqa: N801
    """True if all these facts hold."""

    facts: tuple[Fact, ...]

    def __init__(self, *facts: Fact) -> None:
        object.__setattr__(self, "facts", facts)

    def of(self, tensors: Shapes) -> bool:
        """The fact for a model or file."""
        return all(fact.of(tensors) for fact in self.facts)


def _has(tensors: Shapes, name: str) -> bool:
    if "{" not in name:
        return name in tensors
    wanted = Pattern.of(name).template
    end = name.rpartition("}")[2]
    return any(other.endswith(end) and template(other)[0] == wanted for other in tensors)


Fact = present | absent | rows_of | columns_of | rows_per_column | given | period_of | offset_of | says | all_of


@dataclass(frozen=True, slots=True)
class Placement:
    """Which modules stay whole, in which order they run, and what a token of context costs.

    `block` is the pattern of a repeated module, `first` and `last` the modules around the blocks, by Hugging Face name or
    pattern (an encoder's blocks before the decoder's).
    `tied` maps a module to the one whose weight it shares. `kv_elements` is the number of cached elements per token and
    block (keys and values), None for models without a cache; `window` names the config key that limits the tokens cached.
    `state_elements` is the size of a block's recurrent state, which does not grow with the context. `kv_in`, `window_in`
    and `state_in` say in which blocks, None in all. `experts` are patterns of modules within a block that may be
    offloaded before anything else. `renamed` are modules that some releases of Transformers call otherwise than the
    checkpoints do.
    """

    block: str
    first: tuple[str, ...]
    last: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    kv_elements: Expr | None = None
    kv_in: Schedule | None = None
    window: str | None = None
    window_in: Schedule | None = None
    state_elements: Expr | None = None
    state_in: Schedule | None = None
    experts: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def within(self, hf: str) -> Placement:
        """The same as a part of a larger model: all modules behind `hf` and a dot."""
        begin = f"{hf}." if hf else ""
        return replace(
            self,
            block=begin + self.block,
            first=tuple(begin + name for name in self.first),
            last=tuple(begin + name for name in self.last),
            tied={begin + name: begin + other for name, other in self.tied.items()},
        )


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model family, as Hugging Face names it and as each format lays it out.

    name          what hubclient calls it
    hf            class names of config.json's `architectures`; the first is the usual one (see also `headless`)
    model_type    config.json's `model_type`
    config        pairs of config keys and metadata keys
    nested        model_type of the text_config that most of config.json lies in; empty if it lies at the top
    outer         keys that lie at the top beside it
    projector     pairs for the file of the projector (layout "mmproj"), if the model has one
    token_rows    vectors in that file that repeat a token's row of an embedding: {"v.x": ("embed.weight", "[TOKEN]")}
    projector_assumed  what readers of that file take for granted, as `assumed`
    defaults      what Transformers assumes when config.json leaves a key out
    layouts       per format: tensor names and transforms; Hugging Face names carry `prefix`
    prefix        the part of tensor names ("model.") that some classes leave out
    blocks        the config key that counts blocks (capture "i")
    repeats       what counts the blocks of other captures: {"j": "num_decoder_layers"}
    spellings     older last components of tensor names: {"gamma": "weight"}
    prefixes      other beginnings of tensor names that mean the same: {"model.language_model.": "language_model.model."}
    implied       config values that a set of tensors tells (tied embeddings, biases, sizes); a size that the config
                  gives otherwise is a contradiction
    shapes        sizes of Hugging Face tensors, by pattern, as expressions over the config; a tensor that contradicts
                  them is refused
    assumed       what readers of a format take for granted, by config path: a tuple of values, or an expression that
                  also fills the value in on the way back; a model that differs is reported as a loss
    when          tells look-alikes apart on the way back: this declaration is meant if the fact holds
    look_alike    the name of the declaration that files are read as when nothing tells the two apart
    tokenizer     how the family's tokenizer is stored in GGUF, see hubclient.formats.tokenizers
    aliases       other spellings of config keys, as old files have them: {"n_embed": "hidden_size"}
    placement     what fits where
    """

    name: str
    hf: tuple[str, ...]
    model_type: str
    config: Pairs
    layouts: Mapping[str, Layout]
    placement: Placement
    defaults: Mapping[str, Default] = field(default_factory=lambda: MappingProxyType({}))
    prefix: str = ""
    blocks: str = "num_hidden_layers"
    repeats: Mapping[str, Expr] = field(default_factory=lambda: MappingProxyType({}))
    prefixes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    projector: Pairs = ()
    token_rows: Mapping[str, tuple[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    projector_assumed: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))
    nested: str = ""
    outer: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    implied: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))
    shapes: Mapping[str, tuple[Expr, ...]] = field(default_factory=lambda: MappingProxyType({}))
    assumed: Mapping[str, tuple[Any, ...] | Expr] = field(default_factory=lambda: MappingProxyType({}))
    when: Fact | None = None
    look_alike: str | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """TypeError where a word says less than it seems to."""
        for name in ("hf", "config", "projector", "outer"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"{self.name}: {name} is {getattr(self, name)!r:.60}, which must be a tuple: ({name}=(...,))")
        for space, layout in self.layouts.items():
            if not isinstance(layout, Layout):
                raise TypeError(f"{self.name}: the layout {space!r} is {layout!r:.60}, which must be made by Layout.of")

    def claims(self) -> frozenset[str]:
        """The names this declaration answers to, by space: "hf.LlamaForCausalLM", "gguf.llama"."""
        return frozenset({f"hf.{name}" for name in self.hf} | {f"{space}.{self.name_in(space)}" for space in self.layouts})

    def counts(self, config: Mapping[str, Any]) -> dict[str, int]:
        """How many blocks of each capture a config announces; 0 where it says nothing usable."""
        result = {}
        for capture, size in {"i": self.blocks, **self.repeats}.items():
            try:
                result[capture] = evaluate(size, config)
            except DamagedInput:
                result[capture] = 0
        return result

    @staticmethod
    def headless(hf_class: str) -> bool:
        """Whether a class is the bare model, whose tensors are stored without `prefix`: "LlamaModel", not "GPT2LMHeadModel"."""
        return hf_class.endswith("Model") and not hf_class.endswith(("HeadModel", "HeadsModel"))

    def within(self, hf: str = "", **targets: str) -> Architecture:
        """The same as a part of a larger model: Hugging Face names behind `hf` and a dot, a format's behind `targets`."""
        begin = f"{hf}." if hf else ""
        return replace(
            self,
            layouts={space: layout.within(hf, targets.get(space, "")) for space, layout in self.layouts.items()},
            implied={key: _behind(begin, fact) for key, fact in self.implied.items()},
            shapes={begin + name: sizes for name, sizes in self.shapes.items()},
            prefix="" if hf else self.prefix,
            placement=self.placement.within(hf),
        )

    def name_in(self, space: str) -> str:
        """What a format calls this architecture."""
        return (self.layouts[space].name if space in self.layouts else "") or self.name

    def knows(self, space: str, name: str) -> bool:
        """Whether there is a layout for a format, and it covers this Hugging Face name."""
        return space in self.layouts and self.layouts[space].knows(name, "hf")

    @property
    def derived(self) -> dict[str, Any]:
        """What is computed from the config, by the name that any format has for it."""
        return {name: value for layout in self.layouts.values() for name, value in layout.derive.items()}


def _behind(begin: str, fact: Fact) -> Fact:
    """A fact about a tensor of that name in a larger model."""
    named = present | absent | rows_of | columns_of | rows_per_column | given | period_of | offset_of
    return replace(fact, name=begin + fact.name) if isinstance(fact, named) else fact
