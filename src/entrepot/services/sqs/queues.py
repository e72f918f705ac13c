"""Queues: their attributes, checked against AWS's ranges, and the table that holds them.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrepot import clock
from entrepot.arns import Account
from entrepot.database import Reader, Row, Transaction
from entrepot.services.sqs.errors import (
    InvalidAttributeName,
    InvalidAttributeValue,
    InvalidParameterValue,
    PurgeQueueInProgress,
    QueueDoesNotExist,
    QueueNameExists,
)

MESSAGE_LIMIT_BYTES = 1_048_576
"""The largest message, body and attributes together, and the largest batch."""

QUEUES_LIMIT = 10_000
"""Queues of one account here; AWS has no limit."""

TAGS_LIMIT = 50
"""Tags of one queue."""

PURGE_PAUSE_MS = 60_000
"""A queue is purged at most once in this time."""

_RANGES: dict[str, tuple[int, int, int]] = {
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1_024, MESSAGE_LIMIT_BYTES, MESSAGE_LIMIT_BYTES),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
}
"""The attributes that are numbers: least, greatest, default."""

NUMBERS = frozenset(_RANGES)
"""The names of the attributes that are numbers."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "FifoQueue": ("true",),
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
"""The attributes of FIFO queues."""

_UNSUPPORTED = ("Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")


@dataclass(frozen=True, slots=True)
class RedrivePolicy:
    """Where a message goes that was received `max_receive_count` times and not deleted."""

    dead_letter_queue_name: str
    max_receive_count: int


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue. `attributes` are those that were set, in AWS's names and as text."""

    queue_name: str
    queue_id: int
    created_at_ms: int
    modified_at_ms: int
    purged_at_ms: int
    attributes: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def is_fifo(self) -> bool:
        """Whether it keeps the order within each message group."""
        return self.queue_name.endswith(".fifo")

    def number(self, attribute: str) -> int:
        """Return a numeric attribute, or its default."""
        given = self.attributes.get(attribute)
        return _RANGES[attribute][2] if given is None else int(given)

    @property
    def redrive_policy(self) -> RedrivePolicy | None:
        """The redrive policy, where there is one."""
        text = self.attributes.get("RedrivePolicy")
        if not text:
            return None
        policy = json.loads(text)
        return RedrivePolicy(policy["deadLetterTargetArn"].rpartition(":")[2], int(policy["maxReceiveCount"]))


_COLUMNS = "queue_name, queue_id, created_at_ms, modified_at_ms, purged_at_ms, attributes, tags"


def _queue(row: Row) -> Queue:
    return Queue(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), json.loads(row[6]))


def find(reader: Reader, queue_name: str) -> Queue | None:
    """Return a queue, or None."""
    row = reader.one(f"SELECT {_COLUMNS} FROM sqs_queue WHERE queue_name = ?", (queue_name,))  # noqa: S608
    return None if row is None else _queue(row)


def get(reader: Reader, queue_name: str) -> Queue:
    """Return a queue; raise QueueDoesNotExist."""
    queue = find(reader, queue_name)
    if queue is None:
        raise QueueDoesNotExist
    return queue


def list_names(reader: Reader, prefix: str, after: str, limit: int) -> list[str]:
    """Return the names after `after` that begin with `prefix`, sorted."""
    rows = reader.all(
        "SELECT queue_name FROM sqs_queue WHERE queue_name > ? AND queue_name >= ? AND queue_name < ? "
        "ORDER BY queue_name LIMIT ?",
        (after, prefix, prefix + "\U0010ffff", limit),
    )
    return [name for (name,) in rows]


def next_number(tx: Transaction) -> int:
    """Return a number greater than all that were given out before."""
    row = tx.one("UPDATE sqs_counter SET value = value + 1 WHERE name = 'sequence' RETURNING value")
    assert row is not None
    return int(row[0])


