"""Receiving: who sees a message, for how long, and when it becomes a dead letter.

A received message is invisible until its time-out; its receipt handle names that one receive. In a FIFO queue a group
with a message in flight waits, so that order holds.
Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from entrepot import clock, ids
from entrepot.arns import Account
from entrepot.database import Reader, Row, Transaction
from entrepot.services.sqs import queues, sending
from entrepot.services.sqs.errors import (
    InvalidParameterValue,
    MessageNotInflight,
    OverLimit,
    ReceiptHandleIsInvalid,
)
from entrepot.services.sqs.queues import Queue

IN_FLIGHT_LIMIT = 120_000
"""Messages of one queue that are received and not yet deleted."""

VISIBILITY_LIMIT_S = 43_200
"""For so long a message can be kept invisible after one receive."""

ATTEMPT_MS = 300_000
"""For so long a ReceiveRequestAttemptId gives the same messages again."""

_COLUMNS = (
    "sequence, message_id, group_id, visible_at_ms, sent_at_ms, receive_count, first_received_at_ms, received_at_ms, "
    "receipt, body, details"
)


@dataclass(frozen=True, slots=True)
class Received:
    """A message in the table. `details` is what the schema says."""

    sequence: int
    message_id: str
    group_id: str
    visible_at_ms: int
    sent_at_ms: int
    receive_count: int
    first_received_at_ms: int
    received_at_ms: int
    receipt: str
    body: str
    details: Mapping[str, Any]

    @property
    def receipt_handle(self) -> str:
        """What deletes the message, or changes its time-out, after this receive."""
        return base64.b64encode(f"{self.sequence}.{self.receipt}".encode()).decode()


def _received(row: Row) -> Received:
    values = (*row[:10], json.loads(row[10]))
    return Received(*values)


def next_visible_ms(reader: Reader, queue: Queue) -> int | None:
    """Return when the next message can be received (perhaps in the past); None when the queue is empty."""
    if queue.is_fifo:
        sql = "SELECT available_at_ms FROM sqs_group WHERE queue_id = ? ORDER BY available_at_ms LIMIT 1"
    else:
        sql = "SELECT visible_at_ms FROM sqs_message WHERE queue_id = ? ORDER BY visible_at_ms LIMIT 1"
    row = reader.one(sql, (queue.queue_id,))
    return None if row is None else int(row[0])


def receive(
    tx: Transaction, account: Account, queue: Queue, limit: int, visibility_s: int, attempt_id: str | None = None
) -> list[Received]:
    """Take up to `limit` messages for `visibility_s` seconds; what was received too often goes to the dead letters.

    Raises OverLimit.
    """
    at_ms = clock.now_ms()
    if attempt_id is not None:
        again = _repeat(tx, queue, attempt_id, visibility_s, at_ms)
        if again is not None:
            return again
    flying = count_in_flight(tx, queue, at_ms)
    if flying >= IN_FLIGHT_LIMIT:
        raise OverLimit(f"{IN_FLIGHT_LIMIT} messages of {queue.queue_name} are in flight; delete some first.")
    wanted, taken = min(limit, IN_FLIGHT_LIMIT - flying), list[Received]()
    oldest_ms = at_ms - queue.number("MessageRetentionPeriod") * 1000
    while len(taken) < wanted:
        candidates = (_fifo_candidates if queue.is_fifo else _candidates)(tx, queue, at_ms, wanted - len(taken))
        if not candidates:
            break
        for message in candidates:
            if message.sent_at_ms <= oldest_ms:
                remove(tx, queue, message)
            elif not _bury(tx, account, queue, message, at_ms):
                taken.append(_take(tx, queue, message, visibility_s, at_ms))
    if attempt_id is not None and taken:
        _remember(tx, queue, attempt_id, taken, at_ms)
    return taken


def count_in_flight(reader: Reader, queue: Queue, at_ms: int) -> int:
    """Return how many messages are received, not deleted, and not visible again."""
    row = reader.one(
        "SELECT count(*) FROM sqs_message WHERE queue_id = ? AND visible_at_ms > ? AND receipt <> ''",
        (queue.queue_id, at_ms),
    )
    return 0 if row is None else int(row[0])


def counts(reader: Reader, queue: Queue, at_ms: int) -> tuple[int, int, int]:
    """Return how many messages can be received, are in flight, and are delayed."""
    row = reader.one(
        "SELECT count(*), coalesce(sum(CASE WHEN visible_at_ms > ? THEN 1 ELSE 0 END), 0) FROM sqs_message WHERE queue_id = ?",
        (at_ms, queue.queue_id),
    )
    assert row is not None
    flying = count_in_flight(reader, queue, at_ms)
    return row[0] - row[1], flying, row[1] - flying


def _candidates(tx: Transaction, queue: Queue, at_ms: int, limit: int) -> list[Received]:
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM sqs_message WHERE queue_id = ? AND visible_at_ms <= ? "  # noqa: S608
        "ORDER BY visible_at_ms, sequence LIMIT ?",
        (queue.queue_id, at_ms, limit),
    )
    return [_received(row) for row in rows]


def _fifo_candidates(tx: Transaction, queue: Queue, at_ms: int, limit: int) -> list[Received]:
    """Return messages of the one group that became available first, in order."""
    group = tx.one(
        "SELECT group_id FROM sqs_group WHERE queue_id = ? AND available_at_ms <= ? "
        "ORDER BY available_at_ms, group_id LIMIT 1",
        (queue.queue_id, at_ms),
    )
    if group is None:
        return []
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM sqs_message WHERE queue_id = ? AND group_id = ? AND group_id <> '' "  # noqa: S608
        "ORDER BY sequence LIMIT ?",
        (queue.queue_id, group[0], limit),
    )
    found = []
    for message in map(_received, rows):
        if message.visible_at_ms > at_ms:
            break
        found.append(message)
    if not found:
        settle_group(tx, queue, group[0])
    return found


def _take(tx: Transaction, queue: Queue, message: Received, visibility_s: int, at_ms: int) -> Received:
    taken = replace(
        message,
        visible_at_ms=at_ms + visibility_s * 1000,
        receive_count=message.receive_count + 1,
        first_received_at_ms=message.first_received_at_ms or at_ms,
        received_at_ms=at_ms,
        receipt=ids.random_hex(16),
    )
    # One that stays visible (time-out 0) must not be found again by this same call.
    visible_at_ms = max(taken.visible_at_ms, at_ms + 1)
    tx.execute(
        "UPDATE sqs_message SET visible_at_ms = ?, receive_count = ?, first_received_at_ms = ?, received_at_ms = ?, "
        "receipt = ? WHERE sequence = ?",
        (
            visible_at_ms, taken.receive_count, taken.first_received_at_ms, at_ms, taken.receipt, message.sequence,
        ),
    )  # fmt: skip
    if queue.is_fifo:
        settle_group(tx, queue, message.group_id)
    return taken


def settle_group(tx: Transaction, queue: Queue, group_id: str) -> None:
    """Bring a group's row to what its messages say: free when none of them is in flight and its head is visible."""
    head = tx.one(
        "SELECT visible_at_ms FROM sqs_message WHERE queue_id = ? AND group_id = ? AND group_id <> '' "
        "ORDER BY sequence LIMIT 1",
        (queue.queue_id, group_id),
    )
    if head is None:
        tx.execute("DELETE FROM sqs_group WHERE queue_id = ? AND group_id = ?", (queue.queue_id, group_id))
        return
    flying = tx.one(
        "SELECT visible_at_ms FROM sqs_message WHERE queue_id = ? AND group_id = ? AND receipt <> '' "
        "ORDER BY visible_at_ms DESC LIMIT 1",
        (queue.queue_id, group_id),
    )
    available_at_ms = max(head[0], 0 if flying is None else flying[0])
    tx.execute(
        "UPDATE sqs_group SET available_at_ms = ? WHERE queue_id = ? AND group_id = ?",
        (available_at_ms, queue.queue_id, group_id),
    )


