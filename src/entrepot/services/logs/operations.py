"""The edge of CloudWatch Logs: botocore's service `logs`, PascalCase (here camelCase) in and out.

Source: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_Operations.html
"""

import re

from entrepot import clock
from entrepot.loglines import LogLine
from entrepot.operations import AsyncOperation, Call, Operation, Request, Response
from entrepot.services.logs import filter_operations, group_operations, tail_operations
from entrepot.services.logs.edge import Edge, limit_of
from entrepot.services.logs.errors import InvalidParameterError
from entrepot.services.logs.events import LogEvent, Position
from entrepot.services.logs.filter_pattern import compile_pattern
from entrepot.services.logs.insights import operations as insights
from entrepot.services.logs.names import opened, sealed
from entrepot.services.logs.retention import DAY_MS
from entrepot.services.logs.service import PAGE_LIMIT_EVENTS, LogGroup, Logs, LogStream

BATCH_LIMIT_EVENTS = 10_000
"""PutLogEvents takes at most this many events."""

BATCH_LIMIT_BYTES = 1_048_576
"""… and at most this many bytes, each event counted with 26 bytes more."""

EVENT_LIMIT_BYTES = 1_048_576
"""One event of PutLogEvents, in UTF-8."""

TOO_OLD_MS = 14 * 86_400_000
"""Events older than this are rejected."""

TOO_NEW_MS = 2 * 3_600_000
"""Events further in the future than this are rejected."""

BATCH_SPAN_MS = 86_400_000
"""The events of one batch must lie within 24 hours."""

DESCRIBE_LIMIT = 50
"""Groups or streams in a page."""