def create(
    tx: Transaction, account: Account, queue_name: str, attributes: Mapping[str, str], tags: Mapping[str, str]
) -> Queue:
    """Create a queue, or return the one that has this name and these attributes.

    Raises QueueNameExists, InvalidParameterValue, InvalidAttributeName, InvalidAttributeValue.
    """
    if not _NAME.fullmatch(queue_name):
        raise InvalidParameterValue(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        )
    is_fifo = queue_name.endswith(".fifo")
    if is_fifo and attributes.get("FifoQueue") != "true":
        raise InvalidParameterValue(
            "The name of a standard queue can only include alphanumeric characters, hyphens, or underscores; a queue "
            "whose name ends in .fifo needs the attribute FifoQueue=true."
        )
    if not is_fifo and attributes.get("FifoQueue") == "true":
        raise InvalidParameterValue("The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
                                    "underscores, must end with .fifo suffix and be 1 to 80 in length.")  # fmt: skip
    existing = find(tx, queue_name)
    if existing is not None:
        for name, value in attributes.items():
            if _shown(existing, name) != value:
                raise QueueNameExists(
                    f"A queue already exists with the same name and a different value for attribute {name}"
                )
        return existing
    checked = check_attributes(tx, account, queue_name, attributes)
    check_tags(tags)
    count = tx.one("SELECT count(*) FROM sqs_queue")
    if count is not None and count[0] >= QUEUES_LIMIT:
        raise InvalidParameterValue(f"There are {QUEUES_LIMIT} queues already.")
    at_ms = clock.now_ms()
    queue = Queue(queue_name, next_number(tx), at_ms, at_ms, 0, checked, dict(tags))
    tx.execute(
        f"INSERT INTO sqs_queue ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (queue_name, queue.queue_id, at_ms, at_ms, 0, json.dumps(checked), json.dumps(queue.tags)),
    )
    return queue


def _shown(queue: Queue, name: str) -> str | None:
    if name in _RANGES:
        return str(queue.number(name))
    if name == "ContentBasedDeduplication":
        return queue.attributes.get(name, "false")
    return queue.attributes.get(name)


def check_attributes(
    reader: Reader, account: Account, queue_name: str, attributes: Mapping[str, str]
) -> dict[str, str]:
    """Return the attributes to store; raise InvalidAttributeName or InvalidAttributeValue."""
    is_fifo = queue_name.endswith(".fifo")
    for name, value in attributes.items():
        if name in _RANGES:
            least, greatest, _ = _RANGES[name]
            if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= greatest):
                raise InvalidAttributeValue(f"Invalid value for the parameter {name}.")
        elif name in _CHOICES:
            if not is_fifo and value != "false":
                raise InvalidAttributeName(f"Unknown Attribute {name}.")
            if value not in (*_CHOICES[name], *(() if is_fifo else ("false",))):
                raise InvalidAttributeValue(f"Invalid value for the parameter {name}.")
        elif name == "RedrivePolicy":
            _check_redrive_policy(reader, account, queue_name, value)
        elif name == "RedriveAllowPolicy":
            _check_redrive_allow_policy(value)
        elif name in _UNSUPPORTED:
            raise InvalidAttributeName(f"The attribute {name} is not supported here. Give roles permissions by IAM.")
        else:
            raise InvalidAttributeName(f"Unknown Attribute {name}.")
    kept = dict(attributes) if is_fifo else {name: v for name, v in attributes.items() if name not in _CHOICES}
    if kept.get("FifoThroughputLimit") == "perMessageGroupId" and kept.get("DeduplicationScope") == "queue":
        raise InvalidAttributeValue(
            "The perMessageGroupId value is allowed only when the value for DeduplicationScope is messageGroup."
        )
    return kept


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter {name} is invalid. Reason: Redrive policy is not a valid JSON map."
        )
    return value


def _check_redrive_policy(reader: Reader, account: Account, queue_name: str, text: str) -> None:
    if not text:
        return
    policy = _json_object("RedrivePolicy", text)
    if set(policy) != {"deadLetterTargetArn", "maxReceiveCount"}:
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: Redrive policy has the members "
            "deadLetterTargetArn and maxReceiveCount."
        )
    count = str(policy["maxReceiveCount"])
    if not (count.isascii() and count.isdigit() and len(count) < 5 and 1 <= int(count) <= 1_000):
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: Invalid value for maxReceiveCount: "
            f"{count[:20]}, valid values are from 1 to 1000 both inclusive."
        )
    target_arn = policy["deadLetterTargetArn"]
    target_name = target_arn.rpartition(":")[2] if isinstance(target_arn, str) else ""
    target = find(reader, target_name)
    if target is None or target_arn != account.arn("sqs", target_name):
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist."
        )
    if target.is_fifo != queue_name.endswith(".fifo"):
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: Dead-letter queue must be same type of "
            "queue as the source."
        )
    allowed = json.loads(target.attributes.get("RedriveAllowPolicy") or "{}")
    permission = allowed.get("redrivePermission", "allowAll")
    source_arn = account.arn("sqs", queue_name)
    if permission == "denyAll" or (permission == "byQueue" and source_arn not in allowed["sourceQueueArns"]):
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedrivePolicy is invalid. Reason: The dead-letter queue's "
            "RedriveAllowPolicy does not allow this source queue."
        )


