"""DynamoDB Streams: the records of changes to the items of a table, kept for 24 hours.

A record is written in the transaction that changes the item. A stream has one shard, which stays open for as long as the
stream is enabled; sequence numbers grow by one, so that a reader sees every change once and in order.
Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
"""

import json
from dataclasses import dataclass
from itertools import takewhile

from entrepot import clock
from entrepot.database import Reader, Row, Transaction
from entrepot.services.dynamodb.definitions import KeyAttribute, Keys, Table, TableStream
from entrepot.services.dynamodb.encoding import decode_body, decode_key, encode_body
from entrepot.services.dynamodb.values import Item

RETENTION_MS = 24 * 3_600_000
"""How long a record, and a stream that was disabled, can be read (AWS: 24 hours)."""

MAX_RECORDS = 1_000
"""Records of one answer (AWS's limit)."""

MAX_ANSWER_BYTES = 1024 * 1024
"""Bytes of one answer as they lie in the ledger (AWS's limit of 1 MB)."""

INSERT, MODIFY, REMOVE, EXPIRE = range(4)
"""What happened to the item; EXPIRE is a removal by Time to Live."""

SEQUENCE_BASE = 10**20
"""Added to a sequence number outside, where it has 21 digits (AWS: 21 to 40)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's row. `first_sequence` is the oldest record that is kept, `last_sequence` the newest (0: none yet)."""

    stream_id: int
    table_name: str
    label: str
    view_type: str
    keys: Keys
    created_at_ms: int
    disabled_at_ms: int | None
    first_sequence: int
    last_sequence: int

    @property
    def shard_id(self) -> str:
        """The name of the stream's one shard."""
        return f"shardId-{self.created_at_ms:020d}-{self.stream_id:08x}"


@dataclass(frozen=True, slots=True)
class Record:
    """One change of an item: `kind` is INSERT, MODIFY, REMOVE or EXPIRE; images are there as the view type asks."""

    sequence: int
    kind: int
    created_at_ms: int
    key: Item
    old: Item | None
    new: Item | None


# ── the life of a stream ─────────────────────────────────────────────────────────────────────────────────────────────


def create_stream(tx: Transaction, stream_id: int, table_name: str, keys: Keys, view_type: str) -> TableStream:
    """Begin a stream. Its label is the moment, and never the one of an earlier stream of the table."""
    now_ms = clock.now_ms()
    last = tx.one("SELECT MAX(created_at_ms) FROM dynamodb_stream WHERE table_name = ?", (table_name,))
    if last is not None and last[0] is not None:
        now_ms = max(now_ms, last[0] + 1)
    label = clock.iso(now_ms)[:-1]
    shown_keys = json.dumps([[attribute.name, attribute.type] for attribute in keys.attributes])
    tx.execute(
        "INSERT INTO dynamodb_stream (stream_id, table_name, label, view_type, key_attributes, created_at_ms, "
        "first_sequence, last_sequence) VALUES (?, ?, ?, ?, ?, ?, 1, 0)",
        (stream_id, table_name, label, view_type, shown_keys, now_ms),
    )
    return TableStream(stream_id, label, view_type, enabled=True)


def disable_stream(tx: Transaction, stream_id: int) -> None:
    """End a stream; its records can be read until they are too old."""
    tx.execute("UPDATE dynamodb_stream SET disabled_at_ms = ? WHERE stream_id = ?", (clock.now_ms(), stream_id))


def record_change(
    tx: Transaction,
    table: Table,
    stream: TableStream,
    key: tuple[bytes, bytes],
    old: Item | None,
    new: Item | None,
    *,
    expired: bool = False,
) -> None:
    """Write what happened to an item into its table's stream."""
    kind = INSERT if old is None else MODIFY if new is not None else EXPIRE if expired else REMOVE
    with_old = stream.view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")
    with_new = stream.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
    row = tx.one(
        "UPDATE dynamodb_stream SET last_sequence = last_sequence + 1 WHERE stream_id = ? RETURNING last_sequence",
        (stream.stream_id,),
    )
    assert row is not None
    tx.execute(
        "INSERT INTO dynamodb_stream_record (stream_id, sequence, kind, created_at_ms, partition_key, sort_key, "
        "old_body, new_body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            stream.stream_id,
            row[0],
            kind,
            clock.now_ms(),
            key[0],
            key[1],
            encode_body(old, table.key_names) if with_old and old is not None else None,
            encode_body(new, table.key_names) if with_new and new is not None else None,
        ),
    )


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_COLUMNS = (
    "stream_id, table_name, label, view_type, key_attributes, created_at_ms, disabled_at_ms, first_sequence, "
    "last_sequence"
)


