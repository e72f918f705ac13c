"""What the widgets of a dashboard ask, read from its body: AWS's shorthand for metrics, views, log queries, alarms, Markdown.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from entrepot.console.charts import Level

SERIES_LIMIT = 100
"""Metrics and expressions of one widget, at most."""

LONGEST_PERIOD_S = 30 * 86_400
LARGEST = 1e15
"""Periods and levels, at most."""

COLUMNS = 24
"""A dashboard is so many columns wide."""

VIEWS = ("timeSeries", "singleValue", "bar", "pie", "table", "gauge")

_SOURCE = re.compile(
    r"\s*SOURCE\s+((?:'[^']*'|\"[^\"]*\")(?:\s*,\s*(?:'[^']*'|\"[^\"]*\"))*)\s*(?:\||$)", re.IGNORECASE
)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_AGO = re.compile(r"-P(?:(\d{1,4})W)?(?:(\d{1,4})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,6})M)?)?")

_TOGETHER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "SampleCount": sum,
    "Minimum": min,
    "Maximum": max,
}

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


class WidgetError(ValueError):
    """A widget says something that cannot be shown; the text is for who looks at the dashboard."""


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget: its place, its kind, and what it says of itself."""

    kind: str
    x: int
    y: int
    width: int
    height: int
    title: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MetricView:
    """What a metric widget shows: the queries of GetMetricData, the view, and levels across it.

    `whole`: one value for all of the span (`setPeriodToTimeRange`), else the latest.
    """

    queries: Sequence[Mapping[str, Any]]
    view: str
    stacked: bool = False
    whole: bool = False
    levels: Sequence[Level] = ()
    alarm: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of `metrics`, with nothing left out."""

    fields: list[str] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)


def widgets(body: str) -> tuple[list[Widget], Mapping[str, Any]]:
    """Return the widgets of a body in reading order, and the body's own settings; WidgetError when it is none."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WidgetError(f"The body is not JSON: {error}") from None
    found = parsed.get("widgets") if isinstance(parsed, dict) else None
    if not isinstance(found, list):
        raise WidgetError("The body has no widgets.")
    made = []
    for place, one in enumerate(found):
        properties = one.get("properties") if isinstance(one, dict) else None
        if not isinstance(properties, dict):
            raise WidgetError(f"Widget {place} has no properties.")
        width, height = _whole(one.get("width"), 6), _whole(one.get("height"), 6)
        title = properties.get("title")
        made.append(
            Widget(
                str(one.get("type")),
                _whole(one.get("x"), 0),
                _whole(one.get("y"), 0),
                min(max(width, 1), COLUMNS),
                height,
                title if isinstance(title, str) else "",
                properties,
            )
        )
    made.sort(key=lambda widget: (widget.y, widget.x))
    return made, parsed


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def span_ms(settings: Mapping[str, Any]) -> int | None:
    """Return how far back a body's `start` (-PT3H, -P7D) goes, in milliseconds; None when it says nothing of the kind."""
    found = _AGO.fullmatch(str(settings.get("start", "")))
    if found is None:
        return None
    weeks, days, hours, minutes = (int(part or 0) for part in found.groups())
    return (((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60_000 or None


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def metric_view(properties: Mapping[str, Any], period_s: int) -> MetricView:
    """Return what a metric widget asks; `period_s` is for those that name none. Raises WidgetError."""
    view = properties.get("view", "timeSeries")
    if view not in VIEWS:
        raise WidgetError(f"The view {view!r} is not known.")
    annotations = properties.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    alarms = annotations.get("alarms")
    rows = _rows(properties.get("metrics") or [])
    if not rows:
        if isinstance(alarms, list) and alarms:
            return MetricView((), str(view), alarm=str(alarms[0]).rpartition(":alarm:")[2])
        raise WidgetError("The widget names no metrics.")
    whole = bool(properties.get("setPeriodToTimeRange")) and view != "timeSeries"
    default_s = period_s if whole else _period(properties.get("period"), period_s)
    taken = {str(row.options["id"]) for row in rows if "id" in row.options}
    spare = (name for place in range(len(rows) + len(taken) + 1) if (name := f"q{place}") not in taken)
    statistic = str(properties.get("stat", "Average"))
    queries = [
        {"Label": label} | _query(row, spare, statistic, default_s, whole)
        if label
        else _query(row, spare, statistic, default_s, whole)
        for row, label in zip(rows, _labels(rows), strict=True)
    ]
    return MetricView(queries, str(view), bool(properties.get("stacked")), whole, _levels(annotations))


def _labels(rows: Sequence[_Row]) -> list[str]:
    """Return what tells metrics apart where their names do not: the values of dimensions that differ, or the statistic."""
    metrics = [row for row in rows if row.fields]
    if len(metrics) < 2:
        return [""] * len(rows)
    everywhere = set.intersection(*(set(row.fields) for row in metrics))
    made = []
    for row in rows:
        own = [part for part in (row.fields[1:2] + row.fields[3::2]) if part not in everywhere] if row.fields else []
        if row.fields and not own:
            own = [row.fields[1], str(row.options.get("stat", ""))]
        made.append(" ".join(filter(None, own)))
    return made


def _rows(metrics: Any) -> list[_Row]:
    """Return the rows of `metrics` written out: "." is the value above, "..." everything above up to what follows."""
    if not isinstance(metrics, list) or len(metrics) > SERIES_LIMIT:
        raise WidgetError(f"The metrics must be an array of at most {SERIES_LIMIT} rows.")
    rows: list[_Row] = []
    above: list[str] = []
    for place, metric in enumerate(metrics):
        if not isinstance(metric, list) or not metric:
            raise WidgetError(f"Row {place} of the metrics is no array.")
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        given = metric[: -1 if options else None] if isinstance(metric[-1], dict) else metric
        if not all(isinstance(part, str) for part in given):
            raise WidgetError(f"Row {place} of the metrics has something that is no text.")
        if not given:
            if not isinstance(options.get("expression"), str):
                raise WidgetError(f"Row {place} of the metrics has neither a metric nor an expression.")
            rows.append(_Row([], options))
            continue
        if given[0] == "...":
            rest = given[1:]
            if len(rest) > len(above):
                raise WidgetError(f"Row {place} of the metrics repeats more than the row above has.")
            given = [*above[: len(above) - len(rest)], *rest]
        try:
            written = [above[column] if part == "." else part for column, part in enumerate(given)]
        except IndexError:
            raise WidgetError(f"Row {place} of the metrics repeats more than the row above has.") from None
        if len(written) < 2 or len(written) % 2:
            raise WidgetError(f"Row {place} of the metrics needs a namespace, a name, and pairs of dimensions.")
        above = written
        rows.append(_Row(written, options))
    return rows


def _query(row: _Row, spare: Any, statistic: str, period_s: int, whole: bool) -> dict[str, Any]:
    options = row.options
    made: dict[str, Any] = {"Id": str(options["id"]) if "id" in options else next(spare)}
    if isinstance(options.get("label"), str):
        made["Label"] = options["label"]
    if options.get("visible") is False:
        made["ReturnData"] = False
    period_s = period_s if whole else _period(options.get("period"), period_s)
    if not row.fields:
        return made | {"Expression": options["expression"], "Period": period_s}
    namespace, name, *pairs = row.fields
    dimensions = [{"Name": key, "Value": value} for key, value in zip(pairs[::2], pairs[1::2], strict=True)]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
    stat = options.get("stat")
    return made | {
        "MetricStat": {"Metric": metric, "Period": period_s, "Stat": stat if isinstance(stat, str) else statistic}
    }


def _period(value: Any, default: int) -> int:
    return min(max(_whole(value, default), 1), LONGEST_PERIOD_S)


def _levels(annotations: Mapping[str, Any]) -> list[Level]:
    """Return the horizontal annotations; of a band, both edges."""
    found = annotations.get("horizontal")
    flat: list[Any] = []
    for one in found if isinstance(found, list) else []:
        flat += one if isinstance(one, list) else [one]
    return [
        Level(str(one.get("label", "")), "status-alarm", float(one["value"]))
        for one in flat[:20]
        if isinstance(one, dict) and _is_figure(one.get("value"))
    ]


def _is_figure(value: Any) -> bool:
    """Whether a value can be drawn: JSON's numbers may be as long as they like, and Python's JSON knows NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def weights(queries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the queries for how many values there were, of those statistics that need it to be put together."""
    return [
        {"Id": f"weight_{query['Id']}", "MetricStat": {**query["MetricStat"], "Stat": "SampleCount"}}
        for query in queries
        if "MetricStat" in query and query["MetricStat"]["Stat"] not in _TOGETHER and query.get("ReturnData", True)
    ]


def together(
    query: Mapping[str, Any] | None, points: Sequence[tuple[int, float]], counts: Mapping[int, float]
) -> float | None:
    """Return one value for all periods: exact for sums, extremes and averages, else the mean, weighted with the counts."""
    if not points:
        return None
    stat = query["MetricStat"]["Stat"] if query is not None and "MetricStat" in query else ""
    if stat in _TOGETHER:
        return _TOGETHER[stat]([value for _, value in points])
    shares = [(value, counts.get(at_ms, 1.0)) for at_ms, value in points]
    return sum(value * share for value, share in shares) / (sum(share for _, share in shares) or 1.0)


# ── logs, alarms, text ───────────────────────────────────────────────────────────────────────────────────────────────


def log_query(properties: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the groups of a log widget and its query without the SOURCE commands; WidgetError when it names none."""
    query = properties.get("query")
    if not isinstance(query, str):
        raise WidgetError("The widget has no query.")
    groups: list[str] = []
    while found := _SOURCE.match(query):
        groups += [single or double for single, double in _QUOTED.findall(found[1])]
        query = query[found.end() :]
    named = properties.get("logGroupNames")
    if isinstance(named, list):
        groups += [str(name) for name in named]
    if not groups:
        raise WidgetError("The query names no log group: it begins with SOURCE 'group' | …")
    return groups, query.strip()


def alarm_names(properties: Mapping[str, Any]) -> list[str]:
    """Return the names of the alarms of an alarm widget."""
    found = properties.get("alarms")
    if not isinstance(found, list):
        raise WidgetError("The widget names no alarms.")
    return [str(arn).rpartition(":alarm:")[2] for arn in found[:100]]


def text(properties: Mapping[str, Any]) -> Markup:
    """Return the Markdown of a text widget as HTML; HTML within it is text, and links lead to web pages only."""
    source = properties.get("markdown")
    if not isinstance(source, str):
        raise WidgetError("The widget has no text.")
    return Markup(_markdown.render(source))  # noqa: S704 — html is off, and links of other schemes are refused
