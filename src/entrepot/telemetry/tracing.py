"""Traces: each file that settled is exported by OTLP over HTTP, a little later and beside the path of files.

Off unless `[tracing]` names an endpoint. What does not fit the queue, or an endpoint does not take, is dropped and counted: a
collector that is away costs no file its time, and never more memory than the queue.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from entrepot import __version__, clock
from entrepot.errors import AwsError, EntrepotError, StorageError
from entrepot.services.files import Story
from entrepot.telemetry.spans import Span, is_over, spans_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

QUEUE_LIMIT = 10_000
"""Files that wait for their export."""

DELAY_S = 2.0
"""So long after a file settled its execution may still have to end."""

PATIENCE_S = 60.0
"""After so long a file is exported as it is, though an execution of its still runs."""

BATCH_FILES = 50
LOOK_INTERVAL_S = 0.5
EXPORT_TIMEOUT_S = 10.0

TellStory: TypeAlias = Callable[[str], Awaitable[Story]]
"""`tell_story(file_id)`: raises AwsError when the file is gone."""

OnTraced: TypeAlias = Callable[[str, int], None]
"""`on_traced(outcome, files)`; outcome is exported or dropped."""

_log = logging.getLogger("entrepot.tracing")


class Tracing:
    """The queue of settled files and its exporter. Everything is called from the event loop's thread."""

    def __init__(
        self,
        exporter: "SpanExporter",
        stack_name: str,
        *,
        tell_story: TellStory,
        on_traced: OnTraced,
        delay_s: float = DELAY_S,
    ) -> None:
        self._exporter = exporter
        self._stack_name = stack_name
        self._tell_story = tell_story
        self._on_traced = on_traced
        self._delay_s = delay_s
        self._waiting: dict[str, tuple[float, float]] = {}  # file_id → since when, and not to look before
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to export."""
        self._task = asyncio.create_task(self._keep(), name="tracing")

    async def stop(self) -> None:
        """Export what waits, once; then stop."""
        if self._task is not None:
            self._stopping.set()
            await self._task
            with contextlib.suppress(StorageError):
                while self._waiting:
                    await self._export(list(self._waiting)[:BATCH_FILES], finally_=True)
        await asyncio.to_thread(self._exporter.shutdown)

    def settled(self, file_id: str) -> None:
        """A file settled; when it settles again before its export, that one counts."""
        now_s = clock.monotonic_s()
        since_s, _ = self._waiting.pop(file_id, (now_s, 0.0))
        if len(self._waiting) >= QUEUE_LIMIT:
            self._on_traced("dropped", 1)
            return
        self._waiting[file_id] = (since_s, now_s + self._delay_s)

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._stopping.wait()
            try:
                due = self._due()
                for first in range(0, len(due), BATCH_FILES):
                    await self._export(due[first : first + BATCH_FILES])
            except StorageError as error:
                _log.error("Traces cannot be made: %s It is tried again.", error)
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("Traces could not be made; it is tried again.")

    def _due(self) -> list[str]:
        now_s = clock.monotonic_s()
        return [name for name, _ in itertools.takewhile(lambda entry: entry[1][1] <= now_s, self._waiting.items())]

    async def _export(self, file_ids: Sequence[str], *, finally_: bool = False) -> None:
        spans, count = list[Span](), 0
        for file_id in file_ids:
            since_s, _ = self._waiting.pop(file_id, (clock.monotonic_s(), 0.0))
            try:
                story = await self._tell_story(file_id)
            except AwsError:
                continue  # It was an upload's temporary name.
            now_s = clock.monotonic_s()
            if (
                not finally_
                and not is_over(story)
                and now_s - since_s < PATIENCE_S
                and len(self._waiting) < QUEUE_LIMIT
            ):
                self._waiting.setdefault(file_id, (since_s, now_s + self._delay_s))
                continue
            spans += spans_of(story)
            count += 1
        if not count:
            return
        try:
            taken = await asyncio.to_thread(export, self._exporter, spans, self._stack_name)
        except OSError as error:
            _log.warning("The endpoint of [tracing] does not answer: %s", error)
            taken = False
        self._on_traced("exported" if taken else "dropped", count)


# ── OpenTelemetry ────────────────────────────────────────────────────────────────────────────────────────────────────


def exporter_to(endpoint: str) -> "SpanExporter":
    """Return an exporter for an endpoint (`http://127.0.0.1:4318`); raise EntrepotError without the packages."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise EntrepotError(
            "[tracing] needs OpenTelemetry: pip install 'entrepot[tracing]', or take otlp_endpoint out of stack.toml."
        ) from None
    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)


def export(exporter: "SpanExporter", spans: Sequence[Span], stack_name: str) -> bool:
    """Send spans; return whether the endpoint took them. Blocks, for a thread."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    attributes = {"service.name": "entrepot", "service.version": __version__, "service.namespace": stack_name}
    resource, scope = Resource(attributes), InstrumentationScope("entrepot", __version__)

    def context(trace_id: str, span_id: str) -> SpanContext:
        return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(TraceFlags.SAMPLED))

    def readable(span: Span) -> Any:
        return ReadableSpan(
            span.name,
            context(span.trace_id, span.span_id),
            context(span.trace_id, span.parent_id) if span.parent_id else None,
            resource,
            dict(span.attributes),
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK),
            start_time=span.begin_ms * 1_000_000,
            end_time=span.end_ms * 1_000_000,
            instrumentation_scope=scope,
        )

    return exporter.export([readable(span) for span in spans]) is SpanExportResult.SUCCESS