def _check_redrive_allow_policy(text: str) -> None:
    if not text:
        return
    policy = _json_object("RedriveAllowPolicy", text)
    permission, sources = policy.get("redrivePermission"), policy.get("sourceQueueArns")
    valid = permission in ("allowAll", "denyAll") and sources is None and len(policy) == 1
    if permission == "byQueue" and isinstance(sources, list):
        valid = 1 <= len(sources) <= 10 and all(isinstance(arn, str) for arn in sources) and len(policy) == 2
    if not valid:
        raise InvalidAttributeValue(
            f"Value {text[:200]} for parameter RedriveAllowPolicy is invalid. Reason: redrivePermission is allowAll, "
            "denyAll, or byQueue with one to ten sourceQueueArns."
        )


def set_attributes(tx: Transaction, account: Account, queue_name: str, attributes: Mapping[str, str]) -> None:
    """Set attributes; the others stay. An empty policy removes it."""
    queue = get(tx, queue_name)
    if "FifoQueue" in attributes and attributes["FifoQueue"] != str(queue.is_fifo).lower():
        raise InvalidAttributeName("You can specify FifoQueue only when a queue is created.")
    merged = {**queue.attributes, **check_attributes(tx, account, queue_name, attributes)}
    check_attributes(tx, account, queue_name, {k: merged[k] for k in merged if k in _CHOICES})
    tx.execute(
        "UPDATE sqs_queue SET attributes = ?, modified_at_ms = ? WHERE queue_name = ?",
        (json.dumps({name: value for name, value in merged.items() if value}), clock.now_ms(), queue_name),
    )


def check_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterValue for tags that AWS does not take."""
    if len(tags) > TAGS_LIMIT:
        raise InvalidParameterValue(f"Too many tags added for queue: at most {TAGS_LIMIT}.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise InvalidParameterValue(f"The tag {key[:128]!r} is not valid.")


def set_tags(tx: Transaction, queue_name: str, tags: Mapping[str, str]) -> None:
    """Replace the tags of a queue."""
    check_tags(tags)
    tx.execute("UPDATE sqs_queue SET tags = ? WHERE queue_name = ?", (json.dumps(dict(tags)), queue_name))


def delete(tx: Transaction, queue_name: str) -> None:
    """Delete a queue with its messages. Here the name may be used again at once (AWS asks to wait for a minute)."""
    queue = get(tx, queue_name)
    tx.execute("DELETE FROM sqs_queue WHERE queue_name = ?", (queue_name,))
    tx.execute("INSERT INTO sqs_doomed (queue_id) VALUES (?)", (queue.queue_id,))


def purge(tx: Transaction, queue_name: str) -> None:
    """Drop all messages of a queue; raise PurgeQueueInProgress."""
    queue, at_ms = get(tx, queue_name), clock.now_ms()
    if at_ms - queue.purged_at_ms < PURGE_PAUSE_MS:
        raise PurgeQueueInProgress(f"Only one PurgeQueue operation on {queue_name} is allowed every 60 seconds.")
    tx.execute("INSERT INTO sqs_doomed (queue_id) VALUES (?)", (queue.queue_id,))
    tx.execute(
        "UPDATE sqs_queue SET queue_id = ?, purged_at_ms = ? WHERE queue_name = ?",
        (next_number(tx), at_ms, queue_name),
    )


def sources_of(reader: Reader, account: Account, queue_name: str) -> list[str]:
    """Return the names of the queues whose dead letters go to this one, sorted."""
    get(reader, queue_name)
    arn = account.arn("sqs", queue_name)
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM sqs_queue WHERE attributes LIKE '%deadLetterTargetArn%' "  # noqa: S608
        "ORDER BY queue_name LIMIT ?",
        (QUEUES_LIMIT,),
    )
    found = []
    for queue in map(_queue, rows):
        policy = queue.redrive_policy
        if policy is not None and account.arn("sqs", policy.dead_letter_queue_name) == arn:
            found.append(queue.queue_name)
    return found
