"""The file of log events: one writer thread that batches, and readers beside it.

Relaxed on purpose: WAL with `synchronous=NORMAL`, so a power cut may lose the last moments of logs but never corrupts
them, and a line costs no fsync. The queue before the writer is bounded in bytes; what does not fit is dropped, counted
and reported, because a log line must never hold up a file.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from entrepot import clock
from entrepot.errors import EntrepotError, StorageError
from entrepot.loglines import LogLine
from entrepot.services.logs import schema

T = TypeVar("T")

QUEUE_LIMIT_BYTES = 64 * 1024 * 1024
"""Lines that wait for the writer may take this much memory (about; with EVENT_OVERHEAD_BYTES each)."""

QUEUE_LOW_BYTES = QUEUE_LIMIT_BYTES // 8
"""`drained()` lets producers go on below this."""

EVENT_OVERHEAD_BYTES = 160
"""What a queued line costs beside its text."""

BATCH_LINES = 10_000
"""At most this many lines share one transaction."""

BATCH_WINDOW_S = 0.2
"""A line waits at most this long for others to share its transaction, unless somebody waits for it."""

RETRY_AFTER_S = 1.0
"""After a failed commit the writer waits this long; the lines stay queued."""

STREAM_CACHE_LIMIT = 10_000
"""The writer remembers at most this many streams."""

MESSAGE_LIMIT_BYTES = 1024 * 1024
"""A longer message is cut (PutLogEvents refuses it before). AWS's limit for an event."""

_log = logging.getLogger("entrepot.logs")


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Counters since start: lines written, lines dropped, and bytes that wait now."""

    written: int
    dropped: int
    queued_bytes: int


class _Job:
    """Work for the writer thread, in order with the lines queued before it."""

    __slots__ = ("error", "future", "value", "work")

    def __init__(self, work: Callable[["Session"], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.value: Any = None
        self.error: BaseException | None = None


class _Stream:
    """What the writer remembers of a stream between batches; `None` times mean no event in this batch."""

    __slots__ = ("bytes", "first", "last", "stream_id")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.first: int | None = None
        self.last = 0
        self.bytes = 0


class Session:
    """One connection: rows in, rows out."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def all(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return every row."""
        return self.connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        row: tuple[Any, ...] | None = self.connection.execute(sql, parameters).fetchone()
        return row

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> int:
        """Run one statement; return the number of rows that it changed."""
        self.connection.execute(sql, parameters).fetchall()
        return self.connection.changes()


