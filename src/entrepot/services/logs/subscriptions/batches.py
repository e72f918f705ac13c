"""What waits for a subscription's destination, as rows of the log store."""

import zlib
from dataclasses import dataclass

import msgspec

from entrepot.services.logs.session import Session

READ_LIMIT_BYTES = 1 << 20
"""Waiting batches (deflated) that are read together, but at least one."""

READ_LIMIT_ROWS = 500

_decode = msgspec.json.Decoder(list[tuple[str, int, str]]).decode


@dataclass(frozen=True, slots=True)
class Event:
    """One event to deliver."""

    id: str
    stream: str
    timestamp_ms: int
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Matching events of one stream that were stored together."""

    batch_id: int
    stream: str
    events: list[Event]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Work:
    """The oldest of what waits for a subscription's destination."""

    filter_id: int
    group: str
    filter_name: str
    destination_arn: str
    batches: list[Batch]


def waiting_filters(session: Session) -> list[int]:
    """Return the ids of filters that have something to deliver."""
    return [row[0] for row in session.all("SELECT DISTINCT filter_id FROM subscription_batch")]


def next_work(session: Session, filter_id: int) -> Work | None:
    """Return the oldest batches of a filter; None when there are none, or the filter is gone."""
    row = session.one(
        "SELECT g.name, f.name, f.destination_arn FROM subscription_filter f JOIN log_group g USING (group_id) "
        "WHERE f.filter_id = ?",
        (filter_id,),
    )
    if row is None:
        return None
    batches: list[Batch] = []
    size = 0
    for batch_id, stream, body in session.connection.execute(
        "SELECT batch_id, stream, body FROM subscription_batch WHERE filter_id = ? ORDER BY batch_id LIMIT ?",
        (filter_id, READ_LIMIT_ROWS),
    ):
        assert isinstance(batch_id, int) and isinstance(stream, str) and isinstance(body, bytes)
        events = [Event(event[0], stream, event[1], event[2]) for event in _decode(zlib.decompress(body))]
        batches.append(Batch(batch_id, stream, events, len(body)))
        size += len(body)
        if size >= READ_LIMIT_BYTES:
            break
    return Work(filter_id, row[0], row[1], row[2], batches) if batches else None


def forget(session: Session, batches: list[Batch]) -> None:
    """Delete what was delivered."""
    session.connection.executemany(
        "DELETE FROM subscription_batch WHERE batch_id = ?", [(batch.batch_id,) for batch in batches]
    )
