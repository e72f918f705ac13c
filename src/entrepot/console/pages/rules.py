"""Rules: which events go where. Buses, rules with pattern or schedule and their targets, archives and replays."""

import json
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.errors import AwsError

LIST_LIMIT = 100

BUSES_LIMIT = 50

EVENT_CHARS = 256 * 1024


async def rules(request: Request) -> Response:
    """The list: every bus with its rules; archives and replays below."""
    asking = ask(request)
    buses = (await asking("events", "ListEventBuses", Limit=BUSES_LIMIT))["EventBuses"]
    listed = []
    for bus in buses:
        answer = await asking("events", "ListRules", EventBusName=bus["Name"], Limit=LIST_LIMIT)
        for rule in answer["Rules"]:
            targets = await asking("events", "ListTargetsByRule", Rule=rule["Name"], EventBusName=bus["Name"])
            listed.append({**rule, "bus": bus["Name"], "targets": targets["Targets"]})
    archives = (await asking("events", "ListArchives", Limit=LIST_LIMIT))["Archives"]
    replays = (await asking("events", "ListReplays", Limit=LIST_LIMIT))["Replays"]
    return render.page(
        request,
        "rules.html",
        section="rules",
        buses=buses,
        rules=listed,
        archives=archives,
        replays=sorted(replays, key=lambda replay: str(replay.get("ReplayStartTime", "")), reverse=True),
    )


async def rule(request: Request) -> Response:
    """A rule."""
    return await _rule(request)


async def _rule(request: Request, *, event: str = "", outcome: dict[str, Any] | None = None) -> Response:
    asking = ask(request)
    bus, name = request.path_params["bus"], request.path_params["name"]
    described = await asking("events", "DescribeRule", Name=name, EventBusName=bus)
    targets = (await asking("events", "ListTargetsByRule", Rule=name, EventBusName=bus))["Targets"]
    return render.page(
        request,
        "rule.html",
        section="rules",
        rule=described,
        bus=bus,
        pattern=described.get("EventPattern", ""),
        schedule=described.get("ScheduleExpression", ""),
        targets=targets,
        failures=await _failures(asking, name),
        event=event or _sample(described.get("EventPattern", "")),
        outcome=outcome,
    )


async def _failures(asking: Ask, name: str) -> int | None:
    """Return how many deliveries of a rule failed in the last day; None when nobody counts them."""
    end_ms = clock.now_ms()
    start_ms = end_ms - 86_400_000
    try:
        answer = await asking(
            "cloudwatch",
            "GetMetricStatistics",
            Namespace="AWS/Events",
            MetricName="FailedInvocations",
            Dimensions=[{"Name": "RuleName", "Value": name}],
            StartTime=datetime.fromtimestamp(start_ms / 1000, UTC),
            EndTime=datetime.fromtimestamp(end_ms / 1000, UTC),
            Period=86_400,
            Statistics=["Sum"],
        )
    except AwsError:
        return None
    return int(sum(point["Sum"] for point in answer["Datapoints"]))


def _sample(pattern: str) -> str:
    """Return an event to begin with: the first plain value of each of the pattern's conditions."""
    try:
        wanted = json.loads(pattern)
    except ValueError:
        wanted = {}
    event = {
        "version": "0",
        "id": "12345678-1234-1234-1234-123456789012",
        "detail-type": "",
        "source": "",
        "account": "000000000000",
        "time": "2026-01-01T00:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": {},
    }
    filled = _filled(wanted) if isinstance(wanted, dict) else {}
    return json.dumps({**event, **filled}, indent=2, ensure_ascii=False)


def _filled(wanted: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, conditions in wanted.items():
        if isinstance(conditions, dict):
            made[name] = _filled(conditions)
        elif isinstance(conditions, list) and not name.startswith("$"):
            plain = [value for value in conditions if not isinstance(value, dict)]
            prefixes = [value["prefix"] for value in conditions if isinstance(value, dict) and "prefix" in value]
            made[name] = plain[0] if plain else prefixes[0] if prefixes else "example"
    return made


# ── what can be done ─────────────────────────────────────────────────────────────────────────────────────────────────


async def switch(request: Request) -> Response:
    """Enable or disable a rule."""
    bus, name = request.path_params["bus"], request.path_params["name"]
    operation = "EnableRule" if field(request, "state") == "ENABLED" else "DisableRule"
    request.app.state.console.note(request, operation, f"{bus}/{name}")
    await ask(request)("events", operation, Name=name, EventBusName=bus)
    words = "enabled" if operation == "EnableRule" else "disabled: events pass it by, and are not kept for it"
    return done(render.path("rules", bus, name), f"The rule is {words}.")


async def test(request: Request) -> Response:
    """Hold an event against the pattern; nothing is sent."""
    asking, event = ask(request), field(request, "event")[:EVENT_CHARS]
    described = await asking(
        "events", "DescribeRule", Name=request.path_params["name"], EventBusName=request.path_params["bus"]
    )
    try:
        answer = await asking("events", "TestEventPattern", EventPattern=described.get("EventPattern", ""), Event=event)
    except AwsError as error:
        return await _rule(request, event=event, outcome={"problem": error.message})
    return await _rule(request, event=event, outcome={"problem": "", "matches": answer["Result"]})


ROUTES = [
    Route("/rules", rules, name="rules"),
    Route("/rules/{bus}/{name}", rule, name="rule"),
    Route("/rules/{bus}/{name}/state", switch, methods=["POST"], name="rule_state"),
    Route("/rules/{bus}/{name}/test", test, methods=["POST"], name="rule_test"),
]
