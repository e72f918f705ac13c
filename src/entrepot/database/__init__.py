"""PORT: the transactional store. One implementation today: SQLite (`sqlite.py`); Postgres is to follow.

A write is a plain synchronous function of a `Transaction`. Many share one commit (group commit) and the caller is
answered after it is durable. A read sees every write that was answered before it.

SQL here is portable: `?` placeholders, TEXT, INTEGER (64 bits), REAL, BLOB; `ON CONFLICT … DO UPDATE`, `RETURNING`; no
rowid, no `INSERT OR`, no SQLite functions. Text is compared by bytes.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Value: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = tuple[Any, ...]


class ConstraintError(Exception):
    """A statement broke a constraint of the schema (a key that exists already, a missing value).

    The statement had no effect. Whoever wants to go on after it runs the statement in a savepoint.
    """


class Reader(Protocol):
    """A consistent view of the store."""

    def all(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """Return every row. Bound the number of rows with LIMIT."""
        ...

    def one(self, sql: str, parameters: Sequence[Value] = ()) -> Row | None:
        """Return the first row, or None."""
        ...


class Transaction(Reader, Protocol):
    """A view that can also change the store. Valid only inside the function that it was passed to."""

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run one statement; return the number of rows that it changed."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo what the block did when it raises; the exception goes on, the transaction can too."""
        ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop once this transaction is durable; never when it is rolled back."""
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of a room's schema: statements that run once, in order, in one transaction.

    `number` counts from 1 within `room`. A migration that was released is never edited.
    """

    room: str
    number: int
    statements: tuple[str, ...]


class Database(Protocol):
    """The store. All methods are for the event loop's thread."""

    def migrate(self, migrations: Iterable[Migration]) -> None:
        """Bring the schema up to date; refuse a store that a newer version wrote."""
        ...

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """Run `work` in a transaction; answer when it is durable.

        What `work` raises is raised here and leaves no trace. Raises StorageFullError or StorageError when the commit
        fails: then no write of the group happened; and StorageError when too many writes wait. A write whose caller was
        cancelled may still happen. `work` may run in another thread, must not block, and must not keep the transaction.
        """
        ...

    def read(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """Run a short read (index look-ups, at most some hundred rows)."""
        ...

    def scan(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """Run a long read beside the event loop, on a snapshot of its own."""
        ...

    async def backup(self, path: str) -> None:
        """Write a consistent copy of the whole store to a new file while the store is in use."""
        ...

    async def check(self) -> list[str]:
        """Verify the store's structure; return what is wrong with it, nothing when it is sound."""
        ...

    async def close(self) -> None:
        """Finish the writes under way and close; later calls raise StorageError."""
        ...
