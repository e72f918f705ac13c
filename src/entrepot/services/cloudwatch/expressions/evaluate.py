"""The value of an expression: a number, a text, a time series, or several.

A series maps the beginning of each period (seconds since the epoch) to a value. Operators between two series keep the periods
that both have.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeAlias

from entrepot.services.cloudwatch.expressions import parse
from entrepot.services.cloudwatch.expressions.parse import ExpressionError, Node

SERIES_LIMIT = 500
"""An expression yields at most this many series. AWS's limit for SEARCH is 500 as well."""


@dataclass(frozen=True, slots=True)
class Series:
    """A time series; `facts` are what labels can name (MetricName, Dim.X …)."""

    label: str
    points: Mapping[int, float]
    period_s: int
    facts: Mapping[str, str] = field(default_factory=dict)

    def mapped(self, function: Callable[[float], float | None]) -> "Series":
        """Return the series of `function` of each value; values for which it has none are left out."""
        points = {at_s: result for at_s, value in self.points.items() if (result := function(value)) is not None}
        return Series(self.label, points, self.period_s, self.facts)

    def with_points(self, points: Mapping[int, float]) -> "Series":
        """Return the series with other points."""
        return Series(self.label, points, self.period_s, self.facts)


Value: TypeAlias = float | str | Series | list[Series]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an expression can look at: series by the ids of their queries, which of them are plain metrics, and the window."""

    series: Mapping[str, Sequence[Series]]
    metrics: Sequence[str]
    searched: Mapping[tuple[str, str, int], Sequence[Series]]
    start_s: int
    end_s: int
    period_s: int


def evaluate(node: Node, given: Evaluation) -> Value:
    """Return the value of an expression; ExpressionError when it has none."""
    match node:
        case parse.Number(value) | parse.Text(value):
            return value
        case parse.Name(identifier):
            return _named(identifier, given)
        case parse.Array(items):
            return [series for item in items for series in _all(evaluate(item, given), given)]
        case parse.Negative(operand):
            return _each(evaluate(operand, given), operator.neg)
        case parse.Binary(symbol, left, right):
            return _binary(symbol, evaluate(left, given), evaluate(right, given))
        case parse.Call(name, arguments):
            return _call(name, arguments, given)


def searches(node: Node) -> list[tuple[str, str, int]]:
    """Return the (search, statistic, period in seconds) of an expression's SEARCH calls; ExpressionError."""
    match node:
        case parse.Call("SEARCH", arguments):
            match arguments:
                case (parse.Text(text), parse.Text(statistic)):
                    return [(text, statistic, 0)]
                case (parse.Text(text), parse.Text(statistic), parse.Number(period_s)):
                    return [(text, statistic, int(period_s))]
            raise ExpressionError("SEARCH takes a search expression, a statistic and a period in seconds.")
        case parse.Call(_, inner) | parse.Array(inner):
            return [search for argument in inner for search in searches(argument)]
        case parse.Binary(_, left, right):
            return searches(left) + searches(right)
        case parse.Negative(operand):
            return searches(operand)
    return []


def _named(identifier: str, given: Evaluation) -> Value:
    if identifier not in given.series:
        raise ExpressionError(f"Expression refers to the id '{identifier}', which is not among the queries.")
    found = list(given.series[identifier])
    return found[0] if len(found) == 1 else found


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _divide(left: float, right: float) -> float | None:
    return left / right if right else None


def _power(left: float, right: float) -> float | None:
    try:
        result = left**right
    except (OverflowError, ZeroDivisionError):
        return None
    return None if isinstance(result, complex) else result


Pairwise: TypeAlias = Callable[[float, float], float | None]

_OPERATORS: dict[str, Pairwise] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "^": _power,
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "||": lambda a, b: float(bool(a) or bool(b)),
}


def _binary(symbol: str, left: Value, right: Value) -> Value:
    function = _OPERATORS[symbol]
    if isinstance(left, str) or isinstance(right, str):
        raise ExpressionError(f"The operator {symbol} takes numbers and time series, not text.")
    if isinstance(left, list) and isinstance(right, list):
        raise ExpressionError(f"The operator {symbol} cannot stand between two arrays of time series.")
    if isinstance(left, list):
        return [_pair(function, series, right) for series in left]  # type: ignore[misc]
    if isinstance(right, list):
        return [_pair(function, left, series) for series in right]  # type: ignore[misc]
    return _pair(function, left, right)


