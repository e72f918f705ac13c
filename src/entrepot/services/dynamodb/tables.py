"""Table definitions in the ledger: stored, found again, deleted.

A definition changes its `revision` (random, never used twice) with every change, by which a process notices that the
definition it remembers is old.
"""

import json
from dataclasses import astuple, replace
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.services.dynamodb import index_changes, indexes, streams
from entrepot.services.dynamodb.definitions import TABLE_NAME, Table, TableStream, define, view_type_of
from entrepot.services.dynamodb.errors import (
    LimitExceededException,
    ResourceInUseException,
    ResourceNotFoundException,
    ValidationException,
)

MAX_TABLES = 2_500
"""Tables of an account (AWS's default quota)."""

MAX_TAGS = 50
"""Tags of a table (AWS's limit)."""

INTERNAL_INDEXES = 1_000
"""Indexes that a table was not created with have numbers above this one."""


def not_found(table_name: str) -> ResourceNotFoundException:
    """Return the error for a table that the control plane cannot find."""
    return ResourceNotFoundException(f"Requested resource not found: Table: {table_name} not found")


def find_table(reader: Reader, table_name: str) -> Table | None:
    """Return a table's definition, or None."""
    row = reader.one(
        "SELECT table_id, revision, definition, created_at_ms FROM dynamodb_table WHERE table_name = ?", (table_name,)
    )
    return None if row is None else define(json.loads(row[2]), table_name, row[0], row[1], row[3])


def list_tables(reader: Reader, after: str, limit: int) -> list[str]:
    """Return at most `limit` names after the one given."""
    rows = reader.all(
        "SELECT table_name FROM dynamodb_table WHERE table_name > ? ORDER BY table_name LIMIT ?", (after, limit)
    )
    return [row[0] for row in rows]


_DEFINITION_KEYS = (
    "AttributeDefinitions",
    "KeySchema",
    "LocalSecondaryIndexes",
    "GlobalSecondaryIndexes",
    "BillingMode",
    "ProvisionedThroughput",
    "DeletionProtectionEnabled",
)


_CHANGEABLE = ("BillingMode", "ProvisionedThroughput", "DeletionProtectionEnabled")


def create_table(tx: Transaction, table_name: str, definition: dict[str, Any]) -> Table:
    """Create a table from CreateTable's parameters. Raises ResourceInUse, LimitExceeded, Validation."""
    if not TABLE_NAME.fullmatch(table_name):
        raise ValidationException(
            f"1 validation error detected: Value '{table_name[:300]}' at 'tableName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have length between 3 and 255"
        )
    kept: dict[str, Any] = {key: definition[key] for key in _DEFINITION_KEYS if definition.get(key)}
    revision, now_ms = ids.random_hex(8), clock.now_ms()
    define(kept, table_name, 0, revision, now_ms)
    if tx.one("SELECT 1 FROM dynamodb_table WHERE table_name = ?", (table_name,)) is not None:
        raise ResourceInUseException(f"Table already exists: {table_name}")
    count = tx.one("SELECT COUNT(*) FROM dynamodb_table")
    if count is not None and count[0] >= MAX_TABLES:
        raise LimitExceededException(f"Subscriber limit exceeded: there is a limit of {MAX_TABLES} tables")
    table_id = _next_id(tx)
    view_type = view_type_of(definition.get("StreamSpecification") or {})
    if view_type is not None:
        keys = define(kept, table_name, table_id, revision, now_ms).keys
        kept["Stream"] = astuple(streams.create_stream(tx, _next_id(tx), table_name, keys, view_type))
    tx.execute(
        "INSERT INTO dynamodb_table (table_name, table_id, revision, definition, created_at_ms) VALUES (?, ?, ?, ?, ?)",
        (table_name, table_id, revision, json.dumps(kept, separators=(",", ":")), now_ms),
    )
    return define(kept, table_name, table_id, revision, now_ms)


def _next_id(tx: Transaction) -> int:
    """Return a number for a table or a stream that was never given out before."""
    row = tx.one("UPDATE dynamodb_sequence SET table_id = table_id + 1 WHERE id = 1 RETURNING table_id")
    assert row is not None
    number: int = row[0]
    return number


def _changed_stream(tx: Transaction, table: Table, specification: dict[str, Any]) -> TableStream:
    """Enable or disable a table's stream. Raise ValidationException when it is so already."""
    view_type = view_type_of(specification)
    is_enabled = table.stream is not None and table.stream.enabled
    if view_type is None:
        if table.stream is None or not is_enabled:
            raise ValidationException(f"Table has no enabled stream to disable: TableName: {table.table_name}")
        streams.disable_stream(tx, table.stream.stream_id)
        return replace(table.stream, enabled=False)
    if is_enabled:
        raise ValidationException(f"Table already has an enabled stream: TableName: {table.table_name}")
    return streams.create_stream(tx, _next_id(tx), table.table_name, table.keys, view_type)


def update_table(tx: Transaction, table: Table, changes: dict[str, Any]) -> Table:
    """Change billing mode, throughput, deletion protection, the stream or an index. Raises Validation, LimitExceeded."""
    definition = _definition(tx, table)
    definition.update({key: changes[key] for key in _CHANGEABLE if changes.get(key) is not None})
    if changes.get("StreamSpecification") is not None:
        definition["Stream"] = astuple(_changed_stream(tx, table, changes["StreamSpecification"]))
    if changes.get("GlobalSecondaryIndexUpdates"):
        index_changes.apply(
            tx, table, definition, changes["GlobalSecondaryIndexUpdates"], changes.get("AttributeDefinitions") or [],
            INTERNAL_INDEXES + _next_id(tx),
        )  # fmt: skip
    if definition.get("BillingMode") == "PAY_PER_REQUEST":
        definition.pop("ProvisionedThroughput", None)
    return _redefine(tx, table, definition)


