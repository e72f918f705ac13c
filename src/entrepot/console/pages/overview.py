"""Overview: what arrived, what was delivered, what failed and why, who is connected, is anything late."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import charts, render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask
from entrepot.errors import AwsError

RANGES = {
    "1h": ("the last hour", 3_600_000, 60_000),
    "6h": ("the last 6 hours", 21_600_000, 300_000),
    "24h": ("the last 24 hours", 86_400_000, 900_000),
    "7d": ("the last 7 days", 604_800_000, 3_600_000 * 6),
    "30d": ("the last 30 days", 2_592_000_000, 86_400_000),
}
"""What the charts can span: words, milliseconds, and the length of a bar."""

RECENT_FILES = 10

NAMESPACE = "Entrepot"


async def overview(request: Request) -> Response:
    """The page."""
    return render.page(request, "overview.html", section="overview", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The part of the page that changes, for its refreshing."""
    return render.page(request, "overview_body.html", section="overview", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return what the page shows."""
    wanted = request.query_params.get("range", "1h")
    if wanted not in RANGES:
        wanted = "1h"
    words, span_ms, period_ms = RANGES[wanted]
    end_ms = clock.now_ms() // period_ms * period_ms + period_ms
    asking = ask(request)
    status = await asking("entrepot", "GetStatus")
    recent = await asking("entrepot", "ListFiles", limit=RECENT_FILES)
    failed = await asking("entrepot", "ListFiles", limit=5, status="failed")
    counts = status["files"]
    return {
        "ranges": RANGES,
        "range": wanted,
        "range_words": words,
        "status": status,
        "counts": counts,
        "recent": recent["files"],
        "failed": failed["files"],
        "alarms": await _alarms(asking),
        "status_pie": charts.pie(
            [charts.Slice(name, f"status-{name}", counts.get(name, 0)) for name in
             ("transferred", "transferring", "uploaded", "failed")],
            "Files by status",
        ),
        **await _charts(asking, end_ms - span_ms, end_ms, period_ms),
    }  # fmt: skip


async def _alarms(asking: Ask) -> list[dict[str, Any]]:
    """Return the alarms, those that are off first."""
    try:
        answer = await asking(
            "cloudwatch", "DescribeAlarms", AlarmTypes=["MetricAlarm", "CompositeAlarm"], MaxRecords=100
        )
    except AwsError:
        return []
    found = [*answer["MetricAlarms"], *answer["CompositeAlarms"]]
    order = {"ALARM": 0, "INSUFFICIENT_DATA": 1, "OK": 2}
    return sorted(found, key=lambda alarm: (order[alarm["StateValue"]], alarm["AlarmName"]))


CHARTS: Sequence[tuple[str, str, str, str, Sequence[tuple[str, str, str, str, str, str]]]] = (
    # name, title, kind of chart, statistic, lines: (label, class, namespace, metric, dimension, value)
    ("transferred", "Files transferred over time", "bars", "Sum", (
        ("transferred", "status-transferred", NAMESPACE, "Files", "Status", "transferred"),
        ("failed", "status-failed", NAMESPACE, "Files", "Status", "failed"),
    )),
    ("arrived", "Files that arrived", "bars", "Sum", (
        ("arrived", "series-1", NAMESPACE, "Files", "Status", "uploaded"),
    )),
    ("bytes", "Bytes received", "bars", "Sum", (("bytes", "series-2", NAMESPACE, "Bytes", "Direction", "in"),)),
    ("duration", "From arrival to delivery (ms)", "curves", "p50", (
        ("median", "series-1", NAMESPACE, "DeliveryDuration", "", ""),
    )),
    ("sessions", "Active SFTP sessions", "curves", "Maximum", (
        ("sessions", "series-3", NAMESPACE, "Sessions", "", ""),
    )),
    ("executions", "Executions by status", "bars", "Sum", (
        ("succeeded", "status-transferred", "AWS/States", "ExecutionsSucceeded", "", ""),
        ("failed", "status-failed", "AWS/States", "ExecutionsFailed", "", ""),
        ("timed out", "series-4", "AWS/States", "ExecutionsTimedOut", "", ""),
        ("aborted", "series-3", "AWS/States", "ExecutionsAborted", "", ""),
    )),
    ("oldest", "Oldest undelivered file (s)", "curves", "Maximum", (
        ("age", "series-4", NAMESPACE, "OldestUndeliveredAge", "", ""),
    )),
)  # fmt: skip
"""The widgets of the reference's table that are series."""


async def _charts(asking: Ask, start_ms: int, end_ms: int, period_ms: int) -> dict[str, Markup]:
    """Return the charts by name."""
    queries = []
    for name, _, _, statistic, lines in CHARTS:
        for place, (_, _, namespace, metric, dimension, value) in enumerate(lines):
            dimensions = [{"Name": dimension, "Value": value}] if dimension else []
            stat = {
                "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions},
                "Period": period_ms // 1000,
                "Stat": statistic,
            }
            queries.append({"Id": f"{name}_{place}", "MetricStat": stat})
    answer = await asking(
        "cloudwatch",
        "GetMetricData",
        MetricDataQueries=queries,
        StartTime=_time(start_ms),
        EndTime=_time(end_ms),
        ScanBy="TimestampAscending",
    )
    points = {
        result["Id"]: [
            (int(at.timestamp() * 1000), value)
            for at, value in zip(result["Timestamps"], result["Values"], strict=True)
        ]
        for result in answer["MetricDataResults"]
    }
    drawn: dict[str, Markup] = {}
    for name, title, kind, _, lines in CHARTS:
        series = [charts.Line(line[0], line[1], points.get(f"{name}_{place}", [])) for place, line in enumerate(lines)]
        width = charts.WIDE if name == "transferred" else charts.NARROW
        if kind == "bars":
            drawn[name] = charts.bars(series, start_ms, end_ms, period_ms, title, width)
        else:
            drawn[name] = charts.curves(series, start_ms, end_ms, title, width)
    return {"drawn": drawn, "titles": {name: title for name, title, *_ in CHARTS}}  # type: ignore[dict-item]


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


ROUTES = [
    Route("/", overview, name="overview"),
    Route("/fragments/overview", fragment, name="overview_fragment"),
]
