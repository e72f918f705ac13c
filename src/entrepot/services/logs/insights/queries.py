"""The life of queries: they run beside the server's work, a few at a time, and their results are kept for a while.

Each runs on a thread with a read-only connection of its own to the log store, so that it holds up neither the writer nor
other readers; it ends at its time limit, or when it is stopped, wherever it is.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import apsw

from entrepot import clock, ids
from entrepot.services.logs.errors import ResourceNotFoundError
from entrepot.services.logs.insights.compile import Compiled
from entrepot.services.logs.insights.errors import QueryLimitError
from entrepot.services.logs.insights.scalars import Regexes, register

ACTIVE_LIMIT = 30
"""Queries that run or wait at the same time; AWS allows 100 for an account."""

CONCURRENCY = 2
"""Queries that run at the same time; the others wait."""

TIME_LIMIT_S = 300.0
"""A query that runs longer ends with the status Timeout (AWS: 60 minutes)."""

RESULT_LIMIT_BYTES = 16 * 1024 * 1024
"""A result is cut after this many characters."""

KEPT_QUERIES = 100
KEPT_BYTES = 64 * 1024 * 1024
"""So many ended queries, with results of so many characters in all, can be asked for; then the oldest go."""

PROGRESS_STEPS = 20_000
"""SQLite's virtual machine looks at the clock after this many instructions (about a millisecond)."""

_SCANNED = (
    "SELECT count(*), coalesce(sum(octet_length(e.message)), 0) FROM log_stream s CROSS JOIN log_event e "
    "ON e.stream_id = s.stream_id AND e.timestamp_ms BETWEEN :since_ms AND :until_ms "
    "WHERE s.group_id IN (SELECT value FROM json_each(:groups)) "
    "AND s.last_event_at_ms >= :since_ms AND s.first_event_at_ms <= :until_ms"
)