def finish_index(tx: Transaction, table: Table, number: int) -> None:
    """Let an index be read, now that it has all entries."""
    definition = _definition(tx, table)
    for index in definition.get("GlobalSecondaryIndexes") or []:
        if index.get("Number") == number:
            index.pop("Building", None)
    _redefine(tx, table, definition)


def set_time_to_live(tx: Transaction, table: Table, attribute_name: str, *, enabled: bool) -> None:
    """Switch Time to Live on or off. Raise ValidationException when it is so already."""
    current = table.time_to_live
    if enabled == (current is not None):
        raise ValidationException(f"TimeToLive is already {'enabled' if enabled else 'disabled'}")
    definition = _definition(tx, table)
    if current is None:
        number = INTERNAL_INDEXES + _next_id(tx)
        definition["TimeToLive"] = [attribute_name, number]
        indexes.begin_build(tx, table.table_id, number)
    else:
        if attribute_name != current.attribute_name:
            raise ValidationException(
                f"TimeToLive is active on a different AttributeName: current AttributeName is {current.attribute_name}"
            )
        del definition["TimeToLive"]
        indexes.begin_drop(tx, table.table_id, current.number)
    _redefine(tx, table, definition)


def _definition(reader: Reader, table: Table) -> dict[str, Any]:
    row = reader.one("SELECT definition FROM dynamodb_table WHERE table_name = ?", (table.table_name,))
    assert row is not None
    definition: dict[str, Any] = json.loads(row[0])
    return definition


def _redefine(tx: Transaction, table: Table, definition: dict[str, Any]) -> Table:
    """Store a changed definition under a new revision. Raise ValidationException."""
    revision = ids.random_hex(8)
    updated = define(definition, table.table_name, table.table_id, revision, table.created_at_ms)
    tx.execute(
        "UPDATE dynamodb_table SET definition = ?, revision = ? WHERE table_name = ?",
        (json.dumps(definition, separators=(",", ":")), revision, table.table_name),
    )
    return updated


def delete_table(tx: Transaction, table: Table) -> None:
    """Delete a table; its items are swept away later, in pieces (`sweep`)."""
    if table.deletion_protection:
        raise ValidationException(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection "
            "first."
        )
    if table.stream is not None and table.stream.enabled:
        streams.disable_stream(tx, table.stream.stream_id)
    tx.execute("DELETE FROM dynamodb_table WHERE table_name = ?", (table.table_name,))
    tx.execute("INSERT INTO dynamodb_deleted_table (table_id) VALUES (?)", (table.table_id,))
    tx.execute("DELETE FROM dynamodb_tags WHERE table_id = ?", (table.table_id,))
    indexes.forget_work(tx, table.table_id)


def by_id(reader: Reader, table_id: int) -> Table | None:
    """Return a table by its id, or None."""
    row = reader.one("SELECT table_name FROM dynamodb_table WHERE table_id = ?", (table_id,))
    return None if row is None else find_table(reader, row[0])


def tags_of(reader: Reader, table: Table) -> dict[str, str]:
    """Return a table's tags."""
    row = reader.one("SELECT tags FROM dynamodb_tags WHERE table_id = ?", (table.table_id,))
    tags: dict[str, str] = {} if row is None else json.loads(row[0])
    return tags


def set_tags(tx: Transaction, table: Table, tags: dict[str, str]) -> None:
    """Replace a table's tags. Raise ValidationException."""
    if len(tags) > MAX_TAGS:
        raise ValidationException(f"One or more parameter values were invalid: Too many tags: {len(tags)} > {MAX_TAGS}")
    for key, value in tags.items():
        if not 0 < len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise ValidationException(f"One or more parameter values were invalid: the tag {key[:128]!r} is not valid")
    tx.execute(
        "INSERT INTO dynamodb_tags (table_id, tags) VALUES (?, ?) ON CONFLICT (table_id) DO UPDATE SET tags = excluded.tags",
        (table.table_id, json.dumps(tags, separators=(",", ":"))),
    )


def any_deleted(reader: Reader) -> bool:
    """Tell whether rows of deleted tables are left."""
    return reader.one("SELECT 1 FROM dynamodb_deleted_table LIMIT 1") is not None


def sweep(tx: Transaction, limit: int) -> bool:
    """Delete at most `limit` rows of deleted tables; tell whether there may be more."""
    row = tx.one("SELECT table_id FROM dynamodb_deleted_table ORDER BY table_id LIMIT 1")
    if row is None:
        return False
    for name, columns in (
        ("dynamodb_item", "partition_key, sort_key"),
        ("dynamodb_index_entry", "index_number, partition_key, sort_key, item_partition_key, item_sort_key"),
    ):
        if tx.execute(
            f"DELETE FROM {name} WHERE table_id = ? AND ({columns}) IN "  # noqa: S608 - names from above
            f"(SELECT {columns} FROM {name} WHERE table_id = ? LIMIT ?)",
            (row[0], row[0], limit),
        ):
            return True
    tx.execute("DELETE FROM dynamodb_deleted_table WHERE table_id = ?", (row[0],))
    return True
