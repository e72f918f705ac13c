"""Sweeping: what nobody can receive any more goes, in small transactions."""

from entrepot.database import Reader, Transaction
from entrepot.services.sqs import queues, receiving, sending
from entrepot.services.sqs.queues import Queue

SWEEP_ROWS = 500
"""Rows that one transaction sweeps away."""

_TABLES = ("sqs_group", "sqs_deduplication", "sqs_attempt")


def doomed(reader: Reader) -> bool:
    """Return whether a deleted or purged queue has left something."""
    return reader.one("SELECT 1 FROM sqs_doomed LIMIT 1") is not None


def sweep_doomed(tx: Transaction) -> None:
    """Remove some of what a deleted or purged queue has left."""
    row = tx.one("SELECT queue_id FROM sqs_doomed ORDER BY queue_id LIMIT 1")
    if row is None:
        return
    queue_id = row[0]
    swept = tx.execute(
        "DELETE FROM sqs_message WHERE sequence IN "
        "(SELECT sequence FROM sqs_message WHERE queue_id = ? ORDER BY visible_at_ms LIMIT ?)",
        (queue_id, SWEEP_ROWS),
    )
    if swept < SWEEP_ROWS:
        for table in _TABLES:
            tx.execute(f"DELETE FROM {table} WHERE queue_id = ?", (queue_id,))  # noqa: S608
        tx.execute("DELETE FROM sqs_doomed WHERE queue_id = ?", (queue_id,))


def expired(reader: Reader, at_ms: int) -> list[str]:
    """Return the names of the queues with messages that are past their retention.

    A message is never visible before it was sent, so what became visible that long ago is surely older. One that was
    received since, and is older too, is dropped when somebody would receive it.
    """
    found = []
    for name in queues.list_names(reader, "", "", queues.QUEUES_LIMIT):
        queue = queues.get(reader, name)
        first_ms = receiving.next_visible_ms(reader, queue)
        if first_ms is not None and first_ms <= _oldest_ms(queue, at_ms):
            found.append(name)
    return found


def _oldest_ms(queue: Queue, at_ms: int) -> int:
    return at_ms - queue.number("MessageRetentionPeriod") * 1000


def sweep_expired(tx: Transaction, queue_name: str, at_ms: int) -> bool:
    """Remove some messages that are past their retention; return whether there may be more."""
    queue = queues.find(tx, queue_name)
    if queue is None:
        return False
    rows = tx.all(
        "SELECT sequence, group_id FROM sqs_message WHERE queue_id = ? AND visible_at_ms <= ? "
        "ORDER BY visible_at_ms LIMIT ?",
        (queue.queue_id, _oldest_ms(queue, at_ms), SWEEP_ROWS),
    )
    for sequence, _ in rows:
        tx.execute("DELETE FROM sqs_message WHERE sequence = ?", (sequence,))
    if queue.is_fifo:
        for group_id in {group_id for _, group_id in rows}:
            receiving.settle_group(tx, queue, group_id)
    return len(rows) == SWEEP_ROWS


def old_ids(reader: Reader, at_ms: int) -> bool:
    """Return whether de-duplication or attempt ids are past their time."""
    old_ms = at_ms - sending.DEDUPLICATION_MS
    return (
        reader.one("SELECT 1 FROM sqs_deduplication WHERE sent_at_ms <= ? LIMIT 1", (old_ms,)) is not None
        or reader.one("SELECT 1 FROM sqs_attempt WHERE received_at_ms <= ? LIMIT 1", (old_ms,)) is not None
    )


def sweep_ids(tx: Transaction, at_ms: int) -> None:
    """Forget some ids that are past their time."""
    old_ms = at_ms - sending.DEDUPLICATION_MS
    for queue_id, key in tx.all(
        "SELECT queue_id, deduplication_key FROM sqs_deduplication WHERE sent_at_ms <= ? ORDER BY sent_at_ms LIMIT ?",
        (old_ms, SWEEP_ROWS),
    ):
        tx.execute("DELETE FROM sqs_deduplication WHERE queue_id = ? AND deduplication_key = ?", (queue_id, key))
    for queue_id, attempt_id in tx.all(
        "SELECT queue_id, attempt_id FROM sqs_attempt WHERE received_at_ms <= ? ORDER BY received_at_ms LIMIT ?",
        (old_ms, SWEEP_ROWS),
    ):
        tx.execute("DELETE FROM sqs_attempt WHERE queue_id = ? AND attempt_id = ?", (queue_id, attempt_id))
