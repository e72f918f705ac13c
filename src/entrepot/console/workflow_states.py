"""What happened to each state of a state machine in one execution, read from its history. Pure.

A state can be entered many times (retries of a loop, iterations of a Map): its status is that of the worst entry, and the
numbers are kept.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_ENDS = {"FAILED": "FAILED", "TIMED_OUT": "TIMED_OUT", "ABORTED": "ABORTED", "RUNNING": "RUNNING"}

_WORST_FIRST = ("FAILED", "TIMED_OUT", "RUNNING", "ABORTED", "CAUGHT", "SUCCEEDED")
"""Which status a state shows that was entered several times."""

NOT_STATES = ("ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut")


@dataclass(slots=True)
class Visit:
    """One entry of a state: `came_from` is the state before it, `attempts` how often its task was scheduled."""

    name: str
    kind: str
    entered_at: Any
    came_from: str = ""
    input: str = ""
    output: str = ""
    exited_at: Any = None
    attempts: int = 0
    error: str = ""
    cause: str = ""
    status: str = "RUNNING"


@dataclass(frozen=True, slots=True)
class StateOutcome:
    """What a state came to: its status, and its visits, oldest first."""

    name: str
    status: str
    visits: tuple[Visit, ...]


def details(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details of an event of a history, whatever their member is called."""
    return next((value for name, value in event.items() if name.endswith("EventDetails")), {})


def outcomes(events: Iterable[Mapping[str, Any]], execution_status: str) -> dict[str, StateOutcome]:
    """Return the outcome of each state that was entered, in the order in which they were first entered."""
    visits: dict[int, Visit] = {}
    visit_of: dict[int, int] = {}
    for event in events:
        number, kind, about = event["id"], event["type"], details(event)
        if kind.endswith("StateEntered"):
            before = visits.get(visit_of.get(event.get("previousEventId", 0), 0))
            visits[number] = Visit(
                about.get("name", ""),
                kind.removesuffix("StateEntered"),
                event["timestamp"],
                before.name if before else "",
                about.get("input", ""),
            )
            visit_of[number] = number
            continue
        at = visit_of.get(event.get("previousEventId", 0), 0)
        visit = visits.get(at)
        if kind.endswith("StateExited") and (visit is None or visit.name != about.get("name")):
            at = _open_visit(visits, about.get("name", ""))
            visit = visits.get(at)
        visit_of[number] = at
        if visit is not None:
            _note(visit, event, kind, about)
    end = _ENDS.get(execution_status, "SUCCEEDED")
    for visit in visits.values():
        if visit.status == "RUNNING":
            visit.status = _unfinished(visit, end)
    by_name: dict[str, list[Visit]] = {}
    for visit in visits.values():
        by_name.setdefault(visit.name, []).append(visit)
    return {
        name: StateOutcome(name, min((v.status for v in found), key=_WORST_FIRST.index), tuple(found))
        for name, found in by_name.items()
    }


def _note(visit: Visit, event: Mapping[str, Any], kind: str, about: Mapping[str, Any]) -> None:
    if kind.endswith("StateExited"):
        visit.output, visit.exited_at = about.get("output", ""), event["timestamp"]
        visit.status = "CAUGHT" if visit.error else "SUCCEEDED"
    elif kind.endswith("Scheduled"):
        visit.attempts += 1
    elif kind.endswith("Succeeded") or kind == "ExecutionRedriven":
        visit.error = visit.cause = ""
    elif kind.endswith("Aborted"):
        visit.status = "ABORTED"
    elif kind.endswith(("Failed", "TimedOut")) and kind not in NOT_STATES:
        visit.error = about.get("error") or ("States.Timeout" if kind.endswith("TimedOut") else "Failed")
        visit.cause = about.get("cause", "")
    elif kind == "ExecutionFailed" and visit.kind == "Fail":
        visit.error, visit.cause = about.get("error", "Failed"), about.get("cause", "")


def _open_visit(visits: dict[int, Visit], name: str) -> int:
    """Return the newest visit of a state that has not been left: exits of containers follow on their children's events."""
    return next((n for n in reversed(visits) if visits[n].name == name and visits[n].exited_at is None), 0)


def _unfinished(visit: Visit, end: str) -> str:
    if visit.kind == "Succeed":
        return "SUCCEEDED"
    if visit.kind == "Fail" or (visit.error and end != "RUNNING"):
        return "FAILED"
    # In an execution that failed, what had no error of its own was cut off by the state that failed.
    return "ABORTED" if end in ("FAILED", "SUCCEEDED") else end


def readable_cause(text: str) -> str:
    """Return an error for reading: causes of functions are JSON that holds the message, maybe after the error's name."""
    for name, rest in (("", text), text.partition(": ")[::2]):
        if not rest.startswith("{"):
            continue
        try:
            found = json.loads(rest)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and "errorMessage" in found:
            return f"{name}: {found['errorMessage']}" if name else str(found["errorMessage"])
    return text
