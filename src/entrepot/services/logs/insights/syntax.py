"""The tree of a query. Every node knows which characters of the query it came from."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of the query string, from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Name:
    """A field: discovered in the event, or made by an earlier command."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Literal:
    """A string or a number."""

    value: str | int | float
    span: Span


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time such as 5m: `count` of `unit` (ms s m h d w mo q y)."""

    count: int
    unit: str
    span: Span


@dataclass(frozen=True, slots=True)
class Function:
    """A call; `star` is count(*)."""

    name: str
    arguments: "tuple[Expression, ...]"
    star: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Operator:
    """+ - * / % ^ = != < <= > >= and or not, `negative`, `like`, `in`."""

    symbol: str
    operands: "tuple[Expression, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Matches:
    """`operand like /regex/`."""

    operand: "Expression"
    regex: str
    span: Span


@dataclass(frozen=True, slots=True)
class Element:
    """A member of a map (str) or of a list (int)."""

    operand: "Expression"
    key: str | int
    span: Span


Expression: TypeAlias = Name | Literal | Period | Function | Operator | Matches | Element


@dataclass(frozen=True, slots=True)
class Item:
    """An expression with the name of its column: the alias, or the expression as it was typed."""

    expression: Expression
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Fields:
    """`fields`: columns that are added and shown."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Display:
    """`display`: the only columns that are shown."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """`filter`: events that go on."""

    condition: Expression


@dataclass(frozen=True, slots=True)
class Parse:
    """`parse`: names for what the groups of a regular expression match in a field.

    A glob is one, too; its `names` are given beside it, where None stands for the regular expression's own names.
    """

    source: Expression
    regex: str
    names: tuple[str, ...] | None
    span: Span


@dataclass(frozen=True, slots=True)
class Stats:
    """`stats`: aggregates, one row for each combination of `by`."""

    aggregates: tuple[Item, ...]
    by: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """`sort`: keys with True where descending."""

    keys: tuple[tuple[Expression, bool], ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """`limit`: at most this many rows."""

    count: int
    span: Span


@dataclass(frozen=True, slots=True)
class Dedup:
    """`dedup`: the first row of each combination."""

    keys: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Unnest:
    """`unnest`: one row for each element of a list."""

    source: Name
    alias: Name


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern`: events grouped by their text without its variable parts."""

    source: Expression


Command: TypeAlias = Fields | Display | Filter | Parse | Stats | Sort | Limit | Dedup | Unnest | Pattern
