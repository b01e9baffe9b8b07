"""Small arithmetic over config values, as data: sizes of heads, defaults that depend on other keys.

An expression is an int, the name of a config key (dots descend), or a product, ratio or sum of expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, ClassVar

from hubclient.errors import DamagedInput


@dataclass(frozen=True, slots=True)
class Binary:
    """Base of what is made of two expressions; `text` is how it is told."""

    left: Expr
    right: Expr
    text: ClassVar[str]

    def __str__(self) -> str:
        return self.text.format(self.left, self.right)


class product(Binary):  # noqa: N801 - reads as a word in the tables
    """left * right."""

    __slots__ = ()
    text = "{} * {}"


class ratio(Binary):  # noqa: N801
    """left / right, which must come out whole."""

    __slots__ = ()
    text = "{} / {}"


class total(Binary):  # noqa: N801
    """left + right, of which a name may stand for zero."""

    __slots__ = ()
    text = "{} + {}"


class rounded_up(Binary):  # noqa: N801
    """left / right, rounded up to a whole number."""

    __slots__ = ()
    text = "{} / {} rounded up"


class less(Binary):  # noqa: N801
    """left - right, which must be positive."""

    __slots__ = ()
    text = "{} - ({})"


@dataclass(frozen=True, slots=True)
class by_value:  # noqa: N801
    """One expression or another, by the value of a config key: `by_value("num_hidden_layers", {46: a}, b)`."""

    key: str
    cases: Mapping[Any, Expr]
    otherwise: Expr

    def __str__(self) -> str:
        return f"by {self.key}"


Expr = int | str | product | ratio | total | rounded_up | less | by_value
_LIMIT = 2**32  # no format stores larger sizes
COMPUTED = (product, ratio, total, rounded_up, less, by_value)  # expressions that cannot be mistaken for a plain value


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None if it is absent (or something on the way is not an object)."""
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def evaluate(expression: Expr, config: Mapping[str, Any]) -> int:
    """The positive integer that an expression stands for; DamagedInput if the config cannot give one."""
    match expression:
        case int():
            return expression
        case str():
            value = lookup(config, expression)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LIMIT:
                return value
            raise DamagedInput(f"config: {expression} is {shown(value)} where a positive integer is needed")
        case product():
            return evaluate(expression.left, config) * evaluate(expression.right, config)
        case ratio():
            whole, rest = divmod(left := evaluate(expression.left, config), right := evaluate(expression.right, config))
            if rest or not whole:
                raise DamagedInput(f"config: {expression} is {shown(left)} / {shown(right)}, which is no whole number")
            return whole
        case total():
            return _term(expression.left, config) + _term(expression.right, config)
        case rounded_up():
            return -(-evaluate(expression.left, config) // evaluate(expression.right, config))
        case less():
            rest = (left := evaluate(expression.left, config)) - (right := evaluate(expression.right, config))
            if rest <= 0:
                raise DamagedInput(f"config: {expression} is {shown(left)} - {shown(right)}, which is not positive")
            return rest
        case by_value():
            value = lookup(config, expression.key)  # compared rather than looked up: it may be anything
            found = (case for known, case in expression.cases.items() if known == value)
            return evaluate(next(found, expression.otherwise), config)


def _term(expression: Expr, config: Mapping[str, Any]) -> int:
    """As `evaluate`, but a config key may be zero."""
    zero = isinstance(expression, str) and type(lookup(config, expression)) is int and lookup(config, expression) == 0
    return 0 if zero else evaluate(expression, config)
