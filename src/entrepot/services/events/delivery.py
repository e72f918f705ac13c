"""One event on its way to one target of one rule: the value, its row in the queue, and AWS's retry policy.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from entrepot.database import Reader, Row, Transaction
from entrepot.errors import AwsError, ServiceUnavailableError
from entrepot.services.events.errors import TargetError
from entrepot.services.events.rules import RetryPolicy

BACKOFF_FIRST_MS = 1_000
"""The first pause before a delivery is tried again; it doubles each time."""

BACKOFF_LIMIT_MS = 600_000
"""The longest pause."""

_RETRYABLE = frozenset(
    {
        "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "ServiceUnavailable",
        "ServiceUnavailableException", "ExecutionLimitExceeded", "ResourceConflictException", "SlowDown",
        "ResourceNotReadyException", "EC2ThrottledException", "ConflictException", "OperationAbortedException",
    }
)  # fmt: skip
"""Errors below 500 that may go away by themselves."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What other rooms hear of a delivery. `attempt` is 1, and one more for each redrive.

    `execution_arn` is set when a state machine was started; `error` (`Code: message`) when the delivery failed for good, with
    `dead_letter_arn` when the target's own queue took the event.
    """

    event_id: str
    event_text: str
    rule_name: str
    rule_arn: str
    target_id: str
    target_arn: str
    attempt: int
    execution_arn: str | None = None
    error: str | None = None
    dead_letter_arn: str | None = None

    @property
    def event(self) -> dict[str, Any]:
        """The event, parsed anew at each call."""
        event: dict[str, Any] = json.loads(self.event_text)
        return event


OnDelivery: TypeAlias = Callable[[Transaction, Delivery], None]
"""Called inside the transaction that records a delivery (or that it failed for good)."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A row of the queue. `tries` counts what was tried before without success."""

    delivery_id: int
    due_at_ms: int
    queued_at_ms: int
    bus_name: str
    rule_name: str
    target_id: str
    attempt: int
    tries: int
    event_id: str
    event_text: str


_COLUMNS = "queued_at_ms, bus_name, rule_name, target_id, attempt, tries, event_id, event"


def queue(
    tx: Transaction, *, due_at_ms: int, bus_name: str, rule_name: str, target_id: str, attempt: int, event_id: str,
    event_text: str,
) -> None:  # fmt: skip
    """Put one delivery into the queue."""
    tx.execute(
        f"INSERT INTO events_delivery (due_at_ms, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",  # noqa: S608
        (due_at_ms, due_at_ms, bus_name, rule_name, target_id, attempt, event_id, event_text),
    )


def due(reader: Reader, at_ms: int, limit: int) -> list[Queued]:
    """Return what is due, oldest first."""
    rows: list[Row] = reader.all(
        f"SELECT delivery_id, due_at_ms, {_COLUMNS} FROM events_delivery WHERE due_at_ms <= ? "  # noqa: S608
        "ORDER BY due_at_ms, delivery_id LIMIT ?",
        (at_ms, limit),
    )
    return [Queued(*row) for row in rows]


def get(reader: Reader, delivery_id: int) -> Queued | None:
    """Return a row of the queue."""
    row = reader.one(
        f"SELECT delivery_id, due_at_ms, {_COLUMNS} FROM events_delivery WHERE delivery_id = ?",  # noqa: S608
        (delivery_id,),
    )
    return None if row is None else Queued(*row)


def next_due_ms(reader: Reader) -> int | None:
    """Return when the next delivery is due; None when the queue is empty."""
    row = reader.one("SELECT due_at_ms FROM events_delivery ORDER BY due_at_ms LIMIT 1")
    return None if row is None else int(row[0])


def remove(tx: Transaction, delivery_id: int) -> bool:
    """Take a delivery out of the queue; return whether it was there."""
    return tx.execute("DELETE FROM events_delivery WHERE delivery_id = ?", (delivery_id,)) > 0


def postpone(tx: Transaction, delivery_id: int, *, due_at_ms: int, tries: int, is_leased: bool = False) -> None:
    """Make a delivery due later. `is_leased`: this process has begun it, and it is due again if nothing comes of that."""
    tx.execute(
        "UPDATE events_delivery SET due_at_ms = ?, tries = ?, is_leased = ? WHERE delivery_id = ?",
        (due_at_ms, tries, int(is_leased), delivery_id),
    )


def end_leases(tx: Transaction, at_ms: int) -> int:
    """Make due what a process that is no more had begun; return how many deliveries."""
    return tx.execute("UPDATE events_delivery SET due_at_ms = ?, is_leased = 0 WHERE is_leased = 1", (at_ms,))


def is_retryable(error: AwsError) -> bool:
    """Return whether trying again may help: not for a missing target, a refused permission or a malformed request."""
    if isinstance(error, TargetError):
        return error.retryable
    return (
        isinstance(error, ServiceUnavailableError)
        or error.code in _RETRYABLE
        or (error.status >= 500 and error.code != "NotImplemented")
    )


def retry_at_ms(queued: Queued, policy: RetryPolicy, at_ms: int, at_least_ms: int = 0) -> int | None:
    """Return when to try again after a failure at `at_ms`; None when the retry policy is exhausted.

    The last try is just before the event is too old, where its pause would go beyond that; unless the target asked to
    wait longer (`at_least_ms`).
    """
    deadline_ms = queued.queued_at_ms + policy.maximum_event_age_s * 1000
    if queued.tries >= policy.maximum_retry_attempts or at_ms + max(at_least_ms, BACKOFF_FIRST_MS // 2) > deadline_ms:
        return None
    pause_ms = min(BACKOFF_FIRST_MS * 2 ** min(queued.tries, 20), BACKOFF_LIMIT_MS)
    jittered_ms = int(pause_ms * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
    return min(at_ms + max(jittered_ms, at_least_ms), deadline_ms)
