"""The service `Logs`: groups, streams, events, retention, and the search behind a file's timeline.

Times are milliseconds since the epoch throughout. Positions in a stream are (timestamp_ms, seq); tokens carry them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrepot import clock
from entrepot.arns import Account
from entrepot.errors import StorageError
from entrepot.loglines import LogLine
from entrepot.services.logs.errors import ResourceAlreadyExistsError, SessionLimitError
from entrepot.services.logs.events import (
    PAGE_LIMIT_BYTES,
    LogEvent,
    Position,
    event_of,
    first_page,
    kept_since,
    merged,
    size_of,
)
from entrepot.services.logs.filters import Filters
from entrepot.services.logs.insights.definitions import QueryDefinition
from entrepot.services.logs.insights.queries import Queries
from entrepot.services.logs.live_tail import SESSIONS_LIMIT, LiveTail
from entrepot.services.logs.ports import DeliveryStream, InvokeFunction, RecordMetric, no_metric
from entrepot.services.logs.retention import (
    delete_some_events,
    delete_some_of_group,
    delete_stream_row,
    enforce_retention,
    keep_retention,
)
from entrepot.services.logs.session import Session, find_group, find_stream
from entrepot.services.logs.store import LogStatistics, Store
from entrepot.services.logs.subscriptions import Deliveries
from entrepot.services.logs.tags import write_tags
from entrepot.services.logs.taps import Taps

__all__ = ["FoundLine", "LogGroup", "LogStatistics", "LogStream", "Logs"]

PAGE_LIMIT_EVENTS = 10_000
"""A page of GetLogEvents or FilterLogEvents has at most this many events. AWS's limit."""

SCAN_LIMIT_EVENTS = 100_000
"""One FilterLogEvents call looks at no more events than this; then it answers with a token to go on."""


@dataclass(frozen=True, slots=True)
class LogGroup:
    """A log group; `retention_days` None keeps events for ever."""

    name: str
    created_at_ms: int
    retention_days: int | None
    stored_bytes: int
    metric_filters: int = 0


