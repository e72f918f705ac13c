"""Executions: what the state machines do. A list, and for each execution its graph, its states and its history."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render, workflow_graph, workflow_states
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, done, field
from entrepot.console.workflow_states import StateOutcome
from entrepot.errors import AwsError

STATUSES = ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE")

PAGE_SIZE = 50

MACHINES_LIMIT = 100
"""The list over all state machines asks at most so many of them."""

HISTORY_PAGE = 200

GRAPH_EVENTS = 5_000
"""The graph and the table of states are made from at most so many events."""

LOG_LINES_LIMIT = 1_000

_NOT_THERE = dict.fromkeys(
    (
        "input",
        "output",
        "error",
        "cause",
        "redriveCount",
        "redriveDate",
        "redriveStatus",
        "stateMachineVersionArn",
        "mapRunArn",
    )
)
"""What DescribeExecution leaves out."""


# ── the list ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def executions(request: Request) -> Response:
    """The page."""
    return render.page(request, "executions.html", section="executions", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The table alone, for its refreshing."""
    return render.page(request, "executions_table.html", section="executions", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return the executions for the filters in the address: those of one state machine in pages, else the newest of all."""
    asking, query = ask(request), request.query_params
    machines = (await asking("stepfunctions", "ListStateMachines", maxResults=MACHINES_LIMIT))["stateMachines"]
    status = query.get("status", "") if query.get("status") in STATUSES else ""
    map_run = query.get("map_run", "")
    chosen = next((machine for machine in machines if machine["name"] == query.get("machine")), None)
    next_token, problem = None, ""
    found: list[dict[str, Any]] = []
    one = bool(chosen or map_run)
    sources = [chosen] if chosen else [machine for machine in machines if machine["type"] != "EXPRESS"]
    of: list[dict[str, Any]] = [{"mapRunArn": map_run}]
    if not map_run:
        of = [{"stateMachineArn": machine["stateMachineArn"]} for machine in sources if machine["type"] != "EXPRESS"]
    for whose in of:
        try:
            answer = await asking(
                "stepfunctions",
                "ListExecutions",
                **whose,
                statusFilter=status or None,
                maxResults=PAGE_SIZE,
                nextToken=query.get("next") or None if one else None,
            )
        except AwsError as error:
            problem = error.message
            continue
        found += answer["executions"]
        next_token = answer.get("nextToken") if one else None
    found.sort(key=lambda execution: execution["startDate"], reverse=True)
    return {
        "machines": machines,
        "chosen": chosen,
        "statuses": STATUSES,
        "status": status,
        "executions": found[:PAGE_SIZE],
        "map_run": map_run,
        "more": not one and len(found) > PAGE_SIZE,
        "problem": problem,
        "took": took_ms,
        "next_page": render.with_query(request, next=next_token).replace("/fragments", "") if next_token else "",
        "first_page": render.with_query(request, next=None).replace("/fragments", "") if query.get("next") else "",
    }


def took_ms(execution: Mapping[str, Any]) -> float | None:
    """Return how long an execution took; None while it runs."""
    if execution.get("stopDate") is None:
        return None
    milliseconds: float = (execution["stopDate"] - execution["startDate"]).total_seconds() * 1000
    return milliseconds


# ── one execution ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Shown:
    """What pages show of an execution's course: the picture, each state's outcome, and whether there was more."""

    execution: Mapping[str, Any]
    graph: Markup | None
    outcomes: Mapping[str, StateOutcome]
    clipped: bool


async def execution(request: Request) -> Response:
    """The page of an execution."""
    asking, arn = ask(request), request.path_params["arn"]
    if ":express:" in arn:
        return await _express(request, asking, arn)
    course = await course_of(asking, arn)
    history = await asking(
        "stepfunctions",
        "GetExecutionHistory",
        executionArn=arn,
        maxResults=HISTORY_PAGE,
        nextToken=request.query_params.get("next") or None,
    )
    next_token = history.get("nextToken")
    return render.page(
        request,
        "execution.html",
        section="executions",
        course=course,
        execution=course.execution,
        took=took_ms(course.execution),
        rows=_rows(history["events"], course.execution["startDate"]),
        next_page=render.with_query(request, next=next_token) + "#history" if next_token else "",
        first_page=render.with_query(request, next=None) + "#history" if request.query_params.get("next") else "",
        express="",
        log_group="",
    )


async def course_of(asking: Ask, arn: str) -> Shown:
    """Return what happened in an execution. Raises AwsError when there is none."""
    described = await asking("stepfunctions", "DescribeExecution", executionArn=arn)
    machine = await asking("stepfunctions", "DescribeStateMachineForExecution", executionArn=arn)
    events: list[dict[str, Any]] = []
    token = None
    while len(events) < GRAPH_EVENTS:
        answer = await asking(
            "stepfunctions", "GetExecutionHistory", executionArn=arn, maxResults=1000, nextToken=token
        )
        events += answer["events"]
        token = answer.get("nextToken")
        if not token:
            break
    # Drawing a large state machine takes tenths of a second, which nobody else need wait for.
    return await asyncio.to_thread(_course, described, machine["definition"], events, clipped=bool(token))


def _course(described: Mapping[str, Any], definition: str, events: list[dict[str, Any]], *, clipped: bool) -> Shown:
    outcomes = workflow_states.outcomes(events, described["status"])
    graph = workflow_graph.draw(definition, outcomes, f"States of the execution {described['name']}")
    return Shown({**_NOT_THERE, **described}, graph, outcomes, clipped)


def _rows(events: list[dict[str, Any]], started_at: Any) -> list[dict[str, Any]]:
    """Return the events for the table."""
    rows = []
    for event in events:
        about = workflow_states.details(event)
        rows.append(
            {
                "id": event["id"],
                "type": event["type"],
                "timestamp": event["timestamp"],
                "after_ms": (event["timestamp"] - started_at).total_seconds() * 1000,
                "name": about.get("name", ""),
                "error": about.get("error", ""),
                "cause": about.get("cause", ""),
                "input": about.get("input", "") or about.get("parameters", ""),
                "output": about.get("output", ""),
                "resource": about.get("resource", ""),
                "map_run": about.get("mapRunArn", ""),
            }
        )
    return rows


# ── an Express execution ─────────────────────────────────────────────────────────────────────────────────────────────


async def _express(request: Request, asking: Ask, arn: str) -> Response:
    """The page of an Express execution: it has no record, but its lines in the log group tell the same."""
    parts = arn.split(":")
    machine_arn = ":".join([*parts[:5], "stateMachine", *parts[6:7]])
    machine = await asking("stepfunctions", "DescribeStateMachine", stateMachineArn=machine_arn)
    destinations = machine.get("loggingConfiguration", {}).get("destinations", ())
    group_arn = next((each["cloudWatchLogsLogGroup"]["logGroupArn"] for each in destinations), "")
    group = group_arn.split(":log-group:", 1)[-1].removesuffix(":*") or f"/aws/vendedlogs/states/{machine['name']}"
    events = await _logged_events(asking, group, arn)
    ends = [event["type"] for event in events if event["type"].startswith("Execution")]
    status = {"ExecutionSucceeded": "SUCCEEDED", "ExecutionFailed": "FAILED", "ExecutionTimedOut": "TIMED_OUT",
              "ExecutionAborted": "ABORTED"}.get(ends[-1] if ends else "", "RUNNING")  # fmt: skip
    described: dict[str, Any] = {
        "name": parts[-2] if len(parts) > 8 else parts[-1],
        "executionArn": arn,
        "stateMachineArn": machine_arn,
        "status": status,
        "startDate": events[0]["timestamp"] if events else None,
    }
    if events:
        first, last = workflow_states.details(events[0]), workflow_states.details(events[-1])
        described |= {name: last[name] for name in ("output", "error", "cause") if name in last}
        described |= {"input": first["input"]} if "input" in first else {}
        if status != "RUNNING":
            described["stopDate"] = events[-1]["timestamp"]
    course = _course(described, machine["definition"], events, clipped=False)
    return render.page(
        request,
        "execution.html",
        section="executions",
        course=course,
        execution=course.execution,
        took=took_ms(described) if events else None,
        rows=_rows(events, described["startDate"]),
        next_page="",
        first_page="",
        express="An Express execution: what is shown comes from its log lines."
        if events
        else f"An Express execution: nothing of it is kept but its log lines, and the log group {group} has none.",
        log_group=group,
    )


async def _logged_events(asking: Ask, group: str, arn: str) -> list[dict[str, Any]]:
    """Return the events of an execution as its log lines tell them."""
    try:
        answer = await asking(
            "logs", "FilterLogEvents", logGroupName=group, filterPattern=f'"{arn}"', limit=LOG_LINES_LIMIT
        )
    except AwsError:
        return []
    events = []
    for logged in answer["events"]:
        try:
            line = json.loads(logged["message"])
            event = {
                "id": int(line["id"]),
                "type": str(line["type"]),
                "timestamp": render.moment(int(line["event_timestamp"])),
                "previousEventId": int(line.get("previous_event_id", 0)),
                "loggedEventDetails": dict(line.get("details", {})),
            }
        except (ValueError, KeyError, TypeError):
            continue
        events.append(event)
    return sorted(events, key=lambda event: event["id"])


# ── what can be done ─────────────────────────────────────────────────────────────────────────────────────────────────


async def redrive(request: Request) -> Response:
    """Go on with a failed execution from the state that failed."""
    arn = field(request, "arn")
    request.app.state.console.note(request, "RedriveExecution", arn)
    await ask(request)("stepfunctions", "RedriveExecution", executionArn=arn)
    return done(render.path("executions", arn), "The execution goes on from the state that failed.")


async def stop(request: Request) -> Response:
    """End a running execution."""
    arn = field(request, "arn")
    request.app.state.console.note(request, "StopExecution", arn)
    await ask(request)("stepfunctions", "StopExecution", executionArn=arn, cause="Stopped at the console.")
    return done(render.path("executions", arn), "The execution was stopped.")


async def start_again(request: Request) -> Response:
    """Start a new execution with the same input, under the definition as it is now."""
    asking, arn = ask(request), field(request, "arn")
    described = await asking("stepfunctions", "DescribeExecution", executionArn=arn)
    request.app.state.console.note(request, "StartExecution", described["stateMachineArn"])
    started = await asking(
        "stepfunctions",
        "StartExecution",
        stateMachineArn=described["stateMachineArn"],
        input=described.get("input", "{}"),
    )
    return done(
        render.path("executions", started["executionArn"]),
        "Started again with the same input, under the definition as it is now.",
    )


ROUTES = [
    Route("/executions", executions, name="executions"),
    Route("/fragments/executions", fragment, name="executions_fragment"),
    Route("/executions/redrive", redrive, methods=["POST"], name="execution_redrive"),
    Route("/executions/stop", stop, methods=["POST"], name="execution_stop"),
    Route("/executions/start", start_again, methods=["POST"], name="execution_start"),
    Route("/executions/{arn:path}", execution, name="execution"),
]
