"""Deliveries that failed for good, with the reason, until somebody delivers them again or drops them."""

import re
from dataclasses import dataclass
from typing import Any

from entrepot.database import Reader, Transaction
from entrepot.errors import AwsError
from entrepot.services.events.delivery import Queued, is_retryable
from entrepot.services.events.errors import TargetError
from entrepot.services.events.rules import Target
from entrepot.services.events.targets import queue_url

LIST_LIMIT = 1000
"""Dead letters that one call returns."""

KEPT_LIMIT = 100_000
"""Dead letters that are kept; of more, the oldest go. The records of their files stay, and can be redriven."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One delivery that was given up. `tries` counts all of them."""

    dead_letter_id: int
    failed_at_ms: int
    bus_name: str
    rule_name: str
    target_id: str
    target_arn: str
    attempt: int
    tries: int
    error_code: str
    error_message: str
    event_id: str
    event_text: str


def message(queued: Queued, target: Target, rule_arn: str, error: AwsError) -> dict[str, Any]:
    """Return the SendMessage request that puts a delivery into its target's dead-letter queue, with AWS's attributes.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    attributes = {
        "RULE_ARN": rule_arn,
        "TARGET_ARN": target.arn,
        "ERROR_CODE": _error_code(error),
        "ERROR_MESSAGE": _ALLOWED.sub("?", error.message)[:1024] or error.code,
    }
    if is_retryable(error):
        tried_out = queued.tries >= target.retry_policy.maximum_retry_attempts
        attributes["EXHAUSTED_RETRY_CONDITION"] = "MaximumRetryAttempts" if tried_out else "MaximumEventAgeInSeconds"
        attributes["RETRY_ATTEMPTS"] = str(queued.tries)
    assert target.dead_letter_arn is not None
    return {
        "QueueUrl": queue_url(target.dead_letter_arn),
        "MessageBody": queued.event_text,
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    }


def _error_code(error: AwsError) -> str:
    """Return AWS's ERROR_CODE. Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html"""
    if isinstance(error, TargetError):
        return error.dead_letter_code
    if "AccessDenied" in error.code:
        return "FAILED_TO_ASSUME_ROLE" if "sts:AssumeRole" in error.message else "NO_PERMISSIONS"
    if any(word in error.code for word in ("NotFound", "DoesNotExist", "NonExistent", "NoSuchEntity")):
        return "NO_RESOURCE"
    if "AlreadyExists" in error.code:
        return "RESOURCE_ALREADY_EXISTS"
    if "Thrott" in error.code or error.code in ("TooManyRequestsException", "RequestLimitExceeded", "SlowDown"):
        return "THROTTLING"
    if "LimitExceeded" in error.code:
        return "RESOURCE_LIMIT_EXCEEDED"
    if error.code in ("ConflictException", "ResourceConflictException", "ConcurrentModificationException"):
        return "RESOURCE_MODIFICATION_COLLISION"
    if error.code.startswith(("Validation", "InvalidParameter")):
        return "INVALID_PARAMETER"
    return "INTERNAL_ERROR" if error.status >= 500 else "SDK_CLIENT_ERROR"


_ALLOWED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What a message may not have."""

_COLUMNS = "failed_at_ms, bus_name, rule_name, target_id, target_arn, attempt, tries, error_code, error_message, event_id, event"


def bury(tx: Transaction, queued: Queued, target_arn: str, error: AwsError, at_ms: int) -> None:
    """Keep a delivery that is given up."""
    tx.execute(
        f"INSERT INTO events_dead_letter ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            at_ms, queued.bus_name, queued.rule_name, queued.target_id, target_arn, queued.attempt, queued.tries + 1,
            error.code, error.message, queued.event_id, queued.event_text,
        ),
    )  # fmt: skip
    tx.execute(
        "DELETE FROM events_dead_letter WHERE dead_letter_id <= (SELECT max(dead_letter_id) FROM events_dead_letter) - ?",
        (KEPT_LIMIT,),
    )


def forget(tx: Transaction, event_id: str, bus_name: str, rule_name: str, target_id: str) -> None:
    """Drop the dead letters of an event for a target: it is delivered again."""
    tx.execute(
        "DELETE FROM events_dead_letter WHERE event_id = ? AND bus_name = ? AND rule_name = ? AND target_id = ?",
        (event_id, bus_name, rule_name, target_id),
    )


def list_dead_letters(reader: Reader, *, after_id: int = 0, limit: int = LIST_LIMIT) -> list[DeadLetter]:
    """Return dead letters, oldest first, from the one after `after_id`."""
    rows = reader.all(
        f"SELECT dead_letter_id, {_COLUMNS} FROM events_dead_letter WHERE dead_letter_id > ? "  # noqa: S608
        "ORDER BY dead_letter_id LIMIT ?",
        (after_id, min(limit, LIST_LIMIT)),
    )
    return [DeadLetter(*row) for row in rows]


def take(tx: Transaction, dead_letter_id: int) -> DeadLetter | None:
    """Remove a dead letter and return it; None when there is none."""
    row = tx.one(
        f"SELECT dead_letter_id, {_COLUMNS} FROM events_dead_letter WHERE dead_letter_id = ?",  # noqa: S608
        (dead_letter_id,),
    )
    if row is None:
        return None
    tx.execute("DELETE FROM events_dead_letter WHERE dead_letter_id = ?", (dead_letter_id,))
    return DeadLetter(*row)
