"""What GetMetricData and alarms ask: series of metrics, and expressions over them.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from entrepot.services.cloudwatch.errors import ValidationError
from entrepot.services.cloudwatch.expressions import Evaluation, ExpressionError, Series, evaluate
from entrepot.services.cloudwatch.expressions.evaluate import SERIES_LIMIT, searches
from entrepot.services.cloudwatch.expressions.parse import Node, identifiers, parse_expression
from entrepot.services.cloudwatch.labels import Place, filled
from entrepot.services.cloudwatch.metrics import Metric
from entrepot.services.cloudwatch.statistics import SIMPLE, reader
from entrepot.services.cloudwatch.store import MetricStore

QUERIES_LIMIT = 500
"""Queries in one request. AWS's limit."""

POINTS_LIMIT = 100_800
"""Values in one answer. AWS's limit."""

_NOWHERE = Place()
_ID = re.compile(r"[a-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Query:
    """One of the queries: a metric's statistic, or an expression over others."""

    id: str
    metric: Metric | None
    statistic: str
    period_s: int
    expression: str | None
    label: str | None
    returned: bool


@dataclass(frozen=True, slots=True)
class Result:
    """A series that a query answers with; `message` says why there is none."""

    id: str
    series: Series
    message: str | None = None


def checked(queries: Sequence[Query]) -> list[tuple[Query, Node | None]]:
    """Return the queries, each after those that its expression names; ValidationError when they make no sense."""
    if not 1 <= len(queries) <= QUERIES_LIMIT:
        raise ValidationError(f"The parameter MetricDataQueries must have 1 to {QUERIES_LIMIT} members.")
    by_id: dict[str, Query] = {}
    trees: dict[str, Node | None] = {}
    for query in queries:
        if not _ID.fullmatch(query.id):
            raise ValidationError(
                f"The value {query.id} for parameter Id is not valid: it begins with a lower-case letter and has letters, "
                "digits and _ only."
            )
        if query.id in by_id:
            raise ValidationError(f"The value {query.id} for parameter Id is there twice.")
        by_id[query.id] = query
        if query.expression is None and reader(query.statistic) is None:
            raise ValidationError(f"The value {query.statistic} for parameter Stat is not supported.")
        try:
            trees[query.id] = None if query.expression is None else parse_expression(query.expression)
        except ExpressionError as error:
            raise ValidationError(str(error)) from None
    ordered: list[tuple[Query, Node | None]] = []
    _order(list(by_id), by_id, trees, ordered)
    return ordered


def _order(
    wanted: Sequence[str],
    by_id: Mapping[str, Query],
    trees: Mapping[str, Node | None],
    ordered: list[tuple[Query, Node | None]],
) -> None:
    """Put queries after those that they name; ValidationError for a circle or an id that is not there."""
    done: set[str] = set()
    for identifier in wanted:
        stack = [identifier]
        while stack:
            top = stack[-1]
            tree = trees[top]
            needed = [] if tree is None else [name for name in identifiers(tree) if name not in done]
            if top in done:
                stack.pop()
                continue
            for name in needed:
                if name not in by_id:
                    raise ValidationError(f"Error in expression '{top}': the id '{name}' is not among the queries.")
                if name in stack:
                    raise ValidationError(f"Error in expression '{top}': it refers to itself by way of '{name}'.")
            if needed:
                stack.append(needed[0])
                continue
            ordered.append((by_id[top], tree))
            done.add(top)
            stack.pop()


async def metric_data(
    store: MetricStore, queries: Sequence[Query], start_s: int, end_s: int, place: Place = _NOWHERE
) -> list[Result]:
    """Return the series of the queries that are `returned`, in the order of the queries; ValidationError."""
    ordered = checked(queries)
    searched = await _searched(store, ordered, start_s, end_s, place.account_id)
    metrics = [query for query, tree in ordered if tree is None]
    series: dict[str, Sequence[Series]] = {}
    for query in metrics:
        assert query.metric is not None
        series[query.id] = await read_series(store, [query.metric], query.statistic, query.period_s, start_s, end_s)
    messages: dict[str, str] = {}
    for query, tree in ordered:
        if tree is None:
            continue
        period_s = query.period_s or min((q.period_s for q in metrics if q.period_s), default=300)
        ids = [one.id for one in queries if one.metric is not None]
        given = Evaluation(series, ids, searched, start_s, end_s, period_s)
        try:
            value = evaluate(tree, given)
        except (ExpressionError, OverflowError) as error:
            value, messages[query.id] = [], str(error)
        series[query.id] = _as_series(value, query, given)
    return [
        Result(query.id, _labelled(one, query, place), messages.get(query.id))
        for query in queries
        if query.returned
        for one in _named(series[query.id], query)
    ]


def _as_series(value: object, query: Query, given: Evaluation) -> Sequence[Series]:
    match value:
        case Series():
            return [value]
        case list():
            return value[:SERIES_LIMIT]
        case float():
            start_s = given.start_s // given.period_s * given.period_s
            points = dict.fromkeys(range(start_s, given.end_s, given.period_s), value)
            return [Series(query.id, points, given.period_s)]
    return []


def _named(found: Sequence[Series], query: Query) -> Sequence[Series]:
    if found:
        return found
    return [Series(query.label or query.id, {}, query.period_s or 60)] if query.expression is None else []


def _labelled(series: Series, query: Query, place: Place) -> Series:
    """Return the series under its label: the query's, with ${…} filled in, or its own."""
    if query.label is None:
        label = series.label or query.id
        return replace(series, label=query.id if query.expression is not None and not series.facts else label)
    label = filled(query.label, series, place)
    several = query.expression is not None and series.label and label == query.label and "SEARCH" in query.expression
    return replace(series, label=f"{label} {series.label}" if several else label)


async def _searched(
    store: MetricStore, ordered: Sequence[tuple[Query, Node | None]], start_s: int, end_s: int, account_id: str
) -> dict[tuple[str, str, int], Sequence[Series]]:
    """Return what each SEARCH of the expressions finds."""
    found: dict[tuple[str, str, int], Sequence[Series]] = {}
    known: list[Metric] | None = None
    for query, tree in ordered:
        try:
            keys = [] if tree is None else searches(tree)
            for key in keys:
                from entrepot.services.cloudwatch.expressions.search import (
                    parse_search,  # its library is loaded when needed
                )

                text, statistic, period_s = key
                test = parse_search(text, account_id)
                if reader(statistic) is None:
                    raise ExpressionError(f"SEARCH does not know the statistic {statistic}.")
                if known is None:
                    known = [metric for metric, _, _ in await store.series()]
                metrics = [metric for metric in known if test(metric)][:SERIES_LIMIT]
                period_s = period_s or query.period_s or 300
                series = await read_series(store, metrics, statistic, period_s, start_s, end_s)
                found[key] = [one for one in series if one.points]
        except ExpressionError as error:
            raise ValidationError(str(error)) from None
    return found


async def read_series(
    store: MetricStore, metrics: Sequence[Metric], statistic: str, period_s: int, start_s: int, end_s: int
) -> list[Series]:
    """Return a statistic of metrics in every period that has values."""
    read = reader(statistic)
    if read is None:
        raise ValidationError(f"The value {statistic} for parameter Stat is not supported.")
    start_s = start_s // period_s * period_s
    values = await store.values(metrics, period_s, start_s, end_s, percentiles=statistic not in SIMPLE)
    return [
        Series(
            _label(metric, metrics),
            {at_s: value for at_s, one in found.items() if (value := read(one)) is not None},
            period_s,
            {
                "MetricName": metric.name,
                "Namespace": metric.namespace,
                "Stat": statistic,
                "Period": str(period_s),
                **{f"Dim.{name}": value for name, value in metric.dimensions},
            },
        )
        for metric, found in zip(metrics, values, strict=True)
    ]


def _label(metric: Metric, among: Sequence[Metric]) -> str:
    """Return what tells a metric from the others: its name, or the values of its dimensions."""
    names = {other.name for other in among}
    if len(among) == 1 or (len(names) > 1 and not metric.dimensions):
        return metric.name
    values = " ".join(value for _, value in metric.dimensions)
    return f"{metric.name} {values}".strip() if len(names) > 1 else values or metric.name
