"""Which type each tensor of a quantised GGUF becomes: a recipe, a model's facts and the user's own wishes, put together.

`choose` makes the choices of llama-quantize (llama_tensor_get_type in llama.cpp's src/llama-quant.cpp), tensor for tensor.
Names and types alone decide; no weight is looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hubclient.errors import UsageError
from hubclient.formats.encodings import ENCODINGS
from hubclient.formats.ggml import NEEDS_IMPORTANCE
from hubclient.formats.gguf.recipes import Recipe
from hubclient.formats.gguf.rules import Case, Position, Rule, Setting, role_of
from hubclient.formats.gguf.ruletables import parse_pattern, parse_type
from hubclient.formats.model import Value

_LAST_RESORT = "F16"  # where rows are whole blocks of neither a type nor its fallback
_SMALL_BLOCK = 32  # types with larger blocks need a fallback of their own
_BLOCK_NUMBER = re.compile(r"blk\.(\d+)")
_PER_LAYER = "per_layer_token_embd.weight"
_COUNTED = ("attn_v", "ffn_up", "ffn_gate", "ffn_down")


class Tensor(NamedTuple):
    """A tensor as choices see it: GGUF name, sizes in ggml's order (row length first), the type that it would have if it were
    not quantised: that of the source, if the source is a GGUF.
    """

    name: str
    ne: Sequence[int]
    source: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What recipes ask of a model: general.architecture, and the counts that GGUF keys have. Heads are those of block 0."""

    architecture: str
    blocks: int
    experts: int = 0
    heads: int = 0
    kv_heads: int = 0

    @property
    def gqa(self) -> int:
        """How many heads share a key, rounded down; 0 without attention."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @classmethod
    def of(cls, metadata: Mapping[str, Value]) -> ModelFacts:
        """From the keys of a GGUF; a count that is missing is 0, and of keys and values there are as many as of heads."""
        architecture = str(metadata["general.architecture"].value) if "general.architecture" in metadata else ""

        def count(key: str, otherwise: int = 0) -> int:
            value = metadata[f"{architecture}.{key}"].value if f"{architecture}.{key}" in metadata else otherwise
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = value[0] if value else 0
            return value if isinstance(value, int) and value > 0 else 0

        heads = count("attention.head_count")
        kv_heads = count("attention.head_count_kv", heads)
        return cls(architecture, count("block_count"), count("expert_count"), heads, kv_heads)


class TypePattern(NamedTuple):
    """A wish for tensors of certain names, and how it was spelled."""

    pattern: re.Pattern[str]
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Overrides:
    """The user's own wishes, which go before every rule; the first pattern that is found in a name counts."""

    patterns: tuple[TypePattern, ...] = ()
    output: str | None = None
    embedding: str | None = None

    @classmethod
    def parse(
        cls, tensor_types: Iterable[str] = (), output_type: str | None = None, embedding_type: str | None = None
    ) -> Overrides:
        """From the texts of `--tensor-type PATTERN=TYPE`, `--output-type` and `--embedding-type`.

        Patterns are regular expressions that are searched for in names, as in llama-quantize. Raises UsageError.
        """
        return cls(
            tuple(_type_pattern(text) for text in tensor_types),
            parse_type(output_type, "--output-type") if output_type is not None else None,
            parse_type(embedding_type, "--embedding-type") if embedding_type is not None else None,
        )


NO_OVERRIDES = Overrides()


class Choice(NamedTuple):
    """The type that a tensor becomes, and why.

    `fallback_from` is the type that was meant for it, if its rows are not whole blocks of that; `needs_importance` says
    that it is not to be made without an importance matrix.
    """

    type: str
    reason: str
    fallback_from: str | None = None
    needs_importance: bool = False


