"""The tables of DynamoDB: definitions, items, the entries of indexes, streams and their records."""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "dynamodb",
        1,
        (
            """CREATE TABLE dynamodb_table (
                table_name TEXT NOT NULL PRIMARY KEY,
                table_id INTEGER NOT NULL UNIQUE,
                revision TEXT NOT NULL,
                definition TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL
            )""",
            """CREATE TABLE dynamodb_item (
                table_id INTEGER NOT NULL,
                partition_key BLOB NOT NULL,
                sort_key BLOB NOT NULL,
                body BLOB NOT NULL,
                PRIMARY KEY (table_id, partition_key, sort_key)
            )""",
            """CREATE TABLE dynamodb_index_entry (
                table_id INTEGER NOT NULL,
                index_number INTEGER NOT NULL,
                partition_key BLOB NOT NULL,
                sort_key BLOB NOT NULL,
                item_partition_key BLOB NOT NULL,
                item_sort_key BLOB NOT NULL,
                PRIMARY KEY (table_id, index_number, partition_key, sort_key, item_partition_key, item_sort_key)
            )""",
            "CREATE TABLE dynamodb_deleted_table (table_id INTEGER NOT NULL PRIMARY KEY)",
            "CREATE TABLE dynamodb_sequence (id INTEGER NOT NULL PRIMARY KEY, table_id INTEGER NOT NULL)",
            "INSERT INTO dynamodb_sequence (id, table_id) VALUES (1, 0)",
            """CREATE TABLE dynamodb_request_token (
                token TEXT NOT NULL PRIMARY KEY,
                digest TEXT NOT NULL,
                used_at_ms INTEGER NOT NULL
            )""",
            "CREATE INDEX dynamodb_request_token_by_age ON dynamodb_request_token (used_at_ms)",
        ),
    ),
    Migration(
        "dynamodb",
        2,
        (
            # Ids of streams come from the same counter as those of tables. key_attributes: JSON [[name, type], …].
            """CREATE TABLE dynamodb_stream (
                stream_id INTEGER NOT NULL PRIMARY KEY,
                table_name TEXT NOT NULL,
                label TEXT NOT NULL,
                view_type TEXT NOT NULL,
                key_attributes TEXT NOT NULL,
                created_at_ms INTEGER NOT NULL,
                disabled_at_ms INTEGER,
                first_sequence INTEGER NOT NULL,
                last_sequence INTEGER NOT NULL
            )""",
            "CREATE UNIQUE INDEX dynamodb_stream_by_name ON dynamodb_stream (table_name, label)",
            # kind: 0 INSERT, 1 MODIFY, 2 REMOVE, 3 REMOVE by Time to Live. Bodies as in dynamodb_item.
            """CREATE TABLE dynamodb_stream_record (
                stream_id INTEGER NOT NULL,
                sequence INTEGER NOT NULL,
                kind INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                partition_key BLOB NOT NULL,
                sort_key BLOB NOT NULL,
                old_body BLOB,
                new_body BLOB,
                PRIMARY KEY (stream_id, sequence)
            )""",
        ),
    ),
    Migration(
        "dynamodb",
        3,
        (
            # Indexes that are being built (up to which item) or dropped, in small steps.
            """CREATE TABLE dynamodb_index_work (
                table_id INTEGER NOT NULL,
                index_number INTEGER NOT NULL,
                is_build INTEGER NOT NULL,
                partition_key BLOB NOT NULL,
                sort_key BLOB NOT NULL,
                PRIMARY KEY (table_id, index_number)
            )""",
            # tags: JSON object.
            "CREATE TABLE dynamodb_tags (table_id INTEGER NOT NULL PRIMARY KEY, tags TEXT NOT NULL)",
        ),
    ),
)