RETENTION_DAYS = frozenset(
    (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
)
"""The values that PutRetentionPolicy takes."""

FOREVER_MS = 1 << 60

_STREAM_NAME = re.compile(r"[^:*]{1,512}")


def operations(logs: Logs) -> list[Operation]:
    """Return the operations of botocore's service `logs`."""
    edge = _Edge(logs)
    return [
        AsyncOperation("CreateLogGroup", edge.on_group("CreateLogGroup"), edge.create_log_group),
        AsyncOperation("DeleteLogGroup", edge.on_group("DeleteLogGroup"), edge.delete_log_group),
        AsyncOperation("DescribeLogGroups", edge.on_all("DescribeLogGroups"), edge.describe_log_groups),
        AsyncOperation("PutRetentionPolicy", edge.on_group("PutRetentionPolicy"), edge.put_retention_policy),
        AsyncOperation("DeleteRetentionPolicy", edge.on_group("DeleteRetentionPolicy"), edge.delete_retention_policy),
        AsyncOperation("CreateLogStream", edge.on_group("CreateLogStream"), edge.create_log_stream),
        AsyncOperation("DeleteLogStream", edge.on_stream("DeleteLogStream"), edge.delete_log_stream),
        AsyncOperation("DescribeLogStreams", edge.on_group("DescribeLogStreams"), edge.describe_log_streams),
        AsyncOperation("PutLogEvents", edge.on_stream("PutLogEvents"), edge.put_log_events),
        AsyncOperation("GetLogEvents", edge.on_stream("GetLogEvents"), edge.get_log_events),
        AsyncOperation("FilterLogEvents", edge.on_group("FilterLogEvents"), edge.filter_log_events),
        *insights.operations(logs),
        *filter_operations.operations(logs),
        *group_operations.operations(logs),
        *tail_operations.operations(logs),
    ]


class _Edge(Edge):
    """The operations as AWS names them."""

    # ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def create_log_group(self, request: Request, call: Call) -> Response:
        if request.get("kmsKeyId"):
            raise InvalidParameterError("KMS keys are not supported here: log groups are not encrypted by themselves.")
        if request.get("logGroupClass", "STANDARD") != "STANDARD":
            raise InvalidParameterError("Only log groups of the class STANDARD are supported here.")
        await self.logs.create_group(self.group(request), tags=request.get("tags"))
        return {}

    async def delete_log_group(self, request: Request, call: Call) -> Response:
        await self.logs.delete_group(self.group(request))
        return {}

    async def describe_log_groups(self, request: Request, call: Call) -> Response:
        if request.get("logGroupNamePrefix") and request.get("logGroupNamePattern"):
            raise InvalidParameterError("logGroupNamePrefix and logGroupNamePattern are mutually exclusive parameters.")
        account_id = self.logs.account.account_id
        if account_id not in (request.get("accountIdentifiers") or (account_id,)):
            return {"logGroups": []}  # Who watches several accounts: all groups here are of this one.
        limit = limit_of(request, DESCRIBE_LIMIT, DESCRIBE_LIMIT)
        groups = await self.logs.groups(
            prefix=request.get("logGroupNamePrefix", ""),
            contains=request.get("logGroupNamePattern", ""),
            after=opened(request["nextToken"]) if request.get("nextToken") else "",
            limit=limit + 1,
        )
        response: Response = {"logGroups": [self._describe_group(group) for group in groups[:limit]]}
        if len(groups) > limit:
            response["nextToken"] = sealed(groups[limit - 1].name)
        return response

    def _describe_group(self, group: LogGroup) -> dict[str, object]:
        arn = f"{self.arn_prefix}{group.name}"
        described: dict[str, object] = {
            "logGroupName": group.name,
            "creationTime": group.created_at_ms,
            "metricFilterCount": group.metric_filters,
            "arn": f"{arn}:*",
            "logGroupArn": arn,
            "logGroupClass": "STANDARD",
            "storedBytes": group.stored_bytes,
        }
        if group.retention_days is not None:
            described["retentionInDays"] = group.retention_days
        return described

    async def put_retention_policy(self, request: Request, call: Call) -> Response:
        days = request.get("retentionInDays")
        if days not in RETENTION_DAYS:
            raise InvalidParameterError(
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: "
                f"Member must satisfy enum value set: {sorted(RETENTION_DAYS)}"
            )
        await self.logs.set_retention(self.group(request), days)
        return {}

    async def delete_retention_policy(self, request: Request, call: Call) -> Response:
        await self.logs.set_retention(self.group(request), None)
        return {}

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def create_log_stream(self, request: Request, call: Call) -> Response:
        await self.logs.create_stream(self.group(request), _stream(request))
        return {}

    async def delete_log_stream(self, request: Request, call: Call) -> Response:
        await self.logs.delete_stream(self.group(request), _stream(request))
        return {}

    async def describe_log_streams(self, request: Request, call: Call) -> Response:
        by_time = request.get("orderBy") == "LastEventTime"
        prefix = request.get("logStreamNamePrefix", "")
        if by_time and prefix:
            raise InvalidParameterError("Cannot order by LastEventTime with a logStreamNamePrefix.")
        limit = limit_of(request, DESCRIBE_LIMIT, DESCRIBE_LIMIT)
        offset = _number(opened(request["nextToken"])) if request.get("nextToken") else 0
        streams = await self.logs.streams(
            self.group(request),
            prefix=prefix,
            by_time=by_time,
            descending=bool(request.get("descending")),
            offset=offset,
            limit=limit + 1,
        )
        group = self.group(request)
        response: Response = {"logStreams": [self._describe_stream(group, stream) for stream in streams[:limit]]}
        if len(streams) > limit:
            response["nextToken"] = sealed(str(offset + limit))
        return response

    def _describe_stream(self, group: str, stream: LogStream) -> dict[str, object]:
        described: dict[str, object] = {
            "logStreamName": stream.name,
            "creationTime": stream.created_at_ms,
            "arn": f"{self.arn_prefix}{group}:log-stream:{stream.name}",
            "storedBytes": 0,  # AWS reports 0 for streams since 2019
        }
        if stream.first_event_at_ms is not None and stream.last_event_at_ms is not None:
            described["firstEventTimestamp"] = stream.first_event_at_ms
            described["lastEventTimestamp"] = stream.last_event_at_ms
            described["lastIngestionTime"] = stream.last_ingested_at_ms
        return described

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_log_events(self, request: Request, call: Call) -> Response:
        lines = [LogLine(event["timestamp"], event["message"]) for event in request.get("logEvents", ())]
        _check_batch(lines)
        now_ms = clock.now_ms()
        too_old = sum(1 for line in lines if line.timestamp_ms < now_ms - TOO_OLD_MS)
        days = await self.logs.retention_days(self.group(request))
        expired = 0 if days is None else sum(1 for line in lines if line.timestamp_ms < now_ms - days * DAY_MS)
        first_too_new = next(
            (index for index, line in enumerate(lines) if line.timestamp_ms > now_ms + TOO_NEW_MS), len(lines)
        )
        await self.logs.put_events(self.group(request), _stream(request), lines[max(too_old, expired) : first_too_new])
        response: Response = {"nextSequenceToken": "0"}
        rejected: dict[str, int] = {}
        if too_old:
            rejected["tooOldLogEventEndIndex"] = too_old
        if first_too_new < len(lines):
            rejected["tooNewLogEventStartIndex"] = first_too_new
        if expired:
            rejected["expiredLogEventEndIndex"] = expired
        if rejected:
            response["rejectedLogEventsInfo"] = rejected
        return response

    async def get_log_events(self, request: Request, call: Call) -> Response:
        group, stream = self.group(request), _stream(request)
        since_ms, until_ms = request.get("startTime", 0), request.get("endTime", FOREVER_MS)
        limit = limit_of(request, PAGE_LIMIT_EVENTS, PAGE_LIMIT_EVENTS)
        token = request.get("nextToken")
        if token:
            forward, position = _place(token)
        elif request.get("startFromHead"):
            forward, position = True, (since_ms - 1, 0)
        else:
            forward, position = False, (FOREVER_MS, 0)
        read = self.logs.events_after if forward else self.logs.events_before
        events = await read(group, stream, position, since_ms=since_ms, until_ms=until_ms, limit=limit)
        if events:
            first, last = events[0].position, events[-1].position
            before, after = (first.timestamp_ms, first.seq), (last.timestamp_ms, last.seq)
        elif position[0] == FOREVER_MS:
            before = after = (max(0, since_ms), 0)
        else:
            before = after = position
        return {
            "events": [
                {
                    "timestamp": event.position.timestamp_ms,
                    "message": event.message,
                    "ingestionTime": event.ingested_at_ms,
                }
                for event in events
            ],
            "nextForwardToken": _token("f", after),
            "nextBackwardToken": _token("b", before),
        }

    async def filter_log_events(self, request: Request, call: Call) -> Response:
        names = request.get("logStreamNames")
        prefix = request.get("logStreamNamePrefix", "")
        if names and prefix:
            raise InvalidParameterError("logStreamNames and logStreamNamePrefix are mutually exclusive parameters.")
        until_ms = request.get("endTime")
        events, position = await self.logs.filter_events(
            self.group(request),
            compile_pattern(request.get("filterPattern", "")),
            streams=names or None,
            prefix=prefix,
            since_ms=request.get("startTime", 0),
            until_ms=FOREVER_MS if until_ms is None else until_ms + 1,
            after=_filter_place(request["nextToken"]) if request.get("nextToken") else None,
            limit=limit_of(request, PAGE_LIMIT_EVENTS, PAGE_LIMIT_EVENTS),
        )
        response: Response = {"events": [_filtered(event) for event in events], "searchedLogStreams": []}
        if position is not None:
            response["nextToken"] = sealed(f"{position.timestamp_ms}/{position.stream_id}/{position.seq}")
        return response


def _stream(request: Request) -> str:
    name = str(request.get("logStreamName", ""))
    if not _STREAM_NAME.fullmatch(name):
        raise InvalidParameterError(
            f"1 validation error detected: Value '{name[:600]}' at 'logStreamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [^:*]*"
        )
    return name


def _check_batch(lines: list[LogLine]) -> None:
    """Raise InvalidParameterError when a batch of PutLogEvents is not as AWS wants it."""
    if not 1 <= len(lines) <= BATCH_LIMIT_EVENTS:
        raise InvalidParameterError(
            "1 validation error detected: Value at 'logEvents' failed to satisfy constraint: "
            f"Member must have length between 1 and {BATCH_LIMIT_EVENTS}"
        )
    sizes = [len(line.message.encode(errors="replace")) for line in lines]
    if not min(sizes):
        raise InvalidParameterError("Log event message must have length greater than or equal to 1")
    if max(sizes) > EVENT_LIMIT_BYTES:
        raise InvalidParameterError(f"Log event too large: {max(sizes)} bytes exceeds limit of {EVENT_LIMIT_BYTES}")
    if (total := sum(sizes) + 26 * len(lines)) > BATCH_LIMIT_BYTES:
        raise InvalidParameterError(f"Upload too large: {total} bytes exceeds limit of {BATCH_LIMIT_BYTES}")
    times = [line.timestamp_ms for line in lines]
    if min(times) < 0:
        raise InvalidParameterError("Log event timestamp must not be negative.")
    if times != sorted(times):
        raise InvalidParameterError("Log events in a single PutLogEvents request must be in chronological order.")
    if times[-1] - times[0] > BATCH_SPAN_MS:
        raise InvalidParameterError(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _token(direction: str, place: tuple[int, int]) -> str:
    return f"{direction}/{place[0]:020d}{place[1]:036d}"


def _place(token: str) -> tuple[bool, tuple[int, int]]:
    """Return the direction (True: forward) and place of a token of GetLogEvents."""
    if not re.fullmatch(r"[fb]/[0-9]{56}", token, re.ASCII):
        raise InvalidParameterError("The specified nextToken is invalid.")
    return token[0] == "f", (min(int(token[2:22]), FOREVER_MS), min(int(token[22:]), FOREVER_MS))


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise InvalidParameterError("The specified nextToken is invalid.")
    return int(text)


def _filter_place(token: str) -> Position:
    parts = opened(token).split("/")
    if len(parts) != 3:
        raise InvalidParameterError("The specified nextToken is invalid.")
    return Position(*(_number(part) for part in parts))


def _filtered(event: LogEvent) -> dict[str, object]:
    position = event.position
    return {
        "logStreamName": event.stream,
        "timestamp": position.timestamp_ms,
        "message": event.message,
        "ingestionTime": event.ingested_at_ms,
        "eventId": f"{position.timestamp_ms:020d}{position.stream_id:012d}{position.seq:024d}",
    }
