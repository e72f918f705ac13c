"""Connections to SQLite: how they are opened, what a Reader or Transaction does on one, and what its errors mean."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import apsw

from entrepot.database import ConstraintError, Row, Value
from entrepot.errors import StorageError, StorageFullError

BUSY_TIMEOUT_MS = 10_000
"""How long a transaction waits for one of another process."""

_PROGRAMMING = (
    apsw.SQLError,
    apsw.BindingsError,
    apsw.RangeError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.MisuseError,
    apsw.ExecutionCompleteError,
    apsw.IncompleteExecutionError,
)
"""Errors of the statement itself: they fail the write that ran it, not the group."""


def open_connection(path: Path, *, cache_kib: int, read_only: bool = False) -> apsw.Connection:
    """Open the store; raise StorageError.

    `synchronous=FULL` syncs the log at every commit: an answered write survives a power cut. `wal_autocheckpoint=0`: the
    log is moved into the file by `Checkpoints`, not by whoever commits. `journal_size_limit` gives back the disk
    that a burst took. `foreign_keys` is on for tables that declare them.
    """
    try:
        connection = apsw.Connection(str(path), statementcachesize=512)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=0",
            "journal_size_limit=67108864",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            f"cache_size=-{cache_kib}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if read_only:
            connection.execute("PRAGMA query_only=ON")
    except apsw.Error as error:
        raise storage_error(error, f"The ledger {path}") from error
    return connection


def storage_error(error: Exception, what: str = "The ledger") -> StorageError:
    """Return what a failure of SQLite or of the file system means to the caller."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, apsw.FullError) or getattr(error, "errno", None) in (28, 122):
        return StorageFullError(f"{what} has no room on its disk ({error}). Free some; writing works again then.")
    if isinstance(error, apsw.BusyError):
        return StorageError(f"{what} was locked by another process for {BUSY_TIMEOUT_MS // 1000} s ({error}).")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StorageError(f"{what} is damaged ({error}). Stop the server and restore a backup.")
    return StorageError(f"{what} could not be read or written ({error}).")


class View:
    """A Reader or Transaction on one connection.

    `failure` is set once a statement failed in a way that leaves the whole transaction in doubt (disk full, I/O error).
    SQLite may have rolled it back by itself: a further statement would be a transaction of its own, so there is none,
    and nothing is committed, whatever the work made of the exception.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.failure: StorageError | None = None
        self.callbacks: list[Callable[[], None]] = []
        self.depth = 0

    def all(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        if self.failure is not None:
            raise self.failure
        try:
            return self.connection.execute(sql, tuple(parameters)).fetchall()
        except apsw.Error as error:
            raise self._raised(error) from error

    def one(self, sql: str, parameters: Sequence[Value] = ()) -> Row | None:
        if self.failure is not None:
            raise self.failure
        try:
            row: Row | None = self.connection.execute(sql, tuple(parameters)).fetchone()
        except apsw.Error as error:
            raise self._raised(error) from error
        return row

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        if self.failure is not None:
            raise self.failure
        try:
            self.connection.execute(sql, tuple(parameters)).fetchall()
        except apsw.Error as error:
            raise self._raised(error) from error
        return self.connection.changes()

    def _raised(self, error: apsw.Error) -> Exception:
        if isinstance(error, apsw.ConstraintError):
            return ConstraintError(str(error))
        if isinstance(error, _PROGRAMMING) and self.connection.in_transaction:
            return error
        self.failure = storage_error(error)
        return self.failure

    def savepoint(self) -> "_Savepoint":
        return _Savepoint(self)

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)


class _Savepoint:
    """What `View.savepoint` returns: SQLite's savepoint, and the callbacks that were asked for inside it."""

    __slots__ = ("_kept", "_name", "_view")

    def __init__(self, view: View) -> None:
        self._view = view

    def __enter__(self) -> None:
        view = self._view
        if view.failure is not None:
            raise view.failure
        view.depth += 1
        self._name = f"s{view.depth}"
        self._kept = len(view.callbacks)
        try:
            view.connection.execute(f"SAVEPOINT {self._name}")
        except BaseException:
            view.depth -= 1
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        view = self._view
        view.depth -= 1
        if kind is not None:
            del view.callbacks[self._kept :]
        if view.failure is None:
            if kind is not None:
                view.connection.execute(f"ROLLBACK TO {self._name}")
            view.connection.execute(f"RELEASE {self._name}")