def remove(tx: Transaction, queue: Queue, message: Received) -> None:
    """Take a message out of its queue."""
    tx.execute("DELETE FROM sqs_message WHERE sequence = ?", (message.sequence,))
    if queue.is_fifo:
        settle_group(tx, queue, message.group_id)


def _bury(tx: Transaction, account: Account, queue: Queue, message: Received, at_ms: int) -> bool:
    """Move a message to the dead-letter queue if it was received as often as the redrive policy allows."""
    policy = queue.redrive_policy
    if policy is None or message.receive_count < policy.max_receive_count:
        return False
    target = queues.find(tx, policy.dead_letter_queue_name)
    if target is None:
        return False  # As in AWS, a message whose dead-letter queue is gone stays where it is.
    remove(tx, queue, message)
    details = {**message.details, "source_arn": account.arn("sqs", queue.queue_name)}
    # The time of sending stays in a standard queue (so retention goes on); a FIFO queue starts anew.
    sending.insert(
        tx, target, sequence=queues.next_number(tx), message_id=message.message_id, group_id=message.group_id,
        body=message.body, visible_at_ms=at_ms, sent_at_ms=at_ms if queue.is_fifo else message.sent_at_ms,
        receive_count=message.receive_count, first_received_at_ms=message.first_received_at_ms,
        details=json.dumps(details, ensure_ascii=False, separators=(",", ":")),
    )  # fmt: skip
    return True


