"""The SQLite adapter of the `database` port, through apsw.

One writer thread owns the only connection that writes. It takes everything that waits, runs each piece of work in a
savepoint of one transaction, commits once, and answers all of them (group commit). WAL with `synchronous=FULL`: what is
answered survives a power cut. Another thread moves the log into the database file, off the commit path.
Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html. Measurements: docs/decisions/0002.
"""

import asyncio
import contextlib
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from entrepot import clock, faults
from entrepot.database import Migration, Reader, Transaction
from entrepot.database.checkpoints import Checkpoints
from entrepot.database.connections import View, open_connection, storage_error
from entrepot.errors import EntrepotError, StorageError

T = TypeVar("T")

GROUP_LIMIT = 256
"""At most this many writes share a commit, so that the first of them does not wait for ever."""

QUEUE_LIMIT = 20_000
"""At most this many writes wait; further callers are refused with StorageError."""

SCAN_THREADS = 2
"""Threads, each with a connection, for long reads and backups."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter while another waits. Python's 5 ms would be added to a commit whenever the
event loop is busy: with 0.5 ms a write among a loop that is 80% busy takes a third less, at no cost in throughput."""


class _Write:
    """A piece of work that waits for the writer, and the future of who waits for it."""

    __slots__ = ("error", "future", "value", "work")

    def __init__(self, work: Callable[[Transaction], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None


class SQLiteDatabase:
    """A `Database` in one file. Open it inside a running event loop and `close` it."""

    def __init__(self, path: Path) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: apsw.Connection | None = open_connection(path, cache_kib=16_384)
        self._reader = View(open_connection(path, cache_kib=8_192, read_only=True))
        self._checkpoints = Checkpoints(path)
        self._checkpoints.watch(self._writer)
        self._scan_local = threading.local()
        self._scan_connections: list[apsw.Connection] = []
        self._scans = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="database-scan")
        self._closed = False
        self._thread = threading.Thread(target=self._write_forever, name="database-writer", daemon=True)
        self._thread.start()

    # ── on the event loop ────────────────────────────────────────────────────────────────────────────────────────

    def migrate(self, migrations: Iterable[Migration]) -> None:
        connection = open_connection(self._path, cache_kib=4_096)
        try:
            _migrate(connection, sorted(migrations, key=lambda m: (m.room, m.number)), self._path)
        finally:
            connection.close()

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(StorageError("The database is closed."))
        elif self._queue.qsize() >= QUEUE_LIMIT:
            future.set_exception(StorageError(f"{QUEUE_LIMIT} writes wait for the disk already; try again later."))
        else:
            self._queue.put(_Write(work, future))
        return future

    async def read(self, work: Callable[[Reader], T]) -> T:
        self._check_open()
        return _snapshot(self._reader, work)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        self._check_open()

        def run() -> T:
            view: View | None = getattr(self._scan_local, "view", None)
            if view is None:
                connection = open_connection(self._path, cache_kib=4_096, read_only=True)
                self._scan_connections.append(connection)
                view = self._scan_local.view = View(connection)
            return _snapshot(view, work)

        return await self._loop.run_in_executor(self._scans, run)

    async def backup(self, path: str) -> None:
        self._check_open()
        await self._loop.run_in_executor(self._scans, _backup, self._path, Path(path))

    async def check(self) -> list[str]:
        def run(reader: Reader) -> list[str]:
            found = [str(row[0]) for row in reader.all("PRAGMA integrity_check(100)")]
            return [] if found == ["ok"] else found

        return await self.scan(run)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("The database is closed.")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        await self._loop.run_in_executor(None, self._scans.shutdown)
        await self._loop.run_in_executor(None, self._checkpoints.close)
        for connection in (self._reader.connection, *self._scan_connections, self._writer):
            if connection is not None:
                connection.close()

    # ── the writer thread ────────────────────────────────────────────────────────────────────────────────────────

    def _write_forever(self) -> None:
        more = True
        while more:
            group, more = self._take()
            if not group:
                break
            callbacks = self._run(group)
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                self._loop.call_soon_threadsafe(_answer, self._loop, group, callbacks)
            if self._writer is not None:
                self._checkpoints.after_commit(self._writer)

    def _take(self) -> tuple[list[_Write], bool]:
        """Wait for work; return all that is there, up to the limit, and whether there may be more."""
        first = self._queue.get()
        if first is None:
            return [], False
        group = [first]
        while len(group) < GROUP_LIMIT:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return group, False
            group.append(following)
        return group, True

    def _run(self, group: list[_Write]) -> list[Callable[[], None]]:
        """Commit the group, or fail all of it; return the callbacks to call. Nothing that happens ends the thread."""
        try:
            if self._writer is None:
                self._writer = open_connection(self._path, cache_kib=16_384)
                self._checkpoints.watch(self._writer)
            return _commit(self._writer, group)
        except Exception as error:  # noqa: BLE001 - the thread's top frame: whoever waits is told
            self._recover()
            for write in group:
                write.error = storage_error(error)
            return []

    def _recover(self) -> None:
        """Undo what the failed group left behind; a connection that cannot be used any more is opened anew."""
        connection = self._writer
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()
        except apsw.Error:
            self._writer = None
            with contextlib.suppress(apsw.Error):
                connection.close()


def _commit(connection: apsw.Connection, group: list[_Write]) -> list[Callable[[], None]]:
    """Run every write of the group in one transaction; raise apsw.Error or StorageError when none of them happened."""
    view = View(connection)
    connection.execute("BEGIN IMMEDIATE")
    alone = len(group) == 1
    for write in group:
        try:
            with contextlib.nullcontext() if alone else view.savepoint():
                write.value = write.work(view)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
            write.error = _presentable(error)
        if view.failure is not None:
            raise view.failure
    if alone and group[0].error is not None:  # Without a savepoint, the transaction is what is undone.
        connection.execute("ROLLBACK")
        return []
    faults.reach("database.before-commit")
    connection.execute("COMMIT")
    faults.reach("database.after-commit")
    return view.callbacks


def _presentable(error: BaseException) -> Exception:
    """Return what a future can carry: neither StopIteration nor what would end the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"A write raised {error!r}; nothing of it was stored.")
    wrapped.__cause__ = error
    return wrapped


def _answer(loop: asyncio.AbstractEventLoop, group: list[_Write], callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:  # Before the callers go on: they must find what their write changed.
        loop.call_soon(callback)
    for write in group:
        if write.future.done():
            continue  # Its caller was cancelled.
        if write.error is not None:
            write.future.set_exception(write.error)
        else:
            write.future.set_result(write.value)


def _snapshot(view: View, work: Callable[[Reader], T]) -> T:
    """Run a read on one snapshot."""
    view.failure = None  # One failed read does not fail the next.
    try:
        view.connection.execute("BEGIN")
        try:
            return work(view)
        finally:
            if view.connection.in_transaction:
                view.connection.execute("ROLLBACK")
    except (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.FullError, apsw.CantOpenError) as error:
        raise storage_error(error) from error


def _migrate(connection: apsw.Connection, migrations: list[Migration], path: Path) -> None:
    view = View(connection)
    connection.execute("BEGIN IMMEDIATE")
    view.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration ("
        "room TEXT NOT NULL, number INTEGER NOT NULL, applied_at_ms INTEGER NOT NULL, "
        "PRIMARY KEY (room, number))"
    )
    applied = {(room, number) for room, number in view.all("SELECT room, number FROM schema_migration")}
    if unknown := sorted(applied - {(migration.room, migration.number) for migration in migrations}):
        raise EntrepotError(
            f"{path} was written by a newer version (unknown migrations: "
            f"{', '.join(f'{room} {number}' for room, number in unknown)}). Install that version or newer."
        )
    for migration in migrations:
        if (migration.room, migration.number) in applied:
            continue
        for statement in migration.statements:
            view.execute(statement)
        view.execute(
            "INSERT INTO schema_migration (room, number, applied_at_ms) VALUES (?, ?, ?)",
            (migration.room, migration.number, clock.now_ms()),
        )
    connection.execute("COMMIT")


def _backup(source_path: Path, target_path: Path) -> None:
    """Copy the store page by page into a new file that is complete and durable, or does not exist."""
    if target_path.exists():
        raise StorageError(f"{target_path} exists already; a backup never overwrites a file.")
    partial = target_path.with_name(f"{target_path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        source = open_connection(source_path, cache_kib=4_096, read_only=True)
        target = apsw.Connection(str(partial))
        try:
            with target.backup("main", source, "main") as backup:
                # One step: a copy in several would begin anew whenever another connection writes.
                backup.step(-1)
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
            source.close()
        partial.rename(target_path)
    except (apsw.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise storage_error(error, f"The backup {target_path}") from error