def choose(
    recipe: Recipe,
    facts: ModelFacts,
    tensors: Sequence[Tensor],
    importance: bool | Collection[str] = False,
    overrides: Overrides = NO_OVERRIDES,
) -> dict[str, Choice]:
    """The choice for each tensor, by name, in the order of `tensors`.

    `importance` says whether there is an importance matrix (or which tensors it speaks of: some recipes differ with one);
    `require_importance` says whether it is enough. Raises UsageError where nothing stands in for a type that a tensor's rows
    do not fit.
    """
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    setting = Setting(facts.architecture, facts.blocks, facts.experts, facts.gqa, tied, bool(importance))
    places = _Places(setting, tensors)
    keep = [left for rule in recipe.keep if (left := rule.within(setting))]
    rules = [left for rule in recipe.rules if (left := rule.within(setting))]
    chosen: dict[str, Choice] = {}
    for tensor in sorted(tensors, key=_order):  # places are counted in the order of llama.cpp's loader
        role = role_of(tensor.name, tied)
        chosen[tensor.name] = _kept(tensor, role, keep) or _finished(
            recipe, tensor, role, _wished(tensor, role, overrides) or _by_rules(recipe, rules, tensor, role, places)
        )
    return {tensor.name: chosen[tensor.name] for tensor in tensors}


def require_importance(choices: Mapping[str, Choice], importance: bool | Collection[str]) -> None:
    """Raises UsageError that names a tensor which needs an importance matrix, and for which there is none."""
    for name, choice in choices.items():
        covered = importance if isinstance(importance, bool) else name in importance
        if choice.needs_importance and not covered:
            option = {"token_embd.weight": "--embedding-type", _PER_LAYER: "--embedding-type", "output.weight": "--output-type"}
            other = f"{option[name]} makes it another type" if name in option else "--tensor-type makes it another type"
            raise UsageError(
                f"{name}: {choice.type} needs an importance matrix, and there is none for this tensor; {other}",
                hint="`hubclient imatrix SOURCE --text FILE` computes one; --imatrix FILE takes it",
            )


def unused(overrides: Overrides, choices: Mapping[str, Choice]) -> tuple[str, ...]:
    """Those of the user's patterns that decided nothing, as they were spelled."""
    reasons = {choice.reason for choice in choices.values()}
    return tuple(pattern.text for pattern in overrides.patterns if _reason(pattern) not in reasons)


