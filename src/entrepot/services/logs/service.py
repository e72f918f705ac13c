"""The service `Logs`: groups, streams, events, retention, and the search behind a file's timeline.

Times are milliseconds since the epoch throughout. Positions in a stream are (timestamp_ms, seq); tokens carry them.
"""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrepot import clock
from entrepot.arns import Account
from entrepot.errors import StorageError
from entrepot.loglines import LogLine
from entrepot.services.logs.errors import LogsUnavailableError, ResourceAlreadyExistsError, ResourceNotFoundError
from entrepot.services.logs.insights.definitions import QueryDefinition
from entrepot.services.logs.insights.queries import Queries
from entrepot.services.logs.store import LogStatistics, Session, Store

__all__ = ["FoundLine", "LogGroup", "LogStatistics", "LogStream", "Logs"]

PAGE_LIMIT_EVENTS = 10_000
"""A page of GetLogEvents or FilterLogEvents has at most this many events. AWS's limit."""

PAGE_LIMIT_BYTES = 1_048_576
"""… and at most this many bytes, each event counted with 26 bytes more. AWS's limit."""

SCAN_LIMIT_EVENTS = 100_000
"""One FilterLogEvents call looks at no more events than this; then it answers with a token to go on."""

RETENTION_INTERVAL_S = 600.0
"""How often events past their group's retention are deleted."""

RETENTION_CHUNK = 5_000
"""Events deleted in one transaction, so that writing goes on meanwhile."""

DAY_MS = 86_400_000

