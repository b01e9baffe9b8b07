"""Shapes of a made-up model's tensors: what the declaration says, else the first that its transform takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product as pairings
from typing import TYPE_CHECKING, Any

from hubclient.architectures import columns_of, rows_of
from hubclient.architectures.language.arrays import Leaf
from hubclient.architectures.language.expressions import evaluate
from hubclient.architectures.language.patterns import Pattern, template
from hubclient.errors import DamagedInput
from hubclient.testing.faults import refuse
from hubclient.testing.sizes import expressions, size_of, spelled, values_of

if TYPE_CHECKING:
    from hubclient.architectures import Architecture
    from hubclient.architectures.language.tables import Rule

Shape = tuple[int, ...]
_ENOUGH = 20000  # candidates tried before the author is asked


class Shaper:
    """Finds shapes by pattern for one declaration and config."""

    def __init__(self, architecture: Architecture, config: Mapping[str, Any]) -> None:
        self._architecture, self._config = architecture, config
        self._declared = [(Pattern.of(text), sizes) for text, sizes in architecture.shapes.items()]
        self._sizes = [size for size in values_of(architecture, config) if size > 1]
        self._usual = self._hidden()
        self.undeclared: set[str] = set()
        self.found: dict[str, Shape] = {}

    def shape(self, pattern: Pattern, rules: Sequence[Rule]) -> Shape:
        """The shape of the tensors that a Hugging Face pattern names; `rules` are those of all layouts that take it."""
        if pattern.text not in self.found:
            declared = self.declared(pattern)
            if declared is not None:
                self.found[pattern.text] = declared
            else:
                strictest = max(rules, key=lambda rule: len(list(expressions(rule.transform))) + len(rule.hf), default=None)
                found = self._search(strictest) if strictest else {pattern.text: next(self._candidates(pattern.text, ()))}
                self.undeclared |= {text for text in found if self.declared(Pattern.of(text)) is None}
                self.found |= found
        return self.found[pattern.text]

    def declared(self, pattern: Pattern) -> Shape | None:
        """What `shapes` says of a pattern, None if nothing."""
        for other, sizes in self._declared:
            if other.template == pattern.template and _covers(other, pattern):
                return tuple(evaluate(size, self._config) for size in sizes)
        return None

    def _search(self, rule: Rule) -> dict[str, Shape]:
        """Shapes for the Hugging Face tensors of a rule that its transform takes and that agree with what is declared."""
        local = self._local_sizes(rule)
        fixed = {pattern.text: shape for pattern in rule.hf if (shape := self.found.get(pattern.text) or self.declared(pattern))}
        spread = rule.transform.spread
        one_way = len(rule.hf) == 1 and not spread
        side = rule.hf if one_way else rule.target
        candidates: Iterator[tuple[Shape, ...]]
        if spread:
            count = evaluate(spread[1], self._config)
            candidates = (((count, *shape),) for shape in self._candidates(rule.hf[0].text, local[1:]))
        elif len(side) == 1:
            candidates = ((shape,) for shape in self._candidates(rule.hf[0].text, local, self._spelled(rule)))
        else:
            candidates = pairings(*(list(self._candidates(pattern.text, local))[:40] for pattern in side))
        step: Callable[..., Any] = rule.transform.forward if one_way else rule.transform.backward
        for number, shapes in enumerate(candidates):
            made = _tried(step, shapes, self._config)
            if made is not None:
                result = dict(zip((p.text for p in rule.hf), shapes if one_way else made, strict=False))
                if all(result[name] == shape for name, shape in fixed.items()) and self._agrees(result):
                    return result
            if number > _ENOUGH:
                break
        names = ", ".join(pattern.text for pattern in rule.hf)
        return refuse(
            f"{self._architecture.name}: the kit finds no shape for {names} that its transform takes; say it in shapes="
            f"{{{rule.hf[0].text!r}: (...)}}, or give the kit other sizes with `config`"
        )

    def _candidates(self, name: str, local: Sequence[int], whole: Sequence[Shape] = ()) -> Iterator[Shape]:
        """Shapes from the likely to the unlikely: vectors for biases and norms, matrices for the rest, then more axes."""
        sizes = list(dict.fromkeys((*local, self._usual, *self._sizes)))
        yield from whole
        vectors = [(size,) for size in (sizes if local else (self._usual, *sizes))]
        matrices = [(size, self._usual) for size in sizes] + [(one, two) for one in sizes for two in sizes]
        last = name.rpartition(".")[2]
        flat = last != "weight" or "norm" in name.lower() or ".ln" in name
        yield from (*vectors, *matrices) if flat else (*matrices, *vectors)
        few = sizes[:8]
        yield from ((one, two, three) for one in few for two in (1, *few) for three in few)
        yield from ((one, two, three, three) for one in few for two in few for three in few)

    def _agrees(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether shapes have the sizes that `implied` reads from them."""
        for key, fact in self._architecture.implied.items():
            if isinstance(fact, rows_of | columns_of):
                for text, shape in shapes.items():
                    if _covers(Pattern.of(text), Pattern.of(fact.name)) and fact.of({fact.name: shape}) != size_of(
                        key, self._config
                    ):
                        return False
        return True

    def _spelled(self, rule: Rule) -> list[Shape]:
        """Shapes that a transform spells out (a reshape does), the usual width in the place of what it leaves open."""
        made = (
            [self._usual if item is None else size_of(item, self._config) for item in each] for each in spelled(rule.transform)
        )
        return [tuple(size for size in shape if size) for shape in made if None not in shape]

    def _local_sizes(self, rule: Rule) -> list[int]:
        """Sizes that a transform speaks of, sums and products of neighbours among them, the most telling first."""
        told = [size for item in expressions(rule.transform) if (size := size_of(item, self._config)) is not None]
        stretches = [
            told[first:last]
            for length in range(len(told), 0, -1)
            for first in range(len(told))
            if (last := first + length) <= len(told)
        ]
        sums = [sum(stretch) for stretch in stretches]
        products = [told[0] * sum(told[1:]), *(one * two for one in told for two in told)] if told else []
        return [size for size in dict.fromkeys((*sums, *products)) if size]

    def _hidden(self) -> int:
        """The width of the model: what most of the declared shapes, or the embedding, have for their last axis."""
        last = [size for _, sizes in self._declared if sizes and (size := size_of(sizes[-1], self._config)) is not None]
        return max(last, key=last.count) if last else next((size for size in self._sizes if size % 32 == 0), 64)


def _tried(step: Callable[..., Any], shapes: Sequence[Shape], config: Mapping[str, Any]) -> tuple[Shape, ...] | None:
    try:
        return tuple(array.shape for array in step(tuple(Leaf(shape, None) for shape in shapes), config))
    except DamagedInput:
        return None


def _covers(general: Pattern, special: Pattern) -> bool:
    """Whether every name of `special` is one of `general`."""
    if template(general.text)[0] != template(special.text)[0] and general.template != special.template:
        return False
    return len(general.slots) == len(special.slots) and all(
        one == two or one.startswith("{") for one, two in zip(general.slots, special.slots, strict=True)
    )
