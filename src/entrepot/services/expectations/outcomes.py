"""What came of the windows: one row each, whatever happens in whichever order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from entrepot.database import Reader, Transaction
from entrepot.services.expectations.windows import Window

Kind: TypeAlias = Literal["arrived", "late", "missing", "too-small", "duplicate"]

UNMET = ("missing", "too-small")
"""Windows with these outcomes brought no file that can be used."""

OUTCOMES_KEPT_DAYS = 400
OUTCOMES_LIMIT = 400
"""Outcomes that one answer holds."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that arrived."""

    file_id: str
    bucket: str
    key: str
    customer_id: str
    size_bytes: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a window; `file` is the one that decided (the first good one, else the newest small one)."""

    name: str
    window_date: str
    deadline_at_ms: int
    closes_at_ms: int
    kind: Kind
    decided_at_ms: int
    files: int = 0
    small_files: int = 0
    file_id: str | None = None
    file_key: str | None = None
    file_size_bytes: int | None = None
    file_arrived_at_ms: int | None = None

    def told_of(self, file: Arrival) -> "Outcome":
        """Return it with the file that decides."""
        return replace(
            self,
            file_id=file.file_id,
            file_key=file.key,
            file_size_bytes=file.size_bytes,
            file_arrived_at_ms=file.at_ms,
        )


_COLUMNS = (
    "name, window_date, deadline_at_ms, closes_at_ms, outcome, decided_at_ms, files, small_files, file_id, file_key, "
    "file_size_bytes, file_arrived_at_ms"
)


def missing(name: str, window: Window, at_ms: int) -> Outcome:
    """Return the outcome of a window in which nothing came."""
    return Outcome(name, window.date, window.deadline_at_ms, window.closes_at_ms, "missing", at_ms)


def find(reader: Reader, name: str, window_date: str) -> Outcome | None:
    """Return the outcome of a window, None when there is none yet."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM expectations_outcome WHERE name = ? AND window_date = ?",  # noqa: S608 - own columns
        (name, window_date),
    )
    return None if row is None else Outcome(*row)


def newest(reader: Reader, name: str, limit: int) -> Sequence[Outcome]:
    """Return the newest outcomes of an expectation, newest first."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM expectations_outcome WHERE name = ? ORDER BY window_date DESC LIMIT ?",  # noqa: S608
        (name, limit),
    )
    return [Outcome(*row) for row in rows]


def save(tx: Transaction, one: Outcome) -> None:
    """Write the outcome of a window; it replaces the one that there was."""
    tx.execute(
        f"INSERT INTO expectations_outcome ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (name, window_date) DO UPDATE SET outcome = excluded.outcome, decided_at_ms = excluded.decided_at_ms, "
        "files = excluded.files, small_files = excluded.small_files, file_id = excluded.file_id, "
        "file_key = excluded.file_key, file_size_bytes = excluded.file_size_bytes, "
        "file_arrived_at_ms = excluded.file_arrived_at_ms",
        (
            one.name, one.window_date, one.deadline_at_ms, one.closes_at_ms, one.kind, one.decided_at_ms, one.files,
            one.small_files, one.file_id, one.file_key, one.file_size_bytes, one.file_arrived_at_ms,
        ),
    )  # fmt: skip


def forget(tx: Transaction, name: str, before_date: str | None = None) -> None:
    """Drop the outcomes of windows before a date; without one, all."""
    tx.execute("DELETE FROM expectations_outcome WHERE name = ? AND window_date < ?", (name, before_date or "~"))
