"""What deletes events: retention, a stream's end, a group's end; always a chunk at a time, so that writing goes on meanwhile."""

import asyncio
import logging

from entrepot import clock
from entrepot.errors import StorageError
from entrepot.services.logs.session import Session, find_group
from entrepot.services.logs.store import Store

RETENTION_INTERVAL_S = 600.0
"""How often events past their group's retention are deleted. They are not shown from the moment on at which they are too old."""

RETENTION_CHUNK = 5_000
"""Events deleted in one transaction."""

DAY_MS = 86_400_000

_log = logging.getLogger("entrepot.logs")


async def enforce_retention(store: Store) -> int:
    """Delete events past their group's retention, a chunk at a time; return how many."""
    rows = await store.read(
        lambda session: session.all("SELECT group_id, retention_days FROM log_group WHERE retention_days > 0")
    )
    deleted = 0
    for group_id, days in rows:
        before_ms = clock.now_ms() - days * DAY_MS
        streams = await store.read(
            lambda session, group_id=group_id, before_ms=before_ms: session.all(  # type: ignore[misc]
                "SELECT stream_id FROM log_stream WHERE group_id = ? AND first_event_at_ms < ?",
                (group_id, before_ms),
            )
        )
        for (stream_id,) in streams:
            while count := await store.run(
                lambda session, i=stream_id, b=before_ms: delete_some_events(session, i, b)  # type: ignore[misc]
            ):
                deleted += count
            await store.run(
                lambda session, i=stream_id: _drop_stream_if_empty(session, i)  # type: ignore[misc]
            )
    return deleted


async def keep_retention(store: Store) -> None:
    """Enforce retention for ever."""
    while True:
        await asyncio.sleep(RETENTION_INTERVAL_S)
        try:
            await enforce_retention(store)
        except StorageError as error:
            _log.error("Old log events could not be deleted: %s It is tried again later.", error)


def delete_some_events(session: Session, stream_id: int, before_ms: int | None) -> int:
    """Delete a chunk of the oldest events of a stream (before a time); return how many."""
    last = 1 << 62 if before_ms is None else before_ms
    rows = session.all(
        "SELECT timestamp_ms, seq, length(message) FROM log_event WHERE stream_id = ? AND timestamp_ms < ? "
        "ORDER BY timestamp_ms, seq LIMIT ?",
        (stream_id, last, RETENTION_CHUNK),
    )
    if not rows:
        return 0
    session.execute(
        "DELETE FROM log_event WHERE stream_id = ? AND (timestamp_ms, seq) <= (?, ?)",
        (stream_id, rows[-1][0], rows[-1][1]),
    )
    session.execute(
        "UPDATE log_stream SET stored_bytes = max(0, stored_bytes - ?), first_event_at_ms = "
        "(SELECT min(timestamp_ms) FROM log_event WHERE stream_id = ?) WHERE stream_id = ?",
        (sum(row[2] + 26 for row in rows), stream_id, stream_id),
    )
    return len(rows)


def delete_stream_row(session: Session, stream_id: int) -> None:
    """Delete a stream with what was written to it since its events were deleted."""
    session.execute("DELETE FROM log_event WHERE stream_id = ?", (stream_id,))
    session.execute("DELETE FROM log_stream WHERE stream_id = ?", (stream_id,))


def _drop_stream_if_empty(session: Session, stream_id: int) -> None:
    """Delete a stream whose events have all expired, so that streams of ended workers do not gather."""
    if session.one("SELECT 1 FROM log_event WHERE stream_id = ? LIMIT 1", (stream_id,)) is None:
        session.execute("DELETE FROM log_stream WHERE stream_id = ?", (stream_id,))


def delete_some_of_group(session: Session, name: str) -> bool:
    """Delete a chunk of a group, in the end the group; return whether there is more to do."""
    group_id = find_group(session, name)
    row = session.one("SELECT stream_id FROM log_stream WHERE group_id = ? LIMIT 1", (group_id,))
    if row is None:
        session.execute(
            "DELETE FROM subscription_batch WHERE filter_id IN "
            "(SELECT filter_id FROM subscription_filter WHERE group_id = ?)",
            (group_id,),
        )
        for table in ("metric_filter", "subscription_filter", "group_tag", "log_group"):
            session.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))  # noqa: S608 - constants
        return False
    if not delete_some_events(session, row[0], None):
        delete_stream_row(session, row[0])
    return True