def _stream(row: Row) -> Stream:
    attributes = [KeyAttribute(name, kind) for name, kind in json.loads(row[4])]
    keys = Keys(attributes[0], attributes[1] if len(attributes) == 2 else None)
    return Stream(row[0], row[1], row[2], row[3], keys, row[5], row[6], row[7], row[8])


def find_stream(reader: Reader, table_name: str, label: str) -> Stream | None:
    """Return a stream that is enabled, or was less than 24 hours ago."""
    row = reader.one(
        f"SELECT {_COLUMNS} FROM dynamodb_stream WHERE table_name = ? AND label = ?",  # noqa: S608 - names from above
        (table_name, label),
    )
    return None if row is None else _stream(row)


def list_streams(reader: Reader, table_name: str | None, after: tuple[str, str], limit: int) -> list[Stream]:
    """Return at most `limit` streams, of one table or of all, ordered by (table name, label), after the one given."""
    where, parameters = "", list(after)
    if table_name is not None:
        where = "AND table_name = ?"
        parameters.append(table_name)
    rows = reader.all(
        f"SELECT {_COLUMNS} FROM dynamodb_stream WHERE (table_name, label) > (?, ?) {where} "  # noqa: S608 - as above
        "ORDER BY table_name, label LIMIT ?",
        [*parameters, limit],
    )
    return [_stream(row) for row in rows]


def read_records(reader: Reader, stream: Stream, first: int, limit: int) -> list[Record]:
    """Return records from the sequence number `first` on: at most `limit`, and little more than 1 MB."""
    found: list[Record] = []
    size_bytes = 0
    while len(found) < limit:
        chunk = min(100, limit - len(found))
        rows = reader.all(
            "SELECT sequence, kind, created_at_ms, partition_key, sort_key, old_body, new_body "
            "FROM dynamodb_stream_record WHERE stream_id = ? AND sequence >= ? ORDER BY sequence LIMIT ?",
            (stream.stream_id, first, chunk),
        )
        for row in rows:
            size_bytes += sum(len(column) for column in row[3:] if column is not None)
            found.append(_record(stream.keys, row))
            if size_bytes >= MAX_ANSWER_BYTES:
                return found
        if len(rows) < chunk:
            break
        first = rows[-1][0] + 1
    return found


def _record(keys: Keys, row: Row) -> Record:
    sequence, kind, created_at_ms, partition_key, sort_key, old_body, new_body = row
    key = {keys.partition.name: decode_key(keys.partition.type, partition_key)}
    if keys.sort is not None:
        key[keys.sort.name] = decode_key(keys.sort.type, sort_key)
    old = None if old_body is None else {**key, **decode_body(old_body)}
    new = None if new_body is None else {**key, **decode_body(new_body)}
    return Record(sequence, kind, created_at_ms, key, old, new)


# ── retention ────────────────────────────────────────────────────────────────────────────────────────────────────────


def streams_with_old_records(reader: Reader, now_ms: int, limit: int) -> list[int]:
    """Return ids of streams that have something older than 24 hours, at most `limit`."""
    rows = reader.all(
        "SELECT s.stream_id FROM dynamodb_stream s LEFT JOIN dynamodb_stream_record r "
        "ON r.stream_id = s.stream_id AND r.sequence = s.first_sequence "
        "WHERE r.created_at_ms < ? OR (r.sequence IS NULL AND s.disabled_at_ms < ?) LIMIT ?",
        (now_ms - RETENTION_MS, now_ms - RETENTION_MS, limit),
    )
    return [row[0] for row in rows]


def sweep_stream(tx: Transaction, stream_id: int, now_ms: int, limit: int) -> bool:
    """Delete at most `limit` old records, and a disabled stream without any; tell whether there may be more."""
    before_ms = now_ms - RETENTION_MS
    rows = tx.all(
        "SELECT sequence, created_at_ms FROM dynamodb_stream_record WHERE stream_id = ? ORDER BY sequence LIMIT ?",
        (stream_id, limit),
    )
    old = list(takewhile(lambda row: row[1] < before_ms, rows))
    if not old:
        if not rows:
            tx.execute("DELETE FROM dynamodb_stream WHERE stream_id = ? AND disabled_at_ms < ?", (stream_id, before_ms))
        return False
    last = old[-1][0]
    tx.execute("DELETE FROM dynamodb_stream_record WHERE stream_id = ? AND sequence <= ?", (stream_id, last))
    tx.execute("UPDATE dynamodb_stream SET first_sequence = ? WHERE stream_id = ?", (last + 1, stream_id))
    return len(old) == limit
