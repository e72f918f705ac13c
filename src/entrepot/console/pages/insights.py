"""Logs Insights: a query over groups and a span of time, its rows, a chart where it counts by time; saved queries."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import insights, render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.console.pages.spans import RANGES, span_of
from entrepot.errors import AwsError

SAMPLE = "fields @timestamp, @message\n| sort @timestamp desc\n| limit 20"

GROUPS_LISTED = 500
GROUPS_CHOSEN = 50

SAMPLES = (
    ("Newest lines", SAMPLE),
    ("Errors by time", "filter @message like /(?i)error|failed/\n| stats count(*) as errors by bin(5m)"),
    ("Lines by stream", "stats count(*) as lines by @logStream\n| sort lines desc\n| limit 20"),
)
"""Queries to begin with: title and text."""


async def page(request: Request) -> Response:
    """The editor; with `query`, what it answers."""
    asking, span = ask(request), span_of(request)
    chosen = [name for name in request.query_params.getlist("group") if name][:GROUPS_CHOSEN]
    query = request.query_params.get("query", "").replace("\r\n", "\n")
    result, chart = None, None
    if query.strip():
        if chosen:
            result = await insights.run(asking, query, chosen, span)
            chart = insights.chart(result, span, "Result by time")
        else:
            result = insights.Result(problem="Choose at least one log group.")
    return render.page(
        request,
        "insights.html",
        section="logs",
        groups=await _groups(asking),
        chosen=chosen,
        query=query or SAMPLE,
        samples=SAMPLES,
        saved=await _saved(asking),
        span=span,
        ranges=RANGES,
        result=result,
        chart=chart,
    )


async def _groups(asking: Ask) -> list[str]:
    """Return the names of the groups, the first of them if there are very many."""
    names: list[str] = []
    token: str | None = None
    while len(names) < GROUPS_LISTED:
        answer = await asking("logs", "DescribeLogGroups", nextToken=token)
        names += [group["logGroupName"] for group in answer["logGroups"]]
        token = answer.get("nextToken")
        if token is None:
            break
    return names


async def _saved(asking: Ask) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await asking("logs", "DescribeQueryDefinitions"))["queryDefinitions"]
    return found


async def save(request: Request) -> Response:
    """Save a query under a name; the one that has the name is replaced."""
    asking = ask(request)
    name, query = field(request, "name"), field(request, "query").replace("\r\n", "\n")
    groups = [group for group in field(request, "groups").split("\n") if group][:GROUPS_CHOSEN]
    request.app.state.console.note(request, "PutQueryDefinition", name)
    here = render.path("logs", "insights", query=query)
    if not name:
        return done(here, "Give the query a name.")
    known = next((one["queryDefinitionId"] for one in await _saved(asking) if one["name"] == name), None)
    try:
        await asking(
            "logs",
            "PutQueryDefinition",
            name=name,
            queryString=query,
            logGroupNames=groups,
            queryDefinitionId=known,
        )
    except AwsError as error:
        return done(here, f"Not saved: {error.message}")
    return done("/logs/insights", f"Saved as “{name}”.")


async def delete(request: Request) -> Response:
    """Delete a saved query."""
    definition_id = field(request, "id")
    request.app.state.console.note(request, "DeleteQueryDefinition", definition_id)
    await ask(request)("logs", "DeleteQueryDefinition", queryDefinitionId=definition_id)
    return done("/logs/insights", "The saved query is deleted.")


ROUTES = [
    Route("/logs/insights", page, name="insights"),
    Route("/logs/insights/save", save, methods=["POST"], name="insights_save"),
    Route("/logs/insights/delete", delete, methods=["POST"], name="insights_delete"),
]
