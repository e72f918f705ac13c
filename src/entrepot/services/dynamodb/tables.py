"""Table definitions: checked, stored, found again.

A definition changes its `revision` (random, never used twice) with every change, by which a process notices that the
definition it remembers is old.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from entrepot import clock, ids
from entrepot.database import Reader, Transaction
from entrepot.services.dynamodb.encoding import encode_key
from entrepot.services.dynamodb.errors import (
    LimitExceededException,
    ResourceInUseException,
    ResourceNotFoundException,
    ValidationException,
)
from entrepot.services.dynamodb.values import Item, type_of

MAX_TABLES = 2_500
"""Tables of an account (AWS's default quota)."""

MAX_GLOBAL_INDEXES = 20
MAX_LOCAL_INDEXES = 5
MAX_PARTITION_KEY_BYTES = 2_048
MAX_SORT_KEY_BYTES = 1_024

_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_KEY_TYPES = ("S", "N", "B")


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """A key attribute and its type, S, N or B."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Keys:
    """A primary key, or the key of an index."""

    partition: KeyAttribute
    sort: KeyAttribute | None

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """Return the key's one or two attributes."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index; `number` names it in the ledger. `projection` is ALL, KEYS_ONLY or INCLUDE."""

    number: int
    index_name: str
    is_global: bool
    keys: Keys
    projection: str
    non_key_attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table's definition. `key_names` are the names of its primary key's attributes."""

    table_name: str
    table_id: int
    revision: str
    keys: Keys
    key_names: tuple[str, ...]
    attribute_types: dict[str, str]
    indexes: tuple[Index, ...]
    billing_mode: str
    read_capacity_units: int
    write_capacity_units: int
    deletion_protection: bool
    created_at_ms: int

    def index(self, index_name: str) -> Index:
        """Return the index of that name; raise ValidationException."""
        for index in self.indexes:
            if index.index_name == index_name:
                return index
        raise ValidationException(f"The table does not have the specified index: {index_name}")


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def define(definition: dict[str, Any], table_name: str, table_id: int, revision: str, created_at_ms: int) -> Table:
    """Return the table that CreateTable's parameters describe. Raise ValidationException."""
    types = _attribute_types(definition.get("AttributeDefinitions") or [])
    keys = _keys(definition.get("KeySchema") or [], types)
    indexes = _indexes(definition, types, keys)
    used = {attribute.name for one in (keys, *(index.keys for index in indexes)) for attribute in one.attributes}
    if used != set(types):
        raise ValidationException(
            "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match "
            "number of attributes defined in AttributeDefinitions"
        )
    billing_mode = definition.get("BillingMode") or "PROVISIONED"
    throughput = definition.get("ProvisionedThroughput") or {}
    if billing_mode not in ("PROVISIONED", "PAY_PER_REQUEST"):
        raise ValidationException(f"One or more parameter values were invalid: Unknown BillingMode {billing_mode}")
    if billing_mode == "PROVISIONED" and not throughput:
        raise ValidationException(
            "One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be "
            "specified when BillingMode is PROVISIONED"
        )
    if billing_mode == "PAY_PER_REQUEST" and throughput:
        raise ValidationException(
            "One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be "
            "specified when BillingMode is PAY_PER_REQUEST"
        )
    return Table(
        table_name=table_name,
        table_id=table_id,
        revision=revision,
        keys=keys,
        key_names=tuple(attribute.name for attribute in keys.attributes),
        attribute_types=types,
        indexes=indexes,
        billing_mode=billing_mode,
        read_capacity_units=int(throughput.get("ReadCapacityUnits", 0)),
        write_capacity_units=int(throughput.get("WriteCapacityUnits", 0)),
        deletion_protection=bool(definition.get("DeletionProtectionEnabled")),
        created_at_ms=created_at_ms,
    )


def _attribute_types(definitions: list[dict[str, Any]]) -> dict[str, str]:
    types: dict[str, str] = {}
    for definition in definitions:
        name, kind = definition.get("AttributeName"), definition.get("AttributeType")
        if not isinstance(name, str) or not 0 < len(name) <= 255 or kind not in _KEY_TYPES:
            raise ValidationException(
                f"1 validation error detected: Value '{kind}' at 'attributeDefinitions.member.attributeType' failed "
                "to satisfy constraint: Member must satisfy enum value set: [B, N, S]"
            )
        if name in types:
            raise ValidationException(
                f"Cannot have two attributes with the same name: duplicate AttributeName {name} in AttributeDefinitions"
            )
        types[name] = kind
    return types


def _keys(schema: list[dict[str, Any]], types: dict[str, str]) -> Keys:
    roles = [element.get("KeyType") for element in schema]
    if roles not in (["HASH"], ["HASH", "RANGE"]):
        raise ValidationException(
            "Invalid KeySchema: The first KeySchemaElement must be a HASH key type, the second, if any, a RANGE key "
            "type"
        )
    attributes = []
    for element in schema:
        name = str(element.get("AttributeName"))
        if name not in types:
            raise ValidationException(
                "One or more parameter values were invalid: Some index key attributes are not defined in "
                f"AttributeDefinitions. Keys: [{name}], AttributeDefinitions: [{', '.join(types)}]"
            )
        attributes.append(KeyAttribute(name, types[name]))
    if len(attributes) == 2 and attributes[0].name == attributes[1].name:
        raise ValidationException("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    return Keys(attributes[0], attributes[1] if len(attributes) == 2 else None)


def _indexes(definition: dict[str, Any], types: dict[str, str], keys: Keys) -> tuple[Index, ...]:
    local = definition.get("LocalSecondaryIndexes") or []
    globals_ = definition.get("GlobalSecondaryIndexes") or []
    if len(local) > MAX_LOCAL_INDEXES or len(globals_) > MAX_GLOBAL_INDEXES:
        raise ValidationException(
            f"One or more parameter values were invalid: at most {MAX_LOCAL_INDEXES} local and {MAX_GLOBAL_INDEXES} "
            "global secondary indexes per table"
        )
    indexes: list[Index] = []
    for number, (is_global, one) in enumerate([*((False, i) for i in local), *((True, i) for i in globals_)], 1):
        name = str(one.get("IndexName"))
        if not _TABLE_NAME.fullmatch(name) or name in {index.index_name for index in indexes}:
            raise ValidationException(f"One or more parameter values were invalid: Index name {name} is not valid")
        index_keys = _keys(one.get("KeySchema") or [], types)
        if not is_global and (index_keys.partition != keys.partition or index_keys.sort is None or keys.sort is None):
            raise ValidationException(
                "One or more parameter values were invalid: Index KeySchema does not have the table's hash key and a "
                f"range key of its own, or the table has no range key, for index: {name}"
            )
        projection = one.get("Projection") or {}
        kind = projection.get("ProjectionType")
        if kind not in ("ALL", "KEYS_ONLY", "INCLUDE"):
            raise ValidationException(
                f"One or more parameter values were invalid: Unknown ProjectionType: {kind} for index {name}"
            )
        attributes = tuple(projection.get("NonKeyAttributes") or ())
        if bool(attributes) != (kind == "INCLUDE"):
            raise ValidationException(
                "One or more parameter values were invalid: NonKeyAttributes go with the ProjectionType INCLUDE, and "
                f"with no other, for index {name}"
            )
        indexes.append(Index(one.get("Number", number), name, is_global, index_keys, kind, attributes))
    return tuple(indexes)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def create_table(tx: Transaction, table_name: str, definition: dict[str, Any]) -> Table:
    """Create a table from CreateTable's parameters. Raises ResourceInUse, LimitExceeded, Validation."""
    if not _TABLE_NAME.fullmatch(table_name):
        raise ValidationException(
            f"1 validation error detected: Value '{table_name[:300]}' at 'tableName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+ and have length between 3 and 255"
        )
    kept = {key: definition[key] for key in _DEFINITION_KEYS if definition.get(key)}
    revision, now_ms = ids.random_hex(8), clock.now_ms()
    define(kept, table_name, 0, revision, now_ms)
    if tx.one("SELECT 1 FROM dynamodb_table WHERE table_name = ?", (table_name,)) is not None:
        raise ResourceInUseException(f"Table already exists: {table_name}")
    count = tx.one("SELECT COUNT(*) FROM dynamodb_table")
    if count is not None and count[0] >= MAX_TABLES:
        raise LimitExceededException(f"Subscriber limit exceeded: there is a limit of {MAX_TABLES} tables")
    row = tx.one("UPDATE dynamodb_sequence SET table_id = table_id + 1 WHERE id = 1 RETURNING table_id")
    assert row is not None
    tx.execute(
        "INSERT INTO dynamodb_table (table_name, table_id, revision, definition, created_at_ms) VALUES (?, ?, ?, ?, ?)",
        (table_name, row[0], revision, json.dumps(kept, separators=(",", ":")), now_ms),
    )
    return define(kept, table_name, row[0], revision, now_ms)


def update_table(tx: Transaction, table: Table, changes: dict[str, Any]) -> Table:
    """Change billing mode, throughput or deletion protection. Raises Validation."""
    row = tx.one("SELECT definition FROM dynamodb_table WHERE table_name = ?", (table.table_name,))
    assert row is not None
    definition = json.loads(row[0])
    definition.update({key: value for key, value in changes.items() if value is not None})
    if definition.get("BillingMode") == "PAY_PER_REQUEST":
        definition.pop("ProvisionedThroughput", None)
    revision = ids.random_hex(8)
    updated = define(definition, table.table_name, table.table_id, revision, table.created_at_ms)
    tx.execute(
        "UPDATE dynamodb_table SET definition = ?, revision = ? WHERE table_name = ?",
        (json.dumps(definition, separators=(",", ":")), revision, table.table_name),
    )
    return replace(updated, revision=revision)


def delete_table(tx: Transaction, table: Table) -> None:
    """Delete a table; its items are swept away later, in pieces (`sweep`)."""
    if table.deletion_protection:
        raise ValidationException(
            "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection "
            "first."
        )
    tx.execute("DELETE FROM dynamodb_table WHERE table_name = ?", (table.table_name,))
    tx.execute("INSERT INTO dynamodb_deleted_table (table_id) VALUES (?)", (table.table_id,))


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


# ── keys of items ────────────────────────────────────────────────────────────────────────────────────────────────────


def not_found(table_name: str) -> ResourceNotFoundException:
    """Return the error for a table that the control plane cannot find."""
    return ResourceNotFoundException(f"Requested resource not found: Table: {table_name} not found")


def key_of_item(table: Table, item: Item) -> tuple[bytes, bytes]:
    """Return the encoded primary key of a whole item. Raise ValidationException."""
    encoded: list[bytes] = []
    for attribute in table.keys.attributes:
        value = item.get(attribute.name)
        if value is None:
            raise ValidationException(
                f"One or more parameter values were invalid: Missing the key {attribute.name} in the item"
            )
        if attribute.type not in value:
            raise ValidationException(
                f"One or more parameter values were invalid: Type mismatch for key {attribute.name} expected: "
                f"{attribute.type} actual: {type_of(value)}"
            )
        encoded.append(_checked_key(attribute, encode_key(value), is_sort=bool(encoded)))
    return encoded[0], encoded[1] if len(encoded) == 2 else b""


def key_of_request(table: Table, key: Item) -> tuple[bytes, bytes]:
    """Return the encoded primary key that a request's normalised `Key` gives. Raise ValidationException."""
    if len(key) != len(table.key_names):
        raise ValidationException("The provided key element does not match the schema")
    for attribute in table.keys.attributes:
        if attribute.type not in key.get(attribute.name, ()):
            raise ValidationException("The provided key element does not match the schema")
    return key_of_item(table, key)


def _checked_key(attribute: KeyAttribute, encoded: bytes, *, is_sort: bool) -> bytes:
    if not encoded:
        kind = "string" if attribute.type == "S" else "binary"
        raise ValidationException(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty {kind} value. Key: {attribute.name}"
        )
    limit = MAX_SORT_KEY_BYTES if is_sort else MAX_PARTITION_KEY_BYTES
    if len(encoded) > limit:
        which = (
            "rangekey has exceeded the maximum size limit of1024"
            if is_sort
            else ("hashkey has exceeded the maximum size limit of2048")
        )
        raise ValidationException(f"One or more parameter values were invalid: Size of {which} bytes")
    return encoded


def index_key(index: Index, item: Item) -> tuple[bytes, bytes] | None:
    """Return the encoded key under which an item stands in an index, or None when it has not all attributes for it.

    Raise ValidationException when an attribute has another type than the index's.
    """
    encoded: list[bytes] = []
    for attribute in index.keys.attributes:
        value = item.get(attribute.name)
        if value is None:
            return None
        if attribute.type not in value:
            raise ValidationException(
                f"One or more parameter values were invalid: Type mismatch for Index Key {attribute.name} Expected: "
                f"{attribute.type} Actual: {type_of(value)} IndexName: {index.index_name}"
            )
        try:
            encoded.append(_checked_key(attribute, encode_key(value), is_sort=bool(encoded)))
        except ValidationException as error:
            raise ValidationException(f"{error.message} IndexName: {index.index_name}") from None
    return encoded[0], encoded[1] if len(encoded) == 2 else b""