def requantised(choices: Mapping[str, Choice], tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """Names of tensors that are quantised in the source, and would be again to another type."""
    return tuple(
        tensor.name for tensor in tensors if ENCODINGS[tensor.source].blocked and choices[tensor.name].type != tensor.source
    )


def bits_per_weight(choices: Mapping[str, Choice], tensors: Iterable[Tensor]) -> float:
    """Bits of all tensors' data by their number of elements."""
    size = count = 0
    for tensor in tensors:
        shape = tuple(reversed(tensor.ne))
        size += ENCODINGS[choices[tensor.name].type].nbytes(shape)
        count += ENCODINGS["I8"].nbytes(shape)
    return 8 * size / count if count else 0.0


def _type_pattern(text: str) -> TypePattern:
    pattern, separator, wanted = text.rpartition("=")
    if not (pattern and separator and wanted):
        raise UsageError(f"--tensor-type: {text!r} is not PATTERN=TYPE, such as attn_v=Q8_0")
    return TypePattern(parse_pattern(pattern, "--tensor-type"), parse_type(wanted, "--tensor-type"), text)


def _order(tensor: Tensor) -> tuple[int, str]:
    """llama.cpp's weight_name_comparer: by block, then by name."""
    found = _BLOCK_NUMBER.match(tensor.name)
    return (int(found[1]) if found else -1, tensor.name)


class _Places:
    """Where tensors stand among those of their role, counted as they come."""

    def __init__(self, setting: Setting, tensors: Iterable[Tensor]) -> None:
        self._setting = setting
        self._values = sum(role_of(tensor.name, setting.tied) == "attn_v" for tensor in tensors)
        self._seen: Counter[str] = Counter()

    def next(self, name: str, role: str) -> tuple[Position | None, Position | None]:
        """The place of the next tensor, and the place by counting, which differs in a mixture of experts."""
        blocks = self._setting.blocks
        found = _BLOCK_NUMBER.match(name)
        block = Position(int(found[1]), blocks) if found else None
        if role not in _COUNTED:
            return block, block
        counted = Position(self._seen[role], self._values if role == "attn_v" else blocks)
        self._seen[role] += 1
        return (counted if role == "attn_v" or self._setting.experts <= 1 else block), counted


def _kept(tensor: Tensor, role: str, keep: Iterable[Rule]) -> Choice | None:
    """The choice for a tensor that no recipe touches."""
    if sum(size > 1 for size in tensor.ne[1:]) == 0:
        return Choice(tensor.source, "kept: one row")
    if not tensor.name.endswith("weight"):
        return Choice(tensor.source, "kept: no weight")
    if tensor.source not in ("F32", "F16", "BF16", "F64") and not ENCODINGS[tensor.source].blocked:
        return Choice(tensor.source, "kept: integers")
    case = Case(tensor.name, role, None, None, fits=True, stacked=_stacked(tensor))
    return Choice(tensor.source, "kept: left alone by the recipe") if any(rule.applies(case) for rule in keep) else None


def _wished(tensor: Tensor, role: str, overrides: Overrides) -> Choice | None:
    """The choice that the user made; embedding and output first, as in llama-quantize."""
    found = next((pattern for pattern in overrides.patterns if pattern.pattern.search(tensor.name)), None)
    embedding = role == "embedding" or (role == "output" and tensor.name != "output.weight")
    if overrides.embedding and embedding and not (found and tensor.name == _PER_LAYER):
        return Choice(overrides.embedding, "--embedding-type")
    if overrides.output and tensor.name == "output.weight":
        return Choice(overrides.output, "--output-type")
    if found:
        return Choice(found.type, _reason(found))
    if overrides.output and role == "output":
        return Choice(overrides.output, "--output-type: the embedding is the output")
    return None


def _reason(pattern: TypePattern) -> str:
    return f"--tensor-type {pattern.text}"


def _by_rules(recipe: Recipe, rules: Iterable[Rule], tensor: Tensor, role: str, places: _Places) -> Choice:
    position, counted = places.next(tensor.name, role)
    fits = tensor.ne[0] % ENCODINGS[recipe.type].block == 0
    case = Case(tensor.name, role, position, counted, fits, _stacked(tensor), recipe.type)
    reason = f"{recipe.name}: all else"
    for rule in rules:
        if rule.applies(case):
            case.was, reason = rule.type, f"{recipe.name}: {rule.words}"
    return Choice(case.was, reason)


def _finished(recipe: Recipe, tensor: Tensor, role: str, choice: Choice) -> Choice:
    """The same, or what stands in for it; and whether that needs importance."""
    made = _fitting(recipe, tensor, choice.type)
    needs = made in NEEDS_IMPORTANCE or (made in recipe.needs_importance and role not in ("embedding", "output"))
    return Choice(made, choice.reason, None if made == choice.type else choice.type, needs and made != tensor.source)


def _fitting(recipe: Recipe, tensor: Tensor, wanted: str) -> str:
    columns, block = tensor.ne[0], ENCODINGS[wanted].block
    if columns % block == 0:
        return wanted
    other = recipe.fallback.get(wanted)
    if other is None and block > _SMALL_BLOCK:
        raise UsageError(
            f"{tensor.name}: a row of {columns} is not a whole number of {wanted} blocks of {block}, and nothing stands in for "
            f"{wanted}",
            hint=f"--tensor-type makes this tensor another type; in a recipe file, fallback = {{ {wanted} = ... }} names one",
        )
    return other if other is not None and columns % ENCODINGS[other].block == 0 else _LAST_RESORT


def _stacked(tensor: Tensor) -> bool:
    return len(tensor.ne) > 2 and tensor.ne[2] > 1
