"""The entries of indexes: kept with each item, and built or dropped in small steps when an index comes or goes.

An index's entry names an item by the index's key and the item's own. Time to Live has an index too, by the moment at which
items expire; nobody can query it.
"""

from entrepot.database import Reader, Transaction
from entrepot.services.dynamodb.definitions import Index, Table, TimeToLive
from entrepot.services.dynamodb.encoding import decode_body, decode_key, encode_number
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.keys import index_key
from entrepot.services.dynamodb.values import Item

Key = tuple[bytes, bytes]


def update_entries(tx: Transaction, table: Table, key: Key, old: Item | None, new: Item | None) -> None:
    """Bring an item's entries to its new state. Raise ValidationException when it does not fit an index."""
    for index in table.indexes:
        before = None if old is None else index_key(index, old)
        after = None if new is None else index_key(index, new)
        _move(tx, table, index.number, key, before, after)
    if table.time_to_live is not None:
        expiry = table.time_to_live
        _move(tx, table, expiry.number, key, expiry_key(expiry, old), expiry_key(expiry, new))


def expiry_key(expiry: TimeToLive, item: Item | None) -> Key | None:
    """Return under which key an item stands among those that expire; None when it does not expire."""
    value = None if item is None else item.get(expiry.attribute_name)
    return None if value is None or "N" not in value else (b"", encode_number(value["N"]))


def _move(tx: Transaction, table: Table, number: int, key: Key, before: Key | None, after: Key | None) -> None:
    if before == after:
        return
    if before is not None:
        tx.execute(
            "DELETE FROM dynamodb_index_entry WHERE table_id = ? AND index_number = ? AND partition_key = ? "
            "AND sort_key = ? AND item_partition_key = ? AND item_sort_key = ?",
            (table.table_id, number, *before, *key),
        )
    if after is not None:
        _insert(tx, table, number, key, after)


def _insert(tx: Transaction, table: Table, number: int, key: Key, entry: Key) -> None:
    """Insert an entry, which may be there already while an index is built."""
    tx.execute(
        "INSERT INTO dynamodb_index_entry (table_id, index_number, partition_key, sort_key, item_partition_key, "
        "item_sort_key) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (table_id, index_number, partition_key, sort_key, "
        "item_partition_key, item_sort_key) DO NOTHING",
        (table.table_id, number, *entry, *key),
    )


# ── work that takes more than one transaction ────────────────────────────────────────────────────────────────────────


def begin_build(tx: Transaction, table_id: int, number: int) -> None:
    """Note that the entries of an index have to be made for the items that are there."""
    tx.execute(
        "INSERT INTO dynamodb_index_work (table_id, index_number, is_build, partition_key, sort_key) VALUES (?, ?, 1, ?, ?)",
        (table_id, number, b"", b""),
    )


def begin_drop(tx: Transaction, table_id: int, number: int) -> None:
    """Note that the entries of an index are needed no more."""
    tx.execute(
        "INSERT INTO dynamodb_index_work (table_id, index_number, is_build, partition_key, sort_key) VALUES (?, ?, 0, ?, ?) "
        "ON CONFLICT (table_id, index_number) DO UPDATE SET is_build = 0",
        (table_id, number, b"", b""),
    )


def forget_work(tx: Transaction, table_id: int) -> None:
    """Forget the work on a table that is deleted: its entries are swept away with its items."""
    tx.execute("DELETE FROM dynamodb_index_work WHERE table_id = ?", (table_id,))


def next_work(reader: Reader) -> tuple[int, int, bool] | None:
    """Return (table id, index number, whether it is built) of work to do, or None."""
    row = reader.one(
        "SELECT table_id, index_number, is_build FROM dynamodb_index_work ORDER BY table_id, index_number LIMIT 1"
    )
    return None if row is None else (row[0], row[1], bool(row[2]))


def drop_step(tx: Transaction, table_id: int, number: int, limit: int) -> None:
    """Delete at most `limit` entries; with the last of them the work is done."""
    columns = "index_number, partition_key, sort_key, item_partition_key, item_sort_key"
    if not tx.execute(
        f"DELETE FROM dynamodb_index_entry WHERE table_id = ? AND ({columns}) IN (SELECT {columns} "  # noqa: S608 - as above
        "FROM dynamodb_index_entry WHERE table_id = ? AND index_number = ? LIMIT ?)",
        (table_id, table_id, number, limit),
    ):
        tx.execute("DELETE FROM dynamodb_index_work WHERE table_id = ? AND index_number = ?", (table_id, number))


def build_step(tx: Transaction, table: Table, number: int, limit: int) -> bool:
    """Make the entries of the next `limit` items; tell whether that were the last ones."""
    position = tx.one(
        "SELECT partition_key, sort_key FROM dynamodb_index_work WHERE table_id = ? AND index_number = ?",
        (table.table_id, number),
    )
    if position is None:
        return False
    rows = tx.all(
        "SELECT partition_key, sort_key, body FROM dynamodb_item WHERE table_id = ? AND (partition_key, sort_key) > (?, ?) "
        "ORDER BY partition_key, sort_key LIMIT ?",
        (table.table_id, *position, limit),
    )
    index = next((one for one in table.indexes if one.number == number), None)
    for row in rows:
        entry = _entry(table, index, row)
        if entry is not None:
            _insert(tx, table, number, (row[0], row[1]), entry)
    if len(rows) < limit:
        tx.execute("DELETE FROM dynamodb_index_work WHERE table_id = ? AND index_number = ?", (table.table_id, number))
        return True
    tx.execute(
        "UPDATE dynamodb_index_work SET partition_key = ?, sort_key = ? WHERE table_id = ? AND index_number = ?",
        (rows[-1][0], rows[-1][1], table.table_id, number),
    )
    return False


def _entry(table: Table, index: Index | None, row: tuple[bytes, bytes, bytes]) -> Key | None:
    """Return an item's key in an index (None: that of Time to Live); an item that does not fit is not in it."""
    item = decode_body(row[2])
    for attribute, encoded in zip(table.keys.attributes, row[:2], strict=False):
        item[attribute.name] = decode_key(attribute.type, encoded)
    if index is None:
        return None if table.time_to_live is None else expiry_key(table.time_to_live, item)
    try:
        return index_key(index, item)
    except ValidationException:
        return None
