"""The due times of scheduled rules: one row a rule, moved on in the transaction that queues its event.

So each due time gives exactly one event, whatever dies. Times that were missed while the server was down give one event
together, for the first of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from entrepot.database import Reader, Transaction
from entrepot.services.events import schedule

FIRE_LIMIT = 32
"""Rules that one transaction fires."""


@dataclass(frozen=True, slots=True)
class Due:
    """A scheduled rule that is due."""

    bus_name: str
    rule_name: str
    due_at_ms: int


Fire: TypeAlias = Callable[[Transaction, Due], None]
"""Queues the event of a rule that is due."""


def settle(tx: Transaction, bus_name: str, rule_name: str, expression: str, at_ms: int) -> None:
    """Bring a rule's due time to its expression ('': none). One whose expression stays keeps its due time."""
    row = tx.one("SELECT expression FROM events_schedule WHERE bus_name = ? AND rule_name = ?", (bus_name, rule_name))
    if row is not None and row[0] == expression:
        return
    tx.execute("DELETE FROM events_schedule WHERE bus_name = ? AND rule_name = ?", (bus_name, rule_name))
    if not expression:
        return
    due_at_ms = schedule.parse(expression).after(at_ms, at_ms)
    if due_at_ms is not None:
        tx.execute(
            "INSERT INTO events_schedule (bus_name, rule_name, expression, due_at_ms) VALUES (?, ?, ?, ?)",
            (bus_name, rule_name, expression, due_at_ms),
        )


def next_due_ms(reader: Reader) -> int | None:
    """Return when the next rule is due; None when there is none."""
    row = reader.one("SELECT due_at_ms FROM events_schedule ORDER BY due_at_ms LIMIT 1")
    return None if row is None else int(row[0])


def fire_due(tx: Transaction, at_ms: int, fire: Fire) -> None:
    """Fire what is due, and move each due time on to the first one after `at_ms`."""
    rows = tx.all(
        "SELECT bus_name, rule_name, due_at_ms, expression FROM events_schedule WHERE due_at_ms <= ? "
        "ORDER BY due_at_ms LIMIT ?",
        (at_ms, FIRE_LIMIT),
    )
    for bus_name, rule_name, due_at_ms, expression in rows:
        next_ms = schedule.parse(expression).after(at_ms, due_at_ms)
        if next_ms is None:  # The last year of a cron expression is over.
            tx.execute("DELETE FROM events_schedule WHERE bus_name = ? AND rule_name = ?", (bus_name, rule_name))
        else:
            tx.execute(
                "UPDATE events_schedule SET due_at_ms = ? WHERE bus_name = ? AND rule_name = ?",
                (next_ms, bus_name, rule_name),
            )
        fire(tx, Due(bus_name, rule_name, due_at_ms))
