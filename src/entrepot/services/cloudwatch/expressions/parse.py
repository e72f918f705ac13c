"""From an expression's text to its tree."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

LENGTH_LIMIT = 2_048
"""AWS's limit for an expression."""

DEPTH_LIMIT = 60
"""Parentheses and calls may nest this deep."""


class ExpressionError(ValueError):
    """The expression is not valid; the text says why."""


@dataclass(frozen=True, slots=True)
class Name:
    """The id of another query."""

    id: str


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A string: an argument of SEARCH, METRICS, FILL …"""

    value: str


@dataclass(frozen=True, slots=True)
class Array:
    """[a, b]"""

    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    function: str
    arguments: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    symbol: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Negative:
    """-a"""

    operand: "Node"


Node: TypeAlias = Name | Number | Text | Array | Call | Binary | Negative


@lru_cache(512)
def parse_expression(text: str) -> Node:
    """Return the tree of a metric math expression; ExpressionError."""
    if len(text) > LENGTH_LIMIT:
        raise ExpressionError(f"An expression has at most {LENGTH_LIMIT} characters.")
    check_depth(text)
    if text.lstrip()[:6].upper() == "SELECT":
        raise ExpressionError("Metrics Insights queries (SELECT …) are not supported here; use SEARCH.")
    from entrepot.services.cloudwatch.expressions.reading import read  # its library is loaded with the first expression

    try:
        node = read(text)
    except RecursionError:
        raise ExpressionError("The expression nests too deep.") from None
    return node


def check_depth(text: str) -> None:
    """Raise ExpressionError for an expression that would make a parser recurse too deep."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > DEPTH_LIMIT or "-" * DEPTH_LIMIT in text.replace(" ", "") or text.count("NOT") > DEPTH_LIMIT:
        raise ExpressionError(f"The expression nests deeper than {DEPTH_LIMIT}.")


def identifiers(node: Node) -> Iterator[str]:
    """Yield the ids of the queries that an expression names."""
    match node:
        case Name(identifier):
            yield identifier
        case Array(items):
            for item in items:
                yield from identifiers(item)
        case Call(_, arguments):
            for argument in arguments:
                yield from identifiers(argument)
        case Binary(_, left, right):
            yield from identifiers(left)
            yield from identifiers(right)
        case Negative(operand):
            yield from identifiers(operand)


def unquoted(token: str) -> str:
    """Return the text between quotes, without its escapes."""
    return token[1:-1].replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