@dataclass(frozen=True, slots=True)
class LogStream:
    """A log stream and the times of its events (None while it has none)."""

    name: str
    created_at_ms: int
    first_event_at_ms: int | None
    last_event_at_ms: int | None
    last_ingested_at_ms: int | None
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One line that `search` found."""

    group: str
    stream: str
    timestamp_ms: int
    message: str


class Logs:
    """CloudWatch Logs in the folder `path`.

    `record_metric` takes what metric filters find, `invoke_function` what subscriptions have for functions, and
    `delivery_streams` are where other subscriptions deliver to.
    """

    def __init__(
        self,
        path: Path,
        account: Account,
        *,
        record_metric: RecordMetric = no_metric,
        invoke_function: InvokeFunction | None = None,
        delivery_streams: Sequence[DeliveryStream] = (),
    ) -> None:
        self.account = account
        path.mkdir(parents=True, exist_ok=True)
        self._path = path / "logs.db"
        self._record_metric = record_metric
        self._deliveries = Deliveries(account, invoke_function, delivery_streams, self.write_log)
        self._store: Store | None = None
        self._filters: Filters | None = None
        self._queries: Queries | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._tails: list[LiveTail] = []

    async def start(self) -> None:
        """Open the store; from now on lines are written."""
        self._store = Store(self._path, taps=Taps(self._record_metric, self._deliveries.wake))
        self._filters = Filters(self._store, self._deliveries)
        self._queries = Queries(self._store.open_reader, self._store.flush)
        self._tasks = [
            asyncio.create_task(keep_retention(self._store), name="logs-retention"),
            asyncio.create_task(self._deliveries.keep(self._store), name="logs-subscriptions"),
        ]

    async def stop(self) -> None:
        """Write what waits and close; later lines are dropped."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._queries is not None:
            await self._queries.close()
        if self._store is not None:
            await self._store.close()

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def write_log(self, group: str, stream: str, line: LogLine) -> None:
        """Queue one line (`WriteLog`): from any thread, never raises; group and stream are made."""
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
        await self._opened.drained()
        await self._opened.run(
            lambda session: find_stream(session, group, stream),
            lines=[(group, stream, line.timestamp_ms, line.message, 0) for line in lines],
            apart=True,
        )

    async def create_group(
        self,
        name: str,
        retention_days: int | None = None,
        *,
        if_missing: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Create a group; ResourceAlreadyExistsError when it is there, unless `if_missing`."""

        def create(session: Session) -> None:
            made = session.execute(
                "INSERT INTO log_group (name, created_at_ms, retention_days) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (name, clock.now_ms(), retention_days),
            )
            if not made and not if_missing:
                raise ResourceAlreadyExistsError("The specified log group already exists")
            if made and tags:
                write_tags(session, name, tags)

        await self._opened.run(create)

    async def delete_group(self, name: str) -> None:
        """Delete a group with its streams and events; ResourceNotFoundError when it is not there."""

        def delete(session: Session) -> bool:
            more = delete_some_of_group(session, name)
            if not more:
                self._opened.taps.load(session)
            return more

        while await self._opened.run(delete):
            pass

    async def set_retention(self, name: str, retention_days: int | None) -> None:
        """Set how many days events are kept (None: for ever); ResourceNotFoundError for an unknown group."""

        def update(session: Session) -> None:
            find_group(session, name)
            session.execute("UPDATE log_group SET retention_days = ? WHERE name = ?", (retention_days, name))

        await self._opened.run(update)

    async def create_stream(self, group: str, name: str) -> None:
        """Create a stream; ResourceAlreadyExistsError, or ResourceNotFoundError for an unknown group."""

        def create(session: Session) -> None:
            made = session.execute(
                "INSERT INTO log_stream (group_id, name, created_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (find_group(session, group), name, clock.now_ms()),
            )
            if not made:
                raise ResourceAlreadyExistsError("The specified log stream already exists")

        await self._opened.run(create)

    async def delete_stream(self, group: str, name: str) -> None:
        """Delete a stream with its events; ResourceNotFoundError when it is not there."""
        stream_id = await self._opened.run(lambda session: find_stream(session, group, name))
        while await self._opened.run(lambda session: delete_some_events(session, stream_id, None)):
            pass
        await self._opened.run(lambda session: delete_stream_row(session, stream_id))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def groups(self, *, prefix: str = "", contains: str = "", after: str = "", limit: int = 50) -> list[LogGroup]:
        """Return groups by name whose name begins with `prefix` and contains `contains`, after the name `after`."""

        def read(session: Session) -> list[LogGroup]:
            rows = session.all(
                "SELECT name, created_at_ms, retention_days, (SELECT coalesce(sum(stored_bytes), 0) FROM log_stream s "
                "WHERE s.group_id = g.group_id), (SELECT count(*) FROM metric_filter f WHERE f.group_id = g.group_id) "
                "FROM log_group g "
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
                (find_group(session, group), len(prefix), prefix, limit, offset),
            )
            return [LogStream(*row) for row in rows]

        return await self._opened.read(read)

    async def events_after(
        self, group: str, stream: str, after: tuple[int, int], *, since_ms: int, until_ms: int, limit: int
    ) -> list[LogEvent]:
        """Return events of a stream in order, after the position `after` = (timestamp_ms, seq)."""

        def read(session: Session) -> list[LogEvent]:
            stream_id = find_stream(session, group, stream)
            rows = session.all(
                "SELECT timestamp_ms, seq, ingested_after_ms, message FROM log_event WHERE stream_id = ? "
                "AND (timestamp_ms, seq) > (?, ?) AND timestamp_ms >= ? AND timestamp_ms < ? "
                "ORDER BY timestamp_ms, seq LIMIT ?",
                (stream_id, *after, kept_since(session, group, since_ms), until_ms, limit),
            )
            return list(first_page(event_of(stream_id, stream, row) for row in rows))

        return await self._opened.read(read)

    async def events_before(
        self, group: str, stream: str, before: tuple[int, int], *, since_ms: int, until_ms: int, limit: int
    ) -> list[LogEvent]:
        """Return the last `limit` events of a stream before the position `before`, in order."""

        def read(session: Session) -> list[LogEvent]:
            stream_id = find_stream(session, group, stream)
            rows = session.all(
                "SELECT timestamp_ms, seq, ingested_after_ms, message FROM log_event WHERE stream_id = ? "
                "AND (timestamp_ms, seq) < (?, ?) AND timestamp_ms >= ? AND timestamp_ms < ? "
                "ORDER BY timestamp_ms DESC, seq DESC LIMIT ?",
                (stream_id, *before, kept_since(session, group, since_ms), until_ms, limit),
            )
            return list(first_page(event_of(stream_id, stream, row) for row in rows))[::-1]

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
            group_id = find_group(session, group)
            for name in streams or ():
                find_stream(session, group, name)
            found: list[LogEvent] = []
            size, position = 0, after
            events = merged(session, group_id, streams, prefix, kept_since(session, group, since_ms), until_ms, after)
            for looked_at, event in enumerate(events):
                if looked_at >= SCAN_LIMIT_EVENTS:
                    return found, position
                if matches(event.message):
                    size += size_of(event)
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
        return await self._opened.read(lambda session: {find_group(session, name): name for name in names})

    async def event_at(self, stream_id: int, timestamp_ms: int, seq: int) -> tuple[str, LogEvent] | None:
        """Return an event and its group's name."""

        def read(session: Session) -> tuple[str, LogEvent] | None:
            row = session.one(
                "SELECT g.name, s.name, e.timestamp_ms, e.seq, e.ingested_after_ms, e.message FROM log_event e "
                "JOIN log_stream s USING (stream_id) JOIN log_group g USING (group_id) "
                "WHERE e.stream_id = ? AND e.timestamp_ms = ? AND e.seq = ?",
                (stream_id, timestamp_ms, seq),
            )
            return None if row is None else (row[0], event_of(stream_id, row[1], row[2:]))

        return await self._opened.read(read)

    async def newest_messages(self, group: str, until_ms: int, limit: int) -> list[str]:
        """Return the newest texts of a group up to a time; ResourceNotFoundError."""

        def read(session: Session) -> list[str]:
            rows = session.all(
                "SELECT e.message FROM log_stream s JOIN log_event e ON e.stream_id = s.stream_id "
                "AND e.timestamp_ms <= ?1 WHERE s.stream_id IN (SELECT stream_id FROM log_stream WHERE group_id = ?2 "
                "ORDER BY last_event_at_ms DESC LIMIT 20) ORDER BY e.timestamp_ms DESC LIMIT ?3",
                (until_ms, find_group(session, group), limit),
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

    # ── what looks at events ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def filters(self) -> Filters:
        """Metric filters and subscription filters."""
        if self._filters is None:
            raise StorageError("The log store is not open.")
        return self._filters

    async def start_tail(self, tail: LiveTail) -> None:
        """Let a live tail see the events of its groups until `end_tail`; ResourceNotFoundError, SessionLimitError."""
        if len(self._tails) >= SESSIONS_LIMIT:
            raise SessionLimitError(f"There are {SESSIONS_LIMIT} live tail sessions already. End one.")

        def begin(session: Session) -> None:
            for group in tail.groups:
                find_group(session, group)
            self._opened.taps.add_tail(session, tail)

        self._tails.append(tail)
        try:
            await self._opened.run(begin)
        except BaseException:
            self._tails.remove(tail)
            raise

    async def end_tail(self, tail: LiveTail) -> None:
        """End a live tail."""
        self._tails.remove(tail)
        await self._opened.run(lambda session: self._opened.taps.remove_tail(session, tail))

    async def end_tails(self) -> None:
        """Let all live tails end, so that nobody waits for them when the server stops."""
        for tail in self._tails:
            tail.end()

    # ── tags and retention ───────────────────────────────────────────────────────────────────────────────────────

    async def change_tags(self, group: str, tags: Mapping[str, str], removed: Sequence[str] = ()) -> None:
        """Put tags on a group and take others away; ResourceNotFoundError, TooManyTagsError."""
        await self._opened.run(lambda session: write_tags(session, group, tags, removed))

    async def tags(self, group: str) -> dict[str, str]:
        """Return a group's tags; ResourceNotFoundError."""
        rows = await self._opened.read(
            lambda session: session.all(
                "SELECT key, value FROM group_tag WHERE group_id = ? ORDER BY key", (find_group(session, group),)
            )
        )
        return dict(rows)

    async def enforce_retention(self) -> int:
        """Delete events past their group's retention, a chunk at a time; return how many."""
        return await enforce_retention(self._opened)

    async def retention_days(self, group: str) -> int | None:
        """Return how many days a group keeps events, None for ever; ResourceNotFoundError."""

        def read(session: Session) -> int | None:
            row = session.one("SELECT retention_days FROM log_group WHERE group_id = ?", (find_group(session, group),))
            return None if row is None else row[0]

        return await self._opened.read(read)

    @property
    def _opened(self) -> Store:
        if self._store is None:
            raise StorageError("The log store is not open.")
        return self._store
