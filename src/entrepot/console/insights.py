"""Logs Insights for pages: a query run to its end, its rows as a table, and as a chart where it counts by time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC

from markupsafe import Markup

from entrepot.console import charts, render
from entrepot.console.ask import Ask
from entrepot.console.pages.spans import Span
from entrepot.errors import AwsError

DEADLINE_S = 20.0
"""A query that takes longer is stopped, and the page says so."""

FIRST_LOOK_S = 0.01
LONGEST_LOOK_S = 0.5

ROWS_SHOWN = 1_000
SERIES_SHOWN = 8

_HIDDEN = "@ptr"


@dataclass(frozen=True, slots=True)
class Result:
    """What a query answered: columns in order, rows as values by column; `problem` and `marked` when it did not."""

    columns: Sequence[str] = ()
    rows: Sequence[Mapping[str, str]] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    marked: Markup | None = None
    more: bool = False


async def run(asking: Ask, query: str, groups: Sequence[str], span: Span) -> Result:
    """Run a query and wait for it; what is wrong with it is part of the result."""
    try:
        started = await asking(
            "logs",
            "StartQuery",
            logGroupNames=list(groups),
            queryString=query,
            startTime=span.start_ms,
            endTime=span.end_ms,
        )
        return await _wait(asking, started["queryId"])
    except AwsError as error:
        return Result(problem=error.message, marked=_marked(query, error))


async def _wait(asking: Ask, query_id: str) -> Result:
    look_s, waited_s = FIRST_LOOK_S, 0.0
    while True:
        answer = await asking("logs", "GetQueryResults", queryId=query_id)
        if answer["status"] not in ("Scheduled", "Running"):
            break
        if waited_s > DEADLINE_S:
            await asking("logs", "StopQuery", queryId=query_id)
            return Result(problem=f"The query was stopped after {DEADLINE_S:.0f} s. A shorter span of time is faster.")
        await asyncio.sleep(look_s)
        waited_s += look_s
        look_s = min(look_s * 2, LONGEST_LOOK_S)
    if answer["status"] != "Complete":
        return Result(problem=f"The query ended as {answer['status']}.")
    rows = [{cell["field"]: cell["value"] for cell in row if cell["field"] != _HIDDEN} for row in answer["results"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    more = len(rows) > ROWS_SHOWN or bool(answer.get("nextToken"))
    return Result(columns, rows[:ROWS_SHOWN], answer["statistics"], more=more)


def _marked(query: str, error: AwsError) -> Markup | None:
    """Return the query with the place that is at fault marked; None when the error names none."""
    compile_error = error.members.get("queryCompileError")
    if not isinstance(compile_error, Mapping):
        return None
    location = compile_error["location"]
    start = min(location["startCharOffset"], len(query))
    end = max(start, min(location["endCharOffset"], len(query)))
    fault = query[start:end] or "⟨here⟩"
    return Markup("{}<mark>{}</mark>{}").format(query[:start], fault, query[end:])


def chart(result: Result, span: Span, title: str, width: int = charts.WIDE) -> Markup | None:
    """Return a chart of a result that counts by time (`stats … by bin(5m)`); None for any other."""
    time = next((name for name in result.columns if name.startswith("bin(")), None)
    if time is None:
        time = next((name for name in result.columns if _all(result, name, _time_ms)), None)
    if time is None or any(name.startswith("@message") for name in result.columns):
        return None
    figures = [name for name in result.columns if name != time and _all(result, name, _number)]
    others = [name for name in result.columns if name != time and name not in figures]
    series: dict[str, list[tuple[int, float]]] = {}
    for row in result.rows:
        at_ms = _time_ms(row.get(time, ""))
        for name in figures:
            value = _number(row.get(name, ""))
            if at_ms is not None and value is not None:
                of_whom = " ".join(row.get(other, "–") for other in others)
                label = " ".join(filter(None, (of_whom, name if len(figures) > 1 or not others else "")))
                series.setdefault(label, []).append((at_ms, value))
    if not series:
        return None
    chosen = sorted(series, key=lambda label: -sum(abs(value) for _, value in series[label]))[:SERIES_SHOWN]
    lines = [
        charts.Line(label, charts.KINDS[place % len(charts.KINDS)], sorted(series[label]))
        for place, label in enumerate(sorted(chosen))
    ]
    start_ms = min(span.start_ms, *(line.points[0][0] for line in lines))
    return charts.curves(lines, start_ms, span.end_ms, title, width)


def _all(result: Result, name: str, read: object) -> bool:
    """Whether every value of a column can be read so, and there is one."""
    assert callable(read)
    values = [row[name] for row in result.rows if row.get(name)]
    return bool(values) and all(read(value) is not None for value in values)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _time_ms(text: str) -> int | None:
    """Return a time as Insights writes it, 2026-11-23 22:31:07.000 in UTC."""
    if len(text) < 19 or text[4:5] != "-":
        return None
    moment = render.moment(text)
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)
