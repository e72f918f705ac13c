"""The file of log events: one writer thread that batches, and readers beside it.

Relaxed on purpose: WAL with `synchronous=NORMAL`, so a power cut may lose the last moments of logs but never corrupts
them, and a line costs no fsync.

Lines are not lost because they come fast: what does not fit into the queue in memory waits in a file of its own (`Spill`), in
order; when that is full too, whoever writes a line is held up until the writer has made room. Only when the writer makes none
(a disk that takes nothing) are lines dropped, counted and reported, because a log line must never hold up files for good.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import apsw

from entrepot import clock
from entrepot.errors import EntrepotError, StorageError
from entrepot.loglines import LogLine
from entrepot.services.logs import schema
from entrepot.services.logs.ports import no_metric
from entrepot.services.logs.session import Session
from entrepot.services.logs.spill import Line, Spill
from entrepot.services.logs.taps import Taps
from entrepot.services.logs.writing import MESSAGE_LIMIT_BYTES, Batch, Job, Writer, nothing

__all__ = ["MESSAGE_LIMIT_BYTES", "LogStatistics", "Session", "Store"]

T = TypeVar("T")

QUEUE_LIMIT_BYTES = 64 * 1024 * 1024
"""Lines that wait for the writer may take this much memory (about; with EVENT_OVERHEAD_BYTES each)."""

QUEUE_LOW_BYTES = QUEUE_LIMIT_BYTES // 8
"""`drained()` lets producers go on below this."""

SPILL_LIMIT_BYTES = 1024 * 1024 * 1024
"""Lines that wait on disk may take this much."""

ROOM_WAIT_S = 1.0
"""Who writes a line when the disk's share is full, too, is held up this long at most. One who waited in vain is the last one,
until there is room again."""

EVENT_OVERHEAD_BYTES = 160
"""What a queued line costs beside its text."""

BATCH_LINES = 10_000
"""At most this many lines share one transaction."""

BATCH_WINDOW_S = 0.2
"""A line waits at most this long for others to share its transaction, unless somebody waits for it."""

RETRY_AFTER_S = 1.0
"""After a failed commit the writer waits this long; the lines stay queued."""

CLOSING_S = 10.0
"""How long the writer goes on with lines on disk when the store closes; the rest waits there for the next start."""

REPORT_INTERVAL_S = 10.0
"""How often lost lines are reported."""

_log = logging.getLogger("entrepot.logs")


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Counters since start: lines written, lines dropped; and the bytes that wait now, in memory and on disk."""

    written: int
    dropped: int
    queued_bytes: int
    spilled_bytes: int


