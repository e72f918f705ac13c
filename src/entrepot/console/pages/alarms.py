"""Alarms: which are there, why one is in its state, how its metric went, and what happened to it."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import charts, render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.console.pages.spans import RANGES, Span, span_of
from entrepot.errors import AwsError

STATES = ("ALARM", "INSUFFICIENT_DATA", "OK")

PAGE_SIZE = 100
HISTORY_SHOWN = 50
TOPICS_OFFERED = 100
METRICS_OFFERED = 500

COMPARISONS: Mapping[str, str] = {
    "GreaterThanThreshold": ">",
    "GreaterThanOrEqualToThreshold": "≥",
    "LessThanThreshold": "<",
    "LessThanOrEqualToThreshold": "≤",
}

STATISTICS = ("Sum", "Average", "Minimum", "Maximum", "SampleCount", "p50", "p90", "p99")
SIMPLE_STATISTICS = frozenset(STATISTICS[:5])
PERIODS_S = (60, 300, 900, 3_600, 86_400)
TREATMENTS = ("missing", "notBreaching", "breaching", "ignore")


async def alarms(request: Request) -> Response:
    """The list."""
    return render.page(request, "alarms.html", section="alarms", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The table alone, for its refreshing."""
    return render.page(request, "alarms_table.html", section="alarms", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return the alarms for the filters in the address, those in alarm first."""
    query = request.query_params
    state = query.get("state", "") if query.get("state") in STATES else ""
    answer = await ask(request)(
        "cloudwatch",
        "DescribeAlarms",
        AlarmTypes=["MetricAlarm", "CompositeAlarm"],
        StateValue=state or None,
        AlarmNamePrefix=query.get("name", "").strip() or None,
        MaxRecords=PAGE_SIZE,
        NextToken=query.get("next") or None,
    )
    found = [*answer["MetricAlarms"], *answer["CompositeAlarms"]]
    found.sort(key=lambda alarm: (STATES.index(alarm["StateValue"]), alarm["AlarmName"]))
    next_token = answer.get("NextToken")
    return {
        "alarms": found,
        "states": STATES,
        "state": state,
        "name": query.get("name", ""),
        "condition": condition,
        "next_page": render.with_query(request, next=next_token).replace("/fragments", "") if next_token else "",
    }


async def alarm(request: Request) -> Response:
    """The page of an alarm."""
    asking, name = ask(request), request.path_params["name"]
    found = await _find(asking, name)
    if found is None:
        return render.page(
            request, "error.html", 404, section="alarms", title="There is no such alarm", message=f"“{name}”"
        )
    span = span_of(request, "3h")
    history = await asking("cloudwatch", "DescribeAlarmHistory", AlarmName=name, MaxRecords=HISTORY_SHOWN,
                           AlarmTypes=["MetricAlarm", "CompositeAlarm"])  # fmt: skip
    problem, chart = span.problem, None
    try:
        chart = await metric_chart(asking, found, span)
    except AwsError as error:
        problem = error.message
    return render.page(
        request,
        "alarm.html",
        section="alarms",
        alarm=found,
        condition=condition(found),
        history=history["AlarmHistoryItems"],
        chart=chart,
        span=span,
        ranges=RANGES,
        states=STATES,
        problem=problem,
    )


async def _find(asking: Ask, name: str) -> dict[str, Any] | None:
    answer = await asking(
        "cloudwatch", "DescribeAlarms", AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    return next(iter([*answer["MetricAlarms"], *answer["CompositeAlarms"]]), None)


def condition(alarm: Mapping[str, Any]) -> str:
    """Return in words when an alarm goes off."""
    if "AlarmRule" in alarm:
        return str(alarm["AlarmRule"])
    periods, needed = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    sign = COMPARISONS.get(alarm["ComparisonOperator"], alarm["ComparisonOperator"])
    of_what = "an expression"
    if "MetricName" in alarm:
        of_what = f"{alarm.get('Statistic') or alarm.get('ExtendedStatistic')} of {alarm['MetricName']}"
    return f"{of_what} {sign} {alarm['Threshold']:g} in {needed} of {periods} periods" + (
        f" of {render.duration(alarm['Period'] * 1000)}" if "Period" in alarm else ""
    )


def queries_of(alarm: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the queries whose result an alarm looks at; none for a composite alarm."""
    if alarm.get("Metrics"):
        return list(alarm["Metrics"])
    if "MetricName" not in alarm:
        return []
    metric = {key: alarm[key] for key in ("Namespace", "MetricName", "Dimensions") if key in alarm}
    statistic = alarm.get("Statistic") or alarm.get("ExtendedStatistic")
    return [{"Id": "metric", "MetricStat": {"Metric": metric, "Period": alarm["Period"], "Stat": statistic}}]


async def metric_chart(asking: Ask, alarm: Mapping[str, Any], span: Span, width: int = charts.WIDE) -> Markup | None:
    """Return the chart of an alarm's metric with its threshold; None for a composite alarm. Raises AwsError."""
    queries = queries_of(alarm)
    if not queries:
        return None
    answer = await asking(
        "cloudwatch",
        "GetMetricData",
        MetricDataQueries=queries,
        StartTime=span.start,
        EndTime=span.end,
        ScanBy="TimestampAscending",
    )
    lines = [
        charts.Line(
            result["Label"],
            charts.KINDS[place % len(charts.KINDS)],
            [
                (int(at.timestamp() * 1000), value)
                for at, value in zip(result["Timestamps"], result["Values"], strict=True)
            ],
        )
        for place, result in enumerate(answer["MetricDataResults"])
    ]
    sign = COMPARISONS.get(alarm["ComparisonOperator"], "")
    level = charts.Level(f"threshold {sign}", "status-alarm", float(alarm["Threshold"]))
    return charts.curves(lines, span.start_ms, span.end_ms, alarm["AlarmName"], width, levels=[level])


# ── what can be done ─────────────────────────────────────────────────────────────────────────────────────────────────


async def set_state(request: Request) -> Response:
    """Set an alarm's state for a test; its next evaluation puts it right."""
    name, state = field(request, "name"), field(request, "state")
    here = render.path("alarms", name)
    if state not in STATES:
        return done(here, "Choose a state.")
    request.app.state.console.note(request, "SetAlarmState", f"{name} {state}")
    visitor = request.state.visitor.name
    reason = field(request, "reason")[:500] or "a test"
    await ask(request)(
        "cloudwatch", "SetAlarmState", AlarmName=name, StateValue=state, StateReason=f"Set by {visitor}: {reason}"
    )
    return done(here, f"The state is {render.words(state)} until the next evaluation.")


async def set_actions(request: Request) -> Response:
    """Enable or disable what an alarm sets off."""
    name, enabled = field(request, "name"), field(request, "enabled") == "yes"
    operation = "EnableAlarmActions" if enabled else "DisableAlarmActions"
    request.app.state.console.note(request, operation, name)
    await ask(request)("cloudwatch", operation, AlarmNames=[name])
    return done(render.path("alarms", name), f"Its actions are {'enabled' if enabled else 'disabled'}.")


async def delete(request: Request) -> Response:
    """Delete an alarm."""
    name = field(request, "name")
    request.app.state.console.note(request, "DeleteAlarms", name)
    await ask(request)("cloudwatch", "DeleteAlarms", AlarmNames=[name])
    return done("/alarms", f"The alarm {name} is deleted.")


async def new(request: Request) -> Response:
    """The form for a new alarm, with the metrics that there are."""
    return await _form(request, dict(request.query_params), "")


async def _form(request: Request, given: Mapping[str, str], problem: str, status_code: int = 200) -> Response:
    asking = ask(request)
    metrics = (await asking("cloudwatch", "ListMetrics"))["Metrics"][:METRICS_OFFERED]
    topics = (await asking("sns", "ListTopics"))["Topics"][:TOPICS_OFFERED]
    return render.page(
        request,
        "alarm_form.html",
        status_code,
        section="alarms",
        given=given,
        problem=problem,
        metrics=[(_written(metric), _words(metric)) for metric in metrics],
        topics=[topic["TopicArn"] for topic in topics],
        comparisons=COMPARISONS,
        statistics=STATISTICS,
        periods=PERIODS_S,
        treatments=TREATMENTS,
    )


def _written(metric: Mapping[str, Any]) -> str:
    """Return a metric as the value of a form's field."""
    return json.dumps([metric["Namespace"], metric["MetricName"], metric["Dimensions"]], separators=(",", ":"))


def _words(metric: Mapping[str, Any]) -> str:
    dimensions = ", ".join(f"{one['Name']}={one['Value']}" for one in metric["Dimensions"])
    return f"{metric['Namespace']} {metric['MetricName']}" + (f" ({dimensions})" if dimensions else "")


async def create(request: Request) -> Response:
    """Create an alarm on one metric; a name that is taken is refused."""
    given = {name: field(request, name) for name in request.state.form if name != "csrf_token"}
    asking = ask(request)
    try:
        definition = _definition(given)
        if await _find(asking, definition["AlarmName"]) is not None:
            raise ValueError(f"There is an alarm {definition['AlarmName']} already.")
        request.app.state.console.note(request, "PutMetricAlarm", definition["AlarmName"])
        await asking("cloudwatch", "PutMetricAlarm", **definition)
    except ValueError as error:
        return await _form(request, given, str(error), 400)
    except AwsError as error:
        return await _form(request, given, error.message, error.status)
    return done(render.path("alarms", definition["AlarmName"]), "The alarm is created.")


def _definition(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the request for what a form says; ValueError with words for who filled it in."""
    try:
        namespace, metric_name, dimensions = json.loads(given.get("metric", ""))
        dimensions = [{"Name": str(one["Name"]), "Value": str(one["Value"])} for one in dimensions]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("Choose a metric.") from None
    try:
        threshold, period_s = float(given.get("threshold", "")), int(given.get("period", ""))
        periods, needed = int(given.get("periods", "")), int(given.get("needed", "") or given.get("periods", ""))
    except ValueError:
        raise ValueError("Threshold, period and numbers of periods must be numbers.") from None
    if not math.isfinite(threshold):
        raise ValueError("The threshold must be a number.")
    statistic = given.get("statistic", "")
    if not given.get("name"):
        raise ValueError("Give the alarm a name.")
    return {
        "AlarmName": given["name"],
        "AlarmDescription": given.get("description", "")[:1024],
        "Namespace": str(namespace),
        "MetricName": str(metric_name),
        "Dimensions": dimensions,
        ("Statistic" if statistic in SIMPLE_STATISTICS else "ExtendedStatistic"): statistic,
        "Period": period_s,
        "EvaluationPeriods": periods,
        "DatapointsToAlarm": needed,
        "Threshold": threshold,
        "ComparisonOperator": given.get("comparison", ""),
        "TreatMissingData": given.get("missing", "missing"),
        "AlarmActions": [given["topic"]] if given.get("topic") else [],
        "OKActions": [given["topic"]] if given.get("topic") and given.get("tell_ok") else [],
    }


ROUTES = [
    Route("/alarms", alarms, name="alarms"),
    Route("/fragments/alarms", fragment, name="alarms_fragment"),
    Route("/alarms/state", set_state, methods=["POST"], name="alarm_state"),
    Route("/alarms/actions", set_actions, methods=["POST"], name="alarm_actions"),
    Route("/alarms/delete", delete, methods=["POST"], name="alarm_delete"),
    Route("/alarms/create", create, methods=["POST"], name="alarm_create"),
    Route("/new-alarm", new, name="alarm_form"),
    Route("/alarms/{name:path}", alarm, name="alarm"),
]
