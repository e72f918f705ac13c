"""What happens, counted twice: as CloudWatch's metrics under AWS's names, and for Prometheus at /metrics.

Labels are bounded: names that the operator gives (rules, functions, state machines, buckets), statuses, never keys, users or
customers. Source: https://prometheus.io/docs/practices/naming/
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from entrepot import clock
from entrepot.errors import StorageError
from entrepot.services.cloudwatch import CloudWatch, Metric
from entrepot.telemetry.catalogue import OWN, UNITS

RESOLUTION_MS = 10_000
"""Entrepot's own metrics are kept for each ten seconds, too, so that alarms can have periods of ten seconds."""

GAUGES_INTERVAL_S = 10.0
"""How often levels (sessions, ages, queues) are looked at."""

LABELS_LIMIT = 1_000
"""Functions, rules or state machines that have series of their own; the others are counted as `other`."""

EXPECTATION_METRICS = {
    "arrived": "ExpectationsMet",
    "late": "ExpectationsLate",
    "missing": "ExpectationsMissed",
    "too-small": "ExpectationsTooSmall",
    "duplicate": "ExpectationsDuplicate",
}

S3_REQUESTS = {
    "CompleteMultipartUpload": "PostRequests",
    "CopyObject": "PutRequests",
    "CreateMultipartUpload": "PostRequests",
    "DeleteObject": "DeleteRequests",
    "DeleteObjects": "PostRequests",
    "AbortMultipartUpload": "DeleteRequests",
    "GetObject": "GetRequests",
    "GetObjectAttributes": "GetRequests",
    "HeadBucket": "HeadRequests",
    "HeadObject": "HeadRequests",
    "ListObjectVersions": "ListRequests",
    "ListObjects": "ListRequests",
    "ListObjectsV2": "ListRequests",
    "PutObject": "PutRequests",
    "UploadPart": "PutRequests",
    "UploadPartCopy": "PutRequests",
}
"""Which of AWS's request metrics counts an operation."""

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)

_log = logging.getLogger("entrepot")


@dataclass(frozen=True, slots=True)
class Levels:
    """What is now: ages in seconds, None when nothing waits."""

    sessions: int
    files: Mapping[str, int]
    oldest_undelivered_s: float | None
    pending_deliveries: int
    dead_letters: int
    queued_invocations: int
    oldest_invocation_s: float | None
    dropped_log_lines: int
    unmet_expectations: int = 0
    concurrent_executions: Mapping[str, int] = field(default_factory=dict)


Usage: TypeAlias = Sequence[tuple[str, int, int]]
"""What buckets hold: (bucket, versions, bytes)."""


