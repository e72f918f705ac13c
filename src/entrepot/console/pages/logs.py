"""Logs: groups, their streams, and what was written, newest first."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.console.pages.spans import RANGES, Span, span_of
from entrepot.errors import AwsError

LINES_SHOWN = 200
"""Lines on a page."""

READ_PAGES = 20
"""Pages of events that are read for one page of lines, at most; then the page says that it shows less."""

FIRST_WINDOW_MS = 2_000
WINDOW_GROWTH = 5
"""The newest lines are looked for in the last two seconds, then in windows that grow, until there are enough."""

STREAMS_SHOWN = 50

RETENTION_DAYS = (1, 3, 7, 14, 30, 60, 90, 180, 365, 731, 1096, 1827, 3653)
"""What the form offers; the operation takes more."""


async def logs(request: Request) -> Response:
    """The groups; with `group`, what was written to it."""
    if request.query_params.get("group"):
        return render.page(request, "log_group.html", section="logs", **await gathered(request))
    query = request.query_params
    wanted = query.get("contains", "").strip()
    answer = await ask(request)(
        "logs", "DescribeLogGroups", logGroupNamePattern=wanted or None, nextToken=query.get("next") or None
    )
    next_token = answer.get("nextToken")
    return render.page(
        request,
        "logs.html",
        section="logs",
        groups=answer["logGroups"],
        contains=wanted,
        next_page=render.with_query(request, next=next_token) if next_token else "",
    )


async def fragment(request: Request) -> Response:
    """The lines alone, for their refreshing."""
    return render.page(request, "log_lines.html", section="logs", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return the lines for the filters in the address."""
    asking, query, span = ask(request), request.query_params, span_of(request)
    group, stream, pattern = query.get("group", ""), query.get("stream", ""), query.get("pattern", "").strip()
    streams = (
        await asking(
            "logs",
            "DescribeLogStreams",
            logGroupName=group,
            orderBy="LastEventTime",
            descending=True,
            limit=STREAMS_SHOWN,
        )
    )["logStreams"]
    found = await asking("logs", "DescribeLogGroups", logGroupNamePrefix=group, limit=1)
    lines: list[dict[str, Any]] = []
    clipped, problem = False, span.problem
    try:
        lines, clipped = await _newest(asking, group, stream, pattern, span)
    except AwsError as error:
        problem = error.message
    older = ""
    if len(lines) == LINES_SHOWN:
        last_ms = lines[-1]["timestamp"]
        until_ms = last_ms if lines[0]["timestamp"] != last_ms else last_ms - 1
        if until_ms > span.start_ms:
            older = render.path(
                "logs", group=group, stream=stream, pattern=pattern, since=span.start_ms, until=until_ms
            )
    return {
        "group": group,
        "facts": next((one for one in found["logGroups"] if one["logGroupName"] == group), {}),
        "streams": streams,
        "stream": stream,
        "pattern": pattern,
        "span": span,
        "ranges": RANGES,
        "retention_days": RETENTION_DAYS,
        "lines": lines,
        "clipped": clipped,
        "problem": problem,
        "older": older,
        "laid_out": laid_out,
    }


async def _newest(asking: Ask, group: str, stream: str, pattern: str, span: Span) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest lines of a span, newest first, and whether not all could be read."""
    found: list[dict[str, Any]] = []
    end_ms, window_ms, pages = span.end_ms, FIRST_WINDOW_MS, 0
    while len(found) < LINES_SHOWN and end_ms >= span.start_ms:
        start_ms = max(span.start_ms, end_ms - window_ms)
        token: str | None = None
        within: list[dict[str, Any]] = []
        while True:
            if pages >= READ_PAGES:
                return found or [*reversed(within[-LINES_SHOWN:])], True
            answer = await asking(
                "logs",
                "FilterLogEvents",
                logGroupName=group,
                logStreamNames=[stream] if stream else None,
                filterPattern=pattern or None,
                startTime=start_ms,
                endTime=end_ms,
                nextToken=token,
            )
            pages += 1
            within = [*within, *answer["events"]][-LINES_SHOWN:]
            token = answer.get("nextToken")
            if token is None:
                break
        found += reversed(within)
        end_ms, window_ms = start_ms - 1, window_ms * WINDOW_GROWTH
    return found[:LINES_SHOWN], False


def laid_out(message: str) -> str:
    """Return a line that is JSON laid out for reading; "" for any other."""
    if not message.lstrip().startswith(("{", "[")):
        return ""
    try:
        return json.dumps(json.loads(message), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""


async def retention(request: Request) -> Response:
    """Change how long a group is kept."""
    group, days = field(request, "group"), field(request, "days")
    request.app.state.console.note(request, "PutRetentionPolicy" if days else "DeleteRetentionPolicy", group)
    asking = ask(request)
    if days:
        if not days.isdecimal():
            return done(render.path("logs", group=group), "Give a number of days.")
        await asking("logs", "PutRetentionPolicy", logGroupName=group, retentionInDays=int(days[:6]))
        return done(render.path("logs", group=group), f"Lines are kept for {int(days[:6])} days.")
    await asking("logs", "DeleteRetentionPolicy", logGroupName=group)
    return done(render.path("logs", group=group), "Lines are kept for ever.")


ROUTES = [
    Route("/logs", logs, name="logs"),
    Route("/fragments/logs", fragment, name="logs_fragment"),
    Route("/logs/retention", retention, methods=["POST"], name="logs_retention"),
]
