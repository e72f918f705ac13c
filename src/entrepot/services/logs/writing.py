"""What the writer thread does with a batch: one transaction for its lines and jobs, and what follows from them.

Only that thread uses a `Writer`, once it runs.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import apsw

from entrepot import clock
from entrepot.services.logs.session import Session
from entrepot.services.logs.spill import Line
from entrepot.services.logs.taps import Tap, Taps

STREAM_CACHE_LIMIT = 10_000
"""The writer remembers at most this many streams."""

MESSAGE_LIMIT_BYTES = 1024 * 1024
"""A longer message is cut (PutLogEvents refuses it before). AWS's limit for an event."""

_log = logging.getLogger("entrepot.logs")


class Job:
    """Work for the writer thread, in order with the lines queued before it; then `lines` are written.

    `apart` says that the work changes no group, stream or filter.
    """

    __slots__ = ("apart", "error", "future", "lines", "value", "work")

    def __init__(self, work: Callable[[Session], Any], lines: Sequence[Line] = (), *, apart: bool = False) -> None:
        self.work = work
        self.lines = lines
        self.apart = apart
        self.future: Future[Any] = Future()
        self.value: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Tell who waits."""
        if not self.future.set_running_or_notify_cancel():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


def nothing(session: Session) -> None:
    """A job that only marks a place in the queue."""


@dataclass(slots=True)
class Batch:
    """What one transaction takes: what was queued, then lines from the spill up to `spill_offset`."""

    items: list[Line | Job]
    spilled: list[Line] = field(default_factory=list)
    spill_generation: int = 0
    spill_offset: int = 0

    @property
    def jobs(self) -> Iterator[Job]:
        """The jobs of the batch."""
        return (item for item in self.items if isinstance(item, Job))

    @property
    def queued_lines(self) -> list[Line]:
        """The lines that came from memory."""
        return [item for item in self.items if not isinstance(item, Job)]

    def __bool__(self) -> bool:
        return bool(self.items or self.spilled)


class _Stream:
    """What the writer remembers of a stream between batches; `None` times mean no event in this batch."""

    __slots__ = ("bytes", "first", "last", "name", "stream_id", "tap")

    def __init__(self, stream_id: int, name: str, tap: Tap | None) -> None:
        self.stream_id = stream_id
        self.name = name
        self.tap = tap
        self.first: int | None = None
        self.last = 0
        self.bytes = 0


class Writer:
    """The writing side of the file."""

    def __init__(self, session: Session, taps: Taps) -> None:
        self.session = session
        self.written = 0
        self._taps = taps
        self._seq = clock.now_ms() * 1000
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._touched: dict[int, _Stream] = {}
        self._tapping: dict[int, Tap] = {}
        self._new_for: set[int] = set()
        self._lines: list[tuple[int, int, int, int, str]] = []
        self._count = 0

    def commit(self, batch: Batch) -> apsw.Error | None:
        """Write the batch in one transaction; return why it failed, if it did: then there is no trace of it."""
        connection = self.session.connection
        now_ms = clock.now_ms()
        try:
            connection.execute("BEGIN IMMEDIATE")
            run: list[Line] = []
            for item in batch.items:
                if not isinstance(item, Job):
                    run.append(item)
                    continue
                self._take(run, now_ms)
                run = []
                self._run(item, now_ms)
            self._take(run, now_ms)
            if batch.spilled:
                self._take(batch.spilled, now_ms)
                self.session.execute(
                    "INSERT OR REPLACE INTO spill_read VALUES (1, ?, ?)", (batch.spill_generation, batch.spill_offset)
                )
            self._write(now_ms)
            connection.execute("COMMIT")
        except apsw.Error as error:
            self.roll_back()
            return error
        self.written += self._count
        tapping, new_for = list(self._tapping.values()), set(self._new_for)
        self._forget()
        try:
            self._taps.committed(tapping, new_for)
        except Exception:  # noqa: BLE001 - the events are stored, whatever metrics and live tails make of them
            _log.exception("What filters found in log events was lost")
        return None

    def roll_back(self) -> None:
        """Leave no trace of the transaction."""
        if self.session.connection.in_transaction:
            self.session.connection.execute("ROLLBACK")
        for tap in self._tapping.values():
            tap.failed()
        self._streams.clear()
        self._forget()
        with contextlib.suppress(apsw.Error):  # what cannot be read now is read after the next commit that fails
            self._taps.load(self.session)

    def _forget(self) -> None:
        self._touched.clear()
        self._tapping.clear()
        self._new_for.clear()
        self._lines.clear()
        self._count = 0

    def _take(self, lines: Iterable[Line], now_ms: int) -> None:
        """Make rows of lines."""
        streams, touched, rows = self._streams, self._touched, self._lines
        for group, stream_name, timestamp_ms, message, _ in lines:
            if not message.isascii() or len(message) > MESSAGE_LIMIT_BYTES:
                message = cut(message)
            stream = streams.get((group, stream_name))
            if stream is None:
                stream = self._find_stream(group, stream_name, now_ms)
                stream = streams[(group, stream_name)] = touched.get(stream.stream_id, stream)
            if stream.first is None or timestamp_ms < stream.first:
                stream.first = timestamp_ms
            if timestamp_ms > stream.last:
                stream.last = timestamp_ms
            stream.bytes += len(message) + 26
            touched[stream.stream_id] = stream
            self._seq += 1
            rows.append((stream.stream_id, timestamp_ms, self._seq, now_ms - timestamp_ms, message))
            if stream.tap is not None:
                self._tapping[id(stream.tap)] = stream.tap
                stream.tap.take(stream.stream_id, stream_name, timestamp_ms, self._seq, message, now_ms)

    def _write(self, now_ms: int) -> None:
        """Write what has gathered, the times and sizes of its streams, and what subscriptions are to deliver."""
        if not self._lines:
            return
        connection = self.session.connection
        connection.executemany(
            "INSERT INTO log_event (stream_id, timestamp_ms, seq, ingested_after_ms, message) VALUES (?, ?, ?, ?, ?)",
            self._lines,
        )
        connection.executemany(
            "UPDATE log_stream SET first_event_at_ms = min(coalesce(first_event_at_ms, ?1), ?1), "
            "last_event_at_ms = max(coalesce(last_event_at_ms, ?2), ?2), last_ingested_at_ms = ?3, "
            "stored_bytes = stored_bytes + ?4 WHERE stream_id = ?5",
            [(stream.first, stream.last, now_ms, stream.bytes, stream.stream_id) for stream in self._touched.values()],
        )
        for tap in self._tapping.values():
            self._new_for.update(tap.write(self.session))
        for stream in self._touched.values():
            stream.first, stream.last, stream.bytes = None, 0, 0
        self._count += len(self._lines)
        self._lines.clear()
        self._touched.clear()

    def _run(self, job: Job, now_ms: int) -> None:
        if job.work is not nothing:
            self._write(now_ms)
            self._work(job)
        if job.error is None:
            self._take(job.lines, now_ms)

    def _work(self, job: Job) -> None:
        connection = self.session.connection
        connection.execute("SAVEPOINT job")
        try:
            job.value = job.work(self.session)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
            job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        if not job.apart:
            self._streams.clear()  # the job may have deleted one of them, or changed what looks at its group

    def _find_stream(self, group: str, name: str, now_ms: int) -> _Stream:
        """Return the stream, making it and its group when they are new."""
        if len(self._streams) >= STREAM_CACHE_LIMIT:
            self._streams.clear()
        session = self.session
        row = session.one(
            "SELECT stream_id FROM log_stream WHERE name = ? AND group_id = "
            "(SELECT group_id FROM log_group WHERE name = ?)",
            (name, group),
        )
        if row is None:
            session.execute(
                "INSERT INTO log_group (name, created_at_ms) VALUES (?, ?) ON CONFLICT DO NOTHING", (group, now_ms)
            )
            row = session.one(
                "INSERT INTO log_stream (group_id, name, created_at_ms) "
                "SELECT group_id, ?, ? FROM log_group WHERE name = ? RETURNING stream_id",
                (name, now_ms, group),
            )
        assert row is not None
        return _Stream(row[0], name, self._taps.of(group))


def cut(message: str, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> str:
    """Return `message` as storable text: cut to `limit_bytes` of UTF-8 with a mark, lone surrogates replaced."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    mark = "…[truncated]"
    return encoded[: limit_bytes - len(mark.encode())].decode(errors="ignore") + mark
