"""Replays: archived events put once more on their bus, a few at a time, each with its `replay-name`.

A step reads the next events of the archive, queues their deliveries and moves the replay's position in one transaction: a
replay that dies in the middle goes on where it was, and no event is queued twice. Live events have precedence: while many
deliveries are due, no step is made.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-archive-event-replay.html
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from entrepot import faults
from entrepot.database import Reader, Transaction
from entrepot.services.events import archives
from entrepot.services.events.archives import DAY_MS

STEP_LIMIT = 32
"""Archived events of one step, for all replays together."""

STEP_PAUSE_S = 0.05
"""The pause after a step: at most STEP_LIMIT / STEP_PAUSE_S = 640 events a second are replayed."""

DUE_LIMIT = 256
"""While so many deliveries are due, replays wait."""

ACTIVE_LIMIT = 10
"""Replays that run at the same time. Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html"""

KEPT_MS = 90 * DAY_MS
"""How long a replay that has ended can be described, as on AWS."""

ACTIVE_STATES = ("STARTING", "RUNNING", "CANCELLING")

_COLUMNS = (
    "replay_id, name, description, archive_id, archive_arn, bus_name, filter_arns, start_at_ms, end_at_ms, state, "
    "state_reason, position_at_ms, position_id, last_event_at_ms, started_at_ms, ended_at_ms"
)


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay. `filter_arns`: the rules that see its events; empty: all of the bus."""

    replay_id: int
    name: str
    description: str
    archive_id: int
    archive_arn: str
    bus_name: str
    filter_arns: tuple[str, ...]
    start_at_ms: int
    end_at_ms: int
    state: str
    state_reason: str
    position_at_ms: int
    position_id: int
    last_event_at_ms: int | None
    started_at_ms: int
    ended_at_ms: int | None


Redeliver: TypeAlias = Callable[[Transaction, Replay, dict[str, Any]], None]
"""`redeliver(tx, replay, event)`: queue the event for the rules that the replay is for."""


def _replay(row: tuple[Any, ...]) -> Replay:
    replay = Replay(*row)
    return replace(replay, filter_arns=tuple(json.loads(row[6])))


def find(reader: Reader, name: str) -> Replay | None:
    """Return a replay by name."""
    row = reader.one(f"SELECT {_COLUMNS} FROM events_replay WHERE name = ?", (name,))  # noqa: S608
    return None if row is None else _replay(row)


def all_replays(reader: Reader, prefix: str, after: str, limit: int) -> list[Replay]:
    """Return replays by name, from the one after `after`."""
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM events_replay WHERE name > ? AND name >= ? ORDER BY name LIMIT ?",  # noqa: S608
        (after, prefix, limit),
    )
    return [_replay(row) for row in rows if row[1].startswith(prefix)]


def count_active(reader: Reader) -> int:
    """Return how many replays run."""
    row = reader.one("SELECT count(*) FROM events_replay WHERE ended_at_ms IS NULL")
    return 0 if row is None else int(row[0])


def start(
    tx: Transaction, *, name: str, description: str, archive_id: int, archive_arn: str, bus_name: str,
    filter_arns: list[str], start_at_ms: int, end_at_ms: int, now_ms: int,
) -> None:  # fmt: skip
    """Begin a replay."""
    tx.execute(
        "INSERT INTO events_replay (name, description, archive_id, archive_arn, bus_name, filter_arns, start_at_ms, "
        "end_at_ms, state, state_reason, position_at_ms, position_id, started_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'STARTING', '', ?, -1, ?)",
        (
            name, description, archive_id, archive_arn, bus_name, json.dumps(filter_arns), start_at_ms, end_at_ms,
            start_at_ms, now_ms,
        ),
    )  # fmt: skip


def cancel(tx: Transaction, replay: Replay) -> None:
    """Ask a replay to end; its next step does."""
    tx.execute("UPDATE events_replay SET state = 'CANCELLING' WHERE replay_id = ?", (replay.replay_id,))


def is_due(reader: Reader, now_ms: int) -> bool:
    """Return whether a replay runs that may make a step now."""
    if reader.one("SELECT 1 FROM events_replay WHERE ended_at_ms IS NULL LIMIT 1") is None:
        return False
    row = reader.one(
        "SELECT count(*) FROM (SELECT 1 FROM events_delivery WHERE due_at_ms <= ? LIMIT ?) AS due", (now_ms, DUE_LIMIT)
    )
    return row is not None and row[0] < DUE_LIMIT


def step(tx: Transaction, now_ms: int, redeliver: Redeliver) -> None:
    """Bring each running replay a little further, in this transaction."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM events_replay WHERE ended_at_ms IS NULL ORDER BY replay_id LIMIT ?",  # noqa: S608
        (ACTIVE_LIMIT,),
    )
    for row in rows:
        _step(tx, _replay(row), max(1, STEP_LIMIT // len(rows)), now_ms, redeliver)
    faults.reach("events.before-replay-step")


def _step(tx: Transaction, replay: Replay, limit: int, now_ms: int, redeliver: Redeliver) -> None:
    if replay.state == "CANCELLING":
        _end(tx, replay, "CANCELLED", "", now_ms)
        return
    if tx.one("SELECT 1 FROM events_archive WHERE archive_id = ?", (replay.archive_id,)) is None:
        _end(tx, replay, "FAILED", "The archive was deleted while its events were replayed.", now_ms)
        return
    if tx.one("SELECT 1 FROM events_bus WHERE name = ?", (replay.bus_name,)) is None:
        _end(tx, replay, "FAILED", f"Event bus {replay.bus_name} was deleted while events were replayed.", now_ms)
        return
    position = (replay.position_at_ms, replay.position_id)
    found = archives.after(tx, replay.archive_id, position, replay.end_at_ms, limit)
    for archived in found:
        redeliver(tx, replay, json.loads(archived.event_text))
    if found:
        last = found[-1]
        tx.execute(
            "UPDATE events_replay SET state = 'RUNNING', position_at_ms = ?, position_id = ?, last_event_at_ms = ? "
            "WHERE replay_id = ?",
            (last.event_at_ms, last.archived_id, last.event_at_ms, replay.replay_id),
        )
    if len(found) < limit:
        _end(tx, replay, "COMPLETED", "", now_ms)


def _end(tx: Transaction, replay: Replay, state: str, reason: str, now_ms: int) -> None:
    tx.execute(
        "UPDATE events_replay SET state = ?, state_reason = ?, ended_at_ms = ? WHERE replay_id = ?",
        (state, reason, now_ms, replay.replay_id),
    )


def forget_old(tx: Transaction, now_ms: int) -> None:
    """Drop replays that ended long ago; never the newest, so that no number is used twice."""
    tx.execute(
        "DELETE FROM events_replay WHERE ended_at_ms < ? AND replay_id < (SELECT max(replay_id) FROM events_replay)",
        (now_ms - KEPT_MS,),
    )
