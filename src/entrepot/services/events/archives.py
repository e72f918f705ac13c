"""Archives: what they keep of a bus's events, and for how long. A bus without archives costs nothing.

An event is archived in the transaction that puts it. What a deleted or shortened archive has too much is removed in the
background, a batch at a time.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from entrepot.database import Reader, Transaction

ANY_EVENT = json.dumps({"source": [{"exists": True}]})
"""The pattern of an archive without one: every event has a source."""

SWEEP_LIMIT = 500
"""Archived events that one transaction removes."""

DAY_MS = 86_400_000

_COLUMNS = (
    "archive_id, name, bus_name, description, event_pattern, retention_days, created_at_ms, size_bytes, event_count"
)


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive. `event_pattern` '' is every event, `retention_days` 0 for ever."""

    archive_id: int
    name: str
    bus_name: str
    description: str
    event_pattern: str
    retention_days: int
    created_at_ms: int
    size_bytes: int
    event_count: int


@dataclass(frozen=True, slots=True)
class Archived:
    """One event in an archive. `event_at_ms` is the time that the event itself names."""

    archived_id: int
    event_at_ms: int
    event_text: str


def of_bus(reader: Reader, bus_name: str) -> list[Archive]:
    """Return the archives that keep events of a bus."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM events_archive WHERE bus_name = ? ORDER BY name", (bus_name,))  # noqa: S608
    return [Archive(*row) for row in rows]


def find(reader: Reader, name: str) -> Archive | None:
    """Return an archive by name."""
    row = reader.one(f"SELECT {_COLUMNS} FROM events_archive WHERE name = ?", (name,))  # noqa: S608
    return None if row is None else Archive(*row)


def all_archives(reader: Reader, limit: int) -> list[Archive]:
    """Return archives by name."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM events_archive ORDER BY name LIMIT ?", (limit,))  # noqa: S608
    return [Archive(*row) for row in rows]


def put(tx: Transaction, archive: Archive) -> None:
    """Create an archive, or change its description, pattern and retention."""
    tx.execute(
        f"INSERT INTO events_archive ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "  # noqa: S608
        "description = excluded.description, event_pattern = excluded.event_pattern, "
        "retention_days = excluded.retention_days",
        (
            archive.archive_id, archive.name, archive.bus_name, archive.description, archive.event_pattern,
            archive.retention_days, archive.created_at_ms, archive.size_bytes, archive.event_count,
        ),
    )  # fmt: skip


def delete(tx: Transaction, archive: Archive) -> None:
    """Delete an archive; its events go in the background."""
    tx.execute("DELETE FROM events_archive WHERE archive_id = ?", (archive.archive_id,))


def keep(tx: Transaction, archive: Archive, event: Mapping[str, Any], event_text: str, now_ms: int) -> None:
    """Put an event into an archive."""
    tx.execute(
        "INSERT INTO events_archived (archive_id, event_at_ms, event) VALUES (?, ?, ?)",
        (archive.archive_id, time_ms(event, now_ms), event_text),
    )
    tx.execute(
        "UPDATE events_archive SET event_count = event_count + 1, size_bytes = size_bytes + ? WHERE archive_id = ?",
        (len(event_text.encode()), archive.archive_id),
    )


def time_ms(event: Mapping[str, Any], otherwise_ms: int) -> int:
    """Return the time that an event names, in milliseconds."""
    try:
        return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError, OverflowError):
        return otherwise_ms


def after(reader: Reader, archive_id: int, position: tuple[int, int], end_at_ms: int, limit: int) -> list[Archived]:
    """Return archived events after a position (time, id) up to a time, in their order."""
    at_ms, archived_id = position
    columns = "SELECT archived_id, event_at_ms, event FROM events_archived WHERE archive_id = ?"
    # Two ranges of the index, so that many events of one second are not read again at each step.
    rows = reader.all(
        f"{columns} AND event_at_ms = ? AND event_at_ms <= ? AND archived_id > ? ORDER BY archived_id LIMIT ?",
        (archive_id, at_ms, end_at_ms, archived_id, limit),
    )
    if len(rows) < limit:
        rows += reader.all(
            f"{columns} AND event_at_ms > ? AND event_at_ms <= ? ORDER BY event_at_ms, archived_id LIMIT ?",
            (archive_id, at_ms, end_at_ms, limit - len(rows)),
        )
    return [Archived(*row) for row in rows]


def sweep(tx: Transaction, now_ms: int) -> bool:
    """Remove a batch of what archives no longer keep; return whether there may be more."""
    for archive_id, retention_days in tx.all(
        "SELECT archive_id, retention_days FROM events_archive WHERE retention_days > 0 ORDER BY archive_id LIMIT ?",
        (SWEEP_LIMIT,),
    ):
        before_ms = now_ms - retention_days * DAY_MS
        if _remove(tx, "archive_id = ? AND event_at_ms < ?", archive_id, before_ms):
            return True
    return any(_remove(tx, "archive_id = ?", archive_id) for archive_id in _orphans(tx))


def _orphans(reader: Reader) -> Iterator[int]:
    """Return the archives that are gone and have left events, by a look into the index for each archive."""
    row = reader.one("SELECT min(archive_id) FROM events_archived")
    while row is not None and row[0] is not None:
        archive_id: int = row[0]
        if reader.one("SELECT 1 FROM events_archive WHERE archive_id = ?", (archive_id,)) is None:
            yield archive_id
        row = reader.one("SELECT min(archive_id) FROM events_archived WHERE archive_id > ?", (archive_id,))


def _remove(tx: Transaction, where: str, *parameters: int) -> bool:
    rows = tx.all(
        f"SELECT archived_id, archive_id, event FROM events_archived WHERE {where} ORDER BY event_at_ms LIMIT ?",  # noqa: S608
        (*parameters, SWEEP_LIMIT),
    )
    for archived_id, archive_id, event_text in rows:
        tx.execute("DELETE FROM events_archived WHERE archived_id = ?", (archived_id,))
        tx.execute(
            "UPDATE events_archive SET event_count = event_count - 1, size_bytes = size_bytes - ? WHERE archive_id = ?",
            (len(event_text.encode()), archive_id),
        )
    return bool(rows)
