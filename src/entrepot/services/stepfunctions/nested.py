"""Nested executions: what `.sync` and `.sync:2` of states:startExecution tell about the execution they waited for.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/connect-stepfunctions.html
"""

from entrepot import clock

from .executions import Execution
from .happenings import AwaitedFailed, AwaitedSucceeded
from .history import Event
from .language.evaluation import TASK_FAILED, Json
from .language.json_text import dumps, loads

NESTING_LIMIT = 50
"""How many executions may wait for one another in a row; AWS names no number. The end of the innermost may end them all."""


def outcome(
    ended: Execution, last: Event, task_id: int, pattern: str, chance: float
) -> AwaitedSucceeded | AwaitedFailed:
    """Return what the end of an execution means for the task that waits for it; `last` is its last event."""
    told = _described(ended, last, as_json=pattern == ".sync:2")
    at_ms = clock.now_ms()
    if ended.status == "SUCCEEDED":
        return AwaitedSucceeded(at_ms=at_ms, random=chance, task_id=task_id, output=told)
    return AwaitedFailed(at_ms=at_ms, random=chance, task_id=task_id, error=TASK_FAILED, cause=dumps(told))


def _described(ended: Execution, last: Event, *, as_json: bool) -> dict[str, Json]:
    """Return an execution as DescribeExecution does, members in PascalCase, times in milliseconds."""
    state = ended.state
    assert state is not None
    told: dict[str, Json] = {"ExecutionArn": ended.arn}
    told["Input"] = state.input if as_json else dumps(state.input)
    told |= {"InputDetails": {"Included": True}, "Name": ended.name}
    if ended.status == "SUCCEEDED":
        output = last.details["output"]
        told |= {"Output": loads(output) if as_json else output, "OutputDetails": {"Included": True}}
    told |= {
        name: last.details[member]
        for member, name in (("error", "Error"), ("cause", "Cause"))
        if member in last.details
    }
    told |= {"RedriveCount": ended.redrive_count, "StartDate": ended.started_at_ms}
    return {**told, "StateMachineArn": ended.machine.arn, "Status": ended.status, "StopDate": last.at_ms}
