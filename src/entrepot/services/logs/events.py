"""Events as they are read: their places, the pages that they fill, and streams merged by time."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from entrepot import clock
from entrepot.services.logs.retention import DAY_MS
from entrepot.services.logs.session import Session

PAGE_LIMIT_BYTES = 1_048_576
"""A page of events has at most this many bytes, each event counted with 26 bytes more. AWS's limit."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a stream, or (with `stream_id`) in a group: after every event up to and including this one."""

    timestamp_ms: int
    stream_id: int
    seq: int


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event as stored."""

    position: Position
    stream: str
    ingested_at_ms: int
    message: str


def kept_since(session: Session, group: str, since_ms: int) -> int:
    """Return from when on events of a group may be shown: those past their retention are not, deleted or not."""
    row = session.one("SELECT retention_days FROM log_group WHERE name = ?", (group,))
    days = row[0] if row else None
    return since_ms if not days else max(since_ms, clock.now_ms() - days * DAY_MS)


def event_of(stream_id: int, stream: str, row: tuple[int, int, int, str]) -> LogEvent:
    """Return the event of a row (timestamp_ms, seq, ingested_after_ms, message)."""
    timestamp_ms, seq, ingested_after_ms, message = row
    return LogEvent(Position(timestamp_ms, stream_id, seq), stream, timestamp_ms + ingested_after_ms, message)


def size_of(event: LogEvent) -> int:
    """Return what an event takes of a page."""
    return len(event.message.encode()) + 26


def first_page(events: Iterator[LogEvent]) -> Iterator[LogEvent]:
    """Yield events up to the size of a page, but at least one."""
    size = 0
    for count, event in enumerate(events):
        size += size_of(event)
        if count and size > PAGE_LIMIT_BYTES:
            return
        yield event


def merged(
    session: Session,
    group_id: int,
    streams: Sequence[str] | None,
    prefix: str,
    since_ms: int,
    until_ms: int,
    after: Position | None,
) -> Iterator[LogEvent]:
    """Yield the events of a group's streams in order of time, reading each stream in chunks."""
    start = max(since_ms, after.timestamp_ms) if after else since_ms
    rows = session.all(
        "SELECT stream_id, name FROM log_stream WHERE group_id = ? AND last_event_at_ms >= ? "
        "AND first_event_at_ms < ? AND substr(name, 1, ?) = ?",
        (group_id, start, until_ms, len(prefix), prefix),
    )
    wanted = None if streams is None else set(streams)

    def of_stream(stream_id: int, name: str) -> Iterator[LogEvent]:
        position, chunk = (start, -1), 64
        while True:
            rows = session.all(
                "SELECT timestamp_ms, seq, ingested_after_ms, message FROM log_event WHERE stream_id = ? "
                "AND (timestamp_ms, seq) > (?, ?) AND timestamp_ms < ? ORDER BY timestamp_ms, seq LIMIT ?",
                (stream_id, *position, until_ms, chunk),
            )
            for row in rows:
                event = event_of(stream_id, name, row)
                if after is None or event.position > after:
                    yield event
            if len(rows) < chunk:
                return
            position, chunk = (rows[-1][0], rows[-1][1]), min(chunk * 4, 1_000)

    chosen = [row for row in rows if wanted is None or row[1] in wanted]
    return heapq.merge(*(of_stream(*row) for row in chosen), key=lambda event: event.position)
