"""The SQLite adapter of the `database` port, through apsw.

One writer thread owns the only connection that writes. It takes everything that waits, runs each piece of work in a
savepoint of one transaction, commits once, and answers all of them (group commit). WAL with `synchronous=FULL`: what is
answered survives a power cut. Source: https://www.sqlite.org/wal.html
"""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from entrepot import clock, faults
from entrepot.database import Migration, Reader, Row, Transaction, Value
from entrepot.errors import EntrepotError, StorageError, StorageFullError

T = TypeVar("T")

GROUP_LIMIT = 256
"""At most this many writes share a commit, so that the first of them does not wait for ever."""

QUEUE_LIMIT = 20_000
"""At most this many writes wait; further callers are refused with StorageError."""


class _View:
    """A Reader or Transaction on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._savepoints = 0
        self.callbacks: list[Callable[[], None]] = []

    def all(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        return self._connection.execute(sql, tuple(parameters)).fetchall()

    def one(self, sql: str, parameters: Sequence[Value] = ()) -> Row | None:
        row: Row | None = self._connection.execute(sql, tuple(parameters)).fetchone()
        return row

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        self._connection.execute(sql, tuple(parameters)).fetchall()
        return self._connection.changes()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self._savepoints += 1
        name = f"s{self._savepoints}"
        kept = len(self.callbacks)
        self._connection.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            del self.callbacks[kept:]
            self._connection.execute(f"ROLLBACK TO {name}")
            self._connection.execute(f"RELEASE {name}")
            raise
        else:
            self._connection.execute(f"RELEASE {name}")
        finally:
            self._savepoints -= 1

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


class _Write:
    """A piece of work that waits for the writer, and the future of who waits for it."""

    __slots__ = ("error", "future", "value", "work")

    def __init__(self, work: Callable[[Transaction], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None


class SQLiteDatabase:
    """A `Database` in one file. Open it inside a running event loop and `close` it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer_connection = self._open()
        self._reader = _View(self._open(read_only=True))
        self._scan_local = threading.local()
        self._scans = ThreadPoolExecutor(2, thread_name_prefix="database-scan")
        self._closed = False
        self._thread = threading.Thread(target=self._write_forever, name="database-writer", daemon=True)
        self._thread.start()

    def _open(self, *, read_only: bool = False) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), statementcachesize=512)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32768")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        return connection

    def migrate(self, migrations: Iterable[Migration]) -> None:
        connection = self._open()
        view = _View(connection)
        try:
            connection.execute("BEGIN IMMEDIATE")
            view.execute(
                "CREATE TABLE IF NOT EXISTS schema_migration ("
                "room TEXT NOT NULL, number INTEGER NOT NULL, applied_at_ms INTEGER NOT NULL, "
                "PRIMARY KEY (room, number))"
            )
            applied = {(room, number) for room, number in view.all("SELECT room, number FROM schema_migration")}
            known = set()
            for migration in sorted(migrations, key=lambda m: (m.room, m.number)):
                known.add((migration.room, migration.number))
                if (migration.room, migration.number) in applied:
                    continue
                for statement in migration.statements:
                    view.execute(statement)
                view.execute(
                    "INSERT INTO schema_migration (room, number, applied_at_ms) VALUES (?, ?, ?)",
                    (migration.room, migration.number, clock.now_ms()),
                )
            if unknown := sorted(applied - known):
                raise EntrepotError(
                    f"{self._path} was written by a newer version (unknown migrations: "
                    f"{', '.join(f'{room} {number}' for room, number in unknown)}). Install that version or newer."
                )
            connection.execute("COMMIT")
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
        if self._closed:
            raise StorageError("The database is closed.")
        return work(self._reader)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        if self._closed:
            raise StorageError("The database is closed.")

        def run() -> T:
            view: _View | None = getattr(self._scan_local, "view", None)
            if view is None:
                view = self._scan_local.view = _View(self._open(read_only=True))
            view._connection.execute("BEGIN")
            try:
                return work(view)
            finally:
                view._connection.execute("COMMIT")

        return await self._loop.run_in_executor(self._scans, run)

    async def backup(self, path: str) -> None:
        def run() -> None:
            if Path(path).exists():
                raise StorageError(f"{path} exists already; a backup never overwrites a file.")
            source, target = self._open(read_only=True), apsw.Connection(path)
            try:
                with target.backup("main", source, "main") as backup:
                    while not backup.done:
                        backup.step(256)
            finally:
                target.close()
                source.close()

        await self._loop.run_in_executor(self._scans, run)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await self._loop.run_in_executor(self._scans, self._thread.join)
        self._scans.shutdown()
        self._reader._connection.close()

    # ── the writer thread ────────────────────────────────────────────────────────────────────────────────────────

    def _write_forever(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                break
            group, stop = [first], False
            while len(group) < GROUP_LIMIT:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                    break
                group.append(following)
            callbacks = self._commit(group)
            self._loop.call_soon_threadsafe(self._answer, group, callbacks)
            if stop:
                break
        self._writer_connection.close()

    def _commit(self, group: list[_Write]) -> list[Callable[[], None]]:
        view = _View(self._writer_connection)
        try:
            self._writer_connection.execute("BEGIN IMMEDIATE")
            for write in group:
                try:
                    with view.savepoint():
                        write.value = write.work(view)
                except apsw.Error:
                    raise
                except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
                    write.error = error
            faults.reach("database.before-commit")
            self._writer_connection.execute("COMMIT")
            faults.reach("database.after-commit")
        except apsw.Error as error:
            if self._writer_connection.in_transaction:
                self._writer_connection.execute("ROLLBACK")
            failure = _storage_error(error)
            for write in group:
                write.error = failure
            return []
        return view.callbacks

    def _answer(self, group: list[_Write], callbacks: list[Callable[[], None]]) -> None:
        for write in group:
            if write.future.cancelled():
                continue
            if write.error is not None:
                write.future.set_exception(write.error)
            else:
                write.future.set_result(write.value)
        for callback in callbacks:
            callback()


def _storage_error(error: apsw.Error) -> StorageError:
    if isinstance(error, apsw.FullError):
        return StorageFullError(f"The ledger's disk is full: {error}")
    return StorageError(f"The ledger could not be written: {error}")
