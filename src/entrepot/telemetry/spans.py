"""One file as a trace: spans from the login to the delivery, made of what the ledger and the histories tell.

Nothing here is measured on the way of a file. The ids derive from the file and its redrives, so that a trace that is exported
twice is the same one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias

from entrepot import ids
from entrepot.services.files import Story
from entrepot.services.files.record import FAILED, STATUSES

SPANS_LIMIT = 500
"""Spans of one file; further states of a large workflow are left out."""

TEXT_LIMIT = 500
"""Characters of an error in a span."""

Attributes: TypeAlias = Mapping[str, str | int]

_ENDINGS = ("Succeeded", "Failed", "TimedOut", "Aborted")


@dataclass(frozen=True, slots=True)
class Span:
    """One span: ids in hex (16 and 8 bytes), times in milliseconds; `parent_id` is empty for the root."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    begin_ms: int
    end_ms: int
    attributes: Attributes = field(default_factory=dict)
    error: str = ""


def is_over(story: Story) -> bool:
    """Whether every execution of a file has ended, so that its trace is whole."""
    return all(
        history and history[-1]["type"] in tuple(f"Execution{ending}" for ending in _ENDINGS)
        for history in story.histories.values()
    )


def spans_of(story: Story) -> list[Span]:
    """Return the spans of a file, the root first."""
    file, session = story.file, story.facts.session
    trace_id = ids.derived(file.file_id, str(file.redrive_count))[:32]
    login_ms = file.uploaded_at_ms if session is None else min(session.logged_in_at_ms, file.uploaded_at_ms)
    root = _span(
        trace_id, "", "file", login_ms, file.uploaded_at_ms,
        {
            "entrepot.file.id": file.file_id, "entrepot.file.key": file.key, "entrepot.file.size_bytes": file.size_bytes,
            "entrepot.file.status": STATUSES[file.status], "entrepot.customer.id": file.customer_id,
            "entrepot.redrive_count": file.redrive_count,
        },
        error=(file.error_message or "failed") if file.status == FAILED else "",
    )  # fmt: skip
    parts = [*_arrival(story, root), *_work(story, root)][: SPANS_LIMIT - 1]
    end_ms = max([file.transferred_at_ms or file.uploaded_at_ms, *(part.end_ms for part in parts)])
    return [replace(root, end_ms=end_ms), *parts]


def _span(
    trace_id: str, parent_id: str, name: str, begin_ms: int, end_ms: int, attributes: Attributes, *, error: str = "",
    identity: str = "",
) -> Span:  # fmt: skip
    span_id = ids.derived(trace_id, parent_id, name, identity)[:16]
    return Span(trace_id, span_id, parent_id, name, begin_ms, max(begin_ms, end_ms), attributes, error[:TEXT_LIMIT])


def _arrival(story: Story, root: Span) -> Iterator[Span]:
    file, session = story.file, story.facts.session
    above = root
    if session is not None:
        facts = {
            "user.name": session.user_name,
            "client.address": session.source_ip,
            "entrepot.session.id": file.session_id or "",
        }
        above = _span(root.trace_id, root.span_id, "session", root.begin_ms, file.uploaded_at_ms, facts)
        yield above
    upload = {
        "user.name": file.user_name,
        "client.address": file.source_ip,
        "aws.s3.bucket": file.pipeline.source_bucket,
    }
    yield _span(root.trace_id, above.span_id, "upload", file.uploaded_at_ms, file.uploaded_at_ms, upload)


def _work(story: Story, root: Span) -> Iterator[Span]:
    """Yield the event, its newest delivery, and every execution that the file had."""
    file = story.file
    if file.event_id is None:
        return
    delivered_ms = file.delivered_at_ms or file.uploaded_at_ms
    event = _span(
        root.trace_id, root.span_id, "event", file.uploaded_at_ms, delivered_ms, {"entrepot.event.id": file.event_id}
    )
    yield event
    above = event
    if file.route is not None and file.delivered_at_ms is not None:
        facts = {"entrepot.rule.arn": file.route.rule_arn, "entrepot.target.arn": file.route.target_arn}
        above = _span(root.trace_id, event.span_id, "delivery", file.uploaded_at_ms, delivered_ms, facts)
        yield above
    for arn, history in story.histories.items():
        yield from _execution(arn, history, above)


def _execution(arn: str, history: Sequence[Mapping[str, Any]], above: Span) -> list[Span]:
    """Return the spans of an execution: itself, its states, their tasks. What has no end ends with the history."""
    if not history:
        return []
    end_ms = _at_ms(history[-1])
    facts = {"aws.step_functions.execution.arn": arn}
    spans = [_span(above.trace_id, above.span_id, "execution", _at_ms(history[0]), end_ms, facts, identity=arn)]
    inside: dict[int, int] = {}
    """Event → the place in `spans` of the innermost span that is open after it."""
    parents = [0]
    for event in history:
        kind: str = event["type"]
        place = inside.get(event.get("previousEventId", 0), 0)
        error = _error(event)
        if kind.endswith("StateEntered") or kind in ("TaskScheduled", "LambdaFunctionScheduled"):
            if len(spans) < SPANS_LIMIT:
                spans.append(_opened(event, spans[place], end_ms))
                parents.append(place)
                place = len(spans) - 1
        elif kind.endswith("StateExited"):
            spans[place] = replace(spans[place], end_ms=_at_ms(event))
            place = parents[place]
        elif kind.startswith(("Task", "LambdaFunction")) and kind.endswith(_ENDINGS):
            spans[place] = replace(spans[place], end_ms=_at_ms(event), error=error)
            place = parents[place]
        elif error:
            spans[place] = replace(spans[place], error=error)
        if kind.startswith("Execution") and error:
            spans[0] = replace(spans[0], error=error)
        inside[event["id"]] = place
    return spans


def _opened(event: Mapping[str, Any], above: Span, end_ms: int) -> Span:
    identity = str(event["id"])
    if event["type"].endswith("StateEntered"):
        facts = {"aws.step_functions.state.name": event.get("stateEnteredEventDetails", {}).get("name", "?")}
        return _span(above.trace_id, above.span_id, "state", _at_ms(event), end_ms, facts, identity=identity)
    details = event.get("taskScheduledEventDetails") or event.get("lambdaFunctionScheduledEventDetails") or {}
    is_function = "Lambda" in event["type"] or details.get("resourceType") == "lambda"
    facts = {"aws.step_functions.resource": f"{details.get('resourceType', 'lambda')}:{details.get('resource', '')}"}
    name = "function invocation" if is_function else "task"
    return _span(above.trace_id, above.span_id, name, _at_ms(event), end_ms, facts, identity=identity)


def _error(event: Mapping[str, Any]) -> str:
    """Return why something failed, as the event tells; empty when nothing did."""
    for name, details in event.items():
        if name.endswith("EventDetails") and isinstance(details, Mapping) and "error" in details:
            return ": ".join(part for part in (details["error"], details.get("cause")) if part)[:TEXT_LIMIT]
    return str(event["type"]) if event["type"].endswith(_ENDINGS[1:]) else ""


def _at_ms(event: Mapping[str, Any]) -> int:
    moment: datetime = event["timestamp"]
    return round(moment.timestamp() * 1000)
