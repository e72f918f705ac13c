"""Items in the ledger: one row each, with the entries of indexes kept in the same transaction."""

from entrepot.database import Reader, Transaction
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.encoding import decode_body, decode_key, encode_body
from entrepot.services.dynamodb.indexes import update_entries
from entrepot.services.dynamodb.values import Item


class StaleTableError(Exception):
    """The remembered definition of a table is not the ledger's any more."""


def read_item(reader: Reader, table: Table, key: tuple[bytes, bytes]) -> Item | None:
    """Return an item, or None. Raise StaleTableError when the table has changed or gone since it was remembered."""
    row = reader.one(
        "SELECT t.revision, i.body FROM dynamodb_table t LEFT JOIN dynamodb_item i "
        "ON i.table_id = t.table_id AND i.partition_key = ? AND i.sort_key = ? WHERE t.table_name = ?",
        (key[0], key[1], table.table_name),
    )
    if row is None or row[0] != table.revision:
        raise StaleTableError
    return None if row[1] is None else whole_item(table, key, row[1])


def whole_item(table: Table, key: tuple[bytes, bytes], body: bytes) -> Item:
    """Return an item from its row."""
    item = {table.keys.partition.name: decode_key(table.keys.partition.type, key[0])}
    if table.keys.sort is not None:
        item[table.keys.sort.name] = decode_key(table.keys.sort.type, key[1])
    item.update(decode_body(body))
    return item


def write_item(tx: Transaction, table: Table, key: tuple[bytes, bytes], old: Item | None, new: Item) -> None:
    """Store an item whose former state is `old`. Raise ValidationException when it does not fit an index."""
    if table.indexes or table.time_to_live is not None:
        update_entries(tx, table, key, old, new)
    body = encode_body(new, table.key_names)
    if old is None:
        tx.execute(
            "INSERT INTO dynamodb_item (table_id, partition_key, sort_key, body) VALUES (?, ?, ?, ?)",
            (table.table_id, key[0], key[1], body),
        )
    else:
        tx.execute(
            "UPDATE dynamodb_item SET body = ? WHERE table_id = ? AND partition_key = ? AND sort_key = ?",
            (body, table.table_id, key[0], key[1]),
        )


def remove_item(tx: Transaction, table: Table, key: tuple[bytes, bytes], old: Item) -> None:
    """Delete an item whose state is `old`."""
    if table.indexes or table.time_to_live is not None:
        update_entries(tx, table, key, old, None)
    tx.execute(
        "DELETE FROM dynamodb_item WHERE table_id = ? AND partition_key = ? AND sort_key = ?",
        (table.table_id, key[0], key[1]),
    )
