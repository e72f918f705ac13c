"""Dashboards: those that PutDashboard knows, drawn, and their bodies edited as JSON."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import charts, insights, render, widgets
from entrepot.console.ask import Ask
from entrepot.console.pages.alarms import metric_chart
from entrepot.console.pages.forms import ask, done
from entrepot.console.pages.forms import field as form_field
from entrepot.console.pages.spans import PERIODS_S, RANGES, Span, span_of
from entrepot.console.widgets import Widget, WidgetError
from entrepot.errors import AwsError

WIDGETS_SHOWN = 60
"""A page shows at most so many widgets."""

AT_ONCE = 4
"""Widgets that are asked for at the same time."""

POINTS_LIMIT = 1_500
"""Points of a line, at most: a shorter period is made longer."""

EMPTY = '{\n  "widgets": []\n}'


@dataclass(frozen=True, slots=True)
class Drawn:
    """A widget as it is shown."""

    widget: Widget
    chart: Markup | None = None
    figures: Sequence[tuple[str, str]] = ()
    result: insights.Result | None = None
    alarms: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    problem: str = ""


async def dashboards(request: Request) -> Response:
    """The list."""
    query = request.query_params
    answer = await ask(request)(
        "cloudwatch",
        "ListDashboards",
        DashboardNamePrefix=query.get("name", "").strip() or None,
        NextToken=query.get("next") or None,
    )
    next_token = answer.get("NextToken")
    return render.page(
        request,
        "dashboards.html",
        section="dashboards",
        dashboards=answer["DashboardEntries"],
        name=query.get("name", ""),
        next_page=render.with_query(request, next=next_token) if next_token else "",
    )


async def dashboard(request: Request) -> Response:
    """The page of a dashboard."""
    return render.page(request, "dashboard.html", section="dashboards", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The widgets alone, for their refreshing."""
    return render.page(request, "dashboard_widgets.html", section="dashboards", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return the dashboard's widgets, drawn for the span of the address, or of the body where the address has none."""
    asking, name = ask(request), request.path_params["name"]
    body = (await asking("cloudwatch", "GetDashboard", DashboardName=name))["DashboardBody"]
    span, problem = span_of(request, "3h"), ""
    found: Sequence[Widget] = ()
    try:
        found, settings = widgets.widgets(body)
        ago_ms = widgets.span_ms(settings)
        if ago_ms is not None and not {"range", "since", "until"} & set(request.query_params):
            now_ms = clock.now_ms()
            span = Span("", now_ms - ago_ms, now_ms)
    except WidgetError as error:
        problem = str(error)
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(widget: Widget) -> Drawn:
        async with turns:
            return await draw(asking, widget, span)

    drawn = await asyncio.gather(*(in_turn(widget) for widget in found[:WIDGETS_SHOWN]))
    return {
        "name": name,
        "drawn": drawn,
        "left_out": max(0, len(found) - WIDGETS_SHOWN),
        "span": span,
        "ranges": RANGES,
        "problem": problem or span.problem,
        "text": widgets.text,
    }


async def draw(asking: Ask, widget: Widget, span: Span) -> Drawn:
    """Return a widget with what it shows; what is wrong with it is said in its place."""
    width = charts.WIDE if widget.width > 12 else charts.NARROW
    try:
        match widget.kind:
            case "metric":
                return await _metric(asking, widget, span, width)
            case "log":
                return await _log(asking, widget, span, width)
            case "alarm":
                return await _alarms(asking, widget)
            case "text":
                widgets.text(widget.properties)
                return Drawn(widget)
        raise WidgetError(f"Widgets of type {widget.kind} are not shown here.")
    except WidgetError as error:
        return Drawn(widget, problem=str(error))
    except AwsError as error:
        return Drawn(widget, problem=error.message)


# ── metric widgets ───────────────────────────────────────────────────────────────────────────────────────────────────


async def _metric(asking: Ask, widget: Widget, span: Span, width: int) -> Drawn:
    span_s = (span.end_ms - span.start_ms) // 1000
    view = widgets.metric_view(widget.properties, span.period_s)
    if view.alarm:
        alarm = await _alarm(asking, view.alarm)
        if alarm is None:
            raise WidgetError(f"There is no alarm {view.alarm}.")
        return Drawn(widget, await metric_chart(asking, alarm, span, width))
    least_s = next((period_s for period_s in PERIODS_S if period_s * POINTS_LIMIT >= span_s), PERIODS_S[-1])
    queries = [_with_period(query, least_s) for query in view.queries]
    extra = widgets.weights(queries) if view.whole else []
    answer = await asking(
        "cloudwatch",
        "GetMetricData",
        MetricDataQueries=[*queries, *extra],
        StartTime=span.start,
        EndTime=span.end,
        ScanBy="TimestampAscending",
    )
    aside = {query["Id"] for query in extra}
    points = [
        (
            result["Id"],
            result["Label"],
            [
                (int(at.timestamp() * 1000), value)
                for at, value in zip(result["Timestamps"], result["Values"], strict=True)
            ],
        )
        for result in answer["MetricDataResults"]
    ]
    counts = {query_id: dict(found) for query_id, _, found in points if query_id in aside}
    by_id = {query["Id"]: query for query in queries}
    lines: list[charts.Line] = []
    values: list[float | None] = []
    for query_id, label, found in (one for one in points if one[0] not in aside):
        lines.append(charts.Line(label, charts.KINDS[len(lines) % len(charts.KINDS)], found))
        if view.whole:
            values.append(widgets.together(by_id.get(query_id), found, counts.get(f"weight_{query_id}", {})))
        else:
            values.append(found[-1][1] if found else None)
    return _shown(widget, view, lines, values, span, width, max(_period_of(query) for query in queries))


def _shown(
    widget: Widget,
    view: widgets.MetricView,
    lines: Sequence[charts.Line],
    values: Sequence[float | None],
    span: Span,
    width: int,
    period_s: int,
) -> Drawn:
    title = widget.title or "Metrics"
    if view.view == "timeSeries":
        if view.stacked and not view.levels:
            period_ms = period_s * 1000
            even = [
                replace(line, points=[(at_ms // period_ms * period_ms, value) for at_ms, value in line.points])
                for line in lines
            ]
            return Drawn(widget, charts.bars(even, span.start_ms, span.end_ms, period_ms, title, width))
        return Drawn(widget, charts.curves(lines, span.start_ms, span.end_ms, title, width, levels=view.levels))
    latest = list(zip(lines, values, strict=True))
    if view.view in ("pie", "bar"):
        slices = [charts.Slice(line.label, line.kind, max(0.0, value or 0.0)) for line, value in latest]
        return Drawn(widget, charts.pie(slices, title) if view.view == "pie" else charts.ranks(slices, title))
    return Drawn(
        widget, figures=[(line.label, "–" if value is None else charts.amount(value)) for line, value in latest]
    )


def _with_period(query: Mapping[str, Any], least_s: int) -> Mapping[str, Any]:
    if "MetricStat" in query:
        stat = query["MetricStat"]
        return {**query, "MetricStat": {**stat, "Period": max(stat["Period"], least_s)}}
    return {**query, "Period": max(query["Period"], least_s)}


def _period_of(query: Mapping[str, Any]) -> int:
    period_s: int = query["MetricStat"]["Period"] if "MetricStat" in query else query["Period"]
    return period_s


# ── log and alarm widgets ────────────────────────────────────────────────────────────────────────────────────────────


async def _log(asking: Ask, widget: Widget, span: Span, width: int) -> Drawn:
    groups, query = widgets.log_query(widget.properties)
    result = await insights.run(asking, query, groups, span)
    if result.problem:
        raise WidgetError(result.problem)
    chart = None
    if widget.properties.get("view", "table") != "table":
        chart = insights.chart(result, span, widget.title or "Log lines", width)
    return Drawn(widget, chart, result=result)


async def _alarms(asking: Ask, widget: Widget) -> Drawn:
    names = widgets.alarm_names(widget.properties)
    answer = await asking(
        "cloudwatch",
        "DescribeAlarms",
        AlarmNames=names or [""],
        AlarmTypes=["MetricAlarm", "CompositeAlarm"],
        MaxRecords=100,
    )
    known = {alarm["AlarmName"]: alarm for alarm in [*answer["MetricAlarms"], *answer["CompositeAlarms"]]}
    gone = [name for name in names if name not in known]
    problem = f"There is no alarm {', '.join(gone)}." if gone else ""
    return Drawn(widget, alarms=[known[name] for name in names if name in known], problem=problem)


async def _alarm(asking: Ask, name: str) -> Mapping[str, Any] | None:
    answer = await asking("cloudwatch", "DescribeAlarms", AlarmNames=[name])
    return next(iter(answer["MetricAlarms"]), None)


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def edit(request: Request) -> Response:
    """The body of a dashboard, for editing."""
    name = request.path_params["name"]
    body = (await ask(request)("cloudwatch", "GetDashboard", DashboardName=name))["DashboardBody"]
    return _form(request, name, render.pretty(body), "", new=False)


async def new(request: Request) -> Response:
    """The form for a new dashboard."""
    return _form(request, "", EMPTY, "", new=True)


def _form(request: Request, name: str, body: str, problem: str, *, new: bool, status_code: int = 200) -> Response:
    return render.page(
        request,
        "dashboard_form.html",
        status_code,
        section="dashboards",
        name=name,
        body=body,
        problem=problem,
        new=new,
    )


async def put(request: Request) -> Response:
    """Write a dashboard; one that cannot be is shown again with what is wrong."""
    name, body, is_new = form_field(request, "name"), form_field(request, "body"), form_field(request, "new") == "yes"
    asking = ask(request)
    try:
        if is_new and any(one["DashboardName"] == name for one in await _named(asking, name)):
            return _form(request, name, body, f"There is a dashboard {name} already.", new=True, status_code=409)
        request.app.state.console.note(request, "PutDashboard", name)
        answer = await asking("cloudwatch", "PutDashboard", DashboardName=name, DashboardBody=body)
    except AwsError as error:
        return _form(request, name, body, error.message, new=is_new, status_code=400)
    warnings = [f"{one['DataPath']} {one['Message']}" for one in answer.get("DashboardValidationMessages", [])]
    notice = "Saved." + (" " + " ".join(warnings[:3]) if warnings else "")
    return done(render.path("dashboards", name), notice)


async def _named(asking: Ask, name: str) -> list[Mapping[str, Any]]:
    answer = await asking("cloudwatch", "ListDashboards", DashboardNamePrefix=name or None)
    return list(answer["DashboardEntries"])


async def delete(request: Request) -> Response:
    """Delete a dashboard."""
    name = form_field(request, "name")
    request.app.state.console.note(request, "DeleteDashboards", name)
    await ask(request)("cloudwatch", "DeleteDashboards", DashboardNames=[name])
    return done("/dashboards", f"The dashboard {name} is deleted.")


ROUTES = [
    Route("/dashboards", dashboards, name="dashboards"),
    Route("/dashboards/put", put, methods=["POST"], name="dashboard_put"),
    Route("/dashboards/delete", delete, methods=["POST"], name="dashboard_delete"),
    Route("/new-dashboard", new, name="dashboard_form"),
    Route("/dashboards/{name}", dashboard, name="dashboard"),
    Route("/dashboards/{name}/edit", edit, name="dashboard_edit"),
    Route("/fragments/dashboards/{name}", fragment, name="dashboard_fragment"),
]
