"""SFTP sessions in the database, so that every process can list and end them."""

import os
from dataclasses import dataclass
from typing import Final, Literal

from entrepot import clock
from entrepot.database import Reader, Transaction

LIST_LIMIT: Final = 1000
"""Most sessions that one listing returns."""

RETENTION_MS: Final = 90 * 24 * 3600 * 1000
"""Closed sessions are kept this long."""


@dataclass(frozen=True, slots=True)
class SessionStart:
    """A user logged in."""

    session_id: str
    user_name: str
    source_ip: str
    source_port: int
    client: str
    key_fingerprint: str
    logged_in_at_ms: int


@dataclass(frozen=True, slots=True)
class SessionTotals:
    """What a session did. Bytes are file content."""

    bytes_in: int = 0
    bytes_out: int = 0
    files_in: int = 0
    files_out: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """One session; `closed_at_ms` is None while it lives."""

    start: SessionStart
    process: int
    closed_at_ms: int | None
    reason: str | None
    totals: SessionTotals


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that a live session is transferring: `/bucket/key`, which way, and the bytes so far."""

    path: str
    direction: Literal["in", "out"]
    bytes_done: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What a live session did so far, and does now."""

    totals: SessionTotals
    files: tuple[OpenFile, ...]


def open_session(tx: Transaction, start: SessionStart) -> None:
    """Record that a session began in this process."""
    tx.execute(
        "INSERT INTO transfer_session (session_id, user_name, source_ip, source_port, client, key_fingerprint, "
        "logged_in_at_ms, process, bytes_in, bytes_out, files_in, files_out, disconnect_requested) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0)",
        (
            start.session_id,
            start.user_name,
            start.source_ip,
            start.source_port,
            start.client,
            start.key_fingerprint,
            start.logged_in_at_ms,
            os.getpid(),
        ),
    )


def close_session(tx: Transaction, session_id: str, reason: str, totals: SessionTotals) -> None:
    """Record that a session ended, why, and what it did."""
    tx.execute(
        "UPDATE transfer_session SET closed_at_ms = ?, reason = ?, bytes_in = ?, bytes_out = ?, files_in = ?, "
        "files_out = ? WHERE session_id = ?",
        (
            clock.now_ms(),
            reason,
            totals.bytes_in,
            totals.bytes_out,
            totals.files_in,
            totals.files_out,
            session_id,
        ),
    )


def close_abandoned(tx: Transaction) -> int:
    """Close the sessions of processes that are no more, and forget old ones; return how many were closed."""
    now_ms = clock.now_ms()
    processes = tx.all("SELECT DISTINCT process FROM transfer_session WHERE closed_at_ms IS NULL LIMIT 1000")
    closed = 0
    for (process,) in processes:
        if process != os.getpid() and _is_alive(process):
            continue
        closed += tx.execute(
            "UPDATE transfer_session SET closed_at_ms = ?, reason = 'the server process ended' "
            "WHERE closed_at_ms IS NULL AND process = ?",
            (now_ms, process),
        )
    tx.execute(
        "DELETE FROM transfer_session WHERE logged_in_at_ms < ? AND closed_at_ms IS NOT NULL", (now_ms - RETENTION_MS,)
    )
    return closed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def list_sessions(reader: Reader, *, live: bool, limit: int = LIST_LIMIT) -> list[Session]:
    """Return the newest sessions first; only those that live when `live`."""
    # Those that live are few among millions: they have an index of their own, which only a sum keeps SQLite from passing
    # over for the one by time.
    where, order = ("WHERE closed_at_ms IS NULL ", "logged_in_at_ms + 0") if live else ("", "logged_in_at_ms")
    rows = reader.all(
        "SELECT session_id, user_name, source_ip, source_port, client, key_fingerprint, logged_in_at_ms, "  # noqa: S608
        f"process, closed_at_ms, reason, bytes_in, bytes_out, files_in, files_out FROM transfer_session {where}"
        f"ORDER BY {order} DESC LIMIT ?",
        (min(limit, LIST_LIMIT),),
    )
    return [Session(SessionStart(*row[:7]), row[7], row[8], row[9], SessionTotals(*row[10:])) for row in rows]


def find_session(reader: Reader, session_id: str) -> Session | None:
    """Return a session, alive or ended, or None."""
    row = reader.one(
        "SELECT session_id, user_name, source_ip, source_port, client, key_fingerprint, logged_in_at_ms, "
        "process, closed_at_ms, reason, bytes_in, bytes_out, files_in, files_out FROM transfer_session "
        "WHERE session_id = ?",
        (session_id,),
    )
    if row is None:
        return None
    return Session(SessionStart(*row[:7]), row[7], row[8], row[9], SessionTotals(*row[10:]))


def count_live(reader: Reader, user_name: str) -> int:
    """Return how many sessions of the user live, in all processes."""
    row = reader.one("SELECT COUNT(*) FROM transfer_session WHERE user_name = ? AND closed_at_ms IS NULL", (user_name,))
    assert row is not None
    return int(row[0])


def request_disconnect(tx: Transaction, session_id: str) -> bool:
    """Ask the process that serves the session to end it; return False when no such session lives."""
    return bool(
        tx.execute(
            "UPDATE transfer_session SET disconnect_requested = 1 WHERE session_id = ? AND closed_at_ms IS NULL",
            (session_id,),
        )
    )


def requested_disconnects(reader: Reader) -> list[str]:
    """Return the live sessions of this process that somebody asked to end."""
    rows = reader.all(
        "SELECT session_id FROM transfer_session WHERE closed_at_ms IS NULL AND disconnect_requested = 1 "
        "AND process = ? LIMIT ?",
        (os.getpid(), LIST_LIMIT),
    )
    return [session_id for (session_id,) in rows]
