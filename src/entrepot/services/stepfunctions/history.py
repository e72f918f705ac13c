"""The history of an execution: its events, how they are kept, and how AWS shows them.

Events of a running execution are appended as plain JSON text; a finished one keeps them deflated, with the texts that
occur more than once (an output is the next state's input) stored once and the definition as dictionary. The shapes are those
of https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entrepot import clock

from .stored_json import pack, unpack

HISTORY_LIMIT_EVENTS = 25_000
"""An execution fails rather than record more events. Source: Step Functions' service quotas."""

TYPES = (
    "ExecutionStarted",
    "ExecutionSucceeded",
    "ExecutionFailed",
    "ExecutionAborted",
    "ExecutionTimedOut",
    "ExecutionRedriven",
    "PassStateEntered",
    "PassStateExited",
    "TaskStateEntered",
    "TaskStateExited",
    "TaskStateAborted",
    "TaskScheduled",
    "TaskStarted",
    "TaskSucceeded",
    "TaskFailed",
    "TaskTimedOut",
    "LambdaFunctionScheduled",
    "LambdaFunctionStarted",
    "LambdaFunctionSucceeded",
    "LambdaFunctionFailed",
    "LambdaFunctionTimedOut",
    "ChoiceStateEntered",
    "ChoiceStateExited",
    "WaitStateEntered",
    "WaitStateExited",
    "WaitStateAborted",
    "SucceedStateEntered",
    "SucceedStateExited",
    "FailStateEntered",
    "ParallelStateEntered",
    "ParallelStateStarted",
    "ParallelStateExited",
    "ParallelStateFailed",
    "ParallelStateAborted",
    "MapStateEntered",
    "MapStateStarted",
    "MapStateSucceeded",
    "MapStateExited",
    "MapStateFailed",
    "MapStateAborted",
    "MapIterationStarted",
    "MapIterationSucceeded",
    "MapIterationFailed",
    "MapIterationAborted",
    "EvaluationFailed",
    "TaskSubmitted",
    "MapRunStarted",
    "MapRunSucceeded",
    "MapRunFailed",
    "MapRunAborted",
    "MapRunRedriven",
    "ActivityScheduled",
    "ActivityScheduleFailed",
    "ActivityStarted",
    "ActivitySucceeded",
    "ActivityFailed",
    "ActivityTimedOut",
    "LambdaFunctionScheduleFailed",
    "LambdaFunctionStartFailed",
    "TaskStartFailed",
    "TaskSubmitFailed",
    "ParallelStateSucceeded",
)
"""Every event type that is recorded. The place in this tuple is stored: only append."""

_NUMBERS = {name: number for number, name in enumerate(TYPES)}

_DETAILS_MEMBER = {
    **{name: f"{name[0].lower()}{name[1:]}EventDetails" for name in TYPES},
    **{name: "stateEnteredEventDetails" for name in TYPES if name.endswith("StateEntered")},
    **{name: "stateExitedEventDetails" for name in TYPES if name.endswith("StateExited")},
}

_DATA = ("input", "output", "parameters")
"""Members of details that hold JSON text; those that occur twice are stored once."""

_FOLDED = b"\x01"
_SEPARATOR = "\x1e"
_COMMON_TEXT = (
    b'"Key":"","VersionId":"","ETag":"","version":"0","id":"","detail-type":"Object Created","source":"aws.s3","account":"'
    b'000000000000","time":"","region":"us-east-1","resources":["arn:aws:s3:::"],"detail":{"version":"0","bucket":{"name":"'
    b'"},"object":{"key":"","size":,"etag":"","version-id":"","sequencer":"00"},"request-id":"","requester":"000000000000",'
    b'"source-ip-address":"127.0.0.1","reason":"PutObject"}}"file_id":"","source_bucket":"","destination_bucket":"","key":"'
    b'customer_id":"","status":"Success","message":"File copied successfully"{"Error":"","Cause":"{\\"errorMessage\\": \\"'
    b'\\", \\"errorType\\": \\"\\", \\"requestId\\": \\"\\", \\"stackTrace\\": [\\"  File \\\\\\"/var/task/handler.py\\\\\\"'
    b'{"ExecutedVersion":"$LATEST","Payload":{"statusCode":200},"SdkHttpMetadata":{"AllHttpHeaders":{"X-Amz-Executed-Version'
    b'":["$LATEST"],"x-amzn-RequestId":["0"],"Content-Length":["2"],"Content-Type":["application/json"]},"HttpHeaders":{'
    b'"Content-Length":"2","Content-Type":"application/json","X-Amz-Executed-Version":"$LATEST","x-amzn-RequestId":""},'
    b'"HttpStatusCode":200},"SdkResponseMetadata":{"RequestId":""},"StatusCode":200}'
    b'[[0,0,-1,{"input":0,"roleArn":"arn:aws:iam::000000000000:role/"}],[8,0,-2,{"name":"","input":0}],[11,0,0,{"resourceType'
    b'":"lambda","resource":"invoke","region":"us-east-1","parameters":1}],[12,0,0,{"resourceType":"lambda","resource":'
    b'"invoke"}],[16,0,0,{"resource":"arn:aws:lambda:us-east-1:000000000000:function:","input":1}],[17,0,0,{}],[18,0,0,{'
    b'"output":2}],[13,5,0,{"resourceType":"aws-sdk:s3","resource":"copyObject","output":2}],[9,0,0,{"name":"","output":2}]'
    b',[6,0,0,{"name":"","input":2}],[7,0,0,{"name":"","output":3}],[1,0,0,{"output":2}]]'
)
"""Text that most histories have in common: the dictionary of deflate. Stored histories need it: never change it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `details` are AWS's members of the type's EventDetails; JSON texts are strings there."""

    id: int
    type: str
    at_ms: int
    previous_id: int
    details: Mapping[str, Any]