def _pair(function: Pairwise, left: Value, right: Value) -> Series | float:
    match left, right:
        case Series(), Series():
            points = {
                at_s: result
                for at_s, value in left.points.items()
                if at_s in right.points and (result := function(value, right.points[at_s])) is not None
            }
            return Series(left.label, points, max(left.period_s, right.period_s), left.facts)
        case Series(), float():
            return left.mapped(lambda value: function(value, right))
        case float(), Series():
            return right.mapped(lambda value: function(left, value))
        case float(), float():
            result = function(left, right)
            return math.nan if result is None else result
    raise ExpressionError("An operator takes numbers and time series.")


def _each(value: Value, function: Callable[[float], float | None]) -> Value:
    match value:
        case Series():
            return value.mapped(function)
        case list():
            return [series.mapped(function) for series in value]
        case float():
            result = function(value)
            return math.nan if result is None else result
    raise ExpressionError("This function takes numbers and time series, not text.")


def _all(value: Value, given: Evaluation) -> list[Series]:
    match value:
        case Series():
            return [value]
        case list():
            return list(value)
        case float():
            return [_constant(value, given)]
    raise ExpressionError("An array holds time series, not text.")


def _constant(value: float, given: Evaluation) -> Series:
    start_s = given.start_s // given.period_s * given.period_s
    return Series("", dict.fromkeys(range(start_s, given.end_s, given.period_s), value), given.period_s)


# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _call(name: str, arguments: Sequence[Node], given: Evaluation) -> Value:
    if name == "SEARCH":
        (key,) = searches(parse.Call(name, tuple(arguments)))
        return list(given.searched[key])
    if name == "METRICS":
        return _metrics([evaluate(argument, given) for argument in arguments], given)
    values = [evaluate(argument, given) for argument in arguments]
    if name in _REDUCING and len(values) == 1:
        return _reduce(_REDUCING[name], values[0])
    if name in _MAPPING and len(values) == 1:
        return _each(values[0], _MAPPING[name])
    if name in _SHAPING and len(values) == 1:
        return _shape(values[0], _SHAPING[name])
    match name, values:
        case "METRIC_COUNT", [list() as several]:
            return float(len(several))
        case "METRIC_COUNT", [Series()]:
            return 1.0
        case "TIME_SERIES", [float() as number]:
            return _constant(number, given)
        case "FILL", [filled, with_what]:
            return _shape(filled, lambda series: _filled(series, with_what, given))
        case "IF", [condition, yes]:
            return _chosen(condition, yes, None, given)
        case "IF", [condition, yes, no]:
            return _chosen(condition, yes, no, given)
        case "REMOVE_EMPTY", [value]:
            return [series for series in _all(value, given) if series.points]
        case "SORT", [list() as several, str() as function, str() as order, *rest]:
            return _sorted(several, function, order, rest)
        case "SLICE", [list() as several, float() as first, *rest]:
            last = int(rest[0]) if rest and isinstance(rest[0], float) else len(several)
            return list(several[int(first) : last])
        case (("FIRST" | "LAST"), [list() as several]) if several:
            picked: Series = several[0 if name == "FIRST" else -1]
            return picked
    raise ExpressionError(f"Unsupported function {name} with {len(values)} argument(s) of these types.")


def _metrics(values: Sequence[Value], given: Evaluation) -> list[Series]:
    prefix = values[0] if values else ""
    if not isinstance(prefix, str) or len(values) > 1:
        raise ExpressionError("METRICS takes nothing, or the text with which ids begin.")
    return [series for identifier in given.metrics if prefix in identifier for series in given.series[identifier]]


Reduction: TypeAlias = Callable[[Sequence[float]], float]


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


_REDUCING: dict[str, Reduction] = {
    "AVG": lambda values: sum(values) / len(values),
    "MAX": max,
    "MIN": min,
    "SUM": math.fsum,
    "STDDEV": _deviation,
    "DATAPOINT_COUNT": lambda values: float(len(values)),
}


def _reduce(function: Reduction, value: Value) -> Value:
    """One series gives a number; several give the series of the function of what each period has."""
    match value:
        case Series():
            if not value.points:
                return 0.0 if function is _REDUCING["DATAPOINT_COUNT"] else math.nan
            return function(list(value.points.values()))
        case list():
            gathered: dict[int, list[float]] = {}
            for series in value:
                for at_s, number in series.points.items():
                    gathered.setdefault(at_s, []).append(number)
            points = {at_s: function(numbers) for at_s, numbers in sorted(gathered.items())}
            return Series("", points, max((series.period_s for series in value), default=60))
        case float():
            return value
    raise ExpressionError("This function takes time series, not text.")


def _positive(function: Callable[[float], float]) -> Callable[[float], float | None]:
    return lambda value: function(value) if value > 0 else None


_MAPPING: dict[str, Callable[[float], float | None]] = {
    "ABS": abs,
    "CEIL": lambda value: float(math.ceil(value)) if math.isfinite(value) else None,
    "FLOOR": lambda value: float(math.floor(value)) if math.isfinite(value) else None,
    "LOG": _positive(math.log),
    "LOG10": _positive(math.log10),
}