class Store:
    """The log store in one file. `append` may be called from any thread, the rest from the event loop's."""

    def __init__(
        self,
        path: Path,
        *,
        taps: Taps | None = None,
        queue_limit_bytes: int = QUEUE_LIMIT_BYTES,
        spill_limit_bytes: int = SPILL_LIMIT_BYTES,
    ) -> None:
        self._path = path
        self._limit = queue_limit_bytes
        lock = threading.Lock()
        self._condition = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._queue: deque[Line | Job] = deque()
        self._queued_bytes = 0
        self._jobs = 0
        self._dropped = 0
        self._dropped_reported = 0
        self._report_after_s = 0.0
        self._closing = False
        self._close_by_s = 0.0
        self._stuck = False
        self._waited_in_vain = False
        self._spill = Spill(path, spill_limit_bytes)
        self.taps = taps or Taps(no_metric, lambda _: None)
        session = Session(self._open())
        self._writer = Writer(session, self.taps)
        self._migrate(session)
        generation, offset = session.one("SELECT generation, offset FROM spill_read") or (0, 0)
        self._spill.open(generation, offset)
        self.taps.load(session)
        self._local = threading.local()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="logs-read")
        self._thread = threading.Thread(target=self._write_forever, name="logs-writer", daemon=True)
        self._thread.start()

    # ── for everybody ────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, group: str, stream: str, line: LogLine) -> bool:
        """Queue one line; False when it had to be dropped. Holds up its caller only when memory and disk are full."""
        message = line.message
        cost = len(message) + EVENT_OVERHEAD_BYTES
        item = (group, stream, line.timestamp_ms, message, cost)
        with self._condition:
            if self._closing:
                self._dropped += 1
                return False
            if self._put(item):
                self._waited_in_vain = False
                return True
            if not self._stuck and not self._waited_in_vain:
                if self._room.wait_for(lambda: self._put(item), ROOM_WAIT_S):
                    return True
                self._waited_in_vain = True
            self._dropped += 1
            return False

    def _put(self, item: Line) -> bool:
        """Queue a line in memory, or behind those on disk, when there is room."""
        if not self._spill.waiting_bytes and self._queued_bytes + item[4] <= self._limit:
            idle = not self._queue
            self._queue.append(item)
            self._queued_bytes += item[4]
            if idle or len(self._queue) == BATCH_LINES:
                self._condition.notify()
            return True
        idle = not self._queue and not self._spill.waiting_bytes
        if not self._spill.put(item):
            return False
        if idle:
            self._condition.notify()
        return True

    async def run(self, work: Callable[[Session], T], *, lines: Sequence[Line] = (), apart: bool = False) -> T:
        """Run `work` in a transaction after everything queued in memory before, then write `lines`; answer when it is committed.

        What `work` raises is raised here and leaves no trace; StorageError when the commit fails. `apart` says that it
        changes no group, stream or filter.
        """
        job = Job(work, lines, apart=apart)
        with self._condition:
            if self._closing:
                raise StorageError("The log store is closed.")
            self._queue.append(job)
            self._jobs += 1
            self._condition.notify()
        value: T = await asyncio.wrap_future(job.future)
        return value

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a read beside the event loop, after everything queued in memory before it is visible."""
        await self.run(nothing)

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
        """Return once the queue is short and nothing waits on disk: back-pressure for those who produce much."""
        low = min(QUEUE_LOW_BYTES, self._limit // 8)
        while (self._queued_bytes > low or self._spill.waiting_bytes) and not self._closing:
            await self.run(nothing)

    def open_reader(self) -> apsw.Connection:
        """Return a new connection that only reads, for a thread of the caller's own."""
        connection = self._open()
        connection.execute("PRAGMA query_only=ON")
        return connection

    async def flush(self) -> None:
        """Return when everything queued in memory so far can be read."""
        await self.run(nothing)

    def statistics(self) -> LogStatistics:
        """Return the counters."""
        return LogStatistics(self._writer.written, self._dropped, self._queued_bytes, self._spill.waiting_bytes)

    async def close(self) -> None:
        """Write what waits, as far as there is time, and close; the rest waits on disk for the next start."""
        with self._condition:
            self._closing = True
            self._close_by_s = clock.monotonic_s() + CLOSING_S
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
                    failure = self._writer.commit(batch)
                except Exception as error:  # noqa: BLE001 - the thread's top frame: one bad line must not end it
                    self._discard(batch, error)
                    failure = None
                else:
                    if failure is None:
                        self._finish(batch)
                if failure is not None:
                    _log.error(
                        "Log events cannot be written to %s: %s. They wait in memory (%d bytes) and on disk (%d bytes), and are "
                        "dropped when that is full; free disk space or mend the disk.",
                        self._path,
                        failure,
                        self._queued_bytes,
                        self._spill.waiting_bytes,
                    )
                    self._give_back(batch, failure)
                    if last:
                        break
                    with self._condition:
                        self._condition.wait(RETRY_AFTER_S)
            self._report_drops()
            if last:
                break
        self._leave()
        self._writer.session.connection.close()

    def _take(self) -> tuple[Batch, bool]:
        """Wait for something to do; return it, and whether it is the last."""
        with self._condition:
            while not self._queue and not self._spill.waiting_bytes and not self._closing:
                self._condition.wait()
            enough = self._closing or self._jobs or self._spill.waiting_bytes
            if not enough and len(self._queue) < BATCH_LINES:
                self._condition.wait(BATCH_WINDOW_S)
            batch = Batch([self._queue.popleft() for _ in range(min(len(self._queue), BATCH_LINES))])
            self._jobs -= sum(1 for _ in batch.jobs)
            end = self._spill.flush() if self._spill.waiting_bytes and not self._queue else 0
            late = self._closing and clock.monotonic_s() > self._close_by_s
            last = self._closing and not self._queue
        if end and not late:
            batch.spill_generation = self._spill.generation
            batch.spilled, batch.spill_offset = self._spill.take(BATCH_LINES, end)
            last = last and batch.spill_offset >= end
        return batch, last

    def _finish(self, batch: Batch) -> None:
        """What was written waits no longer; tell those who wait for it."""
        with self._condition:
            self._queued_bytes -= sum(line[4] for line in batch.queued_lines)
            if batch.spill_offset:
                self._spill.done(batch.spill_offset)
            self._stuck = False
            self._room.notify_all()
        for job in batch.jobs:
            job.answer()

    def _give_back(self, batch: Batch, failure: apsw.Error) -> None:
        """Put the lines back in front for another try, and tell who waits that it failed."""
        for job in batch.jobs:
            job.error = StorageError(f"The log store could not be written: {failure}")
            job.answer()
        with self._condition:
            self._stuck = True
            self._queue.extendleft(reversed(batch.queued_lines))

    def _discard(self, batch: Batch, error: Exception) -> None:
        """Give up a batch that cannot be written whatever the disk does (a caller broke the types)."""
        lines = batch.queued_lines
        count = len(lines) + len(batch.spilled)
        _log.exception("A batch of %d log lines was dropped: it cannot be stored.", count)
        self._writer.roll_back()
        for job in batch.jobs:
            job.error = StorageError(f"The log store could not run this: {error}")
            job.answer()
        with self._condition:
            self._dropped += count
            self._queued_bytes -= sum(line[4] for line in lines)
            if batch.spill_offset:
                self._spill.done(batch.spill_offset)
            self._room.notify_all()

    def _leave(self) -> None:
        """Refuse what still comes; lines that could not be written wait on disk for the next start."""
        with self._condition:
            for item in self._queue:
                if isinstance(item, Job):
                    item.error = StorageError("The log store is closed.")
                    item.answer()
                elif not self._spill.put(item):
                    self._dropped += 1
            self._queue.clear()
            self._spill.flush()
            self._spill.close()
        self._report_drops(at_end=True)

    def _report_drops(self, *, at_end: bool = False) -> None:
        """Tell the operator about dropped lines, now and then."""
        if self._dropped == self._dropped_reported or (clock.monotonic_s() < self._report_after_s and not at_end):
            return
        _log.error(
            "%d log lines were dropped because they came faster than %s could be written (%d since start).",
            self._dropped - self._dropped_reported,
            self._path,
            self._dropped,
        )
        self._dropped_reported = self._dropped
        self._report_after_s = clock.monotonic_s() + REPORT_INTERVAL_S

    # ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), statementcachesize=64)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16384")
        return connection

    def _migrate(self, session: Session) -> None:
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
