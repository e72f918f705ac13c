"""The outbox: deliveries that wait, each with its row, written in the transaction of what causes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from entrepot.database import Reader, Transaction
from entrepot.services.sns import messages, subscriptions, topics
from entrepot.services.sns.messages import Message
from entrepot.services.sns.subscriptions import Subscription
from entrepot.services.sns.topics import Topic


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery's row. `kind` is one of `envelopes.TYPES`; `message_id` is 0 where there is no message."""

    delivery_id: int
    subscription_id: int
    message_id: int
    kind: int
    queued_at_ms: int
    due_at_ms: int
    failures: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What is due for one subscription. `subscription` is None when it is gone; a message is None for confirmations."""

    subscription: Subscription | None
    topic: Topic | None
    deliveries: tuple[tuple[Waiting, Message | None], ...]


def put_message(tx: Transaction, message: Message, waiting: int) -> int:
    """Keep a message for so many deliveries; return its number."""
    message_id = topics.next_number(tx)
    tx.execute(
        "INSERT INTO sns_message (message_id, content, waiting) VALUES (?, ?, ?)",
        (message_id, message.to_json(), waiting),
    )
    return message_id


def queue(tx: Transaction, subscription_ids: Sequence[int], message_id: int, kind: int, now_ms: int) -> None:
    """Make deliveries due at once."""
    first = topics.next_number(tx, len(subscription_ids))
    for delivery_id, subscription_id in enumerate(subscription_ids, first):
        tx.execute(
            "INSERT INTO sns_delivery (delivery_id, subscription_id, message_id, kind, queued_at_ms, due_at_ms, failures) "
            "VALUES (?, ?, ?, ?, ?, ?, 0)",
            (delivery_id, subscription_id, message_id, kind, now_ms, now_ms),
        )


def due(reader: Reader, subscription_id: int, now_ms: int, limit: int) -> Batch:
    """Return what is due for a subscription, oldest first."""
    rows = reader.all(
        "SELECT delivery_id, subscription_id, message_id, kind, queued_at_ms, due_at_ms, failures FROM sns_delivery "
        "WHERE subscription_id = ? AND due_at_ms <= ? ORDER BY due_at_ms, delivery_id LIMIT ?",
        (subscription_id, now_ms, limit),
    )
    subscription = subscriptions.by_id(reader, subscription_id) if rows else None
    topic = topics.find(reader, subscription.topic_name) if subscription is not None else None
    found = []
    for row in rows:
        waiting = Waiting(*row)
        content = None
        if subscription is not None and waiting.message_id:
            content = reader.one("SELECT content FROM sns_message WHERE message_id = ?", (waiting.message_id,))
        found.append((waiting, None if content is None else messages.from_json(content[0])))
    return Batch(subscription, topic, tuple(found))


def next_due_ms(reader: Reader, subscription_id: int) -> int | None:
    """Return when the next delivery to a subscription is due, or None when none waits."""
    row = reader.one(
        "SELECT due_at_ms FROM sns_delivery WHERE subscription_id = ? ORDER BY due_at_ms LIMIT 1", (subscription_id,)
    )
    return None if row is None else int(row[0])


def subscription_ids(reader: Reader, after: int, limit: int) -> list[int]:
    """Return the subscriptions that have deliveries waiting, in order, each found by one step in the index."""
    found: list[int] = []
    while len(found) < limit:
        row = reader.one(
            "SELECT subscription_id FROM sns_delivery WHERE subscription_id > ? ORDER BY subscription_id LIMIT 1",
            (after,),
        )
        if row is None:
            break
        after = row[0]
        found.append(after)
    return found


def remove(tx: Transaction, waiting: Waiting) -> None:
    """Forget a delivery, and its message with the last that needs it."""
    if (
        not tx.execute("DELETE FROM sns_delivery WHERE delivery_id = ?", (waiting.delivery_id,))
        or not waiting.message_id
    ):
        return
    row = tx.one(
        "UPDATE sns_message SET waiting = waiting - 1 WHERE message_id = ? RETURNING waiting", (waiting.message_id,)
    )
    if row is not None and row[0] <= 0:
        tx.execute("DELETE FROM sns_message WHERE message_id = ?", (waiting.message_id,))


def postpone(tx: Transaction, waiting: Waiting, due_at_ms: int) -> None:
    """Note a failure and make the delivery due later."""
    tx.execute(
        "UPDATE sns_delivery SET due_at_ms = ?, failures = ? WHERE delivery_id = ?",
        (due_at_ms, waiting.failures + 1, waiting.delivery_id),
    )
