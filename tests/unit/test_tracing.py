"""Traces: spans from what is told of a file; a queue that never holds up a file or grows."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from entrepot.services.files import FileRecord, Pipeline, SessionFacts, Story
from entrepot.services.files.errors import ResourceNotFoundError
from entrepot.services.files.record import FAILED, TRANSFERRED, Route
from entrepot.services.files.timeline import Facts
from entrepot.telemetry import tracing
from entrepot.telemetry.spans import SPANS_LIMIT, Span, is_over, spans_of
from entrepot.telemetry.tracing import Tracing

AT_MS = 1_700_000_000_000
ARN = "arn:aws:states:us-east-1:000000000000:execution:transfer:e"
SESSION = SessionFacts("demo", "10.1.2.3", "OpenSSH_9.2", "SHA256:xyz", AT_MS - 1_000)
ROUTE = Route("arn:rule/object-created", "t", "arn:stateMachine:transfer", ARN[:-1])


def event(number: int, previous: int, kind: str, at_ms: int, **details: Any) -> dict[str, Any]:
    moment = datetime.fromtimestamp((AT_MS + at_ms) / 1000, UTC)
    return {"id": number, "previousEventId": previous, "type": kind, "timestamp": moment, **details}


def entered(number: int, previous: int, kind: str, at_ms: int, name: str) -> dict[str, Any]:
    return event(number, previous, f"{kind}StateEntered", at_ms, stateEnteredEventDetails={"name": name})


LAMBDA = {"taskScheduledEventDetails": {"resourceType": "lambda", "resource": "invoke"}}

DELIVERED = [
    event(1, 0, "ExecutionStarted", 10),
    entered(2, 1, "Pass", 11, "IdentifyFile"),
    event(3, 2, "PassStateExited", 12),
    entered(4, 3, "Task", 12, "TransferFile"),
    event(5, 4, "TaskScheduled", 13, **LAMBDA),
    event(6, 5, "TaskStarted", 14),
    event(7, 6, "TaskFailed", 15, taskFailedEventDetails={"error": "Boom", "cause": "once"}),
    event(8, 7, "TaskScheduled", 1_015, **LAMBDA),
    event(9, 8, "TaskSucceeded", 1_030),
    event(10, 9, "TaskStateExited", 1_031),
    event(11, 10, "ExecutionSucceeded", 1_032),
]


def story(
    history: Sequence[Mapping[str, Any]] = DELIVERED,
    *,
    status: int = TRANSFERRED,
    session: SessionFacts | None = SESSION,
) -> Story:
    file = FileRecord(
        1, "ab" * 32, Pipeline("in", "out", "table"), "demo/a.csv", "demo", 5, "cd" * 32, "etag", None, "PutObject", status,
        AT_MS, AT_MS + 1_020, "it broke" if status == FAILED else None, "0e0e0e0e-0000-4000-8000-000000000000", "demo",
        "10.1.2.3", "s-1", "REQ", None, 0, ROUTE, 1, AT_MS + 9, None, None, "out", "demo/a.csv",
    )  # fmt: skip
    return Story(file, Facts((), (ARN,), session), {ARN: history})


def shape(spans: Sequence[Span]) -> list[tuple[str, str, int, int, bool]]:
    """Each span with the name of its parent, its times after the arrival, and whether it failed."""
    names = {span.span_id: span.name for span in spans}
    return [(s.name, names.get(s.parent_id, ""), s.begin_ms - AT_MS, s.end_ms - AT_MS, bool(s.error)) for s in spans]


def test_a_file_is_one_trace_from_the_login_to_the_delivery() -> None:
    spans = spans_of(story())
    assert shape(spans) == [
        ("file", "", -1_000, 1_032, False),
        ("session", "file", -1_000, 0, False),
        ("upload", "session", 0, 0, False),
        ("event", "file", 0, 9, False),
        ("delivery", "event", 0, 9, False),
        ("execution", "delivery", 10, 1_032, False),
        ("state", "execution", 11, 12, False),
        ("state", "execution", 12, 1_031, False),
        ("function invocation", "state", 13, 15, True),
        ("function invocation", "state", 1_015, 1_030, False),
    ]
    assert len({span.trace_id for span in spans}) == 1
    assert len({span.span_id for span in spans}) == len(spans)
    assert spans_of(story()) == spans, "a trace that is exported twice is the same one"


def test_a_failure_marks_its_spans_and_their_execution() -> None:
    history = [
        *DELIVERED[:7],
        event(8, 7, "ExecutionFailed", 20, executionFailedEventDetails={"error": "Boom", "cause": "for good"}),
    ]
    failed = {(s.name, s.error) for s in spans_of(story(history, status=FAILED)) if s.error}
    assert failed == {
        ("file", "it broke"),
        ("execution", "Boom: for good"),
        ("state", "Boom: for good"),
        ("function invocation", "Boom: once"),
    }


def test_branches_are_inside_of_their_state() -> None:
    history = [
        event(1, 0, "ExecutionStarted", 0),
        entered(2, 1, "Parallel", 1, "Both"),
        event(3, 2, "ParallelStateStarted", 1),
        entered(4, 3, "Pass", 2, "Left"),
        entered(5, 3, "Pass", 2, "Right"),
        event(6, 4, "PassStateExited", 3),
        event(7, 5, "PassStateExited", 4),
        event(8, 7, "ParallelStateSucceeded", 5),
        event(9, 8, "ParallelStateExited", 6),
        event(10, 9, "ExecutionSucceeded", 7),
    ]
    states = [row for row in shape(spans_of(story(history))) if row[0] == "state"]
    assert [row[1:4] for row in states] == [("execution", 1, 6), ("state", 2, 3), ("state", 2, 4)]


def test_a_large_workflow_and_a_file_without_session_have_traces() -> None:
    history = [event(1, 0, "ExecutionStarted", 0)]
    for number in range(2, 2_000, 2):
        history += [
            entered(number, number - 1, "Pass", number, "P"),
            event(number + 1, number, "PassStateExited", number),
        ]
    spans = spans_of(story(history, session=None))
    assert len(spans) == SPANS_LIMIT and spans[0].begin_ms == AT_MS
    assert not is_over(story(history)) and is_over(story()) and not is_over(story([]))


class Exporter(SpanExporter):
    """Keeps what it gets; can refuse, or break."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.result = SpanExportResult.SUCCESS
        self.broken = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.broken:
            raise OSError("gone")
        if self.result is SpanExportResult.SUCCESS:
            self.spans += spans
        return self.result

    def shutdown(self) -> None:
        pass