def _rate(series: Series) -> Series:
    return series.with_points({b: (y - x) / (b - a) for a, x, b, y in _steps(series)})


def _difference(series: Series) -> Series:
    return series.with_points({b: y - x for _, x, b, y in _steps(series)})


def _elapsed(series: Series) -> Series:
    return series.with_points({b: float(b - a) for a, _, b, _ in _steps(series)})


def _steps(series: Series) -> list[tuple[int, float, int, float]]:
    points = sorted(series.points.items())
    return [(*before, *after) for before, after in pairwise(points)]


def _running(series: Series) -> Series:
    total = 0.0
    points: dict[int, float] = {}
    for at_s, value in sorted(series.points.items()):
        total += value
        points[at_s] = total
    return series.with_points(points)


def _dated(part: Callable[[int], float]) -> Callable[[Series], Series]:
    return lambda series: series.with_points({at_s: part(at_s) for at_s in series.points})


def _civil(at_s: int) -> tuple[int, int, int]:
    """Return year, month and day (UTC)."""
    moment = datetime.fromtimestamp(at_s, UTC)
    return moment.year, moment.month, moment.day


_SHAPING: dict[str, Callable[[Series], Series]] = {
    "RATE": _rate,
    "DIFF": _difference,
    "DIFF_TIME": _elapsed,
    "RUNNING_SUM": _running,
    "PERIOD": lambda series: series.mapped(lambda _: float(series.period_s)),
    "EPOCH": _dated(float),
    "MINUTE": _dated(lambda at_s: float(at_s // 60 % 60)),
    "HOUR": _dated(lambda at_s: float(at_s // 3_600 % 24)),
    "DAY": _dated(lambda at_s: float((at_s // 86_400 + 3) % 7 + 1)),
    "DATE": _dated(lambda at_s: float(_civil(at_s)[2])),
    "MONTH": _dated(lambda at_s: float(_civil(at_s)[1])),
    "YEAR": _dated(lambda at_s: float(_civil(at_s)[0])),
}


def _shape(value: Value, function: Callable[[Series], Series]) -> Value:
    match value:
        case Series():
            return function(value)
        case list():
            return [function(series) for series in value]
    raise ExpressionError("This function takes time series.")


def _filled(series: Series, with_what: Value, given: Evaluation) -> Series:
    start_s = given.start_s // series.period_s * series.period_s
    points: dict[int, float] = {}
    last: float | None = None
    known = sorted(series.points.items())
    for at_s in range(start_s, given.end_s, series.period_s):
        value: float | None
        if at_s in series.points:
            value = last = series.points[at_s]
        elif isinstance(with_what, float):
            value = with_what
        elif with_what == "REPEAT":
            value = last
        elif with_what == "LINEAR":
            value = _between(known, at_s)
        elif isinstance(with_what, Series):
            value = with_what.points.get(at_s)
        else:
            raise ExpressionError("FILL takes a number, a time series, REPEAT or LINEAR.")
        if value is not None:
            points[at_s] = value
    return series.with_points(points)


def _between(known: Sequence[tuple[int, float]], at_s: int) -> float | None:
    before = [point for point in known if point[0] < at_s][-1:]
    after = next((point for point in known if point[0] > at_s), None)
    if not before or after is None:
        return None
    (a, x), (b, y) = before[0], after
    return x + (y - x) * (at_s - a) / (b - a)


def _chosen(condition: Value, yes: Value, no: Value | None, given: Evaluation) -> Value:
    if isinstance(condition, float):
        chosen = yes if condition else no
        return Series("", {}, given.period_s) if chosen is None else chosen
    if not isinstance(condition, Series):
        raise ExpressionError("IF takes a number or one time series as its condition.")
    points: dict[int, float] = {}
    moments = set(condition.points)
    for at_s in sorted(moments):
        branch = yes if condition.points[at_s] else no
        value = branch.points.get(at_s) if isinstance(branch, Series) else branch
        if isinstance(value, float):
            points[at_s] = value
    return condition.with_points(points)


def _sorted(several: list[Series], function: str, order: str, rest: Sequence[Value]) -> list[Series]:
    if function not in ("AVG", "MIN", "MAX", "SUM") or order not in ("ASC", "DESC"):
        raise ExpressionError("SORT takes AVG, MIN, MAX or SUM, and ASC or DESC.")
    reduction = _REDUCING[function]
    filled = [series for series in several if series.points]
    ordered = sorted(filled, key=lambda s: reduction(list(s.points.values())), reverse=order == "DESC")
    return ordered[: int(rest[0])] if rest and isinstance(rest[0], float) else ordered