class Store:
    """The log store in one file. `append` may be called from any thread, the rest from the event loop's."""

    def __init__(self, path: Path, *, queue_limit_bytes: int = QUEUE_LIMIT_BYTES) -> None:
        self._path = path
        self._limit = queue_limit_bytes
        self._condition = threading.Condition()
        self._queue: deque[tuple[str, str, int, str, int] | _Job] = deque()
        self._queued_bytes = 0
        self._jobs = 0
        self._dropped = 0
        self._dropped_reported = 0
        self._report_after_s = 0.0
        self._written = 0
        self._seq = clock.now_ms() * 1000
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._closing = False
        self._writer = Session(self._open())
        self._migrate()
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="logs-read")
        self._thread = threading.Thread(target=self._write_forever, name="logs-writer", daemon=True)
        self._thread.start()

    # ── for everybody ────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, group: str, stream: str, line: LogLine) -> bool:
        """Queue one line; never blocks. A full queue drops the line, counts it and returns False."""
        message = line.message
        cost = len(message) + EVENT_OVERHEAD_BYTES
        with self._condition:
            if self._queued_bytes + cost > self._limit or self._closing:
                self._dropped += 1
                return False
            idle = not self._queue
            self._queue.append((group, stream, line.timestamp_ms, message, cost))
            self._queued_bytes += cost
            if idle or len(self._queue) == BATCH_LINES:
                self._condition.notify()
            return True

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a transaction after everything queued before; answer when it is committed.

        What `work` raises is raised here and leaves no trace; StorageError when the commit fails.
        """
        job = _Job(work)
        with self._condition:
            if self._closing:
                raise StorageError("The log store is closed.")
            self._queue.append(job)
            self._jobs += 1
            self._condition.notify()
        value: T = await asyncio.wrap_future(job.future)
        return value

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a read beside the event loop, after everything queued before it is visible."""
        await self.run(_nothing)

        def on_snapshot() -> T:
            session: Session | None = getattr(self._local, "session", None)
            if session is None:
                session = self._local.session = Session(self.open_reader())
            session.execute("BEGIN")
            try:
                return work(session)
            finally:
                session.execute("COMMIT")

        return await asyncio.get_running_loop().run_in_executor(self._readers, on_snapshot)

    async def drained(self) -> None:
        """Return once the queue is short: back-pressure for those who produce much."""
        while self._queued_bytes > min(QUEUE_LOW_BYTES, self._limit // 8) and not self._closing:
            await self.run(_nothing)

    def open_reader(self) -> apsw.Connection:
        """Return a new connection that only reads, for a thread of the caller's own."""
        connection = self._open()
        connection.execute("PRAGMA query_only=ON")
        return connection

    async def flush(self) -> None:
        """Return when everything queued so far can be read."""
        await self.run(_nothing)

    def statistics(self) -> LogStatistics:
        """Return the counters."""
        return LogStatistics(self._written, self._dropped, self._queued_bytes)

    async def close(self) -> None:
        """Write what waits and close."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._readers, self._thread.join)
        self._readers.shutdown()

    # ── the writer thread ────────────────────────────────────────────────────────────────────────────────────────

    def _write_forever(self) -> None:
        while True:
            batch, last = self._take()
            if batch:
                try:
                    failure = self._commit(batch)
                except Exception as error:  # noqa: BLE001 - the thread's top frame: one bad line must not end it
                    self._discard(batch, error)
                    failure = None
                if failure is not None:
                    _log.error(
                        "Log events cannot be written to %s: %s. They wait in memory (%d bytes) and are dropped when "
                        "that is full; free disk space or mend the disk.",
                        self._path,
                        failure,
                        self._queued_bytes,
                    )
                    self._give_back(batch, failure)
                    if last:
                        break
                    with self._condition:
                        self._condition.wait(RETRY_AFTER_S)
            self._report_drops()
            if last:
                break
        self._refuse_the_rest()
        self._writer.connection.close()

    def _take(self) -> tuple[list[tuple[str, str, int, str, int] | _Job], bool]:
        with self._condition:
            while not self._queue and not self._closing:
                self._condition.wait()
            if not self._closing and not self._jobs and len(self._queue) < BATCH_LINES:
                self._condition.wait(BATCH_WINDOW_S)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LINES))]
            self._jobs -= sum(1 for item in batch if isinstance(item, _Job))
            return batch, self._closing and not self._queue

    def _commit(self, batch: list[tuple[str, str, int, str, int] | _Job]) -> apsw.Error | None:
        """Write the batch in one transaction and answer its jobs; return why it failed, if it did."""
        connection = self._writer.connection
        touched: dict[int, _Stream] = {}
        now_ms = clock.now_ms()
        lines: list[tuple[int, int, int, int, str]] = []
        freed = 0
        try:
            connection.execute("BEGIN IMMEDIATE")
            for item in batch:
                if isinstance(item, _Job):
                    self._write_lines(lines, touched, now_ms)
                    self._run_job(item)
                    continue
                group, stream_name, timestamp_ms, message, cost = item
                freed += cost
                if not message.isascii() or len(message) > MESSAGE_LIMIT_BYTES:
                    message = cut(message)
                stream = self._streams.get((group, stream_name))
                if stream is None:
                    stream = self._find_stream(group, stream_name, now_ms)
                    stream = self._streams[(group, stream_name)] = touched.get(stream.stream_id, stream)
                stream.first = timestamp_ms if stream.first is None else min(stream.first, timestamp_ms)
                stream.last = max(stream.last, timestamp_ms)
                stream.bytes += len(message) + 26
                touched[stream.stream_id] = stream
                self._seq += 1
                lines.append((stream.stream_id, timestamp_ms, self._seq, now_ms - timestamp_ms, message))
            written = sum(1 for item in batch if not isinstance(item, _Job))
            self._write_lines(lines, touched, now_ms)
            connection.execute("COMMIT")
        except apsw.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._streams.clear()
            return error
        self._written += written
        with self._condition:
            self._queued_bytes -= freed
        for item in batch:
            if isinstance(item, _Job):
                _answer(item)
        return None

    def _write_lines(
        self, lines: list[tuple[int, int, int, int, str]], touched: dict[int, _Stream], now_ms: int
    ) -> None:
        """Write what has gathered, and the times and sizes of its streams; leaves both empty."""
        if not lines:
            return
        connection = self._writer.connection
        connection.executemany(
            "INSERT INTO log_event (stream_id, timestamp_ms, seq, ingested_after_ms, message) VALUES (?, ?, ?, ?, ?)",
            lines,
        )
        connection.executemany(
            "UPDATE log_stream SET first_event_at_ms = min(coalesce(first_event_at_ms, ?1), ?1), "
            "last_event_at_ms = max(coalesce(last_event_at_ms, ?2), ?2), last_ingested_at_ms = ?3, "
            "stored_bytes = stored_bytes + ?4 WHERE stream_id = ?5",
            [(stream.first, stream.last, now_ms, stream.bytes, stream.stream_id) for stream in touched.values()],
        )
        for stream in touched.values():
            stream.first, stream.last, stream.bytes = None, 0, 0
        lines.clear()
        touched.clear()

    def _run_job(self, job: _Job) -> None:
        connection = self._writer.connection
        if job.work is _nothing:
            return
        connection.execute("SAVEPOINT job")
        try:
            job.value = job.work(self._writer)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        self._streams.clear()  # the job may have deleted one of them

    def _find_stream(self, group: str, name: str, now_ms: int) -> _Stream:
        """Return the stream, making it and its group when they are new."""
        if len(self._streams) >= STREAM_CACHE_LIMIT:
            self._streams.clear()
        writer = self._writer
        row = writer.one(
            "SELECT stream_id FROM log_stream WHERE name = ? AND group_id = "
            "(SELECT group_id FROM log_group WHERE name = ?)",
            (name, group),
        )
        if row is None:
            writer.execute(
                "INSERT INTO log_group (name, created_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING", (group, now_ms)
            )
            row = writer.one(
                "INSERT INTO log_stream (group_id, name, created_at_ms) "
                "SELECT group_id, ?, ? FROM log_group WHERE name = ? RETURNING stream_id",
                (name, now_ms, group),
            )
        assert row is not None
        return _Stream(row[0])

    def _give_back(self, batch: list[tuple[str, str, int, str, int] | _Job], failure: apsw.Error) -> None:
        """Put the lines back in front for another try, and tell who waits that it failed."""
        lines = []
        for item in batch:
            if isinstance(item, _Job):
                item.error = StorageError(f"The log store could not be written: {failure}")
                _answer(item)
            else:
                lines.append(item)
        with self._condition:
            self._queue.extendleft(reversed(lines))

    def _discard(self, batch: list[tuple[str, str, int, str, int] | _Job], error: Exception) -> None:
        """Give up a batch that cannot be written whatever the disk does (a caller broke the types)."""
        _log.exception("A batch of %d log lines was dropped: it cannot be stored.", len(batch))
        if self._writer.connection.in_transaction:
            self._writer.connection.execute("ROLLBACK")
        self._streams.clear()
        for item in batch:
            if isinstance(item, _Job):
                item.error = StorageError(f"The log store could not run this: {error}")
                _answer(item)
        with self._condition:
            self._dropped += sum(1 for item in batch if not isinstance(item, _Job))
            self._queued_bytes -= sum(item[4] for item in batch if not isinstance(item, _Job))

    def _refuse_the_rest(self) -> None:
        with self._condition:
            for item in self._queue:
                if isinstance(item, _Job):
                    item.error = StorageError("The log store is closed.")
                    _answer(item)
                else:
                    self._dropped += 1
            self._queue.clear()
        self._report_drops(at_end=True)

    def _report_drops(self, *, at_end: bool = False) -> None:
        """Tell the operator about dropped lines, at most every ten seconds."""
        if self._dropped == self._dropped_reported or (clock.monotonic_s() < self._report_after_s and not at_end):
            return
        _log.error(
            "%d log lines were dropped because they came faster than %s could be written (%d since start).",
            self._dropped - self._dropped_reported,
            self._path,
            self._dropped,
        )
        self._dropped_reported = self._dropped
        self._report_after_s = clock.monotonic_s() + 10

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), statementcachesize=64)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16384")
        return connection

    def _migrate(self) -> None:
        session = self._writer
        session.execute("BEGIN IMMEDIATE")
        version = (session.one("PRAGMA user_version") or (0,))[0]
        if version > len(schema.MIGRATIONS):
            raise EntrepotError(
                f"{self._path} was written by a newer version (schema {version}). Install that version or newer."
            )
        for statements in schema.MIGRATIONS[version:]:
            for statement in statements:
                session.execute(statement)
        session.execute(f"PRAGMA user_version={len(schema.MIGRATIONS)}")
        session.execute("COMMIT")


def cut(message: str, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> str:
    """Return `message` as storable text: cut to `limit_bytes` of UTF-8 with a mark, lone surrogates replaced."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    mark = "…[truncated]"
    return encoded[: limit_bytes - len(mark.encode())].decode(errors="ignore") + mark


def _nothing(session: Session) -> None:
    """A job that only marks a place in the queue."""


def _answer(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    if job.error is not None:
        job.future.set_exception(job.error)
    else:
        job.future.set_result(job.value)