class Telemetry:
    """Counts what it is told. Everything is called from the event loop's thread."""

    def __init__(self, cloudwatch: CloudWatch, server_id: str) -> None:
        self._cloudwatch = cloudwatch
        self._server_id = server_id
        self._names: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.registry = registry = CollectorRegistry()
        self._files = Counter("entrepot_files", "Files that reached a status.", ["status"], registry=registry)
        self._bytes = Counter("entrepot_file_bytes", "Bytes of files that arrived.", registry=registry)
        self._delivery = Histogram(
            "entrepot_delivery_duration_seconds",
            "Time from a file's arrival to its delivery.",
            registry=registry,
            buckets=_DURATIONS_S,
        )
        self._executions = Counter(
            "entrepot_executions", "Executions that began or ended.", ["state_machine", "status"], registry=registry
        )
        self._execution_time = Histogram(
            "entrepot_execution_duration_seconds",
            "Time from an execution's begin to its end.",
            ["state_machine"],
            registry=registry,
            buckets=_DURATIONS_S,
        )
        self._invocations = Counter(
            "entrepot_function_invocations", "Invocations of functions.", ["function", "outcome"], registry=registry
        )
        self._invocation_time = Histogram(
            "entrepot_function_duration_seconds",
            "Time that invocations took.",
            ["function"],
            registry=registry,
            buckets=_DURATIONS_S,
        )
        self._deliveries = Counter(
            "entrepot_event_deliveries",
            "Events delivered to targets, or given up.",
            ["rule", "outcome"],
            registry=registry,
        )
        self._matches = Counter("entrepot_events_matched", "Events that matched a rule.", ["rule"], registry=registry)
        self._downloads = Counter("entrepot_files_sent", "Files that went out over SFTP.", registry=registry)
        self._download_bytes = Counter(
            "entrepot_sent_bytes", "Bytes of files that went out over SFTP.", registry=registry
        )
        self._requests = Counter("entrepot_s3_requests", "Requests about objects.", ["kind"], registry=registry)
        self._buckets: set[str] = set()
        self._expectations = Counter(
            "entrepot_expectation_outcomes",
            "What came of expectations.",
            ["expectation", "outcome"],
            registry=registry,
        )
        self._traces = Counter(
            "entrepot_traces", "Files whose traces were exported, or dropped.", ["outcome"], registry=registry
        )
        self._levels = {
            name: Gauge(f"entrepot_{name}", text, registry=registry)
            for name, text in (
                ("sessions", "SFTP sessions that are open."),
                ("oldest_undelivered_file_age_seconds", "Age of the oldest file that is not delivered (0: none)."),
                ("pending_deliveries", "Events that wait for their targets."),
                ("dead_letters", "Events that were given up."),
                ("queued_invocations", "Invocations that wait for a worker."),
                ("oldest_queued_invocation_age_seconds", "Age of the oldest invocation that waits (0: none)."),
                ("unmet_expectations", "Expectations whose newest window brought no usable file."),
                ("dropped_log_lines", "Log lines dropped since the start because they came too fast."),
            )
        }
        self._by_status = Gauge("entrepot_files_in_status", "Files by status.", ["status"], registry=registry)

    # ── levels ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, look: Callable[[], Awaitable[Levels]], usage: Callable[[], Awaitable[Usage]]) -> None:
        """Begin to look at levels, and once a day at what buckets hold."""
        self._task = asyncio.create_task(self._keep_looking(look, usage), name="telemetry")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_looking(self, look: Callable[[], Awaitable[Levels]], usage: Callable[[], Awaitable[Usage]]) -> None:
        measured_on = ""
        while True:
            try:
                self.level(await look())
                if (today := clock.iso(clock.now_ms())[:10]) != measured_on:
                    self.storage(await usage())
                    measured_on = today
            except StorageError as error:
                _log.error("Levels cannot be measured: %s It is tried again.", error)
            except Exception:  # noqa: BLE001 - the task's top frame: measuring must go on
                _log.exception("Levels could not be measured; it is tried again.")
            await asyncio.sleep(GAUGES_INTERVAL_S)

    def level(self, now: Levels) -> None:
        """Record what is now."""
        figures = {
            "sessions": now.sessions,
            "oldest_undelivered_file_age_seconds": now.oldest_undelivered_s or 0.0,
            "pending_deliveries": now.pending_deliveries,
            "dead_letters": now.dead_letters,
            "queued_invocations": now.queued_invocations,
            "oldest_queued_invocation_age_seconds": now.oldest_invocation_s or 0.0,
            "dropped_log_lines": now.dropped_log_lines,
            "unmet_expectations": now.unmet_expectations,
        }
        for name, value in figures.items():
            self._levels[name].set(value)
        for status, count in now.files.items():
            self._by_status.labels(status).set(count)
        self._own("Sessions", now.sessions)
        self._own("OldestUndeliveredAge", now.oldest_undelivered_s or 0.0)
        self._own("PendingDeliveries", now.pending_deliveries)
        self._own("OldestInvocationAge", now.oldest_invocation_s or 0.0)
        self._own("ExpectationsUnmet", now.unmet_expectations)
        for name, busy in now.concurrent_executions.items():
            self._aws("AWS/Lambda", "ConcurrentExecutions", busy, FunctionName=name)
        self._aws("AWS/Lambda", "ConcurrentExecutions", sum(now.concurrent_executions.values()))

    def exposition(self) -> bytes:
        """Return all for Prometheus, in its text format."""
        return generate_latest(self.registry)

    # ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def file_arrived(self, size_bytes: int, *, over_sftp: bool) -> None:
        """A file is in a source bucket."""
        self._files.labels("uploaded").inc()
        self._bytes.inc(size_bytes)
        self._own("Files", 1, Status="uploaded")
        self._own("Bytes", size_bytes, Direction="in")
        if over_sftp:
            self._aws("AWS/Transfer", "FilesIn", 1, ServerId=self._server_id)
            self._aws("AWS/Transfer", "BytesIn", size_bytes, ServerId=self._server_id)

    def file_settled(self, status: str, size_bytes: int, duration_ms: int | None) -> None:
        """A file was delivered, or failed."""
        self._files.labels(status).inc()
        self._own("Files", 1, Status=status)
        if status == "transferred" and duration_ms is not None:
            self._delivery.observe(duration_ms / 1000)
            self._own("DeliveryDuration", duration_ms)
            self._own("Bytes", size_bytes, Direction="out")

    def execution(self, state_machine_arn: str, status: str, duration_ms: int | None) -> None:
        """An execution began (RUNNING) or ended."""
        names = {
            "RUNNING": "ExecutionsStarted",
            "SUCCEEDED": "ExecutionsSucceeded",
            "FAILED": "ExecutionsFailed",
            "TIMED_OUT": "ExecutionsTimedOut",
            "ABORTED": "ExecutionsAborted",
        }
        name = self._bounded(state_machine_arn.rsplit(":", 1)[-1])
        self._executions.labels(name, status.lower()).inc()
        for dimensions in ({"StateMachineArn": state_machine_arn}, {}):
            self._aws("AWS/States", names[status], 1, **dimensions)
            if duration_ms is not None:
                self._aws("AWS/States", "ExecutionTime", duration_ms, **dimensions)
        if duration_ms is not None:
            self._execution_time.labels(name).observe(duration_ms / 1000)

    def invocation(self, function_name: str, outcome: str, duration_ms: float) -> None:
        """A function was invoked; `outcome` is success, error or throttle."""
        name = self._bounded(function_name)
        self._invocations.labels(name, outcome).inc()
        for dimensions in ({"FunctionName": function_name}, {}):
            if outcome == "throttle":
                self._aws("AWS/Lambda", "Throttles", 1, **dimensions)
                continue
            self._aws("AWS/Lambda", "Invocations", 1, **dimensions)
            self._aws("AWS/Lambda", "Errors", float(outcome == "error"), **dimensions)
            self._aws("AWS/Lambda", "Duration", duration_ms, **dimensions)
        if outcome != "throttle":
            self._invocation_time.labels(name).observe(duration_ms / 1000)

    def event_matched(self, rule_names: Sequence[str]) -> None:
        """An event matched rules."""
        for name in rule_names:
            self._matches.labels(self._bounded(name)).inc()
            self._aws("AWS/Events", "MatchedEvents", 1, RuleName=name)
            self._aws("AWS/Events", "TriggeredRules", 1, RuleName=name)
        self._aws("AWS/Events", "MatchedEvents", 1)
        self._aws("AWS/Events", "TriggeredRules", len(rule_names))

    def delivery(self, rule_name: str, *, failed: bool, dead_letter: bool = False) -> None:
        """An event reached a rule's target, or was given up (`dead_letter`: into the target's queue)."""
        self._deliveries.labels(self._bounded(rule_name), "failed" if failed else "delivered").inc()
        for dimensions in ({"RuleName": rule_name}, {}):
            self._aws("AWS/Events", "FailedInvocations" if failed else "Invocations", 1, **dimensions)
            if dead_letter:
                self._aws("AWS/Events", "InvocationsSentToDlq", 1, **dimensions)

    def file_sent(self, size_bytes: int) -> None:
        """A file went out over SFTP."""
        self._downloads.inc()
        self._download_bytes.inc(size_bytes)
        self._aws("AWS/Transfer", "FilesOut", 1, ServerId=self._server_id)
        self._aws("AWS/Transfer", "BytesOut", size_bytes, ServerId=self._server_id)

    def s3_request(self, operation: str, bucket: str, error_status: int, bytes_in: int, bytes_out: int) -> None:
        """A request about a bucket was answered; `error_status` is 0, or HTTP's. Only buckets that answered count."""
        kind = S3_REQUESTS.get(operation)
        if kind is None or (error_status and bucket not in self._buckets):
            return  # Whoever asks for buckets that there are not makes no metrics.
        if bucket not in self._buckets:
            if len(self._buckets) >= LABELS_LIMIT:
                return
            self._buckets.add(bucket)
        self._requests.labels(kind.removesuffix("Requests").lower()).inc()
        figures = {"AllRequests": 1, kind: 1, "BytesUploaded": bytes_in, "BytesDownloaded": bytes_out}
        if error_status:
            figures["4xxErrors" if error_status < 500 else "5xxErrors"] = 1
        for name, value in figures.items():
            if value:
                self._aws("AWS/S3", name, value, BucketName=bucket, FilterId="EntireBucket")

    def storage(self, usage: Iterable[tuple[str, int, int]]) -> None:
        """What buckets hold, once a day: (bucket, versions, bytes)."""
        for bucket, count, size_bytes in usage:
            self._aws("AWS/S3", "NumberOfObjects", count, BucketName=bucket, StorageType="AllStorageTypes")
            self._aws("AWS/S3", "BucketSizeBytes", size_bytes, BucketName=bucket, StorageType="StandardStorage")

    def expectation(self, name: str, kind: str) -> None:
        """An expected file arrived, or did not; each kind is a metric, with the expectation's name and for all."""
        self._expectations.labels(self._bounded(name), kind).inc()
        for dimensions in ({"Expectation": name}, {}):
            self._own(EXPECTATION_METRICS[kind], 1, **dimensions)

    def traced(self, outcome: str, files: int) -> None:
        """Files became traces: exported or dropped."""
        self._traces.labels(outcome).inc(files)

    # ── shared ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _bounded(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= LABELS_LIMIT:
                return "other"
            self._names.add(name)
        return name

    def _own(self, name: str, value: float, **dimensions: str) -> None:
        at_ms = clock.now_ms() // RESOLUTION_MS * RESOLUTION_MS
        unit = UNITS[OWN, name]
        self._cloudwatch.record(Metric.of(OWN, name, **dimensions), value, unit=unit, at_ms=at_ms, resolution_s=1)

    def _aws(self, namespace: str, name: str, value: float, **dimensions: str) -> None:
        self._cloudwatch.record(Metric.of(namespace, name, **dimensions), value, unit=UNITS[namespace, name])
