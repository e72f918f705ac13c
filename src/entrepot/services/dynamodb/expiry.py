"""Time to Live: items that name a moment in the past are deleted, as the service and not as somebody's request.

Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html
"""

from entrepot.database import Reader
from entrepot.services.dynamodb.definitions import Table
from entrepot.services.dynamodb.encoding import encode_number

TOO_OLD_S = 5 * 365 * 86_400
"""An item that expired longer ago is not deleted: AWS takes its attribute for a mistake."""


def tables_with_expiry(reader: Reader, after: str, limit: int) -> list[str]:
    """Return names of tables with Time to Live, in order."""
    rows = reader.all(
        "SELECT table_name FROM dynamodb_table WHERE table_name > ? AND definition LIKE '%\"TimeToLive\":[%' "
        "ORDER BY table_name LIMIT ?",
        (after, limit),
    )
    return [row[0] for row in rows]


def expired_keys(reader: Reader, table: Table, now_ms: int, limit: int) -> list[tuple[bytes, bytes]]:
    """Return the keys of items that have expired, at most `limit`, those first that expired first."""
    if table.time_to_live is None:
        return []
    now_s = now_ms // 1000
    rows = reader.all(
        "SELECT item_partition_key, item_sort_key FROM dynamodb_index_entry WHERE table_id = ? AND index_number = ? "
        "AND partition_key = ? AND sort_key > ? AND sort_key <= ? ORDER BY sort_key LIMIT ?",
        (
            table.table_id,
            table.time_to_live.number,
            b"",
            encode_number(str(now_s - TOO_OLD_S)),
            encode_number(str(now_s)),
            limit,
        ),
    )
    return [(row[0], row[1]) for row in rows]