# ── receive handles ──────────────────────────────────────────────────────────────────────────────────────────────────


def _parse(receipt_handle: str) -> tuple[int, str]:
    try:
        sequence, _, receipt = base64.b64decode(receipt_handle, validate=True).decode("ascii").partition(".")
        if not (sequence.isdigit() and len(sequence) < 19 and len(receipt) == 32):
            raise ValueError(receipt_handle)
    except (binascii.Error, UnicodeError, ValueError):
        raise ReceiptHandleIsInvalid(
            f'The input receipt handle "{receipt_handle[:200]}" is not a valid receipt handle.'
        ) from None
    return int(sequence), receipt


def _find(reader: Reader, queue: Queue, sequence: int) -> Received | None:
    row = reader.one(
        f"SELECT {_COLUMNS} FROM sqs_message WHERE sequence = ? AND queue_id = ?",  # noqa: S608
        (sequence, queue.queue_id),
    )
    return None if row is None else _received(row)


def delete(tx: Transaction, queue: Queue, receipt_handle: str) -> None:
    """Delete a message; one that is gone, or was received again by somebody else, is left as it is.

    Raises ReceiptHandleIsInvalid, and for a FIFO queue InvalidParameterValue when the receipt handle has expired.
    """
    sequence, receipt = _parse(receipt_handle)
    message = _find(tx, queue, sequence)
    if message is None:
        return
    if queue.is_fifo and (message.receipt != receipt or message.visible_at_ms <= clock.now_ms()):
        raise InvalidParameterValue(
            f"Value {receipt_handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
        )
    if message.receipt == receipt:
        remove(tx, queue, message)


def change_visibility(tx: Transaction, queue: Queue, receipt_handle: str, visibility_s: int) -> None:
    """Let a message be invisible for `visibility_s` seconds from now.

    Raises ReceiptHandleIsInvalid, MessageNotInflight, InvalidParameterValue.
    """
    sequence, receipt = _parse(receipt_handle)
    if not 0 <= visibility_s <= VISIBILITY_LIMIT_S:
        raise InvalidParameterValue(
            f"Value {visibility_s} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200."
        )
    message, at_ms = _find(tx, queue, sequence), clock.now_ms()
    if message is None or message.receipt != receipt:
        raise InvalidParameterValue(
            f"Value {receipt_handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not "
            "available for visibility timeout change."
        )
    if message.visible_at_ms <= at_ms:
        raise MessageNotInflight("The specified message is not in flight.")
    visible_at_ms = at_ms + visibility_s * 1000
    if visible_at_ms - message.received_at_ms > VISIBILITY_LIMIT_S * 1000:
        raise InvalidParameterValue(
            f"Value {visibility_s} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the "
            f"message is beyond the limit [{VISIBILITY_LIMIT_S} seconds]."
        )
    tx.execute("UPDATE sqs_message SET visible_at_ms = ? WHERE sequence = ?", (visible_at_ms, sequence))
    if queue.is_fifo:
        settle_group(tx, queue, message.group_id)


# ── one attempt, asked twice ─────────────────────────────────────────────────────────────────────────────────────────


def _remember(tx: Transaction, queue: Queue, attempt_id: str, taken: list[Received], at_ms: int) -> None:
    text = json.dumps([[message.sequence, message.receipt] for message in taken])
    tx.execute(
        "INSERT INTO sqs_attempt (queue_id, attempt_id, received_at_ms, messages) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (queue_id, attempt_id) DO UPDATE SET received_at_ms = excluded.received_at_ms, "
        "messages = excluded.messages",
        (queue.queue_id, attempt_id, at_ms, text),
    )


def _repeat(tx: Transaction, queue: Queue, attempt_id: str, visibility_s: int, at_ms: int) -> list[Received] | None:
    """Return the same messages with their time-outs begun anew, unless any of them was deleted or became visible."""
    row = tx.one(
        "SELECT messages FROM sqs_attempt WHERE queue_id = ? AND attempt_id = ? AND received_at_ms > ?",
        (queue.queue_id, attempt_id, at_ms - ATTEMPT_MS),
    )
    if row is None:
        return None
    again = []
    for sequence, receipt in json.loads(row[0]):
        message = _find(tx, queue, sequence)
        if message is None or message.receipt != receipt or message.visible_at_ms <= at_ms:
            return None
        again.append(message)
    visible_at_ms = at_ms + visibility_s * 1000
    for message in again:
        tx.execute("UPDATE sqs_message SET visible_at_ms = ? WHERE sequence = ?", (visible_at_ms, message.sequence))
        settle_group(tx, queue, message.group_id)
    return again
