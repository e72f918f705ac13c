"""The functions of the language: each turns the SQL of its arguments into SQL.

What SQLite has is used as it is; what it lacks is a function of `scalars.py`. Names are compared without regard to case.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["any", "text", "number", "time"]
"""What is known of a column before any row is read. Times are milliseconds since the epoch, shown as a date."""


@dataclass(frozen=True, slots=True)
class Column:
    """The SQL of a value, and what is known of it."""

    sql: str
    kind: Kind = "any"

    @property
    def number(self) -> str:
        """The value as a number; NULL where it is none."""
        return self.sql if self.kind in ("number", "time") else f"to_number({self.sql})"

    @property
    def text(self) -> str:
        """The value as text."""
        return self.sql if self.kind == "text" else f"CAST({self.sql} AS TEXT)"


Build: TypeAlias = Callable[[Sequence[Column]], Column]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A function of values: how many arguments it takes, and its SQL."""

    least: int
    most: int
    build: Build


def _numeric(sql: str) -> Build:
    """Return the builder of a function of numbers; `{0}` … stand for its arguments."""
    return lambda given: Column(sql.format(*(column.number for column in given)), "number")


def _textual(sql: str, kind: Kind = "text") -> Build:
    """Return the builder of a function of texts."""
    return lambda given: Column(sql.format(*(column.text for column in given)), kind)


def _extreme(name: str) -> Build:
    def build(given: Sequence[Column]) -> Column:
        if len(given) == 1:
            return Column(given[0].number, "number")
        return Column(f"{name}({', '.join(column.number for column in given)})", "number")

    return build


def _trim(name: str) -> Build:
    return lambda given: Column(f"{name}({', '.join(column.text for column in given)})", "text")


def _substr(given: Sequence[Column]) -> Column:
    length = f", CAST({given[2].number} AS INTEGER)" if len(given) == 3 else ""
    return Column(f"substr({given[0].text}, CAST({given[1].number} AS INTEGER) + 1{length})", "text")


def _coalesce(given: Sequence[Column]) -> Column:
    kinds = {column.kind for column in given}
    kind = kinds.pop() if len(kinds) == 1 else "any"
    if len(given) == 1:
        return given[0]
    return Column(f"coalesce({', '.join(column.sql for column in given)})", kind)


SCALARS: dict[str, Scalar] = {
    "abs": Scalar(1, 1, _numeric("abs({0})")),
    "ceil": Scalar(1, 1, _numeric("ceil({0})")),
    "floor": Scalar(1, 1, _numeric("floor({0})")),
    "greatest": Scalar(1, 50, _extreme("max")),
    "least": Scalar(1, 50, _extreme("min")),
    "log": Scalar(1, 1, _numeric("ln({0})")),
    "sqrt": Scalar(1, 1, _numeric("sqrt({0})")),
    "ispresent": Scalar(1, 1, lambda given: Column(f"({given[0].sql} IS NOT NULL)", "number")),
    "coalesce": Scalar(1, 50, _coalesce),
    "frommillis": Scalar(1, 1, lambda given: Column(f"CAST({given[0].number} AS INTEGER)", "time")),
    "tomillis": Scalar(1, 1, lambda given: Column(f"CAST({given[0].number} AS INTEGER)", "number")),
    "isempty": Scalar(1, 1, lambda given: Column(f"(coalesce({given[0].text}, '') = '')", "number")),
    "isblank": Scalar(1, 1, lambda given: Column(f"is_blank({given[0].text})", "number")),
    "concat": Scalar(1, 50, lambda given: Column(f"concat({', '.join(column.text for column in given)})", "text")),
    "ltrim": Scalar(1, 2, _trim("ltrim")),
    "rtrim": Scalar(1, 2, _trim("rtrim")),
    "trim": Scalar(1, 2, _trim("trim")),
    "strlen": Scalar(1, 1, _textual("length({0})", "number")),
    "toupper": Scalar(1, 1, _textual("to_upper({0})")),
    "tolower": Scalar(1, 1, _textual("to_lower({0})")),
    "substr": Scalar(2, 3, _substr),
    "replace": Scalar(3, 3, _textual("replace({0}, {1}, {2})")),
    "strcontains": Scalar(2, 2, _textual("(instr({0}, {1}) > 0)", "number")),
    "isvalidip": Scalar(1, 1, _textual("is_ip({0}, 0)", "number")),
    "isvalidipv4": Scalar(1, 1, _textual("is_ip({0}, 4)", "number")),
    "isvalidipv6": Scalar(1, 1, _textual("is_ip({0}, 6)", "number")),
    "isipinsubnet": Scalar(2, 2, _textual("in_subnet({0}, {1}, 0)", "number")),
    "isipv4insubnet": Scalar(2, 2, _textual("in_subnet({0}, {1}, 4)", "number")),
    "isipv6insubnet": Scalar(2, 2, _textual("in_subnet({0}, {1}, 6)", "number")),
    "jsonparse": Scalar(1, 1, _textual("json_text({0})", "any")),
    "jsonstringify": Scalar(1, 1, _textual("{0}")),
}
"""Functions of one row. `bin`, `datefloor`, `dateceil` and `now` need the query's own times: see `compile.py`."""


Aggregate: TypeAlias = Callable[[Sequence[Column], str | None], Column]
"""The SQL of an aggregate from its arguments and the column of the event's time (None after another `stats`)."""


def _same_kind(name: str) -> Aggregate:
    def build(given: Sequence[Column], time: str | None) -> Column:
        value = given[0].sql if given[0].kind in ("number", "time", "text") else f"to_value({given[0].sql})"
        return Column(f"{name}({value})", given[0].kind)

    return build


def _by_time(name: str) -> Aggregate:
    return lambda given, time: Column(f"{name}({given[0].sql}, {time})", given[0].kind)


AGGREGATES: dict[str, tuple[int, Aggregate]] = {
    "avg": (1, lambda given, time: Column(f"avg({given[0].number})", "number")),
    "count": (1, lambda given, time: Column(f"count({given[0].sql})", "number")),
    "count_distinct": (1, lambda given, time: Column(f"count(DISTINCT {given[0].sql})", "number")),
    "max": (1, _same_kind("max")),
    "min": (1, _same_kind("min")),
    "pct": (2, lambda given, time: Column(f"percentile({given[0].number}, {given[1].number})", "number")),
    "percentile": (2, lambda given, time: Column(f"percentile({given[0].number}, {given[1].number})", "number")),
    "stddev": (1, lambda given, time: Column(f"stddev({given[0].number})", "number")),
    "sum": (1, lambda given, time: Column(f"sum({given[0].number})", "number")),
    "earliest": (1, _by_time("earliest")),
    "latest": (1, _by_time("latest")),
    "sortsfirst": (1, lambda given, time: Column(f"min({given[0].text})", "text")),
    "sortslast": (1, lambda given, time: Column(f"max({given[0].text})", "text")),
}
"""The aggregates of `stats`, with the number of their arguments. `count` takes none, or *, too."""
