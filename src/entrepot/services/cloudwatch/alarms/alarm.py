"""An alarm, its row and its history."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from entrepot.database import Reader, Transaction

StateValue: TypeAlias = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Kind: TypeAlias = Literal["MetricAlarm", "CompositeAlarm"]

ALARMS_LIMIT = 5_000
"""Alarms, at most. AWS's limit for a region."""

HISTORY_KEPT_MS = 30 * 86_400_000
"""History is kept for 30 days, as on AWS."""

HISTORY_CHUNK = 5_000
"""Items of history that one transaction deletes."""

DATA_LIMIT_CHARS = 4_095
"""AWS's limit for the data of an item of history."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm and its state. `definition` has AWS's shape: the request that made it."""

    name: str
    kind: Kind
    definition: Mapping[str, Any]
    configured_at_ms: int
    state: StateValue
    reason: str
    reason_data: str
    updated_at_ms: int
    transitioned_at_ms: int
    tags: Mapping[str, str]

    def actions(self, state: StateValue) -> Sequence[str]:
        """Return the ARNs of what entering `state` sets off, when actions are enabled."""
        if not self.definition.get("ActionsEnabled", True):
            return ()
        key = {"OK": "OKActions", "ALARM": "AlarmActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}[state]
        return tuple(self.definition.get(key) or ())


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """Something that happened to an alarm."""

    item_id: int
    name: str
    kind: Kind
    at_ms: int
    type: str
    summary: str
    data: str


_COLUMNS = (
    "name, kind, definition, configured_at_ms, state, reason, reason_data, updated_at_ms, transitioned_at_ms, tags"
)


def _alarm(row: tuple[Any, ...]) -> Alarm:
    name, kind, definition, configured_at_ms, state, reason, reason_data, updated_at_ms, transitioned_at_ms, tags = row
    times = {"updated_at_ms": updated_at_ms, "transitioned_at_ms": transitioned_at_ms}
    definition, tags = json.loads(definition), json.loads(tags)
    return Alarm(name, kind, definition, configured_at_ms, state, reason, reason_data, **times, tags=tags)


def find(reader: Reader, name: str) -> Alarm | None:
    """Return an alarm by its name."""
    row = reader.one(f"SELECT {_COLUMNS} FROM cloudwatch_alarm WHERE name = ?", (name,))  # noqa: S608 - constant
    return None if row is None else _alarm(row)


def every(reader: Reader) -> list[Alarm]:
    """Return all alarms by name."""
    rows = reader.all(f"SELECT {_COLUMNS} FROM cloudwatch_alarm ORDER BY name LIMIT ?", (ALARMS_LIMIT,))  # noqa: S608
    return [_alarm(row) for row in rows]


def count(reader: Reader) -> int:
    """Return the number of alarms."""
    row = reader.one("SELECT count(*) FROM cloudwatch_alarm")
    return 0 if row is None else int(row[0])


def save(tx: Transaction, alarm: Alarm) -> None:
    """Write an alarm, new or changed."""
    tx.execute(
        f"INSERT INTO cloudwatch_alarm ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - constant
        "ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, definition = excluded.definition, "
        "configured_at_ms = excluded.configured_at_ms, state = excluded.state, reason = excluded.reason, "
        "reason_data = excluded.reason_data, updated_at_ms = excluded.updated_at_ms, "
        "transitioned_at_ms = excluded.transitioned_at_ms, tags = excluded.tags",
        (
            alarm.name,
            alarm.kind,
            json.dumps(alarm.definition),
            alarm.configured_at_ms,
            alarm.state,
            alarm.reason,
            alarm.reason_data,
            alarm.updated_at_ms,
            alarm.transitioned_at_ms,
            json.dumps(alarm.tags),
        ),
    )


def delete(tx: Transaction, name: str) -> None:
    """Delete an alarm; its history stays."""
    tx.execute("DELETE FROM cloudwatch_alarm WHERE name = ?", (name,))


# ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def remember(tx: Transaction, alarm: Alarm, at_ms: int, type_: str, summary: str, data: Mapping[str, Any]) -> None:
    """Write an item of history."""
    tx.execute(
        "INSERT INTO cloudwatch_alarm_history (name, kind, at_ms, type, summary, data) VALUES (?, ?, ?, ?, ?, ?)",
        (alarm.name, alarm.kind, at_ms, type_, summary[:255], json.dumps(data)[:DATA_LIMIT_CHARS]),
    )


def history(
    reader: Reader,
    *,
    name: str | None,
    kinds: Sequence[str],
    type_: str | None,
    since_ms: int,
    until_ms: int,
    descending: bool,
    offset: int,
    limit: int,
) -> list[HistoryItem]:
    """Return items of history by time."""
    kinds = kinds or ("MetricAlarm", "CompositeAlarm")
    marks = ", ".join("?" for _ in kinds)
    direction = "DESC" if descending else "ASC"
    rows = reader.all(
        "SELECT item_id, name, kind, at_ms, type, summary, data FROM cloudwatch_alarm_history "  # noqa: S608 - marks
        f"WHERE at_ms >= ? AND at_ms <= ? AND kind IN ({marks}) AND (? = '' OR name = ?) AND (? = '' OR type = ?) "
        f"ORDER BY at_ms {direction}, item_id {direction} LIMIT ? OFFSET ?",
        (since_ms, until_ms, *kinds, name or "", name or "", type_ or "", type_ or "", limit, offset),
    )
    return [HistoryItem(*row) for row in rows]


def forget(tx: Transaction, before_ms: int) -> int:
    """Delete a chunk of old history; return how many items went."""
    return tx.execute(
        "DELETE FROM cloudwatch_alarm_history WHERE item_id IN "
        "(SELECT item_id FROM cloudwatch_alarm_history WHERE at_ms < ? LIMIT ?)",
        (before_ms, HISTORY_CHUNK),
    )