def dictionary(definition_text: str) -> bytes:
    """Return the dictionary for the histories of executions of this definition."""
    return _COMMON_TEXT + definition_text.encode()[-16_384:]


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def append(tail: bytes, events: Sequence[Event]) -> bytes:
    """Return the plain text `tail` of a running execution with `events` added."""
    added = pack([(_NUMBERS[e.type], e.at_ms, e.previous_id, e.details) for e in events])[1:-1]
    return b"%s,%s" % (tail, added) if tail else added


def fold(tail: bytes, events: Sequence[Event], words: bytes, first_id: int) -> bytes:
    """Return the plain text `tail` and the `events` after it as a small deflated record.

    `words` is the definition's `dictionary`, `first_id` the id of the first event.
    """
    data: dict[str, int] = {}
    folded: list[Any] = []
    before_ms = 0
    entries = unpack(b"[%s]" % tail) if tail else []
    entries += [(_NUMBERS[e.type], e.at_ms, e.previous_id, dict(e.details)) for e in events]
    for place, (number, at_ms, previous_id, details) in enumerate(entries):
        for member in _DATA:
            if _SEPARATOR not in details.get(member, _SEPARATOR):
                details[member] = data.setdefault(details[member], len(data))
        # The previous event is nearly always the one before: 0 stands for it.
        folded.append([number, at_ms - before_ms, first_id + place - previous_id - 1, details])
        before_ms = at_ms
    texts = _SEPARATOR.join([pack(folded).decode(), *data])
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=words)
    return _FOLDED + deflate.compress(texts.encode()) + deflate.flush()


def read(record: bytes, words: bytes, first_id: int) -> list[Event]:
    """Return the events of a plain or folded record; `first_id` is the id of its first event."""
    if not record:
        return []
    if record[:1] != _FOLDED:
        return [
            Event(first_id + place, TYPES[number], at_ms, previous_id, details)
            for place, (number, at_ms, previous_id, details) in enumerate(unpack(b"[%s]" % record))
        ]
    head, *data = zlib.decompressobj(-15, zdict=words).decompress(record[1:]).decode().split(_SEPARATOR)
    events, at_ms = [], 0
    for place, (number, after_ms, distance, details) in enumerate(unpack(head)):
        at_ms += after_ms
        for member in _DATA:
            if isinstance(details.get(member), int):
                details[member] = data[details[member]]
        events.append(Event(first_id + place, TYPES[number], at_ms, first_id + place - distance - 1, details))
    return events


def describe(event: Event, *, include_data: bool = True) -> dict[str, Any]:
    """Return the event as GetExecutionHistory does (camelCase members, a datetime as timestamp)."""
    shown: dict[str, Any] = {
        "timestamp": clock.from_ms(event.at_ms),
        "type": event.type,
        "id": event.id,
        "previousEventId": event.previous_id,
    }
    if event.details:
        shown[_DETAILS_MEMBER[event.type]] = _details(event, include_data)
    return shown


def _details(event: Event, include_data: bool) -> dict[str, Any]:
    details = dict(event.details)
    for member in ("input", "output"):
        if member in details:
            if include_data:
                details[f"{member}Details"] = {"truncated": False}
            else:
                del details[member]
    if "assignedVariables" in details:
        if include_data:
            details["assignedVariablesDetails"] = {"truncated": False}
        else:
            del details["assignedVariables"]
    return details


def log_message(event: Event, execution_arn: str, redrive_count: int, *, include_data: bool) -> str:
    """Return the event as the JSON line that AWS writes to the state machine's log group."""
    line = {
        "id": str(event.id),
        "type": event.type,
        "details": _details(event, include_data),
        "previous_event_id": str(event.previous_id),
        "event_timestamp": str(event.at_ms),
        "execution_arn": execution_arn,
        "redrive_count": str(redrive_count),
    }
    return _encode(line)


_FATAL = frozenset({"ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"})
_ERRORS = _FATAL | {"FailStateEntered"} | {name for name in TYPES if name.endswith(("Failed", "TimedOut", "Aborted"))}


def is_logged(event_type: str, level: str) -> bool:
    """Whether an event of this type is written at `level` (ALL, ERROR, FATAL, OFF)."""
    if level == "ALL":
        return True
    return event_type in (_ERRORS if level == "ERROR" else _FATAL if level == "FATAL" else ())