class Site:
    """Tracing over stories that the test tells."""

    def __init__(self, told: Story | None) -> None:
        self.exporter = Exporter()
        self.counted: list[tuple[str, int]] = []
        self.told = told
        self.tracing = Tracing(
            self.exporter, "test", tell_story=self.tell,
            on_traced=lambda outcome, files: self.counted.append((outcome, files)), delay_s=0.0,
        )  # fmt: skip

    async def tell(self, file_id: str) -> Story:
        if self.told is None:
            raise ResourceNotFoundError("gone")
        return self.told

    async def run(self) -> None:
        await self.tracing.start()
        for _ in range(100):
            if not self.tracing._waiting:
                break
            await asyncio.sleep(0.01)
        await self.tracing.stop()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LOOK_INTERVAL_S", 0.005)


async def test_a_file_that_settles_twice_is_exported_once() -> None:
    site = Site(story())
    site.tracing.settled("a")
    site.tracing.settled("a")
    await site.run()
    assert site.counted == [("exported", 1)]
    root, session = site.exporter.spans[:2]
    assert root.parent is None and session.parent is not None and root.context is not None
    assert session.parent.span_id == root.context.span_id
    assert root.resource.attributes["service.name"] == "entrepot"
    assert root.attributes is not None and root.attributes["entrepot.file.key"] == "demo/a.csv"


async def test_what_is_not_taken_is_dropped_and_counted() -> None:
    for broken in (False, True):
        site = Site(story())
        site.exporter.result, site.exporter.broken = SpanExportResult.FAILURE, broken
        site.tracing.settled("a")
        await site.run()
        assert site.counted == [("dropped", 1)]


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "QUEUE_LIMIT", 3)
    site = Site(story())
    for number in range(5):
        site.tracing.settled(str(number))
    assert site.counted == [("dropped", 1)] * 2
    await site.run()
    assert site.counted[2:] == [("exported", 3)]


async def test_a_running_execution_is_waited_for_but_not_at_the_end() -> None:
    site = Site(story(DELIVERED[:5]))
    site.tracing.settled("a")
    await site.tracing.start()
    await asyncio.sleep(0.05)
    assert site.counted == []
    await site.tracing.stop()
    assert site.counted == [("exported", 1)]


async def test_a_file_that_is_gone_is_no_trace() -> None:
    site = Site(None)
    site.tracing.settled("a")
    await site.run()
    assert site.counted == []
