"""Sending: one message into one queue, in the caller's transaction.

FIFO de-duplication: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-exactly-once-processing.html
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entrepot import clock, ids
from entrepot.database import Transaction
from entrepot.services.sqs import contents, queues
from entrepot.services.sqs.errors import InvalidParameterValue, MissingParameter
from entrepot.services.sqs.queues import Queue

DEDUPLICATION_MS = 300_000
"""For so long a FIFO queue takes a message with the same de-duplication id for the same message."""

_ID = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send. `attributes` and `system_attributes` are AWS's shapes; `delay_s` None: the queue's."""

    body: str
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    system_attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    delay_s: int | None = None
    group_id: str | None = None
    deduplication_id: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message; `sequence` is None for a standard queue."""

    message_id: str
    sequence: int | None


def size_bytes(message: Message) -> int:
    """Return what counts towards the limit; raise InvalidMessageContents or InvalidParameterValue."""
    contents.check_body(message.body)
    contents.check_attributes(message.attributes)
    return contents.size_bytes(message.body, message.attributes)


def check(queue: Queue, message: Message) -> None:
    """Raise what AWS raises for a message that this queue does not take."""
    limit_bytes = queue.number("MaximumMessageSize")
    if size_bytes(message) > limit_bytes:
        raise InvalidParameterValue(
            f"One or more parameters are invalid. Reason: Message must be shorter than {limit_bytes} bytes."
        )
    if set(message.system_attributes) - {"AWSTraceHeader"}:
        raise InvalidParameterValue("The only message system attribute that can be sent is AWSTraceHeader.")
    for header in message.system_attributes.values():
        if header.get("DataType") != "String" or not header.get("StringValue"):
            raise InvalidParameterValue("AWSTraceHeader must be a string.")
        contents.check_body(header["StringValue"])
    for name, value in (("MessageGroupId", message.group_id), ("MessageDeduplicationId", message.deduplication_id)):
        if value is not None and not _ID.fullmatch(value):
            raise InvalidParameterValue(
                f"Value {value[:128]} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and "
                "punctuation characters. 1 to 128 in length."
            )
    if queue.is_fifo:
        _check_fifo(queue, message)
        return
    if message.deduplication_id is not None:
        raise InvalidParameterValue("The request include parameter MessageDeduplicationId which is not valid for this "
                                    "queue type")  # fmt: skip
    if message.delay_s is not None and not 0 <= message.delay_s <= 900:
        raise InvalidParameterValue(
            f"Value {message.delay_s} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."
        )


def _check_fifo(queue: Queue, message: Message) -> None:
    if message.group_id is None:
        raise MissingParameter("The request must contain the parameter MessageGroupId.")
    if message.delay_s:
        raise InvalidParameterValue(
            f"Value {message.delay_s} for parameter DelaySeconds is invalid. Reason: The request include parameter that "
            "is not valid for this queue type."
        )
    if message.deduplication_id is None and queue.attributes.get("ContentBasedDeduplication") != "true":
        raise InvalidParameterValue(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
        )


def send(tx: Transaction, queue: Queue, message: Message, sender_id: str) -> Sent:
    """Put a message into a queue. In a FIFO queue, one that was sent in the last five minutes is not put again."""
    check(queue, message)
    at_ms = clock.now_ms()
    deduplication_id = message.deduplication_id
    if queue.is_fifo and deduplication_id is None:
        deduplication_id = hashlib.sha256(message.body.encode()).hexdigest()
    if deduplication_id is not None:
        known = _known(tx, queue, message, deduplication_id, at_ms)
        if known is not None:
            return known
    sequence, message_id = queues.next_number(tx), ids.random_uuid()
    delay_s = queue.number("DelaySeconds") if message.delay_s is None or queue.is_fifo else message.delay_s
    details: dict[str, Any] = {"sender": sender_id}
    if message.attributes:
        details["attributes"] = {name: _kept(attribute) for name, attribute in message.attributes.items()}
    if message.system_attributes:
        details["trace"] = message.system_attributes["AWSTraceHeader"]["StringValue"]
    if deduplication_id is not None:
        details["deduplication_id"] = deduplication_id
        _remember(tx, queue, message, deduplication_id, Sent(message_id, sequence), at_ms)
    insert(
        tx, queue, sequence=sequence, message_id=message_id, group_id=message.group_id or "", body=message.body,
        visible_at_ms=at_ms + delay_s * 1000, sent_at_ms=at_ms, receive_count=0, first_received_at_ms=0,
        details=json.dumps(details, ensure_ascii=False, separators=(",", ":")),
    )  # fmt: skip
    return Sent(message_id, sequence if queue.is_fifo else None)


def insert(
    tx: Transaction, queue: Queue, *, sequence: int, message_id: str, group_id: str, body: str, visible_at_ms: int,
    sent_at_ms: int, receive_count: int, first_received_at_ms: int, details: str,
) -> None:  # fmt: skip
    """Write the row of a message that nobody is receiving, and make its group known."""
    tx.execute(
        "INSERT INTO sqs_message (sequence, queue_id, message_id, group_id, visible_at_ms, sent_at_ms, receive_count, "
        "first_received_at_ms, received_at_ms, receipt, body, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?, ?)",
        (
            sequence, queue.queue_id, message_id, group_id, visible_at_ms, sent_at_ms, receive_count,
            first_received_at_ms, body, details,
        ),
    )  # fmt: skip
    if queue.is_fifo:
        # A group that is there already has an older message at its head, which decides.
        tx.execute(
            "INSERT INTO sqs_group (queue_id, group_id, available_at_ms) VALUES (?, ?, ?) "
            "ON CONFLICT (queue_id, group_id) DO NOTHING",
            (queue.queue_id, group_id, visible_at_ms),
        )


def _key(queue: Queue, message: Message, deduplication_id: str) -> str:
    if queue.attributes.get("DeduplicationScope") == "messageGroup":
        return f"{message.group_id} {deduplication_id}"
    return deduplication_id


def _known(tx: Transaction, queue: Queue, message: Message, deduplication_id: str, at_ms: int) -> Sent | None:
    row = tx.one(
        "SELECT message_id, sequence FROM sqs_deduplication WHERE queue_id = ? AND deduplication_key = ? "
        "AND sent_at_ms > ?",
        (queue.queue_id, _key(queue, message, deduplication_id), at_ms - DEDUPLICATION_MS),
    )
    return None if row is None else Sent(row[0], row[1])


def _remember(tx: Transaction, queue: Queue, message: Message, deduplication_id: str, sent: Sent, at_ms: int) -> None:
    tx.execute(
        "INSERT INTO sqs_deduplication (queue_id, deduplication_key, sent_at_ms, message_id, sequence) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT (queue_id, deduplication_key) DO UPDATE SET "
        "sent_at_ms = excluded.sent_at_ms, message_id = excluded.message_id, sequence = excluded.sequence",
        (queue.queue_id, _key(queue, message, deduplication_id), at_ms, sent.message_id, sent.sequence),
    )


def _kept(attribute: Mapping[str, Any]) -> dict[str, str]:
    """Return an attribute as JSON can hold it; `attribute_of` gives it back."""
    if attribute["DataType"].startswith("Binary"):
        return {"t": attribute["DataType"], "b": base64.b64encode(bytes(attribute["BinaryValue"])).decode()}
    return {"t": attribute["DataType"], "s": attribute["StringValue"]}


def attribute_of(kept: Mapping[str, str]) -> dict[str, Any]:
    """Return a message attribute in AWS's shape."""
    if "b" in kept:
        return {"DataType": kept["t"], "BinaryValue": base64.b64decode(kept["b"])}
    return {"DataType": kept["t"], "StringValue": kept["s"]}