_log = logging.getLogger("entrepot.logs")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """A log group; `retention_days` None keeps events for ever."""

    name: str
    created_at_ms: int
    retention_days: int | None
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class LogStream:
    """A log stream and the times of its events (None while it has none)."""

    name: str
    created_at_ms: int
    first_event_at_ms: int | None
    last_event_at_ms: int | None
    last_ingested_at_ms: int | None
    stored_bytes: int


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


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One line that `search` found."""

    group: str
    stream: str
    timestamp_ms: int
    message: str


class Logs:
    """CloudWatch Logs in the folder `path`."""

    def __init__(self, path: Path, account: Account) -> None:
        self.account = account
        path.mkdir(parents=True, exist_ok=True)
        self._path = path / "logs.db"
        self._store: Store | None = None
        self._queries: Queries | None = None
        self._retention: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store; from now on lines are written."""
        self._store = Store(self._path)
        self._queries = Queries(self._store.open_reader, self._store.flush)
        self._retention = asyncio.create_task(self._keep_retention(), name="logs-retention")

    async def stop(self) -> None:
        """Write what waits and close; later lines are dropped."""
        if self._retention is not None:
            self._retention.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._retention
        if self._queries is not None:
            await self._queries.close()
        if self._store is not None:
            await self._store.close()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def write_log(self, group: str, stream: str, line: LogLine) -> None:
        """Queue one line (`WriteLog`): from any thread, never blocks, never raises; group and stream are made."""
        if self._store is not None:
            self._store.append(group, stream, line)

    async def drained(self) -> None:
        """Return once the queue is short. Who produces lines in bulk awaits this between batches."""
        await self._opened.drained()

    def statistics(self) -> LogStatistics:
        """Return counters of lines written and dropped, and the bytes that wait."""
        return self._opened.statistics()

    async def put_events(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Write `lines` into a stream that exists and answer when they are stored; ResourceNotFoundError else."""
        await self._opened.run(lambda session: _stream_id(session, group, stream) and None)
        await self._opened.drained()
        if not all(self._opened.append(group, stream, line) for line in lines):
            raise LogsUnavailableError("More log events wait than can be written now; try again later.")
        await self._opened.run(lambda _: None)

    async def create_group(self, name: str, retention_days: int | None = None, *, if_missing: bool = False) -> None:
        """Create a group; ResourceAlreadyExistsError when it is there, unless `if_missing`."""

        def create(session: Session) -> None:
            made = session.execute(
                "INSERT INTO log_group (name, created_at_ms, retention_days) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (name, clock.now_ms(), retention_days),
            )
            if not made and not if_missing:
                raise ResourceAlreadyExistsError("The specified log group already exists")

        await self._opened.run(create)

    async def delete_group(self, name: str) -> None:
        """Delete a group with its streams and events; ResourceNotFoundError when it is not there."""
        while await self._opened.run(lambda session: _delete_some_of_group(session, name)):
            pass

    async def set_retention(self, name: str, retention_days: int | None) -> None:
        """Set how many days events are kept (None: for ever); ResourceNotFoundError for an unknown group."""

        def update(session: Session) -> None:
            _group_id(session, name)
            session.execute("UPDATE log_group SET retention_days = ? WHERE name = ?", (retention_days, name))

        await self._opened.run(update)

    async def create_stream(self, group: str, name: str) -> None:
        """Create a stream; ResourceAlreadyExistsError, or ResourceNotFoundError for an unknown group."""

        def create(session: Session) -> None:
            made = session.execute(
                "INSERT INTO log_stream (group_id, name, created_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (_group_id(session, group), name, clock.now_ms()),
            )
            if not made:
                raise ResourceAlreadyExistsError("The specified log stream already exists")

        await self._opened.run(create)

    async def delete_stream(self, group: str, name: str) -> None:
        """Delete a stream with its events; ResourceNotFoundError when it is not there."""
        stream_id = await self._opened.run(lambda session: _stream_id(session, group, name))
        while await self._opened.run(lambda session: _delete_some_events(session, stream_id, None)):
            pass
        await self._opened.run(lambda session: _delete_stream_row(session, stream_id))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def groups(self, *, prefix: str = "", contains: str = "", after: str = "", limit: int = 50) -> list[LogGroup]:
        """Return groups by name whose name begins with `prefix` and contains `contains`, after the name `after`."""

        def read(session: Session) -> list[LogGroup]:
            rows = session.all(
                "SELECT name, created_at_ms, retention_days, (SELECT coalesce(sum(stored_bytes), 0) FROM log_stream s "
                "WHERE s.group_id = g.group_id) FROM log_group g "
                "WHERE name > ? AND substr(name, 1, ?) = ? AND instr(lower(name), lower(?)) > 0 ORDER BY name LIMIT ?",
                (after, len(prefix), prefix, contains, limit),
            )
            return [LogGroup(*row) for row in rows]

        return await self._opened.read(read)

    async def streams(
        self,
        group: str,
        *,
        prefix: str = "",
        by_time: bool = False,
        descending: bool = False,
        offset: int = 0,
        limit: int = 50,
    ) -> list[LogStream]:
        """Return streams of a group by name or by the time of their last event; ResourceNotFoundError."""
        order = "coalesce(last_event_at_ms, created_at_ms)" if by_time else "name"
        direction = "DESC" if descending else "ASC"

        def read(session: Session) -> list[LogStream]:
            rows = session.all(
                "SELECT name, created_at_ms, first_event_at_ms, last_event_at_ms, last_ingested_at_ms, stored_bytes "  # noqa: S608 - constants
                f"FROM log_stream WHERE group_id = ? AND substr(name, 1, ?) = ? ORDER BY {order} {direction}, name "
                "LIMIT ? OFFSET ?",
                (_group_id(session, group), len(prefix), prefix, limit, offset),
            )
            return [LogStream(*row) for row in rows]

        return await self._opened.read(read)

    async def events_after(
        self, group: str, stream: str, after: tuple[int, int], *, since_ms: int, until_ms: int, limit: int
    ) -> list[LogEvent]:
        """Return events of a stream in order, after the position `after` = (timestamp_ms, seq)."""

        def read(session: Session) -> list[LogEvent]:
            stream_id = _stream_id(session, group, stream)
            rows = session.all(
                "SELECT timestamp_ms, seq, ingested_after_ms, message FROM log_event WHERE stream_id = ? "
                "AND (timestamp_ms, seq) > (?, ?) AND timestamp_ms >= ? AND timestamp_ms < ? "
                "ORDER BY timestamp_ms, seq LIMIT ?",
                (stream_id, *after, since_ms, until_ms, limit),
            )
            return list(_first_megabyte(_event(stream_id, stream, row) for row in rows))

        return await self._opened.read(read)

    async def events_before(
        self, group: str, stream: str, before: tuple[int, int], *, since_ms: int, until_ms: int, limit: int
    ) -> list[LogEvent]:
        """Return the last `limit` events of a stream before the position `before`, in order."""

        def read(session: Session) -> list[LogEvent]:
            stream_id = _stream_id(session, group, stream)
            rows = session.all(
                "SELECT timestamp_ms, seq, ingested_after_ms, message FROM log_event WHERE stream_id = ? "
                "AND (timestamp_ms, seq) < (?, ?) AND timestamp_ms >= ? AND timestamp_ms < ? "
                "ORDER BY timestamp_ms DESC, seq DESC LIMIT ?",
                (stream_id, *before, since_ms, until_ms, limit),
            )
            return list(_first_megabyte(_event(stream_id, stream, row) for row in rows))[::-1]

        return await self._opened.read(read)

    async def filter_events(
        self,
        group: str,
        matches: Callable[[str], bool],
        *,
        streams: Sequence[str] | None = None,
        prefix: str = "",
        since_ms: int,
        until_ms: int,
        after: Position | None,
        limit: int,
    ) -> tuple[list[LogEvent], Position | None]:
        """Return events of a group in order of time that `matches`, and where to go on (None: that was all)."""

        def read(session: Session) -> tuple[list[LogEvent], Position | None]:
            group_id = _group_id(session, group)
            for name in streams or ():
                _stream_id(session, group, name)
            found: list[LogEvent] = []
            size, position = 0, after
            events = _merged(session, group_id, streams, prefix, since_ms, until_ms, after)
            for looked_at, event in enumerate(events):
                if looked_at >= SCAN_LIMIT_EVENTS:
                    return found, position
                if matches(event.message):
                    size += _size(event)
                    if len(found) >= limit or (found and size > PAGE_LIMIT_BYTES):
                        return found, position
                    found.append(event)
                position = event.position
            return found, None

        return await self._opened.read(read)

    async def search(
        self, groups: Sequence[str], since_ms: int, until_ms: int, contains: str, limit: int = 1_000
    ) -> list[FoundLine]:
        """Return lines of these groups from `since_ms` up to `until_ms` (inclusive) with the text `contains`, by time.

        Groups that do not exist have no lines. Made for the timeline of a file: streams without events in that time
        are never touched, and the text is compared where the rows are.
        """

        def read(session: Session) -> list[FoundLine]:
            found: list[FoundLine] = []
            for group in groups:
                rows = session.all(
                    "SELECT s.name, e.timestamp_ms, e.message FROM log_group g "
                    "JOIN log_stream s ON s.group_id = g.group_id "
                    "AND s.last_event_at_ms >= ?1 AND s.first_event_at_ms <= ?2 "
                    "JOIN log_event e ON e.stream_id = s.stream_id AND e.timestamp_ms BETWEEN ?1 AND ?2 "
                    "WHERE g.name = ?3 AND instr(e.message, ?4) > 0 ORDER BY e.timestamp_ms, e.seq LIMIT ?5",
                    (since_ms, until_ms, group, contains, limit),
                )
                found += [FoundLine(group, *row) for row in rows]
            found.sort(key=lambda line: line.timestamp_ms)
            return found[:limit]

        return await self._opened.read(read)

    # ── Insights ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def queries(self) -> Queries:
        """The queries of Logs Insights."""
        if self._queries is None:
            raise StorageError("The log store is not open.")
        return self._queries

    async def group_ids(self, names: Sequence[str]) -> dict[int, str]:
        """Return the names of groups by their ids; ResourceNotFoundError for one that does not exist."""
        return await self._opened.read(lambda session: {_group_id(session, name): name for name in names})

    async def event_at(self, stream_id: int, timestamp_ms: int, seq: int) -> tuple[str, LogEvent] | None:
        """Return an event and its group's name."""

        def read(session: Session) -> tuple[str, LogEvent] | None:
            row = session.one(
                "SELECT g.name, s.name, e.timestamp_ms, e.seq, e.ingested_after_ms, e.message FROM log_event e "
                "JOIN log_stream s USING (stream_id) JOIN log_group g USING (group_id) "
                "WHERE e.stream_id = ? AND e.timestamp_ms = ? AND e.seq = ?",
                (stream_id, timestamp_ms, seq),
            )
            return None if row is None else (row[0], _event(stream_id, row[1], row[2:]))

        return await self._opened.read(read)

    async def newest_messages(self, group: str, until_ms: int, limit: int) -> list[str]:
        """Return the newest texts of a group up to a time; ResourceNotFoundError."""

        def read(session: Session) -> list[str]:
            rows = session.all(
                "SELECT e.message FROM log_stream s JOIN log_event e ON e.stream_id = s.stream_id "
                "AND e.timestamp_ms <= ?1 WHERE s.stream_id IN (SELECT stream_id FROM log_stream WHERE group_id = ?2 "
                "ORDER BY last_event_at_ms DESC LIMIT 20) ORDER BY e.timestamp_ms DESC LIMIT ?3",
                (until_ms, _group_id(session, group), limit),
            )
            return [row[0] for row in rows]

        return await self._opened.read(read)

    async def save_query_definition(self, definition: QueryDefinition) -> None:
        """Write a saved query, new or changed."""
        await self._opened.run(
            lambda session: session.execute(
                "INSERT INTO query_definition VALUES (?, ?, ?, ?, ?) ON CONFLICT (query_definition_id) DO UPDATE SET "
                "name = excluded.name, query_string = excluded.query_string, log_groups = excluded.log_groups, "
                "changed_at_ms = excluded.changed_at_ms",
                (
                    definition.definition_id,
                    definition.name,
                    definition.query_string,
                    " ".join(definition.log_groups),
                    definition.changed_at_ms,
                ),
            )
        )

    async def query_definitions(self) -> list[QueryDefinition]:
        """Return the saved queries by name."""
        rows = await self._opened.read(
            lambda session: session.all(
                "SELECT query_definition_id, name, query_string, log_groups, changed_at_ms "
                "FROM query_definition ORDER BY name"
            )
        )
        return [QueryDefinition(row[0], row[1], row[2], tuple(row[3].split()), row[4]) for row in rows]

    async def delete_query_definition(self, definition_id: str) -> bool:
        """Delete a saved query; False when there is none."""
        return bool(
            await self._opened.run(
                lambda session: session.execute(
                    "DELETE FROM query_definition WHERE query_definition_id = ?", (definition_id,)
                )
            )
        )

    # ── retention ────────────────────────────────────────────────────────────────────────────────────────────────

    async def enforce_retention(self) -> int:
        """Delete events past their group's retention, a chunk at a time; return how many."""
        rows = await self._opened.read(
            lambda session: session.all("SELECT group_id, retention_days FROM log_group WHERE retention_days > 0")
        )
        deleted = 0
        for group_id, days in rows:
            before_ms = clock.now_ms() - days * DAY_MS
            streams = await self._opened.read(
                lambda session, group_id=group_id, before_ms=before_ms: session.all(  # type: ignore[misc]
                    "SELECT stream_id FROM log_stream WHERE group_id = ? AND first_event_at_ms < ?",
                    (group_id, before_ms),
                )
            )
            for (stream_id,) in streams:
                while count := await self._opened.run(
                    lambda session, i=stream_id, b=before_ms: _delete_some_events(session, i, b)  # type: ignore[misc]
                ):
                    deleted += count
                await self._opened.run(
                    lambda session, i=stream_id: _drop_stream_if_empty(session, i)  # type: ignore[misc]
                )
        return deleted

    async def _keep_retention(self) -> None:
        while True:
            await asyncio.sleep(RETENTION_INTERVAL_S)
            try:
                await self.enforce_retention()
            except StorageError as error:
                _log.error("Old log events could not be deleted: %s It is tried again later.", error)

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise StorageError("The log store is not open.")
        return self._store


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _group_id(session: Session, name: str) -> int:
    row = session.one("SELECT group_id FROM log_group WHERE name = ?", (name,))
    if row is None:
        raise ResourceNotFoundError("The specified log group does not exist.")
    return int(row[0])


def _stream_id(session: Session, group: str, name: str) -> int:
    row = session.one(
        "SELECT stream_id FROM log_stream WHERE group_id = ? AND name = ?", (_group_id(session, group), name)
    )
    if row is None:
        raise ResourceNotFoundError("The specified log stream does not exist.")
    return int(row[0])


def _delete_some_events(session: Session, stream_id: int, before_ms: int | None) -> int:
    """Delete a chunk of the oldest events of a stream (before a time); return how many."""
    last = 1 << 62 if before_ms is None else before_ms
    rows = session.all(
        "SELECT timestamp_ms, seq, length(message) FROM log_event WHERE stream_id = ? AND timestamp_ms < ? "
        "ORDER BY timestamp_ms, seq LIMIT ?",
        (stream_id, last, RETENTION_CHUNK),
    )
    if not rows:
        return 0
    session.execute(
        "DELETE FROM log_event WHERE stream_id = ? AND (timestamp_ms, seq) <= (?, ?)",
        (stream_id, rows[-1][0], rows[-1][1]),
    )
    session.execute(
        "UPDATE log_stream SET stored_bytes = max(0, stored_bytes - ?), first_event_at_ms = "
        "(SELECT min(timestamp_ms) FROM log_event WHERE stream_id = ?) WHERE stream_id = ?",
        (sum(row[2] + 26 for row in rows), stream_id, stream_id),
    )
    return len(rows)


def _delete_stream_row(session: Session, stream_id: int) -> None:
    """Delete a stream with what was written to it since its events were deleted."""
    session.execute("DELETE FROM log_event WHERE stream_id = ?", (stream_id,))
    session.execute("DELETE FROM log_stream WHERE stream_id = ?", (stream_id,))


def _drop_stream_if_empty(session: Session, stream_id: int) -> None:
    """Delete a stream whose events have all expired, so that streams of ended workers do not gather."""
    if session.one("SELECT 1 FROM log_event WHERE stream_id = ? LIMIT 1", (stream_id,)) is None:
        session.execute("DELETE FROM log_stream WHERE stream_id = ?", (stream_id,))


def _delete_some_of_group(session: Session, name: str) -> bool:
    """Delete a chunk of a group, in the end the group; return whether there is more to do."""
    group_id = _group_id(session, name)
    row = session.one("SELECT stream_id FROM log_stream WHERE group_id = ? LIMIT 1", (group_id,))
    if row is None:
        session.execute("DELETE FROM log_group WHERE group_id = ?", (group_id,))
        return False
    if not _delete_some_events(session, row[0], None):
        _delete_stream_row(session, row[0])
    return True


def _event(stream_id: int, stream: str, row: tuple[int, int, int, str]) -> LogEvent:
    timestamp_ms, seq, ingested_after_ms, message = row
    return LogEvent(Position(timestamp_ms, stream_id, seq), stream, timestamp_ms + ingested_after_ms, message)


def _size(event: LogEvent) -> int:
    return len(event.message.encode()) + 26


def _first_megabyte(events: Iterator[LogEvent]) -> Iterator[LogEvent]:
    """Yield events up to the size of a page, but at least one."""
    size = 0
    for count, event in enumerate(events):
        size += _size(event)
        if count and size > PAGE_LIMIT_BYTES:
            return
        yield event


def _merged(
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
                event = _event(stream_id, name, row)
                if after is None or event.position > after:
                    yield event
            if len(rows) < chunk:
                return
            position, chunk = (rows[-1][0], rows[-1][1]), min(chunk * 4, 1_000)

    chosen = [row for row in rows if wanted is None or row[1] in wanted]
    return heapq.merge(*(of_stream(*row) for row in chosen), key=lambda event: event.position)