Scope: TypeAlias = dict[str, str | int | float]
"""The bound values that every statement takes: groups, prefix of @log, first and last millisecond."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_log = logging.getLogger("entrepot.logs")


@dataclass(slots=True)
class Statistics:
    """What a query looked at."""

    records_matched: int = 0
    records_scanned: int = 0
    bytes_scanned: int = 0


@dataclass(slots=True)
class Query:
    """A query and, once it is `Complete`, its rows of (field, value)."""

    query_id: str
    text: str
    groups: tuple[str, ...]
    created_at_ms: int
    status: str = "Scheduled"
    rows: list[list[tuple[str, str]]] = field(default_factory=list)
    size: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    cancelled: bool = False

    @property
    def active(self) -> bool:
        """Whether it runs or waits."""
        return self.status in ("Scheduled", "Running")


class Queries:
    """The queries since start. Everything is called from the event loop's thread.

    `open_reader()` gives a new connection to the store; `flush()` returns when what was written before can be read.
    """

    def __init__(self, open_reader: Callable[[], apsw.Connection], flush: Callable[[], Awaitable[None]]) -> None:
        self._open_reader = open_reader
        self._flush = flush
        self._queries: dict[str, Query] = {}
        self._threads = ThreadPoolExecutor(2 * CONCURRENCY, thread_name_prefix="logs-insights")
        self._turns = asyncio.Semaphore(CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End every query and its thread."""
        for query in self._queries.values():
            query.cancelled = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    def start(
        self, compiled: Compiled, text: str, groups: dict[int, str], log_prefix: str, since_ms: int, until_ms: int
    ) -> Query:
        """Begin a query over `groups` (id → name), between two times, both inclusive; QueryLimitError when too many run."""
        if sum(1 for query in self._queries.values() if query.active) >= ACTIVE_LIMIT:
            raise QueryLimitError(f"{ACTIVE_LIMIT} queries run already. Stop one, or wait until one ends.")
        query = Query(ids.random_uuid(), text, tuple(groups.values()), clock.now_ms())
        self._queries[query.query_id] = query
        self._forget()
        scope: Scope = {
            "groups": "[" + ",".join(map(str, groups)) + "]",
            "log_prefix": log_prefix,
            "since_ms": since_ms,
            "until_ms": until_ms,
        }
        task = asyncio.create_task(self._run(query, compiled, scope), name=f"query-{query.query_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return query

    def find(self, query_id: str) -> Query:
        """Return a query; ResourceNotFoundError when it is unknown or forgotten."""
        query = self._queries.get(query_id)
        if query is None:
            raise ResourceNotFoundError(f"Query {query_id} does not exist, or it ended long ago.")
        return query

    def stop(self, query_id: str) -> bool:
        """End a query; False when it had ended already."""
        query = self.find(query_id)
        if not query.active:
            return False
        query.cancelled = True
        query.status = "Cancelled"
        return True

    def newest_first(self) -> list[Query]:
        """Return the queries that are known."""
        return list(reversed(self._queries.values()))

    def _forget(self) -> None:
        ended = [query for query in self._queries.values() if not query.active]
        size = sum(query.size for query in ended)
        for query in ended:
            if len(self._queries) <= KEPT_QUERIES and size <= KEPT_BYTES:
                return
            size -= query.size
            del self._queries[query.query_id]

    async def _run(self, query: Query, compiled: Compiled, scope: Scope) -> None:
        async with self._turns:
            if query.cancelled:
                return
            query.status = "Running"
            loop = asyncio.get_running_loop()
            try:
                await self._flush()
                # Counting what is looked at takes a pass of its own; it goes beside the query, on the other core.
                scanned = loop.run_in_executor(self._threads, self._scanned, query, scope)
                found = await loop.run_in_executor(self._threads, self._rows, query, compiled, scope)
                records, size = await scanned
            except apsw.InterruptError:
                query.status = "Cancelled" if query.cancelled else "Timeout"
            except Exception:  # noqa: BLE001 - the task's top frame
                _log.exception("The query %s failed: %s", query.query_id, query.text)
                query.status = "Failed"
            else:
                rows, matched = found
                query.size = sum(len(value) for row in rows for _, value in row)
                query.rows, query.statistics = rows, Statistics(matched, records, size)
                query.status = "Complete"

    # ── on a thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def _connected(self, query: Query) -> apsw.Connection:
        connection = self._open_reader()
        deadline_s = clock.monotonic_s() + TIME_LIMIT_S
        connection.set_progress_handler(lambda: query.cancelled or clock.monotonic_s() > deadline_s, PROGRESS_STEPS)
        return connection

    def _scanned(self, query: Query, scope: Scope) -> tuple[int, int]:
        connection = self._connected(query)
        try:
            ((count, size),) = connection.execute(_SCANNED, scope).fetchall()
            return int(count or 0), int(size or 0)
        finally:
            connection.close()

    def _rows(self, query: Query, compiled: Compiled, scope: Scope) -> tuple[list[list[tuple[str, str]]], int]:
        connection = self._connected(query)
        try:
            register(connection, Regexes(compiled.regexes))
            rows: list[list[tuple[str, str]]] = []
            size = matched = 0
            for row in connection.execute(compiled.sql, scope | compiled.parameters):
                *values, matched, stream_id, time_ms, seq = row
                shown = _shown(compiled.columns, values)
                if stream_id is not None:
                    shown.append(("@ptr", pointer(stream_id, time_ms, seq)))
                size += sum(len(value) for _, value in shown)
                if size > RESULT_LIMIT_BYTES:
                    break
                rows.append(shown)
            return rows, matched or 0
        finally:
            connection.close()


def _shown(columns: Sequence[tuple[str, str]], values: Sequence[Any]) -> list[tuple[str, str]]:
    """Return the fields of a row that have a value, as text."""
    return [
        (name, formatted(value, kind)) for (name, kind), value in zip(columns, values, strict=True) if value is not None
    ]


def formatted(value: str | int | float, kind: str) -> str:
    """Return a value as AWS shows it: times as dates in UTC, fractions with at most four digits."""
    if kind == "time" and isinstance(value, int | float):
        try:
            time = _EPOCH + timedelta(milliseconds=int(value))
        except OverflowError:
            return str(value)
        return time.strftime("%Y-%m-%d %H:%M:%S.") + f"{int(value) % 1000:03d}"
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else repr(value)
    return str(value)


def pointer(stream_id: int, time_ms: int, seq: int) -> str:
    """Return the @ptr of an event."""
    return base64.urlsafe_b64encode(f"{stream_id}:{time_ms}:{seq}".encode()).decode()


def pointed(text: str) -> tuple[int, int, int] | None:
    """Return stream id, time and sequence of a @ptr; None when it is none."""
    try:
        stream_id, time_ms, seq = base64.urlsafe_b64decode(text.encode()).decode().split(":")
        return int(stream_id), int(time_ms), int(seq)
    except ValueError:
        return None
